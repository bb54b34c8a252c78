"""Claims G, K, B and D, judged on made-up measurements: each can hold, and can fail.

Run: pytest tests/test_derived_claims.py
"""

import inspect
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas
import pytest

from claims.suppressors import test_binders as binders
from claims.suppressors import test_calibration as calibration
from claims.suppressors import test_geometry as geometry
from claims.suppressors import test_training as training
from tests import synthetic_sweeps
from tests.analysis.test_emergence import made_up
from tests.benches import bench_of
from tests.synthetic_effects import LEADER, NAMED, TRIO, make_coalitions, make_patches, noise
from tests.synthetic_sweeps import make_sweep
from tinyablation.analysis.coalitions import Coalitions
from tinyablation.analysis.emergence import emergence
from tinyablation.analysis.findings import Findings, MirroredPairs
from tinyablation.analysis.step_norms import ALL_STEPS, EARLY_STEPS, StepNorms
from tinyablation.analysis.sweeps import Sweep
from tinyablation.corpora.corpus_folder import adopt
from tinyablation.corpora.tokenizer_fingerprint import load_as_measured
from tinyablation.heads import Head
from tinyablation.interventions.interventions import AblateHeads
from tinyablation.models.loading import WeightsMissing
from tinyablation.plugin import derived_fixtures, head_fixtures, measurement_fixtures
from tinyablation.plugin.selection import read_docstring
from tinyablation.records.plain import plain
from tinyablation.verdicts.listener import hear

ROOT = Path(__file__).parent.parent


def judged(claim, *arguments):
    """The verdict; what else the claim records must be plain."""
    verdict, given = hear(claim, *arguments)
    plain({**verdict.details, **given["details"]}, "details")
    plain(list(given.get("panels", ())), "panels")
    assert given["runs"]
    return verdict


# --- G --------------------------------------------------------------------------------------------


def everywhere(change):
    """Coalitions of which every one changes entropy by as much."""
    made = make_coalitions({})
    ablated = made.table["method"] != "none"
    moved = np.resize(noise(0.05, 5), ablated.sum()) + change
    made.table.loc[ablated, "entropy"] = 2.0 + moved
    return made


def steps_of(coalitions, all_steps=None):
    """The same changes, of the step norm instead of the entropy; those over all steps besides."""
    whole = (all_steps or coalitions).table["entropy"]
    figures = {EARLY_STEPS: 5 * coalitions.table["entropy"], ALL_STEPS: whole}
    return StepNorms(
        coalitions.model,
        coalitions.condition,
        coalitions.table.assign(**figures).drop(columns=["entropy", "logit_diff"]),
        0.0,
        runs=coalitions.runs,
        spread={"examples": 24, "dimensions": 128},
    )


DECREASES = [
    (make_coalitions({}, entropy=-0.8), "supported"),
    (make_coalitions({}, entropy=-0.02), "present"),  # 1 % of the clean entropy
    (make_coalitions({}, entropy=0.8), "refuted"),
    (make_coalitions({}), "refuted"),
    (everywhere(-0.8), "inconclusive"),  # by as much as any other triple
]


@pytest.mark.parametrize(("measured", "status"), DECREASES)
def test_g_1_entropy_falls(measured, status):
    verdict = judged(geometry.test_zeroing_the_trio_lowers_entropy, measured, TRIO, NAMED)
    assert verdict.status == status, verdict.reason
    assert verdict.floor == pytest.approx(-0.1)
    assert verdict.unit == "nats"


@pytest.mark.parametrize(("measured", "status"), DECREASES)
def test_g_2_early_steps_shorten(measured, status):
    claim = geometry.test_zeroing_the_trio_lowers_early_step_norm
    verdict = judged(claim, steps_of(measured), TRIO, NAMED)
    assert verdict.status == status, verdict.reason
    assert verdict.floor == pytest.approx(-0.5)
    assert verdict.unit == "residual norm"


