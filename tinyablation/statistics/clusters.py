"""Clusters of examples: which example is of which, and sums over each.

A session asks for the numbers of the same examples hundreds of times, so they are kept.
"""

import functools
import numbers
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tinyablation.errors import TinyAblationError
from tinyablation.statistics.strata import stratum_index

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]


class StatisticsError(TinyAblationError):
    """The input is unfit for the statistic: empty, not finite, unclustered or of a wrong shape."""


def cluster_index(clusters: Sequence[object], n: int) -> tuple[Indices, int]:
    """The cluster number of each example, [n], and the number of clusters.

    Clusters are numbered in the order of their sorted labels. Raises StatisticsError for a missing
    label or fewer than two clusters.
    """
    given = tuple(clusters)
    if len(given) == n and set(map(type, given)) == {str} and "" not in given:
        return _numbered(given)
    labels: list[str] = []
    for row, label in enumerate(given):
        if not isinstance(label, (str, numbers.Integral)) or label == "":
            raise StatisticsError(
                f"example {row} has no cluster id ({label!r}); text or int needed"
            )
        labels.append(str(label))
    if len(labels) != n:
        raise StatisticsError(f"{len(labels)} cluster ids for {n} examples")
    return _numbered(tuple(labels))


@functools.lru_cache(maxsize=64)
def _numbered(labels: tuple[str, ...]) -> tuple[Indices, int]:
    number = {label: position for position, label in enumerate(sorted(set(labels)))}
    if len(number) < 2:
        raise StatisticsError(f"{len(number)} cluster(s) of examples; at least 2 are needed")
    found = np.array([number[label] for label in labels], dtype=np.intp)
    found.flags.writeable = False
    return found, len(number)


def strata_of(strata: Sequence[object], clusters: Indices, n: int) -> tuple[Indices, int]:
    """strata.stratum_index; StatisticsError if there is not one label for each of n examples."""
    if len(strata) != n:
        raise StatisticsError(f"{len(strata)} strata for {n} examples")
    return _strata_numbered(tuple(str(name) for name in strata), clusters.tobytes())


@functools.lru_cache(maxsize=64)
def _strata_numbered(labels: tuple[str, ...], clusters: bytes) -> tuple[Indices, int]:
    found, n = stratum_index(labels, np.frombuffer(clusters, dtype=np.intp))
    found.flags.writeable = False
    return found, n


def cluster_totals(index: Indices, weights: Floats, k: int) -> Floats:
    """Sum of the weights [n_examples] in each cluster, [k]."""
    return np.bincount(index, weights=weights, minlength=k).astype(np.float64)
