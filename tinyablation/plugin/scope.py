"""What a verdict generalises over, and which examples it rests on.

For a crossed corpus: the judged relations and wordings, the caveats of its families, the share of
facts that the model knows, by relation, and the effect on all facts, known or not, in addition to
the judged one. Any other corpus has few relations and wordings, each with many facts, so its
verdicts are conditional on them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tinyablation.plugin.options import protocol
from tinyablation.plugin.selection import cell_of
from tinyablation.records.records import ALL_CONDITIONS
from tinyablation.spelling import counted

if TYPE_CHECKING:
    from tinyablation.analysis.findings import Findings
    from tinyablation.corpora.examples import Example
    from tinyablation.heads import Head
    from tinyablation.measurement.bench import Bench
    from tinyablation.verdicts.verdicts import Verdict

# Fixtures with effects of heads zeroed on the condition's prompts: for these the effect on all
# facts can be added.
_ZEROED = frozenset({"sweep", "corrected_sweep", "subsets", "coalitions"})
_LOGITS = "logits"


class Scope(NamedTuple):
    """text: for the record's field `scope`; details: further entries of its details."""

    text: str = ""
    details: dict[str, Any] = {}  # noqa: RUF012 - never changed


def scope_of(item: pytest.Item, verdict: "Verdict", subject: str | None) -> Scope:
    """The scope of one cell's verdict; empty for claims without a model or condition."""
    bench: Any = getattr(item, "funcargs", {}).get("model")
    _, condition = cell_of(item)
    if not hasattr(bench, "gate") or condition == ALL_CONDITIONS or verdict.status == "blocked":
        return Scope()
    corpus, _ = bench.corpus(condition)
    if not corpus.is_crossed:
        from tinyablation.interventions.batteries import UNHOOKED

        return Scope(f"conditional on its {_counted(bench.pool(condition, UNHOOKED))}")
    if Path(item.nodeid.split("::", 1)[0]).stem == "test_validity":
        return Scope(_counted(_judged(bench, condition, "all")))
    if protocol(item.config) != "corrected":
        return Scope(_counted(_judged(bench, condition, "known")))
    details = _details(bench, condition)
    heads = _heads(subject)
    zeroed = _ZEROED & set(getattr(item, "fixturenames", ()))
    if heads and zeroed and verdict.unit == _LOGITS and verdict.effect is not None:
        given: Any = item
        details["on all facts, known or not"] = _unfiltered(
            given.funcargs["findings"], condition, heads
        )
    return Scope(_counted(_judged(bench, condition, "known")), details)


def _judged(bench: "Bench", condition: str, among: str) -> "Sequence[Example]":
    """The confirmation examples that a sweep measures; for "all", those that the gate measures."""
    from tinyablation.corpora.examples import CONFIRMATION
    from tinyablation.interventions.batteries import Sample

    corpus, _ = bench.corpus(condition)
    if among == "all":
        rows = bench.rows(condition, bench.gate.batteries(condition)[0].sample)
    else:
        rows = bench.rows(condition, Sample(CONFIRMATION))
    return [corpus.examples[row] for row in rows]


def _counted(examples: "Sequence[Example]") -> str:
    """ "38 relations and 4 wordings"; clusters, where facts are not named by their relation."""
    facts = {part for example in examples for part in example.fact_id.split("+")}
    if all("/" in fact for fact in facts):
        over = counted(len({fact.split("/", 1)[0] for fact in facts}), "relation")
    else:
        over = counted(len({example.cluster_id for example in examples}), "cluster")
    return f"{over} and {counted(len({example.template_id for example in examples}), 'wording')}"


def _details(bench: "Bench", condition: str) -> dict[str, Any]:
    validity, selection = bench.gate.validity(condition), bench.gate.selection(condition)
    assert validity is not None and selection is not None  # the corrected protocol has both
    found: dict[str, Any] = {
        "families": list(selection.families),
        "share of facts known": selection.share,
        "known facts by relation": {
            name: f"{known} of {whole}" for name, (known, whole) in selection.known.items()
        },
    }
    for name in ("left out", "caveats"):
        if validity.details[name]:
            found[name] = validity.details[name]
    return found


def _heads(subject: str | None) -> "tuple[Head, ...]":
    """The heads of a record's subject, if they are at most three of one layer; otherwise ()."""
    from tinyablation.heads import Head

    try:
        heads = tuple(Head.parse(word) for word in (subject or "").split())
    except ValueError:
        return ()
    if not 1 <= len(heads) <= 3 or len({layer for layer, _ in heads}) > 1:
        return ()
    return heads


def _unfiltered(findings: "Findings", condition: str, heads: "tuple[Head, ...]") -> list[float]:
    """Mean Delta LD of these heads zeroed, over facts known and unknown: [estimate, low, high]."""
    from tinyablation.corpora.examples import CONFIRMATION

    effects = findings.unfiltered(condition, heads)
    (label,) = {name for name in effects.table["intervention"] if name != "baseline"}
    values = effects.change(label, CONFIRMATION)
    return list(effects.interval(values, CONFIRMATION, f"unfiltered {label}")[:3])


def named_in(verdict: "Verdict") -> dict[str, Any]:
    """What a verdict says of itself, for a claim that does not."""
    said = {name: getattr(verdict, name, None) for name in ("subject", "runs")}
    return {name: value for name, value in said.items() if value}
