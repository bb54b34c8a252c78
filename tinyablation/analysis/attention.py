"""Attention scores of heads, as claims read them: chosen on one half, judged on the other.

Made from a reading of attention_readings.py; needs no model and no torch. Sequences are independent
draws, so each is a cluster: the first half of them is the discovery split, the second half the
confirmation split.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from tinyablation.analysis.readings import ReadingFigures
from tinyablation.corpora.examples import BOTH, CONFIRMATION, DISCOVERY
from tinyablation.errors import TinyAblationError
from tinyablation.heads import Head, head_name, heads_label
from tinyablation.statistics.intervals import (
    DegenerateInterval,
    Estimate,
    cluster_interval,
    generator,
    max_t_sign_flip,
)
from tinyablation.verdicts.many import of_some
from tinyablation.verdicts.verdicts import Verdict, judge_above_floor

if TYPE_CHECKING:
    from tinyablation.statistics.intervals import Floats

FEWEST_SEQUENCES = 4  # two in each half, for an interval
SHOWN = 5  # leading heads that a record lists
SINK_THRESHOLD = 0.3  # epsilon of Gu et al. 2024, arXiv 2410.10781


class AttentionError(TinyAblationError):
    """An attention reading does not contain what was requested."""


@dataclass(frozen=True)
class Attention(ReadingFigures):
    """A reading of attention scores. runs: the names of the run directories it comes from."""

    @cached_property
    def heads(self) -> tuple[Head, ...]:
        """(layer, head), layer by layer: the columns of `values`."""
        _, n_layers, n_heads = next(iter(self.tensors.values())).shape
        return tuple(Head(layer, head) for layer in range(n_layers) for head in range(n_heads))

    def values(self, score: str, split: str = BOTH) -> Floats:
        """[n_sequences, n_heads] one score of every sequence of a split, in float64."""
        if score not in self.tensors:
            raise AttentionError(
                f"{self.model}, {self.document['inputs']}: no score {score!r} was read, only "
                f"{', '.join(sorted(self.tensors))}"
            )
        every = self.tensors[score].astype(np.float64)
        n = len(every)
        if n < FEWEST_SEQUENCES:
            raise AttentionError(
                f"{self.model}, {self.document['inputs']}: {n} sequences have no two halves; read "
                f"at least {FEWEST_SEQUENCES}"
            )
        part = {DISCOVERY: slice(0, n // 2), CONFIRMATION: slice(n // 2, n), BOTH: slice(0, n)}
        return np.asarray(every.reshape(n, -1)[part[split]])

    # --- heads, chosen on the discovery half -----------------------------------------------------

    def leaders(self, score: str, count: int) -> tuple[Head, ...]:
        """The heads with the largest mean score on discovery, largest first."""
        means = self.values(score, DISCOVERY).mean(axis=0)
        return tuple(self.heads[place] for place in np.argsort(-means, kind="stable")[:count])

    def above(self, score: str, threshold: float) -> tuple[Head, ...]:
        """The heads whose mean score on discovery exceeds the threshold, largest first."""
        means = self.values(score, DISCOVERY).mean(axis=0)
        return self.leaders(score, int((means > threshold).sum()))

    def matched(
        self, score: str, heads: Sequence[Head], *, most: float = math.inf
    ) -> tuple[Head, ...]:
        """As many other heads of the same layers, those with the lowest mean scores on discovery.

        Controls for ablating `heads`. A layer of which most are named gives as many as it has left.
        most: heads with a mean score above it are no controls, named or not.
        """
        means = self.values(score, DISCOVERY).mean(axis=0)
        order = [
            self.heads[place] for place in np.argsort(means, kind="stable") if means[place] <= most
        ]
        found: list[Head] = []
        for layer in sorted({head.layer for head in heads}):
            others = [head for head in order if head.layer == layer and head not in heads]
            found += others[: sum(head.layer == layer for head in heads)]
        return tuple(found)

    # --- figures, of the confirmation half unless said otherwise ---------------------------------

    def estimate(
        self,
        score: str,
        heads: Head | Sequence[Head],
        split: str = CONFIRMATION,
        *,
        alike: bool = False,
    ) -> Estimate:
        """The mean score of a head, or of several, with its interval over sequences.

        Of heads that were not chosen on the split; no correction over heads is made. alike: scores
        may be the same in all sequences, which gives an interval of zero width; else that is an
        error (DegenerateInterval), unless they are all 0 or 1.
        """
        named = _several(heads)
        purpose = f"{score} {heads_label(named)}"
        own = self._of(score, named, split)
        return self._interval(own, split, purpose, (0.0, 1.0), alike=alike)

    def lead(
        self,
        score: str,
        heads: Head | Sequence[Head],
        others: Head | Sequence[Head],
        split: str = CONFIRMATION,
    ) -> Estimate:
        """The mean score of heads minus that of others, paired by sequence."""
        named, rest = _several(heads), _several(others)
        ahead = self._of(score, named, split) - self._of(score, rest, split)
        purpose = f"{score} {heads_label(named)} beyond {heads_label(rest)}"
        return self._interval(ahead, split, purpose, (-1.0, 1.0))

    def corrected(
        self, score: str, threshold: float, split: str = CONFIRMATION
    ) -> dict[Head, float]:
        """By head, p of a mean score above the threshold, corrected over all heads of the model.

        Single-step max-T (intervals.max_t_sign_flip): for heads that no other half has chosen.
        """
        beyond = self.values(score, split) - threshold
        rng = generator(self._seed, self._purpose(split, f"{score} above {threshold:g}"))
        p = max_t_sign_flip(beyond, self._clusters(len(beyond)), rng)
        return dict(zip(self.heads, p.tolist(), strict=True))

    def share(
        self,
        score: str,
        threshold: float,
        *,
        layers: Collection[int] | None = None,
        split: str = BOTH,
    ) -> Estimate:
        """The share of heads whose score exceeds the threshold, in the mean over sequences.

        Of "sink" beyond SINK_THRESHOLD it is the sink metric of Gu et al. 2024 (arXiv 2410.10781),
        which counts heads sequence by sequence. No head is chosen, so all sequences judge. layers:
        those whose heads count, None: all. The interval has zero width if every sequence has as
        many such heads.
        """
        kept = [
            place for place, head in enumerate(self.heads) if layers is None or head.layer in layers
        ]
        if not kept:
            raise AttentionError(f"{self.model}: it has no heads in layers {layers}")
        shares = (self.values(score, split)[:, kept] > threshold).mean(axis=1)
        where = "" if layers is None else f" in {sorted(layers)}"
        purpose = f"share of {score} above {threshold:g}{where}"
        return self._interval(shares, split, purpose, (0.0, 1.0), alike=True)

    def some_head(self, score: str, *, floor: float) -> Verdict:
        """The verdict on "some head's score is above the floor", of the one that discovery chose.

        Refuted only if the interval of every head lies below the floor.
        """

        def judged(head: Head) -> Verdict:
            what = f"{score.replace('_', ' ')} score of {head_name(head)}"
            # A head that is set by hand, or sees positions alone, has one score in all sequences.
            own = self.estimate(score, head, alike=True)
            return judge_above_floor(own, floor=floor, what=what, unit="share")

        (head,) = self.leaders(score, 1)
        verdict = judged(head)
        if verdict.status == "refuted":
            verdict = of_some(verdict, {head_name(each): judged(each) for each in self.heads})
        leaders = self.leaders(score, SHOWN)
        scores = {
            head_name(each): self.estimate(score, each, alike=True).estimate for each in leaders
        }
        return replace(
            verdict, subject=head_name(head), runs=self.runs, details={"leading heads": scores}
        )

    def _of(self, score: str, heads: Sequence[Head], split: str) -> Floats:
        """[n_sequences] the mean of the heads' scores."""
        places = []
        for head in heads:
            if head not in self.heads:
                raise AttentionError(f"{self.model} has no head {head[0]}:{head[1]}")
            places.append(self.heads.index(head))
        if not places:
            raise AttentionError(f"{self.model}: no heads are named, so there is no mean score")
        return np.asarray(self.values(score, split)[:, places].mean(axis=1))

    def _interval(
        self,
        values: Floats,
        split: str,
        purpose: str,
        bounds: tuple[float, float],
        *,
        alike: bool = False,
    ) -> Estimate:
        """alike: the values may well be the same in all sequences, as counts of heads are."""
        rng = generator(self._seed, self._purpose(split, purpose))
        try:
            return cluster_interval(values, self._clusters(len(values)), rng, bounds=bounds)
        except DegenerateInterval as same:
            if not (alike or same.value in (0.0, 1.0)):
                raise
            return Estimate(same.value, same.value, same.value, len(values), len(values))

    @property
    def _seed(self) -> int:
        return int(self.document["seed"])

    def _purpose(self, split: str, what: str) -> str:
        return f"{self.model} {self.document['inputs']} {split} {what}"

    def _clusters(self, n: int) -> list[int]:
        return list(range(n))


def _several(heads: Head | Sequence[Head]) -> tuple[Head, ...]:
    return (heads,) if isinstance(heads, Head) else tuple(heads)
