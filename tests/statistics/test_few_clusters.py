"""How few clusters widen an interval. Run: pytest tests/statistics/test_few_clusters.py"""

import numpy as np
import pytest

from tinyablation.statistics.few_clusters import ENOUGH_CLUSTERS, bootstrap_tail
from tinyablation.statistics.intervals import cluster_interval


def test_fewer_clusters_than_are_enough_take_a_smaller_tail():
    assert bootstrap_tail(0.95, ENOUGH_CLUSTERS) == pytest.approx(0.025)
    assert bootstrap_tail(0.95, ENOUGH_CLUSTERS - 1) == pytest.approx(0.01)


def test_a_long_tail_below_is_kept_out_of_the_lower_end_by_twelve_clusters():
    """Exponential means, turned: the lower end lies above the truth in .018 of 800 data sets."""
    rng = np.random.default_rng(3)
    above = 0
    for _ in range(400):
        means = 1.0 - rng.exponential(size=12)
        found = cluster_interval(
            np.repeat(means, 3), np.repeat(np.arange(12), 3).tolist(), rng, resamples=500
        )
        above += found.low > 0
    assert above / 400 <= 0.045
