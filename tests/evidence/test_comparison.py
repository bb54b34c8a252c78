"""A record beside what its evidence gives. Run: pytest tests/evidence/test_comparison.py"""

from pathlib import Path

import pytest

from tests.fake_sessions import fake_session, one_record
from tinyablation.evidence.comparison import (
    Rederived,
    of_selection,
    session_differences,
    session_unverified,
)
from tinyablation.records.error_rates import read_error_rates
from tinyablation.records.records import Record
from tinyablation.sessions.false_discovery import multiplicity

ROOT = Path(__file__).parents[2]


def record(**changes: object) -> Record:
    held = {"verdict": "refuted", "outcome": "xfailed", "accepted": "refuted", "options": []}
    held |= {"drift": None, "prediction": "refuted", "prediction_changed": None, "p_value": 0.01}
    return Record.model_validate(one_record().model_dump() | held | changes)


def test_the_same_record_differs_in_nothing_but_its_duration():
    cell = Rederived(record(duration_s=1.0), record(duration_s=9.0, options=["--device", "cpu"]))
    assert cell.differences == [] and cell.unverified == []


@pytest.mark.parametrize("name", ["claim", "model", "condition", "reason", "statement", "scope"])
def test_every_text_counts(name):
    (line,) = Rederived(record(**{name: "other"}), record()).differences
    assert line.startswith(f'{name}: was "other", now ')


def test_criteria_are_compared_where_the_record_has_any():
    criterion = {"name": "zeroing 0:2", "rule": "above", "threshold": 0.1, "met": True}
    derived = record(criteria=[criterion], p_test="rank")
    assert Rederived(record(), derived).differences == [], "an earlier version wrote it"
    other = record(criteria=[criterion | {"met": False}], p_test="rank")
    (line,) = Rederived(other, derived).differences
    assert "criteria" in line and "met" in line


def test_what_is_derived_labels_a_cell():
    cell = Rederived(record(claim="H5.1", model="mistral-7b"), record(claim="H1.1", model="m"))
    assert cell.labels == {"claim": "H1.1", "model": "m", "condition": record().condition}


@pytest.mark.parametrize(
    ("accepted", "outcome", "wanted"),
    [
        ("refuted", "xfailed", None),
        ("refuted", "passed", "xfailed"),
        ("supported", "xfailed", "failed"),
        ("supported", "failed", None),
    ],
)
def test_where_no_baseline_is_the_outcome_follows_from_what_was_accepted(accepted, outcome, wanted):
    was = record(accepted=accepted, outcome=outcome)
    cell = Rederived(was, record(accepted=None), baseline=False)
    found = [] if wanted is None else [f"outcome: was {outcome!r}, now {wanted!r}"]
    assert cell.differences == found
    (line,) = cell.unverified
    assert f"that {accepted} was accepted: this checkout has no baseline" in line


def test_where_a_baseline_is_it_counts():
    found = Rederived(record(accepted=None, outcome="failed"), record()).differences
    assert found == ["accepted: was None, now 'refuted'", "outcome: was 'failed', now 'xfailed'"]


def test_a_change_of_the_prediction_cannot_be_kept_back():
    said = "changed after its measurement: a slip"
    (line,) = Rederived(record(), record(prediction_changed=said)).differences
    assert line.startswith("prediction_changed: was None")
    cell = Rederived(record(prediction_changed=said), record())
    assert cell.differences == [] and said in cell.unverified[0]


@pytest.mark.parametrize("options", [["-p", "evil"], ["--device", "evil"], ["--seed", "3"]])
def test_no_option_comes_from_nowhere(options):
    (line,) = Rederived(record(options=options), record()).differences
    assert line.startswith("options: was [")
    named = Rederived(record(options=options), record(), named=True)
    assert named.differences == [] and "options of the command" in named.unverified[0]


def session_of(*records: Record):
    file = fake_session()
    together, adjusted = multiplicity(records)
    held = [one.model_copy(update={"p_adjusted": adjusted.get(one.test)}) for one in records]
    about = {"multiplicity": together, "predictions_commit": None}
    file = file.holding(held, file.session.model_copy(update=about))
    return of_selection(file, held, file.session)


def test_a_whole_session_leaves_only_its_circumstances_open():
    file = session_of(record(test="a"), record(test="b", p_value=0.2))
    assert session_differences(file, file.session) == []
    (line,) = session_unverified(file, file.session)
    assert line.startswith("when, where and by which versions it was measured (2025-")


def test_adjusted_p_values_of_a_whole_session_are_computed_again():
    file = session_of(record(test="a"), record(test="b", p_value=0.2))
    first = file.records[0].model_copy(update={"p_adjusted": 1e-9})
    (line,) = session_differences(file.holding([first, file.records[1]]), file.session)
    assert line.startswith("session: p_adjusted of a: was 1e-09, now ")
    part = file.holding([first])
    assert session_differences(part, part.session) == []
    assert any(
        "rest on test cases that are not in the bundle" in x
        for x in session_unverified(part, part.session)
    )


@pytest.mark.parametrize("field", ["predictions_hash", "device"])
def test_statements_of_a_session_are_held_to_the_derived_one(field):
    file = session_of(record())
    other = file.session.model_copy(update={field: "other"})
    (line,) = session_differences(file.holding(file.records, other), file.session)
    assert line.startswith(f'session: {field}: was "other"')


def test_models_are_described_as_they_are():
    file = session_of(record())
    (model,) = file.session.models
    other = [model.model_copy(update={"weight_hash": "f" * 64})]
    forged = file.session.model_copy(update={"models": other})
    (line,) = session_differences(file.holding(file.records, forged), file.session)
    assert "session: models: " in line and "weight_hash" in line
    extra = file.session.model_copy(
        update={"models": [model, model.model_copy(update={"id": "x"})]}
    )
    (line,) = session_differences(file.holding(file.records, extra), file.session)
    assert line == "session: models: x is described, and no test case is of it"


def test_another_table_of_error_rates_is_listed_and_changes_no_verdict():
    """Each calibration makes another table: evidence from before it stays evidence."""
    file = session_of(record())
    rates = read_error_rates(ROOT / "fixtures" / "calibration" / "error_rates.json")
    was = file.session.model_copy(update={"error_rates": rates})
    for derived in (None, rates.model_copy(update={"bases": rates.bases + 1})):
        own = file.session.model_copy(update={"error_rates": derived})
        given = file.holding(file.records, was)
        assert session_differences(given, own) == []
        assert any("the suite's error rates" in line for line in session_unverified(given, own))
    assert not any(
        "error rates" in x for x in session_unverified(file.holding(file.records, was), was)
    )
