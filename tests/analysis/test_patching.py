"""Both directions of patching, on tables whose answer is known.

Run: pytest tests/analysis/test_patching.py
"""

from dataclasses import replace

import numpy as np
import pytest

from tests.synthetic_effects import LAYERS, make_patches
from tinyablation.analysis.effects import EffectsError
from tinyablation.analysis.patching import is_flat, residual_patches
from tinyablation.interventions.interventions import PatchResidual
from tinyablation.statistics.ratios import RatioUndefined
from tinyablation.verdicts.floors import Noise

LAST = {(layer, "last"): 0.3 * layer for layer in range(LAYERS)}
MORE = {**LAST, (2, "last"): 0.9}


def test_recovery_is_a_share_of_fixed_baselines():
    patches = make_patches(LAST, LAST)
    for direction in ("denoising", "noising"):
        found = patches.recovery(direction, PatchResidual(2, positions="last"))
        assert found.estimate == pytest.approx(0.6, abs=0.02)
        assert found.low < 0.6 < found.high
    profile = patches.profile(
        "denoising", lambda n: PatchResidual(n, positions="last"), "discovery"
    )
    assert profile == pytest.approx([0, 0.3, 0.6, 0.9], abs=0.03)


def test_the_layer_where_noising_does_most_more_is_found():
    patches = make_patches(LAST, MORE)
    candidates = residual_patches(LAYERS)
    patch = patches.most_asymmetric(candidates)
    assert (patch.layer, patch.positions) == (2, "last")
    assert patches.asymmetry(patch).estimate == pytest.approx(0.3, abs=0.02)
    assert patches.p_asymmetry(patch) <= 0.05
    # A larger one of the other sign is not what is looked for.
    less = {**LAST, (3, "last"): 0.1, (1, "last"): 0.4}
    assert make_patches(LAST, less).most_asymmetric(candidates).layer == 1
    turned = make_patches(MORE, LAST)
    assert turned.asymmetry(PatchResidual(2, positions="last")).high < -0.2
    assert turned.p_asymmetry(PatchResidual(2, positions="last")) > 0.9


def test_equal_directions_are_not_asymmetric():
    patches = make_patches(LAST, LAST)
    patch = patches.most_asymmetric(residual_patches(LAYERS))
    assert patches.p_asymmetry(patch) > 0.05


def test_p_of_a_patch_does_not_depend_on_which_others_were_asked_for():
    """It was chosen on other pairs: one test."""
    patches = make_patches(LAST, {**LAST, (2, "last"): 0.61})
    patch = PatchResidual(2, positions="last")
    alone = patches.p_asymmetry(patch)
    for other in residual_patches(LAYERS):
        patches.p_asymmetry(other)
    assert replace(patches, _cache={}).p_asymmetry(patch) == patches.p_asymmetry(patch) == alone


def test_what_is_above_0_but_below_the_floor_is_the_smallest_that_counts():
    bound = make_patches(LAST, LAST).bound(0.05)
    assert bound == 0.05 and bound.minimum and 0 < bound.noise < 1e-5


@pytest.mark.parametrize("machine", [1, 2, 3])
def test_rounding_is_no_asymmetry_and_moves_no_p(machine):
    """Whole streams give the donor's logits both ways, to an order of sums that differs by CPU."""
    exact = make_patches(MORE, LAST)
    table = exact.denoising.table
    whole = table["intervention"].str.contains(":all") & (table["donor"] == "pair")
    rounding = np.random.default_rng(machine).normal(2e-6, 1e-6, len(table)) * whole
    moved = table.assign(logit_diff=table["logit_diff"] + rounding)
    elsewhere = replace(exact, denoising=replace(exact.denoising, table=moved), _cache={})
    patch = PatchResidual(1, positions="all")
    assert elsewhere.p_asymmetry(patch) == exact.p_asymmetry(patch) == 1
    assert elsewhere.asymmetry(patch).estimate == 0


