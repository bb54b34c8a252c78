"""Run: pytest tests/test_batteries.py"""

import dataclasses
import subprocess
import sys

import pytest

from tinyablation.batteries import BATTERIES, BatteryError, Shard, battery, single_heads
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
    assert [shard.key for shard in shards[:3]] == ["baseline", "L00", "L01"]
    assert len(shards) == 1 + 2
    assert {len(shard.interventions) for shard in shards[1:]} == {4 * 3}
    assert shards[1].interventions[2] == AblateHeads(heads=((0, 2),), method="zero")
    labels = [each.label for shard in shards for each in shard.interventions]
    assert len(labels) == len(set(labels)) == 4 * 6


def test_h1_zeroes_every_head_and_ablates_layer_zero_in_every_way():
    shards = BATTERIES["h1"].shards(3, 4)
    assert [len(shard.interventions) for shard in shards] == [0, 4 * 4, 4, 4]
    assert {each.method for shard in shards[2:] for each in shard.interventions} == {"zero"}
    every = {
        each for shard in BATTERIES["single-heads"].shards(3, 4) for each in shard.interventions
    }
    assert {each for shard in shards for each in shard.interventions} < every


def test_shard_keys_sort_in_plan_order_for_deep_models():
    keys = [shard.key for shard in BATTERIES["h1"].shards(48, 25) if shard.key != "baseline"]
    assert keys == sorted(keys)
    assert len(keys) == 48


def test_batteries_and_shards_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        BATTERIES["h1"].name = "h2"
    assert hash(BATTERIES["h1"].shards(1, 1)[1])


def test_an_unknown_battery_names_the_nearest():
    with pytest.raises(BatteryError, match="did you mean 'baseline'"):
        battery("base-line")
    assert battery("h1") is BATTERIES["h1"]


def test_importing_batteries_loads_nothing_heavy():
    code = (
        "import sys, tinyablation.batteries, tinyablation.runs, tinyablation.plots;"
        "print([m for m in ('torch','pandas','pyarrow','matplotlib','scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
