"""Run: pytest tests/runs/test_across_conditions.py"""

import json
import shutil

import pandas as pd
import pytest

from tests.synthetic_runs import compute, make_config, obtain, without_picture
from tinyablation.engine.tables import HEAD_MATRIX_COLUMNS
from tinyablation.errors import RunError
from tinyablation.runs.across_conditions import (
    HEAD_MATRIX,
    ordered,
    write_cross_condition,
)
from tinyablation.runs.address import parent_name
from tinyablation.runs.store import HEAD_IMPACT, RunStore


@pytest.fixture
def store(tmp_path):
    return RunStore(tmp_path)


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    root = tmp_path_factory.mktemp("children")
    return {name: obtain(root, make_config(condition=name)) for name in ("logic", "facts")}


@pytest.fixture
def children(originals, store, monkeypatch):
    without_picture(monkeypatch)
    for run in originals.values():
        shutil.copytree(run.path, store.root / run.name)
    return {name: store.open(run.name) for name, run in originals.items()}


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_matrix_is_the_children_with_their_condition(store, children):
    folder = write_cross_condition(store, children)
    assert folder.name == parent_name({name: run.config for name, run in children.items()})
    matrix = pd.read_parquet(folder / HEAD_MATRIX)
    assert tuple(matrix.columns) == HEAD_MATRIX_COLUMNS
    assert list(matrix["condition"].unique()) == ["facts", "logic"]
    for name, run in children.items():
        part = matrix[matrix["condition"] == name].drop(columns="condition")
        pd.testing.assert_frame_equal(part.reset_index(drop=True), run.head_impact())
    config = json.loads((folder / "config.json").read_text())
    assert {name: child["run"] for name, child in config["children"].items()} == {
        name: run.name for name, run in children.items()
    }


def test_a_second_call_in_any_order_changes_nothing(store, children):
    folder = write_cross_condition(store, children)
    before = contents(folder)
    assert write_cross_condition(store, dict(reversed(children.items()))) == folder
    assert contents(folder) == before


@pytest.mark.parametrize("lost", [HEAD_MATRIX, "manifest.json", "config.json", "."])
def test_it_is_rebuilt_from_single_runs_when_something_is_missing(store, children, lost):
    folder = write_cross_condition(store, children)
    before = (folder / HEAD_MATRIX).read_bytes()
    path = folder / lost
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    assert write_cross_condition(store, children) == folder
    assert (folder / HEAD_MATRIX).read_bytes() == before


def test_an_edited_matrix_is_refused(store, children):
    folder = write_cross_condition(store, children)
    matrix = pd.read_parquet(folder / HEAD_MATRIX)
    matrix.assign(value=0.0).to_parquet(folder / HEAD_MATRIX)
    with pytest.raises(RunError, match="head_matrix.*--remeasure"):
        write_cross_condition(store, children)
    assert write_cross_condition(RunStore(store.root, remeasure=True), children) == folder
    assert pd.read_parquet(folder / HEAD_MATRIX).equals(matrix)
    assert len(list((store.root / ".set-aside").iterdir())) == 1


def test_a_child_measured_anew_is_taken_over(store, children, tmp_path):
    folder = write_cross_condition(store, children)

    def shifted(shard):
        rows = compute(shard)
        return rows.assign(logit_diff=rows["logit_diff"] + (rows["head"] == 1))

    shutil.rmtree(children["facts"].path)
    children["facts"] = obtain(tmp_path, make_config(), with_=shifted)
    assert write_cross_condition(store, children) == folder
    matrix = (
        pd.read_parquet(folder / HEAD_MATRIX)
        .query("condition == 'facts'")
        .drop(columns="condition")
    )
    pd.testing.assert_frame_equal(
        matrix.reset_index(drop=True),
        children["facts"].head_impact().reset_index(drop=True),
    )


def test_a_damaged_child_is_refused_and_no_matrix_written(store, children):
    path = children["logic"].path / HEAD_IMPACT
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(RunError, match="head_impact"):
        write_cross_condition(store, children)
    assert not any("h1_" in path.name and path.is_dir() for path in store.root.iterdir())


def test_children_of_different_seeds_are_refused(store, children, tmp_path):
    children["facts"] = obtain(tmp_path, make_config(seed=1))
    with pytest.raises(RunError, match="seed"):
        write_cross_condition(store, children)


def test_conditions_are_in_the_order_of_the_study():
    assert ordered(["zeta", "logic", "facts", "alpha"]) == [
        "facts",
        "logic",
        "alpha",
        "zeta",
    ]
