"""What a screened sweep says, and what it must not: measured heads exactly, the others by a bound.

Run: pytest tests/analysis/test_screened_sweeps.py
"""

from dataclasses import replace

import numpy as np
import pytest

from claims.suppressors import test_binders as binders
from claims.suppressors import test_h1_suppressors as h1
from tests.synthetic_sweeps import HEADS, LAYERS, make_sweep
from tinyablation.analysis.effects import EffectsError
from tinyablation.analysis.screened_sweeps import ScreenedSweep
from tinyablation.measurement.screening import Plan
from tinyablation.verdicts.listener import hear
from tinyablation.verdicts.subjects import Subject
from tinyablation.verdicts.verdicts import Verdict, judge_above_floor

NAMED = Subject(suppressor="0:2", trio=["0:2", "0:0", "0:1"], source="planted")
PLANTED = {(0, 2): 1.0}
EVERY = tuple((layer, head) for layer in range(LAYERS) for head in range(HEADS))
REST = tuple(head for head in EVERY if head[0] > 0)


def screened(effects, *, top=((1, 0), (2, 0)), sample=((1, 1), (2, 1)), **options):
    """A sweep that measured layer 0, `top` and `sample` only; scores are the planted effects."""
    scores = tuple(
        tuple(effects.get((layer, head), 0.0) for head in range(HEADS)) for layer in range(LAYERS)
    )
    plan = Plan("2:2", (0,), tuple(sorted(top)), tuple(sorted(sample)), scores, "plan")
    full = make_sweep(effects, **options)
    table = full.table
    keep = [
        number < 0 or (layer, number) in plan.measured
        for layer, number in zip(table["layer"], table["head"], strict=True)
    ]
    return ScreenedSweep("made-up", "facts", table[keep], 1e-6, runs=("run",), plan=plan), full


def test_measured_heads_are_those_of_the_plan_and_their_figures_as_ever():
    sweep, full = screened(PLANTED)
    assert sweep.heads == sweep.plan.measured
    assert (sweep.n_layers, full.n_layers) == (LAYERS, LAYERS)
    assert sweep.effect((0, 2)) == full.effect((0, 2))
    assert sweep.lead((0, 2), (1, 0)) == full.lead((0, 2), (1, 0))
    assert sweep.rank((0, 2)) == 1
    with pytest.raises(EffectsError, match="head 2:3 was not measured, for the sweep was screened"):
        sweep.effect((2, 3))
    with pytest.raises(EffectsError, match="has no head 0:9"):
        sweep.effect((0, 9))


def test_p_is_corrected_over_the_heads_that_were_measured():
    """Fewer than all are a smaller family; the confirmation split did not choose them."""
    sweep, full = screened({(0, 2): 0.11})
    assert 0 < sweep.p_corrected((0, 2)) <= full.p_corrected((0, 2)) + 0.01


def test_the_record_says_what_was_measured_and_what_may_be_hidden():
    sweep, _ = screened({**PLANTED, (2, 1): -1.0})
    found = sweep.screened
    assert (found.n_heads, found.measured) == (12, 8)
    assert (found.by_layer, found.by_score, found.by_chance) == (4, 2, 2)
    assert found.floor == pytest.approx(sweep.floor())
    # 6 heads are neither in layer 0 nor top; 2 of them were drawn, none of which raises LD: with 5
    # that do, none is drawn with probability 0; with 4, 1 in 15.
    assert found.raising.model_dump() == {"n": 4, "sampled": 2, "found": 0, "most": 4}
    assert found.lowering.model_dump() == {"n": 4, "sampled": 2, "found": 1, "most": 4}
    assert found.raising.share == 1.0
    assert found.agreement is None  # two heads have no rank correlation


def test_agreement_is_that_of_the_heads_drawn():
    effects = {(1, 1): -0.9, (1, 2): 0.9, (2, 1): 0.3, (2, 2): -0.3, (1, 3): 2.0}
    chance = ((1, 1), (1, 2), (2, 1), (2, 2))
    sweep, _ = screened(effects, top=((1, 3),), sample=chance)
    assert sweep.screened.agreement == pytest.approx(1.0)
    turned = tuple(tuple(-score for score in row) for row in sweep.plan.scores)
    against = replace(sweep, plan=replace(sweep.plan, scores=turned), _cache={})
    assert against.screened.agreement == pytest.approx(-1.0)


