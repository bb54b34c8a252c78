"""The outcome of a record is its test's. Run: pytest tests/verdicts/test_outcomes.py"""

import pytest

from tests.plugin.test_outcome_table import ACCEPTED, OPEN, PREDICTED
from tinyablation.verdicts.outcomes import OUTCOMES, ground_of, outcome_of
from tinyablation.verdicts.verdicts import STATUSES


@pytest.mark.parametrize("accepted", ["none", *ACCEPTED])
@pytest.mark.parametrize("prediction", PREDICTED)
def test_outcomes_are_those_of_the_tables_by_which_tests_end(accepted, prediction):
    row = PREDICTED[prediction] if accepted == "none" else ACCEPTED[accepted]
    before = {"none": None}
    known = {
        "accepted": before.get(accepted, accepted),
        "prediction": before.get(prediction, prediction),
    }
    assert tuple(outcome_of(verdict, **known) for verdict in STATUSES) == row
    for verdict in STATUSES:
        assert outcome_of(verdict, **known, drifted=True) == "failed"
    assert outcome_of("inconclusive", **known, screened=True) == "skipped"
    assert outcome_of("error", **known) == "error"


def test_nothing_is_missed_where_nothing_is_registered():
    found = [
        outcome_of(verdict, accepted=None, prediction=None, registered=False)
        for verdict in STATUSES
    ]
    assert tuple(found) == OPEN


NOTHING = {"accepted": None, "prediction": None}
KNOWN = {"accepted": "refuted", "prediction": "supported"}


@pytest.mark.parametrize(
    ("ground", "verdict", "known"),
    [
        # What was accepted comes before figures, and both before what was predicted.
        ("changed", "supported", KNOWN | {"drifted": True}),
        ("changed", "blocked", KNOWN),
        ("changed", "inconclusive", KNOWN),
        ("drifted", "refuted", KNOWN | {"drifted": True}),
        ("drifted", "refuted", NOTHING | {"prediction": "supported", "drifted": True}),
        ("drifted", "blocked", {"accepted": "blocked", "prediction": None, "drifted": True}),
        ("short", "refuted", KNOWN),
        ("missed", "refuted", NOTHING | {"prediction": "supported"}),
        ("missed", "inconclusive", NOTHING | {"prediction": "blocked"}),
        ("missed", "refuted", NOTHING | {"prediction": "present", "registered": False}),
        # What could not be judged misses nothing.
        ("blocked", "blocked", NOTHING | {"prediction": "supported"}),
        ("unpredicted", "present", NOTHING),
        ("short", "present", NOTHING | {"registered": False}),
        ("short", "present", NOTHING | {"prediction": "present"}),
        ("inconclusive", "inconclusive", NOTHING),
        ("holds", "supported", NOTHING),
        # On a screened sweep, only what is inconclusive is another matter.
        ("inconclusive", "inconclusive", KNOWN | {"drifted": True, "screened": True}),
        ("changed", "supported", KNOWN | {"screened": True}),
        ("missed", "supported", NOTHING | {"prediction": "refuted", "screened": True}),
    ],
)
def test_one_ground_decides(ground, verdict, known):
    assert ground_of(verdict, **known) == ground
    assert outcome_of(verdict, **known) == OUTCOMES[ground]


def test_every_ground_has_its_outcome():
    assert OUTCOMES == {
        **{"changed": "failed", "drifted": "failed", "missed": "failed", "unpredicted": "failed"},
        **{"blocked": "skipped", "inconclusive": "skipped", "short": "xfailed", "holds": "passed"},
    }
