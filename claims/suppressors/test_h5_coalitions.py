"""H5: heads of layer 0 suppress together, and one of them carries the effect.

Heads are zero-ablated, alone, in pairs and in triples. Delta is LD ablated - LD clean, on the
confirmation split, paired by example. Restoring one of three zero-ablated heads is zero-ablating
the other two: both are one measurement, counted once.
"""

import pytest

from tinyablation.analysis.coalition_panels import (
    cooperation,
    heads_together,
    pair_gains,
    recoveries,
)
from tinyablation.analysis.coalitions import NO_RIVALS, set_name
from tinyablation.heads import head_name
from tinyablation.statistics.ratios import RatioUndefined
from tinyablation.verdicts.presuppositions import presupposed
from tinyablation.verdicts.verdicts import (
    blocked,
    judge_above_floor,
    judge_all_of,
    judge_below_ceiling,
    of_many,
)

# A model for which only a pair is named has no claim here: blocked.
pytestmark = pytest.mark.usefixtures("trio")

RECOVERY = 0.6  # H5.4: the share that the study claims for its head 0:2
# H5.5: what "little" is. The study's figures for 0:4 and 0:7 are 12 to 20 % on three conditions.
LITTLE = 0.25


@pytest.mark.claim("H5.1")
@pytest.mark.counterexample("suppression")
def test_zeroing_the_trio_raises_ld(subsets, coalitions, subject, judge):
    """Zero-ablating the three named heads together raises the logit difference.

    Estimator: mean Delta of the three heads.
    Threshold: the 95 % interval over fact clusters lies above 5 % of the clean LD, .01 logits and
      the numerical noise.
    Refuted if: the interval lies below that floor and not above 0.
    """
    trio = subject.trio
    effect = subsets.effect(trio)
    judge(
        judge_above_floor(
            effect,
            floor=subsets.floor(),
            margin=subsets.margin_of(trio),
            what=f"zero-ablating {set_name(trio)}",
        ),
        subject=set_name(trio),
        details={
            "clean LD": float(subsets.baseline("confirmation")["logit_diff"].mean()),
            "each alone": {head_name(head): list(subsets.effect([head])[:3]) for head in trio},
            "pairs": {
                set_name(pair): list(subsets.effect(pair)[:3]) for pair in subsets.pairs_of(trio)
            },
        },
        panels=[heads_together(subsets, trio), pair_gains(coalitions)],
        largest=subsets.extremes(trio),
        runs=[*subsets.runs, *coalitions.runs],
    )


@pytest.mark.claim("H5.2")
def test_pairs_with_the_leader_beat_the_pair_without(subsets, subject, judge):
    """Either pair of the three heads with the leading head beats the pair without it.

    Estimator: mean Delta of each such pair minus that of the pair without, paired by example.
    Threshold: both 95 % intervals over fact clusters lie above 0.
    Refuted if: one of them lies below 0.
    """
    leader = subject.suppressor
    pairs = subsets.pairs_of(subject.trio)
    (without,) = (pair for pair in pairs if leader not in pair)
    verdicts = [
        judge_above_floor(
            subsets.lead(pair, without),
            floor=subsets.zero(),
            what=f"lead of {set_name(pair)} over {set_name(without)}",
        )
        for pair in pairs
        if leader in pair
    ]
    judge(
        judge_all_of(verdicts),
        subject=head_name(leader),
        details={
            "pairs": {set_name(pair): list(subsets.effect(pair)[:3]) for pair in pairs},
            "all three": list(subsets.effect(subject.trio)[:3]),
        },
        panels=[heads_together(subsets, subject.trio)],
        largest=subsets.extremes(subject.trio),
        runs=subsets.runs,
    )


