"""Two protocols compared, cell by cell. Run: pytest tests/sessions/test_protocol_comparison.py"""

import pytest

from tests.fake_sessions import one_record
from tinyablation.records.records import PROTOCOLS, RecordFile
from tinyablation.sessions.merging import merge
from tinyablation.sessions.protocol_comparison import FATES, MEANING, compare_protocols, fate

VERDICTS = ("supported", "refuted", "inconclusive", "blocked", "error")


def session(protocol, records, **hashes):
    return RecordFile.model_validate(
        {
            "session": {
                "started": "2025-03-01T09:30:00Z",
                "command": "pytest claims",
                "versions": {},
                "platform": "",
                "device": "cpu",
                "predictions_hash": "",
                "complete": True,
                "protocol": protocol,
                "models": [
                    {"id": name, "title": "", "family": "", "variant": "", "weight_hash": digest}
                    for name, digest in hashes.items()
                ],
            },
            "records": records,
        }
    )


def cell(model, verdict="supported", **changes):
    fields = {"model": model, "verdict": verdict, "claim": "H1.1", "name": "test_x"}
    return one_record(**fields | changes)


def test_every_protocol_is_explained():
    assert set(MEANING) == set(PROTOCOLS)


@pytest.mark.parametrize("corrected", VERDICTS)
@pytest.mark.parametrize("published", VERDICTS)
def test_fate(corrected, published):
    expected = "same" if corrected == published else "otherwise"
    if {corrected, published} == {"supported", "refuted"}:
        expected = "dies" if published == "supported" else "lives"
    found = fate(cell("m", corrected), cell("m", published))
    assert found == expected and found in FATES


def test_cells_are_matched_by_test_claim_model_and_condition():
    theirs = [
        cell("b", "refuted"),
        cell("a", condition="logic"),
        cell("c", name="test_y"),
    ]
    own = [cell("a", condition="facts"), cell("b"), cell("c")]
    found = compare_protocols(session("corrected", own), session("published", theirs))
    (test,) = found.tests
    assert (test.claim, test.name, len(test.pairs)) == ("H1.1", "test_x", 1)
    assert test.pairs[0].published.verdict == "refuted"
    assert test.fates == {"lives": 1} == found.fates
    assert test.verdicts == {"corrected": {"supported": 1}, "published": {"refuted": 1}}
    assert found.unmatched == 2


def test_either_session_may_be_the_page():
    corrected = session("corrected", [cell("a", "refuted")])
    published = session("published", [cell("a", "supported", protocol="published")])
    for one, other in ((corrected, published), (published, corrected)):
        (pair,) = compare_protocols(one, other).tests[0].pairs
        assert (pair.corrected.verdict, pair.published.verdict) == ("refuted", "supported")
        assert pair.fate == "dies"


def test_cells_of_other_weights_are_not_compared():
    records = [cell("a"), cell("b"), cell("c")]
    found = compare_protocols(
        session("corrected", records, a="1", b="2", c="3"),
        session("published", records, a="1", b="other", c=None),
    )
    assert [pair.corrected.model for pair in found.tests[0].pairs] == ["a", "c"]
    assert found.other_weights == ["b"] and found.unmatched == 0


def test_the_same_protocol_twice_is_refused():
    with pytest.raises(ValueError, match="of the corrected protocol"):
        compare_protocols(session("corrected", []), session("corrected", []))


def test_what_merged_sessions_disagree_on_is_left_out():
    """None of them wins: the last one did."""
    theirs = [
        session("published", [cell("a", verdict), cell("b")])
        for verdict in ("supported", "refuted")
    ]
    found = compare_protocols(session("corrected", [cell("a"), cell("b")]), merge(theirs))
    assert (found.disputed, found.unmatched) == (1, 0)
    assert found.fates == {"same": 1}
