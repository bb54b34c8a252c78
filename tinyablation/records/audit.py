"""How far a claim's test is audited: six columns, in which published claims mostly fall short.

    planted control       judged on models made for it to be true of, and untrue
    selection correction  a head chosen on other prompts than those judged, or p over all candidates
    rescue                what putting back restores is measured
    specificity           another ability, or another head, is judged together with it
    counterexamples       prompts on which it fails were searched for
    error rate            how often the test is wrong was measured

A column is filled from what the records say. What no record can say, the claim declares in a line
"Audit:" of its docstring (DECLARED).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from tinyablation.records.error_rates import FALSE_REFUTATION, FALSE_SUPPORT, ErrorRate, ErrorRates
from tinyablation.records.records import JUDGED, Record, Session

PLANTED, SELECTION, RESCUE, SPECIFICITY, COUNTEREXAMPLES, ERROR_RATE = COLUMNS = (
    "planted control",
    "selection correction",
    "rescue",
    "specificity",
    "counterexamples",
    "error rate",
)
# What a claim may declare, and what it says by that.
DECLARED: Mapping[str, str] = {
    PLANTED: "declared: tested on models made for it to be true of, and untrue",
    SELECTION: "declared: chosen on other prompts than those judged, or corrected for the choice",
    RESCUE: "declared: what putting back restores is measured",
    SPECIFICITY: "declared: judged together with another ability, or other heads",
}


class Column(NamedTuple):
    """One of COLUMNS. said: by what it is filled, "" where it is empty."""

    name: str
    said: str


def declared(text: str) -> tuple[str, ...]:
    """The columns that an "Audit:" line names, in order; ValueError for another word."""
    names = tuple(name.strip() for name in text.split(",")) if text.strip() else ()
    unknown = [name for name in names if name not in DECLARED]
    if unknown:
        raise ValueError(
            f"its line 'Audit:' names {unknown[0]!r}; it may name {', '.join(DECLARED)}"
        )
    return names


def audit(records: Sequence[Record], session: Session) -> tuple[Column, ...]:
    """The six columns of one test; records: all its test cases in the session.

    What a record declares that no version up to this one knows is passed over.
    """
    variants = {model.id: model.variant for model in session.models}
    judged = [record for record in records if record.verdict in JUDGED]
    named = {name.strip() for record in records for name in record.audit.split(",")}
    found: dict[str, Callable[[], str]] = {
        PLANTED: lambda: _planted(judged, variants, session.error_rates),
        COUNTEREXAMPLES: lambda: _counterexamples(judged),
        ERROR_RATE: lambda: _error_rate(records[0], session.error_rates),
    }
    return tuple(
        Column(
            name,
            (found[name]() if name in found else "") or (DECLARED[name] if name in named else ""),
        )
        for name in COLUMNS
    )


def _planted(
    judged: Sequence[Record], variants: Mapping[str, str], rates: ErrorRates | None
) -> str:
    """Predicted true of a model with a plant and untrue of one without, and found so of both."""
    n = {
        verdict: len(
            {
                r.model
                for r in judged
                if (variants.get(r.model), r.prediction, r.verdict) == (kind, verdict, verdict)
            }
        )
        for kind, verdict in (("hedged", "supported"), ("plain", "refuted"))
    }
    if all(n.values()):
        return f"judged on models with a plant ({n['supported']}) and without ({n['refuted']})"
    known = {row.error: row.n for row in _rates(judged[0], rates)} if rates and judged else {}
    if known.keys() == {FALSE_SUPPORT, FALSE_REFUTATION} and all(known.values()):
        true, untrue = known[FALSE_REFUTATION], known[FALSE_SUPPORT]
        return f"calibrated on {true} bases of which it is true and {untrue} of which it is not"
    return ""


def _counterexamples(judged: Sequence[Record]) -> str:
    searched = sum(record.boundary.searched for record in judged if record.boundary is not None)
    return f"{searched:,} prompts of the grammar were searched" if searched else ""


def _error_rate(record: Record, rates: ErrorRates | None) -> str:
    if rates is None:
        return ""
    rows = [row for row in _rates(record, rates) if row.n]
    return "; ".join(f"{row.error} in {row.k} of {row.n} bases" for row in rows)


def _rates(record: Record, rates: ErrorRates) -> list[ErrorRate]:
    """Those of the record's own test: another pack may have one of the same name."""
    return [row for row in rates.of_test(record.name) if row.claim == record.claim]
