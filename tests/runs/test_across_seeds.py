"""Figures over seeds, and the run directory that holds them.

Run: pytest tests/runs/test_across_seeds.py"""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tests.synthetic_runs import compute, make_config, obtain, without_picture
from tinyablation.engine.tables import HEAD_IMPACT_COLUMNS, read_table
from tinyablation.errors import RunError
from tinyablation.files.manifests import check_manifest
from tinyablation.runs.across_seeds import (
    draw_clusters,
    head_impact_over_seeds,
    seed_summary,
    seeds_name,
    summarise_runs,
    write_seeds,
)
from tinyablation.runs.store import HEAD_IMPACT, SUMMARY, RunStore
from tinyablation.statistics.clusters import StatisticsError
from tinyablation.statistics.intervals import DegenerateInterval

PROPERTIES = settings(max_examples=40, deadline=None, derandomize=True, database=None)
SEEDS = (2, 0, 1)  # not in order, as a caller may give them
# Of the synthetic runs, whose entropy is .5 everywhere.
MOVED = ("logit_diff", "p_target")


# --- one figure ----------------------------------------------------------------------------------


@PROPERTIES
@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=8, unique=True))
def test_the_interval_is_student_t_over_seeds(values):
    if np.ptp(values) < 1e-6:
        return
    summary = seed_summary(dict(enumerate(values)))
    expected = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
    assert summary["ci95"] == pytest.approx(list(expected))
    assert summary["mean"] == pytest.approx(np.mean(values))
    assert summary["values"] == values
    assert summary["seeds"] == list(range(len(values)))
    json.dumps(summary, allow_nan=False)


def test_seeds_are_in_ascending_order_with_their_values():
    summary = seed_summary({7: 0.3, 0: 0.1, 3: 0.2})
    assert summary["seeds"] == [0, 3, 7]
    assert summary["values"] == [0.1, 0.2, 0.3]


def test_one_seed_has_no_interval_and_says_so():
    summary = seed_summary({4: 1.5})
    assert summary["ci95"] is None
    assert "at least 2" in summary["note"]


@pytest.mark.parametrize("value", [0.0, 0.1, -3.5])
def test_the_same_value_under_every_seed_means_that_the_seed_drew_nothing(value):
    with pytest.raises(DegenerateInterval, match="effect is .*the seed drew nothing") as caught:
        seed_summary({0: value, 1: value, 2: value + 1e-15 * value}, what="effect")
    assert caught.value.value == value


@pytest.mark.parametrize(
    ("values", "message"), [({}, "n = 0"), ({0: 1.0, 1: float("nan")}, "nan at")]
)
def test_seeds_that_carry_no_figure_are_refused(values, message):
    with pytest.raises(StatisticsError, match=message):
        seed_summary(values)


# --- drawing clusters ----------------------------------------------------------------------------


@PROPERTIES
@given(st.integers(0, 2**32), st.integers(4, 30), st.floats(0.5, 0.8), st.randoms())
def test_a_draw_keeps_clusters_whole_and_does_not_depend_on_the_order_of_rows(
    seed, k, share, shuffler
):
    clusters = [f"fact{i % k}" for i in range(3 * k)]
    mask = draw_clusters(clusters, share, seed)
    drawn = {name for name, kept in zip(clusters, mask, strict=True) if kept}
    assert len(drawn) == round(share * k)
    assert mask.tolist() == [name in drawn for name in clusters]
    order = list(range(len(clusters)))
    shuffler.shuffle(order)
    shuffled = draw_clusters([clusters[i] for i in order], share, seed)
    assert shuffled.tolist() == mask[order].tolist()


def test_seeds_draw_different_clusters_and_each_about_as_often():
    clusters = [f"fact{i}" for i in range(20)]
    masks = np.array([draw_clusters(clusters, 0.5, seed) for seed in range(400)])
    assert len({tuple(mask) for mask in masks}) > 390
    # Three standard errors of 400 draws, and a little for the largest of 20.
    assert np.abs(masks.mean(0) - 0.5).max() < 4 * 0.5 / np.sqrt(400)
    assert draw_clusters(clusters, 0.5, 3).tolist() == masks[3].tolist()


@pytest.mark.parametrize("share", [0.0, 1.0, 1.5, -0.5, 0.1, 0.99, float("nan")])
def test_a_share_that_draws_nothing_or_everything_is_refused(share):
    with pytest.raises(StatisticsError, match="share"):
        draw_clusters([f"fact{i}" for i in range(10)], share, 0)


def test_rows_without_a_cluster_cannot_be_drawn():
    with pytest.raises(StatisticsError, match="no cluster id"):
        draw_clusters(["a", None, "b", "c"], 0.5, 0)


# --- runs ----------------------------------------------------------------------------------------


def measured(seed):
    """An engine whose baseline the seed moves, as drawn examples would."""

    def rows(shard):
        found = compute(shard)
        shift = 0.01 * (seed + 1)
        logit_diff = found["logit_diff"] + shift
        return found.assign(
            logit_diff=logit_diff,
            target_logit=logit_diff,
            target_probability=1 / (1 + np.exp(-logit_diff)),
        )

    return rows


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    root = tmp_path_factory.mktemp("seeds")
    with pytest.MonkeyPatch.context() as patch:
        without_picture(patch)
        return [obtain(root, make_config(seed=seed), with_=measured(seed)) for seed in SEEDS]


@pytest.fixture
def store(tmp_path):
    return RunStore(tmp_path)


