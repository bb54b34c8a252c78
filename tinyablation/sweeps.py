"""A sweep over all heads of a model under one condition, and what can be asked of it.

Heads are chosen on the discovery split and judged on the confirmation split: `top_suppressor` looks
at one, `effect` and `p_corrected` at the other. Delta = ablated - clean of the logit difference,
paired by example; a suppressor has Delta > 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tinyablation.corpora import CONFIRMATION, DISCOVERY
from tinyablation.errors import TinyAblationError
from tinyablation.statistics import (
    DegenerateInterval,
    Estimate,
    cluster_interval,
    cluster_statistic_interval,
    exceedance,
    generator,
    max_t_sign_flip,
)
from tinyablation.verdicts import ALPHA, effect_floor

if TYPE_CHECKING:
    import pandas

Head = tuple[int, int]
Floats = NDArray[np.float64]

EXTREMES = 5  # prompts shown with the largest effects, each way


class SweepError(TinyAblationError):
    """Something was asked of a sweep that its table does not hold."""


def head_name(head: Head) -> str:
    return f"{head[0]}:{head[1]}"


@dataclass(frozen=True)
class Sweep:
    """All single heads of a model, ablated on the examples of one condition.

    table: the run's per-example table (tables.PER_EXAMPLE_COLUMNS); noise_floor in logits; runs:
    the names of the directories it comes from.
    """

    model: str
    condition: str
    table: "pandas.DataFrame" = field(repr=False)
    noise_floor: float
    seed: int = 0
    runs: tuple[str, ...] = ()
    _cache: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def heads(self) -> tuple[Head, ...]:
        single = self.table[self.table["layer"] >= 0]
        return tuple(
            sorted(set(zip(single["layer"].tolist(), single["head"].tolist(), strict=True)))
        )

    def layer(self, number: int) -> tuple[Head, ...]:
        return tuple(head for head in self.heads if head[0] == number)

    def baseline(self, split: str | None = None) -> "pandas.DataFrame":
        """Rows of the unhooked model, examples in order."""
        rows = self.table[self.table["method"] == "none"]
        rows = rows if split is None else rows[rows["split"] == split]
        return rows.sort_values("example").reset_index(drop=True)

    def deltas(self, split: str, method: str = "zero", column: str = "logit_diff") -> Floats:
        """[n_examples, n_heads] ablated - clean, heads as in `heads`, examples in order.

        NaN for heads that were not ablated by this method.
        """
        key = (split, method, column)
        if key not in self._cache:
            rows = self.table[
                (self.table["method"] == method)
                & (self.table["layer"] >= 0)
                & (self.table["split"] == split)
            ]
            if rows.empty:
                raise SweepError(f"{self.model}, {self.condition}: no {method!r} rows in {split!r}")
            wide = rows.pivot(index="example", columns=["layer", "head"], values=column)
            clean = self.baseline(split)[column].to_numpy(dtype=float)
            wide = wide.reindex(columns=list(self.heads))
            self._cache[key] = wide.to_numpy(dtype=float) - clean[:, None]
        values: Floats = self._cache[key]
        return values

    def clusters(self, split: str) -> list[str]:
        return [str(name) for name in self.baseline(split)["cluster_id"]]

    def mean_deltas(self, split: str, method: str = "zero") -> dict[Head, float]:
        means = self.deltas(split, method).mean(0)
        return dict(zip(self.heads, means.tolist(), strict=True))

    def top_suppressor(
        self, *, among: Sequence[Head] | None = None, split: str = DISCOVERY, method: str = "zero"
    ) -> Head:
        """The head with the largest mean Delta; chosen on discovery unless told otherwise."""
        means = self.mean_deltas(split, method)
        return max(among or self.heads, key=lambda head: means[head])

    def rank(
        self, head: Head, *, among: Sequence[Head] | None = None, split: str = CONFIRMATION
    ) -> int:
        """1 for the head with the largest mean Delta."""
        means = self.mean_deltas(split)
        self._require(head)
        return 1 + sum(means[other] > means[head] for other in among or self.heads)

    def effect(self, head: Head, *, split: str = CONFIRMATION, method: str = "zero") -> Estimate:
        """Mean Delta of one head with its interval over clusters, in logits.

        An ablation that changes nothing at all has the interval [0, 0].
        """
        self._require(head)
        values = self.deltas(split, method)[:, self.heads.index(head)]
        return self._interval(values, split, f"effect {head_name(head)} {method}")

    def lead(self, head: Head, over: Head, *, split: str = CONFIRMATION) -> Estimate:
        """Mean Delta of one head minus that of another, paired by example, in logits."""
        deltas = self.deltas(split)
        values = deltas[:, self.heads.index(head)] - deltas[:, self.heads.index(over)]
        return self._interval(values, split, f"lead {head_name(head)} {head_name(over)}")

    def p_corrected(self, head: Head, *, split: str = CONFIRMATION) -> float:
        """p of the head's mean Delta > 0, corrected over all heads of the sweep (max-T)."""
        key = ("p", split)
        if key not in self._cache:
            rng = generator(self.seed, f"max-T {self.model} {self.condition} {split}")
            self._cache[key] = max_t_sign_flip(self.deltas(split), self.clusters(split), rng)
        return float(self._cache[key][self.heads.index(head)])

    def above_floor(self, split: str = CONFIRMATION) -> tuple[Head, ...]:
        """The heads anywhere whose whole interval lies above the floor, with corrected p <= .05."""
        floor = self.floor(split)
        return tuple(
            head
            for head in self.heads
            if self.p_corrected(head, split=split) <= ALPHA
            and self.effect(head, split=split).low > floor
        )

    def exceedance(self, head: Head, *, split: str = CONFIRMATION) -> float:
        """(k + 1) / (n + 1): how many of the n other heads do as well as this one."""
        means = self.mean_deltas(split)
        return exceedance(means[head], [means[other] for other in self.heads if other != head])

    def floor(self, split: str = CONFIRMATION) -> float:
        """The effect that counts, in logits: 5 % of the clean LD, and at least the noise."""
        clean = float(self.baseline(split)["logit_diff"].mean())
        return effect_floor(clean, self.noise_floor)

    def methods(self, head: Head, *, split: str = CONFIRMATION) -> dict[str, list[float]]:
        """Effect by ablation method, [estimate, low, high]: how far they agree."""
        found = {}
        own = (self.table["layer"] == head[0]) & (self.table["head"] == head[1])
        for method in ("zero", "zero_folded", "mean", "resample"):
            if (own & (self.table["method"] == method)).any():
                estimate = self.effect(head, split=split, method=method)
                found[method] = [estimate.estimate, estimate.low, estimate.high]
        return found

    def behaviour(self, head: Head, *, split: str = CONFIRMATION) -> dict[str, float]:
        """What the ablation does to behaviour: P(target), rank, argmax flips, KL, entropy.

        Flips are against the clean argmax of the same example, so doing nothing flips nothing.
        """
        layer, number = head
        rows = self.table[
            (self.table["method"] == "zero")
            & (self.table["layer"] == layer)
            & (self.table["head"] == number)
            & (self.table["split"] == split)
        ].sort_values("example")
        clean = self.baseline(split)
        flips = rows["argmax"].to_numpy() != clean["argmax"].to_numpy()
        return {
            "clean_top1": float((clean["target_rank"] == 0).mean()),
            "ablated_top1": float((rows["target_rank"] == 0).mean()),
            "clean_p_target": float(clean["target_probability"].mean()),
            "ablated_p_target": float(rows["target_probability"].mean()),
            "acc_flip_rate": float(flips.mean()),
            "kl_nats": float(rows["kl"].mean()),
            "entropy_change_nats": float(rows["entropy"].mean() - clean["entropy"].mean()),
        }

    def heatmap(self, split: str = CONFIRMATION) -> dict[str, object]:
        """Mean Delta by layer and head, as records.Heatmap wants it."""
        means = self.mean_deltas(split)
        layers = sorted({layer for layer, _ in self.heads})
        values = [[means[head] for head in self.layer(layer)] for layer in layers]
        return {"values": values, "title": f"mean change of LD, {split} split, logits"}

    def extremes(self, head: Head, split: str = CONFIRMATION) -> list[dict[str, object]]:
        """The prompts on which the ablation moves LD most, up and down (records.Extreme)."""
        clean = self.baseline(split)
        deltas = self.deltas(split)[:, self.heads.index(head)]
        order = np.argsort(-deltas, kind="stable")
        n = min(EXTREMES, len(order) // 2)
        return [
            {
                "prompt": clean["clean"][row],
                "target": clean["target"][row],
                "foil": clean["foil"][row],
                "clean_ld": float(clean["logit_diff"][row]),
                "delta": float(deltas[row]),
                "split": split,
            }
            for row in [*order[:n].tolist(), *order[len(order) - n :].tolist()]
        ]

    def _interval(self, values: Floats, split: str, purpose: str) -> Estimate:
        clusters = self.clusters(split)
        rng = generator(self.seed, f"{self.model} {self.condition} {split} {purpose}")
        try:
            return cluster_interval(values, clusters, rng)
        except DegenerateInterval as same:
            if same.value != 0:
                raise
            return Estimate(0.0, 0.0, 0.0, len(values), len(set(clusters)))

    def _require(self, head: Head) -> None:
        if head not in self.heads:
            raise SweepError(
                f"{self.model} has no head {head_name(head)}: its last is "
                f"{head_name(self.heads[-1])}"
            )


def rank_agreement_interval(
    sweeps: Sequence[Sweep], heads: Sequence[Head], *, split: str = CONFIRMATION
) -> tuple[Estimate, dict[str, float]]:
    """Mean Spearman correlation of the heads' mean Delta over all pairs of sweeps.

    Returns it with its interval (clusters of every sweep resampled) and each pair's own figure.
    """
    from scipy.stats import spearmanr

    columns = [sweeps[0].heads.index(head) for head in heads]
    deltas = [sweep.deltas(split)[:, columns] for sweep in sweeps]
    pairs = [(a, b) for a in range(len(sweeps)) for b in range(a + 1, len(sweeps))]

    def agreements(rows: Sequence[NDArray[np.intp]]) -> list[float]:
        means = [table[index].mean(0) for table, index in zip(deltas, rows, strict=True)]
        return [float(spearmanr(means[a], means[b]).statistic) for a, b in pairs]

    everything = [np.arange(len(table)) for table in deltas]
    own = {
        f"{sweeps[a].condition} ~ {sweeps[b].condition}": value
        for (a, b), value in zip(pairs, agreements(everything), strict=True)
    }
    rng = generator(sweeps[0].seed, f"{sweeps[0].model} rank agreement {split}")
    clusters = [sweep.clusters(split) for sweep in sweeps]
    try:
        estimate = cluster_statistic_interval(
            lambda rows: float(np.mean(agreements(rows))), clusters, rng, resamples=1000
        )
    except DegenerateInterval as same:
        # A rank correlation saturates: clear rankings are the same on every resample.
        fewest = min(len(set(labels)) for labels in clusters)
        estimate = Estimate(same.value, same.value, same.value, sum(map(len, clusters)), fewest)
    return estimate, own
