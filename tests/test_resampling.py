"""The bootstrap over clusters, against scipy's. Run: pytest tests/test_resampling.py"""

import numpy as np
import pytest
from scipy import stats

from tinyablation.resampling import ClusterRows, bca_ends, bootstrap, percentile_ends
from tinyablation.statistics import generator

CLUSTERS = 9
RESAMPLES = 300
VALUES = generator(0, "values of resampling tests").exponential(size=(2, 40))
LABELS = np.arange(40) % CLUSTERS  # of four and of five examples
EQUAL = np.arange(36) % CLUSTERS


def median(rows):
    return float(np.median(VALUES[0][rows[0]]))


def gap(rows):
    return float(VALUES[0][rows[0]].mean() - np.median(VALUES[1][rows[1]]))


def theirs(statistic, tables, paired, method):
    """scipy's bootstrap of the same statistic of cluster numbers."""
    return stats.bootstrap(
        tuple(np.arange(table.k) for table in tables),
        lambda *drawn: statistic(
            [table.of(draw) for table, draw in zip(tables, drawn, strict=True)]
        ),
        paired=paired,
        vectorized=False,
        n_resamples=RESAMPLES,
        method=method,
        rng=generator(1, "draws"),
    )


@pytest.mark.parametrize("labels", [LABELS, EQUAL], ids=["uneven", "equal"])
@pytest.mark.parametrize(
    ("statistic", "count", "paired"), [(median, 1, False), (gap, 2, False), (gap, 2, True)]
)
def test_draws_and_intervals_are_those_of_scipy(labels, statistic, count, paired):
    tables = [ClusterRows(labels, CLUSTERS)] * count
    found = bootstrap(statistic, tables, generator(1, "draws"), resamples=RESAMPLES, paired=paired)
    plain, corrected = (
        theirs(statistic, tables, paired, method) for method in ("percentile", "BCa")
    )
    np.testing.assert_array_equal(found, plain.bootstrap_distribution)
    assert percentile_ends(found, 0.95) == pytest.approx(plain.confidence_interval, rel=1e-12)
    estimate = statistic([table.of(np.arange(CLUSTERS)) for table in tables])
    ends = bca_ends(statistic, tables, found, estimate, confidence=0.95, paired=paired)
    assert ends == pytest.approx(corrected.confidence_interval, rel=1e-12)
    assert ends != percentile_ends(found, 0.95)


@pytest.mark.parametrize(("count", "paired"), [(1, False), (2, False), (2, True)])
def test_many_resamples_at_once_are_the_same(count, paired, monkeypatch):
    """In blocks too; [n, rows] a table in, [n] out."""
    monkeypatch.setattr("tinyablation.resampling._BLOCK", 7 * 36 * count)

    def spread(rows):
        return sum(np.ptp(VALUES[place][own], axis=-1) for place, own in enumerate(rows))

    tables = [ClusterRows(EQUAL, CLUSTERS)] * count
    one, many = (
        bootstrap(
            *(spread, tables, generator(1, "draws")),
            resamples=RESAMPLES,
            paired=paired,
            vectorized=vectorized,
        )
        for vectorized in (False, True)
    )
    np.testing.assert_array_equal(one, many)
    estimate = spread([table.of(np.arange(CLUSTERS)) for table in tables])
    ends = [
        bca_ends(
            *(spread, tables, one, estimate), confidence=0.95, paired=paired, vectorized=vectorized
        )
        for vectorized in (False, True)
    ]
    assert ends[0] is not None and ends[0] == ends[1]


def test_rows_come_in_the_order_of_the_draw():
    rows = ClusterRows(np.array([1, 0, 1, 2, 0, 1]), 3)
    assert rows.of(np.array([2, 1, 1])).tolist() == [3, 0, 2, 5, 0, 2, 5]
    with pytest.raises(ValueError, match="clusters differ in size"):
        rows.of(np.array([[2, 1, 1]]))
    even = ClusterRows(np.array([1, 0, 1, 0]), 2)
    assert even.of(np.array([[1, 0], [0, 0]])).tolist() == [[0, 2, 1, 3], [1, 3, 1, 3]]
    assert even.of(np.array([1, 0, 1])).tolist() == [0, 2, 1, 3, 0, 2]


@pytest.mark.parametrize("estimate", [0.0, 1.0])
def test_no_bias_can_be_told_where_all_lies_on_one_side(estimate):
    tables = [ClusterRows(EQUAL, CLUSTERS)]
    distribution = np.linspace(0.2, 0.8, RESAMPLES)
    assert bca_ends(median, tables, distribution, estimate, confidence=0.95) is None


def test_no_acceleration_where_no_cluster_matters():
    tables = [ClusterRows(EQUAL, CLUSTERS)]
    distribution = np.linspace(0.0, 1.0, RESAMPLES)
    assert bca_ends(lambda rows: 0.5, tables, distribution, 0.5, confidence=0.95) is None