@pytest.mark.parametrize("direction", ["denoising", "noising"])
def test_two_patches_are_alike_in_a_share_of_the_examples_that_judge(direction):
    """Both directions count: an example in which either differs is another."""
    patches = make_patches(LAST, MORE, repeated=(1,))
    one, other = PatchResidual(3, window=1, positions="last"), PatchResidual(2, positions="last")
    assert patches.share_alike(one, other) == 1
    assert patches.share_alike(one, PatchResidual(3, positions="last")) == 0
    table = getattr(patches, direction).table
    judging = sorted({*table.loc[table["split"] == "confirmation", "example"]})
    for moved, share in ((judging[:6], 0.75), (judging, 0.0)):
        rows = (table["intervention"] == one.label) & table["example"].isin(moved)
        for by, found in ((0.001, share), (0.00005, 1.0)):
            changed = table.assign(logit_diff=table["logit_diff"] + by * rows)
            made = replace(getattr(patches, direction), table=changed, _cache={})
            assert replace(patches, **{direction: made}, _cache={}).share_alike(one, other) == found


def test_the_layer_is_chosen_on_other_pairs_than_it_is_judged_by():
    """P13: whatever the confirmation pairs do at another layer, discovery decides."""
    patches, first = make_patches(LAST, MORE), PatchResidual(1, positions="last")
    table = patches.noising.table
    elsewhere = (table["intervention"] == first.label) & (table["split"] == "confirmation")
    moved = table.assign(logit_diff=table["logit_diff"] - 6.0 * elsewhere)
    changed = replace(patches, noising=replace(patches.noising, table=moved, _cache={}), _cache={})
    assert changed.asymmetry(first).low > 0.5
    patch = changed.most_asymmetric(residual_patches(LAYERS))
    assert (patch.layer, patch.positions) == (2, "last")


def test_whole_streams_give_the_same_at_every_layer_and_are_called_flat():
    """Pitfall P3: a figure that cannot depend on the layer says nothing about layers."""
    patches = make_patches(LAST, LAST)
    whole = patches.profile("denoising", lambda n: PatchResidual(n, positions="all"), "discovery")
    assert whole == pytest.approx([1.0] * LAYERS)
    assert is_flat(whole)
    assert not is_flat(
        patches.profile("denoising", lambda n: PatchResidual(n, positions="last"), "discovery")
    )
    with pytest.raises(EffectsError, match="fewer than two layers"):
        is_flat([0.3])


def test_where_clean_and_corrupt_are_alike_there_is_nothing_to_take_a_share_of():
    patch = PatchResidual(2, positions="last")
    sound = make_patches(LAST, LAST)
    assert sound.whole("discovery") == pytest.approx(8.0 * 24, rel=0.05)
    table = sound.denoising.table
    moved = table.assign(logit_diff=table["logit_diff"] + 8.5)
    near = replace(sound.denoising, table=moved, _cache={})
    alike = replace(sound, denoising=near, _cache={})
    for asked in (
        lambda: alike.whole("confirmation"),
        lambda: alike.share("denoising", patch),
        lambda: alike.most_asymmetric(residual_patches(LAYERS)),
        lambda: alike.asymmetry(patch),
    ):
        with pytest.raises(RatioUndefined, match="no effect to take a share of"):
            asked()


def test_a_sham_that_is_not_nothing_is_refused():
    assert make_patches(LAST, LAST).sham() == 0
    with pytest.raises(EffectsError, match="own activations, put back, move LD by 0.08"):
        make_patches(LAST, LAST, sham=0.01)


@pytest.mark.parametrize("moved", [0.08, -0.08])
@pytest.mark.parametrize("direction", ["denoising", "noising"])
def test_a_sham_of_either_sign_is_refused_in_either_direction(direction, moved):
    sound = make_patches(LAST, LAST)
    own = getattr(sound, direction)
    table = own.table.assign(
        logit_diff=own.table["logit_diff"] + moved * (own.table["donor"] == "self")
    )
    with pytest.raises(EffectsError, match="own activations, put back, move LD by 0.08"):
        replace(sound, **{direction: replace(own, table=table, _cache={})}, _cache={})


