"""The outcome of a record is its test's. Run: pytest tests/verdicts/test_outcomes.py"""

import pytest

from tests.plugin.test_outcome_table import ACCEPTED, OPEN, PREDICTED
from tinyablation.verdicts.outcomes import outcome_of
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
