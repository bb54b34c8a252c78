"""Panels of a record as the page prints them: drawings, grids, and tables of tokens."""

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any, NamedTuple

from markupsafe import Markup

from tinyablation.records.panels import CurvePanel, ForestPanel, GridPanel, Panel, Token
from tinyablation.records.records import Record
from tinyablation.report import curves, heat_tables
from tinyablation.report import forest_plots as forests
from tinyablation.report.text import readable


class PanelView(NamedTuple):
    """A panel ready to be printed: a drawing, a grid, or rows of tokens under headings."""

    title: str
    drawing: Markup = Markup("")
    grid: heat_tables.HeatTable | None = None
    headings: Sequence[str] = ()
    rows: Sequence[tuple[Token | None, ...]] = ()


def view(panel: Panel, anchor: str) -> PanelView:
    """One panel; `anchor` is unique on the page and made of letters that need no escape."""
    if isinstance(panel, CurvePanel):
        lines = [one.model_copy(update={"name": readable(one.name)}) for one in panel.series]
        named = panel.model_copy(update={"title": readable(panel.title), "series": lines})
        return PanelView(panel.title, curves.curve(named, anchor))
    if isinstance(panel, ForestPanel):
        return PanelView(panel.title, forests.panel_forest(panel, anchor))
    if isinstance(panel, GridPanel):
        return PanelView(panel.title, grid=heat_tables.grid_table(panel))
    rows = list(zip_longest(*panel.columns.values()))
    return PanelView(panel.title, headings=list(panel.columns), rows=rows)


def panels_of(record: Record) -> list[Panel]:
    """A record's own panels; where it has none, its details that are figures with intervals."""
    if record.panels:
        return list(record.panels)
    details: dict[str, Any] = record.details
    return [
        ForestPanel.of(name, "95 % intervals, in the unit of the detail", item)
        for name, item in details.items()
        if isinstance(item, dict) and len(item) > 1 and all(map(_is_estimate, item.values()))
    ]


def _is_estimate(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 3
        and all(type(item) in (int, float) for item in value)
        and value[1] <= value[0] <= value[2]
    )
