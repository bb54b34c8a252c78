"""Defects of the user's conditions: listed before anything is measured, to be accepted.

Without --accept-defects a session whose files have defects ends with a usage error that lists them
by kind. Defects in the texts are found at once; those for a model's tokenizer at collection if the
model is in a folder, otherwise once its files are available.
"""

from collections.abc import Generator, Iterable
from typing import TYPE_CHECKING, Any

import pytest

from tinyablation.corpora.defects import Defect, listed
from tinyablation.errors import TinyAblationError
from tinyablation.plugin.command_line import command
from tinyablation.plugin.conditions import own_conditions
from tinyablation.plugin.options import is_claims_run
from tinyablation.plugin.selection import cell_of, refuse
from tinyablation.plugin.session_models import corpora, registry

if TYPE_CHECKING:
    from tinyablation.measurement.bench import Bench


def complaint(
    config: pytest.Config, condition: str, defects: Iterable[Defect], of: str = ""
) -> str:
    """The usage error for these defects; "" if there is none."""
    found = listed(defects)
    if not found or command(config).accept_defects:
        return ""
    path = own_conditions(config)[condition].path
    lines = [f"  {kind}: {count}" for kind, count in found.items()]
    where = f", for {of}" if of else ""
    return "\n".join(
        (
            f"--condition {condition}: {path.name}{where} has defects:",
            *lines,
            "Correct them, or give --accept-defects: the file is then used as it is, and every "
            "record says so.",
        )
    )


def own_details(item: pytest.Item) -> dict[str, Any]:
    """The record's details on the corpus of a user's condition; {} for a named condition."""
    own = own_conditions(item.config).get(cell_of(item)[1])
    if own is None:
        return {}
    defects = own.defects
    bench: Any = getattr(item, "funcargs", {}).get("model")
    if hasattr(bench, "library"):
        defects = bench.library.defects(bench.facts.folder, own.name, bench.entry.id)
    return {"corpus": own.about(command(item.config).seed), "defects": listed(defects) or "none"}


def defects_of(session: pytest.Session, bench: "Bench") -> dict[str, tuple[Defect, ...]]:
    """Defects by user's condition, for those with cells of this model in the session."""
    cells = {cell_of(item) for item in session.items}
    return {
        name: bench.library.defects(bench.facts.folder, name, bench.entry.id)
        for name in own_conditions(session.config)
        if (bench.entry.id, name) in cells
    }


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput") or command(config).collectonly or not is_claims_run(config):
        return
    for name, own in own_conditions(config).items():
        if said := complaint(config, name, own.defects):
            raise pytest.UsageError(said)


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> Generator[None, object, object]:
    """Check the selected cells with the tokenizers of models in folders."""
    result = yield
    own = own_conditions(config) if is_claims_run(config) else {}
    if own and not command(config).collectonly and not command(config).accept_defects:
        cells = sorted({cell_of(item) for item in items if cell_of(item)[1] in own})
        try:
            said = _of_folders(config, cells)
        except TinyAblationError as error:
            said = str(error)
        if said:
            refuse(config, items, said)
    return result


def _of_folders(config: pytest.Config, cells: Iterable[tuple[str, str]]) -> str:
    from tinyablation.corpora.library import Library

    own = own_conditions(config)
    library = Library(corpora(config), own=own, seed=command(config).seed)
    for model, condition in cells:
        folder = registry(config)[model].source if model else None
        if folder is not None and folder.is_dir():
            found = library.defects(folder, condition, model)
            if said := complaint(config, condition, found, of=model):
                return said
    return ""


def pytest_report_header(config: pytest.Config) -> list[str] | None:
    if not is_claims_run(config):
        return None
    lines = []
    for name, own in own_conditions(config).items():
        found = listed(own.defects)
        accepted = "; ".join(f"{kind}: {count}" for kind, count in found.items())
        lines.append(f"condition {name}: {own.about(command(config).seed)}")
        if accepted:
            lines.append(f"condition {name}, defects accepted: {accepted}")
    return lines + _doubled(config)


def _doubled(config: pytest.Config) -> list[str]:
    """Lines on which corpora are used if two folders have the same."""
    from tinyablation.corpora.library import Library

    try:
        return list(Library(corpora(config)).doubled())
    except TinyAblationError:
        return []  # reported when a condition is requested
