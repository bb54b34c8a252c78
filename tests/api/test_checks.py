"""Run: pytest tests/api/test_checks.py"""

import pytest

from tinyablation.api.prompts import Prompts


def test_prompts_that_are_answered_are_valid(model, tuples):
    found = model.check(tuples)
    # Thirty of thirty: not shown to be known in less than .9, and not shown to be in more.
    assert found.ok and found.reason is None and found.verdict.status == "inconclusive"
    assert found.verdict.effect[:3] == pytest.approx((1.0, 0.884, 1.0), abs=1e-3)
    assert found.verdict.unit == "share" and found.verdict.effect.n == len(tuples)
    row = found.table.iloc[0]
    assert row["n"] == len(tuples) and row["kind"] == "all"
    assert row["accuracy"] == (found.rows["logit_diff"] > 0).mean()
    assert row["ld"] == pytest.approx(found.rows["logit_diff"].mean())
    assert found.rows["method"].unique() == ["none"]


def test_with_corrupt_prompts_the_gate_of_the_claims_judges(model, rows, tuples):
    found = model.check(rows)
    assert found.ok and "told apart" in found.verdict.reason
    assert "two-way accuracy" in model.check(tuples).verdict.reason
    # A model that prefers one answer whatever is asked has right answers, and tells nothing apart.
    swapped = [row | {"corrupt": f"{row['clean']}", "clean": row["corrupt"]} for row in rows]
    failing = model.check(swapped)
    assert not failing.ok and failing.verdict.status == "refuted"
    assert failing.reason in failing.verdict.reason


def test_prompts_that_are_not_answered_are_not(model, tuples):
    found = model.check([(prompt, foil, target) for prompt, target, foil in tuples])
    assert not found.ok and found.verdict.status == "refuted"
    assert found.reason.startswith("two-way accuracy: 0")


def test_defects_of_prompts_are_listed(model, tuples):
    found = model.check(tuples[:6]).defects
    assert "fewer than 20 clusters" in found
    assert model.check("facts").defects == {}


def test_a_notebook_shows_it(model, tuples):
    shown = model.check(tuples[:6])._repr_html_()
    assert "<td>all</td>" in shown and "fewer than 20 clusters" in shown
    assert repr(model.check(tuples)).startswith("Check(tiny-gpt2, prompts: inconclusive: ")


def test_a_file_that_is_no_condition_has_a_name_of_its_own(model, tuples):
    assert model.check(Prompts.of(tuples, name="capitals")).verdict.condition == "capitals"
