"""The heads that claims are about: declared, named by hand, or found on the discovery split.

    declared   a subjects.toml (of its pack in claims/, or beside --registry) has a table for it
    by hand    --heads names them, for the one model of the session, instead of the declared ones
    found      the model has neither: for each condition its suppressor is the head of layer 0 with
               the largest mean Delta on the discovery split, its trio the top three, its pair the
               top two; they are judged on the confirmation split, as always

Heads are found only in the sweep of a condition that is valid for the model. A claim that spans
conditions uses those of the first valid condition, facts if possible. Unless they are declared, the
record's details say how its heads were identified.

A claim may need something of a model that no split provides (@pytest.mark.needs):

    named heads   heads that the literature or the model's card names
    reference     another model that the head is compared with
    checkpoints   states of the model's training

If a model without declared heads lacks what a claim needs, the claim's cells are deselected, and
the session says so. For models with declared heads such cells are blocked instead.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import pytest

from tinyablation.characters import printable
from tinyablation.errors import TinyAblationError
from tinyablation.heads import Head
from tinyablation.plugin.command_line import command
from tinyablation.plugin.marks import NEEDS
from tinyablation.plugin.multiverse import same_in_every_analysis
from tinyablation.plugin.options import (
    about_claims,
    further_registry,
    is_claim,
    is_claims_run,
)
from tinyablation.plugin.selection import cell_of, claim_id
from tinyablation.plugin.session_models import registry, session_models
from tinyablation.records.records import ALL_CONDITIONS, CONDITIONS, claim_order
from tinyablation.verdicts.subjects import Subject, Subjects, joined, load_subjects

if TYPE_CHECKING:
    from tinyablation.analysis.sweeps import Sweep
    from tinyablation.measurement.bench import Bench
    from tinyablation.models.loading import ModelFacts

FOUND = "chosen on discovery"
BY_HAND = "named by --heads"
TRIO = 3
_NOT_ASKED = "tinyablation_not_asked"
_subjects_key = pytest.StashKey[Subjects]()


class HeadsError(TinyAblationError):
    """--heads names heads that cannot be used; the message says which."""


def parse_heads(text: str) -> Subject:
    """The subject that --heads names, such as "L0H7,L0H2,L0H5"; HeadsError if it is invalid."""
    words = [word for word in (part.strip() for part in text.split(",")) if word]
    try:
        heads = [Head.parse(word) for word in words]
    except ValueError as error:
        raise HeadsError(f"--heads {text}: {error}") from error
    names = [head.label for head in heads]
    if not 1 <= len(heads) <= TRIO:
        raise HeadsError(
            f"--heads {text}: names {len(heads)} heads; give the suppressor, a pair or a trio, the "
            "suppressor first: L0H7,L0H2,L0H5"
        )
    if len(set(heads)) < len(heads):
        raise HeadsError(f"--heads {text}: names a head twice; give each once")
    if len({head.layer for head in heads}) > 1:
        raise HeadsError(
            f"--heads {text}: heads of several layers; claims about a pair or a trio are about "
            "heads of one layer"
        )
    return Subject.model_validate(
        {
            "suppressor": names[0],
            "pair": tuple(names[:2]) if len(names) == 2 else (),
            "trio": tuple(names) if len(names) == TRIO else (),
            "source": BY_HAND,
        }
    )


def subjects(config: pytest.Config) -> Subjects:
    """Declared heads by model; --heads replaces those of its model."""
    if _subjects_key not in config.stash:
        files = [load_subjects(path) for path in about_claims(config, "subjects")]
        declared = joined(files)
        registry_file = further_registry(config)
        further = registry_file and registry_file.with_name("subjects.toml")
        if further and further.exists():
            theirs = load_subjects(further, session_models(config).listed.ids).subjects
            declared = declared._replace(subjects={**declared.subjects, **theirs})
        model = session_models(config).by_hand
        if model:
            by_hand = {model: parse_heads(command(config).heads)}
            declared = declared._replace(subjects={**declared.subjects, **by_hand})
        config.stash[_subjects_key] = declared
    return config.stash[_subjects_key]


def beyond(config: pytest.Config, model: str, facts: "ModelFacts") -> str | None:
    """What is wrong with --heads for a model of this shape; None if it fits."""
    if model != session_models(config).by_hand:
        return None
    for head in subjects(config).subjects[model].heads:
        if head.layer >= facts.n_layers or head.head >= facts.n_heads:
            return (
                f"--heads {command(config).heads}: {model} has {facts.n_layers} layers of "
                f"{facts.n_heads} heads, counted from 0, and {head.name} is not "
                "among them"
            )
    return None


def how_found(item: pytest.Item) -> dict[str, str]:
    """The record's details on heads that are not declared; {} for declared ones."""
    subject: Any = getattr(item, "funcargs", {}).get("subject")
    source = getattr(subject, "source", None)
    return {"heads": source} if source in (FOUND, BY_HAND) else {}


