"""Judges cells for evidence bundles: gathers evidence from a store, or judges from it alone.

Not part of ordinary sessions: `python -m tinyablation bundle` and `verdict` load it with -p
(tinyablation/evidence/rederivation.py).
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tinyablation.evidence.rederivation import Models
    from tinyablation.measurement.bench import Bench

_task_key = pytest.StashKey[Any]()
_notes_key = pytest.StashKey[Any]()
_models_key = pytest.StashKey[Any]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("evidence").addoption(
        "--evidence", type=Path, required=True, metavar="FILE", help="the task, as JSON"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Provide the models of the task before anything else needs them."""
    from tinyablation.errors import TinyAblationError
    from tinyablation.evidence.rederivation import MODELS, Notes, read_models, read_task

    try:
        task = config.stash[_task_key] = read_task(config.option.evidence)
        if task.store is not None:
            config.stash[_notes_key] = Notes()
            return
        from tinyablation.plugin.session_models import listed, provide

        models = config.stash[_models_key] = read_models(task.folder / MODELS)
        kept = models.models.values()
        own = listed(config)
        provide(
            config,
            # As the checkout describes them, with their cards, where it lists them.
            [own.get(each.entry.id, each.entry) for each in kept if each.standing == "listed"],
            [each.entry for each in kept if each.standing == "named"],
        )
    except TinyAblationError as error:
        raise pytest.UsageError(str(error)) from error


@pytest.hookimpl(optionalhook=True)  # specified by a plugin that is loaded later
def pytest_bench_made(bench: Any, config: pytest.Config) -> None:
    """Make the bench, and those made from it, read from the evidence or copy to it.

    Missing measurements are an error.
    """
    from tinyablation.evidence.rederivation import CORPORA, RUNS, Nobody
    from tinyablation.runs.store import RunStore

    task = config.stash[_task_key]
    bench.device = task.device
    bench.elsewhere = Nobody()
    runs, corpora = task.folder / RUNS, task.folder / CORPORA
    if task.store is None:
        bench.store = RunStore(runs)
        _read_kept(bench, corpora, config.stash[_models_key])
        return
    from tinyablation.evidence.rederivation import GatheringLibrary, GatheringStore

    notes = config.stash[_notes_key]
    bench.store = GatheringStore(runs, source=task.store)
    bench.library = GatheringLibrary(bench.library, corpora, notes)
    bench.described_by = notes.describe


def _read_kept(bench: "Bench", corpora: Path, models: "Models") -> None:
    from functools import partial

    from tinyablation.evidence.rederivation import KeptLibrary, kept_facts

    bench.setup = bench.setup.model_copy(update={"corpora": corpora})
    bench.library = KeptLibrary(corpora, models)
    bench.described_by = partial(kept_facts, models)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write models.json if evidence was gathered."""
    notes = session.config.stash.get(_notes_key, None)
    if notes is None:
        return
    from tinyablation.evidence.rederivation import MODELS
    from tinyablation.files.manifests import write_json
    from tinyablation.plugin.session_models import session_models

    known = session_models(session.config)

    def standing(name: str) -> str:
        if name not in known.registry:
            return "neither"
        return "listed" if known.is_listed(name) else "named"

    found = notes.models(standing)
    write_json(session.config.stash[_task_key].folder / MODELS, found.model_dump(mode="json"))
