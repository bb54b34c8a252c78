"""Heatmaps of a config's run.

Run: pytest tests/study/test_heatmaps.py
"""

from pathlib import Path

import numpy as np
import pandas
import pytest

from tests.study_files import HEADS, PAIRS, REVERSE, TRIPLET
from tinyablation.runs.heatmaps import draw_html, draw_png
from tinyablation.study.batteries import parse_battery
from tinyablation.study.heatmaps import panels_of
from tinyablation.study.tables import HEAD, LAYER, SETS

FILE = Path("battery.json")
SAME = {"metric": "logit_diff", "split": "train", "scale": 0.0, "method": "zero"}


def rows(columns, *given) -> pandas.DataFrame:
    return pandas.DataFrame([SAME | each for each in given], columns=list(columns))


def test_a_pair_stands_on_both_sides_of_its_layers_panel():
    heads = rows(
        HEAD, {"layer": 0, "head": "0-2", "value": 1.5}, {"layer": 0, "head": "0-1", "value": -1}
    )
    (panel,) = panels_of(parse_battery(FILE, PAIRS), heads, rows(SETS))
    assert panel.values[0, 2] == panel.values[2, 0] == 1.5
    assert np.isnan(panel.values[1, 2]) and np.isnan(panel.values[0, 0])
    assert (panel.down, panel.across) == ("head", "head")


def test_a_patch_is_a_column_of_layers():
    patched = {"granularity": "layer_resid", "positions": "last"}
    layers = rows(LAYER, *({**patched, "layer": n, "value": -n} for n in (0, 3)))
    (panel,) = panels_of(parse_battery(FILE, REVERSE), rows(HEAD), layers)
    assert panel.values[[0, 3], 0].tolist() == [0, -3] and np.isnan(panel.values[1, 0])
    page = draw_html([panel], "mine")
    assert "layer \\ layer_resid" in page and "-3.000" in page
    assert draw_png([panel], "mine").startswith(b"\x89PNG")


@pytest.mark.parametrize(("battery", "count"), [(HEADS, 1), (TRIPLET, 0)])
def test_single_heads_are_drawn_by_layer_and_groups_are_not(battery, count):
    heads = rows(HEAD, {"layer": 1, "head": 2, "value": 1.0}) if count else rows(HEAD)
    found = panels_of(parse_battery(FILE, battery), heads, rows(SETS))
    assert [panel.values.shape for panel in found] == [(2, 3)] * count
