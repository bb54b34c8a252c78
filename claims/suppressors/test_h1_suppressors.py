"""H1: a head of layer 0 suppresses the right answer.

Heads are judged by examples that had no part in choosing them: a head that the study names by all
of them, one that is chosen here by the half that did not choose it. Delta is LD ablated - LD clean,
heads are zero-ablated. An effect counts above 5 % of each example's clean LD, and .01 logits. A
condition that is invalid for the model blocks its claims (the fixtures see to that).
"""

from dataclasses import replace

import pytest

from tinyablation.analysis.coalitions import set_name
from tinyablation.analysis.sweeps import rank_agreement_interval
from tinyablation.heads import head_name
from tinyablation.statistics.intervals import StatisticUndefined
from tinyablation.statistics.student_t import critical_rho
from tinyablation.verdicts.presuppositions import presupposed
from tinyablation.verdicts.verdicts import blocked, judge_above_floor, judge_all_of, of_many

# H1.2: the study's partners raise LD by 4.0 and 4.2 % of it; half of that is an effect still.
PARTNER_SHARE = 0.02


@pytest.mark.claim("H1.1")
@pytest.mark.counterexample("suppression")
def test_top_suppressor_is_in_layer_zero(sweep, methods, judge):
    """Some head of layer 0 suppresses the right answer, and no head of another layer does so more.

    Estimator: mean Delta of the layer-0 head that leads on one half of the examples, judged by the
      other half, and the reverse; and its difference from every head of the other layers; paired by
      example.
    Threshold: the 98 % interval of Delta over fact clusters lies above 5 % of the clean LD, .01
      logits and the numerical noise, and that of every lead above 0. (98 %: of heads tied at the
      floor, both halves may choose the same one by chance.)
    Refuted if: the head that was chosen is excluded, and so is every head of layer 0: the interval
      of its Delta lies below that floor (and that of the chosen one not above 0), or that of its
      difference from the head that leads elsewhere, chosen in the same way, below 0; corrected for
      the two.
    Audit: selection correction
    """
    elsewhere = [head for head in sweep.heads if head[0] != 0]
    rival = sweep.choose(elsewhere)
    split = rival.split
    chosen = sweep.choose(sweep.layer(0), split=split)
    verdict, nearest, least = _suppresses_and_leads(sweep, chosen, rival, elsewhere, split)
    each = {head: _may_top(sweep, head, rival, elsewhere, split) for head in sweep.layer(0)}
    verdict = sweep.for_some_head(verdict, each, sweep.floor(split), split=split, layers=(0,))
    head = chosen.head
    judge(
        sweep.for_every_head(verdict, chosen, split=split, layers=range(1, sweep.n_layers)),
        subject=head_name(head),
        details={
            "chosen": chosen.name,
            "judged by": split,
            "rival elsewhere": rival.name,
            "nearest elsewhere": head_name(nearest),
            "difference from it": list(least[:3]),
            "percentile in its layer": sweep.percentile(head, among=sweep.layer(0), split=split),
            "heads above the floor": [head_name(other) for other in sweep.above_floor()],
            "by ablation method": methods.methods(head),
            "behaviour": sweep.behaviour(head),
            "noise floor, logits": sweep.noise_floor,
        },
        heatmap=sweep.heatmap(),
        largest=sweep.extremes(chosen, split),
        runs=sweep.runs,
    )


@pytest.mark.claim("H1.1")
@pytest.mark.counterexample("suppression")
def test_named_head_tops_its_layer(sweep, subject, judge):
    """The head that the study names (or that was planted) is the top suppressor of its layer.

    Estimator: mean Delta of the named head, and its difference from every other head of its layer;
      paired by example, on all examples, or on those that had no part in choosing the head.
    Threshold: the 95 % interval of Delta over fact clusters lies above 5 % of the clean LD, .01
      logits and the numerical noise, and that of every lead above 0.
    Refuted if: the interval of Delta lies below that floor and not above 0, or the interval of the
      difference from the head that leads on the other half lies below 0.
    """
    _judge_layer(sweep, subject, judge)


@pytest.mark.claim("H1.2")
def test_partners_come_next(sweep, subject, judge):
    """The two heads named beside the first come next after it, in its layer.

    Estimator: mean Delta of each of the two, its difference from every head of the layer that is
      not of the three heads, and that of the first from it; on the confirmation split, paired by
      example.
    Threshold: for both, the 95 % interval of Delta over fact clusters lies above 2 % of the clean
      LD (the study's are 4.0 and 4.2 %), .01 logits and the numerical noise, and that of every lead
      above 0, the first head's over them among them.
    Refuted if: an interval of Delta lies below that floor and not above 0, or that of a difference
      from the head that leads on the discovery split below 0; corrected for the four.
    """
    partners = [head for head in subject.trio if head != subject.suppressor]
    others = [head for head in sweep.layer(subject.suppressor[0]) if head not in subject.trio]
    if not others:
        judge(blocked("too few heads: the layer has none besides the three named"))
        return
    rival = sweep.choose(others, split="confirmation")
    parts = []
    for head in partners:
        parts.append(sweep.suppresses(head, split="confirmation", share=PARTNER_SHARE))
        parts.append(_leads(sweep, head, rival, "confirmation"))
        parts.append(_leads_all(sweep, head, others, "confirmation")[0])
    first = head_name(subject.suppressor)
    after = [
        judge_above_floor(
            sweep.lead(subject.suppressor, head),
            floor=sweep.zero(),
            what=f"difference of {first} from {head_name(head)}",
        )
        for head in partners
    ]
    judge(
        judge_all_of([*parts, *map(presupposed, after)], show=judge_all_of(parts)),
        subject=" ".join(head_name(head) for head in partners),
        details={
            "rank in the layer": {
                head_name(head): sweep.rank(head, among=sweep.layer(head[0])) for head in partners
            },
            "effects": {head_name(head): list(sweep.effect(head)[:3]) for head in partners},
            "rival in the layer": rival.name,
        },
        heatmap=sweep.heatmap(),
        runs=sweep.runs,
    )


