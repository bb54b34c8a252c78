"""Every claim is supported by a model of which it is true, and refuted by one of which it is false.

Run: pytest tests/known_models
"""

import pytest

from tests.known_models.controls import CONTROLS
from tests.known_models.measuring import Shelf


@pytest.fixture(scope="session")
def shelf(tmp_path_factory):
    return Shelf(tmp_path_factory.mktemp("known-models"))


@pytest.mark.parametrize("claim", CONTROLS, ids=lambda claim: claim.__name__)
def test_a_true_claim_is_supported(shelf, claim):
    control = CONTROLS[claim]
    verdict = shelf.measured(control.true_of, control.condition).hear(claim).verdict
    assert verdict.status == "supported", f"{control.true_of}: {verdict.reason}"


@pytest.mark.parametrize("claim", CONTROLS, ids=lambda claim: claim.__name__)
def test_a_false_claim_is_refuted(shelf, claim):
    control = CONTROLS[claim]
    verdict = shelf.measured(control.false_of, control.condition).hear(claim).verdict
    assert verdict.status == "refuted", f"{control.false_of}: {verdict.reason}"
