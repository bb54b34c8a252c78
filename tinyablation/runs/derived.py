"""Documents and tables derived from a run: summary, head impact, provenance, profile.

Every function returns plain values or a DataFrame; nothing here writes a file.
"""

from __future__ import annotations

import importlib.metadata
import platform
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from tinyablation.engine.tables import BASELINE, HEAD_IMPACT_COLUMNS, LAYER_IMPACT_COLUMNS, METRICS
from tinyablation.errors import TinyAblationError
from tinyablation.files.hashes import text_sha256
from tinyablation.installed import versions
from tinyablation.runs.address import RunConfig

if TYPE_CHECKING:
    import pandas as pd

ALL = "all"
_SPLITS_FIRST = ("discovery", "confirmation")
# Python, and the packages that compute.
COMPUTING = (
    *("python", "torch", "transformers", "transformer_lens", "numpy", "pandas", "pyarrow"),
    *("accelerate", "huggingface_hub", "safetensors", "tokenizers"),
)

# summary.json: figure -> (unit, meaning); each over the unhooked baseline rows
SUMMARY_METRICS: dict[str, tuple[str, str]] = {
    "logit_diff": ("logits", "logit(target) - logit(foil)"),
    "p_target": ("probability", "softmax probability of the target"),
    "rank": ("rank", "tokens above the target; 0: top"),
    "accuracy": ("share", "examples with logit_diff > 0"),
    "top1": ("share", "examples whose target is the top token"),
    "entropy": ("nats", "entropy of the output distribution"),
}


class Circumstances(NamedTuple):
    """What a measurement was computed with, apart from its address: plain values only.

    devices: as devices.describe_device returns them; provenance, profile: added to the file of that
    name. Collected when something was computed, because the next attempt may use another machine.
    """

    devices: tuple[Mapping[str, Any], ...] = ()
    provenance: Mapping[str, Any] = MappingProxyType({})
    profile: Mapping[str, Any] = MappingProxyType({})


NOTHING_MORE = Circumstances()


def utc_now() -> str:
    """The current time: UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def split_names(splits: Iterable[str]) -> list[str]:
    """The splits that occur: discovery, confirmation, then any others by name."""
    found = set(splits)
    return [name for name in _SPLITS_FIRST if name in found] + sorted(found - {*_SPLITS_FIRST})


def summarise(table: pd.DataFrame, seed: int) -> dict[str, Any]:
    """summary.json of a run: the baseline's figures over all examples, and by split.

    Each figure is {mean, ci95: [low, high] or null, values, unit}; `values` holds one value per
    seed, so one here. The interval is over fact clusters, not over seeds; if it cannot be formed
    (identical values, too few clusters), ci95 is null and a note says why.
    """
    baseline = table[table["intervention"] == BASELINE]
    summary: dict[str, Any] = _figures(baseline, seed, ALL)
    summary["ci95_over"] = "fact clusters (bootstrap over cluster_id); `values`: one per seed"
    summary["seeds"] = [seed]
    summary["splits"] = {
        split: _figures(baseline[baseline["split"] == split], seed, split)
        for split in split_names(baseline["split"])
    }
    return summary


def _figures(baseline: pd.DataFrame, seed: int, split: str) -> dict[str, Any]:
    from tinyablation.statistics.intervals import cluster_interval, generator

    values = {
        "logit_diff": baseline["logit_diff"],
        "p_target": baseline["target_probability"],
        "rank": baseline["target_rank"],
        "accuracy": baseline["logit_diff"] > 0,
        "top1": baseline["target_rank"] == 0,
        "entropy": baseline["entropy"],
    }
    clusters = baseline["cluster_id"].to_numpy()
    figures: dict[str, Any] = {}
    for name, (unit, _) in SUMMARY_METRICS.items():
        sample = values[name].to_numpy(dtype="float64")
        mean = float(sample.mean())
        figure: dict[str, Any] = {
            "mean": mean,
            "ci95": None,
            "values": [mean],
            "unit": unit,
        }
        try:
            # A separate generator per figure: adding a figure changes no other interval.
            rng = generator(seed, f"summary:{split}:{name}")
            estimate = cluster_interval(sample, clusters, rng)
            figure["ci95"] = [float(estimate.low), float(estimate.high)]
        except TinyAblationError as refusal:
            figure["note"] = f"no interval: {refusal}"
        figures[name] = figure
    figures["n"] = len(baseline)
    figures["n_clusters"] = int(baseline["cluster_id"].nunique())
    return figures


def head_impact(table: pd.DataFrame, run_id: str, seed: int) -> pd.DataFrame:
    """Mean effect of every single-head intervention: columns HEAD_IMPACT_COLUMNS, long form.

    Each row of the table is compared with the baseline row of the SAME example, so an intervention
    that changes nothing flips nothing. Empty, with the same columns, if no single head was changed.
    """
    rows = table[(table["granularity"] == "head") & (table["head"] >= 0)]
    keys = ("method", "scale", "layer", "head", "positions", "donor")
    return _impact(table, rows, keys, HEAD_IMPACT_COLUMNS, run_id, seed)


def layer_impact(table: pd.DataFrame, run_id: str, seed: int) -> pd.DataFrame:
    """Mean effect of every intervention on a layer as a whole: LAYER_IMPACT_COLUMNS, long form.

    Patched residual streams and MLPs, paths into a layer, and steering; compared with the baseline
    row of the same example, as in head_impact. Empty if the run has none.
    """
    rows = table[table["granularity"].isin(("residual", "mlp", "path", "steer"))]
    keys = (
        *("intervention", "method", "granularity", "layer"),
        *("scale", "window", "positions", "donor", "heads"),
    )
    return _impact(table, rows, keys, LAYER_IMPACT_COLUMNS, run_id, seed)


def _impact(
    table: pd.DataFrame,
    rows: pd.DataFrame,
    keys: Sequence[str],
    columns: Sequence[str],
    run_id: str,
    seed: int,
) -> pd.DataFrame:
    """Means of every metric over the examples of a split, by intervention, in long form."""
    import pandas as pd

    from tinyablation.engine.tables import COLUMNS

    if rows.empty:
        return pd.DataFrame(
            {
                name: pd.Series(dtype={"string": "str"}.get(dtype := COLUMNS[name].dtype, dtype))
                for name in columns
            }
        )
    effects = changes(table, rows, keys)
    parts = []
    for split in [*split_names(effects["split"]), ALL]:
        chosen = effects if split == ALL else effects[effects["split"] == split]
        means = chosen.groupby(list(keys), sort=True)[list(METRICS)].mean().reset_index()
        long = means.melt(id_vars=list(keys), value_vars=list(METRICS), var_name="metric")
        parts.append(long.assign(split=split))
    impact = pd.concat(parts, ignore_index=True).assign(run_id=run_id, seed=seed)
    return impact[list(columns)]


def changes(table: pd.DataFrame, rows: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Each of `rows` against the baseline row of its own example: `keys`, split, and METRICS."""
    clean = table[table["intervention"] == BASELINE].set_index("example").loc[rows["example"]]

    def change(column: str) -> Any:
        return rows[column].to_numpy() - clean[column].to_numpy()

    return rows[[*keys, "split"]].assign(
        logit_diff=change("logit_diff"),
        kl_div=rows["kl"],
        p_drop=-change("target_probability"),
        acc_flip_rate=(rows["argmax"].to_numpy() != clean["argmax"].to_numpy()).astype("float64"),
        rank_change=change("target_rank").astype("float64"),
        seq_logprob_diff=change("seq_logprob_diff"),
        seq_p_drop=-change("seq_probability"),
        seq_kl_mean=rows["seq_kl_mean"],
    )


