"""Differences of figures that rest on different examples. Pure."""

import math

from tinyablation.statistics.clusters import StatisticsError
from tinyablation.statistics.intervals import Estimate


def independent_difference(one: Estimate, other: Estimate) -> Estimate:
    """one - other, of independent samples, with an interval of the confidence of both.

    Each end is as far away as the ends facing it are together, in root mean squares: the method of
    variance estimates recovery (Zou and Donner 2008, Statistics in Medicine 27:1693), which keeps
    intervals that are longer on one side so. The number of clusters is the smaller of the two, so
    that tests on it are cautious. Raises StatisticsError for an interval that does not contain its
    estimate.
    """
    for each in (one, other):
        if not each.low <= each.estimate <= each.high:
            raise StatisticsError(f"{list(each[:3])} is no estimate within its interval")
    difference = one.estimate - other.estimate
    down = math.hypot(one.estimate - one.low, other.high - other.estimate)
    up = math.hypot(one.high - one.estimate, other.estimate - other.low)
    return Estimate(
        difference,
        difference - down,
        difference + up,
        one.n + other.n,
        min(one.n_clusters, other.n_clusters),
    )
