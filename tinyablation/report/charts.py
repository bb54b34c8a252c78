"""Figures of the report page: numbers as text, forest plots as SVG, heatmaps as table cells.

Everything is a pure function of numbers to markup in which colours are CSS classes, so that one
page serves light, dark and print, and the same input gives the same bytes.
"""

import math
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple

from markupsafe import Markup

from tinyablation.records.panels import GridPanel
from tinyablation.records.records import Heatmap, Record

PLOT_WIDTH = 230  # px; a row of the forest plot
PLOT_HEIGHT = 18
_MARGIN = 8  # px, so that markers at the ends are not cut
HEAT_STEPS = 9  # shades each side of zero; the value stands in the cell, shade is for the glance
PRINTED_HEADS = 16  # wider maps show shades only, values as tooltips


def number(value: float, *, signed: bool = False) -> str:
    """Three decimals, or two significant digits where those would show nothing."""
    if value != 0 and (abs(value) < 0.0005 or abs(value) >= 1e6):
        text = f"{value:+.1e}" if signed else f"{value:.1e}"
    else:
        text = f"{value:+.3f}" if signed else f"{value:.3f}"
    return text.replace("-", "\N{MINUS SIGN}")


def p_value(value: float) -> str:
    """A p value as journals print it."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


class Scale(NamedTuple):
    """A linear axis in data units, and the places where it is labelled."""

    low: float
    high: float
    ticks: tuple[float, ...]

    def x(self, value: float) -> float:
        """Pixels from the left."""
        share = (value - self.low) / (self.high - self.low)
        return round(_MARGIN + share * (PLOT_WIDTH - 2 * _MARGIN), 1)


def scale(values: Iterable[float]) -> Scale:
    """The axis that shows all `values` and zero, with three to six round ticks."""
    shown = [0.0, *values]
    low, high = min(shown), max(shown)
    if high == low:
        low, high = -1.0, 1.0
    return Scale(low, high, ticks(low, high))


def ticks(low: float, high: float) -> tuple[float, ...]:
    """Three to six round values from `low` to `high`; low < high.

    Differences of the smallest and largest floats have no round values: then the two ends.
    """
    if not math.isfinite(high - low):
        return (low, high)
    magnitude = 10.0 ** math.floor(math.log10((high - low) / 4)) if (high - low) / 4 else 0.0
    step = next(
        (f * magnitude for f in (1, 2, 5) if f * magnitude * 4 >= (high - low)), 10 * magnitude
    )
    if step <= 0:
        return (low, high)
    first, last = math.ceil(low / step), math.floor(high / step)
    return tuple(round(i * step, 12) for i in range(first, last + 1))


def shared_scale(records: Sequence[Record]) -> Scale:
    """The axis for one claim: every effect, interval and floor of `records`."""
    figures = ((r.effect, r.low, r.high, r.floor) for r in records if r.effect is not None)
    return scale(value for row in figures for value in row if value is not None)


def _px(value: float) -> str:
    return f"{value:g}"


def forest_row(record: Record, axis: Scale) -> Markup:
    """One line of a forest plot: zero, the floor, the interval and the point."""
    if record.effect is None:
        return Markup("")
    middle, zero, point = PLOT_HEIGHT // 2, axis.x(0), axis.x(record.effect)
    parts = []
    if record.floor is not None:
        edge = axis.x(record.floor)
        left, width = min(zero, edge), abs(edge - zero)
        parts.append(
            f'<rect class="fb" x="{_px(left)}" width="{_px(round(width, 1))}" height="18"/>'
            f'<path class="fl" d="M{_px(edge)} 0V18"/>'
        )
    parts.append(f'<path class="fz" d="M{_px(zero)} 0V18"/>')
    if record.low is not None and record.high is not None:
        low, high = axis.x(record.low), axis.x(record.high)
        parts.append(f'<path class="fi" d="M{_px(low)} 6v6m0-3H{_px(high)}m0-3v6"/>')
    parts.append(f'<circle class="fp" cx="{_px(point)}" cy="{middle}" r="3.4"/>')
    return Markup(f'<svg class="forest" viewBox="0 0 {PLOT_WIDTH} 18">' + "".join(parts) + "</svg>")


def forest_axis(axis: Scale) -> Markup:
    """The labelled axis above the rows of a forest plot."""
    labels = "".join(
        f'<text x="{_px(axis.x(tick))}" y="10">{tick_text(tick)}</text>'
        f'<path class="ft" d="M{_px(axis.x(tick))} 13v5"/>'
        for tick in axis.ticks
    )
    ends = f'<path class="ft" d="M{_MARGIN} 17.5H{PLOT_WIDTH - _MARGIN}"/>'
    return Markup(f'<svg class="forest axis" viewBox="0 0 {PLOT_WIDTH} 18">{labels}{ends}</svg>')


def tick_text(value: float) -> str:
    """A value at an axis."""
    return f"{value:g}".replace("-", "\N{MINUS SIGN}")


class HeatCell(NamedTuple):
    """One figure of a heatmap: its shade as a CSS class, its value as text and as a tooltip."""

    shade: str
    text: str
    tooltip: str


class HeatTable(NamedTuple):
    """A heatmap ready to be printed; `extent`: value of the full shade."""

    title: str
    columns: list[str]
    names: list[str]  # of the rows
    rows: list[list[HeatCell]]
    extent: float
    printed: bool
    x: str
    y: str


def heat_table(heatmap: Heatmap, subject: str | None) -> HeatTable:
    """Layers down, heads across; the subject's heads are outlined."""
    chosen = set((subject or "").replace("+", " ").replace(",", " ").split())
    width = max((len(row) for row in heatmap.values), default=0)
    return _shaded(
        heatmap.title,
        [str(head) for head in range(width)],
        [str(layer) for layer in range(len(heatmap.values))],
        heatmap.values,
        ("head", "layer"),
        lambda layer, head: f"{layer}:{head}",
        chosen,
    )


def grid_table(panel: GridPanel) -> HeatTable:
    """A claim's own grid."""
    return _shaded(
        panel.title,
        panel.columns,
        panel.rows,
        panel.values,
        (panel.x, panel.y),
        lambda row, column: f"{panel.rows[row]}, {panel.columns[column]}",
        set(),
    )


def _shaded(
    title: str,
    columns: list[str],
    names: list[str],
    values: Sequence[Sequence[float | None]],
    axes: tuple[str, str],
    name_of: Callable[[int, int], str],
    chosen: Collection[str],
) -> HeatTable:
    """Shades on a diverging scale, symmetric about zero."""
    extent = max((abs(v) for row in values for v in row if v is not None), default=0.0)
    rows = []
    for down, row in enumerate(values):
        cells = []
        for across, value in enumerate(row):
            name = name_of(down, across)
            if value is None:
                cells.append(HeatCell("", "", f"{name} not measured"))
                continue
            step = round(value / extent * HEAT_STEPS) if extent else 0
            shade = f"{'p' if step > 0 else 'n'}{abs(step)}" if step else ""
            if name in chosen:
                shade = f"{shade} subject".strip()
            cells.append(HeatCell(shade, _short(value), f"{name} {number(value, signed=True)}"))
        rows.append(cells)
    printed = len(columns) <= PRINTED_HEADS
    return HeatTable(title, columns, names, rows, extent, printed, *axes)


def _short(value: float) -> str:
    """Two decimals without the leading zero: it must fit a cell of 2.4 em."""
    text = f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"
    if float(text) == 0:
        return "0"
    return re.sub(r"^(-?)0\.", r"\1.", text).replace("-", "\N{MINUS SIGN}")
