"""Run: pytest tests/runs/test_heatmaps.py"""

import io
import sys
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from tests.synthetic_runs import obtain
from tinyablation.runs.heatmaps import EMPTY, Panel, PlotError, draw_html, draw_png, panels

PANELS = [
    Panel("zero", np.array([[0.0, -0.1, 0.5], [0.1, np.nan, 0.02]])),
    Panel("mean", np.array([[0.0, -0.2, 0.25], [0.1, 0.0, 0.01]])),
]


class Page(HTMLParser):
    """Collects what a page loads, its scripts and its cells."""

    def __init__(self) -> None:
        super().__init__()
        self.tags, self.loads, self.cells, self._inside = [], [], [], False

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.loads += [value for name, value in attrs if name in ("src", "href")]
        self._inside = tag == "td"
        if self._inside:
            self.cells.append((dict(attrs), ""))

    def handle_endtag(self, tag):
        self._inside = self._inside and tag != "td"

    def handle_data(self, data):
        if self._inside:
            self.cells[-1] = (self.cells[-1][0], self.cells[-1][1] + data)


def parse(html: str) -> Page:
    page = Page()
    page.feed(html)
    return page


def test_panels_are_layers_by_heads_of_the_run(tmp_path):
    impact = obtain(tmp_path).head_impact()
    drawn = panels(impact)
    assert [panel.title for panel in drawn] == ["mean", "zero"]
    assert drawn[1].values.shape == (4, 3)
    assert np.unravel_index(drawn[1].values.argmax(), (4, 3)) == (0, 2)
    expected = impact.query(
        "metric == 'kl_div' and split == 'discovery' and method == 'zero'"
        " and layer == 1 and head == 0"
    )["value"].item()
    assert panels(impact, metric="kl_div", split="discovery")[1].values[1, 0] == expected
    assert panels(impact.iloc[:0]) == []


def test_scaled_heads_are_named_by_their_scale():
    impact = pd.DataFrame(
        [("scale", 0.5, 0, 1, "logit_diff", "all", 0.25)],
        columns=["method", "scale", "layer", "head", "metric", "split", "value"],
    )
    (panel,) = panels(impact)
    assert panel.title == "scale x 0.5"
    assert np.isnan(panel.values[0, 0]) and panel.values[0, 1] == 0.25


def test_the_png_is_a_picture_and_the_same_each_time():
    from matplotlib.image import imread

    data = draw_png(PANELS, "tiny-gpt2 $x")
    assert data == draw_png(PANELS, "tiny-gpt2 $x")
    pixels = imread(io.BytesIO(data), format="png")
    assert pixels.ndim == 3 and pixels.std() > 0.05


def test_drawing_does_not_touch_pyplot():
    draw_png(PANELS, "x")
    assert (
        "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()
    )


def test_red_is_a_suppressor_and_blue_the_opposite():
    page = parse(draw_html([Panel("zero", np.array([[0.5, -0.5, 0.0]]))], "t"))

    def channels(cell):
        colour = cell[0]["style"].split("background:")[1][1:7]
        return [int(colour[i : i + 2], 16) for i in (0, 2, 4)]

    red, blue, white = (channels(cell) for cell in page.cells)
    assert red[0] > red[2] and blue[2] > blue[0] and min(white) > 240


def test_the_page_holds_every_figure_and_loads_nothing():
    html = draw_html(PANELS, "tiny-gpt2-h1-facts")
    page = parse(html)
    assert page.loads == [] and "script" not in page.tags and "url(" not in html
    assert [text for _, text in page.cells] == [
        *("+0.000", "-0.100", "+0.500", "+0.100", "", "+0.020"),
        *("+0.000", "-0.200", "+0.250", "+0.100", "+0.000", "+0.010"),
    ]
    assert page.cells[2][0]["title"] == "head 0:2: +0.5"
    assert html == draw_html(PANELS, "tiny-gpt2-h1-facts")


def test_titles_are_escaped():
    nasty = '<script>alert("x")</script>'
    html = draw_html([Panel(nasty, np.zeros((1, 1)))], nasty)
    assert "script" not in parse(html).tags and "&lt;script&gt;" in html


def test_nothing_to_draw_is_said():
    assert EMPTY in draw_html([], "baseline")
    assert draw_png([], "baseline").startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "values",
    [np.array([[np.inf]]), np.array([[np.nan]]), np.zeros(3), np.zeros((0, 2))],
)
@pytest.mark.parametrize("draw", [draw_png, draw_html])
def test_figures_that_cannot_be_drawn_are_refused(draw, values):
    with pytest.raises(PlotError, match="panel 'bad'"):
        draw([Panel("bad", values)], "t")