@pytest.fixture
def runs(originals, store):
    for run in originals:
        shutil.copytree(run.path, store.root / run.name)
    return [store.open(run.name) for run in originals]


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_summary_holds_every_run_s_mean_by_split(runs):
    summary = summarise_runs(runs, MOVED)
    assert summary["seeds"] == [0, 1, 2]
    by_seed = {run.config.seed: run for run in runs}
    assert summary["runs"] == [by_seed[seed].name for seed in (0, 1, 2)]
    assert set(summary["splits"]) == {"discovery", "confirmation"}
    for name in MOVED:
        means = [by_seed[seed].summary()[name]["mean"] for seed in (0, 1, 2)]
        assert summary[name]["values"] == means
        assert summary[name]["ci95"][0] < summary[name]["mean"] < summary[name]["ci95"][1]
        half = [by_seed[seed].summary()["splits"]["discovery"][name]["mean"] for seed in (0, 1, 2)]
        assert summary["splits"]["discovery"][name]["values"] == half
    assert summary["logit_diff"]["unit"] == "logits"
    assert summary["n"] == [12, 12, 12]
    assert "accuracy" not in summary


def test_a_metric_that_no_seed_moves_is_an_error_that_names_it(runs):
    with pytest.raises(DegenerateInterval, match=r"entropy \(all examples\) is 0.5 under all 3"):
        summarise_runs(runs, ["logit_diff", "entropy"])
    # All of them: the first that does not move is named.
    with pytest.raises(DegenerateInterval, match="rank"):
        summarise_runs(runs)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"condition": "logic", "seed": 5}, "condition"),
        ({"dtype": "float16", "seed": 5}, "dtype"),
        ({"weight_hash": "e" * 64, "device": "cuda", "seed": 5}, "device, weight_hash"),
        ({"seed": 1}, "seed 1 is given twice"),
    ],
)
def test_runs_that_differ_in_more_than_their_seed_are_refused(runs, changes, message):
    other = type(runs[0])(runs[0].path, make_config(**changes))
    for refusing in (summarise_runs, head_impact_over_seeds, seeds_name):
        with pytest.raises(RunError, match=message):
            refusing([*runs, other])


def test_no_runs_and_unknown_metrics_are_refused(runs):
    with pytest.raises(RunError, match="no run given"):
        summarise_runs([])
    with pytest.raises(RunError, match="no metric"):
        summarise_runs(runs, ["logit_dif"])
    with pytest.raises(RunError, match="no metric"):
        summarise_runs(runs, [])


def test_the_head_impact_of_all_seeds_stands_in_one_table(runs):
    impact = head_impact_over_seeds(runs)
    assert tuple(impact.columns) == HEAD_IMPACT_COLUMNS
    assert list(impact["seed"].unique()) == [0, 1, 2]
    for run in runs:
        part = impact[impact["run_id"] == run.name].reset_index(drop=True)
        pd.testing.assert_frame_equal(part, run.head_impact())


def test_the_directory_holds_both_and_its_manifest_comes_last(store, runs):
    folder = write_seeds(store, runs, MOVED)
    assert folder == store.root / seeds_name(runs, MOVED)
    assert folder.name.startswith("tiny-gpt2-h1-facts-seeds_")
    assert set(check_manifest(folder)["files"]) == {"config.json", SUMMARY, HEAD_IMPACT}
    assert json.loads((folder / SUMMARY).read_text()) == summarise_runs(runs, MOVED)
    table = read_table(folder / HEAD_IMPACT, HEAD_IMPACT_COLUMNS)
    pd.testing.assert_frame_equal(table, head_impact_over_seeds(runs))
    config = json.loads((folder / "config.json").read_text())
    assert {int(seed): child["run"] for seed, child in config["children"].items()} == {
        run.config.seed: run.name for run in runs
    }
    assert config["metrics"] == list(MOVED)


def test_a_second_call_in_any_order_changes_nothing(store, runs):
    folder = write_seeds(store, runs, MOVED)
    before = contents(folder)
    assert write_seeds(store, runs[::-1], MOVED) == folder
    assert contents(folder) == before


def test_other_seeds_or_metrics_have_another_address(runs):
    names = {
        seeds_name(runs, MOVED),
        seeds_name(runs[:2], MOVED),
        seeds_name(runs, ["logit_diff"]),
        seeds_name(runs),
    }
    assert len(names) == 4


@pytest.mark.parametrize("lost", [HEAD_IMPACT, SUMMARY, "manifest.json", "config.json", "."])
def test_it_is_rebuilt_from_single_runs_when_something_is_missing(store, runs, lost):
    folder = write_seeds(store, runs, MOVED)
    before = (folder / HEAD_IMPACT).read_bytes(), (folder / SUMMARY).read_bytes()
    path = folder / lost
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    assert write_seeds(store, runs, MOVED) == folder
    assert ((folder / HEAD_IMPACT).read_bytes(), (folder / SUMMARY).read_bytes()) == before
    check_manifest(folder)


def test_an_edited_file_is_refused_and_not_written_over(store, runs):
    folder = write_seeds(store, runs, MOVED)
    text = (folder / SUMMARY).read_text().replace("logits", "LOGITS")
    (folder / SUMMARY).write_text(text)
    with pytest.raises(RunError, match="summary.json"):
        write_seeds(store, runs, MOVED)
    assert (folder / SUMMARY).read_text() == text


def test_a_damaged_child_or_an_unmoved_metric_leaves_no_directory(store, runs):
    with pytest.raises(DegenerateInterval):
        write_seeds(store, runs)
    path = runs[0].path / HEAD_IMPACT
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(RunError, match="head_impact"):
        write_seeds(store, runs, MOVED)
    assert not any("-seeds_" in path.name and path.is_dir() for path in store.root.iterdir())
