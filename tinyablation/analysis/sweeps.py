"""A sweep over all heads of a model under one condition, and the figures read from it.

Heads are judged by examples that had no part in choosing them: `choose` lets each half of the
examples choose a head for the other half; a head that was named beforehand is judged by all.
Delta = ablated - clean of the logit difference, paired by example; a suppressor has Delta > 0.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tinyablation.analysis.choice import Choice
from tinyablation.analysis.effects import (
    EXTREMES,
    Effects,
    EffectsError,
    Floats,
)
from tinyablation.corpora.examples import BOTH, CONFIRMATION, DISCOVERY, SPLITS
from tinyablation.heads import Head, head_name
from tinyablation.interventions.interventions import (
    METHODS,
    AblateHeads,
    AblationMethod,
)
from tinyablation.statistics.intervals import (
    Alternative,
    DegenerateInterval,
    Estimate,
    cluster_statistic_interval,
    exceedance,
    generator,
    max_t_sign_flip,
    spearman_matrix,
)
from tinyablation.verdicts.floors import EFFECT_SHARE
from tinyablation.verdicts.many import of_some
from tinyablation.verdicts.verdicts import ALPHA, CONFIDENCE, Verdict, judge_above_floor

if TYPE_CHECKING:
    import pandas

    from tinyablation.records.trust import Screened


__all__ = ["Head", "Sweep", "head_name", "rank_agreement_interval"]


@dataclass(frozen=True)
class Sweep(Effects):
    """All single heads of a model, ablated on the examples of one condition.

    method: the ablation method used by methods that are not given another.
    """

    method: AblationMethod = "zero"

    @cached_property
    def single(self) -> "pandas.DataFrame":
        """The rows of single heads, ablated by any method."""
        return self.table[(self.table["head"] >= 0) & self.table["method"].isin(METHODS)]

    @cached_property
    def heads(self) -> tuple[Head, ...]:
        pairs = self.single[["layer", "head"]].drop_duplicates()
        layers, heads = pairs["layer"].tolist(), pairs["head"].tolist()
        return tuple(sorted(map(Head, layers, heads)))

    @property
    def n_layers(self) -> int:
        """Layers of the model."""
        return 1 + self.heads[-1][0]

    @property
    def screened(self) -> "Screened | None":
        """How the heads were chosen; None if all were measured (see screened_sweeps.py)."""
        return None

    def layer(self, number: int) -> tuple[Head, ...]:
        return tuple(head for head in self.heads if head[0] == number)

    def deltas(self, split: str, method: str | None = None, column: str = "logit_diff") -> Floats:
        """[n_examples, n_heads] ablated - clean, heads as in `heads`, examples in order.

        NaN for heads that were not ablated by this method.
        """
        method = method or self.method
        key = ("deltas", split, method, column)
        if key not in self._cache:
            rows = self.of_split(self.single[self.single["method"] == method], split)
            if rows.empty:
                raise EffectsError(
                    f"{self.model}, {self.condition}: no {method!r} rows in {split!r}"
                )
            wide = rows.pivot(index="example", columns=["layer", "head"], values=column)
            clean = self.baseline(split)[column].to_numpy(dtype=float)
            wide = wide.reindex(columns=list(self.heads))
            self._cache[key] = wide.to_numpy(dtype=float) - clean[:, None]
        values: Floats = self._cache[key]
        return values

    def mean_deltas(
        self, split: str, method: str | None = None, column: str = "logit_diff"
    ) -> dict[Head, float]:
        means = self.deltas(split, method, column).mean(0)
        return dict(zip(self.heads, means.tolist(), strict=True))

    def top_suppressor(
        self,
        *,
        among: Sequence[Head] | None = None,
        split: str = DISCOVERY,
        method: str | None = None,
    ) -> Head:
        """The head with the largest mean Delta, by default on the discovery split."""
        means = self.mean_deltas(split, method)
        return max(among or self.heads, key=lambda head: means[head])

    def rank(
        self, head: Head, *, among: Sequence[Head] | None = None, split: str = CONFIRMATION
    ) -> int:
        """The head's rank by mean Delta; 1: the largest."""
        means = self.mean_deltas(split)
        self._require(head)
        return 1 + sum(means[other] > means[head] for other in among or self.heads)

    def percentile(self, head: Head, *, among: Sequence[Head], split: str = CONFIRMATION) -> float:
        """The percentage of the other heads with a smaller effect."""
        means = self.mean_deltas(split)
        others = [means[other] for other in among if other != head]
        return 100 * sum(value < means[head] for value in others) / len(others)

    def choose(
        self,
        among: Sequence[Head],
        *,
        split: str = BOTH,
        column: str = "logit_diff",
        alternative: Alternative = "greater",
    ) -> Choice:
        """Of these heads the one that leads on the other half, for each half of `split`.

        alternative "less": the one with the lowest mean change of the column.
        """
        sign = -1 if alternative == "less" else 1
        heads = {}
        for judging in SPLITS if split == BOTH else (split,):
            means = self.mean_deltas(_other(judging), column=column)
            heads[judging] = max(among, key=lambda head: sign * means[head])
        return Choice(heads, split)

    def changes(
        self,
        who: Head | Choice,
        split: str = CONFIRMATION,
        method: str | None = None,
        column: str = "logit_diff",
    ) -> Floats:
        """[n_examples] ablated - clean of one column: of one head, or of a choice by its halves."""
        deltas = self.deltas(split, method, column)
        places = {half: self.heads.index(head) for half, head in self._by_half(who).items()}
        columns = [places[half] for half in self.halves(split)]
        values: Floats = deltas[np.arange(len(deltas)), columns]
        return values

    def _by_half(self, who: Head | Choice) -> Mapping[str, Head]:
        """The head that is judged on the examples of each half."""
        heads = who.heads if isinstance(who, Choice) else dict.fromkeys(SPLITS, who)
        for head in heads.values():
            self._require(head)
        return heads

    def effect(
        self,
        who: Head | Choice,
        *,
        split: str = CONFIRMATION,
        method: str | None = None,
        column: str = "logit_diff",
    ) -> Estimate:
        """Mean Delta of one head with its interval over clusters, in logits (or column's unit).

        An ablation that changes nothing at all has the interval [0, 0].
        """
        values = self.changes(who, split, method, column)
        purpose = f"effect {_name(who)} {method or self.method}"
        purpose += _column_suffix(column)
        return self.interval(values, split, purpose, _confidence(who))

    def margin_of(
        self,
        who: Head | Choice,
        *,
        split: str = CONFIRMATION,
        column: str = "logit_diff",
        share: float = EFFECT_SHARE,
    ) -> Estimate:
        """Mean Delta of one head beyond a share of each example's clean figure; see margin."""
        values = self.changes(who, split, None, column)
        purpose = f"effect {_name(who)}{_column_suffix(column)}"
        return self.margin(
            values, split, purpose, column=column, share=share, confidence=_confidence(who)
        )

    def suppresses(
        self, who: str | Head | Choice, *, split: str = BOTH, share: float = EFFECT_SHARE
    ) -> Verdict:
        """The verdict on "this head suppresses the right answer": ablating it raises LD.

        who: a head, such as "L0H7", that was named beforehand, so that all examples judge it; or a
        choice. The interval of mean Delta must lie above the floor: `share` of each example's clean
        LD, .01 logits, and the numerical noise. Raises EffectsError for a head that there is not.
        """
        if isinstance(who, str):
            try:
                who = Head.parse(who)
            except ValueError as error:
                raise EffectsError(str(error)) from error
        found = judge_above_floor(
            self.effect(who, split=split),
            floor=self.floor(split, share=share),
            margin=self.margin_of(who, split=split, share=share),
            what=f"zero-ablating {_name(who)}",
        )
        subject = head_name(who.head if isinstance(who, Choice) else who)
        return replace(found, subject=subject, runs=tuple(self.runs))

    def lead(
        self, who: Head | Choice, over: Head | Choice, *, split: str = CONFIRMATION
    ) -> Estimate:
        """Mean Delta of one head minus that of another, paired by example, in logits."""
        values = self.changes(who, split) - self.changes(over, split)
        confidence = max(_confidence(who), _confidence(over))
        return self.interval(values, split, f"lead {_name(who)} {_name(over)}", confidence)

    def least_lead(
        self, who: Head | Choice, others: Sequence[Head], *, split: str = CONFIRMATION
    ) -> tuple[Head, Estimate, float]:
        """The head over which the lead has the smallest lower end, that lead, and the least lead.

        If that end is above 0, so are all: an intersection-union test, which needs no correction
        for their number (Berger 1982). The last figure is the smallest estimate of any lead.
        """
        leads = {over: self.lead(who, over, split=split) for over in others}
        over = min(leads, key=lambda head: leads[head].low)
        return over, leads[over], min(lead.estimate for lead in leads.values())

    def p_corrected(self, head: Head, *, split: str = CONFIRMATION) -> float:
        """p of the head's mean Delta > 0, corrected over all heads (max-T)."""
        key = ("p", split)
        if key not in self._cache:
            rng = generator(self.seed, f"max-T {self.model} {self.condition} {split}")
            self._cache[key] = max_t_sign_flip(self.deltas(split), self.clusters(split), rng)
        return float(self._cache[key][self.heads.index(head)])

    def above_floor(self, split: str = CONFIRMATION) -> tuple[Head, ...]:
        """All heads whose whole interval lies above the floor, with corrected p <= .05."""
        floor = self.floor(split)
        return tuple(
            head
            for head in self.heads
            if self.p_corrected(head, split=split) <= ALPHA
            and self.effect(head, split=split).low > floor
        )

    def exceedance(self, head: Head, *, split: str = CONFIRMATION) -> float:
        """(k + 1) / (n + 1), where k of the n other heads have as large an effect as this one."""
        means = self.mean_deltas(split)
        return exceedance(means[head], [means[other] for other in self.heads if other != head])

    def null_quantile(self, head: Head, q: float, *, split: str = CONFIRMATION) -> float:
        """The q-quantile of the other heads' mean Delta, in logits."""
        means = self.mean_deltas(split)
        return float(np.quantile([means[other] for other in self.heads if other != head], q))

    def methods(self, head: Head, *, split: str = CONFIRMATION) -> dict[str, list[float]]:
        """Ablation method -> effect as [estimate, low, high], to show how far they agree."""
        found = {}
        own = (self.single["layer"] == head[0]) & (self.single["head"] == head[1])
        measured = set(self.single[own]["method"])
        for method in METHODS:
            if method in measured:
                estimate = self.effect(head, split=split, method=method)
                found[method] = [estimate.estimate, estimate.low, estimate.high]
        return found

    def behaviour(self, head: Head, *, split: str = CONFIRMATION) -> dict[str, float]:
        """The ablation's effects on behaviour: P(target), rank, argmax flips, KL, entropy.

        Flips are relative to the clean argmax of the same example, so doing nothing flips nothing.
        """
        layer, number = head
        rows = self.single[
            (self.single["method"] == self.method)
            & (self.single["layer"] == layer)
            & (self.single["head"] == number)
            & (self.single["split"] == split)
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

    def for_every_head(
        self,
        verdict: Verdict,
        who: Head | Choice,
        *,
        split: str = CONFIRMATION,
        layers: Collection[int] | None = None,
    ) -> Verdict:
        """The verdict on a claim that no other head (of these layers) does as well as this one.

        Unchanged here, because every head was measured.
        """
        return verdict

    def for_some_head(
        self,
        verdict: Verdict,
        each: Mapping[Head, Verdict],
        bound: float,
        *,
        alternative: Alternative = "greater",
        split: str = CONFIRMATION,
        layers: Collection[int] | None = None,
        column: str = "logit_diff",
    ) -> Verdict:
        """The verdict on a claim that some head (of these layers) has an effect beyond a bound.

        verdict: that of the chosen head; each: that of every head. Refuted only if every one of
        them falls short; else another one may have what the chosen one lacks.
        """
        named = {head_name(head): own for head, own in each.items()}
        return of_some(verdict, named, below=alternative == "less")

    def heatmap(self, split: str = CONFIRMATION) -> dict[str, object]:
        """Mean Delta by layer and head, as the fields of records.Heatmap."""
        means = self.mean_deltas(split)
        layers = sorted({layer for layer, _ in self.heads})
        values = [[means[head] for head in self.layer(layer)] for layer in layers]
        return {"values": values, "title": f"mean change of LD, {split} split, logits"}

    def extremes(self, who: Head | Choice, split: str = CONFIRMATION) -> list[dict[str, object]]:
        """The prompts on which the ablation raises and lowers LD most (prompts.Extreme)."""
        heads, halves = self._by_half(who), self.baseline(split)["split"]

        def done(row: int) -> AblateHeads:
            return AblateHeads((heads[halves[row]],), self.method)

        return self.largest(self.changes(who, split), split, EXTREMES, done)

    def _require(self, head: Head) -> None:
        if head not in self.heads:
            raise EffectsError(
                f"{self.model} has no head {head_name(head)}: its last is "
                f"{head_name(self.heads[-1])}"
            )


def _other(split: str) -> str:
    """The split that chooses for this one."""
    return DISCOVERY if split == CONFIRMATION else CONFIRMATION


def _name(who: Head | Choice) -> str:
    return who.name if isinstance(who, Choice) else head_name(who)


def _confidence(who: Head | Choice) -> float:
    return who.confidence if isinstance(who, Choice) else CONFIDENCE


def _column_suffix(column: str) -> str:
    """The suffix that gives a figure of a column other than LD its own random draws."""
    return "" if column == "logit_diff" else f" {column}"


def rank_agreement_interval(
    sweeps: Sequence[Sweep], heads: Sequence[Head], *, split: str = CONFIRMATION
) -> tuple[Estimate, dict[str, float]]:
    """Mean Spearman correlation of the heads' mean Delta over all pairs of sweeps.

    Returns it with its interval (resampling the clusters of every sweep) and the figure of each
    pair.
    """
    columns = [sweeps[0].heads.index(head) for head in heads]
    deltas = [sweep.deltas(split)[:, columns] for sweep in sweeps]
    pairs = [(a, b) for a in range(len(sweeps)) for b in range(a + 1, len(sweeps))]

    def agreements(rows: Sequence[NDArray[np.intp]]) -> list[float]:
        means = [table[index].mean(0) for table, index in zip(deltas, rows, strict=True)]
        found = spearman_matrix(means)
        return [float(found[a, b]) for a, b in pairs]

    everything = [np.arange(len(table)) for table in deltas]
    own = {
        f"{sweeps[a].condition} ~ {sweeps[b].condition}": value
        for (a, b), value in zip(pairs, agreements(everything), strict=True)
    }
    rng = generator(sweeps[0].seed, f"{sweeps[0].model} rank agreement {split}")
    clusters = [sweep.clusters(split) for sweep in sweeps]
    try:
        estimate = cluster_statistic_interval(
            lambda rows: float(np.mean(agreements(rows))),
            clusters,
            rng,
            bounds=(-1.0, 1.0),
            resamples=1000,
        )
    except DegenerateInterval as same:
        # A rank correlation saturates: distinct rankings are the same on every resample.
        fewest = min(len(set(labels)) for labels in clusters)
        estimate = Estimate(same.value, same.value, same.value, sum(map(len, clusters)), fewest)
    return estimate, own
