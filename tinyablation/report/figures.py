"""Figures of a session for papers, by matplotlib, as SVG and PNG: forest plots, heatmaps, panels.

One figure a claim and kind, small multiples over models and conditions; what the page shows, with
the same colours in the light theme and the same markers. Same records, same bytes.
"""

import io
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from tinyablation.records.panels import CurvePanel, ForestPanel, GridPanel, Panel
from tinyablation.records.records import Record, RecordFile
from tinyablation.report.export_tables import file_name
from tinyablation.report.markdown import one_line
from tinyablation.report.text import sentence_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {
    "supported": "#0a6b62",
    "refuted": "#ad3f17",
    "inconclusive": "#806000",
    "blocked": "#6b727a",
    "error": "#b3002d",
}
MARKERS = {"supported": "o", "refuted": "X", "inconclusive": "D", "blocked": "s", "error": "^"}
ACROSS = 4  # small multiples beside each other: the conditions of one model
LETTERS = 44  # that fit above one of them
DOTS = 110  # of a PNG, per inch
# Text stays text in an SVG, ids do not depend on the clock: the same figure gives the same bytes.
_STYLE: Any = {"svg.fonttype": "none", "svg.hashsalt": "tinyablation", "font.size": 8}


class _Multiple(NamedTuple):
    """One small multiple: what it draws, and what stands above it."""

    title: str
    panel: Panel


def figures(file: RecordFile) -> Iterator[tuple[str, bytes]]:
    """(file name, content) of every figure, SVG and PNG, claims in their order."""
    from matplotlib import rc_context

    groups: dict[tuple[str, str], list[Record]] = {}
    for record in file.ordered():
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
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    picture, drawing = io.BytesIO(), io.BytesIO()
    FigureCanvasAgg(figure).print_png(picture, metadata={"Software": None})
    # After the picture: it sets the figure to 72 dots an inch.
    FigureCanvasSVG(figure).print_svg(drawing, metadata={"Date": None, "Creator": None})
    yield f"{stem}.svg", drawing.getvalue()
    yield f"{stem}.png", picture.getvalue()


def _new(width: float, height: float, title: str) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DOTS, layout="constrained")
    figure.suptitle(title, fontsize=10, parse_math=False)
    return figure


def _forest(records: Sequence[Record], title: str) -> "Figure":
    """Effects of one claim with their intervals, a line a model and condition."""
    figure = _new(7, 1.2 + 0.2 * len(records), title)
    axes = figure.subplots()
    for place, record in enumerate(records):
        colour = COLOURS[record.verdict]
        if record.effect is None:
            axes.text(0, place, record.verdict, color=colour, va="center", ha="center", fontsize=7)
            continue
        if record.low is not None and record.high is not None:
            axes.plot([record.low, record.high], [place, place], color=colour, lw=1.2)
        hollow = "none" if record.verdict in ("inconclusive", "blocked") else colour
        marker = MARKERS[record.verdict]
        axes.plot(record.effect, place, marker, color=colour, mfc=hollow, ms=5)
        if record.floor is not None:
            axes.plot([record.floor] * 2, [place - 0.4, place + 0.4], color="#5c646c", lw=0.8)
    axes.axvline(0, color="#8d9087", lw=0.8, ls=":")
    names = [f"{record.model}, {record.condition}" for record in records]
    _named(axes.set_yticks, range(len(records)), names)
    axes.set_ylim(len(records) - 0.4, -0.6)
    units = dict.fromkeys(record.unit for record in records if record.effect is not None)
    axes.set_xlabel(one_line(" / ".join(filter(None, units))) or "effect", parse_math=False)
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
            values = record.heatmap.values
            grid = GridPanel(
                title=record.heatmap.title,
                x="head",
                y="layer",
                columns=[str(head) for head in range(len(values[0]))],
                rows=[str(layer) for layer in range(len(values))],
                values=[list(row) for row in values],
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
    figure = _new(2.9 * across, 0.5 + 2.3 * down, textwrap.fill(together, 32 * across))
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
            _draw_forest(place, multiple.panel)
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
        if line.low is None or line.high is None:
            axes.plot(line.x, line.y, **style)
            continue
        below = [y - low for y, low in zip(line.y, line.low, strict=True)]
        above = [high - y for y, high in zip(line.y, line.high, strict=True)]
        # An estimate may lie outside its own bootstrap interval; a bar has no negative length.
        ends = [[max(0.0, length) for length in lengths] for lengths in (below, above)]
        axes.errorbar(line.x, line.y, yerr=ends, capsize=2, **style)
    if all(float(x).is_integer() for line in panel.series for x in line.x):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel(one_line(panel.x), fontsize=6, parse_math=False)
    axes.set_ylabel(one_line(panel.y), fontsize=6, parse_math=False)
    for text in axes.legend(fontsize=5).get_texts():
        text.set_parse_math(False)


def _draw_forest(axes: "Axes", panel: ForestPanel) -> None:
    for place, row in enumerate(panel.rows):
        if row.low is not None and row.high is not None:
            axes.plot([row.low, row.high], [place, place], color="#1d4f91", lw=1)
        axes.plot(row.value, place, "o", color="#1d4f91", ms=3.5)
    axes.axvline(0, color="#8d9087", lw=0.7, ls=":")
    if panel.bound is not None:
        axes.axvline(panel.bound, color="#5c646c", lw=0.8, ls="--")
    _named(axes.set_yticks, range(len(panel.rows)), [row.name for row in panel.rows])
    axes.set_ylim(len(panel.rows) - 0.4, -0.6)
    axes.set_xlabel(one_line(panel.unit), fontsize=6, parse_math=False)


def _draw_grid(axes: "Axes", panel: GridPanel) -> None:
    import numpy as np

    values = np.array(
        [[np.nan if value is None else value for value in row] for row in panel.values]
    )
    known = np.abs(values[~np.isnan(values)])
    limit = float(known.max()) if known.size else 0.0
    limit = limit or 1.0  # all zero: any scale shows it white
    axes.imshow(values, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto")
    _named(axes.set_xticks, range(len(panel.columns)), panel.columns)
    _named(axes.set_yticks, range(len(panel.rows)), panel.rows)
    if max(map(len, panel.columns)) > 4:
        axes.tick_params(axis="x", labelrotation=45)
    axes.set_xlabel(f"{one_line(panel.x)}; full shade ±{limit:.3g}", fontsize=6, parse_math=False)
    axes.set_ylabel(one_line(panel.y), fontsize=6, parse_math=False)
