"""Run: pytest tests/test_heads.py"""

import pytest

from tinyablation.heads import Head, head_name, heads_label


@pytest.mark.parametrize("text", ["L3H12", "l3h12", "3:12", "L03H12"])
def test_both_ways_of_writing_are_read(text):
    head = Head.parse(text)
    assert head == Head(3, 12) == (3, 12)
    assert (head.label, str(head), head.name) == ("3:12", "3:12", "L3H12")


@pytest.mark.parametrize(
    "text", ["", "3", "3:", "L3", "L3H", "3.12", "-1:2", "L3H12 ", "٣:٤", 3.5, None]
)
def test_anything_else_is_refused_with_how_to_write_it(text):
    with pytest.raises(ValueError, match='is not a head; write it "L0H5"'):
        Head.parse(text)


def test_heads_in_tables_and_purposes_are_written_as_ever():
    """Addresses and random draws are made of these texts."""
    assert heads_label(((0, 2), Head(0, 4))) == "0.2+0.4" and heads_label(()) == ""
    assert head_name((0, 7)) == head_name(Head(0, 7)) == "0:7"
    assert f"{tuple(Head(0, 7))}" == "(0, 7)"
