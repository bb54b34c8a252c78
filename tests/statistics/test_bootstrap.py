"""The bootstrap over clusters, against scipy's. Run: pytest tests/statistics/test_bootstrap.py"""

import numpy as np
import pytest
from scipy import stats

from tinyablation.statistics.bootstrap import (
    ClusterRows,
    blocks_of,
    bootstrap,
    expanded_confidence,
    percentile_ends,
    student_ends,
)
from tinyablation.statistics.intervals import generator

CLUSTERS = 9
RESAMPLES = 300
VALUES = generator(0, "values of resampling tests").exponential(size=(2, 40))
LABELS = np.arange(40) % CLUSTERS  # of four and of five examples
EQUAL = np.arange(36) % CLUSTERS


def median(rows):
    return float(np.median(VALUES[0][rows[0]]))


def gap(rows):
    return float(VALUES[0][rows[0]].mean() - np.median(VALUES[1][rows[1]]))


def theirs(statistic, tables, paired):
    """scipy's bootstrap of the same statistic of cluster numbers."""
    return stats.bootstrap(
        tuple(np.arange(table.k) for table in tables),
        lambda *drawn: statistic(
            [table.of(draw) for table, draw in zip(tables, drawn, strict=True)]
        ),
        paired=paired,
        vectorized=False,
        n_resamples=RESAMPLES,
        method="percentile",
        rng=generator(1, "draws"),
    )


@pytest.mark.parametrize("labels", [LABELS, EQUAL], ids=["uneven", "equal"])
@pytest.mark.parametrize(
    ("statistic", "count", "paired"), [(median, 1, False), (gap, 2, False), (gap, 2, True)]
)
def test_draws_and_percentiles_are_those_of_scipy(labels, statistic, count, paired):
    tables = [ClusterRows(labels, CLUSTERS)] * count
    found = bootstrap(statistic, tables, generator(1, "draws"), resamples=RESAMPLES, paired=paired)
    plain = theirs(statistic, tables, paired)
    np.testing.assert_array_equal(found, plain.bootstrap_distribution)
    assert percentile_ends(found, 0.95) == pytest.approx(plain.confidence_interval, rel=1e-12)
    # Without what allows for few clusters, Student's ends are the estimate -+ scipy's error.
    low, high = student_ends(found, 1.0, 0.95, CLUSTERS)
    t = stats.t.ppf(0.975, CLUSTERS - 1) * np.sqrt(CLUSTERS / (CLUSTERS - 1))
    assert [(1 - low) / t, (high - 1) / t] == pytest.approx([plain.standard_error] * 2, rel=1e-12)


@pytest.mark.parametrize("k", [2, 5, 12, 24, 48, 10_000])
def test_percentiles_are_expanded_to_student_and_less_so_with_more_clusters(k):
    """Of normal resamples whose variance divides by k, they are Student's interval of a mean."""
    confidence = expanded_confidence(0.95, k)
    z = stats.norm.isf((1 - confidence) / 2)
    assert 0.95 < confidence <= 1
    if k > 2:  # of two clusters the widest resamples are the ends
        assert z * np.sqrt((k - 1) / k) == pytest.approx(stats.t.ppf(0.975, k - 1), rel=1e-6)
    assert expanded_confidence(0.95, k + 1) <= confidence


@pytest.mark.parametrize(("count", "paired"), [(1, False), (2, False), (2, True)])
def test_many_resamples_at_once_are_the_same(count, paired, monkeypatch):
    """In blocks too; [n, rows] a table in, [n] out."""
    monkeypatch.setattr("tinyablation.statistics.bootstrap._BLOCK", 7 * 36 * count)

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


def test_draws_are_made_in_blocks_that_fit_into_memory():
    assert blocks_of(5, 7) == [5]
    assert blocks_of(5, 1 << 21) == [2, 2, 1]
    assert blocks_of(2, 1 << 22) == blocks_of(2, 1 << 30) == [1, 1]


def test_rows_come_in_the_order_of_the_draw():
    rows = ClusterRows(np.array([1, 0, 1, 2, 0, 1]), 3)
    assert rows.of(np.array([2, 1, 1])).tolist() == [3, 0, 2, 5, 0, 2, 5]
    with pytest.raises(ValueError, match="clusters differ in size"):
        rows.of(np.array([[2, 1, 1]]))
    even = ClusterRows(np.array([1, 0, 1, 0]), 2)
    assert even.of(np.array([[1, 0], [0, 0]])).tolist() == [[0, 2, 1, 3], [1, 3, 1, 3]]
    assert even.of(np.array([1, 0, 1])).tolist() == [0, 2, 1, 3, 0, 2]
