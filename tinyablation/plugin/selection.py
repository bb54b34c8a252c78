"""Which cells run: a claim is parametrized over models and conditions, then deselected.

Every cell of an embedded model is always generated; `--claim`, `--model`, `-k` and `-m` only
deselect. If an option narrowed the parameters instead, the snapshots of the other models would look
abandoned, and an update would delete them. session_models.py determines the other models. Ids are
`[model-condition]`, model first: the scheduler reads the model there, and `-k "gpt2 and facts"`
selects by them.

A claim has one marker `claim("H1.1")`, which may say of which models and under which conditions
it is judged, and a docstring: its first paragraph is the statement; lines that begin "Estimator:",
"Threshold:", "Refuted if:" and "Audit:" (what records/audit.py cannot derive) may follow. Without a
statement it is a collection error, so that no page shows a claim without one.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import pytest

from tinyablation.characters import printable
from tinyablation.errors import TinyAblationError
from tinyablation.plugin.command_line import command
from tinyablation.plugin.conditions import conditions, own_conditions, pack_conditions
from tinyablation.plugin.options import is_claim, is_guest, wanted_ids
from tinyablation.plugin.packs import claims_of_packs, pack_of
from tinyablation.plugin.session_models import named_by_mark, registry, session_models
from tinyablation.records.audit import declared
from tinyablation.records.conditions import NAMES
from tinyablation.records.records import ALL_CONDITIONS, claim_order
from tinyablation.spelling import did_you_mean, nearest
from tinyablation.verdicts.expectations import CLAIM as CLAIM_ID

_PARTS = {
    "estimator": "Estimator:",
    "threshold": "Threshold:",
    "refuted_if": "Refuted if:",
    "audit": "Audit:",
}
MODELS, CONDITIONS = "models", "conditions"  # what a claim's mark may limit
_REFUSAL = "tinyablation_refusal"
_REFUSALS = "tinyablation-refusals"


class ClaimText(NamedTuple):
    """The parts of a claim's docstring, whitespace folded; "" for one that is not given."""

    statement: str
    estimator: str
    threshold: str
    refuted_if: str
    audit: str


def read_docstring(docstring: str | None) -> ClaimText:
    """The parts of a claim's docstring.

    ValueError if it has no statement, a part twice, or declares an audit column that there is not.
    """
    parts: dict[str, list[str]] = {"statement": []}
    current = "statement"
    for line in (docstring or "").strip().splitlines():
        text = line.strip()
        label = next((name for name, start in _PARTS.items() if text.startswith(start)), None)
        if label:
            if label in parts:
                raise ValueError(f"its docstring has two lines {_PARTS[label]!r}")
            current, text = label, text[len(_PARTS[label]) :]
            parts[current] = []
        elif not text:
            current = ""  # a blank line ends a part; free text after it belongs to none
        if current:
            parts[current].append(text)
    whole = {name: " ".join(" ".join(lines).split()) for name, lines in parts.items()}
    if not whole["statement"]:
        raise ValueError("its docstring lacks a first paragraph (the statement)")
    declared(whole.get("audit", ""))
    return ClaimText(**dict.fromkeys(_PARTS, "") | whole)


def claim_id(item: pytest.Item) -> str:
    """The ledger id of a claim, from its marker ("H1.1")."""
    marker = item.get_closest_marker("claim")
    if marker is None:
        raise ValueError(f"{item.nodeid} has no claim marker")
    return str(marker.args[0])


def cell_of(item: pytest.Item) -> tuple[str, str]:
    """(model id, condition) of a claim; "" and "all" if the claim uses none."""
    parameters: dict[str, Any] = getattr(getattr(item, "callspec", None), "params", {})
    return str(parameters.get("model", "")), str(parameters.get("condition", ALL_CONDITIONS))


def matches_claim(wanted: str, identifier: str) -> bool:
    """Whether an id is wanted, exactly or by a prefix: H1 and H1.1 match H1.1; H1.1 not H1.10."""
    return identifier == wanted or identifier.startswith(wanted.rstrip(".") + ".")


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Refusals(), _REFUSALS)


# --- collection --------------------------------------------------------------------------------


