"""The bootstrap of any statistic over clusters: its draws, and the ends of its intervals.

The draws are those of scipy.stats.bootstrap, in its order, and so are the intervals (Efron and
Tibshirani 1993, ch. 13 and 14; tests compare them). Without its wrappers around a statistic that
is computed one resample at a time, and without the .5 s that scipy.stats takes to import. As there,
a statistic may be `vectorized`: it takes the rows of many resamples, an array [n, rows] a table,
and returns a figure for each, [n]; its clusters are then of one size.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

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


def bca_ends(
    statistic: Statistic,
    tables: Sequence[ClusterRows],
    distribution: Floats,
    estimate: float,
    *,
    confidence: float,
    paired: bool = False,
    vectorized: bool = False,
) -> tuple[float, float] | None:
    """The bias-corrected and accelerated ends (Efron and Tibshirani 1993, eq. 14.9 to 14.15).

    None where they are undefined: no resample, or every one, falls below the estimate, or leaving
    any cluster out changes nothing.
    """
    from scipy.special import ndtr, ndtri

    below = np.count_nonzero(distribution < estimate)
    if not 0 < below < len(distribution):
        return None
    below += np.count_nonzero(distribution <= estimate)  # a tie counts a half
    bias = float(ndtri(below / (2 * len(distribution))))
    cubes, squares = 0.0, 0.0
    for without in _left_out(statistic, tables, paired, vectorized):
        n = len(without)
        influence = (n - 1) * (without.mean() - without)
        cubes += float((influence**3).sum()) / n**3
        squares += float((influence**2).sum()) / n**2
    if squares == 0:
        return None
    acceleration = cubes / squares**1.5 / 6
    tail = float(ndtri((1 - confidence) / 2))
    shares = []
    for corrected in (bias + tail, bias - tail):
        shares.append(float(ndtr(bias + corrected / (1 - acceleration * corrected))))
    low, high = np.quantile(distribution, shares)
    return float(low), float(high)


def _left_out(
    statistic: Statistic, tables: Sequence[ClusterRows], paired: bool, vectorized: bool
) -> list[Floats]:
    """The statistic without each cluster: an array for each table, or one where they are paired."""
    found = []
    for place in range(1 if paired else len(tables)):
        k = tables[place].k
        without = np.array([np.delete(np.arange(k), cluster) for cluster in range(k)])
        draws = [
            without
            if paired or other == place
            else np.broadcast_to(np.arange(table.k), (k, table.k))
            for other, table in enumerate(tables)
        ]
        found.append(_figures(statistic, tables, draws, vectorized))
    return found
