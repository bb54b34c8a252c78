"""Noise by its kinds; effects below it are inconclusive, in every claim that compares one.

Run: pytest tests/measurement/test_noise.py
"""

from dataclasses import replace
from inspect import signature
from types import SimpleNamespace

import numpy as np
import pytest

from claims.suppressors import test_binders as binders
from claims.suppressors import test_geometry as geometry
from claims.suppressors import test_h1_suppressors as h1
from claims.suppressors import test_h5_coalitions as h5
from claims.suppressors import test_h6_patching as h6
from claims.suppressors import test_steering as steering
from claims.suppressors import test_training as training
from claims.suppressors import test_validity as validity
from tests.analysis import test_steering as made_up_steering
from tests.analysis.test_emergence import made_up as made_up_course
from tests.synthetic_effects import (
    LAYERS,
    LEADER,
    NAMED,
    TRIO,
    make_coalitions,
    make_patches,
    make_paths,
)
from tests.synthetic_sweeps import make_sweep
from tests.test_claims_can_fail import tables
from tinyablation.measurement.noise import noise_rows, spread
from tinyablation.measurement.validity import condition_validity
from tinyablation.plugin.head_fixtures import Steered
from tinyablation.records.trust import NoiseRow
from tinyablation.statistics.ratios import RatioUndefined
from tinyablation.verdicts.floors import Noise
from tinyablation.verdicts.listener import hear
from tinyablation.verdicts.subjects import Subject

OF_FOUR = Subject(
    suppressor="0:2", trio=["0:2", "0:0", "0:1"], source="planted"
)  # in made-up sweeps
COARSE = Noise(3.0, "cuda in bfloat16")  # more than any effect planted below, and than 5 % of LD
PLANTED, NOTHING = {LEADER: 1.0}, {}


def noisy(measured, noise=COARSE):
    """The same measurement, as a coarser device would have made it."""
    if hasattr(measured, "denoising"):  # patches in both directions
        directions = {
            name: noisy(getattr(measured, name), noise) for name in ("denoising", "noising")
        }
        return replace(measured, **directions, _cache={})
    if hasattr(measured, "sweeps"):  # a course
        return replace(measured, sweeps=tuple(noisy(one, noise) for one in measured.sweeps))
    if hasattr(measured, "effects"):  # a response to doses
        return replace(measured, effects=noisy(measured.effects, noise))
    return replace(measured, noise_floor=noise, _cache={})


def judged(claim, **given):
    """The verdict of a claim; it gets those of `given` that it asks for."""
    given = {
        "subject": NAMED,
        "trio": TRIO,
        "twin_patches": None,
        "model": SimpleNamespace(seed=0),
    } | given
    asked = signature(claim).parameters.keys() - {"judge"}
    return hear(claim, **{name: given[name] for name in asked}).verdict


def entropic(change):
    return make_coalitions({}, entropy=change)


def middle(change):
    return make_sweep({(1, 2): change}, spread=0.05)


def paths(total):
    return make_paths(total, {2: 0.9})


def course(change):
    return made_up_course(0.0, change)


def asymmetry(more):
    # Neither position is flat over layers, whichever is chosen.
    one = {(n, where): 0.2 * n for n in range(LAYERS) for where in ("last", "subject")}
    return make_patches(one, one | {(2, "last"): 0.4 + more})


