"""Plots for notebooks, as matplotlib figures without its global state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tinyablation.api.errors import ApiError
from tinyablation.runs import pictures

if TYPE_CHECKING:
    import numpy as np

    from tinyablation.statistics.intervals import Estimate

# Line of a forest plot: its name, its estimate (None: nothing was measured), its verdict or "".
ForestLine = tuple[str, "Estimate | None", str]
MARKERS = {"supported": "o", "present": "^", "refuted": "X", "inconclusive": "D", "": "o"}
UNIT = "Δ logit difference (ablated - clean), logits"


class Plot(Figure):
    """A figure that a notebook shows whether or not it has imported pyplot."""

    def _repr_png_(self) -> bytes:
        return pictures.png(self)


def _blank(width: float, height: float, title: str) -> Plot:
    figure = Plot(figsize=(width, height), dpi=pictures.DOTS, layout="constrained")
    figure.suptitle(title, fontsize=9, parse_math=False)
    return figure


def heatmap(values: np.ndarray[Any, Any], title: str, label: str = UNIT) -> Plot:
    """values [n_layers, n_heads]: layers down, heads across; NaN: not measured."""
    n_layers, n_heads = values.shape
    figure = _blank(max(3.0, 0.25 * n_heads + 1.0) + 1.0, max(2.4, 0.2 * n_layers + 1.4), title)
    axes = figure.subplots()
    image = pictures.heatmap(axes, values, pictures.full_shade([values]))
    for axis, name in ((axes.xaxis, "head"), (axes.yaxis, "layer")):
        axis.set_label_text(name)
        axis.set_major_locator(MaxNLocator(integer=True))
    figure.colorbar(image, ax=axes, label=label)
    return figure


def forest(lines: Sequence[ForestLine], title: str, unit: str, bound: float | None = None) -> Plot:
    """One line each: the estimate as a marker, its interval, zero, and the minimum effect.

    Raises ApiError if no line has an estimate.
    """
    shown = [(name, found, verdict) for name, found, verdict in lines if found is not None]
    if not shown:
        raise ApiError(f"{title}: nothing was measured, so there is nothing to plot")
    figure = _blank(6.0, 1.2 + 0.28 * len(shown), title)
    axes = figure.subplots()
    axes.axvline(0, color="#888", linewidth=0.8)
    if bound is not None:
        axes.axvline(float(bound), color="#888", linewidth=0.8, linestyle="--")
    for place, (_, found, verdict) in enumerate(shown):
        axes.plot([found.low, found.high], [place, place], color="#335", linewidth=1.2)
        axes.plot([found.estimate], [place], MARKERS[verdict], color="#335", markersize=5)
    axes.set_yticks(range(len(shown)), [name for name, _, _ in shown], parse_math=False)
    axes.invert_yaxis()
    axes.set_xlabel(UNIT if unit == "logits" else unit, parse_math=False)
    return figure


def curves(series: Mapping[str, Sequence[float]], title: str, unit: str) -> Plot:
    """A line a series over the layers, from layer 0."""
    figure = _blank(6.0, 3.2, title)
    axes = figure.subplots()
    axes.axhline(0, color="#888", linewidth=0.8)
    for name, values in series.items():
        axes.plot(range(len(values)), values, marker=".", label=name)
    axes.set_xlabel("layer")
    axes.set_ylabel(unit, parse_math=False)
    axes.legend(fontsize=8)
    return figure
