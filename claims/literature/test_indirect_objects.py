"""IOI: the circuit of indirect objects (Wang et al. 2022, arXiv:2211.00593), posed of any model.

Heads are chosen by what they write directly into LD (the final norm's scale frozen) on the
discovery split, and judged on the confirmation split.
"""

import pytest

from tinyablation.analysis.coalitions import set_name
from tinyablation.analysis.knockouts import SPARED
from tinyablation.heads import head_name
from tinyablation.verdicts.many import of_some
from tinyablation.verdicts.presuppositions import presupposed
from tinyablation.verdicts.shares import of_share
from tinyablation.verdicts.verdicts import (
    judge_above_floor,
    judge_all_of,
    judge_below_ceiling,
    of_many,
)

MOVERS = 3  # name movers of GPT-2 small: L9H9, L9H6, L10H0


@pytest.mark.claim("IOI.1", conditions="ioi")
def test_three_heads_write_the_answer(direct_effects, judge):
    """Three heads write the answer: each writes more of it than any other head does.

    Estimator: what a head writes directly into LD; the three that lead on discovery, each minus
      every other head, paired by example, on confirmation.
    Threshold: the 95 % interval over clusters of every such lead lies above 0, and that of each of
      the three above 5 % of the clean LD (intersection-union: no correction).
    Refuted if: the contribution of one of the three lies below 5 %, with p <= .025 / 3.
    Audit: planted control, selection correction
    """
    movers = direct_effects.chosen(MOVERS)
    lead, least = direct_effects.least_lead(movers)
    parts = [
        judge_above_floor(
            direct_effects.mean(head),
            floor=direct_effects.floor(),
            what=f"contribution of {head_name(head)}",
        )
        for head in movers
    ]
    what = f"lead of {head_name(lead.head)} over {head_name(lead.over)}"
    leads = judge_above_floor(lead.estimate, floor=direct_effects.sweep.zero(), what=what)
    judge(
        judge_all_of([*parts, of_many(leads, least)]),
        subject=set_name(movers),
        details={
            "contributions": {
                head_name(head): direct_effects.mean(head).estimate
                for head in direct_effects.chosen(2 * MOVERS)
            }
        },
        runs=direct_effects.runs,
    )


@pytest.mark.claim("IOI.2", conditions="ioi")
def test_other_heads_make_up_for_the_three(direct_effects, condition, knockout, judge):
    """Zero-ablating the three heads that write the answer hardly changes LD: others take over.

    Estimator: share of LD that is lost without the heads of IOI.1, on confirmation.
    Threshold: the 90 % interval over clusters lies within +- .1 (two one-sided tests), and the 95 %
      interval of the share of LD that the three write lies above .1: else there is nothing to make
      up for.
    Refuted if: the 95 % interval of what is lost lies outside +- .1.
    Audit: planted control, selection correction
    """
    movers = direct_effects.chosen(MOVERS)
    without = knockout(condition, movers)
    spared = without.spares(movers)
    what = f"share of LD that {set_name(movers)} write"
    writes = of_share(
        lambda: judge_above_floor(
            direct_effects.share_written(movers), floor=SPARED, what=what, unit=""
        ),
        what,
    )
    judge(
        judge_all_of([spared, presupposed(writes)], show=spared),
        subject=set_name(movers),
        runs=[*direct_effects.runs, *without.runs],
    )


@pytest.mark.claim("IOI.3", conditions="ioi")
def test_some_head_writes_against_the_answer(direct_effects, judge):
    """Some head writes against the answer, and without it the answer gains.

    Estimator: Delta LD of zero-ablating the head that lowers LD most by what it writes on
      discovery, on confirmation.
    Threshold: the 95 % interval over clusters lies above 5 % of the clean LD, .01 logits and the
      noise, and that of what the head writes below 0.
    Refuted if: the interval of Delta lies below that floor and not above 0, and no other head
      may write against the answer by more than that: the interval of what each writes lies above
      -5 % of the clean LD. (Of others it is not known what zero-ablating them does.)
    Audit: planted control, selection correction
    """
    (head,) = direct_effects.chosen(1, sign=-1)
    sweep = direct_effects.sweep
    gains = judge_above_floor(
        sweep.effect(head),
        floor=sweep.floor(),
        margin=sweep.margin_of(head),
        what=f"zero-ablating {head_name(head)}",
    )
    if gains.status == "refuted":
        gains = of_some(gains, _against(direct_effects, but=head), below=True)
    wrote = direct_effects.mean(head)
    against = judge_below_ceiling(
        wrote, ceiling=sweep.zero(), what=f"contribution of {head_name(head)}"
    )
    judge(
        judge_all_of([gains, presupposed(against)], show=gains),
        subject=head_name(head),
        details={"contribution": list(wrote[:3])},
        runs=direct_effects.runs,
    )


def _against(direct_effects, *, but):
    """Whether each other head writes against the answer, by more than counts."""
    return {
        head_name(head): judge_below_ceiling(
            direct_effects.mean(head),
            ceiling=-direct_effects.floor(),
            what=f"contribution of {head_name(head)}",
        )
        for head in direct_effects.heads
        if head != but
    }
