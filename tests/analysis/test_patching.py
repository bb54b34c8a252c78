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

LAST = {(layer, "last"): 0.3 * layer for layer in range(LAYERS)}
MORE = {**LAST, (2, "last"): 0.9}


def test_recovery_is_a_share_of_fixed_baselines():
    patches = make_patches(LAST, LAST)
    for direction in ("forward", "reverse"):
        found = patches.recovery(direction, PatchResidual(2, positions="last"))
        assert found.estimate == pytest.approx(0.6, abs=0.02)
        assert found.low < 0.6 < found.high
    profile = patches.profile("forward", lambda n: PatchResidual(n, positions="last"), "discovery")
    assert profile == pytest.approx([0, 0.3, 0.6, 0.9], abs=0.03)


def test_the_asymmetric_layer_is_found_with_its_sign():
    patches = make_patches(MORE, LAST)
    candidates = residual_patches(LAYERS)
    patch, sign = patches.most_asymmetric(candidates)
    assert (patch.layer, patch.positions, sign) == (2, "last", 1)
    assert patches.asymmetry(patch).estimate == pytest.approx(0.3, abs=0.02)
    assert patches.p_asymmetry(patch, candidates, sign) <= 0.05
    turned, sign = make_patches(LAST, MORE).most_asymmetric(candidates)
    assert (turned.layer, sign) == (2, -1)


def test_equal_directions_are_not_asymmetric():
    patches = make_patches(LAST, LAST)
    candidates = residual_patches(LAYERS)
    patch, sign = patches.most_asymmetric(candidates)
    assert patches.p_asymmetry(patch, candidates, sign) > 0.05


@pytest.mark.parametrize("machine", [1, 2, 3])
def test_rounding_is_no_asymmetry_and_moves_no_p(machine):
    """Whole streams give the donor's logits both ways, to an order of sums that differs by CPU."""
    candidates = residual_patches(LAYERS, positions=("last", "all"))
    patch = PatchResidual(2, positions="last")
    exact = make_patches(MORE, LAST)
    table = exact.forward.table
    whole = table["intervention"].str.contains(":all") & (table["donor"] == "pair")
    rounding = np.random.default_rng(machine).normal(2e-6, 1e-6, len(table)) * whole
    rounded = replace(exact.forward, table=table.assign(logit_diff=table["logit_diff"] + rounding))
    elsewhere = replace(exact, forward=rounded, _cache={})
    for each in (patch, PatchResidual(1, positions="all")):
        p = elsewhere.p_asymmetry(each, candidates, 1)
        assert p == exact.p_asymmetry(each, candidates, 1)
    assert p == 1


def test_an_asymmetry_that_the_twin_has_too_is_none_beyond_it():
    patch = PatchResidual(2, positions="last")
    model = make_patches(MORE, LAST)
    same = model.asymmetry_beyond(make_patches(MORE, LAST, seed=5), patch, 1)
    assert same.low < 0 < same.high
    other = model.asymmetry_beyond(make_patches(LAST, LAST, seed=5), patch, 1)
    assert other.low > 0.2


@pytest.mark.parametrize("twin_ld", [1.0, 12.0])
def test_a_twin_is_measured_by_its_own_gap(twin_ld):
    """The same shares of a smaller or a larger LD clean - LD corrupt are the same asymmetry."""
    patch = PatchResidual(2, positions="last")
    model, twin = make_patches(MORE, LAST), make_patches(MORE, LAST, clean_ld=twin_ld, seed=5)
    assert twin.gap("confirmation").mean() == pytest.approx(2 * twin_ld, abs=0.5)
    assert model.asymmetry_beyond(twin, patch, 1).estimate == pytest.approx(0, abs=0.02)
    assert twin.asymmetry_beyond(model, patch, 1).estimate == pytest.approx(0, abs=0.02)


def test_the_layer_and_the_sign_are_chosen_on_other_pairs_than_they_are_judged_by():
    """P13: whatever the confirmation pairs do at another layer, discovery decides."""
    patches, first = make_patches(MORE, LAST), PatchResidual(1, positions="last")
    table = patches.reverse.table
    elsewhere = (table["intervention"] == first.label) & (table["split"] == "confirmation")
    moved = table.assign(logit_diff=table["logit_diff"] - 6.0 * elsewhere)
    changed = replace(patches, reverse=replace(patches.reverse, table=moved, _cache={}), _cache={})
    assert changed.asymmetry(first).high < -0.5
    patch, sign = changed.most_asymmetric(residual_patches(LAYERS))
    assert (patch.layer, patch.positions, sign) == (2, "last", 1)


def test_whole_streams_give_the_same_at_every_layer_and_are_called_flat():
    """Pitfall P3: a figure that cannot depend on the layer says nothing about layers."""
    patches = make_patches(LAST, LAST)
    whole = patches.profile("forward", lambda n: PatchResidual(n, positions="all"), "discovery")
    assert whole == pytest.approx([1.0] * LAYERS)
    assert is_flat(whole)
    assert not is_flat(
        patches.profile("forward", lambda n: PatchResidual(n, positions="last"), "discovery")
    )
    with pytest.raises(EffectsError, match="fewer than two layers"):
        is_flat([0.3])


def test_where_clean_and_corrupt_are_alike_there_is_nothing_to_take_a_share_of():
    patch = PatchResidual(2, positions="last")
    sound = make_patches(LAST, LAST)
    assert sound.whole("discovery") == pytest.approx(8.0 * 24, rel=0.05)
    table = sound.forward.table
    moved = table.assign(logit_diff=table["logit_diff"] + 8.5)
    near = replace(sound.forward, table=moved, _cache={})
    alike = replace(sound, forward=near, _cache={})
    for asked in (
        lambda: alike.whole("confirmation"),
        lambda: alike.share("forward", patch),
        lambda: alike.most_asymmetric(residual_patches(LAYERS)),
        lambda: alike.asymmetry_beyond(sound, patch, 1),
        lambda: sound.asymmetry_beyond(alike, patch, 1),
    ):
        with pytest.raises(RatioUndefined, match="no effect to take a share of"):
            asked()


def test_a_sham_that_is_not_nothing_is_refused():
    assert make_patches(LAST, LAST).sham() == 0
    with pytest.raises(EffectsError, match="own activations, put back, move LD by 0.08"):
        make_patches(LAST, LAST, sham=0.01)


@pytest.mark.parametrize("moved", [0.08, -0.08])
@pytest.mark.parametrize("direction", ["forward", "reverse"])
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
    table = patches.reverse.table.assign(fact_id="another")
    with pytest.raises(EffectsError, match="not the same examples"):
        type(patches)(patches.forward, type(patches.reverse)("m", "facts", table, 0.0), LAYERS, 8)
