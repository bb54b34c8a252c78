"""Differences of independent estimates.

Run: pytest tests/statistics/test_independent.py
"""

import numpy as np
import pytest

from tinyablation.statistics.clusters import StatisticsError
from tinyablation.statistics.independent import independent_difference
from tinyablation.statistics.intervals import Estimate, cluster_interval


def test_the_ends_that_face_each_other_are_added_as_variances() -> None:
    found = independent_difference(Estimate(5, 2, 6, 30, 20), Estimate(1, -2, 5, 40, 24))
    assert found == (4, 4 - 5, pytest.approx(4 + 10**0.5), 70, 20)


def test_a_figure_without_error_shifts_the_other() -> None:
    found = independent_difference(Estimate(0.5, 0.4, 0.7, 30, 20), Estimate(0.1, 0.1, 0.1, 9, 9))
    assert found[:3] == (pytest.approx(0.4), pytest.approx(0.3), pytest.approx(0.6))


def test_an_interval_that_lies_beside_its_estimate_is_refused() -> None:
    with pytest.raises(StatisticsError, match="no estimate within its interval"):
        independent_difference(Estimate(1, 2, 3, 9, 9), Estimate(1, 0, 2, 9, 9))


@pytest.mark.slow
@pytest.mark.parametrize("skewed", [False, True])
def test_the_difference_lies_in_its_interval_as_often_as_it_says(skewed: bool) -> None:
    """20 clusters against 24 of another spread, 500 times; 95 % is 475 +- 10 (two errors)."""
    rng = np.random.default_rng(0)
    draw = rng.standard_exponential if skewed else rng.standard_normal
    true = (1.0 if skewed else 0.0) * (1 - 3)
    held = 0
    for _ in range(500):
        one, other = draw(20), 3 * draw(24)
        parts = (cluster_interval(each, range(len(each)), rng) for each in (one, other))
        found = independent_difference(*parts)
        held += found.low <= true <= found.high
    assert held >= 463
