"""The environment of a run: network only on request, a share of cores, a Hypothesis profile."""

import os
import sys

import pytest

from tinyablation.plugin.options import is_claims_run, is_guest
from tinyablation.plugin.session_models import named_hub_models

PROFILE = "tinyablation"
_loaded_key = pytest.StashKey[bool]()


def worker_count(config: pytest.Config) -> int:
    """How many processes share this machine: the number of xdist workers, else 1."""
    workerinput = getattr(config, "workerinput", None)
    return int(workerinput["workercount"]) if workerinput else 1


def cores() -> int:
    """The number of cores this process may use (a container's share, if the system reports it)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def threads_per_worker(config: pytest.Config) -> int:
    """Threads for torch in this process: cores / workers, at least 1.

    By default torch uses all cores in each process: four workers on two cores would run eight
    threads, each slower than a single one.
    """
    return max(1, cores() // worker_count(config))


def worker_index(config: pytest.Config) -> int:
    """The index of this process, from 0."""
    workerinput = getattr(config, "workerinput", None)
    return int(str(workerinput["workerid"]).removeprefix("gw")) if workerinput else 0


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    if is_guest(config):
        return  # other tests of the project may rely on its own environment
    _settle_network(config)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # forked workers warn otherwise
    if hasattr(config, "workerinput"):
        # torch reads these once, at its first import, and no plugin imports it.
        for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
            os.environ.setdefault(variable, str(threads_per_worker(config)))


def _settle_network(config: pytest.Config) -> None:
    """Disable network access unless a hub model is named; then the user's settings apply.

    huggingface_hub reads these variables at its first import, which happens later (it takes 0.6 s,
    and tests ensure it); workers inherit them.
    """
    if named_hub_models(config):
        return
    for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        if is_claims_run(config):
            os.environ[variable] = "1"  # even if the user's setting is 0
        else:
            os.environ.setdefault(variable, "1")


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    # Its terminal summary imports Hypothesis, which takes .5 s, even if no test used it. The
    # controller cannot know what the workers' tests used.
    config = session.config
    alone = config.getoption("dist", "no") == "no" and not is_guest(config)
    if alone and is_claims_run(config) and "hypothesis" not in sys.modules:
        config.pluginmanager.unregister(name="hypothesispytest")


@pytest.hookimpl(tryfirst=True)
def pytest_collectstart(collector: pytest.Collector) -> None:
    # Hypothesis takes half a second to import, so the profile is registered only for a module that
    # uses it, before that module's @settings are read.
    config = collector.config
    if not isinstance(collector, pytest.Module) or _loaded_key in config.stash or is_guest(config):
        return
    if b"hypothesis" in collector.path.read_bytes():
        config.stash[_loaded_key] = True
        register_profile(config.getoption("--hypothesis-profile", default=None))


def register_profile(chosen: str | None) -> None:
    """Register our Hypothesis profile, and load it unless `--hypothesis-profile` chose another.

    Hypothesis picks its `ci` profile if a CI variable exists, even an empty one, and otherwise has
    a 200 ms deadline, so the same test would behave differently on two machines.
    """
    from hypothesis import settings

    settings.register_profile(
        PROFILE, derandomize=True, deadline=None, database=None, print_blob=True
    )
    settings.load_profile(chosen or PROFILE)