@pytest.mark.parametrize(
    "claim",
    [
        geometry.test_zeroing_the_trio_lowers_entropy,
        geometry.test_zeroing_the_trio_lowers_early_step_norm,
    ],
)
def test_g_p_can_be_small_and_one_rival_is_enough_to_leave_it_open(claim):
    """35 rivals: a share of them could not be below 1 / 36, and the rival below is one of them."""
    made = make_coalitions({}, entropy=-0.8)
    measured = made if claim is geometry.test_zeroing_the_trio_lowers_entropy else steps_of(made)
    verdict, given = hear(claim, measured, TRIO, NAMED)
    assert verdict.status == "supported" and verdict.p_value < 0.001
    assert given["details"]["triples compared"] == 35
    estimate, low, high = given["details"]["difference from it"]
    assert 0 < low < estimate < high
    rival = ((0, 1), (0, 3), (0, 4))
    own, other = AblateHeads(TRIO).label, AblateHeads(rival).label
    table = made.table.copy()
    moved = table.loc[table["intervention"] == own, "entropy"].to_numpy()
    table.loc[table["intervention"] == other, "entropy"] = moved
    same = replace(made, table=table, _cache={})
    measured = same if claim is geometry.test_zeroing_the_trio_lowers_entropy else steps_of(same)
    verdict, given = hear(claim, measured, TRIO, NAMED)
    assert verdict.status == "inconclusive", verdict.reason
    assert given["details"]["nearest other triple"] == "0:1 0:3 0:4"


def test_g_1_is_left_open_while_unmeasured_triples_may_do_as_well():
    made = make_coalitions({}, entropy=-0.8)
    rivals = made.rivals(TRIO, LEADER)
    few = {AblateHeads(each).label for each in rivals[:5]}
    dropped = {AblateHeads(each).label for each in rivals} - few
    sampled = replace(made, table=made.table[~made.table["intervention"].isin(dropped)], _cache={})
    claim = geometry.test_zeroing_the_trio_lowers_entropy
    verdict = judged(claim, sampled, TRIO, NAMED)
    assert verdict.status == "inconclusive" and "only 5 were measured" in verdict.reason


@pytest.mark.parametrize(
    ("early", "all_steps", "status"),
    [
        (make_coalitions({}, entropy=-0.8), everywhere(-0.8), "supported"),
        (make_coalitions({}, entropy=-0.8), make_coalitions({}, entropy=0.8), "supported"),
        (everywhere(-0.8), make_coalitions({}, entropy=-0.8), "inconclusive"),
    ],
)
def test_g_2_asks_for_the_first_steps_and_not_for_all(early, all_steps, status):
    claim = geometry.test_zeroing_the_trio_lowers_early_step_norm
    verdict = judged(claim, steps_of(early, all_steps), TRIO, NAMED)
    assert verdict.status == status, verdict.reason
    assert verdict.effect.estimate == pytest.approx(-4.0, abs=0.2)
    assert verdict.floor == pytest.approx(-0.5)


@pytest.mark.parametrize("column", ["entropy", "steps"])
def test_g_1_and_g_2_are_blocked_once_where_no_other_triple_leaves_the_leader_out(column):
    made = make_coalitions({}, entropy=-0.8)
    rivals = {AblateHeads(each).label for each in made.rivals(TRIO, LEADER)}
    alone = replace(made, table=made.table[~made.table["intervention"].isin(rivals)], _cache={})
    claim = geometry.test_zeroing_the_trio_lowers_entropy
    if column == "steps":
        claim, alone = geometry.test_zeroing_the_trio_lowers_early_step_norm, steps_of(alone)
    verdict = hear(claim, alone, TRIO, NAMED).verdict
    assert verdict.status == "blocked" and verdict.reason.startswith("too few heads")


@pytest.mark.parametrize(
    ("entropy", "status"),
    [(0.1, "supported"), (-0.1, "refuted"), (0.8, "refuted"), (0.0, "refuted")],
)
def test_g_3_entropy_rises_slightly(entropy, status):
    claim = geometry.test_zeroing_the_trio_raises_entropy_slightly
    verdict = judged(claim, make_coalitions({}, entropy=entropy), TRIO)
    assert verdict.status == status, verdict.reason


