"""Prompts that a record shows: how an intervention moved their answers, and their next tokens."""

from pydantic import Field

from tinyablation.records.plain import Number, Plain
from tinyablation.records.trust import Probability


class NextToken(Plain):
    """A token that may come next, and its probability."""

    token: str
    probability: Probability


class Extreme(Plain):
    """A prompt whose logit difference an intervention raised or lowered strongly.

    clean, ablated: the most probable next tokens, the first one first; empty where heads were not
    ablated by zeroing, or were before these were recorded.
    """

    LATER = frozenset({"clean", "ablated"})

    prompt: str
    target: str
    foil: str
    clean_ld: Number
    delta: Number
    split: str
    clean: list[NextToken] = Field(default=[])
    ablated: list[NextToken] = Field(default=[])