def test_the_heatmap_leaves_out_what_was_not_measured():
    sweep, _ = screened(PLANTED)
    values = sweep.heatmap()["values"]
    assert [[value is not None for value in row] for row in values] == [
        [True, True, True, True],
        [True, True, False, False],
        [True, True, False, False],
    ]
    assert "not measured" in sweep.heatmap()["title"]


def test_heads_that_were_not_measured_count_at_their_worst():
    """P8: (k + 1) / (n + 1) over ALL other heads, not over those that were looked at."""
    sweep, full = screened(PLANTED)
    assert full.exceedance((0, 2)) == pytest.approx(1 / 12)
    assert sweep.exceedance((0, 2)) == pytest.approx((0 + 4 + 1) / 12)
    whole, _ = screened(PLANTED, sample=[head for head in REST if head[1] > 0])
    assert whole.exceedance((0, 2)) == pytest.approx(1 / 12)


# --- claims over all heads -----------------------------------------------------------------------


def test_no_other_head_is_never_said_of_heads_that_were_not_measured():
    """The head that does most, 2:3, was passed over: a full sweep refutes, this one cannot tell."""
    hidden = {(0, 2): 0.5, (2, 3): 1.5}
    sweep, full = screened(hidden)
    exact, _ = hear(h1.test_top_suppressor_is_in_layer_zero, full, full)
    assert exact.status == "refuted"
    verdict, _ = hear(h1.test_top_suppressor_is_in_layer_zero, sweep, full)
    assert verdict.status == "inconclusive"
    assert "of 4 heads not measured up to 4 may do as well as 0:2" in verdict.reason
    assert "0 of the 2 drawn" in verdict.reason and "can say supported" in verdict.reason
    assert verdict.p_value is None
    named, _ = hear(h1.test_no_other_head_does_as_well, sweep, NAMED)
    assert named.status == "inconclusive" and "may do as well as 0:2" in named.reason


def test_nor_is_it_of_an_effect_too_small_to_count():
    sweep, full = screened({(0, 2): 0.08, (2, 3): 1.5}, spread=0.03)
    for claim, with_ in (
        (h1.test_top_suppressor_is_in_layer_zero, full),
        (h1.test_no_other_head_does_as_well, NAMED),
    ):
        assert hear(claim, full, with_)[0].status == "refuted"
        found, _ = hear(claim, sweep, with_)
        assert found.status == "inconclusive" and "can say present" in found.reason


def test_a_rival_that_was_measured_refutes():
    sweep, full = screened({(0, 2): 0.5, (2, 0): 1.5})
    for claim, with_ in (
        (h1.test_top_suppressor_is_in_layer_zero, full),
        (h1.test_no_other_head_does_as_well, NAMED),
    ):
        verdict, _ = hear(claim, sweep, with_)
        assert verdict.status == "refuted"


def test_h1_1_is_refuted_of_a_whole_layer_0_whatever_was_not_measured():
    """Layer 0 is whole in every screening, and a head elsewhere that leads was measured."""
    for effects in ({(0, 2): -0.1}, {(0, 2): 0.5, (2, 0): 1.5}):
        sweep, full = screened(effects, spread=0.05)
        found, exact = (
            hear(h1.test_top_suppressor_is_in_layer_zero, each, full)[0] for each in (sweep, full)
        )
        assert found.status == exact.status == "refuted"


def test_claims_about_a_whole_layer_are_as_ever():
    effects = {(0, 2): 1.0, (0, 0): 0.6, (0, 1): 0.5}
    sweep, full = screened(effects)
    for claim in (h1.test_named_head_tops_its_layer, h1.test_partners_come_next):
        verdict, exact = (hear(claim, each, NAMED)[0] for each in (sweep, full))
        assert verdict.status == exact.status == "supported"
        assert verdict.effect == exact.effect


