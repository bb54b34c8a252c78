"""Run: pytest tests/test_spelling.py"""

import pytest

from tinyablation.spelling import LIKE, SLIP, did_you_mean, nearest, sentence_of

KNOWN = ("facts", "Negation", "logic")


@pytest.mark.parametrize(
    ("word", "cutoff", "expected"),
    [
        ("facst", SLIP, "facts"),
        ("negtion", SLIP, "Negation"),
        ("LOGIC", SLIP, "logic"),
        ("fact", SLIP, "facts"),
        ("fac", SLIP, None),
        ("fac", LIKE, "facts"),
        ("", LIKE, None),
        (3, LIKE, None),  # a TOML value that is no text
    ],
)
def test_the_nearest_is_close_enough(word, cutoff, expected):
    assert nearest(word, KNOWN, cutoff) == expected


def test_where_none_is_near_all_are_named():
    assert did_you_mean("fact", KNOWN) == "did you mean 'facts'?"
    assert did_you_mean("zzz", KNOWN) == "known: facts, Negation, logic"
    assert did_you_mean("zzz", iter(KNOWN)) == "known: facts, Negation, logic"


def test_names_of_tests_are_read_in_the_fields_words():
    assert sentence_of("test_zeroing_the_trio_raises_ld") == "zero-ablating three heads raises LD"
    assert sentence_of("test_an_old_field") == "an old field"
