"""Claims about heads that copy, on models made for them to be true of, and untrue.

Run: pytest tests/test_literature_controls.py
"""

from pathlib import Path

import pytest

from claims.literature import test_dual_routes as dual
from claims.literature import test_forming as forming
from claims.literature import test_induction as induction
from fixtures.conditions import CONDITIONS
from tests.asked_models import came, findings, given, verdict
from tests.trained_circuit import blur, train_course, train_recall
from tests.two_routes import facts, repeats, save_two_routes
from tinyablation.analysis.attention_course import attention_course
from tinyablation.analysis.findings import Findings

pytestmark = pytest.mark.slow  # models are trained for them

STEPS = (0, 300, 400, 450, 500, 600)


@pytest.fixture(scope="module")
def course(tmp_path_factory) -> Path:
    """Checkpoints of a model that learns to copy."""
    folder = tmp_path_factory.mktemp("course")
    train_course(folder, STEPS)
    return folder


def learned(course: Path, name: str, copiers: tuple[int, int] | None) -> Findings:
    """Of a model that has learned facts, too."""
    train_recall(course / f"step{STEPS[-1]}", course / name, copiers)
    return findings(course, course / name)


@pytest.fixture(scope="module")
def beginner(course, tmp_path_factory) -> Findings:
    """Random weights: the model before it learns."""
    return findings(tmp_path_factory.mktemp("beginner"), course / "step0")


def test_induction_forms_in_training_and_before_sinks(course, tmp_path):
    found = findings(tmp_path, course / f"step{STEPS[-1]}", STEPS)
    read = attention_course(found.bench)
    rise = verdict(forming.test_induction_forms_during_training, attention_course=read)
    assert rise.status == "supported", rise.reason
    order = verdict(forming.test_induction_forms_before_sinks, attention_course=read)
    assert order.status == "supported", order.reason
    assert read.induction(0).mean() < 0.1 and read.induction(-1).mean() > 0.8
    learned = given(found)
    for claim in (
        induction.test_some_head_inducts,
        induction.test_some_head_attends_to_the_previous_token,
    ):
        assert came(claim, learned).status == "supported"
    # Both heads of the second layer have learned to induct.
    matched = came(
        induction.test_zeroing_induction_heads_destroys_copying, learned, condition="repeats"
    )
    assert matched.status == "blocked" and "none is left to match" in matched.reason


def test_random_weights_have_no_such_heads(beginner):
    fixtures = given(beginner)
    for claim in (
        induction.test_some_head_inducts,
        induction.test_some_head_attends_to_the_previous_token,
    ):
        assert came(claim, fixtures).status == "refuted"
    for claim, condition in (
        (induction.test_zeroing_induction_heads_destroys_copying, "repeats"),
        (induction.test_induction_heads_copy_names_in_prose, "natural_repeats"),
        (induction.test_induction_heads_copy_and_know_no_facts, ""),
        (induction.test_previous_token_heads_serve_induction_and_no_facts, ""),
        (dual.test_token_heads_copy_and_concept_heads_recall, ""),
    ):
        found = came(claim, fixtures, condition=condition)
        assert found.status == "blocked" and found.reason.startswith("no head of "), found.reason


def test_one_layer_cannot_learn_to_induct(tmp_path):
    """A head finds what followed a token only if an earlier head has written what came before."""
    train_course(tmp_path, (0, 600), layers=1)
    found = findings(tmp_path, tmp_path / "step600", (0, 600))
    read = attention_course(found.bench)
    rise = verdict(forming.test_induction_forms_during_training, attention_course=read)
    assert rise.status == "refuted", rise.reason
    order = verdict(forming.test_induction_forms_before_sinks, attention_course=read)
    assert order.status == "blocked" and "inducts" in order.reason
    head = came(induction.test_some_head_inducts, given(found))
    assert head.status == "refuted", head.reason


# L0H0 attends to the previous token in training, L1H1 inducts most.
COPIERS = (0, 1)


def test_heads_that_serve_copying_alone_are_told(course):
    fixtures = given(learned(course, "apart", COPIERS))
    for claim, condition in (
        (induction.test_zeroing_induction_heads_destroys_copying, "repeats"),
        (induction.test_induction_heads_copy_names_in_prose, "natural_repeats"),
        (induction.test_induction_heads_copy_and_know_no_facts, ""),
        (induction.test_previous_token_heads_serve_induction_and_no_facts, ""),
    ):
        found = came(claim, fixtures, condition=condition)
        assert found.status == "supported", found.reason


def test_heads_that_serve_facts_too_are_told(course):
    """Learned by whatever heads serve: without those that copy, facts are lost."""
    fixtures = given(learned(course, "together", None))
    for claim in (
        induction.test_induction_heads_copy_and_know_no_facts,
        induction.test_previous_token_heads_serve_induction_and_no_facts,
    ):
        found = came(claim, fixtures)
        assert found.status == "refuted", found.reason


@pytest.mark.parametrize(("faint", "status"), [(0, "supported"), (1, "refuted")])
def test_heads_that_induct_are_told_from_those_that_copy(faint, status, course, tmp_path):
    """L1H1 inducts by its score; what is copied is written by it, or by a head of a low score."""
    blur(course / f"step{STEPS[-1]}", tmp_path / "blurred", faint=faint)
    names = ("repeats", "natural_repeats")
    found = findings(tmp_path, tmp_path / "blurred", **{name: CONDITIONS[name]() for name in names})
    fixtures = given(found)
    scores = fixtures["repeated_tokens"].values("induction").mean(axis=0)
    assert scores[2] < induction.MOST < scores[3]
    for claim, condition in zip(
        (
            induction.test_zeroing_induction_heads_destroys_copying,
            induction.test_induction_heads_copy_names_in_prose,
        ),
        names,
        strict=True,
    ):
        came_out = came(claim, fixtures, condition=condition)
        assert came_out.status == status, came_out.reason
        assert "without 1:1" in came_out.reason


@pytest.mark.parametrize(("together", "status"), [(False, "supported"), (True, "refuted")])
def test_two_routes_are_told_from_one(together, status, tmp_path):
    save_two_routes(tmp_path / "routes", together=together)
    found = findings(tmp_path, tmp_path / "routes", repeats=repeats(), facts=facts())
    came_out = came(dual.test_token_heads_copy_and_concept_heads_recall, given(found))
    assert came_out.status == status, came_out.reason
