"""Successor scores of made-up circuits whose answers are known.

Run: pytest tests/analysis/test_successors.py
"""

import numpy as np
import pytest

from tinyablation.analysis.successors import SuccessorScores, SuccessorsError
from tinyablation.corpora.ordinals import SEQUENCES, successor_of
from tinyablation.engine.document import Computed
from tinyablation.heads import Head

WORDS = [*dict.fromkeys(word for each in SEQUENCES for word in each.words if word != "Tuesday")]
SUCCESSOR, COPIER, ZERO, OF_DAYS = Head(1, 0), Head(1, 2), Head(2, 1), Head(2, 3)
HEADS = (SUCCESSOR, COPIER, ZERO, OF_DAYS)


def made(words: list[str] = WORDS) -> SuccessorScores:
    """A head that writes every successor, one that copies, one that writes nothing, one of days."""
    written = np.random.default_rng(0).normal(size=(len(HEADS), len(words), len(words)))
    written[HEADS.index(ZERO)] = 0.0
    written[HEADS.index(COPIER)] += 99 * np.eye(len(words))
    for word, (after, name) in successor_of().items():
        if word in words and after in words:
            place = words.index(word), words.index(after)
            written[HEADS.index(SUCCESSOR)][place] = 99
            written[HEADS.index(OF_DAYS)][place] += 99 if name == "days" else -99
    heads = [{"layer": head.layer, "head": head.head} for head in HEADS]
    document = {"model": "made-up", "heads": heads, "words": words}
    return SuccessorScores(Computed(document, {"written": written.astype(np.float32)}), ("run",))


def test_a_successor_must_be_raised_above_all_other_words() -> None:
    scores = made()
    n = len(scores.followed)
    assert scores.score(SUCCESSOR) == (1.0, 1.0, 1.0, n, n)
    assert scores.score(COPIER).estimate == scores.score(ZERO).estimate == 0.0
    assert scores.score(OF_DAYS).estimate == 5 / n  # not Monday, and there is no Tuesday
    assert scores.leaders(2) == (SUCCESSOR, OF_DAYS)


def test_each_sequence_has_its_share() -> None:
    shares = made().by_sequence(OF_DAYS)
    assert list(shares) == [each.name for each in SEQUENCES]
    assert shares.pop("days") == 1.0 and not any(shares.values())


def test_words_without_a_successor_are_no_rows() -> None:
    followed = made().followed
    assert not {"Monday", "Tuesday", "Z", "hundred", "I", "V"} & {*followed}
    assert {"Sunday", "Wednesday", "A", "twenty"} <= {*followed}


def test_what_was_not_read_is_named() -> None:
    with pytest.raises(SuccessorsError, match="made-up: head 0:0 was not read"):
        made().score(Head(0, 0))
    with pytest.raises(SuccessorsError, match="made-up: its tokenizer has no two words"):
        made(["Monday", "A"]).leaders(1)
