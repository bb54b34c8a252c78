"""Figures of a session for papers, by matplotlib, as SVG and PNG: forest plots, heatmaps, panels.

One figure a claim and kind, small multiples over models and conditions; what the page shows, with
the same colours in the light theme and the same markers. Same records, same bytes.
"""

import io
import math
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from tinyablation.records.panels import CurvePanel, ForestPanel, GridPanel, Panel
from tinyablation.records.records import Record, RecordFile
from tinyablation.report.export_tables import file_name
from tinyablation.report.forest_plots import Line, lines_of, lines_of_panel
from tinyablation.report.markdown import one_line
from tinyablation.runs import pictures
from tinyablation.spelling import sentence_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {
    "supported": "#0a6b62",
    "present": "#6a3d9a",
    "refuted": "#ad3f17",
    "inconclusive": "#806000",
    "blocked": "#6b727a",
    "error": "#b3002d",
}
_PLAIN = "#1d4f91"  # of figures that are no verdict
_BOUND = "#5c646c"  # of floors and bounds
MARKERS = {
    "supported": "o",
    "present": "v",
    "refuted": "X",
    "inconclusive": "D",
    "blocked": "s",
    "error": "^",
}
ACROSS = 4  # small multiples beside each other: the conditions of one model
LETTERS = 44  # that fit above one of them
_TITLE = 10  # pt, above a figure
# Text stays text in an SVG, ids do not depend on the clock: the same figure gives the same bytes.
_STYLE: Any = {"svg.fonttype": "none", "svg.hashsalt": "tinyablation", "font.size": 8}


class _Strokes(NamedTuple):
    """How a forest plot is drawn: widths and size of a marker in pt, and of its label."""

    interval: float
    marker: float
    zero: float
    label: float


_ALONE, _SMALL = _Strokes(1.2, 5, 0.8, 8), _Strokes(1, 3.5, 0.7, 6)


class _Multiple(NamedTuple):
    """One small multiple: what it draws, and what stands above it."""

    title: str
    panel: Panel


def figures(file: RecordFile) -> Iterator[tuple[str, bytes]]:
    """(file name, content) of every figure, SVG and PNG, claims in their order."""
    from matplotlib import rc_context

    groups: dict[tuple[str, str], list[Record]] = {}
    for record in file.records:
        groups.setdefault((record.claim, record.name), []).append(record)
    for (claim, name), records in groups.items():
        title = one_line(f"{claim} {sentence_of(name)}")
        stem = (claim, name.removeprefix("test_"))
        with rc_context(_STYLE), warnings.catch_warnings():
            # An SVG is drawn with the reader's fonts; a PNG shows a box for what DejaVu lacks.
            warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
            if any(record.effect is not None for record in records):
                yield from _saved(_forest(records, title), file_name(*stem, "effects"))
            for kind, multiples in _multiples(records).items():
                yield from _saved(_grid_of(multiples, title), file_name(*stem, kind))


def _saved(figure: "Figure", stem: str) -> Iterator[tuple[str, bytes]]:
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    picture, drawing = pictures.png(figure), io.BytesIO()
    # After the picture: it sets the figure to 72 dots an inch.
    FigureCanvasSVG(figure).print_svg(drawing, metadata={"Date": None, "Creator": None})
    yield f"{stem}.svg", drawing.getvalue()
    yield f"{stem}.png", picture


def _forest(records: Sequence[Record], title: str) -> "Figure":
    """Effects of one claim with their intervals, a line a model and condition."""
    figure = pictures.blank(7, 1.2 + 0.2 * len(records), title, _TITLE)
    units = dict.fromkeys(record.unit for record in records if record.effect is not None)
    lines = lines_of(records, [""] * len(records))
    _draw_forest(figure.subplots(), lines, " / ".join(filter(None, units)) or "effect", _ALONE)
    return figure


def _named(set_ticks: Any, places: Any, names: Sequence[str]) -> None:
    """Ticks with names that are no formulas: a "$" in a token begins none."""
    set_ticks(list(places), list(map(one_line, names)), parse_math=False)


def _multiples(records: Sequence[Record]) -> dict[str, list[_Multiple]]:
    """What the records of a claim can draw, by kind; tables of tokens are text (tokens.csv)."""
    found: dict[str, list[_Multiple]] = {}
    for record in records:
        place = one_line(f"{record.model}, {record.condition}")
        if record.heatmap is not None:
            grid = GridPanel(
                title=record.heatmap.title,
                x="head",
                y="layer",
                columns=record.heatmap.heads,
                rows=record.heatmap.layers,
                values=record.heatmap.values,
            )
            found.setdefault("heads", []).append(_Multiple(place, grid))
        for panel in record.panels:
            if isinstance(panel, CurvePanel | ForestPanel | GridPanel):
                found.setdefault(panel.kind, []).append(_Multiple(place, panel))
    return found


