"""Forest plots: complete, in their frame, read without colour.

Run: pytest tests/report/test_forest_plots.py"""

import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fake_sessions import HOSTILE, fake_session
from tinyablation.records.panels import ForestPanel
from tinyablation.records.records import VERDICTS
from tinyablation.report.forest_plots import (
    TABLE_PLOT,
    Line,
    forest,
    lines_of,
    panel_forest,
    table_axis,
    table_head,
    table_row,
)

NUMBERS = st.floats(-1e6, 1e6)


def drawn(*lines, **changes):
    return ET.fromstring(forest(lines, "Effects", "logits", "here", **changes))


def test_every_line_has_its_figures_in_words_and_its_marker():
    svg = drawn(
        Line("facts", 1.0, 0.5, 1.5, 0.2, "tiny-gpt2", "supported", "supported", "cell=a"),
        Line("logic", None, group="tiny-gpt2", verdict="blocked", said="blocked", key="cell=b"),
    )
    assert svg.get("aria-labelledby") == "here-t here-d"
    assert svg[1].text == (
        "In logits. tiny-gpt2 facts: +1.000 [+0.500, +1.500], supported; tiny-gpt2 logic: blocked."
    )
    groups = [group for group in svg.iter("g") if group.get("data-cell")]
    assert [group.get("data-cell") for group in groups] == ["cell=a", "cell=b"]
    texts = [[text.text for text in group.iter("text")] for group in groups]
    assert texts == [["tiny-gpt2", "facts", "+1.000 [+0.500, +1.500]"], ["logic", "blocked"]]
    assert len([path for path in svg.iter("path") if path.get("class") == "fe"]) == 1


def test_verdicts_are_told_apart_without_colour():
    svg = drawn(*(Line(word, 1.0, verdict=word, said=word) for word in VERDICTS))
    markers = [e for e in svg.iter() if e.get("class") == "fs"]
    assert len({(e.tag, e.get("d")) for e in markers}) == len(VERDICTS)


@given(st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS).map(sorted), min_size=1, max_size=5))
def test_nothing_is_drawn_outside_of_the_axis(estimates):
    lines = [Line(str(n), mid, low, high) for n, (low, mid, high) in enumerate(estimates)]
    svg = drawn(*lines)
    frame = next(e for e in svg.iter("path") if e.get("class") == "ka").get("d")
    start, end = (float(part.split(" ")[0]) for part in frame[1:].split("H"))
    for marker in svg.iter("circle"):
        assert start - 0.1 <= float(marker.get("cx")) <= end + 0.1


def test_hostile_names_are_text_and_long_ones_are_cut():
    panel = ForestPanel.of(HOSTILE, HOSTILE, {f"{HOSTILE}\u202e{'x' * 80}": (1.0, 0.5, 2.0)})
    made = panel_forest(panel, "a")
    assert "<img" not in made and "\u202e" not in made
    assert max(len(e.text or "") for e in ET.fromstring(made).iter("text")) <= 60


def test_a_claim_of_which_nothing_was_measured_has_no_plot():
    assert forest([Line("facts", None, said="blocked")], "t", "u", "a") == ""


def test_records_become_lines_in_their_order():
    records = fake_session().records[:4]
    lines = lines_of(records, list("abcd"))
    assert [line.key for line in lines] == list("abcd")
    assert [line.value for line in lines] == [record.effect for record in records]


@pytest.mark.parametrize("bound", [None, 0.6])
def test_a_bound_is_one_line_through_all_rows(bound):
    svg = drawn(Line("a", 1.0, 0.5, 1.5), Line("b", 0.5, 0.2, 0.7), bound=bound)
    assert len([e for e in svg.iter("path") if e.get("class") == "fo"]) == (bound is not None)


def test_rows_of_a_table_share_an_axis_that_shows_all_of_them():
    lines = [Line("a", 1.0, 0.5, 1.5, 0.2), Line("b", -2.0), Line("c", None, said="blocked")]
    across = table_axis(lines)
    rows = [table_row(line, across) for line in lines]
    assert rows[2] == "" and [row.count('class="fi"') for row in rows[:2]] == [1, 0]
    assert [row.count('class="fb"') for row in rows[:2]] == [1, 0]
    zeros = {e.get("d") for row in rows[:2] for e in ET.fromstring(row) if e.get("class") == "fz"}
    assert len(zeros) == 1
    labels = [text.text for text in ET.fromstring(table_head(across)).iter("text")]
    assert labels == ["\N{MINUS SIGN}2", "\N{MINUS SIGN}1", "0", "1"]
    for row in rows[:2]:
        (point,) = ET.fromstring(row).iter("circle")
        assert 0 < float(point.get("cx")) < TABLE_PLOT
