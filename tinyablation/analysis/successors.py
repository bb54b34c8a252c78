"""Heads that write the successor of the word they attend to, read off their weights.

Made from a reading of successor_readings.py; needs no model and no torch. The words are all that
the sequences have, no sample of others, so that a share of them has no error and an interval of
zero width.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tinyablation.analysis.readings import ReadingFigures
from tinyablation.corpora.ordinals import successor_of
from tinyablation.errors import TinyAblationError
from tinyablation.heads import Head
from tinyablation.statistics.intervals import Estimate


class SuccessorsError(TinyAblationError):
    """A reading of OV circuits between words does not contain what was requested."""


@dataclass(frozen=True)
class SuccessorScores(ReadingFigures):
    """A reading of OV circuits between ordinal words. runs: the run directories it comes from."""

    @cached_property
    def heads(self) -> tuple[Head, ...]:
        """The heads that were read: the rows of the tensor."""
        return tuple(Head(row["layer"], row["head"]) for row in self.document["heads"])

    @cached_property
    def followed(self) -> tuple[str, ...]:
        """The words whose successor is a word of this tokenizer too."""
        words, after = self.document["words"], successor_of()
        return tuple(word for word in words if word in after and after[word][0] in words)

    def score(self, head: Head) -> Estimate:
        """The share of words whose successor's logit the head raises above that of all others.

        The others are all words of all sequences, the word attended to among them (the successor
        score of Gould et al. 2023, arXiv 2312.09230).
        """
        won = self._won[self._place(head)]
        share = float(won.mean())
        return Estimate(share, share, share, len(won), len(won))

    def by_sequence(self, head: Head) -> dict[str, float]:
        """The same share of each sequence."""
        names = [successor_of()[word][1] for word in self.followed]
        won = self._won[self._place(head)]
        return {
            name: float(won[[each == name for each in names]].mean())
            for name in dict.fromkeys(names)
        }

    def leaders(self, count: int) -> tuple[Head, ...]:
        """The heads with the largest scores, largest first."""
        order = np.argsort(-self._won.mean(axis=1), kind="stable")
        return tuple(self.heads[place] for place in order[:count])

    @cached_property
    def _won(self) -> np.ndarray:
        """[n_heads, n_followed] whether the successor's figure is above all others of its row."""
        if not self.followed:
            raise SuccessorsError(
                f"{self.model}: its tokenizer has no two words that follow each other as one token"
            )
        words, after = list(self.document["words"]), successor_of()
        rows = self.tensors["written"][:, [words.index(word) for word in self.followed]]
        columns = [words.index(after[word][0]) for word in self.followed]
        own = rows[:, np.arange(len(columns)), columns]
        return np.asarray((rows >= own[..., None]).sum(axis=2) == 1)

    def _place(self, head: Head) -> int:
        if head not in self.heads:
            raise SuccessorsError(f"{self.model}: head {head[0]}:{head[1]} was not read")
        return self.heads.index(head)
