"""Whether a page can be believed, in one strip. Run: pytest tests/report/test_trust_strip.py"""

from tests.fake_sessions import fake_session, one_record
from tinyablation.records.error_rates import Detectable, ErrorRates, Resolution
from tinyablation.records.records import Record
from tinyablation.records.trust import Multiplicity
from tinyablation.report.sections import sections
from tinyablation.report.trust_strip import strip, study_of

KINDS = {"good": "hedged", "bad": "plain"}
H1 = {"claim": "H1.1", "family": "H1", "published": [], "prediction": None, "scope": ""}


def shown(*records, **about):
    session = fake_session().session.model_copy(update=about)
    file = fake_session().model_copy(update={"records": list(records), "session": session})
    return {item.name: item for item in strip(file, sections(file), KINDS)}


def test_nothing_is_said_of_what_is_not_known():
    assert shown(one_record(model="good", verdict="supported", **H1)) == {}


def test_predictions_are_told_apart_by_when_they_were_made():
    given = {"model": "good", "verdict": "supported", "outcome": "passed"}
    original = one_record(**H1 | given | {"prediction": "supported", "prediction_changed": None})
    edited = one_record(**H1 | given | {"prediction": "supported", "prediction_changed": "later"})
    open_yet = original.model_copy(update={"verdict": "blocked", "outcome": "skipped"})
    found = shown(original, edited, open_yet)
    assert found["Predictions"].said == "2 original, 1 edited after measurement"
    assert found["Predictions"].link == "#x=edited", "they can be found"
    assert "1 of 1 original came true (100 %)" in found["Foresight"].said


def test_predictions_of_blocked_are_told_apart():
    given = {"model": "good", "prediction": "blocked", "verdict": "blocked", "outcome": "skipped"}
    said = shown(one_record(**H1 | given | {"prediction_changed": None}))["Foresight"].said
    assert said == "1 of 1 original came true (100 %), 1 of them as blocked"


def test_negative_controls_are_counted_by_the_claims_of_what_they_are_without():
    cells = [
        one_record(**H1 | {"model": "bad", "verdict": verdict})
        for verdict in ("supported", "refuted", "blocked")
    ]
    cells.append(one_record(**H1 | {"model": "bad", "verdict": "supported", "family": "SINK"}))
    found = shown(*cells)["H1 supported in negative controls"]
    assert (found.said, found.link) == ("1 of 2", "#k=H1&t=plain&v=supported")


def test_discoveries_and_detectable_effects():
    ledger = Multiplicity(alpha=0.05, n=9, supported=4, discoveries=3, lost=1)
    one = Detectable(claim="H1.1", test="test_x", dose=0.099)
    rates = ErrorRates(made="2026-01-01", version="1", detectable=[one])
    record = one_record(**H1 | {"model": "good", "verdict": "supported"})
    found = shown(record, multiplicity=ledger, error_rates=rates)
    assert found["FDR 5 %"].said == "3 of 4 supported are significant"
    assert found["Detectable effect (80 % power)"].said == "9.9 % of the clean LD (H1.1 x)"
    own = Resolution(
        model="good", claim="H1.1", test="t", condition="facts", standard_error=0.1, detectable=0.3
    )
    rates = rates.model_copy(update={"resolution": [own]})
    said = shown(record, error_rates=rates)["Detectable effect (80 % power)"].said
    assert said.startswith("30.0 % of the clean LD (H1.1, facts)"), "the model's own comes first"


def test_published_figures_and_the_study_they_are_of():
    figure = {"model": "other", "condition": "facts", "value": 1.0, "source": "A study, v2 (note)"}
    record = one_record(**H1 | {"model": "good", "condition": "facts"})
    record = Record.model_validate(record.model_dump() | {"published": [figure]})
    found = shown(record)["Published figures comparable"]
    assert found.said == "0 of 1: all are of other models or conditions"
    assert study_of([record]) == "A study, v2"
    assert study_of([one_record(**H1)]) == ""
    other = Record.model_validate(
        record.model_dump() | {"published": [figure | {"source": "Another"}]}
    )
    assert study_of([record, record, other]) == "A study, v2"
    assert study_of([record, other]) == "", "none has most of the figures"


def test_scope_is_said_by_condition():
    cells = [
        one_record(**H1 | {"model": "good", "condition": name, "scope": scope})
        for name, scope in (
            ("facts", "10 relations"),
            ("logic", "8 rules"),
            ("negation", "8 rules"),
        )
    ]
    said = shown(*cells)["Generalises over"].said
    assert said == "facts: 10 relations; negation, logic: 8 rules"