@pytest.mark.claim("H5.3")
def test_cooperation_is_super_additive(subsets, coalitions, subject, judge):
    """The three named heads suppress more together than the sum of what each does alone.

    Estimator: mean of Delta of the three heads minus the sum of the three heads' own, paired by
      example.
    Threshold: the 95 % interval over fact clusters lies above 5 % of the clean LD, .01 logits and
      the numerical noise, and that of the three heads' Delta above 0: what lowers LD less than the
      sum does no more.
    Refuted if: the interval of the difference lies below that floor and not above 0.
    """
    trio = subject.trio
    alone = sum(subsets.mean([head]) for head in trio)
    joint = subsets.mean(trio)
    more = judge_above_floor(
        subsets.cooperation(trio),
        floor=subsets.floor(),
        margin=subsets.margin(
            subsets.cooperations(trio), "confirmation", f"cooperation {set_name(trio)}"
        ),
        what=f"{set_name(trio)} together minus the sum of each alone",
    )
    suppress = judge_above_floor(
        subsets.effect(trio), floor=subsets.zero(), what=f"zero-ablating {set_name(trio)}"
    )
    judge(
        judge_all_of([more, presupposed(suppress)], show=more),
        subject=set_name(trio),
        details={
            "together": joint,
            "sum of each alone": alone,
            "together / sum": _share(subsets, trio),
            "accomplices of the leader": coalitions.accomplices(subject.suppressor),
        },
        panels=[cooperation(subsets, trio), pair_gains(coalitions)],
        largest=subsets.largest(subsets.cooperations(trio), "confirmation", 5),
        runs=[*subsets.runs, *coalitions.runs],
    )


@pytest.mark.claim("H5.4")
def test_leader_alone_recovers_most(subsets, subject, judge):
    """With all three zero-ablated, restoring the leading head alone takes back at least 60 % of it.

    Estimator: (Delta of the three heads - Delta of the other two) / Delta of the three heads;
      numerator and denominator bootstrapped together over fact clusters. Above 1 where
      zero-ablating the other two lowers LD: then restoring the leader takes back more than the
      three heads' whole effect.
    Threshold: the 95 % interval lies above .6. Where the three heads' own effect is not above 0
      there is no share to speak of, and the claim is blocked.
    Refuted if: the interval lies below .6.
    Audit: rescue
    """
    leader = subject.suppressor
    verdict = _recovery(subsets, subject.trio, leader, floor=RECOVERY)
    judge(
        verdict,
        subject=head_name(leader),
        details={
            **_beyond_a_share(verdict, leader),
            "all three": list(subsets.effect(subject.trio)[:3]),
            "without the leader": list(
                subsets.effect([head for head in subject.trio if head != leader])[:3]
            ),
        },
        panels=recoveries(subsets, subject.trio, RECOVERY),
        largest=_restored(subsets, subject.trio, [leader]),
        runs=subsets.runs,
    )


@pytest.mark.claim("H5.5")
def test_partners_recover_little(subsets, subject, judge):
    """Restoring either of the other two takes back little, if any, of the three heads' effect.

    Estimator: as for the leading head, for each of the other two; above 1, too, where zero-ablating
      the two that are not restored lowers LD, and below 0 where it raises LD more than all three.
    Threshold: both 95 % intervals lie below .25; blocked where the three heads' own effect is not
      above 0.
    Refuted if: one of them lies above .25.
    Audit: rescue
    """
    partners = [head for head in subject.trio if head != subject.suppressor]
    verdicts = [_recovery(subsets, subject.trio, head, ceiling=LITTLE) for head in partners]
    judge(
        judge_all_of(verdicts),
        subject=" ".join(head_name(head) for head in partners),
        details={
            head_name(head): list(verdict.effect[:3])
            for head, verdict in zip(partners, verdicts, strict=True)
            if verdict.effect
        }
        | {
            name: text
            for head, verdict in zip(partners, verdicts, strict=True)
            for name, text in _beyond_a_share(verdict, head).items()
        },
        panels=recoveries(subsets, subject.trio, LITTLE),
        largest=_restored(subsets, subject.trio, partners),
        runs=subsets.runs,
    )


