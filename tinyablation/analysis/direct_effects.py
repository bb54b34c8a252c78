"""Direct effects of heads on the logit difference beside total ones, and the self-repair between.

Signs as in engine/direct_effects.py: a head's contribution is what it writes into LD, above 0 if it
raises LD, and zeroing the head has the direct effect

    direct = - contribution        everything else is held at its clean value, with the norm's scale
    recomputed                     the final norm's scale is that of the stream without the head
    total                          all that follows is run again: Delta = ablated - clean of a sweep

all of them changes of LD in logits. What the model makes up for of the loss is (Rushing and Nanda
2024, "Explorations of Self-Repair in Language Models", arXiv:2402.15390)

    repair = 1 - total / direct    0: the whole direct effect is felt, 1: none of it,
                                   below 0: later layers lose more than what the head wrote itself
    norm's repair = 1 - recomputed / direct, the part of it that the final norm alone makes up for

Both are ratios of means over the same examples, and are the same for a head that lowers LD.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np

from tinyablation.analysis.effects import EffectsError, Floats
from tinyablation.analysis.sweeps import Sweep
from tinyablation.corpora.examples import BOTH, CONFIRMATION, DISCOVERY
from tinyablation.heads import Head, head_name, heads_label
from tinyablation.statistics.intervals import Estimate, generator
from tinyablation.verdicts.floors import Floor


class Lead(NamedTuple):
    """By how much one head contributes more to LD than another, in logits."""

    head: Head
    over: Head
    estimate: Estimate


def leaders(contributions: Floats, splits: Sequence[str]) -> tuple[Head, ...]:
    """The heads that raise and that lower LD most by what they write on discovery, in order.

    contributions: [n_examples, n_layers, n_heads]; splits: that of each example. Of these two
    claims ask what zeroing does: a sweep of all heads of SmolLM2-135M takes a quarter of an hour.
    """
    means = contributions[np.array(splits) == DISCOVERY].mean(axis=0)
    ends = (np.unravel_index(end, means.shape) for end in (means.argmax(), means.argmin()))
    return tuple(sorted({Head(int(layer), int(head)) for layer, head in ends}))


@dataclass(frozen=True)
class DirectEffects:
    """The contributions of all heads of a model under one condition, and what zeroing some does.

    sweep: of the heads whose total effects are asked for (leaders). contributions, recomputed:
    [n_examples, n_layers, n_heads] in logits (direct_effects.py of the engine), in the order of the
    sweep's examples, both splits. readings: the names of the run directories they come from. Raises
    EffectsError if they are not of the sweep's examples.
    """

    sweep: Sweep
    contributions: Floats = field(repr=False)
    recomputed: Floats = field(repr=False)
    readings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        n = len(self.sweep.baseline(BOTH))
        if self.contributions.shape != self.recomputed.shape or len(self.contributions) != n:
            raise EffectsError(
                f"{self.sweep.model}, {self.sweep.condition}: contributions of shape "
                f"{self.contributions.shape} and {self.recomputed.shape} for a sweep of {n} "
                "examples; measure both on the same"
            )

    @property
    def runs(self) -> tuple[str, ...]:
        """The names of all run directories that these figures come from."""
        return (*self.sweep.runs, *self.readings)

    @cached_property
    def heads(self) -> tuple[Head, ...]:
        """Every head of the model, layer by layer; the sweep has few of them."""
        return tuple(Head(*map(int, place)) for place in np.ndindex(self.contributions.shape[1:]))

    def contribution(self, head: Head, split: str = CONFIRMATION) -> Floats:
        """[n_examples] what the head writes into LD, the norm frozen, in logits."""
        return self._of(self.contributions, head, split)

    def direct(self, head: Head, split: str = CONFIRMATION) -> Floats:
        """[n_examples] Delta LD of zeroing the head if all else, the norm too, stays clean."""
        return -self.contribution(head, split)

    def renormed(self, head: Head, split: str = CONFIRMATION) -> Floats:
        """[n_examples] Delta LD of zeroing the head if all else stays clean but the norm's scale.

        That is the effect of PatchPath((head,), n_layers), the path into the final norm.
        """
        return -self._of(self.recomputed, head, split)

    def total(self, head: Head, split: str = CONFIRMATION) -> Floats:
        """[n_examples] Delta LD of zeroing the head; EffectsError if it was not zeroed."""
        if head not in self.sweep.heads:
            there = ", ".join(one.name for one in self.sweep.heads)
            raise EffectsError(
                f"{self.sweep.model}, {self.sweep.condition}: beside direct effects {there} were "
                f"zero-ablated, not {Head(*head).name}; the fixture `sweep` has all heads"
            )
        return self.sweep.changes(head, split, "zero")

    def means(self, split: str) -> dict[Head, float]:
        """The mean contribution of every head, in logits."""
        rows = (self.sweep.baseline(BOTH)["split"] == split).to_numpy()
        chosen = self.contributions if split == BOTH else self.contributions[rows]
        return dict(zip(self.heads, chosen.mean(axis=0).ravel().tolist(), strict=True))

    def chosen(self, n: int, *, sign: int = 1, split: str = DISCOVERY) -> tuple[Head, ...]:
        """The n heads with the largest mean contribution on a split, the largest first.

        sign -1: those that lower LD most.
        """
        means = self.means(split)
        return tuple(sorted(self.heads, key=lambda head: -sign * means[head])[:n])

    def mean(self, head: Head, *, split: str = CONFIRMATION) -> Estimate:
        """The head's mean contribution with its interval over clusters, in logits."""
        values = self.contribution(head, split)
        return self.sweep.interval(values, split, f"contribution {head_name(head)}")

    def share_written(self, heads: Sequence[Head], *, split: str = CONFIRMATION) -> Estimate:
        """The share of the mean clean LD that the heads write together, with its interval.

        Raises ratios.RatioUndefined if the clean LD is not above 0 and the numerical noise.
        """
        values: Floats = np.sum([self.contribution(head, split) for head in heads], axis=0)
        purpose = f"written by {heads_label(heads)}"
        return self.sweep.of_clean(values, split, purpose)

    def floor(self, split: str = CONFIRMATION) -> Floor:
        """The smallest contribution that counts: as for a total effect (Effects.floor)."""
        return self.sweep.floor(split)

    def lead(self, head: Head, over: Head, *, split: str = CONFIRMATION) -> Lead:
        """The mean contribution of one head minus that of another, paired by example."""
        values = self.contribution(head, split) - self.contribution(over, split)
        purpose = f"lead of contributions {head_name(head)} {head_name(over)}"
        return Lead(head, over, self.sweep.interval(values, split, purpose))

    def least_lead(self, named: Sequence[Head], *, split: str = CONFIRMATION) -> tuple[Lead, float]:
        """Of the leads of the named heads over every other head, that with the lowest lower end.

        If that end is above 0, so are all: an intersection-union test, which needs no correction
        for their number (Berger 1982). The figure is the smallest estimate of any lead.
        """
        others = [head for head in self.heads if head not in named]
        if not named or not others:
            raise EffectsError(
                f"{self.sweep.model}: {len(named)} heads cannot lead {len(others)} others; name "
                "some of its heads"
            )
        leads = [self.lead(head, over, split=split) for head in named for over in others]
        least = min(leads, key=lambda lead: lead.estimate.low)
        return least, min(lead.estimate.estimate for lead in leads)

    def repair(self, head: Head, *, split: str = CONFIRMATION) -> Estimate:
        """1 - total / direct: the share of the head's direct effect that is made up for.

        Raises ratios.RatioUndefined if the interval of the direct effect's mean is not wholly
        beyond 0 and the numerical noise, on the side on which it lies on discovery.
        """
        return self._repair(head, self.total(head, split), split, "repair")

    def norm_repair(self, head: Head, *, split: str = CONFIRMATION) -> Estimate:
        """1 - recomputed / direct: the share that the final norm alone makes up for; as repair."""
        return self._repair(head, self.renormed(head, split), split, "norm's repair")

    def _repair(self, head: Head, felt: Floats, split: str, purpose: str) -> Estimate:
        # A ratio needs a denominator above 0: that of a head that raises LD is turned.
        sign = 1.0 if self.means(DISCOVERY)[head] < 0 else -1.0
        direct = self.direct(head, split)
        sweep = self.sweep
        rng = generator(
            sweep.seed, f"{sweep.model} {sweep.condition} {split} {purpose} {head_name(head)}"
        )
        return sweep.ratio(sign * (direct - felt), sign * direct, split, rng, noise=sweep.noise())

    def _of(self, values: Floats, head: Head, split: str) -> Floats:
        if head not in self.heads:
            raise EffectsError(f"{self.sweep.model} has no head {head_name(head)}")
        own: Floats = values[:, head[0], head[1]]
        if split == BOTH:
            return own
        return own[(self.sweep.baseline(BOTH)["split"] == split).to_numpy()]
