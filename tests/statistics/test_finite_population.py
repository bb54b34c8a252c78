"""Run: pytest tests/statistics/test_finite_population.py"""

from itertools import combinations
from math import comb

import pytest
from scipy import stats

from tinyablation.statistics.clusters import StatisticsError
from tinyablation.statistics.finite_population import most_in_population


@pytest.mark.parametrize(("population", "sample"), [(7, 3), (8, 1), (8, 7), (6, 6)])
def test_the_bound_is_the_one_found_by_trying_every_sample(population, sample):
    heads = range(population)
    for found in range(sample + 1):
        possible = []
        for having in range(population + 1):
            draws = list(combinations(heads, sample))
            hits = [sum(head < having for head in draw) for draw in draws]
            as_few = sum(hit <= found for hit in hits) / len(draws)
            if found in hits and as_few > 0.05:
                possible.append(having)
        assert most_in_population(population, sample, found) == max(possible)


@pytest.mark.parametrize("sample", [1, 4, 16, 39, 40])
def test_the_bound_covers_whatever_the_truth(sample):
    """In at least 95 % of draws no more have it than the bound says, for every true number."""
    population = 40
    bounds = [most_in_population(population, sample, found) for found in range(sample + 1)]
    for having in range(population + 1):
        missed = sum(
            comb(having, found) * comb(population - having, sample - found)
            for found in range(max(0, sample - population + having), min(sample, having) + 1)
            if bounds[found] < having
        )
        assert missed / comb(population, sample) <= 0.05
    assert bounds == sorted(bounds)


def test_the_bound_of_a_large_population_is_that_of_clopper_and_pearson():
    for sample, found in ((64, 0), (64, 3), (20, 19)):
        share = most_in_population(200_000, sample, found) / 200_000
        assert share == pytest.approx(stats.beta.ppf(0.95, found + 1, sample - found), abs=0.001)
    # 64 heads drawn, none found: README's 5 % of those not drawn, in a model of some 1,000 heads.
    assert most_in_population(900, 64, 0) / (900 - 64) == pytest.approx(0.0467, abs=5e-4)


def test_a_bound_without_a_sample_is_the_population():
    assert most_in_population(12, 0, 0) == 12
    assert most_in_population(0, 0, 0) == 0
    assert most_in_population(12, 12, 2) == 2
    for counts in ((3, 4, 0), (5, 3, 4), (5, 3, -1)):
        with pytest.raises(StatisticsError, match="cannot be counts"):
            most_in_population(*counts)
    for confidence in (0.0, 1.0):
        with pytest.raises(StatisticsError, match="between 0 and 1"):
            most_in_population(5, 3, 1, confidence=confidence)


def test_what_is_just_as_likely_as_the_error_allows_is_excluded():
    """One of two drawn: where one of them has it, none is found in half of the draws."""
    assert most_in_population(2, 1, 0, confidence=0.5) == 0
    assert most_in_population(2, 1, 0, confidence=0.51) == 1
