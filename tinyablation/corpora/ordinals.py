"""Sequences whose words follow each other by convention, and the word that comes after each.

Kinds of Gould et al. 2023 (arXiv 2312.09230, on successor heads), and Roman numerals. Words are
written as in running text, and each is looked at as one token after a space.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from tinyablation.corpora.tokenisation import TokenisationError, answer_id

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BEFORE = "In order:"  # what a word's token is read after


class Sequence(NamedTuple):
    """cyclic: whether the first word follows the last."""

    name: str
    words: tuple[str, ...]
    cyclic: bool = False


def _of(name: str, words: str, *, cyclic: bool = False) -> Sequence:
    return Sequence(name, tuple(words.split()), cyclic)


SEQUENCES = (
    _of("days", "Monday Tuesday Wednesday Thursday Friday Saturday Sunday", cyclic=True),
    _of(
        "months",
        "January February March April May June July August September October November December",
        cyclic=True,
    ),
    _of(
        "numerals",
        "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
        "sixteen seventeen eighteen nineteen twenty",
    ),
    _of("tens", "twenty thirty forty fifty sixty seventy eighty ninety hundred"),
    _of("ordinals", "first second third fourth fifth sixth seventh eighth ninth tenth"),
    _of("letters", "A B C D E F G H I J K L M N O P Q R S T U V W X Y Z"),
    _of("Roman numerals", "I II III IV V VI VII VIII IX X XI XII"),
)


def successors(sequence: Sequence) -> dict[str, str]:
    """Each word of a sequence that another follows -> that other."""
    words = sequence.words
    following = dict(pairwise(words))
    return following | ({words[-1]: words[0]} if sequence.cyclic else {})


def successor_of() -> dict[str, tuple[str, str]]:
    """Word -> its successor and the name of its sequence, of words in one sequence alone.

    I, V and X are letters and Roman numerals, and what follows them is not decided.
    """
    found: dict[str, list[tuple[str, str]]] = {}
    for sequence in SEQUENCES:
        for word, after in successors(sequence).items():
            found.setdefault(word, []).append((after, sequence.name))
    return {word: after[0] for word, after in found.items() if len(after) == 1}


def ordinal_ids(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Word -> its token's id, of all words of the sequences that are one token after a space."""
    found = {}
    for word in dict.fromkeys(word for sequence in SEQUENCES for word in sequence.words):
        try:
            found[word] = answer_id(tokenizer, BEFORE, f" {word}")
        except TokenisationError:
            continue
    return found
