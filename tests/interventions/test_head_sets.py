"""Heads ablated together: which sets, and how they are named.

Run: pytest tests/interventions/test_head_sets.py
"""

import pytest

from tinyablation.interventions.batteries import PATCHED_UNKNOWN, BatteryError
from tinyablation.interventions.head_sets import (
    MOST_TRIPLES,
    Circuit,
    CopySuppressors,
    HeadSets,
    Subsets,
    TrioZeroed,
)
from tinyablation.interventions.interventions import AblateHeads, KeepHeads
from tinyablation.interventions.sites import InterventionError


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


@pytest.mark.parametrize("named", [((0, 22), (0, 23)), ()])
def test_a_large_layer_is_sampled_around_a_pair_or_nothing(named):
    """The pair 0:22, 0:23 of Mistral is among all pairs already: one measurement."""
    sets = HeadSets(layer=0, trio=named, n_heads=32)
    labels = [i.label for shard in sets.shards(32, 32) for i in shard.interventions]
    assert len(labels) == len(set(labels)) == 32 + 496 + MOST_TRIPLES


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


def test_a_trio_is_zeroed_together_on_both_splits_in_any_order():
    made = TrioZeroed(((0, 7), (0, 2), (0, 4)))
    assert made.name == "trio-0.2_0.4_0.7"
    (together,) = made.shards(4, 8)[1].interventions
    assert together == made.ablation == AblateHeads(((0, 2), (0, 4), (0, 7)))
    assert made.sample.split is None


CIRCUIT = ((0, 2), (1, 3), (2, 0))


def test_a_circuit_is_knocked_out_and_alone_whole_and_without_its_parts():
    circuit = Circuit(CIRCUIT, (((0, 2),), ((2, 0), (1, 3))), donor="")
    (shard,) = circuit.shards(3, 4)[1:]
    assert [each.label for each in shard.interventions] == [
        "template_mean:0.2+1.3+2.0",
        "template_mean:all-but:0.2+1.3+2.0",
        "template_mean:0.2",
        "template_mean:all-but:1.3+2.0",
        "template_mean:1.3+2.0",
        "template_mean:all-but:0.2",
    ]
    alone = shard.interventions[1]
    assert isinstance(alone, KeepHeads) and len(alone.heads) == 3 * 4 - 3
    assert not set(alone.heads) & set(CIRCUIT)


def test_a_circuit_is_named_by_all_it_depends_on():
    names = {
        Circuit(CIRCUIT).name,
        Circuit(CIRCUIT[:2]).name,
        Circuit(CIRCUIT, (CIRCUIT[:1],)).name,
        Circuit(CIRCUIT, method="zero").name,
        Circuit(CIRCUIT, donor="").name,
        Circuit(CIRCUIT, sample=PATCHED_UNKNOWN).name,
    }
    assert len(names) == 6
    assert Circuit(CIRCUIT).name == Circuit(CIRCUIT[::-1]).name


def test_a_circuit_of_other_heads_is_refused():
    with pytest.raises(BatteryError, match="no head 2:0"):
        Circuit(CIRCUIT).shards(2, 4)
    for part in (((1, 0),), CIRCUIT):
        with pytest.raises(BatteryError, match="is not a part of the circuit"):
            Circuit(CIRCUIT, (part,)).shards(3, 4)
    with pytest.raises(InterventionError, match="both kept and ablated: 0.2"):
        KeepHeads(((0, 2),), "zero", ((0, 2),))


def test_copy_suppressors_are_ablated_as_a_whole_and_in_part():
    battery = CopySuppressors(((1, 3), (0, 2)), share=0.1)
    assert battery.name == "copy-suppression0.1-0.2_1.3"
    (shard,) = battery.shards(4, 8)[1:]
    assert [each.label for each in shard.interventions[:4]] == [
        "mean:0.2",
        "copy_suppression0.1:0.2",
        "path:0.2:L04:mean",
        "copy_suppression0.1:0.2:direct",
    ]
    assert len(shard.interventions) == 8
    with pytest.raises(BatteryError, match="no head 1:3"):
        battery.shards(1, 8)
