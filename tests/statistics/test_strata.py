"""Strata fixed by design. Run: pytest tests/statistics/test_strata.py"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyablation.statistics.clusters import StatisticsError
from tinyablation.statistics.intervals import DegenerateInterval, cluster_interval
from tinyablation.statistics.ratios import RatioUndefined, ratio_interval
from tinyablation.statistics.strata import LEAST_CLUSTERS, residuals, stratum_index

EFFECTS = np.array([3.0, -2.0, 1.0, -2.0])  # of four wordings; clusters have a spread of 1


def drawn(k, rng, kept=4):
    """Figures in k clusters, each in `kept` of the four wordings, and their labels."""
    rows = np.repeat(np.arange(k), kept)
    wording = np.concatenate([rng.choice(4, kept, replace=False) for _ in range(k)])
    values = rng.normal(size=k)[rows] + 0.5 * rng.normal(size=len(rows)) + EFFECTS[wording]
    return values, [f"c{row}" for row in rows], wording


def test_strata_leave_the_mean_and_take_their_differences_out_of_the_interval():
    values, clusters, wording = drawn(40, np.random.default_rng(0), kept=2)
    plain = cluster_interval(values, clusters, np.random.default_rng(1))
    strata = cluster_interval(values, clusters, np.random.default_rng(1), strata=wording.tolist())
    assert strata.estimate == plain.estimate and strata.n_clusters == plain.n_clusters == 40
    assert strata.high - strata.low < 0.7 * (plain.high - plain.low)


def test_one_stratum_is_none():
    values, clusters, _ = drawn(30, np.random.default_rng(0))
    plain = cluster_interval(values, clusters, np.random.default_rng(1))
    one = cluster_interval(values, clusters, np.random.default_rng(1), strata=["a"] * len(values))
    assert one == plain


def test_intervals_with_strata_cover_the_truth_at_the_nominal_rate():
    rng = np.random.default_rng(5)
    held = above = 0
    for _ in range(400):
        values, clusters, wording = drawn(24, rng, kept=2)
        found = cluster_interval(
            values - EFFECTS[wording].mean(), clusters, rng, strata=wording.tolist(), resamples=400
        )
        held += found.low <= 0 <= found.high
        above += found.low > 0
    assert held / 400 >= 0.92 and above / 400 <= 0.045


def test_a_ratio_takes_strata_out_of_both_its_parts():
    rng = np.random.default_rng(2)
    below, clusters, wording = drawn(40, rng, kept=2)
    below = below + 8
    above = 0.5 * below + 0.3 * rng.normal(size=len(below)) + EFFECTS[wording]
    plain = ratio_interval(above, below, clusters, np.random.default_rng(1))
    strata = ratio_interval(
        above, below, clusters, np.random.default_rng(1), strata=wording.tolist()
    )
    assert strata.estimate == pytest.approx(plain.estimate)
    assert strata.high - strata.low < 0.7 * (plain.high - plain.low)


def test_two_strata_are_enough_to_be_taken_out_of_a_ratio():
    rng = np.random.default_rng(4)
    below, clusters, wording = drawn(40, rng, kept=2)
    two = (wording == 0).tolist()
    above = 0.5 * below + EFFECTS[wording] * (wording == 0)
    with_strata, plain = (
        ratio_interval(above + 4, below + 8, clusters, np.random.default_rng(1), strata=strata)
        for strata in (two, None)
    )
    assert with_strata.high - with_strata.low < 0.8 * (plain.high - plain.low)


def test_a_denominator_may_be_above_zero_only_once_its_strata_are_taken_out():
    rng = np.random.default_rng(2)
    below, clusters, wording = drawn(40, rng, kept=1)
    below = below + 0.5
    above = 0.5 * below + 0.3 * rng.normal(size=len(below))
    with pytest.raises(RatioUndefined, match="not wholly above 0"):
        ratio_interval(above, below, clusters, np.random.default_rng(1))
    found = ratio_interval(
        above, below, clusters, np.random.default_rng(1), strata=wording.tolist()
    )
    assert 0 < found.low < 0.5 < found.estimate < found.high


def test_one_stratum_is_none_for_a_ratio_either():
    rng = np.random.default_rng(3)
    below, clusters, _ = drawn(12, rng, kept=3)
    rows = [row for row in range(len(below)) if row % 5]  # clusters of two and of three examples
    below, clusters = below[rows] + 8, [clusters[row] for row in rows]
    above = 0.5 * below + 0.3 * rng.normal(size=len(below))
    plain, one = (
        ratio_interval(above, below, clusters, np.random.default_rng(1), strata=strata)
        for strata in (None, ["a"] * len(below))
    )
    assert one == plain


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 30)), min_size=20, max_size=200))
def test_no_stratum_is_left_with_few_clusters(pairs):
    names, clusters = [name for name, _ in pairs], np.array([cluster for _, cluster in pairs])
    index, n = stratum_index(names, clusters)
    counts = [len(set(clusters[index == number])) for number in range(n)]
    assert sorted(set(index)) == list(range(n)) and len(index) == len(pairs)
    assert n == 1 or min(counts) >= LEAST_CLUSTERS
    # Examples of one name stay together.
    assert all(len(set(index[np.array(names) == name])) == 1 for name in set(names))


def test_small_strata_join_each_other_before_they_join_a_large_one():
    clusters = np.concatenate([np.arange(20), np.arange(5), np.arange(5, 10)])
    names = ["large"] * 20 + ["few"] * 5 + ["fewer"] * 5
    index, n = stratum_index(names, clusters)
    assert n == 2 and len(set(index[20:])) == 1 and index[0] != index[20]


def test_too_few_clusters_together_join_the_largest_and_enough_stay_apart():
    large, medium, few = np.arange(20), np.arange(10), np.arange(3)
    clusters = np.concatenate([medium, large, few, few + 3])
    names = ["a"] * 10 + ["b"] * 20 + ["c"] * 3 + ["d"] * 3
    index, n = stratum_index(names, clusters)
    assert n == 2 and len(set(index[:10])) == 1 and index[0] != index[10]
    assert set(index[30:]) == {index[10]}, "six clusters join the largest, not the first"
    enough = np.concatenate([medium, large, few, np.arange(3, LEAST_CLUSTERS)])
    index, n = stratum_index(names[:33] + ["d"] * (LEAST_CLUSTERS - 3), enough)
    assert n == 3 and len({index[0], index[10], index[30]}) == 3 and index[30] == index[-1]


def test_residuals_have_no_mean_in_any_stratum_and_make_up_for_what_was_fitted():
    values = np.array([1.0, 2.0, 4.0, 8.0, 16.0, 32.0])
    index = np.array([0, 0, 0, 1, 1, 1])
    left = residuals(values, index, 2)
    assert left[:3].sum() == pytest.approx(0) and left[3:].sum() == pytest.approx(0)
    assert left[0] / (1.0 - 7 / 3) == pytest.approx(np.sqrt(5 / 4))


def test_clusters_alike_in_every_stratum_have_no_interval():
    _, clusters, wording = drawn(40, np.random.default_rng(0), kept=2)
    values = EFFECTS[wording]
    with pytest.raises(DegenerateInterval, match="alike"):
        cluster_interval(values, clusters, np.random.default_rng(0), strata=wording.tolist())
    with pytest.raises(StatisticsError, match="3 strata for 80 examples"):
        cluster_interval(values, clusters, np.random.default_rng(0), strata=["a", "b", "c"])


def test_strata_with_just_enough_clusters_stay_apart():
    clusters = np.concatenate([np.arange(20), np.arange(LEAST_CLUSTERS), np.arange(LEAST_CLUSTERS)])
    names = ["large"] * 20 + ["one"] * LEAST_CLUSTERS + ["other"] * LEAST_CLUSTERS
    index, n = stratum_index(names, clusters)
    assert n == 3 and len({index[0], index[20], index[-1]}) == 3
