"""Run: pytest tests/interventions/test_batteries.py"""

import dataclasses
import subprocess
import sys

import pytest

from tinyablation.interventions.batteries import (
    BATTERIES,
    BatteryError,
    OneHead,
    Patching,
    Paths,
    Shard,
    Steering,
    battery,
    single_heads,
)
from tinyablation.interventions.head_sets import TrioZeroed
from tinyablation.interventions.interventions import AblateHeads, PatchResidual


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


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_patching_of_streams_alone_measures_what_claims_judge_by(direction):
    every, streams = (
        [
            each
            for shard in Patching(direction, parts=parts).shards(4, 8)
            for each in shard.interventions
        ]
        for parts in ("all", "streams")
    )
    own = {each for each in every if isinstance(each, PatchResidual) and each.positions != "all"}
    assert {*streams} < own
    # Of what the battery has for streams all but controls; of these a sham a layer.
    assert {each for each in own if each.donor == "pair"} == {*streams} - {
        PatchResidual(layer, positions=where, donor="self")
        for layer, where in enumerate(("last", "subject", "last", "subject"))
    }
    # Other shards under one name would be another plan at one address.
    assert Patching(direction, parts="streams").name == f"patch-{direction}-streams"


def test_paths_lead_to_every_later_layer_and_the_logits():
    shards = Paths((1, 3)).shards(4, 8)
    assert shards[1].interventions[0] == AblateHeads(((1, 3),))
    assert [i.layer for i in shards[1].interventions[1:]] == [2, 3, 4]


def test_steering_names_what_its_directions_come_from():
    battery = Steering(0, "0.7-abc", ("ov", "random"))
    assert battery.name == "steer-L00-0.7-abc"
    assert len(battery.shards(4, 8)[1].interventions) == 2 * 6


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
        "import sys, tinyablation.interventions.batteries, tinyablation.runs.store;"
        "import tinyablation.runs.heatmaps;"
        "print([m for m in ('torch','pandas','pyarrow','matplotlib','scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