@pytest.mark.parametrize(
    ("claim", "name", "make", "effects"),
    [
        (h1.test_top_suppressor_is_in_layer_zero, "sweep", make_sweep, (PLANTED, NOTHING)),
        (h1.test_named_head_tops_its_layer, "sweep", make_sweep, (PLANTED, {(0, 3): 1.0})),
        (h1.test_sibling_has_the_same_suppressor, "sweep", make_sweep, (PLANTED, NOTHING)),
        (h1.test_named_head_is_the_primary_suppressor, "sweep", make_sweep, (PLANTED, NOTHING)),
        (h1.test_no_other_head_does_as_well, "sweep", make_sweep, ({(0, 3): 1.0},)),
        (h1.test_trio_of_the_small_model_raises_ld, "sets", make_coalitions, (PLANTED, NOTHING)),
        (h1.test_named_pair_suppresses, "sets", make_coalitions, (PLANTED, NOTHING)),
        (h5.test_zeroing_the_trio_raises_ld, "sets", make_coalitions, (PLANTED, NOTHING)),
        (h5.test_pairs_with_the_leader_beat_the_pair_without, "sets", make_coalitions, (PLANTED,)),
        (h5.test_cooperation_is_super_additive, "sets", make_coalitions, (PLANTED,)),
        (h5.test_leader_alone_recovers_most, "sets", make_coalitions, (PLANTED,)),
        (h5.test_partners_recover_little, "sets", make_coalitions, (PLANTED,)),
        (h5.test_no_other_trio_does_as_well, "sets", make_coalitions, ({(0, 7): 1.0},)),
        (h6.test_patching_is_asymmetric, "patches", asymmetry, (0.3, 0.0)),
        (h6.test_asymmetry_holds_in_windows, "patches", asymmetry, (0.0,)),
        (h6.test_path_mediates_most, "paths", paths, (1.0,)),
        (h6.test_path_mediates_little, "paths", paths, (1.0,)),
        (geometry.test_zeroing_the_trio_lowers_entropy, "sets", entropic, (-0.8, 0.0)),
        (geometry.test_zeroing_the_trio_raises_entropy_slightly, "sets", entropic, (0.1, 0.8)),
        (binders.test_a_middle_head_binds, "binding", middle, (-1.0, 0.0)),
        (training.test_suppression_emerges_during_training, "training", course, (1.5, 0.0)),
    ],
)
def test_what_lies_under_the_noise_is_neither_supported_nor_refuted(claim, name, make, effects):
    names = {"sweep": ("sweep", "methods"), "sets": ("subsets", "coalitions")}.get(name, (name,))
    for effect in effects:
        made = make(effect)
        # The rival trio is chosen by what its heads do alone.
        alone = effect if isinstance(effect, dict) else {}
        sweep = SimpleNamespace(
            mean_deltas=lambda _, alone=alone: {(0, n): alone.get((0, n), 0.0) for n in range(8)}
        )
        given = {"sweep": sweep} | dict.fromkeys(names, made)
        coarse = {"sweep": sweep} | dict.fromkeys(names, noisy(made))
        assert judged(claim, **given).status in ("supported", "refuted")
        verdict = judged(claim, **coarse)
        # A share of an effect that is not told from the noise is blocked: there is no share of it.
        assert verdict.status in ("inconclusive", "blocked"), verdict.reason
        assert "numerical noise" in verdict.reason


def test_partners_under_the_noise_do_not_come_next():
    made = make_sweep({(0, 2): 1.0, (0, 0): 0.6, (0, 1): 0.5})
    claim = h1.test_partners_come_next
    assert judged(claim, sweep=made, subject=OF_FOUR).status == "supported"
    assert judged(claim, sweep=noisy(made), subject=OF_FOUR).status == "inconclusive"


def test_an_effect_above_the_noise_is_judged_as_ever():
    fine = Noise(0.25, "cuda in bfloat16")  # more than 5 % of LD 4
    for effects, status in ((PLANTED, "supported"), ({LEADER: -1.0}, "refuted")):
        made = noisy(make_sweep(effects), fine)
        found = judged(h1.test_sibling_has_the_same_suppressor, sweep=made)
        assert found.status == status and found.floor == 0.25


def test_a_little_share_of_an_effect_must_be_more_than_noise_to_be_little():
    """The trio does 1 logit; a partner's share of .05 is not told from the .25 that counts."""
    made = make_coalitions(PLANTED, spread=0.05)
    assert judged(h5.test_partners_recover_little, subsets=made).status == "supported"
    coarse = judged(h5.test_partners_recover_little, subsets=noisy(made, Noise(0.4)))
    assert coarse.status == "inconclusive" and "numerical noise" in coarse.reason
    most = judged(h5.test_leader_alone_recovers_most, subsets=noisy(made, Noise(0.4)))
    assert most.status == "supported"


def test_a_share_of_noise_is_no_share():
    with pytest.raises(RatioUndefined, match="not wholly above the numerical noise 3"):
        noisy(make_paths(1.0, {2: 0.7})).mediated(2)


