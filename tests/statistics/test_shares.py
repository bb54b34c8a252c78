"""Intervals of shares, near 0 and 1 above all. Run: pytest tests/statistics/test_shares.py"""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tinyablation.statistics.clusters import StatisticsError
from tinyablation.statistics.intervals import (
    DegenerateInterval,
    cluster_interval,
    generator,
)
from tinyablation.statistics.shares import share_interval

PROPERTIES = settings(max_examples=12, deadline=None, derandomize=True, database=None)


def wholly(right, k, size=4):
    """`right` of k clusters with all examples right, the others with none."""
    labels = np.repeat(np.arange(k), size)
    return (labels < right).astype(float), labels.tolist()


@pytest.mark.parametrize("confidence", [0.95, 0.98])
@pytest.mark.parametrize("k", [2, 5, 16, 40, 97])
def test_of_clusters_that_are_alike_it_is_the_exact_binomial_one(k, confidence):
    for right in {0, 1, k // 2, k - 1, k}:
        found = share_interval(*wholly(right, k), confidence=confidence)
        exact = stats.binomtest(right, k).proportion_ci(confidence, method="exact")
        assert (found.low, found.high) == pytest.approx((exact.low, exact.high), abs=2e-6)
        assert found.estimate == right / k and found.n == 4 * k and found.n_clusters == k


def test_forty_of_forty_clusters():
    assert share_interval(*wholly(40, 40))[1:3] == pytest.approx((0.9119, 1.0), abs=1e-4)
    assert share_interval(*wholly(0, 40))[1:3] == pytest.approx((0.0, 0.0881), abs=1e-4)


@pytest.mark.parametrize("size", [1, 4])
def test_nearly_all_is_no_better_than_all(size):
    """One prompt wrong, then two and so on, each in a cluster of its own or all in the same."""
    values, labels = wholly(40, 40, size)
    for order in (np.arange(40) * size, np.arange(40 * size)):
        ends = [share_interval(values, labels)]
        for wrong in (1, 2, 3, 4, 8, 16, 39):
            changed = values.copy()
            changed[order[:wrong]] = 0.0
            ends.append(share_interval(changed, labels))
        for better, worse in pairwise(ends):
            assert worse.low <= better.low and worse.high <= better.high


@PROPERTIES
@given(st.data())
def test_one_more_example_that_counts_lowers_no_end(data):
    sizes = data.draw(st.lists(st.integers(1, 6), min_size=2, max_size=20))
    labels = np.repeat(np.arange(len(sizes)), sizes).tolist()
    values = np.array(data.draw(st.lists(st.booleans(), min_size=sum(sizes), max_size=sum(sizes))))
    found = share_interval(values, labels)
    assert 0 <= found.low <= found.estimate <= found.high <= 1 and found.low < found.high
    for row in np.flatnonzero(~values)[:3]:
        better = values.copy()
        better[row] = True
        one = share_interval(better, labels)
        assert one.low >= found.low - 1e-6 and one.high >= found.high - 1e-6
    other = share_interval(~values, labels)
    assert (1 - other.high, 1 - other.low) == pytest.approx((found.low, found.high), abs=1e-6)


def test_it_is_the_quantile_of_clusters_with_random_weights():
    """As its sources define it, by drawing, of clusters of uneven sizes."""
    rng = generator(0, "weights")
    sizes = rng.integers(1, 9, size=20)
    labels = np.repeat(np.arange(20), sizes)
    values = (rng.random(len(labels)) < 0.8).astype(float)
    sums = np.bincount(labels, weights=values)
    weights = rng.exponential(size=(200_000, 21))
    total = weights @ np.append(sizes, sizes.mean())
    low = np.quantile(weights[:, :20] @ sums / total, 0.025)
    high = np.quantile((weights[:, :20] @ sums + weights[:, 20] * sizes.mean()) / total, 0.975)
    found = share_interval(values, labels.tolist())
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.002)


def test_clusters_that_disagree_within_say_more():
    """Half of each cluster right, rather than all of half of the clusters."""
    half = np.tile([1.0, 1.0, 0.0, 0.0], 40)
    within, between = share_interval(half, np.repeat(range(40), 4).tolist()), wholly(20, 40)
    whole = share_interval(*between)
    assert within.high - within.low < 0.6 * (whole.high - whole.low)


def wrongly_supported(interval, k):
    """P(the lower end lies above the true share, .9), of clusters that are alike: exactly."""
    supported = [right for right in range(k // 2, k + 1) if interval(*wholly(right, k)).low > 0.9]
    return sum(stats.binom.pmf(supported, k, 0.9))


def bootstrapped(values, labels):
    """The interval of a mean, of zero width where there is none: what shares had before."""
    try:
        return cluster_interval(
            values, labels, generator(0, "before"), widened=False, bounds=(0.0, 1.0)
        )
    except DegenerateInterval:
        return share_interval(values, labels)._replace(low=values.mean(), high=values.mean())


def test_a_share_at_the_floor_is_seldom_said_to_lie_above_it():
    assert wrongly_supported(share_interval, 16) == 0
    assert wrongly_supported(share_interval, 24) == 0
    assert 0 < wrongly_supported(share_interval, 40) < 0.025


def test_the_interval_of_a_mean_would_say_so_too_often():
    assert wrongly_supported(bootstrapped, 16) > 0.15
    assert wrongly_supported(bootstrapped, 24) > 0.05
    assert wrongly_supported(bootstrapped, 40) > 0.05


@pytest.mark.parametrize(
    ("values", "labels", "message"),
    [
        ([], [], "n = 0"),
        ([1.0, np.nan], ["a", "b"], "finite"),
        ([0.0, 1.5], ["a", "b"], "from 0 to 1"),
        ([-0.1, 1.0], ["a", "b"], "from 0 to 1"),
        ([0.0, 1.0], ["a", ""], "cluster id"),
        ([0.0, 1.0], ["a", "a"], "at least 2"),
        ([0.0, 1.0], ["a"], "1 cluster ids for 2"),
    ],
)
def test_what_has_no_share(values, labels, message):
    with pytest.raises(StatisticsError, match=message):
        share_interval(values, labels)


def test_a_confidence_lies_between_0_and_1():
    with pytest.raises(StatisticsError, match="confidence"):
        share_interval([0.0, 1.0], ["a", "b"], confidence=95)
