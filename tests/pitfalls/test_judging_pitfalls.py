"""P5-P8, P10, P11, P13, P15: what a verdict must never rest on. Run: pytest tests/pitfalls"""

from dataclasses import replace

import numpy as np
import pandas
import pytest

from tests.synthetic_sweeps import HEADS, LAYERS, make_sweep
from tinyablation.analysis.calibration import Unbalanced, balanced, brier, oriented
from tinyablation.measurement.validity import Tables, condition_validity, exceeds_prior
from tinyablation.runs.across_seeds import draw_clusters, seed_summary
from tinyablation.statistics.clusters import StatisticsError
from tinyablation.statistics.intervals import DegenerateInterval, exceedance

PLANTED = {(0, 2): 1.0}


def test_p05_labels_come_from_the_examples_not_from_the_score():
    """Whatever the model says, the labels are the same, half of each; louder is not better."""
    answers = [(" no", " yes"), (" yes", " no")] * 20
    rows = pandas.DataFrame(answers, columns=["target", "foil"])
    rows["cluster_id"] = "a"
    for scale in (1.0, -3.0):  # a model that is right, and one that is loudly wrong
        found = oriented(rows.assign(logit_diff=scale))
        assert found.labels.tolist() == [True, False] * 20
        balanced(found.labels)
    right = oriented(rows.assign(logit_diff=1.0))
    wrong = oriented(rows.assign(logit_diff=-1.0))
    louder = oriented(rows.assign(logit_diff=-4.0))
    assert brier(right.logits, right.labels).mean() < brier(wrong.logits, wrong.labels).mean()
    assert brier(wrong.logits, wrong.labels).mean() < brier(louder.logits, louder.labels).mean()
    with pytest.raises(Unbalanced):
        balanced([True] * 30 + [False] * 10)


def test_p06_the_planted_suppressor_comes_out_on_top():
    """One sign: Delta = ablated - clean, a suppressor's is above 0."""
    sweep = make_sweep({(0, 2): 1.0, (1, 1): -2.0})
    assert sweep.top_suppressor() == (0, 2) and sweep.rank((0, 2)) == 1
    assert sweep.effect((0, 2)).low > 0 > sweep.effect((1, 1)).high
    assert sweep.rank((1, 1)) == LAYERS * HEADS