@pytest.mark.claim("H5.6")
def test_no_other_trio_does_as_well(subsets, coalitions, sweep, subject, judge):
    """No other three heads of the layer without its leader raise the logit difference as much.

    Estimator: mean Delta of the three heads over every example, and its difference from that of
      every other measured triple that leaves the leading head out (with it, a triple has that
      head's own effect), over the examples on which all triples are measured; paired by example.
    Threshold: the 95 % interval of Delta over fact clusters lies above 5 % of the clean LD, .01
      logits and the numerical noise, and that of every lead above 0. Where only a sample of the
      triples was measured, it is inconclusive while one of the others may do as well.
    Refuted if: the interval of Delta lies below that floor and not above 0, or that of the lead
      over the triple whose heads do most, each alone, on the discovery split lies below 0.
    """
    trio = subject.trio
    rivals = coalitions.rivals(trio, subject.suppressor)
    if not rivals:
        judge(blocked(NO_RIVALS))
        return
    rival = coalitions.rival(rivals, sweep.mean_deltas("discovery"))
    nearest, lead, least = coalitions.least_lead(trio, rivals)
    raises = judge_above_floor(
        subsets.effect(trio),
        floor=subsets.floor(),
        margin=subsets.margin_of(trio),
        what=f"zero-ablating {set_name(trio)}",
    )
    leads = _leads(coalitions, trio, rival, coalitions.lead(trio, rival))
    leads_all = of_many(_leads(coalitions, trio, nearest, lead), least)
    judge(
        coalitions.for_every_rival(
            judge_all_of([raises, leads, leads_all], show=leads_all), trio, subject.suppressor
        ),
        subject=set_name(trio),
        details={
            "effect of the three heads": list(subsets.effect(trio)[:3]),
            "best other three heads on discovery": set_name(rival),
            "nearest other three heads": set_name(nearest),
            "triples compared": len(rivals),
            "(k + 1) / (n + 1)": coalitions.exceedance(trio, rivals),
        },
        largest=coalitions.largest(
            coalitions.deltas(trio) - coalitions.deltas(rival), "confirmation", 5
        ),
        runs=[*subsets.runs, *coalitions.runs],
    )


def _leads(coalitions, trio, over, lead):
    return judge_above_floor(
        lead, floor=coalitions.zero(), what=f"lead of {set_name(trio)} over {set_name(over)}"
    )


def _share(subsets, trio):
    try:
        share = subsets.against_sum(trio)
    except RatioUndefined as refusal:
        return f"undefined: {refusal}"
    return {**dict(zip(("estimate", "low", "high"), share[:3], strict=True)), "unit": "ratio"}


def _restored(subsets, trio, heads):
    """The prompts on which restoring one of the heads, the one that does most, does most."""
    most = max((subsets.restored(trio, head) for head in heads), key=lambda values: values.mean())
    return subsets.largest(most, "confirmation", 5)


def _beyond_a_share(verdict, head):
    """What a share above 1 or below 0 means, for a reader of the record."""
    if verdict.effect is None:
        return {}
    if verdict.effect.estimate > 1:
        text = "more than the whole effect: zero-ablating the two that are not restored lowers LD"
        return {f"share of {head_name(head)} above 1": text}
    if verdict.effect.high < 0:
        text = "nothing is taken back: restoring it adds to the effect"
        return {f"share of {head_name(head)} below 0": text}
    return {}


def _recovery(subsets, trio, head, *, floor=None, ceiling=None):
    try:
        share = subsets.recovery(trio, head)
    except RatioUndefined as refusal:
        return blocked(f"recovery by {head_name(head)}: {refusal}")
    what, unit = f"recovery by {head_name(head)}", "of the trio's effect"
    if floor is not None:
        return judge_above_floor(share, floor=subsets.share(floor, trio), what=what, unit=unit)
    return judge_below_ceiling(share, ceiling=subsets.share(ceiling, trio), what=what, unit=unit)
