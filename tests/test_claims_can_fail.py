"""Every claim, judged on made-up measurements: it can be supported, and it can be refuted.

Run: pytest tests/test_claims_can_fail.py
"""

import pandas
import pytest

from claims import test_h1_suppressors as h1
from claims import test_validity as validity
from tests.synthetic_sweeps import HEADS, make_sweep
from tinyablation.expectations import Subject
from tinyablation.validity import Tables, condition_validity

NAMED = Subject(suppressor="0:2", trio=["0:2", "0:0", "0:1"], source="planted")
PLANTED = {(0, 2): 1.0}
NOTHING = {}
ELSEWHERE = {(0, 2): 0.5, (2, 1): 1.5}
OTHER_HEAD = {(0, 3): 1.0}
SMALL = {(0, 2): 0.08}  # 2 % of the clean LD: told from zero, and below the floor


class Verdicts:
    """Stands in for the fixture `judge`."""

    def __call__(self, verdict, **given):
        self.verdict, self.given = verdict, given


class Model:
    seed = 0


def sweep_with(effects):
    # A small effect is only told from zero, and from the floor, where heads vary little.
    return make_sweep(effects, spread=0.03 if effects is SMALL else 0.2)


def judged(claim, *arguments):
    verdicts = Verdicts()
    claim(*arguments, verdicts)
    return verdicts.verdict


@pytest.mark.parametrize(
    ("effects", "status"),
    [
        (PLANTED, "supported"),
        (OTHER_HEAD, "supported"),
        (NOTHING, "refuted"),
        (ELSEWHERE, "refuted"),
        (SMALL, "refuted"),
        ({(0, 2): 0.2}, "inconclusive"),
    ],
)
def test_h1_1_top_suppressor(effects, status):
    sweep = sweep_with(effects)
    assert judged(h1.test_top_suppressor_is_in_layer_zero, sweep, sweep).status == status


@pytest.mark.parametrize(
    ("effects", "status"),
    [(PLANTED, "supported"), (OTHER_HEAD, "refuted"), (NOTHING, "refuted"), (SMALL, "refuted")],
)
def test_h1_1_named_head(effects, status):
    assert judged(h1.test_named_head_tops_its_layer, sweep_with(effects), NAMED).status == status


@pytest.mark.parametrize(
    ("effects", "status"),
    [
        ({(0, 2): 1.0, (0, 0): 0.6, (0, 1): 0.5}, "supported"),
        (PLANTED, "refuted"),
        ({(0, 2): 1.0, (0, 0): 0.6, (0, 1): 0.5, (0, 3): 0.9}, "refuted"),
    ],
)
def test_h1_2_partners(effects, status):
    assert judged(h1.test_partners_come_next, make_sweep(effects), NAMED).status == status


def test_h1_3_same_heads():
    ranked = {(0, head): 0.5 * head for head in range(HEADS)}
    turned = {(0, head): 0.5 * (HEADS - head) for head in range(HEADS)}
    alike = [make_sweep(ranked, condition=c, seed=n) for n, c in enumerate("abc")]
    unlike = [make_sweep(ranked, condition="a"), make_sweep(turned, condition="b", seed=1)]
    assert judged(h1.test_same_heads_lead_in_every_condition, alike).status == "supported"
    assert judged(h1.test_same_heads_lead_in_every_condition, unlike).status == "refuted"


@pytest.mark.parametrize(("effects", "status"), [(ELSEWHERE, "refuted"), (OTHER_HEAD, "refuted")])
def test_h1_8_null_refuted(effects, status):
    assert judged(h1.test_no_other_head_does_as_well, make_sweep(effects), NAMED).status == status


def test_h1_8_needs_enough_heads_to_be_supported():
    """Twelve heads give p = 1/12 at best: a clear lead alone is not enough."""
    verdict = judged(h1.test_no_other_head_does_as_well, make_sweep(PLANTED), NAMED)
    assert verdict.status == "inconclusive"
    assert verdict.p_corrected == pytest.approx(1 / 12)


# --- validity -------------------------------------------------------------------------------------


def tables(clean, corrupt, null=0.1, cells=("affirmed-true", "affirmed-false")):
    """Unhooked rows: LD by (cell, row), half of each cell with either label as target."""
    rows = []
    for number in range(80):
        cell = cells[number % len(cells)]
        yes = (number // 2) % 2 == 0
        rows.append(
            {
                "example": number,
                "cluster_id": f"fact{number // 4}",
                "cell": cell,
                "target": " yes" if yes else " no",
                "foil": " no" if yes else " yes",
                "clean": f"prompt {number}",
                "target_rank": 0,
                "target_probability": 0.5,
            }
        )

    def side(value):
        noise = [0.1 * ((7 * number) % 11 - 5) / 5 for number in range(len(rows))]
        ld = [value(row) + extra for row, extra in zip(rows, noise, strict=True)]
        return pandas.DataFrame(rows).assign(logit_diff=ld)

    as_rule = lambda v: v if callable(v) else (lambda row: v)  # noqa: E731
    return Tables(side(as_rule(clean)), side(as_rule(corrupt)), side(as_rule(null)))


KNOWS = tables(3.0, -3.0)
# Goes by the operator word: right on true statements, wrong on false ones.
OPERATOR_ONLY = tables(lambda row: 3.0 if row["cell"].endswith("true") else -3.0, -3.0)
# Cannot tell clean from corrupt.
BLIND = tables(3.0, 3.0)
# Says yes whatever is asked.
YES = tables(*[lambda row: 2.0 if row["target"] == " yes" else -2.0] * 2, null=0.1)
# Has a prior as large as its answers.
PRIOR = tables(1.0, -1.0, null=3.0)


@pytest.mark.parametrize(
    ("claim", "holds", "fails"),
    [
        (validity.test_model_is_competent, KNOWS, OPERATOR_ONLY),
        (validity.test_clean_and_corrupt_are_told_apart, KNOWS, tables(-1.0, 1.0)),
        (validity.test_swapped_labels_flip_the_logit_difference, KNOWS, YES),
        (validity.test_null_prompt_shows_no_prior, KNOWS, PRIOR),
    ],
)
def test_validity_claims(claim, holds, fails):
    assert judged(claim, holds, Model()).status == "supported"
    assert judged(claim, fails, Model()).status == "refuted"


@pytest.mark.parametrize("wrong", [OPERATOR_ONLY, BLIND, YES, PRIOR])
def test_a_condition_is_valid_only_if_every_check_holds(wrong):
    assert condition_validity(KNOWS).status == "supported"
    assert condition_validity(wrong).status == "refuted"


def test_a_blind_model_is_not_told_apart():
    assert (
        judged(validity.test_clean_and_corrupt_are_told_apart, BLIND, Model()).status != "supported"
    )