def test_g_3_any_rise_counts_and_a_tenth_is_the_most():
    made = make_coalitions({}, entropy=0.1)
    verdict, given = hear(geometry.test_zeroing_the_trio_raises_entropy_slightly, made, TRIO)
    assert verdict.floor == pytest.approx(1e-5 * 2.0) and verdict.unit == "nats"
    assert given["subject"] == "0:0 0:2 0:5" and given["details"]["clean entropy"] == 2.0
    assert list(given["details"]["each alone"]) == ["0:0", "0:2", "0:5"]
    for entropy, status in ((0.18, "supported"), (0.22, "refuted")):
        made = make_coalitions({}, entropy=entropy)
        claim = geometry.test_zeroing_the_trio_raises_entropy_slightly
        assert judged(claim, made, TRIO).status == status


@pytest.mark.parametrize("column", ["entropy", "steps"])
def test_g_1_and_g_2_one_of_35_triples_may_be_left_out_if_no_other_falls_as_far(column):
    made = make_coalitions({}, entropy=-0.8)
    left_out = AblateHeads(made.rivals(TRIO, LEADER)[0]).label
    rest = made.table[made.table["intervention"] != left_out]
    some = replace(made, table=rest, _cache={})
    if column == "entropy":
        verdict = judged(geometry.test_zeroing_the_trio_lowers_entropy, some, TRIO, NAMED)
    else:
        claim = geometry.test_zeroing_the_trio_lowers_early_step_norm
        verdict = judged(claim, steps_of(some), TRIO, NAMED)
    assert verdict.status == "supported", verdict.reason


def test_no_trio_can_lower_entropy_and_raise_it():
    for size in (-0.8, -0.1, 0.1, 0.8):
        made = make_coalitions({}, entropy=size)
        statuses = {
            judged(geometry.test_zeroing_the_trio_lowers_entropy, made, TRIO, NAMED).status,
            judged(geometry.test_zeroing_the_trio_raises_entropy_slightly, made, TRIO).status,
        }
        assert "refuted" in statuses


# --- K --------------------------------------------------------------------------------------------


