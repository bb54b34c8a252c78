"""Shares of tokens that a head copies, suppresses or looks for, read off its weights.

Made from a reading of diagonal_readings.py; needs no model and no torch. Tokens are drawn from the
vocabulary without replacement, so that intervals are exact; over the whole vocabulary a share has
no error, and an interval of zero width.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from tinyablation.analysis.readings import ReadingFigures
from tinyablation.errors import TinyAblationError
from tinyablation.heads import Head
from tinyablation.statistics.finite_population import most_in_population
from tinyablation.statistics.intervals import Estimate
from tinyablation.verdicts.verdicts import CONFIDENCE

Circuit = Literal["ov", "qk"]
End = Literal["top", "bottom"]
SUPPRESSED = 10  # McDougall et al. 2023 (arXiv 2310.04625) count the ten lowest logits of a row


class DiagonalsError(TinyAblationError):
    """A reading of diagonals does not contain what was requested."""


@dataclass(frozen=True)
class DiagonalShares(ReadingFigures):
    """A reading of diagonals. runs: the names of the run directories it comes from."""

    @cached_property
    def heads(self) -> tuple[Head, ...]:
        """The heads that were read: the rows of the tensors."""
        return tuple(Head(row["layer"], row["head"]) for row in self.document["heads"])

    def share(self, head: Head, circuit: Circuit, end: End, count: int) -> Estimate:
        """The share of tokens that are among the `count` at one end of their own row.

        ("ov", "bottom", SUPPRESSED): tokens whose logit the head lowers most if it attends to them;
        ("ov", "top", 1): that it copies; ("qk", "top", 1): whose key its query of them prefers.
        The interval is the exact one of a draw without replacement, Clopper and Pearson's.
        """
        if head not in self.heads:
            raise DiagonalsError(
                f"{self.model}: head {head[0]}:{head[1]} was not read; name it in the reading"
            )
        found = int(self._counted(circuit, end, count)[self.heads.index(head)].sum())
        population, drawn = int(self.document["vocab_size"]), int(self.document["n_tokens"])
        one_sided = (1 + CONFIDENCE) / 2

        def most(found: int) -> float:
            return most_in_population(population, drawn, found, confidence=one_sided) / population

        share = found / drawn
        # Over the whole vocabulary all three are the same but for rounding.
        low, high = min(share, 1 - most(drawn - found)), max(share, most(found))
        return Estimate(share, low, high, drawn, drawn)

    def leaders(self, circuit: Circuit, end: End, count: int, n: int) -> tuple[Head, ...]:
        """The n heads with the largest share, largest first.

        Of a reading of all heads over some tokens they are a choice, for a reading of these heads
        over the whole vocabulary to judge.
        """
        shares = self._counted(circuit, end, count).mean(axis=1)
        return tuple(self.heads[place] for place in np.argsort(-shares, kind="stable")[:n])

    def _counted(self, circuit: Circuit, end: End, count: int) -> np.ndarray:
        """[n_heads, n_tokens] whether the row's own figure is among the `count` at this end."""
        size = int(self.document["vocab_size"])
        if not 0 < count < size:
            raise DiagonalsError(f"{self.model}: count is {count}; it has {size} tokens")
        beyond = {"top": "above", "bottom": "below"}[end]
        return np.asarray(self.tensors[f"{circuit}.{beyond}"] < count)
