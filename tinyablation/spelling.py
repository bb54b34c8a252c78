"""Words in messages: suggestions for misspelt ones, counts of things, names of tests."""

import difflib
import re
from collections.abc import Iterable

# Cutoffs of difflib's ratio. 0.8 allows a typing error: "facst" for "facts" scores exactly 0.8.
SLIP = 0.8
LIKE = 0.4  # among a few names the intended one may be spelt quite differently

_IN_NAMES = [
    (re.compile(r"\bzeroing the trio\b"), "zero-ablating three heads"),
    (re.compile(r"\bzeroing\b"), "zero-ablating"),
    (re.compile(r"\bno other trio does\b"), "no other three heads do"),
    (re.compile(r"\btrio suppresses\b"), "three heads suppress"),
    (re.compile(r"\btrio of the small model raises\b"), "three heads of the small model raise"),
    (re.compile(r"\bld\b"), "LD"),
]


def nearest(word: object, known: Iterable[str], cutoff: float = LIKE) -> str | None:
    """The known word closest to this one, ignoring case; None if none is close."""
    if not isinstance(word, str):
        return None
    names = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), names, n=1, cutoff=cutoff)
    return names[close[0]] if close else None


def did_you_mean(word: object, known: Iterable[str], cutoff: float = LIKE) -> str:
    """ "did you mean 'facts'?", or "known: " and the list of known words if none is close."""
    names = list(known)
    close = nearest(word, names, cutoff)
    return f"known: {', '.join(names)}" if close is None else f"did you mean {close!r}?"


def counted(n: int, noun: str) -> str:
    """ "1 test case", "12 test cases" """
    return f"{n} {noun}{'' if n == 1 else 's'}"


def sentence_of(name: str) -> str:
    """`test_top_suppressor_leads` as words."""
    words = name.removeprefix("test_").replace("_", " ")
    for pattern, better in _IN_NAMES:
        words = pattern.sub(better, words)
    return words
