"""The battery of causal tracing.

Run: pytest tests/interventions/test_tracing.py
"""

from dataclasses import replace

from tinyablation.interventions.batteries import PATCHED_UNKNOWN
from tinyablation.interventions.restoration import AddNoise, RestoreState
from tinyablation.interventions.tracing import Tracing


def test_every_state_is_restored_in_every_draw():
    tracing = Tracing(("stream", "mlp"), ("subject-last", "last"), window=1, draws=3)
    baseline, noise, *states = tracing.shards(40, 9)
    assert not baseline.interventions
    assert noise.interventions == tuple(AddNoise(draw) for draw in range(3))
    every = [each for shard in states for each in shard.interventions]
    assert len(every) == len({each.label for each in every}) == 40 * 2 * 2 * 3
    assert all(isinstance(each, RestoreState) for each in every)
    assert {each.window for each in every if each.part == "mlp"} == {1}
    assert {each.window for each in every if each.part == "stream"} == {0}
    assert {*tracing.restored("mlp", 39, "last")} < {*every}


def test_it_is_named_by_all_it_depends_on():
    tracing = Tracing()
    others = [
        replace(tracing, parts=("mlp",)),
        replace(tracing, tokens=("last",)),
        replace(tracing, window=0),
        replace(tracing, draws=1),
        replace(tracing, scale=1.0),
        replace(tracing, sample=PATCHED_UNKNOWN),
    ]
    assert len({each.name for each in [tracing, *others]}) == 7
    assert replace(tracing, scale=3).name == tracing.name
