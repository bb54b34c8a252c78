"""One measurement under several seeds: how far its figures depend on the seed's draws.

<root>/<model>-<battery>-<condition>-seeds_<hash>/
    config.json  metrics/{summary.json,head_impact.parquet}  manifest.json (last)
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyablation.engine.tables import HEAD_IMPACT_COLUMNS, write_table
from tinyablation.errors import RunError
from tinyablation.files.hashes import HASH_DIGITS, digest
from tinyablation.files.manifests import (
    MANIFEST,
    check_manifest,
    remove_leftovers,
    write_json,
    write_manifest,
)
from tinyablation.runs.across_conditions import stands
from tinyablation.runs.derived import SUMMARY_METRICS, split_names, utc_now
from tinyablation.runs.directories import CONFIG
from tinyablation.runs.store import HEAD_IMPACT, SUMMARY

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from tinyablation.runs.store import Run, RunStore

_LOG = logging.getLogger(__name__)
_CHILD_FILES = (SUMMARY, HEAD_IMPACT)  # the files that the parent is made from


def seed_summary(
    values_by_seed: Mapping[int, float], *, what: str = "the figure", confidence: float = 0.95
) -> dict[str, Any]:
    """A figure measured once per seed: {mean, ci95: [low, high] or null, values, seeds}.

    ci95 is Student's t on n_seeds - 1 (values of different seeds are independent draws); with one
    seed it is null, and a note says why. Seeds are in ascending order. `what` begins messages.

    Raises StatisticsError for no seeds or a figure that is not finite, and DegenerateInterval if
    all seeds give the same value: the figure then does not depend on what the seed draws, and a
    zero-width interval would look like certainty.
    """
    import numpy as np
    from scipy import stats

    from tinyablation.statistics.intervals import (
        ROUNDING,
        DegenerateInterval,
        check_draws,
        checked_figures,
    )

    seeds = sorted(values_by_seed)
    sample = checked_figures([values_by_seed[seed] for seed in seeds], what, ndim=1)
    check_draws(confidence)
    summary: dict[str, Any] = {
        "mean": float(sample.mean()),
        "ci95": None,
        "values": sample.tolist(),
        "seeds": [int(seed) for seed in seeds],
    }
    if len(seeds) < 2:
        summary["note"] = "no interval: 1 seed; measure at least 2"
        return summary
    if np.ptp(sample) <= ROUNDING * np.abs(sample).max():
        raise DegenerateInterval(
            f"{what} is {sample[0]:.6g} under all {len(seeds)} seeds: the seed drew nothing that "
            "it depends on, so there is no spread over seeds. Let the seed draw examples "
            "(draw_clusters), donors or random heads, or leave this figure out",
            value=float(sample[0]),
        )
    half = stats.t.ppf((1 + confidence) / 2, len(seeds) - 1) * stats.sem(sample)
    summary["ci95"] = [float(sample.mean() - half), float(sample.mean() + half)]
    return summary


def draw_clusters(clusters: Sequence[object], share: float, seed: int) -> NDArray[np.bool_]:
    """The rows to measure under this seed: those of a random share of the clusters.

    clusters [n_examples] (labels: str or int). Returns a bool array [n_examples]. round(share * k)
    of the k distinct clusters are drawn without replacement, as wholes. The draw depends on the
    labels and the seed, not on the order of the rows.

    Raises StatisticsError for a share that keeps fewer than two clusters or all of them, and for a
    missing label.
    """
    import numpy as np

    from tinyablation.statistics.clusters import StatisticsError, cluster_index
    from tinyablation.statistics.intervals import generator

    index, k = cluster_index(clusters, len(clusters))
    count = round(share * k) if 0 < share < 1 else 0
    if not 2 <= count < k:
        raise StatisticsError(
            f"a share of {share} of {k} clusters: a draw takes at least 2 of them, and must leave "
            "some out"
        )
    chosen = generator(seed, "clusters").choice(k, size=count, replace=False)
    mask: NDArray[np.bool_] = np.isin(index, chosen)
    return mask


def summarise_runs(runs: Sequence[Run], metrics: Sequence[str] | None = None) -> dict[str, Any]:
    """summary.json over seeds: the baseline's figures over all examples, and by split.

    metrics: some of derived.SUMMARY_METRICS; None: all. Each figure is seed_summary's document with
    its unit. `values` are the runs' means in ascending order of seeds, as are `runs`, `n` and
    `n_clusters`.

    Raises RunError for runs that differ in anything but the seed, for a duplicate seed and for an
    unknown metric; DegenerateInterval, which names it, for a metric with the same value under all
    seeds.
    """
    ordered = _by_seed(runs)
    wanted = _metrics(metrics)
    summaries = {seed: run.summary() for seed, run in ordered.items()}
    splits = [split_names(summary["splits"]) for summary in summaries.values()]
    if any(names != splits[0] for names in splits):
        raise RunError(f"the runs' splits differ: {splits}")

    def part(found: Mapping[int, Mapping[str, Any]], where: str) -> dict[str, Any]:
        figures: dict[str, Any] = {}
        for name in wanted:
            means = {seed: summary[name]["mean"] for seed, summary in found.items()}
            figures[name] = {
                **seed_summary(means, what=f"{name} ({where})"),
                "unit": SUMMARY_METRICS[name][0],
            }
        for count in ("n", "n_clusters"):
            figures[count] = [summary[count] for summary in found.values()]
        return figures

    document = part(summaries, "all examples")
    document["ci95_over"] = "seeds (Student's t); `values`: one per seed"
    document["seeds"] = list(ordered)
    document["runs"] = [run.name for run in ordered.values()]
    document["splits"] = {
        split: part({seed: s["splits"][split] for seed, s in summaries.items()}, split)
        for split in splits[0]
    }
    return document


def head_impact_over_seeds(runs: Sequence[Run]) -> pd.DataFrame:
    """The head impact of all runs by ascending seed: HEAD_IMPACT_COLUMNS, with run_id and seed."""
    import pandas as pd

    parts = [run.head_impact() for run in _by_seed(runs).values()]
    return pd.concat(parts, ignore_index=True)[list(HEAD_IMPACT_COLUMNS)]


def seeds_name(runs: Sequence[Run], metrics: Sequence[str] | None = None) -> str:
    """The directory name of runs over seeds: `<model>-<battery>-<condition>-seeds_<hash>`.

    The hash covers seed -> run hash and the metrics. Raises RunError as summarise_runs does.
    """
    ordered = _by_seed(runs)
    first = next(iter(ordered.values())).config
    covered = {
        "runs": {str(seed): run.config.hash for seed, run in ordered.items()},
        "metrics": _metrics(metrics),
    }
    name = f"{first.model}-{first.battery}-{first.condition}-seeds"
    return f"{name}_{digest(covered)[:HASH_DIGITS]}"


def write_seeds(store: RunStore, runs: Sequence[Run], metrics: Sequence[str] | None = None) -> Path:
    """Write, or find, the parent run of complete runs that differ only in their seed.

    Returns its directory. It is made only from the children's files, so it is rewritten if one of
    its files is missing or a child was measured again. Raises RunError if one of its files was
    EDITED, and as summarise_runs does, before any file is written.
    """
    name = seeds_name(runs, metrics)
    folder = Path(store.root) / name
    with store.lock(name):
        config = _config(runs, metrics)
        if (folder / MANIFEST).exists() and stands(store, folder, config):
            return folder
        summary = summarise_runs(runs, metrics)
        impact = head_impact_over_seeds(runs)
        if (folder / MANIFEST).exists():
            _LOG.warning("%s: rewritten from its single runs", name)
            (folder / MANIFEST).unlink(missing_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
        write_json(folder / CONFIG, config)
        write_table(folder / HEAD_IMPACT, impact, HEAD_IMPACT_COLUMNS)
        write_json(folder / SUMMARY, summary)
        facts: dict[str, Any] = {"run": name, "finished": utc_now()}
        write_manifest(folder, (CONFIG, HEAD_IMPACT, SUMMARY), facts)
    return folder


def _config(runs: Sequence[Run], metrics: Sequence[str] | None) -> dict[str, Any]:
    children = {}
    ordered = _by_seed(runs)
    for seed, run in ordered.items():
        files = check_manifest(run.path, listed=_CHILD_FILES)["files"]
        children[str(seed)] = {
            "run": run.name,
            **{f"{Path(file).stem}_sha256": files[file]["sha256"] for file in _CHILD_FILES},
        }
    shared = next(iter(ordered.values())).config.model_dump(mode="json", exclude={"seed"})
    return {**shared, "metrics": _metrics(metrics), "children": children}


def _metrics(metrics: Sequence[str] | None) -> list[str]:
    wanted = list(SUMMARY_METRICS) if metrics is None else list(dict.fromkeys(metrics))
    unknown = [name for name in wanted if name not in SUMMARY_METRICS]
    if unknown or not wanted:
        raise RunError(
            f"no metric(s) {', '.join(unknown) or 'given'}; known: {', '.join(SUMMARY_METRICS)}"
        )
    return wanted


def _by_seed(runs: Sequence[Run]) -> dict[int, Run]:
    """The runs by ascending seed, after checking that they differ in nothing else."""
    if not runs:
        raise RunError("no run given: there are no seeds to summarise")
    first = runs[0].config.model_dump(exclude={"seed"})
    found: dict[int, Run] = {}
    for run in runs:
        own = run.config.model_dump(exclude={"seed"})
        differing = sorted(key for key in own if own[key] != first[key])
        if differing:
            raise RunError(
                f"run {run.name} differs from {runs[0].name} in {', '.join(differing)}; only runs "
                "that differ only in the seed can be summarised over seeds"
            )
        if run.config.seed in found:
            raise RunError(f"seed {run.config.seed} is given twice ({run.name}); give it once")
        found[run.config.seed] = run
    return dict(sorted(found.items()))
