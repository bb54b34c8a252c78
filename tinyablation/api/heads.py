"""Heads and sets of heads, as people write them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from numbers import Integral
from operator import index
from typing import Any

from tinyablation.api.errors import ApiError
from tinyablation.heads import Head


def head_of(given: Any, n_layers: int, n_heads: int) -> Head:
    """The head that "L0H7", "0:7", (0, 7) or a Head names; ApiError if the model has none such."""
    try:
        if isinstance(given, str):
            head = Head.parse(given)
        else:
            layer, number = given
            head = Head(index(layer), index(number))
    except (TypeError, ValueError):
        raise ApiError(f'{given!r} is not a head; write "L0H5", or (layer, head)') from None
    if not (0 <= head.layer < n_layers and 0 <= head.head < n_heads):
        raise ApiError(f"there is no head {head.name} in {n_layers} layers of {n_heads} heads")
    return head


def set_of(given: Any, n_layers: int, n_heads: int) -> tuple[Head, ...]:
    """The heads that "L0H7 L0H5", one head or several name, in order; ApiError as head_of."""
    if isinstance(given, str):
        parts: Iterable[Any] = [part for part in re.split(r"[\s,+]+", given) if part]
    elif _is_head(given):
        parts = [given]
    elif isinstance(given, Sequence):
        parts = given
    else:
        raise ApiError(f'{given!r} names no heads; write "L0H7 L0H5", or a list of heads')
    heads = sorted({head_of(part, n_layers, n_heads) for part in parts})
    if not heads:
        raise ApiError(f'{given!r} names no heads; write "L0H7 L0H5", or a list of heads')
    return tuple(heads)


def names(heads: Iterable[tuple[int, int]]) -> str:
    """ "L0H5 L0H7": several heads as text."""
    return " ".join(Head(*head).name for head in heads)


def _is_head(given: Any) -> bool:
    if not isinstance(given, tuple) or len(given) != 2:
        return False
    return all(isinstance(number, Integral) for number in given)
