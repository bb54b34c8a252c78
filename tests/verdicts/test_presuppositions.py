"""What a claim takes for granted must hold for it to be supported, and refutes nothing.

Run: pytest tests/verdicts/test_presuppositions.py
"""

import pytest

from tinyablation.statistics.intervals import Estimate
from tinyablation.verdicts.presuppositions import presupposed
from tinyablation.verdicts.verdicts import blocked, judge_above_floor, judge_all_of


def above(low: float, high: float):
    effect = Estimate((low + high) / 2, low, high, 80, 40)
    return judge_above_floor(effect, floor=0.0, what=f"{low} to {high}", unit="")


HOLDS, OPEN, FAILS = above(1.0, 2.0), above(-1.0, 1.0), above(-2.0, -1.0)


@pytest.mark.parametrize(
    ("claimed", "granted", "status"),
    [
        (HOLDS, HOLDS, "supported"),
        (HOLDS, OPEN, "inconclusive"),
        (HOLDS, FAILS, "inconclusive"),
        (HOLDS, blocked("there is no such share"), "blocked"),
        (OPEN, HOLDS, "inconclusive"),
        (FAILS, HOLDS, "refuted"),
        (FAILS, FAILS, "refuted"),
    ],
)
def test_what_is_taken_for_granted_refutes_nothing(claimed, granted, status):
    found = judge_all_of([claimed, presupposed(granted)], show=claimed)
    assert found.status == status, found.reason
    assert found.effect == claimed.effect
    assert found.p_refuted == claimed.p_refuted


def test_a_refutation_is_not_corrected_for_what_is_taken_for_granted():
    """p is .02: enough for one part, too much for two."""
    near = above(-2.0, -0.02)
    assert 0.0125 < near.p_refuted <= 0.025
    assert judge_all_of([near, presupposed(HOLDS)]).status == "refuted"
    assert judge_all_of([near, HOLDS]).status == "inconclusive"


def test_what_fails_has_no_p_of_holding():
    assert presupposed(FAILS).p_value is None
    assert presupposed(HOLDS).p_value == HOLDS.p_value
