"""Forest plots of the report page: figures below each other, each with its interval, as SVG.

Two layouts: a plot with names and figures of its own, and one row without any, for a line of a
table that has them. A verdict is told by the shape of its marker, and every figure of a plot
stands beside its line in words, so that colour carries nothing alone. Colours are CSS classes, as
in axes.py.
"""

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup, escape

from tinyablation.records.panels import ForestPanel
from tinyablation.records.records import Record
from tinyablation.report.axes import (
    Axis,
    axis,
    caption,
    drawing,
    marker,
    px,
    tick_text,
    ticks_below,
)
from tinyablation.report.text import number, readable

ROW = 16  # px from line to line
TOP, BOTTOM = 8, 38  # px round the lines
PLOT, FIGURES = 270, 180  # px of the axis, and of the figures to its right
CONDITION, NAMES = 122, 226  # px where conditions begin and end, where lines are grouped
LONGEST_GROUP, LONGEST_NAME, LONGEST_ALONE = 19, 16, 36  # characters that fit their column
LETTER = 6.2  # px of a letter, about
TABLE_PLOT, TABLE_MARGIN = 230, 8  # px of a row in a table; so markers at its ends are not cut
# Markers about (0, 0); the first is a circle, drawn as such.
_SHAPES = {
    "supported": "",
    "present": "M0 4.6L4.4-3.4H-4.4z",
    "refuted": "M-3.4-3.4L3.4 3.4M3.4-3.4L-3.4 3.4",
    "inconclusive": "M0-4.6L4.6 0 0 4.6-4.6 0z",
    "blocked": "M-3.4-3.4h6.8v6.8h-6.8z",
    "error": "M0-4.6L4.4 3.4H-4.4z",
}


class Line(NamedTuple):
    """One line of a plot. value None: nothing was measured, `said` says what instead.

    group: printed where it changes ("tiny-gpt2"); verdict: a key of VERDICTS or ""; key: by which
    the page finds the line of an open cell.
    """

    name: str
    value: float | None
    low: float | None = None
    high: float | None = None
    floor: float | None = None
    group: str = ""
    verdict: str = ""
    said: str = ""
    key: str = ""


def lines_of(records: Sequence[Record], keys: Sequence[str]) -> list[Line]:
    """The lines of one claim over models and conditions; keys: of the cells, in the same order."""
    return [
        Line(
            record.condition,
            record.effect,
            record.low,
            record.high,
            record.floor,
            record.model,
            record.verdict,
            record.verdict,
            key,
        )
        for record, key in zip(records, keys, strict=True)
    ]


def lines_of_panel(panel: ForestPanel) -> list[Line]:
    """The lines of a claim's own panel."""
    return [Line(readable(row.name), row.value, row.low, row.high) for row in panel.rows]


def panel_forest(panel: ForestPanel, identifier: str) -> Markup:
    """A claim's own panel."""
    return forest(
        lines_of_panel(panel), readable(panel.title), panel.unit, identifier, bound=panel.bound
    )


def forest(
    lines: Sequence[Line],
    title: str,
    unit: str,
    identifier: str,
    *,
    bound: float | None = None,
) -> Markup:
    """The plot; `identifier` is unique on the page and made of letters that need no escape.

    bound: one line through all rows; each row's own floor is a tick on its line.
    """
    ends = _ends(lines)
    if not ends:
        return Markup("")
    start = NAMES
    if not any(line.group for line in lines):
        start = 16 + round(LETTER * min(LONGEST_ALONE, max(len(line.name) for line in lines)))
    across = axis([0.0, *ends, *([] if bound is None else [bound])], start, start + PLOT)
    width, height = start + PLOT + FIGURES, TOP + ROW * len(lines) + BOTTOM
    drawn = _frame(across, unit, len(lines), bound)
    group = ""
    for index, line in enumerate(lines):
        drawn += _line(line, index, across, named=line.group != group)
        group = line.group
    said = _described(lines, unit)
    kind = "curve forests"
    return drawing(drawn, kind, (width, height), identifier, title, said, scrolled=True)


def table_axis(lines: Sequence[Line]) -> Axis:
    """The axis that rows of a table share: every figure, interval and floor, and zero."""
    return axis([0.0, *_ends(lines)], TABLE_MARGIN, TABLE_PLOT - TABLE_MARGIN)


def table_head(across: Axis) -> Markup:
    """The labelled axis above the rows of a table."""
    labels = "".join(
        f'<text x="{px(across.px(tick))}" y="10">{tick_text(tick)}</text>'
        f'<path class="ft" d="M{px(across.px(tick))} 13v5"/>'
        for tick in across.ticks
    )
    ends = f'<path class="ft" d="M{px(across.start)} 17.5H{px(across.end)}"/>'
    return Markup(f'<svg class="forest axis" viewBox="0 0 {TABLE_PLOT} 18">{labels}{ends}</svg>')


