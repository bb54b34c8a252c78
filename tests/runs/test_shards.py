"""Run: pytest tests/runs/test_shards.py"""

import json

import pytest

from tests.synthetic_runs import (
    KEYS,
    N_EXAMPLES,
    SHARDS,
    Counting,
    baseline_rows,
    compute,
    make_config,
    make_examples,
    obtain,
    verify,
    without_picture,
)
from tinyablation.errors import RunError
from tinyablation.interventions.batteries import Shard
from tinyablation.runs.shards import BASELINE_TOLERANCE, Plan, ShardFolder
from tinyablation.runs.store import RunStore


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch):
    without_picture(monkeypatch)


def plan_of(*shards: Shard) -> Plan:
    return Plan(shards, N_EXAMPLES, "0" * 64)


def broken(key, change):
    """`compute`, with the rows of one shard changed."""

    def computing(shard):
        rows = compute(shard)
        return change(rows) if shard.key == key else rows

    return computing


def test_a_plan_begins_with_the_baseline():
    with pytest.raises(RunError, match="first shard"):
        plan_of(*SHARDS[1:])
    with pytest.raises(RunError, match="first shard"):
        plan_of()
    with pytest.raises(RunError, match="first shard"):
        plan_of(Shard("baseline", SHARDS[1].interventions))


def test_equal_interventions_are_one_measurement():
    with pytest.raises(RunError, match=r"zero:0\.0 is in shards 'L00' and 'again'"):
        plan_of(*SHARDS, Shard("again", SHARDS[1].interventions[:1]))


@pytest.mark.parametrize("key", ["../x", "a/b", "", "..", "a b"])
def test_shard_keys_are_file_names(key):
    with pytest.raises(RunError, match="shard key"):
        plan_of(SHARDS[0], Shard(key, SHARDS[1].interventions))


def test_an_empty_shard_or_a_key_used_twice_is_refused():
    with pytest.raises(RunError, match="no interventions"):
        plan_of(SHARDS[0], Shard("empty", ()))
    with pytest.raises(RunError, match="must differ"):
        plan_of(SHARDS[0], SHARDS[1], SHARDS[1])


@pytest.mark.parametrize(("seconds", "syncs"), [(0.999, 0), (1.0, 4)])
def test_a_shard_worth_a_second_is_on_disk_before_the_next(tmp_path, monkeypatch, seconds, syncs):
    synced = []
    monkeypatch.setattr("tinyablation.files.manifests.os.fsync", synced.append)
    work = ShardFolder(tmp_path, plan_of(*SHARDS), "float32")
    work.add(SHARDS[0], compute(SHARDS[0]), seconds)
    assert len(synced) == syncs, "two files and, for each, the folder"
    assert work.recover() == ["baseline"]


def test_baseline_rows_beside_interventions_are_dropped(tmp_path):
    table = obtain(tmp_path).table()
    assert (table["intervention"] == "baseline").sum() == N_EXAMPLES


def test_rows_without_a_baseline_of_their_own_are_the_same_run(tmp_path):
    def bare(shard):
        rows = compute(shard)
        return rows if shard.key == "baseline" else rows[rows["intervention"] != "baseline"]

    assert obtain(tmp_path / "a", with_=bare).table().equals(obtain(tmp_path / "b").table())


@pytest.mark.parametrize(("factor", "accepted"), [(0.5, True), (2.0, False)])
def test_a_baseline_that_moved_between_shards_is_refused(tmp_path, factor, accepted):
    def moved(rows):
        own = rows["intervention"] == "baseline"
        step = BASELINE_TOLERANCE["float32"] * factor
        return rows.assign(logit_diff=rows["logit_diff"] + own * step)

    if accepted:
        obtain(tmp_path, with_=broken(KEYS[2], moved))
        return
    with pytest.raises(RunError, match=f"shard {KEYS[2]}: its baseline differs"):
        obtain(tmp_path, with_=broken(KEYS[2], moved))


def test_a_single_example_of_the_baseline_that_moved_is_refused(tmp_path):
    """A mean over the examples would not show it."""
    step = 2 * BASELINE_TOLERANCE["float32"]

    def moved(rows):
        own = (rows["intervention"] == "baseline") & (rows["example"] == 7)
        return rows.assign(logit_diff=rows["logit_diff"] + own * step)

    assert step / N_EXAMPLES < BASELINE_TOLERANCE["float32"]
    with pytest.raises(RunError, match=rf"differs .* by {step:.3g} logits \(example 7; at most"):
        obtain(tmp_path, with_=broken(KEYS[2], moved))


