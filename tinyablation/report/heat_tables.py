"""Heatmaps of the report page, as tables: a shade, a figure and a tooltip for every cell.

Shades are CSS classes, so that one page serves light, dark and print.
"""

import re
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from tinyablation.records.panels import GridPanel
from tinyablation.records.records import Heatmap
from tinyablation.report.text import number, readable

HEAT_STEPS = 9  # shades each side of zero; the value stands in the cell, shade is for the glance
_CHANGE = re.compile(r"(?:\bchange of|Δ) (\w+)")  # in titles: of what it is the change
PRINTED_HEADS = 16  # wider maps show shades only, values as tooltips


class HeatCell(NamedTuple):
    """One figure of a heatmap: its shade as a CSS class, its value as text and as a tooltip."""

    shade: str
    text: str
    tooltip: str


class HeatTable(NamedTuple):
    """A heatmap ready to be printed; `extent`: value of the full shade.

    lowers, raises: what figures below and above zero say ("raises LD"), if the title tells.
    """

    title: str
    columns: list[str]
    names: list[str]  # of the rows
    rows: list[list[HeatCell]]
    extent: float
    printed: bool
    x: str
    y: str
    lowers: str = ""
    raises: str = ""


def heat_table(heatmap: Heatmap, subject: str | None) -> HeatTable:
    """Layers down, heads across; the subject's heads are outlined."""
    chosen = set((subject or "").replace("+", " ").replace(",", " ").split())
    shaded = _shaded(
        heatmap.title,
        heatmap.heads,
        heatmap.layers,
        heatmap.values,
        ("head", "layer"),
        lambda layer, head: f"{layer}:{head}",
        chosen,
    )
    found = _CHANGE.search(heatmap.title)
    if found is None:
        return shaded
    return shaded._replace(lowers=f"lowers {found[1]}", raises=f"raises {found[1]}")


def grid_table(panel: GridPanel) -> HeatTable:
    """A claim's own grid; heads have the names of the page."""
    columns, rows = _named(panel.x, panel.columns), _named(panel.y, panel.rows)
    return _shaded(
        panel.title,
        columns,
        rows,
        panel.values,
        (panel.x, panel.y),
        lambda row, column: f"{rows[row]}, {columns[column]}",
        set(),
    )


def _named(axis: str, labels: list[str]) -> list[str]:
    return list(map(readable, labels)) if axis == "head" else labels


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
