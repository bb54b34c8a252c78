"""What noise takes away and what states bring back, on tables whose answer is known.

Run: pytest tests/analysis/test_tracing.py
"""

import json

import numpy as np
import pytest

from tests.benches import bench_of
from tests.synthetic_effects import make_table, noise
from tinyablation.analysis.findings import Findings
from tinyablation.analysis.tracing import Trace
from tinyablation.interventions.tracing import Tracing
from tinyablation.statistics.ratios import RatioUndefined

TRACING = Tracing(("stream", "mlp"), ("subject-last",), draws=2)
LAYERS = 3
LD = {"column": "logit_diff"}


def made(lost: float, back: dict[tuple[str, int], float]) -> Trace:
    """Noise takes `lost` logits, by draw 1 less and 1 more; states bring `back` so many."""
    shards = TRACING.shards(LAYERS, 4)
    changes = {}
    for number, each in enumerate(i for shard in shards for i in shard.interventions):
        place = (getattr(each, "part", ""), getattr(each, "layer", -1))
        size = back.get(place, 0.0) - lost + (1.0 if each.draw else -1.0)
        changes[each.label] = size + noise(0.05, number)
    return Trace("m", "facts", make_table(changes), 1e-6, tracing=TRACING, n_layers=LAYERS)


def test_total_and_indirect_effects_are_means_over_draws():
    trace = made(3.0, {("stream", 1): 2.4, ("mlp", 0): 0.6})
    total = trace.total(**LD)
    assert total.low < 3.0 < total.high and total.high - total.low < 0.2
    state = trace.indirect("stream", 1, "subject-last", **LD)
    assert state.low < 2.4 < state.high and state.high - state.low < 0.2
    none = trace.indirect("mlp", 2, "subject-last", **LD)
    assert none.estimate == pytest.approx(0.0, abs=0.05)
    share = trace.recovered("stream", 1, "subject-last", **LD)
    assert share.low < 0.8 < share.high and share.high - share.low < 0.1
    assert trace.profile("mlp", "subject-last", **LD) == pytest.approx([0.6, 0, 0], abs=0.05)
    assert trace.peak("stream", "subject-last", **LD) == 1
    assert trace.peak("mlp", "subject-last", **LD) == 0


def test_the_peak_is_chosen_on_discovery():
    trace = made(3.0, {("stream", 1): 2.0})
    label = TRACING.restored("stream", 2, "subject-last")[0].label
    rows = (trace.table["intervention"] == label) & (trace.table["split"] == "confirmation")
    trace.table.loc[rows, "logit_diff"] += 9.0
    assert np.argmax(trace.profile("stream", "subject-last", **LD)) == 2
    assert trace.peak("stream", "subject-last", **LD) == 1


def test_of_no_total_effect_a_state_has_no_share():
    with pytest.raises(RatioUndefined):
        made(0.0, {("stream", 1): 1.0}).recovered("stream", 1, "subject-last", **LD)


@pytest.mark.slow
def test_a_claim_asks_for_a_trace_and_plain_hooks_confirm_it(tmp_path):
    """Of an embedded model: the last token's late stream and the subject's early one restore."""
    bench = bench_of("tiny-llama", tmp_path, share=0.3)
    tracing = Tracing(("stream", "mlp", "attention"), ("subject-last", "last"), draws=2)
    trace = Findings(bench).trace("facts", tracing)
    assert trace.total(**LD).low > 1.0
    early = trace.profile("stream", "subject-last", **LD)
    late = trace.profile("stream", "last", **LD)
    assert early[0] > early[-1] and late[-1] > late[0] == pytest.approx(0.0, abs=1e-4)
    verified = json.loads((bench.run("facts", tracing).path / "verify.json").read_text())
    assert verified["backends_not_made"] == {} and len(verified["backends"]) == 2
    assert all(check["largest"] < 1e-4 < check["tolerance"] for check in verified["backends"])
    assert verified["noise_floor"] < 1e-4