def table_row(line: Line, across: Axis) -> Markup:
    """A line without words, for a row of a table: zero, the floor, the interval and the point."""
    if line.value is None:
        return Markup("")
    zero = across.px(0)
    parts = []
    if line.floor is not None:
        edge = across.px(line.floor)
        parts.append(
            f'<rect class="fb" x="{px(min(zero, edge))}" width="{px(abs(edge - zero))}" '
            f'height="18"/><path class="fl" d="M{px(edge)} 0V18"/>'
        )
    parts.append(f'<path class="fz" d="M{px(zero)} 0V18"/>')
    parts.append(_interval("fi", line, across, 9))
    parts.append(f'<circle class="fp" cx="{px(across.px(line.value))}" cy="9" r="3.4"/>')
    return Markup(f'<svg class="forest" viewBox="0 0 {TABLE_PLOT} 18">{"".join(parts)}</svg>')


def _ends(lines: Sequence[Line]) -> list[float]:
    """All that an axis of these lines has to show."""
    return [
        value
        for line in lines
        for value in (line.value, line.low, line.high, line.floor)
        if value is not None and line.value is not None
    ]


def _interval(kind: str, line: Line, across: Axis, y: int) -> str:
    if line.low is None or line.high is None:
        return ""
    low, high = px(across.px(line.low)), px(across.px(line.high))
    return f'<path class="{kind}" d="M{low} {y - 3}v6m0-3H{high}m0-3v6"/>'


def _frame(across: Axis, unit: str, rows: int, bound: float | None) -> str:
    bottom = TOP + ROW * rows + 2
    parts = [
        f'<path class="ka" d="M{px(across.start)} {bottom}H{px(across.end)}"/>',
        f'<path class="kz" d="M{px(across.px(0))} {TOP}V{bottom}"/>',
    ]
    if bound is not None:
        x = px(across.px(bound))
        parts.append(f'<path class="fo" d="M{x} {TOP}V{bottom}"/>')
    parts.append(ticks_below(across, bottom))
    middle = px((across.start + across.end) / 2)
    parts.append(f'<text class="kx kl" x="{middle}" y="{bottom + 30}">{caption(unit, 60)}</text>')
    return "".join(parts)


def _line(line: Line, index: int, across: Axis, *, named: bool) -> str:
    y = TOP + ROW * index + ROW // 2
    key = f' data-cell="{escape(line.key)}"' if line.key else ""
    kind = f' class="v-{line.verdict}"' if line.verdict else ' class="k0"'
    parts = [f'<g{key}{kind}><rect class="fh" y="{y - ROW // 2}" width="100%" height="{ROW}"/>']
    if line.group:
        if named:
            group = caption(line.group, LONGEST_GROUP)
            parts.append(f'<text class="fg" x="4" y="{y + 4}">{group}</text>')
        name = caption(line.name, LONGEST_NAME)
        parts.append(f'<text class="fn" x="{CONDITION}" y="{y + 4}">{name}</text>')
    else:
        name = caption(line.name, LONGEST_ALONE)
        parts.append(f'<text class="fn" x="4" y="{y + 4}">{name}</text>')
    if line.value is None:
        middle = px((across.start + across.end) / 2)
        parts.append(f'<text class="kx" x="{middle}" y="{y + 4}">{caption(line.said, 40)}</text>')
        return "".join(parts) + "</g>"
    if line.floor is not None:
        parts.append(f'<path class="fo" d="M{px(across.px(line.floor))} {y - 6}v12"/>')
    parts.append(_interval("fe", line, across, y))
    parts.append(marker("fs", _SHAPES.get(line.verdict, ""), across.px(line.value), y))
    parts.append(
        f'<text class="fv" x="{px(across.end + 10)}" y="{y + 4}">{_figures(line)}</text></g>'
    )
    return "".join(parts)


def _figures(line: Line) -> str:
    if line.value is None:
        return line.said
    if line.low is None or line.high is None:
        return number(line.value, signed=True)
    ends = f"[{number(line.low, signed=True)}, {number(line.high, signed=True)}]"
    return f"{number(line.value, signed=True)} {ends}"


def _described(lines: Sequence[Line], unit: str) -> str:
    said = [
        f"{' '.join(filter(None, (line.group, line.name)))}: {_figures(line)}"
        + (f", {line.verdict}" if line.verdict and line.value is not None else "")
        for line in lines
    ]
    return f"In {unit}. {'; '.join(said)}."
