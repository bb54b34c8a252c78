"""Run: pytest tests/interventions/test_chosen_sets.py"""

import pytest

from tinyablation.heads import Head
from tinyablation.interventions.batteries import BASELINE, SHARD_SIZE, BatteryError, single_heads
from tinyablation.interventions.chosen_sets import ChosenSets

A, B, C = Head(0, 7), Head(1, 2), Head(0, 1)


def test_each_set_and_each_of_its_heads_are_ablated_once():
    battery = ChosenSets(((A, B), (B, C), (B, A), (C,)))
    assert battery.ablated == ((C,), (A,), (B,), (C, B), (A, B))
    first, second = battery.shards(2, 8)
    assert (first.key, first.interventions) == (BASELINE, ())
    assert [each.label for each in second.interventions] == [
        *("zero:0.1", "zero:0.7", "zero:1.2", "zero:0.1+1.2", "zero:0.7+1.2"),
    ]


def test_its_name_is_of_what_is_ablated_and_how():
    name = ChosenSets(((A, B),)).name
    assert ChosenSets(((B, A), (A,))).name == name  # the same ablations
    assert ChosenSets(((A, C),)).name != name
    assert ChosenSets(((A, B),), "zero_folded").name != name


def test_many_are_cut_into_shards():
    battery = ChosenSets(tuple((head,) for head in single_heads(12, 12)))
    assert [len(shard.interventions) for shard in battery.shards(12, 12)] == [
        *(0, SHARD_SIZE, 144 - SHARD_SIZE),
    ]


def test_a_head_that_the_model_lacks_is_refused():
    with pytest.raises(BatteryError, match="there is no head 0:7 in 2 layers of 4 heads"):
        ChosenSets(((A,),)).shards(2, 4)
