"""Batteries that are listed, and those that `measure` knows by name.

Run: pytest tests/interventions/test_listed.py
"""

import json
from math import comb

import pytest

from tinyablation.cluster.serialization import describe, rebuild
from tinyablation.heads import Head
from tinyablation.interventions.batteries import (
    BASELINE,
    BATTERIES,
    SHARD_SIZE,
    BatteryError,
    single_heads,
)
from tinyablation.interventions.interventions import AblateHeads, PatchPath, PatchResidual
from tinyablation.interventions.listed import NAMES, Listed, chosen_sets, named

SHAPE = (4, 8)


def interventions(name: str, **options) -> list:
    shards = named(name, *SHAPE, **options).shards(*SHAPE)
    return [each for shard in shards for each in shard.interventions]


def test_every_battery_has_its_name():
    for name in BATTERIES:
        assert named(name, *SHAPE) is BATTERIES[name]
    needs = {
        **{key: {"layer": 0} for key in ("pairs", "triples")},
        **{key: {"heads": [Head(0, 7)]} for key in ("sets", "head", "path")},
    }
    names = [named(name, *SHAPE, **needs.get(name, {})).name for name in NAMES]
    assert len(set(names)) == len(NAMES)


@pytest.mark.parametrize(("name", "size"), [("pairs", 2), ("triples", 3)])
def test_sets_of_a_layer_are_all_of_their_size(name, size):
    found = interventions(name, layer=1)
    assert len(found) == comb(8, size)
    assert all(len(each.heads) == size for each in found)
    assert {head.layer for each in found for head in each.heads} == {1}


def test_sets_are_all_subsets_and_a_path_leads_to_every_later_layer():
    heads = [Head(0, 7), Head(0, 0), Head(0, 5)]
    assert len(interventions("sets", heads=heads)) == 7
    paths = [each for each in interventions("path", heads=heads[:1]) if isinstance(each, PatchPath)]
    assert [each.layer for each in paths] == [1, 2, 3, 4]
    assert interventions("head", heads=heads[:1]) == [AblateHeads((Head(0, 7),))]


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("pair", {"layer": 0}, "no battery 'pair'; did you mean 'pairs'?"),
        ("pairs", {}, "battery 'pairs' needs --layer"),
        ("zero", {"layer": 0}, "battery 'zero' has no use for --layer"),
        ("sets", {}, "battery 'sets' needs --heads"),
        ("patch-forward", {"heads": [Head(0, 0)]}, "has no use for --heads"),
        ("path", {"heads": [Head(0, 0), Head(0, 1)]}, "is of one head, not of 2"),
        ("pairs", {"layer": 4}, "there is no head 4:0 in 4 layers of 8 heads"),
    ],
)
def test_what_is_missing_or_too_much_is_refused(name, options, said):
    with pytest.raises(BatteryError, match=said.replace("?", r"\?")):
        named(name, *SHAPE, **options)


def test_a_listed_battery_is_named_by_what_it_does_and_fits_its_model():
    one = Listed("mine", (AblateHeads((Head(0, 7),)),))
    other = Listed("mine", (AblateHeads((Head(0, 6),)),))
    assert one.name.startswith("mine-") and one.name != other.name
    assert [shard.key for shard in one.shards(*SHAPE)] == ["baseline", "part00"]
    with pytest.raises(BatteryError, match="no head 0:7"):
        one.shards(4, 7)
    with pytest.raises(BatteryError, match="the model has layers 0 to 3"):
        Listed("mine", (PatchResidual(4),)).shards(*SHAPE)
    Listed("mine", (PatchPath((Head(0, 0),), 4),)).shards(*SHAPE)  # the direct path to the logits


def test_a_listed_battery_is_sent_to_other_machines_as_it_is():
    """A worker names and cuts it as the session does."""
    sent = Listed("mine", (AblateHeads((Head(0, 6), Head(0, 7))), PatchResidual(1, donor="self")))
    found = rebuild(json.loads(json.dumps(describe(sent))))
    assert found == sent and found.name == sent.name
    assert found.shards(*SHAPE) == sent.shards(*SHAPE)


def test_what_another_model_lacks_is_left_out():
    heads = [AblateHeads((Head(0, head),)) for head in (0, 7, 8)]
    listed = Listed("mine", (*heads, PatchResidual(3), PatchResidual(4)))
    assert listed.fitting(*SHAPE).interventions == (*heads[:2], PatchResidual(3))
    assert Listed("mine", (PatchResidual(4),)).fitting(*SHAPE).interventions == ()


# --- sets that someone names ----------------------------------------------------------------------

A, B, C = Head(0, 7), Head(1, 2), Head(0, 1)


def test_each_set_and_each_of_its_heads_are_ablated_once():
    battery = chosen_sets(((A, B), (B, C), (B, A), (C,)))
    first, second = battery.shards(2, 8)
    assert (first.key, first.interventions) == (BASELINE, ())
    assert [each.label for each in second.interventions] == [
        *("zero:0.1", "zero:0.7", "zero:1.2", "zero:0.1+1.2", "zero:0.7+1.2"),
    ]


def test_its_name_is_of_what_is_ablated_and_how():
    name = chosen_sets(((A, B),)).name
    assert chosen_sets(((B, A), (A,))).name == name  # the same ablations
    assert chosen_sets(((A, C),)).name != name
    assert chosen_sets(((A, B),), "zero_folded").name != name


def test_many_are_cut_into_shards():
    battery = chosen_sets((head,) for head in single_heads(12, 12))
    assert [len(shard.interventions) for shard in battery.shards(12, 12)] == [
        *(0, SHARD_SIZE, 144 - SHARD_SIZE),
    ]


def test_a_head_that_the_model_lacks_is_refused():
    with pytest.raises(BatteryError, match="there is no head 0:7 in 2 layers of 4 heads"):
        chosen_sets(((A,),)).shards(2, 4)