def _grid_of(multiples: Sequence[_Multiple], title: str) -> "Figure":
    across = min(ACROSS, len(multiples))
    down = -(-len(multiples) // across)
    said = list(dict.fromkeys(one_line(multiple.panel.title) for multiple in multiples))
    together = title if len(said) > 1 else f"{title}: {said[0]}"
    above = textwrap.fill(together, 32 * across)
    figure = pictures.blank(2.9 * across, 0.5 + 2.3 * down, above, _TITLE)
    places = figure.subplots(down, across, squeeze=False)
    for place, multiple in zip(places.flat, multiples, strict=False):
        above = multiple.title
        if len(said) > 1:
            above += "\n" + textwrap.fill(one_line(multiple.panel.title), LETTERS)
        place.set_title(above, fontsize=7, parse_math=False)
        place.tick_params(labelsize=6)
        if isinstance(multiple.panel, CurvePanel):
            _draw_curve(place, multiple.panel)
        elif isinstance(multiple.panel, ForestPanel):
            lines = lines_of_panel(multiple.panel)
            _draw_forest(place, lines, multiple.panel.unit, _SMALL, multiple.panel.bound)
        elif isinstance(multiple.panel, GridPanel):
            _draw_grid(place, multiple.panel)
    for place in places.flat[len(multiples) :]:
        place.set_axis_off()
    return figure


def _draw_curve(axes: "Axes", panel: CurvePanel) -> None:
    from matplotlib.ticker import MaxNLocator

    for number, line in enumerate(panel.series):
        style: dict[str, Any] = {
            "marker": "os^D"[number % 4],
            "ms": 3,
            "lw": 1,
            "label": one_line(line.name),
        }
        gap: list[int | None] = [None]
        points = [point for run in line.joined() for point in gap + run]

        def broken(values: Sequence[float], points: Sequence[int | None] = points) -> list[float]:
            return [math.nan if point is None else values[point] for point in points]

        if line.low is None or line.high is None:
            axes.plot(broken(line.x), broken(line.y), **style)
            continue
        # An estimate may lie outside its own bootstrap interval; a bar has no negative length.
        below = [max(0.0, y - low) for y, low in zip(line.y, line.low, strict=True)]
        above = [max(0.0, high - y) for y, high in zip(line.y, line.high, strict=True)]
        ends = [broken(below), broken(above)]
        axes.errorbar(broken(line.x), broken(line.y), yerr=ends, capsize=2, **style)
    if all(float(x).is_integer() for line in panel.series for x in line.x):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if panel.diagonal:
        axes.axline((0, 0), slope=1, color=_BOUND, lw=0.7, ls=":")
    axes.set_xlabel(one_line(panel.x), fontsize=6, parse_math=False)
    axes.set_ylabel(one_line(panel.y), fontsize=6, parse_math=False)
    for text in axes.legend(fontsize=5).get_texts():
        text.set_parse_math(False)


def _draw_forest(
    axes: "Axes",
    lines: Sequence[Line],
    unit: str,
    strokes: _Strokes,
    bound: float | None = None,
) -> None:
    for place, line in enumerate(lines):
        colour = COLOURS.get(line.verdict, _PLAIN)
        if line.value is None:
            axes.text(0, place, line.said, color=colour, va="center", ha="center", fontsize=7)
            continue
        if line.low is not None and line.high is not None:
            axes.plot([line.low, line.high], [place, place], color=colour, lw=strokes.interval)
        hollow = "none" if line.verdict in ("present", "inconclusive", "blocked") else colour
        marker = MARKERS.get(line.verdict, "o")
        axes.plot(line.value, place, marker, color=colour, mfc=hollow, ms=strokes.marker)
        if line.floor is not None:
            axes.plot([line.floor] * 2, [place - 0.4, place + 0.4], color=_BOUND, lw=0.8)
    axes.axvline(0, color="#8d9087", lw=strokes.zero, ls=":")
    if bound is not None:
        axes.axvline(bound, color=_BOUND, lw=0.8, ls="--")
    names = [", ".join(filter(None, (line.group, line.name))) for line in lines]
    _named(axes.set_yticks, range(len(lines)), names)
    axes.set_ylim(len(lines) - 0.4, -0.6)
    axes.set_xlabel(one_line(unit), fontsize=strokes.label, parse_math=False)


def _draw_grid(axes: "Axes", panel: GridPanel) -> None:
    import numpy as np

    values = np.array(
        [[np.nan if value is None else value for value in row] for row in panel.values]
    )
    limit = pictures.full_shade([values])
    pictures.heatmap(axes, values, limit)
    _named(axes.set_xticks, range(len(panel.columns)), panel.columns)
    _named(axes.set_yticks, range(len(panel.rows)), panel.rows)
    if max(map(len, panel.columns)) > 4:
        axes.tick_params(axis="x", labelrotation=45)
    axes.set_xlabel(f"{one_line(panel.x)}; full shade ±{limit:.3g}", fontsize=6, parse_math=False)
    axes.set_ylabel(one_line(panel.y), fontsize=6, parse_math=False)