@pytest.mark.claim("H1.3")
def test_same_heads_lead_in_every_condition(sweeps, judge):
    """The heads of layer 0 are ranked alike by their effect, on average over pairs of conditions.

    Estimator: mean Spearman correlation of the heads' mean Delta over all pairs of valid
      conditions, on the confirmation splits. One pair may be below it.
    Threshold: its 95 % interval (fact clusters of every condition resampled) lies above the 5 %
      critical value of Spearman's rho for the layer's heads: .50 of 16, .67 of 9, .71 of 8.
    Refuted if: the interval lies below that.
    """
    heads = sweeps[0].layer(0)
    if len(heads) < 3:
        judge(blocked(f"too few heads: a rank correlation of {len(heads)} has no critical value"))
        return
    try:
        agreement, pairs = rank_agreement_interval(sweeps, heads)
    except StatisticUndefined as refusal:  # heads that all do nothing have no order
        judge(blocked(f"the heads of layer 0 are not ranked under every condition: {refusal}"))
        return
    judge(
        judge_above_floor(
            agreement, floor=critical_rho(len(heads)), what="mean rank correlation", unit="rho"
        ),
        details={"pairs": pairs, "conditions": [sweep.condition for sweep in sweeps]},
        runs=[name for sweep in sweeps for name in sweep.runs],
    )


@pytest.mark.claim("H1.4")
@pytest.mark.counterexample("suppression")
@pytest.mark.needs("named heads")
def test_sibling_has_the_same_suppressor(sweep, subject, judge):
    """The head that leads in a sibling model suppresses here too, under the same number.

    Estimator: mean Delta of the head of that number, on all examples, paired by example.
    Threshold: the 95 % interval over fact clusters lies above 5 % of the clean LD, .01 logits and
      the numerical noise.
    Refuted if: the interval lies below that floor and not above 0.
    """
    head = subject.suppressor
    judge(
        sweep.suppresses(head, split=subject.judging),
        subject=head_name(head),
        details={
            "named by": subject.source,
            "judged by": subject.judging,
            "rank in its layer": sweep.rank(
                head, among=sweep.layer(head[0]), split=subject.judging
            ),
        },
        heatmap=sweep.heatmap(),
        largest=sweep.extremes(head, subject.judging),
        runs=sweep.runs,
    )


@pytest.mark.claim("H1.5")
@pytest.mark.counterexample("suppression")
@pytest.mark.needs("named heads")
@pytest.mark.usefixtures("trio")
def test_trio_of_the_small_model_raises_ld(subsets, subject, judge):
    """Zero-ablating the three heads named for the small model raises the logit difference.

    Estimator: mean Delta of the three heads zero-ablated together, on the confirmation split,
      paired by example.
    Threshold: the 95 % interval over fact clusters lies above 5 % of the clean LD, .01 logits and
      the numerical noise.
    Refuted if: the interval lies below that floor and not above 0.
    """
    trio = subject.trio
    judge(
        judge_above_floor(
            subsets.effect(trio),
            floor=subsets.floor(),
            margin=subsets.margin_of(trio),
            what=f"zero-ablating {set_name(trio)}",
        ),
        subject=set_name(trio),
        details={
            "each alone": {head_name(head): list(subsets.effect([head])[:3]) for head in trio},
        },
        largest=subsets.extremes(trio),
        runs=subsets.runs,
    )


@pytest.mark.claim("H1.6")
@pytest.mark.counterexample("suppression")
@pytest.mark.needs("named heads")
def test_named_head_is_the_primary_suppressor(sweep, subject, judge):
    """The head that the handover names for Mistral is the primary suppressor of layer 0.

    Estimator: mean Delta of the named head, and its difference from every other head of its layer;
      on all examples, paired by example.
    Threshold: the 95 % interval of Delta over fact clusters lies above 5 % of the clean LD, .01
      logits and the numerical noise, and that of every lead above 0.
    Refuted if: the interval of Delta lies below that floor and not above 0, as it does for an
      anti-suppressor, or the interval of the difference from the head that leads on the other half
      lies below 0.
    """
    _judge_layer(sweep, subject, judge)


