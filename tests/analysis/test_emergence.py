"""Trajectories: what counts as emerging, on made-up tables; one real trajectory over some prompts.

Run: pytest tests/analysis/test_emergence.py
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.benches import bench_of
from tests.small_corpora import put_corpora
from tests.synthetic_sweeps import make_sweep
from tinyablation.analysis.effects import EffectsError
from tinyablation.analysis.emergence import (
    TrainingTrajectory,
    TrajectoryError,
    emergence,
    training_trajectory,
)
from tinyablation.models.loading import WeightsMissing
from tinyablation.runs.store import RunStore

ROOT = Path(__file__).parents[2]
HEAD = (0, 2)
STEPS = (0, 30, 60, 120)


def made_up(
    *deltas: float, clean: tuple[float, ...] = (), spread: float = 0.1, **options
) -> TrainingTrajectory:
    """A trajectory whose head has these mean Delta LD; clean LD 4: a floor of .2, by default."""
    lds = clean or (4.0,) * len(deltas)
    sweeps = []
    for number, (delta, ld) in enumerate(zip(deltas, lds, strict=True)):
        sweep = make_sweep({HEAD: delta}, clean_ld=ld, spread=spread, seed=number, **options)
        # What examples have besides, so that steps can be paired.
        names = sweep.table["cluster_id"]
        table = sweep.table.assign(fact_id=names, template_id="plain")
        sweeps.append(replace(sweep, model=f"made-up-step{number:04d}", table=table))
    return TrainingTrajectory("made-up", "facts", HEAD, STEPS[: len(deltas)], tuple(sweeps))


# --- made-up tables -------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["discovery", "confirmation"])
def test_a_head_that_becomes_a_suppressor_emerges(split):
    found = emergence(made_up(0.0, 0.1, 1.0, 1.5), split=split)
    assert found.verdict.status == "supported", found.verdict.reason
    assert found.first_above == 60
    assert found.change.estimate == pytest.approx(1.5, abs=0.2)
    assert found.verdict.effect == found.change
    assert found.verdict.p_value < 0.001  # of all three parts, each in the direction that it asks
    assert found.trend.rho == pytest.approx(1.0)
    assert found.trend.p == pytest.approx(1 / 24)  # exact: one order of 4! is as good


def test_a_head_that_never_suppresses_does_not_emerge():
    found = emergence(made_up(0.0, 0.0, 0.0, 0.0))
    assert found.verdict.status == "refuted"
    assert found.first_above is None
    assert "at step 120" in found.verdict.reason


def test_a_suppressor_from_the_start_does_not_emerge():
    """However much stronger it becomes."""
    found = emergence(made_up(0.6, 1.0, 2.0, 3.0))
    assert found.verdict.status == "refuted"
    assert found.first_above == 0
    assert "at step 0: 0." in found.verdict.reason
    assert found.change.low > 1.5


def test_a_suppressor_that_fades_does_not_emerge():
    found = emergence(made_up(1.5, 0.5, 0.0))
    assert found.verdict.status == "refuted"
    assert found.change.high < 0
    assert found.trend.rho == pytest.approx(-1.0)


def test_one_that_comes_and_goes_does_not_emerge():
    found = emergence(made_up(0.0, 1.5, 0.0))
    assert found.verdict.status == "refuted"
    assert found.first_above == 30


def test_an_effect_at_its_floor_leaves_open_whether_it_counts():
    assert emergence(made_up(0.0, 0.2)).verdict.status == "present"
    assert emergence(made_up(0.2, 1.5)).verdict.status == "inconclusive"


def test_a_constant_effect_under_a_falling_floor_does_not_emerge():
    """Floors .5 and .1: Delta .3 lies below the first and above the last, and never changed."""
    steady = made_up(0.3, 0.3, clean=(10.0, 2.0))
    first, last = steady.delta()
    assert first.high < steady.floors()[0] and last.low > steady.floors()[1]
    assert emergence(steady).verdict.status != "supported"


def test_a_model_that_knows_nothing_yet_has_no_suppressor():
    """Step 0 shifts all logits by .1 at a clean LD of .02: far above 5 % of that, and nothing."""
    untrained = made_up(0.1, 1.5, clean=(0.02, 4.0), spread=0.05)
    assert untrained.knows() == [False, True]
    assert untrained.sweeps[0].floor() < untrained.delta()[0].low
    assert untrained.floors()[0] == untrained.floors()[1]
    found = emergence(untrained)
    assert found.verdict.status == "supported", found.verdict.reason
    assert found.first_above == 30


def test_a_model_that_never_knows_is_not_judged():
    found = emergence(made_up(0.0, 1.5, clean=(0.02, 0.02)))
    assert found.verdict.status == "blocked"
    assert "at step 30" in found.verdict.reason
    assert found.change.low > 1  # still there to be shown


def test_few_wrong_answers_do_not_block_while_the_share_may_lie_above_the_floor():
    """21 of 24 clusters right: .875, which may be chance."""
    made = made_up(0.0, 1.5)
    table = made.sweeps[1].table.copy()
    wrong = table["cluster_id"].isin(["fact3", "fact4", "fact5"])
    table.loc[wrong & (table["intervention"] == "baseline"), "logit_diff"] = -0.1
    found = replace(made, sweeps=(made.sweeps[0], replace(made.sweeps[1], table=table)))
    assert found.knows() == [True, False]
    assert emergence(found).verdict.status != "blocked"


def test_one_kind_of_prompt_that_is_answered_wrongly_blocks():
    """A quarter of the prompts, those of one cell: .75 in all, 0 of the cell."""
    made = made_up(0.0, 1.5)
    sweeps = []
    for sweep in made.sweeps:
        table = sweep.table.assign(cell=np.array(list("abcd"))[sweep.table["example"] % 4])
        wrong = (table["cell"] == "d") & (table["intervention"] == "baseline")
        table.loc[wrong, "logit_diff"] = -0.1
        sweeps.append(replace(sweep, table=table))
    found = emergence(replace(made, sweeps=tuple(sweeps))).verdict
    assert found.status == "blocked" and "d: two-way accuracy: 0" in found.reason


def test_change_is_paired_by_example():
    """The same effects at both steps: the change is exactly nothing, however they vary."""
    one = made_up(1.0, 2.0)
    same = replace(one, sweeps=(one.sweeps[0], one.sweeps[0]))
    assert emergence(same).change[:3] == (0.0, 0.0, 0.0)


def test_other_examples_are_not_paired():
    one = made_up(0.0, 1.0)
    other = made_up(0.0, 1.0, n_clusters=20)
    with pytest.raises(EffectsError, match="not the same examples"):
        emergence(replace(one, sweeps=(one.sweeps[0], other.sweeps[1])))


def test_no_trend_of_two_points():
    assert emergence(made_up(0.0, 1.5)).trend is None


def test_no_trend_where_nothing_happens():
    one = made_up(0.5, 0.5, 0.5)
    assert emergence(replace(one, sweeps=one.sweeps[:1] * 3)).trend is None


def test_the_panel_is_plain():
    one = made_up(0.0, 0.5, 1.5)
    panel = one.panel("discovery")
    assert json.loads(json.dumps(panel)) == panel
    assert panel["steps"] == [0, 30, 60]
    assert all(low < estimate < high for estimate, low, high in panel["clean"] + panel["delta"])
    assert panel["clean"][0][0] == pytest.approx(4.0, abs=0.3)
    assert panel["floor"] == pytest.approx([0.05 * estimate for estimate, *_ in panel["clean"]])
    assert panel["knows"] == [True, True, True]
    assert emergence(one, split="discovery").verdict.details["course"] == panel


def test_splits_are_kept_apart():
    """P13: what is read on discovery does not move with the confirmation rows."""
    one = made_up(0.0, 1.5)
    table = one.sweeps[1].table.copy()
    table.loc[table["split"] == "confirmation", "logit_diff"] += 50
    moved = replace(one, sweeps=(one.sweeps[0], replace(one.sweeps[1], table=table, _cache={})))
    assert moved.panel("discovery") == one.panel("discovery")
    assert moved.panel() != one.panel()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": (0,)}, "1 steps and 2 measurements"),
        ({"steps": (30, 0)}, "not in increasing order"),
        ({"steps": (30, 30)}, "not in increasing order"),
        ({"head": (5, 0)}, "step 0: facts without head 5:0"),
        ({"condition": "logic"}, "logic with that head"),
    ],
)
def test_what_is_no_course_is_refused(change, message):
    with pytest.raises(TrajectoryError, match=message):
        replace(made_up(0.0, 1.0), **change)


# --- a real trajectory ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def corpora(tmp_path_factory) -> Path:
    """A few facts of the embedded tokenizer, both splits."""
    return put_corpora(tmp_path_factory.mktemp("corpora"), rows=(24, 24))


@pytest.fixture(scope="module")
def real(corpora, tmp_path_factory):
    store = tmp_path_factory.mktemp("store")
    return {
        model: training_trajectory(bench_of(model, store, corpora), (0, 7), "facts")
        for model in ("tiny-gpt2", "tiny-gpt2-plain")
    }, store


@pytest.mark.slow
@pytest.mark.slow
def test_the_planted_head_emerges_and_the_control_does_not(real):
    courses, _ = real
    planted, control = (emergence(found, split="discovery") for found in courses.values())
    assert planted.verdict.status == "supported", planted.verdict.reason
    assert planted.first_above in STEPS[1:]
    assert control.verdict.status != "supported", control.verdict.reason


@pytest.mark.slow
def test_every_checkpoint_is_a_run_of_its_own(real):
    courses, store = real
    found = courses["tiny-gpt2"]
    assert found.steps == STEPS
    names = [name.split("-head-0.7-facts_")[0] for name in found.runs]
    assert names == [f"tiny-gpt2-step{step:04d}" for step in STEPS]
    configs = [RunStore(store).open(name).config for name in found.runs]
    assert len({config.weight_hash for config in configs}) == len(STEPS)
    own = {"model", "weight_hash"}
    assert len({config.model_dump_json(exclude=own) for config in configs}) == 1


@pytest.mark.slow
def test_both_courses_begin_with_the_same_figures(real):
    """Step 0 of either is the sham twin."""
    courses, _ = real
    planted, control = (found.deltas("discovery")[0] for found in courses.values())
    assert planted.tolist() == control.tolist()


@pytest.mark.slow
def test_a_measured_course_is_read_without_a_model(real, corpora, monkeypatch):
    courses, store = real
    monkeypatch.setattr("tinyablation.models.loading.load_model", None)
    again = training_trajectory(bench_of("tiny-gpt2", store, corpora), (0, 7), "facts")
    assert again.panel() == courses["tiny-gpt2"].panel()


def test_a_model_without_checkpoints_has_no_trajectory(corpora, tmp_path):
    with pytest.raises(TrajectoryError, match="'tiny-llama' has no checkpoints"):
        training_trajectory(bench_of("tiny-llama", tmp_path, corpora), (0, 0), "facts")


def test_a_missing_checkpoint_is_said(corpora, tmp_path):
    made = bench_of("tiny-gpt2", tmp_path, corpora)
    first, *others = made.entry.checkpoints
    gone = first.model_copy(update={"source": tmp_path / "nowhere"})
    made.entry = made.entry.model_copy(update={"checkpoints": (gone, *others)})
    with pytest.raises(WeightsMissing, match="'tiny-gpt2-step0000': no folder"):
        training_trajectory(made, (0, 7), "facts")