def test_a_sample_that_leaves_nothing_out_says_what_a_full_sweep_says():
    sweep, full = screened(PLANTED, sample=[head for head in REST if head[1] > 0])
    verdict, _ = hear(h1.test_top_suppressor_is_in_layer_zero, sweep, full)
    assert verdict.status == "supported"
    assert sweep.screened.raising.n == 0 and sweep.screened.raising.most == 0


def judge(sweep, head) -> Verdict:
    return judge_above_floor(sweep.effect(head), floor=sweep.floor(), what="zeroing it")


def some_head(sweep, chosen, heads, **options) -> Verdict:
    each = {head: judge(sweep, head) for head in heads}
    return sweep.for_some_head(judge(sweep, chosen), each, sweep.floor(), **options)


def test_some_head_does_stands_where_it_was_measured_and_falls_with_the_bound():
    sweep, full = screened({(1, 0): 1.0}, spread=0.05)
    held = judge(sweep, (1, 0))
    assert held.status == "supported"
    assert some_head(sweep, (1, 0), sweep.heads) == held
    weak = judge(sweep, (2, 0))
    assert weak.status == "refuted"
    said = some_head(full, (2, 0), full.layer(2), layers=[2])
    assert (said.status, said.reason) == (weak.status, weak.reason)
    assert said.distance == max(judge(full, head).distance for head in full.layer(2))
    unsaid = some_head(sweep, (2, 0), sweep.layer(2), layers=[2])
    assert unsaid.status == "inconclusive" and "can say refuted" in unsaid.reason
    assert unsaid.effect == weak.effect
    # Of layers that were measured whole nothing is hidden.
    assert some_head(sweep, (0, 0), sweep.layer(0), layers=[0]).status == "refuted"
    # A head of the layers that is not excluded, though the chosen one is.
    left = some_head(full, (2, 0), full.heads)
    assert left.status == "inconclusive" and "1 are not excluded: 1:0 has" in left.reason
    # Of the 3 heads passed over in layer 2, 1 was drawn and lowers nothing: both others may.
    low = sweep.unmeasured(-0.2, alternative="less", layers=[2])
    assert (low.n, low.sampled, low.found, low.most) == (2, 1, 0, 2)


def test_a_verdict_that_cannot_fall_is_left_alone():
    sweep, _ = screened(PLANTED)
    straddling = Verdict("inconclusive", "it straddles")
    assert sweep.for_every_head(straddling, (0, 2)) == straddling
    assert sweep.for_some_head(straddling, {}, 0.1) == straddling


def test_heads_of_high_scores_are_judged_by_the_half_that_did_not_choose_them():
    sweep, _ = screened(PLANTED)
    assert sweep.choose(sweep.layer(0)).split == "both"
    assert sweep.choose(sweep.heads).split == "confirmation"


@pytest.mark.slow
def test_the_bound_holds_for_samples_of_a_sweep():
    """Of 8 heads passed over 4 raise LD; whichever 3 are drawn, at least 95 % of bounds cover."""
    from itertools import combinations

    effects = dict.fromkeys(REST[:4], 1.0)
    covered = []
    for sample in combinations(REST, 3):
        sweep, _ = screened(effects, top=(), sample=sample)
        hidden = sweep.screened.raising
        missed = sum(head in effects for head in REST if head not in sample)
        covered.append(hidden.most >= missed)
    assert len(covered) == 56 and np.mean(covered) >= 0.95


@pytest.mark.parametrize(
    ("claim", "effects", "full_status", "status"),
    [
        (binders.test_a_middle_head_binds, {(1, 0): -1.0}, "supported", "supported"),
        (binders.test_a_middle_head_binds, {(1, 3): -1.0}, "supported", "inconclusive"),
        (binders.test_a_middle_head_binds, {}, "refuted", "inconclusive"),
        (binders.test_a_late_head_sharpens, {}, "refuted", "inconclusive"),
    ],
)
def test_claims_that_some_head_does(claim, effects, full_status, status):
    """What a full sweep supports or refutes is never turned round, only left open."""
    sweep, full = screened(effects, spread=0.05)
    assert hear(claim, full)[0].status == full_status
    verdict, given = hear(claim, sweep)
    assert verdict.status == status
    measured = tuple(int(number) for number in given["subject"].split(":"))
    assert measured in sweep.heads
