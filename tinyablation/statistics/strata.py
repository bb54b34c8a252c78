"""Strata: kinds of examples whose shares were fixed by design, not drawn.

The wordings and cells of a corpus are chosen, and every fact comes in them; which of them an
example is of says much about its figure and nothing about how another draw of facts would turn out.
So a mean over examples is taken as the mean over strata in their given shares, and its error is
that of what is left around each stratum's own mean (post-stratification with fixed weights: Cochran
1977, ch. 5A.9), summed by cluster.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]

# A stratum of fewer clusters joins the others that are too small: its own mean would be fitted to
# a few examples and hide their spread.
LEAST_CLUSTERS = 8


def stratum_index(strata: Sequence[object], clusters: Indices) -> tuple[Indices, int]:
    """The stratum number of each example, [n], and the number of strata.

    strata [n]: labels; clusters [n]: numbers. Strata of fewer than LEAST_CLUSTERS clusters become
    one; if that one still has too few, it joins the largest.
    """
    names = sorted({str(name) for name in strata})
    number = {name: position for position, name in enumerate(names)}
    index = np.array([number[str(name)] for name in strata], dtype=np.intp)
    counts = _cluster_counts(index, clusters)
    small = counts < LEAST_CLUSTERS
    if small.any():
        rest = len(names)
        index = np.where(small[index], rest, index)
        counts = _cluster_counts(index, clusters)
        if counts[rest] < LEAST_CLUSTERS:
            index[index == rest] = int(np.argmax(counts[:rest]))
    _, index = np.unique(index, return_inverse=True)
    return index.astype(np.intp), int(index.max()) + 1


def _cluster_counts(index: Indices, clusters: Indices) -> Indices:
    """How many clusters each stratum is in, up to the last stratum."""
    return np.bincount(np.unique(np.stack([index, clusters]), axis=1)[0])


def residuals(values: Floats, index: Indices, n: int) -> Floats:
    """[n_examples] values minus the mean of their stratum, scaled for the means that were fitted.

    The factor sqrt((examples - 1) / (examples - strata)) makes up for the spread that n fitted
    means take away; it is 1 for one stratum.
    """
    sums = np.bincount(index, weights=values, minlength=n)
    means = sums / np.bincount(index, minlength=n)
    factor = np.sqrt((len(values) - 1) / (len(values) - n))
    left: Floats = (values - means[index]) * factor
    return left
