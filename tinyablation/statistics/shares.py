"""Shares of examples, with an interval that holds for shares near 0 and 1 too. Pure."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tinyablation.statistics.clusters import StatisticsError, cluster_index, cluster_totals
from tinyablation.statistics.intervals import Estimate, check_draws, checked_figures

Floats = NDArray[np.float64]

# Gauss-Legendre nodes u in (0, 1) of an integral over t = u / (1 - u): so many give the ends of
# Clopper and Pearson's interval to 1e-6.
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(200)
_T = (1 + _NODES) / (1 - _NODES)
_DT = 2 * _WEIGHTS / (1 - _NODES) ** 2
_HALVINGS = 30  # of [0, 1]: to 1e-9


def share_interval(
    values: ArrayLike, clusters: Sequence[object], *, confidence: float = 0.95
) -> Estimate:
    """Share of examples, with an interval that treats clusters as the units of observation.

    values [n_examples]: 1 or True where an example counts, 0 or False where it does not; clusters
    [n_examples]: labels. Each end is Gaffke's bound for the mean of what lies within [0, 1] (2005,
    Mathematical Methods of Statistics 14:451; Learned-Miller and Thomas 2019, arXiv:1905.06208):
    the quantile (1 - confidence) / 2 of the share if the clusters, and one more in which no example
    (for the upper end: every example) counts, have random weights, exponential ones. The further
    cluster is of the mean size. Where the examples of a cluster are all alike and clusters are of
    one size, that is the exact binomial interval of Clopper and Pearson over clusters: [.912, 1]
    for 40 clusters of 40. Where they are not it is shorter, and one more example that counts never
    lowers an end. Nothing is drawn at random.

    Coverage of the nominal 95 % for a share of .9, of 1,000 simulated data sets each, with
    24 / 40 / 97 clusters: wholly right or wrong .993 .968 .966, the same of uneven sizes .991 .960
    .965, nearly so .984 .981 .972, examples independent .982 .988 .979. The lower end was above the
    truth in at most .022 of 500, for .025. Not used: cluster_interval, which has zero width where
    all examples are alike, and its lower end above the truth in .185 / .080 / .080 of data sets of
    16 / 24 / 40 clusters that are wholly right or wrong; nor Korn and Graubard's interval (1998),
    whose effective sample size comes from the few examples that go wrong (.042 / .075 / .015 where
    clusters are nearly so), so that 159 examples of 160 look better than 160.

    Raises StatisticsError for no values, one that is not within [0, 1], a missing label, fewer than
    two clusters.
    """
    data = checked_figures(values, "values", ndim=1)
    if data.min() < 0 or data.max() > 1:
        raise StatisticsError("a share is of values from 0 to 1; these have others")
    check_draws(confidence)
    index, k = cluster_index(clusters, len(data))
    sizes = cluster_totals(index, np.ones(len(data)), k)
    sums = cluster_totals(index, data, k)
    tail = (1 - confidence) / 2
    low, high = _lower_end(sums, sizes, tail), 1 - _lower_end(sizes - sums, sizes, tail)
    return Estimate(float(data.mean()), low, high, len(data), k)


def _lower_end(sums: Floats, sizes: Floats, tail: float) -> float:
    """The `tail` quantile of the share: the one that weighted clusters reach so often at most."""
    pairs = np.stack([np.append(sums, 0.0), np.append(sizes, sizes.mean())])
    alike, times = np.unique(pairs, axis=1, return_counts=True)
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        share = (low + high) / 2
        if _not_above_zero(alike[0] - share * alike[1], times) < tail:
            low = share
        else:
            high = share
    return low


def _not_above_zero(factors: Floats, times: NDArray[np.intp]) -> float:
    """P(sum of factor x exponential <= 0), each factor as often as `times` says.

    From the characteristic function, prod (1 - i factor t)^-times, by Gil-Pelaez (1951, Biometrika
    38:481), as Imhof (1961, Biometrika 48:419) does for the same sums of chi-squared variables.
    """
    scaled = np.outer(_T, factors / np.sqrt(times @ factors**2))
    angle = np.arctan(scaled) @ times
    modulus = np.exp(-np.log1p(scaled**2) @ times / 2)
    return float(0.5 - np.sum(_DT * np.sin(angle) * modulus / _T) / np.pi)
