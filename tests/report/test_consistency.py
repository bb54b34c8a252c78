"""No page says what cannot be true. Run: pytest tests/report/test_consistency.py"""

import pytest

from tests.fake_sessions import fake_session, one_record
from tinyablation.records.records import Record
from tinyablation.report.consistency import InconsistentError, check
from tinyablation.report.page import write_report
from tinyablation.statistics.intervals import Estimate
from tinyablation.verdicts.floors import Floor, Noise, effect_floor
from tinyablation.verdicts.verdicts import (
    Verdict,
    judge_above_floor,
    judge_all_of,
    judge_below_ceiling,
    judge_equivalent,
)


def session(*records):
    return fake_session().model_copy(update={"records": list(records)})


def estimate(value, low, high):
    return Estimate(value, low, high, n=100, n_clusters=40)


def recorded(judged: Verdict, **changes) -> Record:
    """The record of a verdict, as a session writes it."""
    effect, margin = judged.effect, judged.margin
    assert effect is not None
    figures = {
        "verdict": judged.status,
        "reason": judged.reason,
        "effect": effect.estimate,
        "low": effect.low,
        "high": effect.high,
        "floor": judged.floor,
        "p_corrected": judged.p_corrected,
        "unit": judged.unit,
        "margin": margin and margin.estimate,
        "margin_low": margin and margin.low,
        "margin_high": margin and margin.high,
    }
    return one_record(claim="H1.1", model="m", condition="facts", **figures | changes)


def above(value, low, high, floor=0.2, **more):
    return judge_above_floor(estimate(value, low, high), floor=floor, what="zeroing 0:1", **more)


def below(value, low, high):
    return judge_below_ceiling(estimate(value, low, high), ceiling=0.2, what="recovery")


MINIMUM = Floor(0.2, Noise(0.0, ""), minimum=True)
MARGIN = estimate(0.3, 0.1, 0.5)
JUDGED = {
    "above": above(0.5, 0.3, 0.7),
    "below": above(0.0, -0.1, 0.1),
    "across": above(0.2, 0.1, 0.3),
    "present": above(0.1, 0.05, 0.15, floor=MINIMUM),
    "by example": above(0.5, 0.3, 0.7, margin=MARGIN),
    # The whole effect lies below the bound, and yet not surely short of its own share of it.
    "short of the margin by little": above(
        0.0055, -0.0673, 0.0783, effect_floor(1.6, 0.0), margin=estimate(-0.0745, -0.1502, 0.0012)
    ),
    "not significant": above(0.5, 0.3, 0.7, p_corrected=0.2),
    "significant": above(0.5, 0.3, 0.7, p_corrected=0.01),
    "ceiling": below(0.0, -0.1, 0.1),
    "over the ceiling": below(0.5, 0.3, 0.7),
    "equivalent": judge_equivalent(estimate(0.0, -0.1, 0.1), margin=0.2, what="slope"),
    "all of": judge_all_of([above(0.5, 0.3, 0.7), below(0.0, -0.1, 0.1)]),
    "one fails": judge_all_of([above(0.5, 0.3, 0.7), above(-0.5, -0.6, -0.4)]),
}


@pytest.mark.parametrize("name", JUDGED)
def test_what_the_judges_say_is_printed(name):
    check(session(recorded(JUDGED[name])))


@pytest.mark.parametrize(
    ("name", "verdict"),
    [
        ("above", "refuted"),
        ("above", "inconclusive"),
        ("above", "present"),
        ("below", "supported"),
        ("below", "inconclusive"),
        ("across", "supported"),
        ("across", "refuted"),
        ("by example", "refuted"),
        ("not significant", "supported"),
        ("significant", "inconclusive"),
        ("ceiling", "refuted"),
        ("over the ceiling", "supported"),
        ("all of", "refuted"),
    ],
)
def test_a_verdict_against_the_legend_is_refused(name, verdict):
    record = recorded(JUDGED[name], verdict=verdict)
    with pytest.raises(
        InconsistentError, match=f"H1.1 .*, m, facts: {verdict} contradicts"
    ) as said:
        check(session(record))
    assert "\n" not in str(said.value) and "judge this test case again (pytest " in str(said.value)


def test_figures_that_were_changed_after_the_verdict_are_refused():
    """The margin, which the reason of the record does not have to be compared with."""
    record = recorded(JUDGED["by example"], margin_low=-0.1)
    with pytest.raises(InconsistentError, match="supported contradicts"):
        check(session(record))


@pytest.mark.parametrize(
    ("unit", "low", "high", "said"),
    [
        ("share", 0.5, 1.2, r"\[0.5, 1.2\] of a share is not within \[0, 1\]"),
        ("rho", -1.5, 0.9, "of a rho is not within"),
        ("Brier", -5.679, 0.9, "of a Brier is not within"),
    ],
)
def test_an_interval_that_leaves_its_range_is_refused(unit, low, high, said):
    record = one_record(
        verdict="supported", effect=0.7, low=low, high=high, unit=unit, margin=None, reason="so"
    )
    with pytest.raises(InconsistentError, match=said):
        check(session(record))
    check(session(record.model_copy(update={"low": 0.5, "high": 0.9})))


def test_other_rules_and_words_are_left_alone():
    hand = {"verdict": "supported", "effect": 0.1, "low": 0.0, "high": 0.2, "floor": 0.5}
    check(session(one_record(**hand, margin=None, unit="logits", reason="by another rule")))
    rank = (
        above(0.5, 0.3, 0.7, p_corrected=0.2).reason.replace("corrected p", "p") + " against random"
    )
    check(session(recorded(JUDGED["not significant"], verdict="supported", reason=rank)))
    check(session(one_record(verdict="blocked", effect=None, low=None, high=None)))


def test_no_page_is_written_of_what_cannot_be_true(tmp_path):
    record = recorded(JUDGED["across"], verdict="supported")
    with pytest.raises(InconsistentError):
        write_report(session(record), tmp_path / "claims.html")
    assert list(tmp_path.iterdir()) == []
    assert write_report(session(recorded(JUDGED["above"])), tmp_path / "claims.html").exists()
