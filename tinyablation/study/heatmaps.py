"""Heatmaps of a config's run: single heads, pairs of heads, or what was patched in each layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tinyablation.runs.heatmaps import Panel, panels
from tinyablation.study.batteries import ActivationPatch, Battery, HeadsPairZero

if TYPE_CHECKING:
    import pandas as pd

METRIC = "logit_diff"


def panels_of(battery: Battery, heads: pd.DataFrame, layers: pd.DataFrame) -> list[Panel]:
    """The panels of head_impact and layer_impact (tables.impact); [] where there is no grid."""
    if isinstance(battery, HeadsPairZero):
        return _pairs(heads[heads["metric"] == METRIC])
    if len(heads):
        (split,) = set(heads["split"])
        return panels(heads, metric=METRIC, split=split)
    if isinstance(battery, ActivationPatch):
        return _patched(layers[layers["metric"] == METRIC])
    return []


def _pairs(rows: pd.DataFrame) -> list[Panel]:
    """One head down, the other across: a panel for each layer and scale, the same on both sides."""
    import numpy as np

    found = []
    for (layer, scale), group in rows.groupby(["layer", "scale"], sort=True):
        pairs = [tuple(map(int, text.split("-"))) for text in group["head"]]
        size = max(max(pair) for pair in pairs) + 1
        values = np.full((size, size), np.nan)
        for (one, other), value in zip(pairs, group["value"], strict=True):
            values[one, other] = values[other, one] = value
        title = f"pairs of layer {layer}" + ("" if scale == 0 else f" x {scale:g}")
        found.append(Panel(title, values, down="head", across="head"))
    return found


def _patched(rows: pd.DataFrame) -> list[Panel]:
    """A column of layers, for each part that was patched."""
    import numpy as np

    found = []
    for (part, positions), group in rows.groupby(["granularity", "positions"], sort=True):
        values = np.full((group["layer"].max() + 1, 1), np.nan)
        values[group["layer"], 0] = group["value"]
        found.append(Panel(f"patched at {positions}", values, across=str(part)))
    return found
