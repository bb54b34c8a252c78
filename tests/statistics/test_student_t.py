"""Student's t without scipy.stats. Run: pytest tests/statistics/test_student_t.py"""

import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from tinyablation.statistics.student_t import critical_rho, student_above, student_quantile


@pytest.mark.parametrize("freedom", [1, 2, 7, 31, 200])
@pytest.mark.parametrize("share", [0.0005, 0.025, 0.5, 0.95, 0.975])
def test_quantiles_and_tails_are_those_of_scipy(share, freedom):
    found = student_quantile(share, freedom)
    assert found == stats.t.ppf(share, freedom)
    assert student_above(found, freedom) == stats.t.sf(found, freedom)
    assert student_above(found, freedom) == pytest.approx(1 - share, abs=1e-12)


def test_statistics_are_used_without_scipy_stats():
    code = (
        "import sys; import numpy as np; import tinyablation.statistics.intervals as s; "
        "labels = np.repeat(np.arange(8), 2); values = np.sin(np.arange(16)); "
        "s.cluster_interval(values, labels, s.generator(0, 'x')); "
        "s.cluster_statistic_interval("
        "    lambda rows: float(values[rows[0]].max()), [labels], s.generator(0, 'x')); "
        "print('scipy.stats' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False", done.stdout


def test_the_critical_value_of_a_rank_correlation_depends_on_the_number_of_ranks():
    """Against the share of random rankings that reach it, of 8 ranks, and published tables."""
    rng = np.random.default_rng(0)
    ranks = np.argsort(rng.random((20_000, 8)), axis=1)
    differences = ((ranks - np.arange(8)) ** 2).sum(1)
    found = np.abs(1 - 6 * differences / (8 * 63))
    assert (found > critical_rho(8)).mean() == pytest.approx(0.05, abs=0.015)
    assert [round(critical_rho(n), 2) for n in (8, 9, 16, 32)] == [0.71, 0.67, 0.5, 0.35]
