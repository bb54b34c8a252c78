"""Curves: complete, in their frame, readable without colour.

Run: pytest tests/report/test_curves.py"""

import re
import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyablation.records.panels import MOST_SERIES, CurvePanel, Series
from tinyablation.report.curves import BOTTOM, HEIGHT, LABEL_GAP, MOST_SPOKEN, WIDTH, curve

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)


def drawn(*series, **changes):
    fields = {"title": "Recovery", "x": "layer", "y": "share", "series": list(series)}
    return ET.fromstring(curve(CurvePanel(**fields | changes), "here"))


def line(name="a", x=(0, 1, 2), y=(0.1, 0.5, 0.9), **ends):
    return Series(name=name, x=list(x), y=list(y), **ends)


def test_a_drawing_has_a_title_and_describes_its_points():
    svg = drawn(Series.of("recovery", [0, 1], [(0.2, 0.1, 0.3), (-0.6, -0.7, -0.5)]))
    assert svg.get("role") == "img" and svg.get("aria-labelledby") == "here-t here-d"
    assert (svg[0].tag, svg[0].text, svg[0].get("id")) == ("title", "Recovery", "here-t")
    assert svg[1].get("id") == "here-d"
    minus = "\N{MINUS SIGN}"
    assert svg[1].text == (
        "share against layer. recovery: 0: 0.200 [0.100, 0.300]; "
        f"1: {minus}0.600 [{minus}0.700, {minus}0.500]."
    )


def test_long_lines_are_described_in_part():
    svg = drawn(line(x=range(MOST_SPOKEN + 5), y=range(MOST_SPOKEN + 5)))
    assert svg[1].text.endswith("; 5 more.")


def test_every_point_has_its_marker_tooltip_and_bar():
    ends = {"low": [0.0, 0.4, 0.8], "high": [0.2, 0.6, 1.0]}
    svg = drawn(line(**ends), line("b", y=(0.2, 0.3, 0.4)))
    tips = [title.text for title in svg.iter("title")]
    assert "a: 1: 0.500 [0.400, 0.600]" in tips and "b: 2: 0.400" in tips
    assert len([path for path in svg.iter("path") if path.get("class") == "ke"]) == 3


def test_lines_are_told_apart_without_colour():
    svg = drawn(*(line(str(n), y=(n, n, n)) for n in range(MOST_SERIES)))
    groups = [group for group in svg.iter("g") if group.find("path[@class='kp']") is not None]
    looks = set()
    for group in groups:
        marker = next(e for e in group.iter() if e.get("class") == "km")
        dashes = group.find("path[@class='kp']").get("stroke-dasharray")
        looks.add((marker.tag, marker.get("d"), dashes))
    assert len(looks) == MOST_SERIES
    labels = [text.text for text in svg.iter("text") if text.get("class") == "kn"]
    assert sorted(labels, key=int) == [str(n) for n in range(MOST_SERIES)]


@pytest.mark.parametrize("heights", [[0.5] * 12, [0, 0, 1], [1, 0.99, 0.98, 0.0]])
def test_labels_do_not_cover_each_other(heights):
    svg = drawn(*(line(str(n), y=(0.0, 1.0, y)) for n, y in enumerate(heights)))
    places = [float(text.get("y")) for text in svg.iter("text") if text.get("class") == "kn"]
    assert all(abs(b - a) >= LABEL_GAP - 0.2 for a, b in pairwise(places))
    assert min(places) > 0 and max(places) <= HEIGHT - BOTTOM + 4


def test_text_is_escaped_and_has_no_control_characters():
    hostile = "</script><img src=x onerror=alert(1)>\u202e\x00"
    panel = CurvePanel(
        title=hostile, x=hostile, y=hostile, series=[line(hostile), line("other " + hostile)]
    )
    text = curve(panel, "here")
    assert "<img" not in text and "\u202e" not in text and "\x00" not in text
    assert {element.tag for element in ET.fromstring(text).iter()} <= {
        "svg",
        "title",
        "desc",
        "path",
        "text",
        "g",
        "circle",
    }


@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=5))
@settings(derandomize=True, deadline=None, database=None, max_examples=200)
def test_any_finite_numbers_stay_in_the_frame(points):
    text = curve(
        CurvePanel(
            title="t",
            x="x",
            y="y",
            series=[Series(name="a", x=[p[0] for p in points], y=[p[1] for p in points])],
        ),
        "here",
    )
    assert "nan" not in text and "inf" not in text
    path = re.search(r'class="kp" d="M([^"]*)"', text)[1]
    for place in path.split("L"):
        x, y = map(float, place.split())
        assert 0 <= x <= WIDTH and 0 <= y <= HEIGHT


def test_reliability_has_its_counts_and_diagonal_and_no_line_to_one_observation():
    line = Series(name="clean", x=[0.1, 0.4, 0.6, 0.9], y=[0.2, 0.3, 1.0, 0.8], n=[9, 20, 1, 30])
    panel = CurvePanel(title="t", x="forecast", y="share", series=[line], diagonal=True)
    drawn = str(curve(panel, "one"))
    (path,) = re.findall(r'class="kp" d="([^"]*)"', drawn)
    assert path.count("M") == 3 and path.count("L") == 1, "the third point stands alone"
    assert re.findall(r'class="kx kc"[^>]*>(\d+)<', drawn) == ["9", "20", "1", "30"]
    assert "(n = 30)" in drawn and drawn.count('class="kz"') == 1
    assert 'class="kz"' not in str(curve(panel.model_copy(update={"diagonal": False}), "one"))