def zeroed(clean_noise, ablated_noise, *, mean=2.0, ablated_scale=1.0, first=None):
    """Two answers, half of each first; LD of a mean, with noise of each side's own."""
    clusters, each = 60, 4
    n = clusters * each
    rng = np.random.default_rng(0)
    number = np.arange(n)
    yes = number % 2 == 0 if first is None else np.full(n, first)
    rows = pandas.DataFrame(
        {
            "example": number,
            "cluster_id": [f"fact{one}" for one in number // each],
            "split": np.where((number // each) % 2 == 0, "discovery", "confirmation"),
            "target": np.where(yes, " no", " yes"),
            "foil": np.where(yes, " yes", " no"),
        }
    )
    clean, ablated = (
        scale * (mean + size * rng.normal(size=n))
        for size, scale in ((clean_noise, 1.0), (ablated_noise, ablated_scale))
    )
    return with_ablated(rows, clean, ablated)


def with_ablated(rows, clean, ablated):
    label = AblateHeads(TRIO).label
    nothing = {"method": "none", "intervention": "baseline"}
    zeroing = {"method": "zero", "intervention": label}
    table = pandas.concat(
        [
            rows.assign(logit_diff=clean, heads="", **nothing),
            rows.assign(logit_diff=ablated, heads=label.split(":")[1], **zeroing),
        ],
        ignore_index=True,
    )
    return Coalitions("made-up", "facts", table, 1e-6, runs=("made-up-run",))


@pytest.mark.parametrize(
    ("measured", "status", "said"),
    [
        (zeroed(3.0, 0.3), "supported", "Brier"),
        (zeroed(0.3, 3.0, mean=0.8), "refuted", "Brier"),
        (zeroed(0.1, 3.0), "blocked", "no room"),
        (zeroed(3.0, 0.3, mean=-2.0), "blocked", "no better than a coin"),
        (zeroed(3.0, 0.3, first=True), "blocked", "whose target sorts first"),
    ],
)
def test_k_1_calibration(measured, status, said):
    claim = calibration.test_zeroing_the_trio_improves_calibration
    verdict = judged(claim, measured, TRIO)
    assert verdict.status == status, verdict.reason
    assert said in verdict.reason


def test_k_1_shows_the_figures_of_a_model_that_leaves_no_room():
    claim = calibration.test_zeroing_the_trio_improves_calibration
    verdict, given = hear(claim, zeroed(0.1, 3.0), TRIO)
    assert verdict.status == "blocked" and given["subject"] == "0:0 0:2 0:5"
    for name in ("ECE", "Brier", "NLL"):
        assert set(given["details"][name]) == {"clean", "ablated"}
    assert len(given["panels"]) == 1


def test_k_1_a_change_of_scale_is_no_improvement():
    """The published improvement could be one: logits twice as large, and nothing else."""
    measured = zeroed(3.0, 0.0)
    clean = measured.baseline()
    doubled = with_ablated(clean, clean["logit_diff"], 2 * clean["logit_diff"])
    claim = calibration.test_zeroing_the_trio_improves_calibration
    assert judged(claim, doubled, TRIO).status == "refuted"


# --- B --------------------------------------------------------------------------------------------


@pytest.fixture
def eight_layers(monkeypatch):
    monkeypatch.setattr(synthetic_sweeps, "LAYERS", 8)


def test_middle_and_late_layers():
    assert list(binders.middle_half(4)) == [1, 2]
    assert list(binders.middle_half(12)) == list(range(3, 9))
    assert list(binders.middle_half(24)) == list(range(6, 18))
    assert list(binders.last_quarter(24)) == list(range(18, 24))
    assert list(binders.last_quarter(12)) == [9, 10, 11]
    assert list(binders.last_quarter(4)) == [3] and list(binders.last_quarter(7)) == [6]
    for n_layers in range(1, 9):
        assert set(binders.middle_half(n_layers)) <= set(range(n_layers))
        assert len(binders.middle_half(n_layers)) and len(binders.last_quarter(n_layers))


@pytest.mark.parametrize(
    ("effects", "spread", "status"),
    [
        ({(4, 2): -1.0}, 0.2, "supported"),
        ({(4, 2): 1.0}, 0.05, "refuted"),
        ({}, 0.05, "refuted"),
        ({}, 0.4, "inconclusive"),  # some heads are not excluded
        ({(7, 2): -1.0}, 0.05, "refuted"),  # a head, but no middle one
        ({(1, 0): -1.0}, 0.05, "refuted"),
        ({(4, 2): -0.2}, 0.2, "present"),  # the floor
        ({(4, 2): -0.1}, 0.05, "present"),  # half of it
        ({(4, 2): -0.3}, 1.5, "inconclusive"),
    ],
)
def test_b_1_binder(eight_layers, effects, spread, status):
    verdict = judged(binders.test_a_middle_head_binds, make_sweep(effects, spread=spread))
    assert verdict.status == status, verdict.reason


def entropies(changes, spread=0.02):
    """A sweep whose heads change the entropy, of 1 nat, by these."""
    made = make_sweep({})
    rng = np.random.default_rng(1)
    table = made.table.copy()
    for head in made.heads:
        own = (table["layer"] == head[0]) & (table["head"] == head[1])
        drawn = changes.get(head, 0.0) + spread * rng.normal(size=own.sum())
        table.loc[own, "entropy"] = 1.0 + drawn
    return Sweep("made-up", "facts", table, noise_floor=1e-6, runs=made.runs)


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({(7, 1): 0.3}, "supported"),
        ({(6, 0): 0.3}, "supported"),
        ({(7, 1): -0.3}, "refuted"),
        ({}, "refuted"),
        ({(0, 1): 0.3}, "refuted"),  # a head, but no late one
        ({(7, 1): 0.08}, "supported"),  # the least published figure
        ({(7, 1): 0.02}, "present"),
        ({(7, 1): 0.05}, "present"),
    ],
)
def test_b_2_sharpener(eight_layers, changes, status):
    verdict = judged(binders.test_a_late_head_sharpens, entropies(changes))
    assert verdict.status == status, verdict.reason
    assert verdict.floor == pytest.approx(0.05)


def test_b_1_names_the_head_that_is_left(eight_layers):
    """Of those whose intervals reach below the ceiling the one that reaches farthest."""
    made = make_sweep({}, spread=0.03)
    table = made.table.copy()
    # None lowers LD; the last one reaches farthest up.
    for head, size, mean in (((3, 1), 2.0, 0.2), ((4, 2), 4.0, 0.2), ((5, 3), 4.0, 1.0)):
        own = (table["layer"] == head[0]) & (table["head"] == head[1])
        moved = np.repeat(size * np.resize([-1, -1, 1, 1], 24) + mean, 4)  # alike in both halves
        table.loc[own, "logit_diff"] += np.tile(moved, own.sum() // len(moved))
    wide = replace(made, table=table, _cache={})
    found = judged(binders.test_a_middle_head_binds, wide)
    assert found.status == "inconclusive" and "3 are not excluded" in found.reason
    assert "4:2 has the interval" in found.reason


def test_b_1_and_b_2_ask_about_the_heads_of_their_layers(eight_layers, monkeypatch):
    """Of a screened sweep those that were not measured are asked about, too: of these layers."""
    asked = []

    def for_some_head(self, verdict, each, bound, **options):
        asked.append(({head[0] for head in each}, bound, options))
        return verdict

    monkeypatch.setattr(Sweep, "for_some_head", for_some_head)
    binding, sharpening = make_sweep({}), entropies({})
    hear(binders.test_a_middle_head_binds, binding)
    hear(binders.test_a_late_head_sharpens, sharpening)
    (layers, ceiling, options), (last, floor, others) = asked
    assert layers == set(options["layers"]) == {2, 3, 4, 5} and options["split"] == "both"
    assert ceiling == -binding.floor("both") and options["alternative"] == "less"
    assert last == set(others["layers"]) == {6, 7} and others["split"] == "both"
    assert floor == binders.SHARPENS and others["column"] == "entropy"
    assert others.get("alternative", "greater") == "greater"


def test_b_2_is_left_open_by_wide_intervals(eight_layers):
    verdict = judged(binders.test_a_late_head_sharpens, entropies({(7, 1): 0.03}, spread=0.4))
    assert verdict.status == "inconclusive", verdict.reason


def test_b_2_asks_for_nats_whatever_the_clean_entropy_is(eight_layers):
    """6.4 nats, as published: .08 is 1.3 % of them, and counts."""
    made = entropies({(7, 1): 0.08})
    table = made.table.assign(entropy=made.table["entropy"] + 5.4)
    found = judged(binders.test_a_late_head_sharpens, replace(made, table=table, _cache={}))
    assert found.status == "supported" and found.floor == pytest.approx(0.05)


def test_b_1_and_b_2_say_what_was_searched_and_show_the_largest_first(eight_layers):
    made = entropies({(7, 1): 0.3, (6, 2): 0.2, (0, 1): 0.9})
    verdict, given = hear(binders.test_a_late_head_sharpens, made)
    assert verdict.unit == "nats" and given["subject"] == "7:1"
    assert given["details"]["layers searched"] == [6, 7]
    assert given["details"]["clean entropy"] == pytest.approx(1.0)
    effects = given["details"]["effects"]
    assert list(effects)[:2] == ["7:1", "6:2"] and "0:1" not in effects
    assert [len(figures) for figures in effects.values()] == [3] * 8
    lowering = make_sweep({(4, 2): -1.0, (3, 0): -0.5, (7, 1): -0.8})
    verdict, given = hear(binders.test_a_middle_head_binds, lowering)
    assert given["details"]["layers searched"] == [2, 5] and given["subject"] == "4:2"
    chosen = lowering.choose([(n, m) for n in range(2, 6) for m in range(4)], alternative="less")
    assert verdict.margin == lowering.margin_of(chosen, split="both", share=-0.05)
    assert verdict.effect == lowering.effect(chosen, split="both")
    assert verdict.floor == -lowering.floor("both")
    assert list(given["details"]["effects"])[:3] == ["4:2", "7:1", "3:0"]
    assert len(given["details"]["effects"]) == binders.SHOWN
    clean = lowering.baseline("both")["logit_diff"].mean()
    assert given["details"]["clean LD"] == pytest.approx(clean)
    assert given["largest"][-1]["delta"] < -0.8 and given["heatmap"] == lowering.heatmap()


# --- D --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("course", "status"),
    [
        (made_up(0.0, 0.1, 1.0, 1.5), "supported"),
        (made_up(0.0, 0.0, 0.0, 0.0), "refuted"),
        (made_up(1.5, 1.5, 1.5, 1.5), "refuted"),  # there from the start
        (made_up(1.5, 1.0, 0.5, 0.0), "refuted"),
        (made_up(0.0, 0.1, 0.1, 0.22), "present"),
        (made_up(0.0, 0.1, 0.1, 0.22, spread=1.0), "inconclusive"),
        (made_up(0.0, 1.5, clean=(0.02, 0.02)), "blocked"),  # never knows the answers
        (made_up(0.0, -1.5, clean=(0.02, 0.02)), "blocked"),
    ],
)
def test_d_1_emergence(course, status):
    verdict = judged(training.test_suppression_emerges_during_training, course)
    assert verdict.status == status, verdict.reason


def test_d_1_shows_intervals_by_step():
    made = made_up(0.0, 0.1, 1.0, 1.5)
    given = hear(training.test_suppression_emerges_during_training, made).given
    assert given["subject"]
    for course in (made, made_up(1.5, 1.2, 0.8, 0.5)):  # the rise is shown, whatever decides
        found = hear(training.test_suppression_emerges_during_training, course).verdict
        assert found.effect == emergence(course).change and found.floor == course.floors()[-1]
    details = given["details"]
    for name in ("LD by step", "Delta by step"):
        assert [len(figures) for figures in details[name].values()] == [3, 3, 3, 3]
        assert all(low <= estimate <= high for estimate, low, high in details[name].values())
    assert list(details["floor by step"].values()) == list(made.floors())


def test_d_1_a_rise_below_the_floor_is_a_rise_that_does_not_count():
    """.15 at first and .25 at last: under and above the floor of .2, but a rise of .1 only."""
    verdict = judged(
        training.test_suppression_emerges_during_training,
        made_up(0.15, 0.25, spread=0.01, n_clusters=40),
    )
    assert verdict.status == "present"
    assert "rise of Delta" in verdict.reason


@pytest.mark.parametrize(
    ("first", "last", "status"),
    [
        (0.3, 2.0, "refuted"),  # above the first floor of .2, though below the last of .5
        (0.1, 0.7, "supported"),
        (-0.3, 0.35, "present"),  # at the last step above the first floor, and below its own
        (0.15, 0.6, "present"),  # a rise of .45, below the last floor
        (0.15, 0.1, "refuted"),  # no rise
    ],
)
def test_d_1_holds_each_step_to_its_own_floor_and_the_rise_to_the_last(first, last, status):
    course = made_up(first, last, clean=(4.0, 10.0), spread=0.01, n_clusters=40)
    assert course.floors() == pytest.approx([0.2, 0.5], abs=0.01)
    verdict = judged(training.test_suppression_emerges_during_training, course)
    assert verdict.status == status, verdict.reason


# --- gates ----------------------------------------------------------------------------------------


class Blocked(Exception):
    pass


def judge(verdict, **_):
    assert verdict.status == "blocked"
    raise Blocked(verdict.reason)


def given(fixture, *arguments):
    return fixture.__wrapped__(*arguments)


def bench(store, model="tiny-gpt2", **options):
    return bench_of(model, store, **options)


SUBJECT = SimpleNamespace(suppressor=Head(0, 2), trio=tuple(Head(*head) for head in TRIO))


@pytest.mark.parametrize(
    ("fixture", "arguments"),
    [
        (measurement_fixtures.corrected, (judge,)),
        (derived_fixtures.corrected_sweep, ("facts", judge)),
        (derived_fixtures.binding, (judge,)),
    ],
)
def test_the_published_protocol_is_blocked(tmp_path, fixture, arguments):
    made = bench(tmp_path, protocol="published")
    with pytest.raises(Blocked, match="corrected protocol only"):
        given(
            fixture,
            made if fixture is measurement_fixtures.corrected else Findings(made),
            *arguments,
        )


@pytest.mark.parametrize(
    "fixture",
    [
        measurement_fixtures.paths,
        head_fixtures.ov,
        derived_fixtures.stepnorms,
        derived_fixtures.zeroed_trio,
        derived_fixtures.training,
    ],
)
def test_the_protocol_is_asked_for_before_heads_are_found(fixture):
    """Else a cell that is blocked would take a sweep."""
    assert next(iter(inspect.signature(fixture.__wrapped__).parameters)) == "corrected"


def test_heads_of_two_layers_or_none_and_a_pair_are_no_trio(tmp_path):
    made = bench(tmp_path)
    named = given(measurement_fixtures.named, made, SUBJECT, judge)
    assert given(derived_fixtures.trio, made, named, judge) == named == TRIO
    apart = (Head(1, 0), *SUBJECT.trio[1:])
    for heads in (apart, ()):
        with pytest.raises(Blocked, match="no two or three heads of one layer are"):
            given(measurement_fixtures.named, made, SimpleNamespace(trio=heads, pair=()), judge)
    with pytest.raises(Blocked, match="no three heads are named for .*, only 2"):
        given(derived_fixtures.trio, made, named[:2], judge)


def test_aligned_pairs_without_a_gap_or_with_mirrors_block_the_claim_and_hide_the_twin():
    sound = make_patches({}, {})
    table = sound.denoising.table
    near = table.assign(logit_diff=table["logit_diff"] + 8.5)
    alike = replace(sound, denoising=replace(sound.denoising, table=near, _cache={}), _cache={})

    def with_patches(found, invalid=None):
        gate = SimpleNamespace(reason_blocked=lambda _: invalid)
        made = SimpleNamespace(protocol="corrected", gate=gate)
        return SimpleNamespace(patches=lambda _: found, bench=made)

    def mirrored(_):
        raise MirroredPairs("facts: 100% of the pairs have their mirror")

    assert given(measurement_fixtures.patches, with_patches(sound), "facts", judge) is sound
    with pytest.raises(Blocked, match="on the aligned pairs of facts, discovery: the denomin"):
        given(measurement_fixtures.patches, with_patches(alike), "facts", judge)
    both_ways = SimpleNamespace(patches=mirrored, bench=with_patches(sound).bench)
    with pytest.raises(Blocked, match="100% of the pairs have their mirror"):
        given(measurement_fixtures.patches, both_ways, "facts", judge)
    twin = measurement_fixtures.twin_patches
    assert given(twin, with_patches(sound), "facts") is sound
    for nothing in (None, with_patches(sound, "not told apart"), with_patches(alike)):
        assert given(twin, nothing, "facts") is None


def test_no_binding_corpus_is_blocked(tmp_path):
    corpora = tmp_path / "corpora"
    shutil.copytree(ROOT / "corpora" / "knowledge", corpora / "knowledge")
    shutil.copytree(ROOT / "corpora" / "tiny", corpora / "tiny")
    for name in ("binding.jsonl", "binding.split.json", "manifest.json"):
        (corpora / "tiny" / name).unlink()
    tokenizer = ROOT / "fixtures" / "organisms" / "tiny-gpt2"
    adopt(corpora / "tiny", load_as_measured(tokenizer))
    with pytest.raises(Blocked, match="binding"):
        given(derived_fixtures.binding, Findings(bench(tmp_path / "store", corpora=corpora)), judge)


def test_a_model_that_does_not_bind_is_blocked_at_little_cost(tmp_path):
    made = bench(tmp_path, share=0.25)
    with pytest.raises(Blocked, match="tiny-gpt2 does not bind: "):
        given(derived_fixtures.binding, Findings(made), judge)
    measured = sorted(path.name.split("-binding")[0] for path in tmp_path.glob("tiny-*"))
    assert measured == ["tiny-gpt2-baseline", "tiny-gpt2-corrupt", "tiny-gpt2-null"]


def test_a_model_that_binds_is_swept(monkeypatch, tmp_path):
    made = bench(tmp_path)
    signs = {"baseline": 3.0, "corrupt": -3.0, "null": 0.1}

    def run(condition, battery):
        number = np.arange(64)
        frame = pandas.DataFrame(
            {
                "template_id": "plain",
                "cell": np.where(number % 2 == 0, "first", "second"),
                "cluster_id": [f"pair{one}" for one in number // 8],
                "target": np.where(number % 4 < 2, " car", " truck"),
                "foil": np.where(number % 4 < 2, " truck", " car"),
                "logit_diff": signs[battery] + 0.01 * (7 * number % 11),
                "target_rank": 0,
                "target_probability": 0.5,
            }
        )
        return SimpleNamespace(table=lambda: frame)

    monkeypatch.setattr(made, "run", run)
    found = Findings(made)
    monkeypatch.setattr(found, "sweep", lambda condition: f"sweep of {condition}")
    assert given(derived_fixtures.binding, found, judge) == "sweep of binding"


def test_a_model_without_checkpoints_is_blocked(tmp_path):
    with pytest.raises(Blocked, match="no checkpoints of tiny-llama"):
        given(derived_fixtures.checkpoints, bench(tmp_path, "tiny-llama"), judge)
    given(derived_fixtures.checkpoints, bench(tmp_path), judge)


def test_a_missing_checkpoint_is_left_to_what_judges_missing_models(tmp_path, monkeypatch):
    """tinyablation/plugin/availability.py makes it blocked, or failed under --require-models."""

    def missing(*_):
        raise WeightsMissing("step 30: no folder")

    monkeypatch.setattr("tinyablation.analysis.emergence.training_trajectory", missing)
    with pytest.raises(WeightsMissing, match="step 30: no folder"):
        given(derived_fixtures.training, None, None, bench(tmp_path), "facts", SUBJECT)


def test_the_zeroed_trio_is_measured_on_both_splits_and_read_again(tmp_path, monkeypatch):
    found = given(
        derived_fixtures.zeroed_trio, None, Findings(bench(tmp_path, share=0.2)), "facts", TRIO
    )
    clean, ablated = found.baseline(), found.rows(TRIO)
    for column in ("example", "split", "cluster_id", "target"):
        assert clean[column].tolist() == ablated[column].tolist()
    assert set(clean["split"]) == {"discovery", "confirmation"}
    assert set(ablated["heads"]) == {"0.0+0.2+0.5"}
    assert clean.groupby("cluster_id").size().max() <= 2
    monkeypatch.setattr("tinyablation.models.loading.load_model", None)
    again = given(
        derived_fixtures.zeroed_trio, None, Findings(bench(tmp_path, share=0.2)), "facts", TRIO
    )
    assert again.rows(TRIO).equals(ablated)


@pytest.mark.parametrize(
    "claim",
    [
        geometry.test_zeroing_the_trio_lowers_entropy,
        geometry.test_zeroing_the_trio_lowers_early_step_norm,
    ],
)
def test_g_a_triple_with_the_leader_may_do_more_as_the_sentences_allow(claim):
    """It has the leader's own effect, so that it is no rival; the claims say so themselves."""
    made = make_coalitions({}, entropy=-0.8)
    (beside, *_) = [heads for heads in made.of_size(3) if LEADER in heads and heads != TRIO]
    table = made.table.copy()
    table.loc[table["intervention"] == AblateHeads(beside).label, "entropy"] -= 1.5
    more = replace(made, table=table, _cache={})
    assert more.mean(beside, column="entropy") < more.mean(TRIO, column="entropy")
    measured = more if claim is geometry.test_zeroing_the_trio_lowers_entropy else steps_of(more)
    assert judged(claim, measured, TRIO, NAMED).status == "supported"
    said = read_docstring(claim.__doc__).statement
    assert said.endswith("more than triples without their leader.")