@pytest.hookimpl(tryfirst=True)  # before the parametrize marks, so that the model comes first
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    definition = metafunc.definition
    if not is_claim(definition):
        return  # the tests of the library make their own models and conditions
    where = f"{os.path.relpath(definition.path, metafunc.config.rootpath)}: {definition.name}"
    complaint = _complaint(definition, metafunc.function.__doc__) or taken(metafunc)
    if complaint:
        raise pytest.Collector.CollectError(f"{where}: {complaint}")
    mark = next(definition.iter_markers("claim")).kwargs
    if "model" in metafunc.fixturenames:
        try:
            ids = session_models(metafunc.config).collected
            if MODELS in mark:
                ids = named_by_mark(metafunc.config, _words(mark[MODELS]))
            known = registry(metafunc.config)
        except TinyAblationError as error:
            raise pytest.Collector.CollectError(f"{where}: {error}") from error
        models = [
            pytest.param(name, marks=pytest.mark.hub) if known[name].is_hub else name
            for name in ids
        ]
        metafunc.parametrize("model", models, ids=ids, indirect=True, scope="session")
    if "condition" in metafunc.fixturenames:
        config = metafunc.config
        try:
            every = (*NAMES, *pack_conditions(config), *own_conditions(config))
        except TinyAblationError as error:
            raise pytest.Collector.CollectError(str(error)) from error
        names = _words(mark.get(CONDITIONS)) or conditions(config)
        for name in names:
            if name not in every:
                raise pytest.Collector.CollectError(
                    f"{where}: no condition {name!r}; {did_you_mean(name, every)}"
                )
        metafunc.parametrize("condition", names, ids=names, indirect=True, scope="session")


def _complaint(definition: pytest.Item, docstring: str | None) -> str | None:
    markers = list(definition.iter_markers("claim"))
    if len(markers) != 1:
        return (
            f"a claim needs exactly one marker such as "
            f'@pytest.mark.claim("H1.1"), this has {len(markers)}'
        )
    arguments = markers[0].args
    if len(arguments) != 1 or not isinstance(arguments[0], str):
        return 'its claim marker takes one id, as in @pytest.mark.claim("H1.1")'
    if not CLAIM_ID.fullmatch(arguments[0]):
        return (
            f"{arguments[0]!r} is not a claim id; write letters, a number, a dot and a number, "
            "such as LAB.1"
        )
    for key, value in markers[0].kwargs.items():
        if key not in (MODELS, CONDITIONS):
            return f"its claim marker has no {key!r}; {did_you_mean(key, (MODELS, CONDITIONS))}"
        if not _words(value) or not all(isinstance(word, str) and word for word in _words(value)):
            return f"{key}={value!r} of its claim marker: give a name, or a list of names"
    try:
        read_docstring(docstring)
    except ValueError as error:
        return str(error)
    return None


def _words(value: Any) -> tuple[Any, ...]:
    """What a claim's mark says of models or conditions: one name, or several."""
    if isinstance(value, list | tuple):
        return tuple(value)
    return () if value is None else (value,)


def taken(metafunc: pytest.Metafunc) -> str | None:
    """The complaint about a guest's claim that takes an id, or a fixture, that is ours."""
    config, definition = metafunc.config, metafunc.definition
    if not is_guest(config):
        return None
    pack = pack_of(config, definition.path)
    for name, ids in claims_of_packs(config).items():
        if pack != name and claim_id(definition) in ids:
            return (
                f"the id {claim_id(definition)} is taken by the pack {name}; give "
                "the claim letters of your own, such as LAB.1"
            )
    for fixture in ("model", "condition"):
        found: Any = metafunc._arg2fixturedefs.get(fixture)
        if found and not found[-1].func.__module__.startswith("tinyablation."):
            return (
                f"its fixture {fixture!r} is another one, of {found[-1].baseid or 'a plugin'}; "
                "rename that fixture, for claims need theirs"
            )
    return None


