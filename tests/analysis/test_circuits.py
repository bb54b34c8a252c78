"""What a circuit does alone and what is lost without it, on tables whose answer is known.

Run: pytest tests/analysis/test_circuits.py
"""

import json
from dataclasses import replace

import numpy as np
import pytest

from tests.benches import bench_of
from tests.synthetic_effects import make_table, noise
from tinyablation.analysis.circuits import CircuitEffects
from tinyablation.analysis.findings import Findings
from tinyablation.heads import Head
from tinyablation.interventions.head_sets import Circuit
from tinyablation.statistics.ratios import RatioUndefined

HEADS = (Head(0, 2), Head(1, 3))
PART = (Head(0, 2),)
CIRCUIT = Circuit(HEADS, (PART,), donor="")


def made(*, alone: float, without: float, parted: float, clean_ld: float = 4.0) -> CircuitEffects:
    """Changes of LD: the circuit alone, the model without the part, the circuit without it."""
    (shard,) = CIRCUIT.shards(2, 4)[1:]
    sizes = (-1.0, alone, without, parted)
    changes = {
        each.label: size + noise(0.1, seed)
        for seed, (each, size) in enumerate(zip(shard.interventions, sizes, strict=True))
    }
    table = make_table(changes, interventions=shard.interventions, clean_ld=clean_ld)
    return CircuitEffects("model", "facts", table, 1e-6, circuit=CIRCUIT, n_layers=2, n_heads=4)


def test_the_share_that_a_circuit_keeps_is_found():
    """4 logits clean, 3 of the circuit alone; without the part the model has 2, the circuit 1."""
    found = made(alone=-1.0, without=-2.0, parted=-3.0)
    share = found.faithfulness()
    assert share.low < 0.75 < share.high and share.high - share.low < 0.1
    gap = found.incompleteness(PART)
    assert gap.low < 1.0 < gap.high and gap.high - gap.low < 0.3
    assert found.knockout().mean() == pytest.approx(-1.0, abs=0.1)
    assert found.knockout(of=PART).mean() == pytest.approx(-2.0, abs=0.1)
    same = made(alone=0.0, without=-2.0, parted=-2.0)
    assert same.faithfulness().estimate == pytest.approx(1.0, abs=0.02)
    assert same.incompleteness(PART).estimate == pytest.approx(0.0, abs=0.1)


def test_of_a_model_that_does_nothing_a_circuit_keeps_no_share():
    with pytest.raises(RatioUndefined):
        made(alone=0.0, without=0.0, parted=0.0, clean_ld=0.0).faithfulness()


@pytest.mark.slow
def test_a_claim_asks_for_a_circuit_and_plain_hooks_confirm_it(tmp_path):
    """Of an embedded model: measured, verified, addressed, and found again."""
    bench = bench_of("tiny-gpt2", tmp_path, share=0.1)
    parts = ((Head(0, 7),),)
    circuit = Circuit((Head(0, 0), Head(0, 2), Head(0, 7)), parts)
    found = Findings(bench).circuit("facts", circuit)
    assert np.abs(found.alone() - found.baseline("confirmation")["logit_diff"]).max() > 0.1
    run = bench.run("facts", circuit)
    verified = json.loads((run.path / "verify.json").read_text())
    assert verified["backends_not_made"] == {} and len(verified["backends"]) == 2
    assert all(check["largest"] < 1e-4 < check["tolerance"] for check in verified["backends"])
    own = Findings(bench).circuit("facts", replace(circuit, donor=""))
    # Every corrupt prompt is the clean one of its mirror: the two means are of the same prompts.
    np.testing.assert_allclose(own.alone(), found.alone(), atol=1e-4)
