"""Forest plots of the report page: figures below each other, each with its interval, as SVG.

A verdict is told by the shape of its marker, and every figure stands beside its line in words, so
that colour carries nothing alone. Colours are CSS classes, as in charts.py.
"""

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup, escape

from tinyablation.records.panels import ForestPanel
from tinyablation.records.records import Record
from tinyablation.report.charts import number, tick_text
from tinyablation.report.curves import Axis, axis

ROW = 16  # px from line to line
TOP, BOTTOM = 8, 38  # px round the lines
PLOT, FIGURES = 270, 180  # px of the axis, and of the figures to its right
CONDITION, NAMES = 122, 226  # px where conditions begin and end, where lines are grouped
LONGEST_GROUP, LONGEST_NAME, LONGEST_ALONE = 19, 16, 36  # characters that fit their column
LETTER = 6.2  # px of a letter, about
# Markers about (0, 0); the first is a circle, drawn as such.
_SHAPES = {
    "supported": "",
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


def panel_forest(panel: ForestPanel, identifier: str) -> Markup:
    """A claim's own panel."""
    lines = [Line(row.name, row.value, row.low, row.high) for row in panel.rows]
    return forest(lines, panel.title, panel.unit, identifier, bound=panel.bound)


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
    ends = [
        value
        for line in lines
        for value in (line.value, line.low, line.high, line.floor)
        if value is not None and line.value is not None
    ]
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
    return Markup(
        f'<svg class="curve forests" role="img" width="{width}" viewBox="0 0 {width} {height}" '
        f'aria-labelledby="{identifier}-t {identifier}-d"><title id="{identifier}-t">'
        f'{_text(title)}</title><desc id="{identifier}-d">{_described(lines, unit)}</desc>'
        f"{drawn}</svg>"
    )


def _px(value: float) -> str:
    return f"{round(value, 1):g}"


def _text(value: str, most: int | None = None) -> Markup:
    """One line without control characters, cut to what fits."""
    shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in value)
    return escape(shown if most is None or len(shown) <= most else f"{shown[: most - 1]}…")


def _frame(across: Axis, unit: str, rows: int, bound: float | None) -> str:
    bottom = TOP + ROW * rows + 2
    parts = [
        f'<path class="ka" d="M{_px(across.start)} {bottom}H{_px(across.end)}"/>',
        f'<path class="kz" d="M{_px(across.px(0))} {TOP}V{bottom}"/>',
    ]
    if bound is not None:
        x = _px(across.px(bound))
        parts.append(f'<path class="fo" d="M{x} {TOP}V{bottom}"/>')
    for mark in across.ticks:
        x = _px(across.px(mark))
        parts.append(
            f'<path class="ka" d="M{x} {bottom}v4"/>'
            f'<text class="kx" x="{x}" y="{bottom + 15}">{tick_text(mark)}</text>'
        )
    middle = _px((across.start + across.end) / 2)
    parts.append(f'<text class="kx kl" x="{middle}" y="{bottom + 30}">{_text(unit, 60)}</text>')
    return "".join(parts)


def _line(line: Line, index: int, across: Axis, *, named: bool) -> str:
    y = TOP + ROW * index + ROW // 2
    key = f' data-cell="{escape(line.key)}"' if line.key else ""
    kind = f' class="v-{line.verdict}"' if line.verdict else ' class="k0"'
    parts = [f'<g{key}{kind}><rect class="fh" y="{y - ROW // 2}" width="100%" height="{ROW}"/>']
    if line.group:
        if named:
            group = _text(line.group, LONGEST_GROUP)
            parts.append(f'<text class="fg" x="4" y="{y + 4}">{group}</text>')
        name = _text(line.name, LONGEST_NAME)
        parts.append(f'<text class="fn" x="{CONDITION}" y="{y + 4}">{name}</text>')
    else:
        name = _text(line.name, LONGEST_ALONE)
        parts.append(f'<text class="fn" x="4" y="{y + 4}">{name}</text>')
    if line.value is None:
        middle = _px((across.start + across.end) / 2)
        parts.append(f'<text class="kx" x="{middle}" y="{y + 4}">{_text(line.said, 40)}</text>')
        return "".join(parts) + "</g>"
    if line.floor is not None:
        parts.append(f'<path class="fo" d="M{_px(across.px(line.floor))} {y - 6}v12"/>')
    if line.low is not None and line.high is not None:
        low, high = _px(across.px(line.low)), _px(across.px(line.high))
        parts.append(f'<path class="fe" d="M{low} {y - 3}v6m0-3H{high}m0-3v6"/>')
    x = _px(across.px(line.value))
    shape = _SHAPES.get(line.verdict, "")
    if shape:
        parts.append(f'<path class="fs" transform="translate({x} {y})" d="{shape}"/>')
    else:
        parts.append(f'<circle class="fs" cx="{x}" cy="{y}" r="3.6"/>')
    parts.append(
        f'<text class="fv" x="{_px(across.end + 10)}" y="{y + 4}">{_figures(line)}</text></g>'
    )
    return "".join(parts)


def _figures(line: Line) -> str:
    if line.value is None:
        return line.said
    if line.low is None or line.high is None:
        return number(line.value, signed=True)
    ends = f"[{number(line.low, signed=True)}, {number(line.high, signed=True)}]"
    return f"{number(line.value, signed=True)} {ends}"


def _described(lines: Sequence[Line], unit: str) -> Markup:
    said = [
        f"{' '.join(filter(None, (line.group, line.name)))}: {_figures(line)}"
        + (f", {line.verdict}" if line.verdict and line.value is not None else "")
        for line in lines
    ]
    return _text(f"In {unit}. {'; '.join(said)}.")
