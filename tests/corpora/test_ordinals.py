"""Run: pytest tests/corpora/test_ordinals.py"""

from tests.small_tokenizers import byte_level
from tinyablation.corpora.ordinals import (
    SEQUENCES,
    ordinal_ids,
    successor_of,
    successors,
)


def test_a_word_is_followed_by_the_next_and_the_last_of_a_cycle_by_the_first() -> None:
    found = {each.name: successors(each) for each in SEQUENCES}
    assert found["days"]["Sunday"] == "Monday" and found["months"]["May"] == "June"
    assert found["letters"]["Y"] == "Z" and "Z" not in found["letters"]
    assert all(len({*each.words}) == len(each.words) for each in SEQUENCES)


def test_a_word_of_two_sequences_has_no_one_successor() -> None:
    after = successor_of()
    assert after["three"] == ("four", "numerals") and after["twenty"] == ("thirty", "tens")
    assert not {"I", "V", "X"} & after.keys() and after["II"] == ("III", "Roman numerals")


def test_only_words_of_one_token_have_an_id() -> None:
    tokenizer = byte_level([" Monday", " Tuesday", " sixth", "one"])
    found = ordinal_ids(tokenizer)
    assert list(found) == ["Monday", "Tuesday", "sixth"]
    assert tokenizer.decode([found["sixth"]]) == " sixth"