def unhooked(value, *, top1=True):
    rows = [
        {
            "example": n,
            "cluster_id": f"fact{n // 4}",
            "template_id": "plain.true",
            "cell": ("affirmed-true", "affirmed-false")[n % 2],
            "target": (" yes", " no")[n // 2 % 2],
            "foil": (" no", " yes")[n // 2 % 2],
            "target_rank": 0 if top1 else 9,
            "target_probability": 0.5 if top1 else 0.01,
        }
        for n in range(160)
    ]
    grain = [0.02 * ((7 * n) % 11 - 5) for n in range(160)]
    figures = [value(row) + extra for row, extra in zip(rows, grain, strict=True)]
    return pandas.DataFrame(rows).assign(logit_diff=figures)


def status(clean, corrupt, null=lambda row: 0.1):
    return condition_validity(Tables(unhooked(clean), unhooked(corrupt), unhooked(null))).status


def test_p07_a_model_that_does_not_behave_is_not_judged():
    """D may be high on average and wrong of every third fact: most prompts must be told apart."""
    assert status(lambda row: 3.0, lambda row: -3.0) == "supported"
    some = lambda row: -1.0 if int(row["cluster_id"][4:]) % 3 == 0 else 9.0  # noqa: E731
    assert status(some, lambda row: -some(row)) == "refuted"
    behaviour = make_sweep(PLANTED).behaviour((0, 2))
    assert {"clean_top1", "ablated_top1", "clean_p_target", "ablated_p_target"} <= set(behaviour)


def test_p08_the_null_is_all_others_of_the_condition_and_not_the_head_itself():
    """Exact: the best of twelve heads has p = 1 / 12, however many times it is asked."""
    sweep = make_sweep(PLANTED)
    assert sweep.exceedance((0, 2)) == pytest.approx(1 / (LAYERS * HEADS))
    assert exceedance(5.0, [1.0, 2.0, 3.0]) == 1 / 4  # (0 + 1) / (3 + 1), never 0
    assert exceedance(2.0, [1.0, 2.0, 3.0]) == 3 / 4  # a tie counts against the value
    quantile = sweep.null_quantile((0, 2), 1.0)
    assert quantile < sweep.mean_deltas("confirmation")[0, 2]


def test_p10_a_prior_is_not_knowledge():
    """Clean and corrupt not told apart, an answer preferred whatever is asked, a loud null."""
    assert status(lambda row: 3.0, lambda row: 3.0) == "refuted"
    says_yes = lambda row: 2.0 if row["target"] == " yes" else -2.0  # noqa: E731
    assert status(says_yes, says_yes) == "refuted"
    # Wrong in a cell that is too small to move the share of all.
    rare = lambda row: -3.0 if row["example"] % 40 == 0 else 3.0  # noqa: E731
    small = lambda row: "rare" if row["example"] % 40 == 0 else "often"  # noqa: E731
    sides = [unhooked(rare), unhooked(lambda row: -rare(row))]
    cells = [side.assign(cell=[small(row) for _, row in side.iterrows()]) for side in sides]
    assert condition_validity(Tables(*cells, None)).status == "refuted"
    assert condition_validity(Tables(*sides, None)).status != "refuted"
    loud = [unhooked(lambda row, ld=ld: ld) for ld in (1.0, -1.0, 3.0)]
    assert exceeds_prior(Tables(*loud)).status == "refuted"


def test_p11_a_seed_draws_something_or_it_is_an_error():
    with pytest.raises(DegenerateInterval, match="drew nothing"):
        seed_summary({0: 0.265, 1: 0.265, 2: 0.265})
    low, high = seed_summary({0: 0.25, 1: 0.27, 2: 0.26})["ci95"]
    assert low < 0.26 < high
    clusters = [f"c{n // 2}" for n in range(40)]
    first, second = (draw_clusters(clusters, 0.5, seed) for seed in (0, 1))
    assert first.sum() == second.sum() == 20 and (first != second).any()
    with pytest.raises(StatisticsError, match="leave some out"):
        draw_clusters(clusters, 1.0, 0)


def test_p13_heads_are_chosen_on_one_split_and_judged_on_the_other():
    """A head that leads on the confirmation split by luck is not the one that is chosen."""
    sweep = make_sweep({(0, 1): 1.0})
    table = sweep.table.copy()
    lucky = (table["split"] == "confirmation") & (table["heads"] == "0.3")
    table.loc[lucky, "logit_diff"] += 3.0
    turned = replace(sweep, table=table, _cache={})
    assert turned.top_suppressor() == (0, 1)
    assert turned.rank((0, 3)) == 1  # on the confirmation split


def test_p13_p_is_corrected_over_the_whole_sweep():
    """The same head's p is larger among many than alone."""
    sweep = make_sweep({(0, 1): 0.08}, spread=0.25, seed=4)
    rows = sweep.table["head"] < 0
    own = (sweep.table["layer"] == 0) & (sweep.table["head"] == 1)
    alone = replace(sweep, table=sweep.table[rows | own], _cache={})
    assert alone.p_corrected((0, 1)) < sweep.p_corrected((0, 1))


def test_p15_flips_are_against_the_clean_prediction():
    """A model that was wrong before is not flipped by an ablation that changes nothing."""
    sweep = make_sweep(PLANTED)
    wrong = replace(sweep, table=sweep.table.assign(target_rank=3), _cache={})  # argmax as it was
    assert wrong.behaviour((0, 2))["acc_flip_rate"] == 0.0
    table = sweep.table.copy()
    flipped = (table["heads"] == "0.2") & (table["example"] % 2 == 0)
    table.loc[flipped, "argmax"] = 8
    halves = replace(sweep, table=table, _cache={}).behaviour((0, 2))["acc_flip_rate"]
    assert halves == pytest.approx(0.5)
    assert np.isclose(
        replace(sweep, table=table, _cache={}).behaviour((0, 1))["acc_flip_rate"], 0.0
    )
