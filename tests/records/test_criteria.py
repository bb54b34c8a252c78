"""Criteria of a record. Run: pytest tests/records/test_criteria.py"""

import pytest

from tests.fake_sessions import one_record
from tinyablation.records.criteria import Criterion
from tinyablation.records.plain import RecordError
from tinyablation.records.records import Record


def test_a_record_without_criteria_can_be_read():
    content = one_record().model_dump()
    del content["criteria"], content["p_test"]
    record = Record.model_validate(content)
    assert record.criteria == [] and record.p_test == ""


@pytest.mark.parametrize("wrong", [{"rule": "beside"}, {"p": 1.5}, {"threshold": float("nan")}])
def test_what_is_no_comparison_is_refused(wrong):
    right = {"name": "zeroing 0:2", "rule": "above", "threshold": 0.1, "met": True}
    assert Criterion.model_validate(right).estimate is None
    with pytest.raises((ValueError, RecordError)):
        Criterion.model_validate(right | wrong)
