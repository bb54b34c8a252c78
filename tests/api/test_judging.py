"""Run: pytest tests/api/test_judging.py"""

import numpy as np
import pytest

from tinyablation.api.errors import ApiError
from tinyablation.api.judging import judge_table
from tinyablation.errors import TinyAblationError
from tinyablation.records.splits import BOTH
from tinyablation.statistics.clusters import StatisticsError

N, K = 120, 40  # prompts, clusters
CLUSTERS = [f"fact {n % K}" for n in range(N)]
CLEAN = np.full(N, 4.0)  # logits; the minimum effect is .2


def drawn(mean: float, spread: float = 0.1) -> np.ndarray:
    return np.random.default_rng(0).normal(mean, spread, N)


@pytest.mark.parametrize(
    ("mean", "spread", "alternative", "status"),
    [
        (0.5, 0.1, "greater", "supported"),
        (0.1, 0.1, "greater", "present"),
        (0.0, 0.1, "greater", "refuted"),
        (-0.5, 0.1, "greater", "refuted"),
        (0.2, 2.0, "greater", "inconclusive"),
        (-0.5, 0.1, "less", "supported"),
        (-0.1, 0.1, "less", "present"),
        (0.5, 0.1, "less", "refuted"),
    ],
)
def test_every_verdict_can_be_had(mean, spread, alternative, status):
    verdict = judge_table(drawn(mean, spread), CLEAN, CLUSTERS, alternative=alternative)
    assert verdict.status == status
    assert (verdict.effect.n, verdict.effect.n_clusters) == (N, K)
    assert abs(verdict.floor) == pytest.approx(0.2)


def test_a_small_effect_does_not_count_however_small_ld_is():
    """5 % of a clean LD of .02 is .001 logits; an effect must be beyond .01."""
    clean, values = np.full(N, 0.02), drawn(0.005, 0.0005)
    assert judge_table(values, clean, CLUSTERS).status == "present"
    assert judge_table(-values, clean, CLUSTERS, alternative="less").status == "present"


def test_figures_of_a_sweep_are_judged_as_the_sweep_judges_them(model, tuples):
    """The draws of the bootstrap differ, so the intervals do by hundredths of their width."""
    sweep = model.sweep(tuples)
    for head in ("L0H7", "L0H1", "L1H1", "L0H5"):
        own = sweep.verdict(head)
        rows = sweep.rows.sort_values("example")
        clean = rows[rows["method"] == "none"]
        layer, number = own.subject[1], own.subject[3]
        zeroed = rows[(rows["layer"] == int(layer)) & (rows["head"] == int(number))]
        baseline = clean["logit_diff"].to_numpy()
        delta = zeroed["logit_diff"].to_numpy() - baseline
        strata = clean["template_id"] + clean["cell"]
        noise = sweep.effects.noise()
        found = judge_table(delta, baseline, clean["cluster_id"], strata, noise=noise)
        assert found.status == own.status
        assert found.effect.estimate == pytest.approx(own.effect.estimate, abs=1e-12)
        assert found.margin.estimate == pytest.approx(own.margin.estimate, abs=1e-12)
        assert found.floor == pytest.approx(own.floor, abs=1e-12)
        width = own.effect.high - own.effect.low
        assert found.effect.low == pytest.approx(own.effect.low, abs=0.05 * width)
        assert found.effect.high == pytest.approx(own.effect.high, abs=0.05 * width)


def test_examples_of_one_cluster_are_not_independent():
    """The same figures: in clusters of three alike, the interval is wider."""
    values = np.repeat(drawn(0.3, 0.2)[:K], 3)
    alike = judge_table(values, CLEAN, np.repeat(np.arange(K), 3)).effect
    apart = judge_table(values, CLEAN, list(range(N))).effect
    assert alike.high - alike.low > 1.5 * (apart.high - apart.low)


def test_strata_take_out_what_the_design_fixed():
    wording = np.array(["asked", "told", "said"])[np.arange(N) // K]
    values = drawn(0.3, 0.05) + np.where(wording == "asked", 1.0, 0.0) + 0.2 * (np.arange(N) < 20)
    without = judge_table(values, CLEAN, [str(n) for n in range(N)]).effect
    with_ = judge_table(values, CLEAN, [str(n) for n in range(N)], wording).effect
    assert with_.estimate == without.estimate
    assert with_.high - with_.low < 0.5 * (without.high - without.low)


def test_the_noise_of_an_engine_bounds_what_it_can_show():
    assert judge_table(drawn(0.5), CLEAN, CLUSTERS, noise=1.0).status == "inconclusive"


def test_the_seed_draws_and_the_rest_is_the_same():
    values = drawn(0.5)
    assert judge_table(values, CLEAN, CLUSTERS) == judge_table(values, CLEAN, CLUSTERS)
    other = judge_table(values, CLEAN, CLUSTERS, seed=1).effect
    assert other.estimate == judge_table(values, CLEAN, CLUSTERS).effect.estimate
    assert other.high != judge_table(values, CLEAN, CLUSTERS).effect.high


def test_its_verdict_says_what_it_is_about():
    verdict = judge_table(
        drawn(0.5), CLEAN, CLUSTERS, subject="zeroing L9H9", model="theirs", condition="ioi"
    )
    assert (verdict.model, verdict.condition, verdict.split) == ("theirs", "ioi", BOTH)
    assert verdict.reason.startswith("zeroing L9H9: ")


@pytest.mark.parametrize(
    ("changed", "error", "said"),
    [
        ({"delta": []}, StatisticsError, "delta is empty"),
        ({"delta": [*drawn(0.5)[1:], np.nan]}, StatisticsError, "delta: nan"),
        ({"delta": np.zeros((2, N))}, StatisticsError, "delta has shape (2, 120)"),
        ({"baseline": CLEAN[1:]}, ApiError, "baseline has 119 entries for 120 of delta"),
        ({"clusters": CLUSTERS[1:]}, ApiError, "clusters has 119 entries for 120 of delta"),
        ({"strata": ["a"]}, ApiError, "strata has 1 entries for 120 of delta"),
        ({"clusters": ["one"] * N}, StatisticsError, "1 cluster(s) of examples"),
        ({"clusters": [None, *CLUSTERS[1:]]}, StatisticsError, "example 0 has no cluster id"),
        ({"alternative": "more"}, ApiError, "alternative 'more': "),
        ({"noise": -1.0}, ApiError, "noise is -1.0; give 0 or more"),
        ({"noise": float("nan")}, ApiError, "noise is nan; give 0 or more"),
    ],
)
def test_what_cannot_be_judged_is_said_in_one_line(changed, error, said):
    given = {"delta": drawn(0.5), "baseline": CLEAN, "clusters": CLUSTERS} | changed
    with pytest.raises(error) as raised:
        judge_table(**given)
    assert isinstance(raised.value, TinyAblationError)
    assert said in str(raised.value) and "\n" not in str(raised.value)
