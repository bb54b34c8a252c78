"""Run: pytest tests/test_batteries.py"""

import dataclasses
import subprocess
import sys

import pytest

from tinyablation.batteries import (
    BATTERIES,
    MOST_TRIPLES,
    BatteryError,
    HeadSets,
    OneHead,
    Patching,
    Paths,
    Shard,
    Steering,
    Subsets,
    TrioZeroed,
    battery,
    single_heads,
)
from tinyablation.interventions import AblateHeads


def test_single_heads_are_every_pair_layer_by_layer():
    assert single_heads(2, 3) == ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2))


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (-1, 2)])
def test_a_model_without_heads_is_refused(shape):
    with pytest.raises(BatteryError, match="no head"):
        single_heads(*shape)


def test_baseline_battery_is_one_empty_shard():
    assert BATTERIES["baseline"].shards(2, 3) == [Shard("baseline", ())]


def test_single_heads_is_every_head_by_every_method():
    shards = BATTERIES["single-heads"].shards(2, 3)
    assert [shard.key for shard in shards] == ["baseline", "L00-L01"]
    assert len(shards[1].interventions) == 2 * 4 * 3
    assert shards[1].interventions[2] == AblateHeads(heads=((0, 2),), method="zero")
    labels = [each.label for shard in shards for each in shard.interventions]
    assert len(labels) == len(set(labels)) == 4 * 6


def test_methods_ablates_layer_zero_in_every_way():
    shards = BATTERIES["methods"].shards(3, 4)
    assert [shard.key for shard in shards] == ["baseline", "L00"]
    assert {each.heads[0][0] for each in shards[1].interventions} == {0}
    every = {
        each for shard in BATTERIES["single-heads"].shards(3, 4) for each in shard.interventions
    }
    assert {each for shard in shards for each in shard.interventions} < every
    assert len(shards[1].interventions) == 4 * 4


def test_every_triple_of_a_small_layer_is_measured_once():
    sets = HeadSets(layer=0, trio=((0, 2), (0, 4), (0, 7)), n_heads=16)
    assert sets.is_exact and sets.name == "h5-L00"
    found = sets.sets()
    assert [sum(len(each) == size for each in found) for size in (1, 2, 3)] == [16, 120, 560]
    labels = [i.label for shard in sets.shards(24, 16) for i in shard.interventions]
    assert len(labels) == len(set(labels)) == 16 + 120 + 560


def test_triples_of_a_large_layer_are_drawn_by_the_seed_with_the_named_one_among_them():
    """C(32, 3) is 4,960: drawn, and the trio and the seed decide which, so both are addressed."""
    trio = ((0, 5), (0, 21), (0, 23))
    sets = HeadSets(layer=0, trio=trio, n_heads=32)
    assert not sets.is_exact
    assert sets.name == "h5-L00-0.5_0.21_0.23"
    triples = [each for each in sets.sets() if len(each) == 3]
    assert len(set(triples)) == len(triples) == MOST_TRIPLES + 1
    assert trio in triples
    again = HeadSets(layer=0, trio=trio, n_heads=32, seed=1).sets()
    assert again != sets.sets()
    assert sets.sets() == HeadSets(layer=0, trio=trio, n_heads=32).sets()


def test_subsets_of_a_trio_are_its_seven_sets():
    battery = Subsets(((0, 7), (0, 0), (0, 5)))
    assert battery.name == "sets-0.0_0.5_0.7"
    (_, shard) = battery.shards(4, 8)
    assert [len(each.heads) for each in shard.interventions] == [1, 1, 1, 2, 2, 2, 3]
    with pytest.raises(BatteryError, match="no head"):
        battery.shards(4, 7)


def test_a_trio_outside_the_layer_is_refused():
    with pytest.raises(BatteryError, match="not within"):
        HeadSets(layer=0, trio=((0, 2), (1, 4), (0, 7)), n_heads=16).sets()
    with pytest.raises(BatteryError, match="do not fit"):
        HeadSets(layer=0, trio=(), n_heads=16).shards(24, 20)


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_patching_covers_every_layer_position_window_and_control(direction):
    shards = Patching(direction).shards(4, 8)
    labels = [i.label for shard in shards for i in shard.interventions]
    assert len(labels) == len(set(labels))
    assert [shard.key for shard in shards] == ["baseline", "L00-L03"]
    kinds = {type(i).__name__ for shard in shards for i in shard.interventions}
    assert kinds == {"PatchResidual", "PatchMLP", "PatchHeads"}
    donors = {i.donor for shard in shards for i in shard.interventions}
    assert donors == {"pair", "self", "other"}
    sides = {"forward": ("corrupt", "clean"), "reverse": ("clean", "corrupt")}
    assert (Patching(direction).side, Patching(direction).donor) == sides[direction]


def test_paths_lead_to_every_later_layer_and_the_logits():
    shards = Paths((1, 3)).shards(4, 8)
    assert shards[1].interventions[0] == AblateHeads(((1, 3),))
    assert [i.layer for i in shards[1].interventions[1:]] == [2, 3, 4]


def test_steering_names_what_its_directions_come_from():
    battery = Steering(0, "0.7-abc", ("ov", "random"))
    assert battery.name == "steer-L00-0.7-abc"
    assert len(battery.shards(4, 8)[1].interventions) == 2 * 6


def test_a_trio_is_zeroed_together_on_both_splits_in_any_order():
    made = TrioZeroed(((0, 7), (0, 2), (0, 4)))
    assert made.name == "trio-0.2_0.4_0.7"
    (together,) = made.shards(4, 8)[1].interventions
    assert together == made.ablation == AblateHeads(((0, 2), (0, 4), (0, 7)))
    assert made.sample.split is None


@pytest.mark.parametrize(
    "made",
    [
        Paths((4, 0)),
        OneHead((0, 8)),
        TrioZeroed(((0, 0), (0, 1), (0, 8))),
        Steering(4, "x", ("ov",)),
    ],
)
def test_a_head_that_does_not_exist_is_refused(made):
    with pytest.raises(BatteryError, match="no head"):
        made.shards(4, 8)


def test_shards_are_ranges_of_whole_layers_in_plan_order():
    shards = BATTERIES["zero"].shards(48, 25)[1:]
    keys = [shard.key for shard in shards]
    assert keys == sorted(keys)
    assert keys[:2] == ["L00-L02", "L03-L05"]
    assert {len(shard.interventions) for shard in shards} == {3 * 25}
    # A layer of more than a shard's size stays whole.
    assert [shard.key for shard in BATTERIES["single-heads"].shards(2, 64)[1:]] == ["L00", "L01"]


def test_batteries_and_shards_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        BATTERIES["zero"].name = "h2"
    assert hash(BATTERIES["zero"].shards(1, 1)[1])


def test_an_unknown_battery_names_the_nearest():
    with pytest.raises(BatteryError, match="did you mean 'baseline'"):
        battery("base-line")
    assert battery("zero") is BATTERIES["zero"]


def test_importing_batteries_loads_nothing_heavy():
    code = (
        "import sys, tinyablation.batteries, tinyablation.runs, tinyablation.plots;"
        "print([m for m in ('torch','pandas','pyarrow','matplotlib','scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
