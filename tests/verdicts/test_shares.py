"""Shares of nothing. Run: pytest tests/verdicts/test_shares.py"""

import pytest

from tinyablation.statistics.intervals import Estimate
from tinyablation.statistics.ratios import RatioUndefined
from tinyablation.verdicts.shares import of_share
from tinyablation.verdicts.verdicts import blocked


def test_a_share_of_nothing_blocks_and_says_what_of():
    def undefined():
        raise RatioUndefined(
            "there is no effect to take a share of", Estimate(0.0, -1.0, 1.0, 8, 8)
        )

    found = of_share(undefined, "repair of L0H1")
    assert found.status == "blocked"
    assert found.reason == "repair of L0H1: there is no effect to take a share of"


def test_other_verdicts_and_errors_are_as_they_are():
    verdict = blocked("for another reason")
    assert of_share(lambda: verdict, "repair") is verdict
    with pytest.raises(ZeroDivisionError):
        of_share(lambda: 1 / 0, "repair")