def environment_fingerprint() -> str:
    """sha256 over name==version of every installed distribution, sorted: one line each.

    Names are lower case with "-" for "_" and ".", as pip compares them. It takes some 50 ms.
    """
    found = {
        f"{re.sub(r'[-_.]+', '-', str(each.metadata['Name'])).lower()}=={each.version}"
        for each in importlib.metadata.distributions()
    }
    return text_sha256("".join(f"{line}\n" for line in sorted(found)))


def provenance(
    config: RunConfig,
    circumstances: Circumstances = NOTHING_MORE,
    devices: Iterable[Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """provenance.json: what the figures were computed with, from and when (UTC).

    circumstances: of this attempt; devices: those of all attempts, which may differ (the address
    only has their kind). Each is listed once.
    """
    return {
        "run": config.name,
        "finished": utc_now(),
        "versions": versions(*COMPUTING),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "device": config.device,
        "devices": distinct(circumstances.devices if devices is None else devices),
        "dtype": config.dtype,
        "engine_version": config.engine_version,
        "weight_hash": config.weight_hash,
        "config_hash": config.config_hash,
        "tokenizer_hash": config.tokenizer_hash,
        "corpus_hash": config.corpus_hash,
        "split_hash": config.split_hash,
        "seed": config.seed,
        "bos": config.bos,
        "protocol": config.protocol,
        "share_of_examples": config.share,
        "bos_policy": "prepended to every prompt" if config.bos else "not prepended",
        **circumstances.provenance,
    }


def distinct(devices: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each device once, in order of first use."""
    found: list[dict[str, Any]] = []
    for device in devices:
        if dict(device) not in found:
            found.append(dict(device))
    return found


def peak_resident_bytes() -> int | None:
    """The peak resident set size of this process, in bytes; None if the platform has no figure."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak) if sys.platform == "darwin" else int(peak) * 1024  # Linux counts kibibytes


def profile(
    seconds_by_shard: Mapping[str, float],
    continued: Iterable[str],
    rows: int,
    circumstances: Circumstances = NOTHING_MORE,
) -> dict[str, Any]:
    """profile.json: wall seconds by shard (including earlier attempts), rows, memory.

    The memory is that of the last attempt's process.
    """
    return {
        "seconds_by_shard": {key: round(value, 6) for key, value in seconds_by_shard.items()},
        "seconds_total": round(sum(seconds_by_shard.values()), 6),
        "rows": rows,
        "peak_rss_bytes": peak_resident_bytes(),
        "continued_from_an_earlier_attempt": list(continued),
        **circumstances.profile,
    }
