"""Which example is of which cluster. Run: pytest tests/statistics/test_clusters.py"""

import numpy as np
import pytest

from tinyablation.statistics.clusters import (
    StatisticsError,
    cluster_index,
    cluster_totals,
    strata_of,
)

NAMES = ["b", "a", "b", "c"]


@pytest.mark.parametrize("kind", [list, tuple, np.array, lambda names: [np.str_(n) for n in names]])
def test_clusters_are_numbered_in_the_order_of_their_names(kind):
    index, k = cluster_index(kind(NAMES), 4)
    assert index.tolist() == [1, 0, 1, 2] and k == 3


def test_whole_numbers_are_names_and_sorted_as_such():
    index, k = cluster_index([10, 9, 10], 3)
    assert index.tolist() == [0, 1, 0] and k == 2, '"10" comes before "9"'


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["a", "", "b"], "example 1 has no cluster id"),
        (["a", None, "b"], "example 1 has no cluster id"),
        (["a", 1.5, "b"], "example 1 has no cluster id"),
        (["a", "b"], "2 cluster ids for 3 examples"),
        (["a", "a", "a"], "1 cluster"),
    ],
)
def test_what_names_no_clusters_is_refused_each_time(names, said):
    for _ in range(2):
        with pytest.raises(StatisticsError, match=said):
            cluster_index(names, 3)


def test_the_numbers_that_are_kept_cannot_be_changed_and_follow_the_names():
    first, _ = cluster_index(NAMES, 4)
    with pytest.raises(ValueError, match="read-only"):
        first[0] = 7
    names = list(NAMES)
    names[0] = "c"
    assert cluster_index(names, 4)[0].tolist() == [2, 0, 1, 2]
    assert cluster_index(NAMES, 4)[0].tolist() == [1, 0, 1, 2]


def test_strata_are_those_of_the_clusters_they_are_in():
    clusters = np.arange(20) % 10
    strata = ["x"] * 10 + ["y"] * 10
    index, n = strata_of(strata, clusters, 20)
    assert n == 2 and index.tolist() == [0] * 10 + [1] * 10
    few = np.arange(20) % 4  # fewer clusters than a stratum may have: one stratum is left
    assert strata_of(strata, few, 20)[1] == 1
    with pytest.raises(StatisticsError, match="20 strata for 19 examples"):
        strata_of(strata, clusters[:19], 19)


def test_totals_are_sums_by_cluster():
    index, k = cluster_index(NAMES, 4)
    assert cluster_totals(index, np.array([1.0, 2.0, 4.0, 8.0]), k).tolist() == [2.0, 5.0, 8.0]
