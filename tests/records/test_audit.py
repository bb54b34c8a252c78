"""The six audit columns of a claim's test. Run: pytest tests/records/test_audit.py"""

import pytest

from tests.fake_sessions import fake_session, one_record
from tinyablation.records.audit import COLUMNS, DECLARED, audit, declared
from tinyablation.records.error_rates import ErrorRate, ErrorRates
from tinyablation.records.trust import Boundary

SESSION = fake_session(0).session
NO_RATES = SESSION.model_copy(update={"error_rates": None})
PLANT, SHAM = "tiny-gpt2", "tiny-gpt2-plain"
TEST = "test_named_head_tops_its_layer"


def record(**fields):
    return one_record(
        name=TEST, claim="H1.1", **{"verdict": "supported", "p_corrected": None, **fields}
    )


def filled(*records, session=NO_RATES):
    return {column.name: column.said for column in audit(records, session) if column.said}


def rates(*errors):
    rows = [
        ErrorRate(
            claim="H1.1", test=test, error=error, among="all", n=n, k=0, low=0, high=0.3,
            n_cells=n, k_cells=0,
        )
        for test, error, n in errors
    ]  # fmt: skip
    table = ErrorRates(made="2025-01-31", version="0", errors=rows)
    return NO_RATES.model_copy(update={"error_rates": table})


def test_a_bare_test_fills_none():
    assert [column.name for column in audit([record()], NO_RATES)] == list(COLUMNS)
    assert filled(record()) == {}


def test_a_plant_and_its_sham_are_a_control():
    true = record(model=PLANT, prediction="supported")
    untrue = record(model=SHAM, prediction="refuted", verdict="refuted")
    assert filled(true, untrue) == {
        "planted control": "judged on models with a plant (1) and without (1)"
    }
    assert filled(true) == filled(untrue) == {}
    assert filled(true, untrue.model_copy(update={"verdict": "blocked"})) == {}
    assert filled(true, untrue.model_copy(update={"prediction": "supported"})) == {}
    assert filled(true, untrue.model_copy(update={"verdict": "supported"})) == {}
    assert filled(true.model_copy(update={"model": "gpt2"}), untrue) == {}


def test_calibration_on_both_kinds_of_bases_is_a_control_with_error_rates():
    both = rates((TEST, "false support", 5), (TEST, "false refutation", 4))
    assert filled(record(), session=both) == {
        "planted control": "calibrated on 4 bases of which it is true and 5 of which it is not",
        "error rate": "false support in 0 of 5 bases; false refutation in 0 of 4 bases",
    }
    one = rates((TEST, "false support", 5), (TEST, "false refutation", 0))
    assert filled(record(), session=one) == {"error rate": "false support in 0 of 5 bases"}
    assert filled(record(), session=rates(("test_other", "false support", 5))) == {}
    other = record().model_copy(update={"claim": "X.1"})  # a test of the same name in another pack
    assert filled(other, session=both) == {}


def test_a_search_is_recorded_and_a_p_of_one_test_corrects_no_choice():
    """p of OV's ranks and of H6's one patch stand in p_corrected too."""
    searched = Boundary(rule="Delta < 0", grammar=900, searched=300, failed=2, found=[])
    assert filled(record(p_corrected=0.01), record(boundary=searched)) == {
        "counterexamples": "300 prompts of the grammar were searched",
    }
    assert filled(record(boundary=searched, verdict="blocked")) == {}


def test_a_claim_declares_what_no_record_says():
    assert filled(record(audit="rescue, specificity")) == {
        name: DECLARED[name] for name in ("rescue", "specificity")
    }
    # What a later version may declare is passed over.
    assert filled(record(audit="luck, rescue")) == {"rescue": DECLARED["rescue"]}


@pytest.mark.parametrize("text", ["error rate", "counterexamples", "rescue, luck", "rescue,"])
def test_other_words_are_refused(text):
    with pytest.raises(ValueError, match="it may name planted control, selection correction"):
        declared(text)
    assert declared("") == ()
