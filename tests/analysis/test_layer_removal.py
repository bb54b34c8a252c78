"""Losses without layers, on figures whose answer is known and on an embedded model.

Run: pytest tests/analysis/test_layer_removal.py
"""

from dataclasses import replace

import numpy as np
import pytest

from tests.benches import bench_of
from tinyablation.analysis.effects import EffectsError
from tinyablation.analysis.findings import Findings
from tinyablation.analysis.layer_removal import LayerRemoval
from tinyablation.measurement.text_readings import LayerLosses
from tinyablation.statistics.intervals import DegenerateInterval
from tinyablation.verdicts.verdicts import judge_above_floor

# By layer: needed, hardly needed, better left out, of no use, within a percent.
CHANGES = (2.0, 0.1, -0.2, 0.0, 0.005)


def made(changes=CHANGES, n=32, spread=0.04) -> LayerRemoval:
    rng = np.random.default_rng(0)
    whole = 3.0 + 0.5 * rng.normal(size=n)
    noise = spread * rng.normal(size=(n, len(changes)))
    moved = np.array(changes) + noise - noise.mean(axis=0)
    return LayerRemoval(
        "made-up", whole, whole[:, None] + moved, tuple(f"passage {i}" for i in range(n)), 1e-5
    )


@pytest.fixture(scope="module")
def removal() -> LayerRemoval:
    return made()


def test_a_named_layer_has_its_change_with_an_interval_over_passages(removal):
    for layer, mean in enumerate(CHANGES):
        found = removal.change(layer)
        assert found.low < mean < found.high and found.n_clusters == 32
        # The passages differ by far more than this; they are paired.
        assert found.high - found.low < 0.06
        assert removal.factor(layer).estimate == pytest.approx(np.exp(found.estimate))
        assert removal.factor(layer).low == pytest.approx(np.exp(found.low))
    assert removal.perplexity == pytest.approx(np.exp(removal.whole.mean()))
    assert removal.ranked()[0] == 0 and removal.ranked()[-1] == 2


def test_layers_that_were_not_named_are_corrected_for_their_number(removal):
    floor = removal.floor()
    assert floor == 0.01 and floor.minimum and not floor.limited
    assert removal.beyond(floor) == (0, 1)
    assert removal.beyond(1.0) == (0,)
    assert removal.beyond(-floor, alternative="less") == (2,)
    assert removal.beyond(2.5) == ()
    assert removal.p_corrected(0) < 0.01 and removal.p_corrected(3) > 0.05
    # A p beyond a bound is another p.
    assert removal.p_corrected(1, bound=0.1, alternative="greater") > 0.05
    assert removal.p_corrected(1, alternative="greater") < 0.01


def test_of_many_layers_that_do_nothing_few_are_found():
    """Twenty of them: of 40 models some layer is found in 2; without correction in half."""
    corrected = alone = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        nothing = made((0.0,) * 20)
        moved = nothing.whole[:, None] + rng.normal(size=nothing.removed.shape)
        one = replace(nothing, removed=moved, _cache={})
        p = [one.p_corrected(layer, alternative="greater") for layer in range(20)]
        corrected += min(p) <= 0.05
        each = moved - one.whole[:, None]
        t = each.mean(axis=0) / each.std(axis=0, ddof=1) * 32**0.5
        alone += t.max() > 1.7
    assert corrected <= 6 < 12 < alone


def test_the_floor_is_the_noise_where_that_is_larger(removal):
    coarse = replace(removal, noise=0.3)
    assert coarse.floor() == 0.3 and coarse.floor().limited
    verdict = judge_above_floor(coarse.change(1), floor=coarse.floor(), what="layer 1")
    assert verdict.status == "inconclusive"
    verdict = judge_above_floor(removal.change(1), floor=removal.floor(), what="layer 1")
    assert verdict.status == "supported"


def test_a_layer_that_changes_nothing_has_an_interval_of_zero(removal):
    same = replace(removal, removed=np.repeat(removal.whole[:, None], 2, axis=1), _cache={})
    assert same.change(1)[:3] == (0, 0, 0) and same.p_corrected(1) == 1
    with pytest.raises(DegenerateInterval):
        replace(same, removed=same.removed + 0.5).change(1)
    with pytest.raises(EffectsError, match="made-up has no layer 2; it has 2"):
        same.change(2)


@pytest.mark.slow
def test_losses_of_a_model_are_measured_once_whatever_the_corpora(tmp_path):
    """An embedded model has read nothing but the embedded world; it reads text all the same."""
    bench = bench_of("tiny-llama", tmp_path / "store", tmp_path / "no corpora")
    found = Findings(bench).layer_removal(3)
    assert found.removed.shape == (3, bench.facts.n_layers) and found.noise < 1e-4
    assert (found.removed > 0).all() and found.perplexity > 100
    bench.drop_model()
    again = Findings(bench).layer_removal(3)
    assert (again.removed == found.removed).all() and again.runs == found.runs
    assert "model" not in bench.__dict__
    other = bench_of("tiny-llama", tmp_path / "store", tmp_path / "no corpora")
    names = {LayerLosses(*sizes).name(other) for sizes in ((3,), (4,), (3, 64))}
    assert len(names) == 3 and found.runs[0].startswith(f"tiny-llama-{LayerLosses(3).name(other)}")
