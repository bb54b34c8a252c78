"""How far a claim's test is audited: six columns, in which published claims mostly fall short.

    planted control       judged on models made for it to be true of, and untrue
    selection correction  p over all candidates, or a head chosen on other prompts than those judged
    rescue                putting back what was taken out must bring back what was lost
    specificity           another ability, or another head, is judged together with it
    counterexamples       prompts on which it fails were searched for
    error rate            how often the test is wrong was measured

A column is filled from what the records say. What no record can say, the claim declares in a line
"Audit:" of its docstring (DECLARED).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from tinyablation.records.error_rates import FALSE_REFUTATION, FALSE_SUPPORT, ErrorRates
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
    SELECTION: "declared: chosen on other prompts than those judged",
    RESCUE: "declared: what is put back must bring back what was lost",
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
    """The six columns of one test; records: all its test cases in the session."""
    variants = {model.id: model.variant for model in session.models}
    judged = [record for record in records if record.verdict in JUDGED]
    named = {name for record in records for name in declared(record.audit)}
    found: dict[str, Callable[[], str]] = {
        PLANTED: lambda: _planted(judged, variants, session.error_rates),
        SELECTION: lambda: _selection(judged),
        COUNTEREXAMPLES: lambda: _counterexamples(judged),
        ERROR_RATE: lambda: _error_rate(records[0].name, session.error_rates),
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
    """Predicted true of a model with a plant and untrue of one without, and judged on both."""
    n = {
        prediction: len(
            {r.model for r in judged if (variants.get(r.model), r.prediction) == (kind, prediction)}
        )
        for kind, prediction in (("hedged", "supported"), ("plain", "refuted"))
    }
    if all(n.values()):
        return f"judged on models with a plant ({n['supported']}) and without ({n['refuted']})"
    known = {row.error: row.n for row in rates.of_test(judged[0].name)} if rates and judged else {}
    if known.keys() == {FALSE_SUPPORT, FALSE_REFUTATION} and all(known.values()):
        true, untrue = known[FALSE_REFUTATION], known[FALSE_SUPPORT]
        return f"calibrated on {true} bases of which it is true and {untrue} of which it is not"
    return ""


def _selection(judged: Sequence[Record]) -> str:
    n = sum(record.p_corrected is not None for record in judged)
    return f"p is corrected over all candidates in {n} of {len(judged)} test cases" if n else ""


def _counterexamples(judged: Sequence[Record]) -> str:
    searched = sum(record.boundary.searched for record in judged if record.boundary is not None)
    return f"{searched:,} prompts of the grammar were searched" if searched else ""


def _error_rate(test: str, rates: ErrorRates | None) -> str:
    if rates is None:
        return ""
    rows = [row for row in rates.of_test(test) if row.n]
    return "; ".join(f"{row.error} in {row.k} of {row.n} bases" for row in rows)
