"""Run: pytest tests/api/test_plots.py"""

import subprocess
import sys

import numpy as np
import pytest

from tinyablation.api.errors import ApiError
from tinyablation.api.plots import curves, forest, heatmap
from tinyablation.statistics.intervals import Estimate


def test_a_heatmap_has_layers_down_and_heads_across():
    values = np.array([[1.0, -2.0, np.nan], [0.0, 0.5, 0.25]])
    axes = heatmap(values, "title $x").axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("head", "layer")
    assert axes.images[0].get_clim() == (-2.0, 2.0)  # white is zero
    assert axes.images[0].get_array().shape == (2, 3)


def test_a_forest_has_a_line_for_each_that_was_measured():
    lines = [
        ("a", Estimate(1.0, 0.0, 2.0, 4, 2), "supported"),
        ("b", None, ""),
        ("c <&$", Estimate(2.0, 1.0, 3.0, 4, 2), "refuted"),
    ]
    axes = forest(lines, "title", "logits", 0.5).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "c <&$"]
    with pytest.raises(ApiError, match="title: nothing was measured"):
        forest([("b", None, "")], "title", "logits")


def test_curves_have_a_line_each():
    axes = curves({"one": [0.0, 1.0], "other": [1.0, 0.0]}, "title", "share").axes[0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["one", "other"]


def test_pyplot_is_left_alone():
    """matplotlib's global state keeps figures alive and wants a display."""
    code = (
        "import sys, numpy; from tinyablation.api.plots import heatmap; "
        "heatmap(numpy.eye(2), 't')._repr_png_(); print('matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
