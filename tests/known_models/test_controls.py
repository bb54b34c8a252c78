"""Every claim is supported by a model of which it is true, and refuted by one of which it is false.

Run: pytest tests/known_models
"""

import importlib
import inspect
import re
from pathlib import Path

import pytest

import claims.suppressors.test_validity
from claims.suppressors import test_h1_suppressors as h1
from claims.suppressors import test_h6_patching as h6
from tests.known_models.controls import CONTROLS, ELSEWHERE, PRESENT, SMALL
from tests.known_models.models import MODELS

HERE = Path(__file__).parent
# One claim of sweeps and one of patches are judged on known models in every run; the others (2 s
# each) with the slow tests, for made-up figures show faster that each can hold and can fail.
LIGHT = (h1.test_top_suppressor_is_in_layer_zero, h6.test_path_mediates_most)
CLAIMS = Path(claims.suppressors.test_validity.__file__).parent


def every_claim():
    """The test functions under claims/ that are marked as a claim."""
    found = []
    for path in sorted(CLAIMS.glob("test_*.py")):
        module = importlib.import_module(f"claims.suppressors.{path.stem}")
        found += [
            function
            for _, function in inspect.getmembers(module, inspect.isfunction)
            if any(mark.name == "claim" for mark in getattr(function, "pytestmark", ()))
        ]
    return found


def mostly_slow(claims):
    """Parameters: the claims, all but LIGHT marked as slow."""
    return [pytest.param(each, marks=[] if each in LIGHT else pytest.mark.slow) for each in claims]


def lists_of_figures(details):
    """The lists of numbers in details, however deep."""
    if isinstance(details, list) and all(isinstance(each, int | float) for each in details):
        return [details]
    parts = details.values() if isinstance(details, dict) else details
    return [
        found for each in parts if isinstance(each, dict | list) for found in lists_of_figures(each)
    ]


@pytest.mark.parametrize("claim", mostly_slow(CONTROLS), ids=lambda claim: claim.__name__)
def test_a_true_claim_is_supported(shelf, claim):
    control = CONTROLS[claim]
    verdict, given = shelf.measured(control.true_of, control.condition).hear(claim)
    assert verdict.status == "supported", f"{control.true_of}: {verdict.reason}"
    # What stands beside the verdict in the record of any claim.
    assert given["runs"] and all(isinstance(name, str) for name in given["runs"])
    if {"subject", "trio"} & set(inspect.signature(claim).parameters):
        assert re.fullmatch(r"\d+:\d+( \d+:\d+)*", given["subject"])
    if claim is not claims.suppressors.test_validity.test_swapped_labels_flip_the_logit_difference:
        assert given["details"]
    # An estimate stands there with its two ends, and without the counts behind it.
    for figures in lists_of_figures(given.get("details", {})):
        assert len({isinstance(each, int) for each in figures}) <= 1, figures
    if "largest" in given:
        deltas = [row["delta"] for row in given["largest"]]
        assert len(deltas) == 10 and deltas == sorted(deltas, reverse=True)


@pytest.mark.parametrize("claim", mostly_slow(CONTROLS), ids=lambda claim: claim.__name__)
def test_a_false_claim_is_refuted(shelf, claim):
    control = CONTROLS[claim]
    verdict = shelf.measured(control.false_of, control.condition).hear(claim).verdict
    assert verdict.status == "refuted", f"{control.false_of}: {verdict.reason}"


@pytest.mark.parametrize("claim", mostly_slow(PRESENT), ids=lambda claim: claim.__name__)
def test_an_effect_too_small_to_count_is_present(shelf, claim):
    verdict = shelf.measured(SMALL, "facts").hear(claim).verdict
    assert verdict.status == "present", verdict.reason


def test_every_claim_has_controls():
    found = every_claim()
    assert len(found) > 30  # they were looked for where they are
    lacking = [claim.__name__ for claim in found if claim not in {*CONTROLS, *ELSEWHERE}]
    assert not lacking, (
        f"no model is known of which these claims are true, and none of which they are false: "
        f"{', '.join(lacking)}. Give each a line in tests/known_models/controls.py, with two "
        "models of tests/known_models/models.py (or new ones there, that make it true and false)"
    )


@pytest.mark.parametrize("claim", ELSEWHERE, ids=lambda claim: claim.__name__)
def test_controls_that_stand_elsewhere_are_there(claim):
    file = ELSEWHERE[claim]
    text = (HERE / file).read_text(encoding="utf-8")
    for word in (claim.__name__, '"supported"', '"refuted"'):
        assert word in text, f"tests/known_models/{file} has no {word}"


def test_every_model_is_a_control():
    used = {name for control in CONTROLS.values() for name in (control.true_of, control.false_of)}
    compared = {known.reference for known in MODELS.values() if known.reference}
    assert set(MODELS) == used | compared | {SMALL}