def test_directions_of_different_examples_are_refused():
    patches = make_patches(LAST, LAST)
    table = patches.noising.table.assign(fact_id="another")
    with pytest.raises(EffectsError, match="not the same examples"):
        type(patches)(patches.denoising, type(patches.noising)("m", "facts", table, 0.0), LAYERS, 8)


@pytest.mark.parametrize(("spread", "flat"), [(0.0, True), (0.008, True), (0.012, False)])
def test_windows_that_hold_nearly_all_of_the_answer_are_flat(spread, flat):
    """A window of four layers' streams, of a model that moves everything in the first, say."""
    assert is_flat([1.0, 1.0 - spread, 1.0, 1.0]) == flat


@pytest.mark.parametrize("split", ["discovery", "confirmation"])
def test_directions_that_differ_in_one_split_are_refused(split):
    patches = make_patches(LAST, LAST)
    table = patches.noising.table
    other = table["fact_id"].where(table["split"] != split, "another")
    moved = replace(patches.noising, table=table.assign(fact_id=other), _cache={})
    with pytest.raises(EffectsError, match="not the same examples"):
        replace(patches, noising=moved, _cache={})


@pytest.mark.parametrize("noisy", ["denoising", "noising"])
def test_the_noisier_direction_says_what_is_told_from_nothing(noisy):
    sound = make_patches(LAST, LAST)
    loud = replace(getattr(sound, noisy), noise_floor=Noise(0.8, "a coarse device"), _cache={})
    patches = replace(sound, **{noisy: loud}, _cache={})
    bound = patches.bound(0.05)
    assert patches.noise() == 0.8 and bound.where == "a coarse device"
    assert bound.noise == pytest.approx(0.8 / patches.gap("confirmation").mean())


def test_residual_patches_are_of_every_layer_and_position():
    found = residual_patches(2, ("last", "subject"), window=1)
    assert [(each.layer, each.positions, each.window) for each in found] == [
        (0, "last", 1),
        (1, "last", 1),
        (0, "subject", 1),
        (1, "subject", 1),
    ]


def test_a_profile_is_of_the_split_asked_for():
    patches = make_patches(LAST, LAST)
    table = patches.denoising.table
    more = 4.0 * ((table["split"] == "discovery") & (table["donor"] == "pair"))
    moved = replace(patches.denoising, table=table.assign(logit_diff=table["logit_diff"] + more))
    both = replace(patches, denoising=replace(moved, _cache={}), _cache={})
    for split, added in (("discovery", 0.5), ("confirmation", 0.0)):
        found = both.profile("denoising", lambda n: PatchResidual(n, positions="last"), split)
        expected = patches.profile("denoising", lambda n: PatchResidual(n, positions="last"), split)
        assert found == pytest.approx([value + added for value in expected], abs=0.03)
        patch = PatchResidual(2, positions="last")  # noising is not moved
        assert both.mean_asymmetry(patch, split) == pytest.approx(-added, abs=0.03)
        assert both.asymmetry(patch, split=split).estimate == pytest.approx(-added, abs=0.03)


def test_what_is_asked_of_no_split_is_of_the_one_that_chose_nothing():
    """P13: what noising moves on discovery is four times what it is on confirmation."""
    made, patch = make_patches(LAST, LAST), PatchResidual(2, positions="last")
    table = made.noising.table
    more = 4.0 * ((table["split"] == "discovery") & (table["donor"] == "pair"))
    moved = replace(made.noising, table=table.assign(logit_diff=table["logit_diff"] - more))
    patches = replace(made, noising=replace(moved, _cache={}), _cache={})
    asked = {
        "share": lambda **split: patches.share("noising", patch, **split),
        "recovery": lambda **split: patches.recovery("noising", patch, **split),
        "asymmetry": lambda **split: patches.asymmetry(patch, **split),
        "mean asymmetry": lambda **split: patches.mean_asymmetry(patch, **split),
        "difference": lambda **split: patches.difference(patch, **split).tolist(),
        "noise of a bound": lambda **split: patches.bound(0.05, **split).noise,
    }
    for name, figure in asked.items():
        assert figure() == figure(split="confirmation") != figure(split="discovery"), name
