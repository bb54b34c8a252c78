"""The score of predictions that stood before their measurement.

Run: pytest tests/sessions/test_foresight.py
"""

from itertools import product

import pytest

from tests.fake_sessions import one_record
from tinyablation.records.records import JUDGED, VERDICTS
from tinyablation.records.trust import Screened, Unmeasured
from tinyablation.sessions.foresight import Foresight, Score, came_true, foresight, sentence
from tinyablation.verdicts.verdicts import STATUSES


def cell(verdict="supported", prediction="supported", *, family="H1", **changes):
    outcome = "error" if verdict == "error" else "passed"
    given = {"verdict": verdict, "prediction": prediction, "family": family, "outcome": outcome}
    return one_record(**given | changes)


@pytest.mark.parametrize(("verdict", "prediction"), [*product(VERDICTS, (None, *STATUSES))])
def test_a_prediction_comes_true_is_missed_or_was_not_put_to_the_test(verdict, prediction):
    true = came_true(cell(verdict, prediction))
    if prediction is None or verdict == "error":
        assert true is None
    elif verdict == prediction:
        assert true is True
    else:
        assert true is (False if verdict in JUDGED else None)


def test_a_test_that_broke_after_its_verdict_was_not_judged():
    assert came_true(cell(outcome="error")) is None


def test_what_a_screened_sweep_leaves_open_is_no_miss():
    hidden = Unmeasured(n=9, sampled=2, found=0, most=1)
    counts = {"n_heads": 12, "measured": 3, "by_layer": 0, "by_score": 1, "by_chance": 2}
    screened = Screened(
        **counts,
        asked="1:2",
        condition="facts",
        confidence=0.95,
        floor=0.1,
        raising=hidden,
        lowering=hidden,
    )
    assert came_true(cell("inconclusive", screened=[screened])) is None
    assert came_true(cell("refuted", screened=[screened])) is False


def test_edited_predictions_are_counted_apart_and_validity_once_more_without():
    records = [
        *[cell(family="V", claim="V.1")] * 3,
        *[cell()] * 2,
        *[cell("refuted")] * 5,
        *[cell(prediction_changed="changed after the first measurement")] * 4,
        cell("refuted", prediction_changed="changed after the first measurement"),
        cell("blocked"),
        cell("blocked", "blocked"),
        cell(prediction=None),
    ]
    found = foresight(records)
    assert found == Foresight(Score(16, 5, 6, 1), Score(13, 5, 3, 1))
    assert (found.every.fixed, found.every.missed) == (11, 5)
    assert sentence(found) == (
        "Of 16 predictions 11 were fixed before the measurement: 6 came true (55%), 1 of them as "
        "blocked; without validity (V) 3 of 8 (38%). 5 were edited after it: no foresight."
    )


def test_where_nothing_was_edited_or_is_about_validity_nothing_is_said_of_it():
    found = foresight([cell(), cell("present")])
    assert sentence(found) == "2 predictions, all fixed before the measurement: 1 came true (50%)."
    of_validity = [cell(family="V", claim="V.1")] * 2
    assert "without" not in sentence(foresight(of_validity)), "nothing is left"
    assert "without validity (V) 1 of 1" in sentence(foresight([*of_validity, cell()]))


def test_where_all_were_edited_no_share_is_made_up():
    found = foresight([cell(prediction_changed="changed after it")])
    assert sentence(found) == (
        "Of 1 prediction 0 were fixed before the measurement: 0 came true. 1 was edited after it: "
        "no foresight."
    )


def test_no_predictions_no_score():
    assert foresight([]) is None
    assert foresight([cell(prediction=None), cell("blocked")]) is None
