"""Heatmaps of head impact in a run's folder: a PNG, and HTML with the figures in its cells.

Both draw the same panels, one per method: layers down, heads across, red where ablation RAISES the
logit difference (a suppressor), blue where it lowers it. Same input, same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tinyablation.errors import TinyAblationError
from tinyablation.runs import pictures

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

CAPTION = "Mean Δ logit difference (ablated - clean, logits) by layer and head"
EMPTY = "No single head was ablated in this battery."

_HTML = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ title }}</title>
<style>
body { font: 14px/1.4 system-ui, sans-serif; margin: 2rem; color: #222; background: #fff; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin-bottom: 2rem; }
caption { text-align: left; font-weight: 600; padding: .4rem 0; }
th { font-weight: 400; color: #555; padding: .2rem .5rem; }
td { padding: .2rem .5rem; text-align: right; }
</style></head><body>
<h1>{{ title }}</h1>
<p>{{ caption }}. Red: ablation raises it (a suppressor); blue: ablation lowers it.</p>
{% for panel in panels %}<table>
<caption>{{ panel.title }}</caption>
<thead><tr><th scope="col">{{ panel.down }} \\ {{ panel.across }}</th>
{%- for head in range(panel.n_heads) %}<th scope="col">{{ head }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in panel.rows %}<tr><th scope="row">{{ loop.index0 }}</th>
{%- for cell in row %}<td style="background:{{ cell.background }};color:{{ cell.ink }}"
 title="{{ panel.across }} {{ cell.head }}: {{ cell.full }}">{{ cell.text }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table>
{% else %}<p>{{ empty }}</p>
{% endfor %}</body></html>
"""


class PlotError(TinyAblationError):
    """Figures that cannot be drawn."""


@dataclass(frozen=True)
class Panel:
    """One heatmap: `values` is [layer, head], in logits; NaN marks a head that was not measured.

    down, across: what its rows and columns are, if not layers and heads.
    """

    title: str
    values: np.ndarray[Any, Any]
    down: str = "layer"
    across: str = "head"


def panels(impact: pd.DataFrame, *, metric: str = "logit_diff", split: str = "all") -> list[Panel]:
    """One panel per (method, scale) of a head_impact table, in order of name; [] if it is empty."""
    import numpy as np

    rows = impact[(impact["metric"] == metric) & (impact["split"] == split)]
    drawn = []
    for (method, scale), group in rows.groupby(["method", "scale"], sort=True):
        values = np.full((group["layer"].max() + 1, group["head"].max() + 1), np.nan)
        values[group["layer"], group["head"]] = group["value"]
        drawn.append(Panel(str(method) if scale == 0 else f"{method} x {scale:g}", values))
    return drawn


def _limit(drawn: Sequence[Panel]) -> float:
    """The full shade of all panels; PlotError where one of them cannot be drawn."""
    import numpy as np

    for panel in drawn:
        if panel.values.ndim != 2 or panel.values.size == 0:
            raise PlotError(f"panel {panel.title!r}: shape {panel.values.shape}, not [layer, head]")
        if np.isinf(panel.values).any() or np.isnan(panel.values).all():
            raise PlotError(f"panel {panel.title!r}: infinite, or no figure at all")
    return pictures.full_shade(panel.values for panel in drawn)


def draw_png(drawn: Sequence[Panel], title: str) -> bytes:
    """The panels side by side as a PNG. Raises PlotError on infinite or missing figures."""
    if not drawn:  # without axes, which take half of the time: most runs have no such panel
        figure = pictures.blank(4.0, 2.4, title, 9)
        figure.text(0.5, 0.5, EMPTY, ha="center", va="center", fontsize=9)
        return pictures.png(figure)
    limit, count = _limit(drawn), len(drawn)
    n_layers, n_heads = drawn[0].values.shape
    # .25 inch a head and a layer keeps GPT-2 XL (48 x 25) legible; a title needs 3 inches.
    width = count * max(3.0, 0.25 * n_heads + 1.0) + 1.0
    figure = pictures.blank(width, max(2.4, 0.25 * n_layers + 1.6), title, 9)
    axes = figure.subplots(1, count, squeeze=False)[0]
    for axis, panel in zip(axes, drawn, strict=True):
        image = pictures.heatmap(axis, panel.values, limit)
        axis.set_title(panel.title, fontsize=9, parse_math=False)
        axis.set_xlabel(panel.across)
        axis.set_ylabel(panel.down)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.yaxis.get_major_locator().set_params(integer=True)
    figure.colorbar(image, ax=list(axes), label="Δ logit difference (logits)")
    return pictures.png(figure)


def draw_html(drawn: Sequence[Panel], title: str) -> str:
    """The panels as one self-contained, escaped HTML page with the figures in the cells."""
    from jinja2 import Environment
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    limit = _limit(drawn)
    colours = colormaps[pictures.COLOURS]

    def cell(value: float, layer: int, head: int) -> dict[str, str]:
        place = f"{layer}:{head}"
        if math.isnan(value):  # not measured
            return {
                "head": place,
                "background": "#eee",
                "ink": "#222",
                "text": "",
                "full": "none",
            }
        share = value / limit
        return {
            "head": place,
            "background": to_hex(colours((share + 1) / 2)),
            "ink": "#fff" if abs(share) > 0.65 else "#222",  # where RdBu falls under half luminance
            "text": f"{value:+.3f}",
            "full": f"{value:+.6g}",
        }

    shown = [
        {
            "title": panel.title,
            "n_heads": panel.values.shape[1],
            "down": panel.down,
            "across": panel.across,
            "rows": [
                [cell(float(value), layer, head) for head, value in enumerate(row)]
                for layer, row in enumerate(panel.values)
            ],
        }
        for panel in drawn
    ]
    template = Environment(autoescape=True).from_string(_HTML)
    return template.render(title=title, caption=CAPTION, panels=shown, empty=EMPTY)
