"""Sequences drawn from a vocabulary.

Run: pytest tests/corpora/test_token_sequences.py
"""

import numpy as np
import pytest

from tests.small_tokenizers import byte_level
from tinyablation.corpora.filtering import TooFewPrompts
from tinyablation.corpora.token_sequences import (
    one_token_sequences,
    ordinary_ids,
    random_sequences,
    repeated_words,
)
from tinyablation.corpora.tokenisation import TokenisationError, load_tokenizer

ORDINARY = np.arange(10, 60)


def drawn(**changes):
    options = {"count": 8, "length": 5, "copies": 2, "bos_id": 1, "seed": 3}
    return random_sequences(ORDINARY, **{**options, **changes})


def test_random_tokens_differ_within_a_sequence_and_are_repeated():
    for ids in drawn():
        assert ids[0] == 1
        assert ids[1:6] == ids[6:]
        assert len(set(ids)) == 6 and set(ids[1:]) <= set(ORDINARY.tolist())
        assert all(type(token) is int for token in ids)
    assert len(set(drawn())) == 8
    assert {len(ids) for ids in drawn(bos_id=None, copies=1)} == {5}


def test_the_seed_and_the_sizes_draw_them():
    assert drawn() == drawn()
    assert drawn() != drawn(seed=4)
    # More sequences are the same ones first; another length is another draw.
    assert drawn(count=9)[:8] == drawn()
    assert [ids[1:4] for ids in drawn(length=3)] != [ids[1:4] for ids in drawn()]


def test_one_token_is_repeated_without_bos_and_each_time_another():
    found = one_token_sequences(ORDINARY, count=20, length=7, seed=0)
    assert all(len(ids) == 7 and len(set(ids)) == 1 for ids in found)
    assert len({ids[0] for ids in found}) == 20
    assert found == one_token_sequences(ORDINARY, count=20, length=7, seed=0)
    assert found != one_token_sequences(ORDINARY, count=20, length=7, seed=1)


def test_a_vocabulary_too_small_is_refused():
    with pytest.raises(TokenisationError, match="50 ordinary tokens, too few for 51 different"):
        drawn(length=51)
    with pytest.raises(TokenisationError, match="50 ordinary tokens, too few for 51 sequences"):
        one_token_sequences(ORDINARY, count=51, length=2, seed=0)


def test_special_tokens_and_padding_ids_are_not_drawn(tiny_folders):
    tokenizer = load_tokenizer(str(tiny_folders["gpt2"]))
    tokenizer.add_tokens(["ordinary-addition"])
    tokenizer.add_special_tokens({"extra_special_tokens": ["<other>"]})
    assert len(tokenizer) == 302
    found = ordinary_ids(tokenizer, 400)
    assert found.tolist() == [*range(1, 300), 300]  # neither <s> (0) nor <other> (301), nor 302 on
    assert ordinary_ids(tokenizer, 250).tolist() == list(range(1, 250))


def test_words_of_a_few_tokens_are_drawn_as_they_are_cut():
    tokenizer = byte_level([" whole", "ab"])  # " abc" is its bytes
    words = ["whole", "a", "bc", "def", "g", "hijklm"]

    def drawn_words(count=20, n_words=3, seed=0):
        sizes = {"count": count, "n_words": n_words, "most_tokens": 4}
        return repeated_words(tokenizer, words, **sizes, seed=seed)

    found = drawn_words()
    assert len(found) == 20 and len(set(found)) > 3
    assert {tokenizer.decode(ids) for row in found for ids in row} == {" a", " bc", " def", " g"}
    assert all(len(row) == len(set(row)) == 3 for row in found)
    assert found == drawn_words() != drawn_words(seed=1)
    with pytest.raises(TooFewPrompts, match="cuts 4 of 6 words into 2 to 4 tokens, too few for 5"):
        drawn_words(n_words=5)
