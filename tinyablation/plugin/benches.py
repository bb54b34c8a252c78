"""The fixture `model`: one model of the session on its bench, loaded only if it must measure.

It is session-scoped and parametrized, so that pytest holds one model at a time and drops it before
the next; under xdist a worker stays with an embedded model (scheduling.py).
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext, suppress
from typing import TYPE_CHECKING, Any

import pytest

from tinyablation.corpora.defects import listed
from tinyablation.plugin.command_line import command
from tinyablation.plugin.conditions import conditions, own_conditions, read_conditions
from tinyablation.plugin.defects import complaint, defects_of
from tinyablation.plugin.environment import threads_per_worker, worker_count, worker_index
from tinyablation.plugin.options import AUTO, executor, protocol
from tinyablation.plugin.report import runs_folder
from tinyablation.plugin.screening_option import screening
from tinyablation.plugin.selection import cell_of, end
from tinyablation.plugin.session_models import corpora, registry
from tinyablation.plugin.subjects import HeadsError, beyond
from tinyablation.records.records import ALL_CONDITIONS

if TYPE_CHECKING:
    from tinyablation.cluster.dispatch import Dispatch
    from tinyablation.measurement.bench import Bench
    from tinyablation.models.residency import Sharing


class Hooks:
    """Hooks for other plugins (evidence.py)."""

    @pytest.hookspec
    def pytest_bench_made(self, bench: "Bench", config: pytest.Config) -> None:
        """Called when a bench was made for a model of the session, before it is used."""


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    pluginmanager.add_hookspecs(Hooks)


@pytest.fixture(scope="session")
def elsewhere(request: pytest.FixtureRequest) -> "Iterator[Dispatch | None]":
    """Measures what is missing on other machines (--executor); None: this process measures."""
    address = executor(request.config)
    if address.is_local:
        yield None
        return
    from tinyablation.cluster.dispatch import dispatching
    from tinyablation.cluster.executors import ExecutorError

    config = request.config
    progress = not hasattr(config, "workerinput") and config.get_verbosity() >= 0
    with ExitStack() as stack:
        try:
            made = stack.enter_context(
                dispatching(address, runs_folder(config), progress=progress, say=_printer(config))
            )
        except ExecutorError as error:
            end(request.session, str(error))
            raise
        yield made


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest, elsewhere: "Dispatch | None") -> str:
    """The device of this process (--device): several GPUs are distributed among the workers.

    If other processes measure, their kind of device.
    """
    from tinyablation.errors import TinyAblationError
    from tinyablation.models.devices import choose_device

    config = request.config
    try:
        if elsewhere is not None:
            from tinyablation.cluster.dispatch import device_of

            return device_of(executor(config), elsewhere, command(config).device)
        return choose_device(command(config).device, worker_index(config))
    except TinyAblationError as error:
        end(request.session, str(error))
        raise


@pytest.fixture(scope="session")
def sharing(request: pytest.FixtureRequest, device: str) -> "Sharing":
    """How this process shares the machine with the other workers, and with other sessions."""
    from tinyablation.models.residency import Sharing

    config = request.config
    say = _printer(config)
    turns = None
    if device != "cpu" and executor(config).is_local:
        from tinyablation.models.device_queue import Turns

        turns = Turns(say=say)
    # A GPU requested by number must be used; otherwise a model may go to any GPU where it fits.
    spread = ":" not in command(config).device
    return Sharing(turns, worker_count(config), _owner(config), spread, say)


@pytest.fixture(scope="session")
def model(
    request: pytest.FixtureRequest,
    device: str,
    sharing: "Sharing",
    elsewhere: "Dispatch | None",
) -> "Iterator[Bench]":
    """The bench of one model: runs, sweeps and unhooked tables by condition."""
    from tinyablation.measurement.bench import Bench
    from tinyablation.measurement.setup import Setup
    from tinyablation.runs.store import RunStore

    config = request.config
    setup = Setup(
        entry=registry(config)[request.param],
        corpora=corpora(config),
        seed=command(config).seed,
        device=device,
        dtype=None if command(config).dtype == AUTO else command(config).dtype,
        protocol=protocol(config),
        per_relation=command(config).per_relation,
    )
    bench = Bench(
        setup,
        RunStore(runs_folder(config), remeasure=command(config).remeasure),
        own=read_conditions(config),
        threads=threads_per_worker(config),
        progress=not hasattr(config, "workerinput") and config.get_verbosity() >= 0,
        sharing=sharing,
        screening=screening(config),
        elsewhere=elsewhere,
    )
    config.hook.pytest_bench_made(bench=bench, config=config)
    # Looks for the files, downloading those of a hub model, so that missing ones raise at once.
    bench.facts  # noqa: B018
    _require_accepted(request, bench)
    lacking = beyond(config, bench.entry.id, bench.facts)
    if lacking is not None:
        end(request.session, lacking)
        raise HeadsError(lacking)
    if elsewhere is not None and not hasattr(config, "workerinput"):
        _ask_ahead(request, bench)
    yield bench
    bench.release()


def _require_accepted(request: pytest.FixtureRequest, bench: "Bench") -> None:
    """End the session if the model's tokenizer reveals defects that were not accepted."""
    from tinyablation.corpora.examples import CorpusError

    config = request.config
    for name, defects in defects_of(request.session, bench).items():
        if said := complaint(config, name, defects, of=bench.entry.id):
            end(request.session, said)
            raise CorpusError(said)
        for kind, count in listed(defects).items():
            if kind not in listed(own_conditions(config)[name].defects):
                _printer(config)(f"condition {name}, {bench.entry.id}, accepted: {kind}: {count}")


def _ask_ahead(request: pytest.FixtureRequest, bench: "Bench") -> None:
    """Start measuring the gates of this model's conditions in parallel.

    xdist workers do so condition by condition, because otherwise each would request all of them.
    """
    from tinyablation.errors import TinyAblationError

    cells = {cell_of(item) for item in request.session.items}
    own = {condition for model, condition in cells if model == bench.entry.id}
    for name in conditions(request.config):
        if own & {name, ALL_CONDITIONS}:
            with suppress(TinyAblationError):  # raised again when the condition is requested
                bench.ahead(name, *bench.gate.batteries(name))


def _owner(config: pytest.Config) -> str:
    return str(getattr(config, "workerinput", {}).get("workerid", "main"))


def _printer(config: pytest.Config) -> "Callable[[str], None]":
    """A function that prints a line on the terminal despite capturing, to make waits visible."""
    manager: Any = config.pluginmanager.get_plugin("capturemanager")

    def say(line: str) -> None:
        # A worker's stderr is the terminal.
        with manager.global_and_fixture_disabled() if manager else nullcontext():
            print(f"[{_owner(config)}] {line}", file=sys.stderr, flush=True)

    return say


@pytest.fixture(scope="session")
def condition(request: pytest.FixtureRequest) -> str:
    """One of the session's conditions: the named ones, and those of --condition."""
    name: str = request.param
    return name