@pytest.hookimpl(trylast=True)  # after syrupy and the predictions have seen every cell
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    wanted = wanted_ids(command(config).claim)
    known = {claim_id(item) for item in items if is_claim(item)} if wanted else set()
    option = command(config)
    # -k and -m may have deselected it; suggestions.py has checked whether it exists.
    for name in () if option.keyword or option.markexpr or option.deselect else wanted:
        if not any(matches_claim(name, identifier) for identifier in known):
            refuse(config, items, no_such_claim(name, known))
            return
    if wanted:
        _keep(config, items, lambda item: any(matches_claim(n, claim_id(item)) for n in wanted))
    if not is_guest(config) and any(MODELS in _mark(item) for item in items if is_claim(item)):
        # A mark names models whose claims these are; a host's session asks for models itself.
        asked = {"", *session_models(config).collected}
        _drop(config, items, lambda item: MODELS in _mark(item) and cell_of(item)[0] not in asked)
    if command(config).model:
        chosen = session_models(config).chosen
        _keep(config, items, lambda item: cell_of(item)[0] in chosen)
    if any(cell_of(item)[0] for item in items if is_claim(item)):
        _sort(config, items)


def _mark(item: pytest.Item) -> Mapping[str, Any]:
    """What the mark of a claim limits it to; {} for other tests."""
    marker = item.get_closest_marker("claim")
    return {} if marker is None else marker.kwargs


def _keep(
    config: pytest.Config, items: list[pytest.Item], wanted: Callable[[pytest.Item], bool]
) -> None:
    """Deselect everything that is not a wanted claim."""
    _drop(config, items, lambda item: not (is_claim(item) and wanted(item)))


def _drop(
    config: pytest.Config, items: list[pytest.Item], unwanted: Callable[[pytest.Item], bool]
) -> None:
    """Deselect some tests."""
    dropped = [item for item in items if unwanted(item)]
    if dropped:
        items[:] = [item for item in items if not unwanted(item)]
        config.hook.pytest_deselected(items=dropped)


def no_such_claim(name: str, known: Iterable[str]) -> str:
    """The message for a --claim that is not among the known ones."""
    ids = sorted(known, key=claim_order)
    close = nearest(name, ids)
    hint = "" if close is None else f"Did you mean {close}? "
    return f"--claim {name}: no such claim. {hint}Known here: {', '.join(ids) or 'none'}"


def _sort(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Order by model, then condition, then as in the file; tests without a model come first.

    pytest groups by the LAST session-scoped parameter, the condition, and would load each model
    once per condition.
    """
    models = {identifier: index for index, identifier in enumerate(registry(config).ids)}
    order = (*conditions(config), *pack_conditions(config))
    places = {name: index for index, name in enumerate(order)}

    def key(item: pytest.Item) -> tuple[int, int]:
        if not is_claim(item):
            return -1, 0
        model, condition = cell_of(item)
        return models.get(model, -1), places.get(condition, len(places))

    items.sort(key=key)


# --- refusing a session ------------------------------------------------------------------------


def refuse(config: pytest.Config, items: list[pytest.Item], message: str) -> None:
    """End the session with a usage error (exit 4), also from a worker.

    A UsageError raised inside an xdist worker kills it, and xdist starts another, which dies the
    same way; so a worker sends the message to the controller and runs nothing.
    """
    if not hasattr(config, "workerinput"):
        items.clear()  # without selected tests no report is missing
        raise pytest.UsageError(message)
    output: dict[str, Any] = config.workeroutput  # type: ignore[attr-defined]
    output.setdefault(_REFUSAL, message)  # the first message is the cause of later ones
    items.clear()


def end(session: pytest.Session, message: str) -> None:
    """End a running session with a usage error (exit 4); no further test starts."""
    session.shouldstop = message
    output = getattr(session.config, "workeroutput", None)  # a worker's
    if output is not None:
        output[_REFUSAL] = message
    else:
        refusals: Any = session.config.pluginmanager.get_plugin(_REFUSALS)
        refusals.hear(message)


class Refusals:
    """Controller side of `refuse` and `end`: prints the messages and exits 4."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        message = getattr(node, "workeroutput", {}).get(_REFUSAL)
        if message:
            self.hear(message)

    def hear(self, message: str) -> None:
        if message not in self.messages:
            self.messages.append(message)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.messages:
            session.exitstatus = pytest.ExitCode.USAGE_ERROR

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        for message in self.messages:
            terminalreporter.write_line(printable(f"ERROR: {message}"), red=True)
