"""The bootstrap of any statistic over clusters: its draws, and the ends of its intervals.

The draws are those of scipy.stats.bootstrap, in its order, and so are the intervals (Efron and
Tibshirani 1993, ch. 13 and 14; tests compare them). Without its wrappers around a statistic that
is computed one resample at a time, and without the .5 s that scipy.stats takes to import.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]
Statistic = Callable[[list[Indices]], float]


class ClusterRows:
    """The rows of one table by cluster, ready to be gathered for many draws of clusters.

    index [n_examples]: the cluster of each row, 0 to k - 1, none of them empty.
    """

    def __init__(self, index: Indices, k: int) -> None:
        self.k = k
        self._rows = [np.flatnonzero(index == cluster) for cluster in range(k)]
        sizes = {len(rows) for rows in self._rows}
        # Clusters of one size, as most corpora have, are gathered in one step: a fifth of the time.
        self._table = np.stack(self._rows) if len(sizes) == 1 else None

    def of(self, draw: Indices) -> Indices:
        """The rows of the drawn clusters, one cluster after the other."""
        if self._table is not None:
            return self._table[draw].reshape(-1)
        return np.concatenate([self._rows[cluster] for cluster in draw])


def bootstrap(
    statistic: Statistic,
    tables: Sequence[ClusterRows],
    rng: np.random.Generator,
    *,
    resamples: int,
    paired: bool = False,
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
    return np.array(
        [
            statistic([table.of(draw[n]) for table, draw in zip(tables, draws, strict=True)])
            for n in range(resamples)
        ]
    )


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
    for without in _left_out(statistic, tables, paired):
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


def _left_out(statistic: Statistic, tables: Sequence[ClusterRows], paired: bool) -> list[Floats]:
    """The statistic without each cluster: an array for each table, or one where they are paired."""
    everything = [np.arange(table.k) for table in tables]

    def without(place: int, cluster: int) -> float:
        draws = [
            np.delete(draw, cluster) if paired or other == place else draw
            for other, draw in enumerate(everything)
        ]
        return statistic([table.of(draw) for table, draw in zip(tables, draws, strict=True)])

    places = range(1 if paired else len(tables))
    return [
        np.array([without(place, cluster) for cluster in range(tables[place].k)])
        for place in places
    ]
