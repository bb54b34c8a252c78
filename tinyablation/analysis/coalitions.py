"""Heads ablated together: pairs and triples of a layer, and what each head adds to a coalition.

Restoring one head of an ablated trio is the same intervention as ablating the other two (bit for
bit, within a layer), so recoveries are read from the pairs without another measurement.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from math import comb
from typing import TYPE_CHECKING

import numpy as np

from tinyablation.analysis.effects import (
    EXTREMES,
    Effects,
    EffectsError,
    Floats,
)
from tinyablation.corpora.examples import CONFIRMATION
from tinyablation.heads import Head, head_name
from tinyablation.interventions.interventions import (
    METHODS,
    AblateHeads,
    AblationMethod,
)
from tinyablation.statistics.finite_population import most_in_population
from tinyablation.statistics.intervals import (
    Estimate,
    exceedance,
    generator,
)
from tinyablation.verdicts.floors import EFFECT_SHARE, Floor
from tinyablation.verdicts.verdicts import Verdict

if TYPE_CHECKING:
    import pandas

Heads = tuple[Head, ...]
NO_RIVALS = "too few heads: no triple of the layer leaves the leading head out"


def set_name(heads: Iterable[Head]) -> str:
    """Heads as text: "0:2 0:4 0:7"."""
    return " ".join(head_name(head) for head in heads)


@dataclass(frozen=True)
class Coalitions(Effects):
    """The head sets of one layer, ablated together, for one model and condition."""

    method: AblationMethod = "zero"

    @cached_property
    def sets(self) -> tuple[Heads, ...]:
        """All measured sets, smallest first, in order of heads."""
        rows = self.table[self.table["method"].isin(METHODS)]
        found = [_parse(text) for text in rows["heads"].drop_duplicates()]
        return tuple(sorted(found, key=lambda heads: (len(heads), heads)))

    def of_size(self, size: int) -> tuple[Heads, ...]:
        return tuple(heads for heads in self.sets if len(heads) == size)

    def deltas(
        self, heads: Iterable[Head], split: str = CONFIRMATION, column: str = "logit_diff"
    ) -> Floats:
        """[n_examples] ablated - clean with these heads ablated together; zeros for no heads."""
        wanted = tuple(sorted(heads))
        if not wanted:
            return np.zeros(len(self.baseline(split)))
        return self.change(AblateHeads(wanted, self.method).label, split, column)

    def rows(self, heads: Iterable[Head]) -> "pandas.DataFrame":
        """Rows of both splits with these heads ablated together, examples in order."""
        label = AblateHeads(tuple(sorted(heads)), self.method).label
        rows = self.table[self.table["intervention"] == label]
        return rows.sort_values("example").reset_index(drop=True)

    def effect(
        self, heads: Iterable[Head], *, split: str = CONFIRMATION, column: str = "logit_diff"
    ) -> Estimate:
        """Mean Delta of a set with its interval over clusters, in the column's unit."""
        wanted = tuple(sorted(heads))
        purpose = f"joint {set_name(wanted)} {self.method} {column}"
        return self.interval(self.deltas(wanted, split, column), split, purpose)

    def extremes(self, heads: Iterable[Head], split: str = CONFIRMATION) -> list[dict[str, object]]:
        """The prompts on which ablating a set raises and lowers LD most (prompts.Extreme)."""
        ablation = AblateHeads(tuple(sorted(heads)), self.method)
        deltas = self.deltas(ablation.heads, split)
        return self.largest(deltas, split, EXTREMES, lambda _: ablation)

    def margin_of(
        self,
        heads: Iterable[Head],
        *,
        split: str = CONFIRMATION,
        column: str = "logit_diff",
        share: float = EFFECT_SHARE,
    ) -> Estimate:
        """Mean Delta of a set beyond a share of each example's clean figure; see margin."""
        wanted = tuple(sorted(heads))
        purpose = f"joint {set_name(wanted)}{_column_suffix(column)}"
        return self.margin(
            self.deltas(wanted, split, column), split, purpose, column=column, share=share
        )

    def lead(
        self,
        heads: Heads,
        over: Heads,
        *,
        split: str = CONFIRMATION,
        column: str = "logit_diff",
        sign: int = 1,
    ) -> Estimate:
        """Mean Delta of one set minus that of another, paired by example, in the column's unit.

        sign -1: how much further below 0 it is.
        """
        values = sign * (self.deltas(heads, split, column) - self.deltas(over, split, column))
        purpose = f"lead {set_name(heads)} {set_name(over)}{_column_suffix(column)}"
        return self.interval(values, split, purpose)

    def cooperation(self, heads: Heads, *, split: str = CONFIRMATION) -> Estimate:
        """Delta of the set minus the sum of its heads' own Deltas, paired by example, in logits.

        Above 0: the heads are super-additive; below 0: sub-additive.
        """
        values = self.cooperations(heads, split)
        return self.interval(values, split, f"cooperation {set_name(heads)}")

    def cooperations(self, heads: Heads, split: str = CONFIRMATION) -> Floats:
        """[n_examples] Delta of the set minus the sum of its heads' own Deltas, in logits."""
        alone: Floats = np.sum([self.deltas([head], split) for head in heads], axis=0)
        return self.deltas(heads, split) - alone

    def against_sum(self, heads: Heads, *, split: str = CONFIRMATION) -> Estimate:
        """Delta of the set as a multiple of the sum of its heads' own Deltas; 1 is additive.

        Raises ratios.RatioUndefined if the interval of that sum is not wholly above 0.
        """
        alone: Floats = np.sum([self.deltas([head], split) for head in heads], axis=0)
        purpose = f"{self.model} {self.condition} {split} against sum {set_name(heads)}"
        rng = generator(self.seed, purpose)
        return self.ratio(self.deltas(heads, split), alone, split, rng, noise=self.noise())

    def restored(self, trio: Heads, head: Head, split: str = CONFIRMATION) -> Floats:
        """[n_examples] the part of the set's Delta removed by restoring one head, in logits."""
        if head not in trio:
            raise EffectsError(f"{head_name(head)} is not among {set_name(trio)}")
        rest = [other for other in trio if other != head]
        return self.deltas(trio, split) - self.deltas(rest, split)

    def recovery(self, trio: Heads, head: Head, *, split: str = CONFIRMATION) -> Estimate:
        """The share of the set's Delta that is removed by restoring one head.

        (Delta(set) - Delta(set without the head)) / Delta(set), numerator and denominator
        bootstrapped together. Raises ratios.RatioUndefined if the interval of Delta(set) is not
        wholly above 0.
        """
        restored = self.restored(trio, head, split)
        rng = generator(
            self.seed,
            f"{self.model} {self.condition} {split} recovery {set_name(trio)} {head_name(head)}",
        )
        whole = self.deltas(trio, split)
        return self.ratio(restored, whole, split, rng, noise=self.noise())

    def share(self, bound: float, heads: Heads, *, split: str = CONFIRMATION) -> Floor:
        """A share of the set's Delta with its noise, as the bound for a recovery."""
        return self.share_of(bound, self.mean(heads, split))

    def mean(
        self, heads: Iterable[Head], split: str = CONFIRMATION, column: str = "logit_diff"
    ) -> float:
        return float(self.deltas(heads, split, column).mean())

    def rivals(self, heads: Heads, leader: Head) -> tuple[Heads, ...]:
        """The other sets of that size without the leader, which brings its effect along."""
        others = self.of_size(len(heads))
        return tuple(each for each in others if leader not in each and each != tuple(sorted(heads)))

    def rival(self, rivals: Sequence[Heads], alone: Mapping[Head, float]) -> Heads:
        """The one with the largest sum of its heads' own Deltas.

        alone: each head's mean Delta on the discovery split, so that the rival is chosen on other
        facts than those it is judged by.
        """
        return max(rivals, key=lambda each: sum(alone[head] for head in each))

    def least_lead(
        self,
        heads: Heads,
        rivals: Sequence[Heads],
        *,
        split: str = CONFIRMATION,
        column: str = "logit_diff",
        sign: int = 1,
    ) -> tuple[Heads, Estimate, float]:
        """The rival over which the lead has the smallest lower end, that lead, and the least lead.

        If that end is above 0, so are all: an intersection-union test, which needs no correction
        for their number (Berger 1982). The last figure is the smallest estimate of any lead.
        """
        leads = {
            over: self.lead(heads, over, split=split, column=column, sign=sign) for over in rivals
        }
        over = min(leads, key=lambda rival: leads[rival].low)
        return over, leads[over], min(lead.estimate for lead in leads.values())

    def for_every_rival(
        self,
        verdict: Verdict,
        heads: Heads,
        leader: Head,
        *,
        column: str = "logit_diff",
        sign: int = 1,
    ) -> Verdict:
        """The verdict on a claim that no other set of that size without the leader does as well.

        Large layers have a sample of their triples measured, drawn at random. Supported and present
        become inconclusive while one that was not drawn may have as large an effect.
        """
        rivals = self.rivals(heads, leader)
        measured = {head for each in self.sets for head in each}
        every = comb(len(measured) - 1, len(heads))
        if verdict.status not in ("supported", "present") or len(rivals) == every:
            return verdict
        own = sign * self.mean(heads, column=column)
        found = sum(sign * self.mean(each, column=column) >= own for each in rivals)
        most = most_in_population(every, len(rivals), found) - found
        if not most:
            return verdict
        return replace(
            verdict,
            status="inconclusive",
            reason=(
                f"{verdict.reason}; but of {every} triples without {head_name(leader)} only "
                f"{len(rivals)} were measured, and up to {most} of the others may do as well "
                "(95% bound)"
            ),
            p_value=None,
        )

    def exceedance(
        self,
        heads: Heads,
        rivals: Sequence[Heads],
        *,
        split: str = CONFIRMATION,
        column: str = "logit_diff",
        sign: int = 1,
    ) -> float:
        """(k + 1) / (n + 1), where k of the n rivals have as large an effect.

        sign -1: effects as far below 0.
        """
        null = [sign * self.mean(other, split, column) for other in rivals]
        return exceedance(sign * self.mean(heads, split, column), null)

    def accomplices(self, head: Head, *, split: str = CONFIRMATION) -> dict[str, float]:
        """Other head -> mean Delta of the pair minus both own Deltas, largest first, in logits."""
        gains = {}
        for pair in self.of_size(2):
            if head in pair:
                (other,) = (each for each in pair if each != head)
                alone = self.mean([head], split) + self.mean([other], split)
                gains[head_name(other)] = self.mean(pair, split) - alone
        return dict(sorted(gains.items(), key=lambda item: -item[1]))

    def gains(self, split: str = CONFIRMATION) -> tuple[tuple[Head, ...], list[list[float | None]]]:
        """Heads, and for each pair its mean Delta minus both heads' own Deltas, in logits.

        None for a head with itself, and for a pair that was not measured.
        """
        heads = tuple(head for (head,) in self.of_size(1))
        pairs = set(self.of_size(2))

        def gain(one: Head, other: Head) -> float | None:
            pair = (min(one, other), max(one, other))
            return float(self.cooperations(pair, split).mean()) if pair in pairs else None

        return heads, [[gain(one, other) for other in heads] for one in heads]

    def pairs_of(self, trio: Heads) -> tuple[Heads, ...]:
        """The three pairs of a trio."""
        return tuple(combinations(sorted(trio), 2))


def _parse(text: str) -> Heads:
    return tuple(
        Head(int(layer), int(head)) for layer, head in (part.split(".") for part in text.split("+"))
    )


def _column_suffix(column: str) -> str:
    """The suffix that gives a figure of a column other than LD its own random draws."""
    return "" if column == "logit_diff" else f" {column}"
