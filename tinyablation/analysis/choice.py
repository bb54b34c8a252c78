"""A head chosen by its effect: never judged by the examples that it was chosen on."""

from collections.abc import Mapping
from typing import NamedTuple

from tinyablation.corpora.examples import CONFIRMATION
from tinyablation.heads import Head, head_name


class Choice(NamedTuple):
    """The head that leads on one half of the examples, for the other half to judge.

    heads: split that judges -> head that leads on the other split. Of both splits (cross-fitting)
    the figure is a mean over all examples, each under the head that it had no part in choosing. If
    that mean is beyond a bound, so is the effect of one of the two heads: a claim that some head
    has the effect needs no correction for the choice. split: the split or splits that judge.
    """

    heads: Mapping[str, Head]
    split: str

    @property
    def head(self) -> Head:
        """The head that leads on the discovery split."""
        return self.heads[CONFIRMATION]

    @property
    def name(self) -> str:
        """ "0:2", or "0:2 (0:5 on discovery)" where another one is judged by that split."""
        others = {split: head for split, head in self.heads.items() if head != self.head}
        told = [f"{head_name(head)} on {split}" for split, head in others.items()]
        return head_name(self.head) + (f" ({', '.join(told)})" if told else "")
