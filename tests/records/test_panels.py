"""Panels: what is taken, what is refused, and that they come back from files as written.

Run: pytest tests/records/test_panels.py
"""

import numpy as np
import pytest
from pydantic import ValidationError

from tests.fake_sessions import fake_session, one_record
from tinyablation.records.panels import (
    MOST_SERIES,
    CurvePanel,
    ForestPanel,
    GridPanel,
    Series,
    TokensPanel,
)
from tinyablation.records.plain import RecordError
from tinyablation.records.records import Record, read_records, write_records

TOKENS = {"title": "t", "columns": {"top": [{"token": " a", "logit": 1.0}], "bottom": []}}
LINE = {"name": "a", "x": [0, 1], "y": [0.5, 0.25], "low": [0.4, 0.2], "high": [0.6, 0.3]}
CURVE = {"title": "c", "x": "layer", "y": "share", "series": [LINE]}


def record(*panels):
    return Record.model_validate(one_record().model_dump() | {"panels": list(panels)})


def test_kinds_are_told_by_their_kind():
    made = record(TOKENS | {"kind": "tokens"}, CURVE | {"kind": "curve"})
    assert isinstance(made.panels[0], TokensPanel) and isinstance(made.panels[1], CurvePanel)
    assert list(made.panels[0].columns) == ["top", "bottom"]
    same = record(TokensPanel(**TOKENS), CurvePanel(**CURVE))
    assert same == made, "models and mappings are the same"


@pytest.mark.parametrize("name", ["records.json", "records.parquet"])
def test_panels_come_back_as_written(tmp_path, name):
    made = record(TokensPanel(**TOKENS), CurvePanel(**CURVE))
    file = fake_session().model_copy(update={"records": [made]})
    write_records(file, tmp_path)
    assert read_records(tmp_path / name) == file


def test_numpy_becomes_plain():
    line = Series.of("a", np.arange(2), np.array([[0.5, 0.4, 0.6], [1.0, 0.9, 1.1]]))
    assert line.model_dump() == {
        "name": "a",
        "x": [0, 1],
        "y": [0.5, 1.0],
        "low": [0.4, 0.9],
        "high": [0.6, 1.1],
        "n": None,
    }
    assert all(type(value) is float for value in line.y)
    with pytest.raises(ValueError, match=r"give \(estimate, low, high\)"):
        Series.of("a", [0], [(1.0, 2.0)])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y": [1.0]}, "2 x and 1 y"),
        ({"low": [0.1]}, "2 x and 1 low"),
        ({"low": None}, "one end"),
        ({"low": [0.7, 0.2]}, "interval from 0.7 to 0.6"),
        ({"x": [], "y": [], "low": [], "high": []}, "at least 1 item"),
        ({"name": ""}, "at least 1 character"),
        ({"colour": "red"}, "Extra inputs"),
        ({"y": ["a", 1.0]}, "valid number"),
    ],
)
def test_a_wrong_series_is_refused(changes, message):
    with pytest.raises(ValidationError, match=message):
        Series(**LINE | changes)


@pytest.mark.parametrize(
    ("panel", "message"),
    [
        ({"kind": "curve"} | CURVE | {"series": []}, "at least 1 item"),
        ({"kind": "curve"} | CURVE | {"series": [LINE, LINE]}, "different names"),
        (
            {"kind": "curve"}
            | CURVE
            | {"series": [LINE | {"name": str(n)} for n in range(MOST_SERIES + 1)]},
            f"at most {MOST_SERIES}",
        ),
        ({"kind": "tokens"} | TOKENS | {"columns": {"top": []}}, "at least one token"),
        ({"kind": "tokens"} | TOKENS | {"columns": {}}, "at least 1 item"),
        ({"kind": "picture"}, "does not match any of the expected tags"),
        (TOKENS, "Unable to extract tag"),
    ],
)
def test_a_wrong_panel_is_refused(panel, message):
    with pytest.raises(ValidationError, match=message):
        record(panel)


def test_nan_is_refused_by_name():
    with pytest.raises(RecordError, match=r"y\[1\] is nan"):
        Series(**LINE | {"y": [0.5, float("nan")]})


# --- forest plots and grids --------------------------------------------------------------------

GRID = {"title": "g", "x": "head", "y": "layer", "columns": ["0", "1"], "rows": ["0"]}


@pytest.mark.parametrize("name", ["records.json", "records.parquet"])
def test_forests_and_grids_come_back_as_written(tmp_path, name):
    forest = ForestPanel.of("f", "share", {"0:2": (0.6, 0.5, 0.7), "sum": (0.4,)}, bound=0.6)
    made = record(forest, GridPanel(**GRID, values=[[0.5, None]]))
    file = fake_session().model_copy(update={"records": [made]})
    write_records(file, tmp_path)
    assert read_records(tmp_path / name) == file
    assert (forest.rows[1].low, forest.rows[0].high) == (None, 0.7)


def test_half_an_interval_is_refused():
    with pytest.raises(ValueError, match=r"give \(value,\) or"):
        ForestPanel.of("f", "share", {"a": (1.0, 2.0)})
    with pytest.raises(ValidationError, match="one end of its interval"):
        ForestPanel(title="f", unit="u", rows=[{"name": "a", "value": 1.0, "low": 0.5}])
    with pytest.raises(ValidationError, match=r"interval from 2\.0 to 1\.0"):
        ForestPanel.of("f", "share", {"a": (1.5, 2.0, 1.0)})


@pytest.mark.parametrize("values", [[], [[1.0]], [[1.0, 2.0, 3.0]], [[1.0, 2.0], [1.0, 2.0]]])
def test_a_grid_that_is_none_is_refused(values):
    with pytest.raises(ValidationError, match="1 rows and 2 columns"):
        GridPanel(**GRID, values=values)
