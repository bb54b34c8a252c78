"""How much of a head its copy suppression explains, on tables whose answer is known.

Run: pytest tests/analysis/test_copy_suppression.py
"""

import json

import numpy as np
import pytest

from tests.benches import bench_of
from tests.synthetic_effects import N, make_table
from tinyablation.analysis.copy_suppression import Suppression
from tinyablation.analysis.findings import Findings
from tinyablation.heads import Head
from tinyablation.interventions.head_sets import CopySuppressors
from tinyablation.statistics.ratios import RatioUndefined

HEAD = Head(1, 3)
BATTERY = CopySuppressors((HEAD,))


def made(**kl: float) -> Suppression:
    """KL by what is ablated, in nats: the whole head, the rest; and of the direct effect."""
    labels = {
        "whole": BATTERY.ablated(HEAD, 4).label,
        "rest": BATTERY.kept(HEAD).label,
        "direct_whole": BATTERY.ablated(HEAD, 4, direct=True).label,
        "direct_rest": BATTERY.kept(HEAD, direct=True).label,
    }
    table = make_table(dict.fromkeys(labels.values(), 0.0))
    rng = np.random.default_rng(0)
    for name, label in labels.items():
        drawn = kl[name] * rng.uniform(0.8, 1.2, N)
        table.loc[table["intervention"] == label, "kl"] = drawn
    return Suppression("model", "facts", table, 1e-6, battery=BATTERY, n_layers=4)


def test_the_share_that_is_explained_is_found():
    found = made(whole=0.4, rest=0.1, direct_whole=0.2, direct_rest=0.18)
    share = found.explained(HEAD)
    assert share.low < 0.75 < share.high and share.high - share.low < 0.2
    direct = found.explained(HEAD, direct=True)
    assert direct.low < 0.1 < direct.high


def test_of_a_head_without_effect_nothing_is_explained():
    with pytest.raises(RatioUndefined):
        made(whole=1e-9, rest=0.0, direct_whole=1.0, direct_rest=0.0).explained(HEAD)


@pytest.mark.slow
def test_a_claim_asks_for_it_and_a_bridge_confirms_it(tmp_path):
    """Of an embedded model; plain hooks do not see attention weights, and say so."""
    bench = bench_of("tiny-mistral", tmp_path, share=0.2)
    heads = (Head(0, 7), Head(1, 2))
    battery = CopySuppressors(heads, share=0.5)
    found = Findings(bench).copy_suppression("facts", battery)
    assert found.explained(heads[0]).estimate < 1.0
    verified = json.loads((bench.run("facts", battery).path / "verify.json").read_text())
    (check,) = verified["backends"]
    assert check["largest"] < 1e-4 < check["tolerance"]
    (why,) = verified["backends_not_made"].values()
    assert "inside a module of the model" in why
