"""Words and tokens of the report page. Run: pytest tests/report/test_text.py"""

import json

import pytest
from hypothesis import given as any_of
from hypothesis import settings
from hypothesis import strategies as st

from tinyablation.records.records import PublishedFigure
from tinyablation.report.text import (
    detail,
    duration,
    finalize,
    given,
    harmless,
    json_text,
    readable,
    slug,
    visible,
)


def test_visible_spaces_and_controls():
    assert visible(" Paris") == '<i class="sp">␣</i>Paris'
    assert visible("a\n b ") == 'a<i class="sp">↵</i> b<i class="sp">␣</i>'
    assert visible("  ") == '<i class="sp">␣</i>' * 2
    assert visible("\N{RIGHT-TO-LEFT OVERRIDE}x<") == "<i class=sp>U+202E</i>x&lt;"
    assert visible("") == ""
    assert visible("a\u2028b\u2003c") == "a<i class=sp>U+2028</i>b<i class=sp>U+2003</i>c"


@any_of(st.text(max_size=30))
@settings(derandomize=True, deadline=None, database=None, max_examples=100)
def test_nothing_unprintable_or_unescaped_comes_through(text):
    for shown in (visible(text), harmless(text)):
        bare = shown.replace('<i class="sp">', "").replace("<i class=sp>", "").replace("</i>", "")
        assert "<" not in bare and '"' not in bare
    assert visible(text).isprintable()


def test_a_control_character_does_not_end_an_attribute():
    assert '"' not in finalize('m\x00" onload="x')


@pytest.mark.parametrize(
    ("value", "quantity", "shown"),
    [
        (0.44, "effect", "+0.44"),
        (-0.389, "effect", "\N{MINUS SIGN}0.389"),
        (67.1, "percentile", "67.1"),
        (100.0, "percentile", "100"),
    ],
)
def test_published_numbers_keep_their_digits(value, quantity, shown):
    figure = PublishedFigure(
        model="m", condition="facts", value=value, quantity=quantity, source="s"
    )
    assert given(figure) == shown


def test_details_as_text_pairs_and_rows():
    assert detail(True) == "yes" and detail(None) == "none" and detail([]) == "none"
    assert detail(-0.123456) == "\N{MINUS SIGN}0.1235"
    assert detail({"a": [1, 2]}) == ("pairs", [("a", "1, 2")])
    assert detail([{"a": 1}, {"b": 2}]) == ("rows", ["a", "b"], [["1", ""], ["", "2"]])
    deep = {"a": {"b": {"c": {"d": 1}}}}
    assert detail(deep)[1][0][1][1][0][1][1][0] == ("c", '{"d": 1}')


def test_a_figure_with_its_interval_is_shown_as_one():
    assert detail([0.8882, 0.2997, 1.326]) == "0.8882 [0.2997, 1.326]"
    # Three figures in any other order are a list.
    assert detail([0.1, 0.2, 0.3]) == "0.1, 0.2, 0.3"
    assert detail([1, 0, 2]) == "1, 0, 2"


def test_slugs_of_odd_names_differ():
    assert slug("H1.1", "m") == "H1.1.m"
    assert len({slug("a b"), slug("a/b"), slug("a-b")}) == 3


def test_durations():
    assert [duration(s) for s in (None, 4.6, 61)] == ["", "5 s", "1 min 1 s"]


def test_json_holds_no_tag_and_reads_back():
    document = {"a</script>": ["<!--", "\u2028é", 1.5, None]}
    text = json_text(document)
    assert "<" not in text and "é" in text and json.loads(text) == document
    with pytest.raises(ValueError, match="JSON compliant"):
        json_text(float("nan"))


@pytest.mark.parametrize(
    ("recorded", "shown"),
    [
        (
            "zeroing 0:7 0:0: -0.6, interval [-0.7, -0.5]",
            "zeroing L0H7 L0H0: -0.6, interval [-0.7, -0.5]",
        ),
        ("straddles the floor 0.2", "straddles the minimum effect 0.2"),
        ("lies below the ceiling 0.25", "lies below the upper threshold 0.25"),
        (
            "lead over 0:5 (24:4 on discovery)",
            "difference from runner-up L0H5 (L24H4 on discovery)",
        ),
        ("accomplices of the leader", "pairwise interactions with the leader"),
        ("Tiny Llama, sham", "Tiny Llama, negative control"),
        ("D where cell first case: +1", "D for prompts of the kind first case: +1"),
        ("at 10:30:15, flooring", "at 10:30:15, flooring"),
        ("2025-03-01T09:30:00+00:00", "2025-03-01T09:30:00+00:00"),
    ],
)
def test_records_are_read_in_the_words_of_the_page(recorded, shown):
    assert readable(recorded) == shown
    assert readable(shown) == shown
