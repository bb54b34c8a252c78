"""Validity: what a model can do without interventions, told per cell.

That each check can hold and fail is shown in test_claims_can_fail.py.
Run: pytest tests/test_validity.py
"""

import pandas
import pytest

from tinyablation.validity import ALL, Tables, competence, has_no_prior, is_competent, tells_apart


def rows(ld, cell="", n=40):
    return pandas.DataFrame(
        {
            "cluster_id": [f"fact{number // 2}" for number in range(n)],
            "cell": cell,
            "target": [" yes" if number % 4 < 2 else " no" for number in range(n)],
            "foil": [" no" if number % 4 < 2 else " yes" for number in range(n)],
            "logit_diff": [ld + 0.01 * number for number in range(n)],
            "target_rank": [number % 2 for number in range(n)],
            "target_probability": 0.25,
        }
    )


def test_competence_is_told_by_cell():
    table = pandas.concat([rows(1.0, "and-TT"), rows(-9.0, "and-TF", n=20)], ignore_index=True)
    found = competence(table)
    assert found["and-TT"].accuracy == 1.0
    assert found["and-TF"].accuracy == 0.0
    assert found["and-TF"].n == 20
    assert found["and-TT"].top1 == 0.5
    assert found["and-TT"].p_target == 0.25


def test_a_condition_without_cells_has_one():
    assert list(competence(rows(1.0))) == [ALL]


def test_the_worst_cell_decides():
    table = pandas.concat([rows(1.0, "negated-true"), rows(-9.0, "negated-false")])
    verdict = is_competent(Tables(table, table, None))
    assert verdict.status == "refuted"
    assert "negated-false" in verdict.reason
    assert verdict.effect.estimate == 0.0


def test_a_cell_short_of_the_floor_by_less_than_its_interval_is_inconclusive():
    table = rows(1.0, n=20)
    table.loc[[3, 9, 15], "logit_diff"] = -1.0  # 17 of 20
    verdict = is_competent(Tables(table, table, None))
    assert verdict.status == "inconclusive"
    assert 0 <= verdict.effect.low < 0.9 < verdict.effect.high <= 1


def test_differences_are_paired_by_example():
    clean, corrupt = rows(3.0), rows(1.0)
    verdict = tells_apart(Tables(clean, corrupt, None))
    assert verdict.effect[:3] == pytest.approx((2.0, 2.0, 2.0))
    assert verdict.status == "supported"


def test_without_null_prompts_the_prior_cannot_be_judged():
    verdict = has_no_prior(Tables(rows(3.0), rows(-3.0), None))
    assert verdict.status == "blocked"
    assert "null" in verdict.reason