@pytest.mark.parametrize(("other", "status"), [(0.0, "supported"), (1.0, "refuted")])
def test_slopes_within_the_noise_move_and_spare_nothing(other, status):
    def steered(noise):
        responses = {
            name: noisy(made_up_steering.response(by, condition=name), noise)
            for name, by in (("facts", 1.0), ("logic", other))
        }
        return Steered(responses, LEADER, 2.5, {}, ("a-run",))

    claim = steering.test_steering_moves_facts_and_spares_the_rest
    assert judged(claim, steered=steered(Noise(1e-6))).status == status
    coarse = judged(claim, steered=steered(COARSE))
    assert coarse.status == "inconclusive" and "cuda in bfloat16" in coarse.reason


@pytest.mark.parametrize(
    "claim",
    [
        validity.test_clean_and_corrupt_are_told_apart,
        validity.test_swapped_labels_flip_the_logit_difference,
        validity.test_null_prompt_shows_no_prior,
    ],
)
def test_a_condition_is_not_valid_by_noise(claim):
    fine = tables(2.0, -2.0)
    noisy_tables = fine._replace(noise=Noise(5.0, "mps in float16"))
    asked = lambda rows: {  # noqa: E731
        "unhooked": rows,
        "counting": rows,
        "validity": condition_validity(rows),
    }
    assert judged(claim, **asked(fine)).status == "supported"
    coarse = judged(claim, **asked(noisy_tables))
    if claim is validity.test_clean_and_corrupt_are_told_apart:
        # A share has no noise: a difference within it is none.
        assert coarse.status == "refuted" and coarse.effect.estimate == 0.0
    else:
        assert coarse.status == "inconclusive" and "5.00 of mps in float16" in coarse.reason


def test_noise_of_another_column_is_its_own():
    """.1 nats more entropy: under 3 logits of noise in LD, and above .001 nats in entropy."""
    made = noisy(entropic(0.1), Noise(3.0, "cuda in bfloat16", {"entropy": 0.001}))
    verdict = judged(geometry.test_zeroing_the_trio_raises_entropy_slightly, subsets=made)
    assert verdict.status == "supported", verdict.reason


# --- how noise is summed up ----------------------------------------------------------------------


def test_the_spread_is_between_changes_or_between_figures():
    """[interventions, examples], the unhooked model first: it is 2 off, and so is all the rest."""
    one = np.array([[1.0, 5.0], [3.0, 5.5]])
    other = one + 2.0
    assert spread((one, other), of_changes=True) == 0.0
    assert spread((one, other), of_changes=False) == 2.0
    third = one + np.array([[0.0, 0.0], [0.0, -0.25]])
    assert spread((one, other, third), of_changes=True) == 0.25
    assert spread((one[:1], third[:1]), of_changes=False) == 0.0


def verified(device, dtype, repeat, shape, reference, **more):
    figures = {"repeat": repeat, "shape": shape, "reference": reference}
    return {"measured": {"device": device, "dtype": dtype}, "logit_diff": figures} | more


def test_noise_is_the_largest_of_each_kind_by_device_and_dtype():
    documents = [
        verified("cuda", "bfloat16", 0.0, 0.02, 0.09),
        verified("cpu", "float32", 0.0, 2e-6, None),
        verified("cuda", "bfloat16", 0.01, 0.01, 0.03),
        verified("cpu", "bfloat16", 0.0, 0.01, 0.05),
    ]
    assert noise_rows(documents) == [
        NoiseRow(device="cpu", dtype="bfloat16", runs=1, repeat=0.0, shape=0.01, reference=0.05),
        NoiseRow(device="cpu", dtype="float32", runs=1, repeat=0.0, shape=2e-6),
        NoiseRow(device="cuda", dtype="bfloat16", runs=2, repeat=0.01, shape=0.02, reference=0.09),
    ]


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"measured": {"device": "cpu", "dtype": "float32"}},
        {"measured": {"device": "cpu", "dtype": "float32"}, "logit_diff": {"noise": 0.1}},
        {"measured": {"device": "cpu"}, "logit_diff": {"repeat": 0.0, "shape": 0.0}},
        {"measured": "cpu", "logit_diff": {"repeat": 0.0, "shape": 0.0}},
    ],
)
def test_documents_that_do_not_say_are_left_out(document):
    """Readings have no logit differences; runs of before have one kind of noise."""
    assert noise_rows([document]) == []
