"""Bounds on what was not drawn, from a sample without replacement."""

import numpy as np

from tinyablation.statistics.clusters import StatisticsError


def most_in_population(
    population: int, sample: int, found: int, *, confidence: float = 0.95
) -> int:
    """The exact upper bound on how many of a population have what `found` of a sample have.

    The sample was drawn without replacement. The bound is the largest D with P(at most found | D) >
    1 - confidence under the hypergeometric distribution: the one-sided interval of Clopper and
    Pearson (1934) for a finite population. It is too small with probability at most
    1 - confidence. Without a sample it is the population.

    Raises StatisticsError for impossible counts.
    """
    from scipy import stats  # .5 s to import, and claims are collected without it

    if not 0 <= found <= sample <= population:
        raise StatisticsError(
            f"{found} found in a sample of {sample} out of {population}: these cannot be counts"
        )
    if not 0 < confidence < 1:
        raise StatisticsError(f"confidence is {confidence}; it must lie between 0 and 1")
    if not sample:
        return population
    possible = np.arange(found, population - (sample - found) + 1)
    as_few = stats.hypergeom.cdf(found, population, possible, sample)
    return int(possible[as_few > 1 - confidence][-1])
