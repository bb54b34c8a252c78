"""The tables of a config's run in the study's columns: one split, one row an intervention, metric.

`value` is a mean over the examples. That of logit_diff is LD ablated - LD clean: suppressors, whose
ablation raises LD, have the largest. (The published tables hold LD itself. Both are in the same
order, since the clean LD is one constant.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tinyablation.engine.tables import BASELINE, COLUMNS, METRICS, Column
from tinyablation.errors import TinyAblationError
from tinyablation.runs.derived import changes
from tinyablation.study.batteries import ActivationPatch, Asked, Battery, HeadsPairZero

if TYPE_CHECKING:
    import pandas as pd

_FIRST = ("run_id", "seed", "layer")
HEAD = (*_FIRST, "head", "scale", "metric", "value", "method", "split")
LAYER = (*_FIRST, "granularity", "metric", "value", "positions", "donor", "split")
SETS = (*_FIRST, "heads", "label", "scale", "metric", "value", "method", "split")
CONDITION = "condition"
_DESCRIBED = {
    **COLUMNS,
    "split": Column("string", "", "the dataset's split that was measured: train, val or test"),
    "granularity": Column("string", "", "what was patched: layer_resid or mlp"),
    "label": Column("string", "", 'the label of a group of heads; "": none'),
    "layer": Column("int64", "index from 0", "layer of the heads, or the one patched"),
    "condition": Column("string", "", "tag of the condition"),
}
_OF_PAIRS = {
    **_DESCRIBED,
    "head": Column("string", "index from 0", 'the two heads, "h1-h2", within the layer'),
}


def described(battery: Battery) -> Mapping[str, Column]:
    """What the columns of a battery's tables are."""
    return _OF_PAIRS if isinstance(battery, HeadsPairZero) else _DESCRIBED


def layer_columns(battery: Battery) -> tuple[str, ...]:
    return LAYER if isinstance(battery, ActivationPatch) else SETS


def impact(
    battery: Battery, asked: Asked, table: pd.DataFrame, metrics: Sequence[str], **same: Any
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(head_impact, layer_impact): single heads and pairs in the first, all else in the second.

    table: of the run (per_example). metrics: those that are wanted. same: columns that are the same
    in every row. The one that the battery has nothing for is empty.
    """
    import pandas as pd

    rows = table[~table["intervention"].isin([BASELINE, *asked.sham])]
    # "0.2+0.4" in the engine's tables: layer.head, all of one layer here.
    sets = [[head.split(".") for head in text.split("+") if head] for text in rows["heads"]]
    layers = zip(sets, rows["layer"], strict=True)
    rows = rows.assign(
        layer=[int(heads[0][0]) if heads else layer for heads, layer in layers],
        label=[asked.labels.get(name, "") for name in rows["intervention"]],
    )
    if isinstance(battery, HeadsPairZero):
        rows = rows.assign(head=["-".join(head for _, head in heads) for heads in sets])
    if isinstance(battery, ActivationPatch):
        rows = rows.assign(granularity=battery.part)
    of_heads = isinstance(battery, HeadsPairZero) or bool((table["head"] >= 0).any())
    names = HEAD if of_heads else layer_columns(battery)
    keys = [name for name in names if name not in ("metric", "value", "split", *same)]
    found = changes(table, rows, keys).groupby([*keys, "split"], sort=True)[list(metrics)].mean()
    long = found.reset_index().melt(id_vars=[*keys, "split"], var_name="metric")
    filled = long.assign(**same)[list(names)]
    columns = described(battery)
    other = layer_columns(battery) if of_heads else HEAD
    empty = pd.DataFrame(
        {
            name: pd.Series(dtype={"string": "str"}.get(kind := columns[name].dtype, kind))
            for name in other
        }
    )
    return (filled, empty) if of_heads else (empty, filled)


def summary(
    asked: Asked, table: pd.DataFrame, metrics: Sequence[str], seeds: Sequence[int]
) -> dict[str, Any]:
    """Metric -> mean, ci95, values, unit: the change over all interventions of the battery.

    ci95 is over clusters of prompts, not over seeds. sham: the largest |change| of LD by a control.
    """
    from tinyablation.statistics.intervals import cluster_interval, generator

    rows = table[table["intervention"] != BASELINE]
    found = changes(table, rows, ["intervention", "example", "cluster_id"])
    is_sham = found["intervention"].isin(asked.sham)
    by_example = found[~is_sham].groupby(["example", "cluster_id"])[list(METRICS)].mean()
    clusters = by_example.index.get_level_values("cluster_id").to_numpy()
    document: dict[str, Any] = {}
    for name in metrics:
        sample = by_example[name].to_numpy(dtype="float64")
        mean = float(sample.mean())
        figure = {"mean": mean, "ci95": None, "values": [mean], "unit": METRICS[name].unit}
        try:
            estimate = cluster_interval(sample, clusters, generator(seeds[0], f"changes:{name}"))
            figure["ci95"] = [float(estimate.low), float(estimate.high)]
        except TinyAblationError as refusal:
            figure["note"] = f"no interval: {refusal}"
        document[name] = figure | {"meaning": METRICS[name].meaning}
    document["over"] = "all interventions of the battery; ci95: clusters of prompts"
    document["n_interventions"] = int((~is_sham).sum() / max(1, len(by_example)))
    document["n"] = len(by_example)
    document["n_clusters"] = len(set(clusters))
    document["seeds"] = list(seeds)
    if asked.sham:
        document["sham"] = {"largest_change": float(found[is_sham]["logit_diff"].abs().max())}
    return document