def test_the_address_of_a_shard_is_of_its_run_its_interventions_and_the_examples():
    shard, plan = SHARDS[1], plan_of(*SHARDS)
    assert plan.address("a-run", shard) == plan_of(*SHARDS[:2]).address("a-run", shard)
    renamed, shorter = Shard("x", shard.interventions), Shard(shard.key, shard.interventions[:1])
    addresses = [
        plan.address("a-run", shard),
        plan.address("another-run", shard),
        plan.address("a-run", renamed),
        plan.address("a-run", shorter),
        Plan(tuple(SHARDS), N_EXAMPLES + 1, "0" * 64).address("a-run", shard),
        Plan(tuple(SHARDS), N_EXAMPLES, "1" * 64).address("a-run", shard),
    ]
    assert len(set(addresses)) == len(addresses)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("column", ["logit_diff", "kl", "entropy"])
def test_non_finite_figures_are_refused_by_name(tmp_path, column, value):
    def poisoned(rows):
        rows.loc[rows.index[-1], column] = value
        return rows

    match = rf"shard L01: {column} is .* for mean:1\.2, example {N_EXAMPLES - 1}"
    with pytest.raises(RunError, match=match):
        obtain(tmp_path, with_=broken("L01", poisoned))
    assert RunStore(tmp_path).status(make_config()) == "partial"


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda rows: rows.iloc[:-1], "rows for"),
        (lambda rows: rows[rows["head"] != 1], r"missing \['mean:1.1', 'zero:1.1'\]"),
        (lambda rows: rows.replace({"intervention": {"zero:1.1": "x"}}), "unasked"),
        (lambda rows: rows.replace({"example": {5: 4}}), "occurs twice"),
        (lambda rows: rows.replace({"example": {5: 99}}), "rows for"),
        (lambda rows: rows.drop(columns="kl"), "kl"),
        (lambda rows: rows.assign(extra=1), "extra"),
        (lambda rows: rows.assign(argmax=rows["argmax"] + 0.5), "not integer"),
        (lambda rows: rows.astype({"kl": "float32"}), "not float64"),
    ],
    ids=[
        "short",
        "head-missing",
        "unasked",
        "twice",
        "example-99",
        "no-kl",
        "extra",
        "fraction",
        "float32",
    ],
)
def test_rows_that_were_not_asked_for_are_refused(tmp_path, change, match):
    def bare(rows):
        return change(rows[rows["intervention"] != "baseline"].reset_index(drop=True))

    with pytest.raises(RunError, match=match):
        obtain(tmp_path, with_=broken("L01", bare))


def test_a_baseline_shard_with_other_rows_is_refused(tmp_path):
    with pytest.raises(RunError, match="unasked"):
        obtain(tmp_path, with_=lambda shard: compute(SHARDS[1]))
    with pytest.raises(RunError, match="rows for"):
        obtain(tmp_path / "short", with_=lambda shard: baseline_rows(N_EXAMPLES - 1))


def test_a_shard_of_another_size_is_not_trusted(tmp_path):
    # as when a battery kept its labels but a sidecar was copied from a run over fewer examples
    with pytest.raises(RunError, match="indexed"):
        RunStore(tmp_path).obtain(
            make_config(), SHARDS, compute, make_examples().iloc[1:], verify=verify
        )


@pytest.mark.parametrize(
    "fields",
    [
        {"seconds": "x"},
        {"seconds": None},
        {"seconds": 10**400},
        {"devices": "cpu"},
        {"devices": [1]},
        {"baseline": {"logit_diff": [0.0], "largest": 1.0}},
        {"baseline": None},
        {"rows": "many"},
    ],
)
def test_a_sidecar_with_a_field_that_cannot_be_used_is_computed_again(tmp_path, fields):
    def cut(shard):
        if shard.key == KEYS[-1]:
            raise KeyboardInterrupt
        return compute(shard)

    with pytest.raises(KeyboardInterrupt):
        obtain(tmp_path, with_=cut)
    path = tmp_path / make_config().name / "shards" / f"{KEYS[1]}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    counting = Counting()
    assert obtain(tmp_path, with_=counting).table().shape == obtain(tmp_path / "b").table().shape
    assert counting.keys == [KEYS[1], KEYS[-1]]


@pytest.mark.parametrize("computing", [[], "x", {"L01": 1}, {"L01": {"process": "x"}}, None])
def test_notes_that_name_nobody_are_written_anew(tmp_path, computing):
    def cut(shard):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        obtain(tmp_path, with_=cut)
    path = tmp_path / make_config().name / "partial_summary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"computing": computing}))
    assert obtain(tmp_path).table().shape[0]
