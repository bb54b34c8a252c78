"""Prompts that a record shows: how an intervention moved their answers, and what led to that."""

from pydantic import Field

from tinyablation.records.plain import Number, Plain
from tinyablation.records.trust import Probability


class TokenShare(Plain):
    """A token, and the probability that it comes next or that a head attends to it."""

    token: str
    probability: Probability


class HeadAttention(Plain):
    """Where a head attends to from a prompt's last token: most, and first, to tokens[0]."""

    head: str
    tokens: list[TokenShare]


class Extreme(Plain):
    """A prompt whose logit difference an intervention raised or lowered strongly.

    clean, ablated: the most probable next tokens, the first one first; attended: to which tokens
    the ablated heads attend in the unhooked model. Empty where heads were not ablated by zeroing,
    or were before these were recorded.
    """

    LATER = frozenset({"clean", "ablated", "attended"})

    prompt: str
    target: str
    foil: str
    clean_ld: Number
    delta: Number
    split: str
    clean: list[TokenShare] = Field(default=[])
    ablated: list[TokenShare] = Field(default=[])
    attended: list[HeadAttention] = Field(default=[])
