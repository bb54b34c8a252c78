"""Axes of drawings: round ticks, places, captions. Run: pytest tests/report/test_axes.py"""

import pytest

from tinyablation.report.axes import axis, caption, px


def test_ticks_of_layers_are_whole():
    assert axis([0, 3], 0, 100).ticks == (0, 1, 2, 3)
    assert axis([0, 2], 0, 100).ticks == (0, 1, 2)
    assert axis([-0.5, 0, 0.5], 0, 100).ticks == (-0.5, 0.0, 0.5)


@pytest.mark.parametrize("value", [0.0, 1.0, -3.0, 5e-324, -1.7e308])
def test_one_value_has_a_place_too(value):
    across = axis([value], 10, 110)
    assert 10 <= across.px(value) <= 110


def test_captions_are_one_escaped_line_that_fits():
    assert caption("a<b>\n\u202ec") == "a&lt;b&gt; U+202Ec"
    assert caption("abcdef", 4) == "abc\u2026" and caption("abcd", 4) == "abcd"


def test_coordinates_are_short():
    assert (px(3), px(2.50), px(1 / 3)) == ("3", "2.5", "0.3")