@pytest.fixture
@same_in_every_analysis
def subject(request: pytest.FixtureRequest, model: "Bench", judge: Callable[..., None]) -> Subject:
    """The heads that this claim is about, for this model."""
    known = subjects(request.config)
    name = model.entry.id
    declared = known.for_model(name)
    if declared is not None:
        known.check_shape(name, model.facts.n_layers, model.facts.n_heads)
        return declared.for_claim(claim_id(request.node))
    _, condition = cell_of(request.node)
    if condition == ALL_CONDITIONS:
        condition = _first_valid(model, judge)
    else:
        request.getfixturevalue("valid")  # never sweep an invalid condition to find heads
    return found(request.getfixturevalue("findings").sweep(condition), judge)


def found(sweep: "Sweep", judge: Callable[..., None]) -> Subject:
    """The heads of layer 0 with the largest effects on the discovery split of a sweep."""
    from tinyablation.corpora.examples import DISCOVERY
    from tinyablation.verdicts.verdicts import blocked

    layer = sweep.layer(0)
    if len(layer) < TRIO:
        judge(
            blocked(
                f"layer 0 of {sweep.model} has {len(layer)} heads, too few for a trio to be chosen"
            )
        )
    means = sweep.mean_deltas(DISCOVERY)
    order = sorted(layer, key=lambda head: (-means[head], head))
    names = tuple(f"{head[0]}:{head[1]}" for head in order[:TRIO])
    return Subject.model_validate(
        {
            "suppressor": names[0],
            "trio": names,
            "pair": names[:2],
            "source": FOUND,
            "chosen_on": DISCOVERY,
            "note": f"the largest mean Delta of layer 0 on {sweep.condition}",
        }
    )


def _first_valid(model: "Bench", judge: Callable[..., None]) -> str:
    from tinyablation.verdicts.verdicts import blocked

    reasons = []
    for name in CONDITIONS:
        reason = model.gate.reason_blocked(name)
        if reason is None:
            return name
        reasons.append(f"{name}: {reason}")
    judge(blocked(f"no condition is valid for {model.entry.id}: {'; '.join(reasons)}"))
    raise AssertionError("judge ends the test")


# --- at start ------------------------------------------------------------------------------------


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(_NotAsked(), "tinyablation-not-asked")
    if hasattr(config, "workerinput") or command(config).heads is None or not is_claims_run(config):
        return
    try:
        parse_heads(command(config).heads)
        models = session_models(config).asked
    except TinyAblationError as error:
        raise pytest.UsageError(str(error)) from error
    if len(models) != 1:
        raise pytest.UsageError(
            f"--heads names heads of one model, but this session has {len(models)}: give one "
            "--model"
        )


# --- collection: claims that do not apply to a model ---------------------------------------------


@pytest.hookimpl(trylast=True)  # after options have deselected
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not any(is_claim(item) for item in items):
        return
    kept: list[pytest.Item] = []
    dropped: list[pytest.Item] = []
    for item in items:
        (dropped if is_claim(item) and _lacks(item) else kept).append(item)
    if not dropped:
        return
    items[:] = kept
    config.hook.pytest_deselected(items=dropped)
    cells = sorted({(cell_of(item)[0], claim_id(item)) for item in dropped})
    output = getattr(config, "workeroutput", None)  # a worker's
    if output is not None:
        output[_NOT_ASKED] = cells
    else:
        plugin: Any = config.pluginmanager.get_plugin("tinyablation-not-asked")
        plugin.cells |= set(cells)


def _lacks(item: pytest.Item) -> bool:
    """Whether a claim needs something that its model does not have."""
    needs = [str(need) for marker in item.iter_markers("needs") for need in marker.args]
    for need in needs:
        if need not in NEEDS:
            raise pytest.UsageError(
                f"{item.nodeid}: needs {need!r}, which is unknown; known: {', '.join(NEEDS)}"
            )
    model, _ = cell_of(item)
    known = session_models(item.config)
    if not needs or model == "":
        return False
    if subjects(item.config).for_model(model) is not None and model != known.by_hand:
        return False
    has = {"checkpoints"} if registry(item.config)[model].checkpoints else set()
    return not has.issuperset(needs)


class _NotAsked:
    """Controller side: reports at the end which claims do not apply to which models."""

    def __init__(self) -> None:
        self.cells: set[tuple[str, str]] = set()

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        cells = getattr(node, "workeroutput", {}).get(_NOT_ASKED, ())
        self.cells |= {(model, claim) for model, claim in cells}

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        for line in not_asked_lines(self.cells):
            terminalreporter.write_line(printable(line))


def not_asked_lines(cells: Iterable[tuple[str, str]]) -> list[str]:
    """One line per set of models to which the same claims do not apply."""
    by_model: dict[str, set[str]] = {}
    for model, claim in cells:
        by_model.setdefault(model, set()).add(claim)
    alike: dict[tuple[str, ...], list[str]] = {}
    for model, claims in sorted(by_model.items()):
        alike.setdefault(tuple(sorted(claims, key=claim_order)), []).append(model)
    return [_line(models, claims) for claims, models in alike.items()]


def _line(models: Sequence[str], claims: Sequence[str]) -> str:
    return (
        f"not asked of {', '.join(models)}: {', '.join(claims)} (they need heads that are named "
        "beforehand, a reference model or checkpoints; subjects.toml and "
        "fixtures/models.toml declare these)"
    )
