"""What the API finds is what `pytest claims` finds: the same runs, the same accepted figures.

Run: pytest tests/api/test_agreement.py
"""

import json

import pandas
import pytest

from tests.api.conftest import ROOT
from tests.benches import bench_of
from tinyablation.analysis.findings import Findings
from tinyablation.api.model import load
from tinyablation.heads import Head

ACCEPTED = json.loads(
    (ROOT / "claims" / "suppressors" / "__snapshots__" / "tiny-gpt2.json").read_text()
)
# Accepted figures have six digits; float32 sums of batches of another shape differ by 1e-6.
DIGITS = 1e-5


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load("tiny-gpt2", store=tmp_path_factory.mktemp("store"))


def require_accepted(verdict, claim: str) -> None:
    accepted = ACCEPTED[claim]
    assert verdict.status == accepted["verdict"]
    found = verdict.effect
    assert (found.n, found.n_clusters) == (accepted["n_examples"], accepted["n_clusters"])
    for name, value in (("effect", found.estimate), ("low", found.low), ("high", found.high)):
        assert value == pytest.approx(accepted[name], rel=DIGITS, abs=DIGITS)
    assert verdict.floor == pytest.approx(accepted["floor"], rel=DIGITS)
    if "margin" in accepted:
        assert verdict.margin.low == pytest.approx(accepted["margin_low"], rel=DIGITS, abs=DIGITS)


@pytest.mark.slow
def test_a_sweep_is_the_run_of_the_claims(model, tmp_path):
    sweep = model.sweep("facts")
    own = Findings(bench_of("tiny-gpt2", model.bench.store.root)).sweep("facts")
    assert own.runs == sweep.effects.runs
    pandas.testing.assert_frame_equal(own.table, sweep.rows, check_exact=True)
    # Measured anew, by the claims' bench in another store: the same to the last bit.
    again = Findings(bench_of("tiny-gpt2", tmp_path)).sweep("facts")
    pandas.testing.assert_frame_equal(again.table, sweep.rows, check_exact=True)


@pytest.mark.slow
def test_the_verdict_on_a_named_head_is_accepted_as_h1_8s(model):
    require_accepted(
        model.sweep("facts").verdict("L0H7"), "H1.8 test_no_other_head_does_as_well facts"
    )


@pytest.mark.slow  # a sweep; test_the_verdict_on_a_path_is_accepted_as_h6_3s is the light one
def test_the_verdict_on_a_chosen_head_is_accepted_as_h1_1s(model):
    require_accepted(
        model.sweep("facts").verdict(), "H1.1 test_top_suppressor_is_in_layer_zero facts"
    )


@pytest.mark.slow
def test_a_set_has_the_effect_that_claims_read(model):
    """Another battery, of both splits: the same figures on the split that claims judge by."""
    trio = (Head(0, 0), Head(0, 5), Head(0, 7))
    verdict = model.ablate("facts", "L0H7 L0H0 L0H5").verdict(split="confirmation")
    own = Findings(bench_of("tiny-gpt2", model.bench.store.root)).subsets("facts", trio)
    assert verdict.effect == pytest.approx(own.effect(trio), rel=DIGITS)
    assert verdict.margin == pytest.approx(own.margin_of(trio), rel=DIGITS)
    accepted = ACCEPTED["H1.5 test_trio_of_the_small_model_raises_ld facts"]
    assert verdict.status == accepted["verdict"]
    assert verdict.effect.estimate == pytest.approx(accepted["effect"], rel=DIGITS)


def test_the_verdict_on_the_condition_is_accepted_as_v_2s(model):
    require_accepted(
        model.check("facts").verdict, "V.2 test_clean_and_corrupt_are_told_apart facts"
    )


@pytest.mark.slow
def test_the_verdict_on_patches_is_accepted_as_h6_1s(model):
    verdict = model.patch("facts").verdict()
    require_accepted(verdict, "H6.1 test_patching_is_asymmetric facts")
    assert verdict.subject == "layer 1, last"


def test_the_verdict_on_a_path_is_accepted_as_h6_3s(model):
    verdict = model.path("facts", "L0H7").verdict(model.n_layers // 2, split="confirmation")
    require_accepted(verdict, "H6.3 test_path_mediates_most facts")
