"""Claims called without a session. Run: pytest tests/verdicts/test_listener.py"""

import pytest

from tinyablation.verdicts.listener import JudgingError, hear
from tinyablation.verdicts.verdicts import blocked


def test_a_claim_is_heard_with_all_that_it_says():
    def claim(sweep, subject, judge):
        judge(blocked(sweep), subject=subject, runs=("a",))

    heard = hear(claim, "no sweep", subject="0:2")
    assert heard.verdict == blocked("no sweep")
    assert heard.given == {"subject": "0:2", "runs": ("a",)}


@pytest.mark.parametrize("times", [0, 2])
def test_one_claim_is_one_verdict(times):
    def claim(judge):
        for _ in range(times):
            judge(blocked("x"))

    with pytest.raises(JudgingError, match=f"claim called judge {times} times"):
        hear(claim)
