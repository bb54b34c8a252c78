"""The bootstrap of any statistic over clusters: its draws, and the ends of its intervals.

The draws are those of scipy.stats.bootstrap, in its order, and so are the percentiles before they
are expanded for few clusters (tests compare them). Without its wrappers around a statistic that is
computed one resample at a time, and without the .5 s that scipy.stats takes to import. As there, a
statistic may be `vectorized`: it takes the rows of many resamples, an array [n, rows] a table, and
returns a figure for each, [n]; its clusters are then of one size.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from tinyablation.statistics.student_t import student_quantile

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]
Statistic = Callable[[list[Indices]], float | Floats]

# Resamples of examples held in memory at once: 2^22 indices are 32 MiB.
_BLOCK = 1 << 22


def blocks_of(total: int, width: int) -> list[int]:
    """How many of `total` resamples, each of `width` figures, to hold in memory at a time."""
    size = max(1, _BLOCK // width)
    return [min(size, total - start) for start in range(0, total, size)]


class ClusterRows:
    """The rows of one table by cluster, ready to be gathered for many draws of clusters.

    index [n_examples]: the cluster of each row, 0 to k - 1, none of them empty.
    """

    def __init__(self, index: Indices, k: int) -> None:
        self.k = k
        self.rows = len(index)
        self._rows = [np.flatnonzero(index == cluster) for cluster in range(k)]
        sizes = {len(rows) for rows in self._rows}
        # Clusters of one size, as most corpora have, are gathered in one step: a fifth of the time.
        self._table = np.stack(self._rows) if len(sizes) == 1 else None

    def of(self, draw: Indices) -> Indices:
        """The rows of the drawn clusters, one cluster after the other.

        Of many draws, [n, clusters], where clusters are of one size: [n, rows].
        """
        if self._table is not None:
            return self._table[draw].reshape(*draw.shape[:-1], -1)
        if draw.ndim > 1:
            raise ValueError("clusters differ in size: a statistic of them cannot be vectorized")
        return np.concatenate([self._rows[cluster] for cluster in draw])


def bootstrap(
    statistic: Statistic,
    tables: Sequence[ClusterRows],
    rng: np.random.Generator,
    *,
    resamples: int,
    paired: bool = False,
    vectorized: bool = False,
) -> Floats:
    """The statistic on each resample of the clusters, [resamples].

    statistic takes the rows of each table. paired: one draw of clusters serves all tables, which
    then have equally many.
    """
    draws = [
        rng.integers(0, table.k, size=(resamples, table.k))
        for table in (tables[:1] if paired else tables)
    ]
    if paired:
        draws *= len(tables)
    return _figures(statistic, tables, draws, vectorized)


def _figures(
    statistic: Statistic, tables: Sequence[ClusterRows], draws: Sequence[Indices], vectorized: bool
) -> Floats:
    """The statistic of each of n draws of clusters, a [n, clusters] a table."""
    pairs = list(zip(tables, draws, strict=True))
    if not vectorized:
        return np.array(
            [statistic([table.of(draw[n]) for table, draw in pairs]) for n in range(len(draws[0]))]
        )
    found, start = [], 0
    for count in blocks_of(len(draws[0]), sum(table.rows for table in tables)):
        block = slice(start, start + count)
        found.append(statistic([table.of(draw[block]) for table, draw in pairs]))
        start += count
    return np.concatenate(found)


def percentile_ends(distribution: Floats, confidence: float) -> tuple[float, float]:
    """The quantiles of a bootstrap distribution that leave out equal tails."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(distribution, [tail, 1 - tail])
    return float(low), float(high)


def expanded_confidence(confidence: float, k: int) -> float:
    """The confidence at which percentiles of k clusters cover as often as they should.

    That of sqrt(k / (k - 1)) * t, Student's quantile on k - 1, under the normal (the expanded
    percentile interval: Hesterberg 2015, "What Teachers Should Know About the Bootstrap", American
    Statistician 69). The spread of resamples divides by k where that of a sample divides
    by k - 1, and its own error is what the t is for: .95 becomes .978 at 12 clusters, .965
    at 24.
    """
    from scipy.special import ndtr

    return 1 - 2 * float(ndtr(-_factor(k) * student_quantile((1 + confidence) / 2, k - 1)))


def student_ends(
    distribution: Floats, estimate: float, confidence: float, k: int
) -> tuple[float, float]:
    """estimate -+ Student's t on k - 1 times the standard error of a bootstrap of k clusters.

    That error is the resamples' standard deviation, with the factor sqrt(k / (k - 1)) of
    expanded_confidence.
    """
    error = _factor(k) * float(distribution.std(ddof=1))
    half = student_quantile((1 + confidence) / 2, k - 1) * error
    return estimate - half, estimate + half


def _factor(k: int) -> float:
    return math.sqrt(k / (k - 1))
