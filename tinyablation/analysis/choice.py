"""A head chosen by its effect: never judged by the examples that it was chosen on."""

from collections.abc import Mapping
from typing import NamedTuple

from tinyablation.corpora.examples import CONFIRMATION
from tinyablation.heads import Head, head_name
from tinyablation.verdicts.verdicts import CONFIDENCE

# Of the intervals of a choice by both halves. Where heads are tied, both halves may choose the same
# one by chance, which is then judged by the data that chose it: of 2 to 64 heads tied at a bound
# one was found beyond it in up to .066 of simulated samples at .95 (nominal .025), and in up to
# .039 at .98.
CROSSED_CONFIDENCE = 0.98


class Choice(NamedTuple):
    """The head that leads on one half of the examples, for the other half to judge.

    heads: split that judges -> head that leads on the other split. Of both splits (cross-fitting)
    the figure is a mean over all examples, each under the head that it had no part in choosing. If
    that mean is beyond a bound, so is the effect of one of the two heads. split: the split or
    splits that judge.
    """

    heads: Mapping[str, Head]
    split: str

    @property
    def head(self) -> Head:
        """The head that leads on the discovery split."""
        return self.heads[CONFIRMATION]

    @property
    def confidence(self) -> float:
        """Of its intervals: CROSSED_CONFIDENCE if both halves judge."""
        return CROSSED_CONFIDENCE if len(self.heads) > 1 else CONFIDENCE

    @property
    def name(self) -> str:
        """ "0:2", or "0:2 (0:5 on discovery)" where another one is judged by that split."""
        others = {split: head for split, head in self.heads.items() if head != self.head}
        told = [f"{head_name(head)} on {split}" for split, head in others.items()]
        return head_name(self.head) + (f" ({', '.join(told)})" if told else "")