@pytest.mark.claim("H1.7")
@pytest.mark.counterexample("suppression")
@pytest.mark.needs("named heads")
def test_named_pair_suppresses(subsets, coalitions, subject, judge):
    """The pair of layer-0 heads that the study names for Mistral suppresses the right answer.

    Estimator: mean Delta of both heads zero-ablated together, on the confirmation split, paired by
      example.
    Threshold: the 95 % interval over fact clusters lies above 5 % of the clean LD, .01 logits and
      the numerical noise.
    Refuted if: the interval lies below that floor and not above 0.
    """
    pair = subject.pair or subject.trio[:2]
    rivals = coalitions.rivals(pair, subject.suppressor)
    judge(
        judge_above_floor(
            subsets.effect(pair),
            floor=subsets.floor(),
            margin=subsets.margin_of(pair),
            what=f"zero-ablating {set_name(pair)}",
        ),
        subject=set_name(pair),
        details={
            "named by": subject.source,
            "(k + 1) / (n + 1)": coalitions.exceedance(pair, rivals) if rivals else "no rival",
        },
        largest=subsets.extremes(pair),
        runs=[*subsets.runs, *coalitions.runs],
    )


@pytest.mark.claim("H1.8")
@pytest.mark.counterexample("lead")
def test_no_other_head_does_as_well(sweep, subject, judge):
    """The named head suppresses, and no other head of the whole model does so as much.

    Estimator: mean Delta of the named head, and its difference from every other head of the model;
      paired by example, on all examples, or on those that had no part in choosing the head.
    Threshold: the 95 % interval of Delta over fact clusters lies above 5 % of the clean LD, .01
      logits and the numerical noise, and that of every lead above 0.
    Refuted if: the interval of Delta lies below that floor and not above 0, or the interval of the
      difference from the head that leads on the other half lies below 0.
    """
    head = subject.suppressor
    others = [other for other in sweep.heads if other != head]
    rival = sweep.choose(others, split=subject.judging)
    verdict, nearest, least = _suppresses_and_leads(sweep, head, rival, others, rival.split)
    judge(
        sweep.for_every_head(verdict, head, split=rival.split),
        subject=head_name(head),
        details={
            "best other head": rival.name,
            "nearest other head": head_name(nearest),
            "difference from it": list(least[:3]),
            "judged by": rival.split,
            "heads compared": len(others),
            "(k + 1) / (n + 1)": sweep.exceedance(head, split=rival.split),
            "null 95th percentile": sweep.null_quantile(head, 0.95, split=rival.split),
            "null 99th percentile": sweep.null_quantile(head, 0.99, split=rival.split),
        },
        heatmap=sweep.heatmap(),
        largest=sweep.extremes(head, rival.split),
        runs=sweep.runs,
    )


def _judge_layer(sweep, subject, judge):
    """H1.1 and H1.6, of the heads of two sources: it suppresses, and leads its layer."""
    head = subject.suppressor
    layer = sweep.layer(head[0])
    others = [other for other in layer if other != head]
    rival = sweep.choose(others, split=subject.judging)
    split = rival.split
    verdict, nearest, least = _suppresses_and_leads(sweep, head, rival, others, split)
    judge(
        verdict,
        subject=head_name(head),
        details={
            "named by": subject.source,
            "judged by": split,
            "rank in its layer": sweep.rank(head, among=layer, split=split),
            "percentile in its layer": sweep.percentile(head, among=layer, split=split),
            "rank in the model": sweep.rank(head, split=split),
            "rival in its layer": rival.name,
            "nearest in its layer": head_name(nearest),
            "difference from it": list(least[:3]),
        },
        heatmap=sweep.heatmap(),
        largest=sweep.extremes(head, split),
        runs=sweep.runs,
    )


def _leads(sweep, who, rival, split):
    lead = sweep.lead(who, rival, split=split)
    return judge_above_floor(lead, floor=sweep.zero(), what=f"difference from {rival.name}")


def _leads_all(sweep, who, others, split):
    nearest, lead, least = sweep.least_lead(who, others, split=split)
    what = f"difference from {head_name(nearest)}, the least sure of {len(others)}"
    part = of_many(judge_above_floor(lead, floor=sweep.zero(), what=what), least)
    return part, nearest, lead


def _suppresses_and_leads(sweep, who, rival, others, split):
    """The verdict, the head whose lead is least sure, and the difference from it."""
    suppresses = sweep.suppresses(who, split=split)
    leads_all, nearest, lead = _leads_all(sweep, who, others, split)
    parts = [suppresses, _leads(sweep, who, rival, split), leads_all]
    return judge_all_of(parts, show=suppresses), nearest, lead


def _may_top(sweep, head, rival, elsewhere, split):
    """The verdict on one candidate for the top suppressor, which either of two parts excludes."""
    means = sweep.mean_deltas(split)
    suppresses = sweep.suppresses(head, split=split)
    found = judge_all_of([suppresses, _leads(sweep, head, rival, split)], show=suppresses)
    most = max(means[other] for other in elsewhere)
    return replace(
        found,
        distance=min(found.distance, means[head] - most),
        p_refuted=None if found.p_refuted is None else min(1.0, 2 * found.p_refuted),
    )
