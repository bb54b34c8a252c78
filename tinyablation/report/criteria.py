"""The criteria of a test case as the page prints them: rows of a table, and a figure a unit."""

from typing import NamedTuple

from tinyablation.records.criteria import Criterion
from tinyablation.records.records import Record
from tinyablation.report.forest_plots import Line, forest
from tinyablation.report.panel_views import PanelView
from tinyablation.report.text import number, readable

# What a verdict answers to "is it so?".
ANSWERS = {
    "supported": "Yes",
    "present": "Not shown",
    "refuted": "No",
    "inconclusive": "Not shown",
    "blocked": "Not judged",
    "error": "Not judged",
}


class CriterionRow(NamedTuple):
    """One criterion in words; figures are "" where it has none."""

    name: str
    estimate: str
    interval: str
    threshold: str
    p: float | None
    p_test: str
    met: bool


def criterion_row(criterion: Criterion) -> CriterionRow:
    """One line of the table: `estimate` and `threshold` with the unit."""
    unit = f" {criterion.unit}" if criterion.unit else ""
    estimate = interval = ""
    if criterion.estimate is not None:
        estimate = number(criterion.estimate, signed=True) + unit
    if criterion.low is not None and criterion.high is not None:
        ends = (number(end, signed=True) for end in (criterion.low, criterion.high))
        interval = f"[{', '.join(ends)}]"
    signed = number(criterion.threshold, signed=True) if criterion.threshold else "0"
    threshold = {
        "above": f"above {signed}",
        "below": f"below {signed}",
        "within": f"within ±{number(criterion.threshold)}",
        "p": f"p ≤ {criterion.threshold:g}",
    }[criterion.rule]
    return CriterionRow(
        *(readable(criterion.name), estimate, interval, threshold),
        *(criterion.p, criterion.p_test, criterion.met),
    )


def criteria_panels(record: Record, anchor: str) -> list[PanelView]:
    """A forest plot for each unit: every criterion with an interval, and its own threshold.

    None where there is but one: it stands in the row of its test case, and among all others of the
    claim. `anchor` is unique on the page and made of letters that need no escape.
    """
    drawn = [each for each in record.criteria if each.low is not None]
    if len(drawn) < 2:
        return []
    views = []
    for index, unit in enumerate(dict.fromkeys(each.unit for each in drawn), 1):
        lines = [
            Line(readable(each.name), each.estimate, each.low, each.high, each.threshold)
            for each in drawn
            if each.unit == unit
        ]
        title = "Criteria, each with its threshold (dashed)"
        plot = forest(lines, title, unit or "no unit", f"{anchor}--criteria-{index}")
        views.append(PanelView(title, plot))
    return views
