"""An attention head: its type, its notations and their parser."""

import re
from collections.abc import Iterable
from typing import NamedTuple, Self

_WRITTEN = re.compile(r"L([0-9]+)H([0-9]+)|([0-9]+):([0-9]+)", re.IGNORECASE)


class Head(NamedTuple):
    """An attention head: layer and head index, both counted from 0."""

    layer: int
    head: int

    def __str__(self) -> str:
        return self.label

    @property
    def label(self) -> str:
        """ "0:7": in tables, addresses and the purposes of random draws."""
        return f"{self.layer}:{self.head}"

    @property
    def name(self) -> str:
        """ "L0H7": for people."""
        return f"L{self.layer}H{self.head}"

    @classmethod
    def parse(cls, text: object) -> Self:
        """The head that "L0H7" or "0:7" names. Raises ValueError."""
        match = _WRITTEN.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise ValueError(f'{text!r} is not a head; write it "L0H5" (or "0:5", layer and head)')
        layer, head = (int(number) for number in match.groups() if number is not None)
        return cls(layer, head)


def heads_label(heads: Iterable[tuple[int, int]]) -> str:
    """ "0.2+0.4": several heads, as tables and addresses write them."""
    return "+".join(f"{layer}.{head}" for layer, head in heads)


def head_name(head: tuple[int, int]) -> str:
    """ "0:7": one head in texts, and in the purposes of random draws, which must not change."""
    return Head(*head).label
