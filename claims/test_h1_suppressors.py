"""H1: a head of layer 0 suppresses the right answer.

Heads are chosen on the discovery split and judged on the confirmation split. Delta is LD ablated -
LD clean, heads are zeroed. A condition that is invalid for the model blocks its claims (the
fixtures see to that).
"""

import pytest

from tinyablation.analysis.coalitions import set_name
from tinyablation.analysis.sweeps import rank_agreement_interval
from tinyablation.heads import head_name
from tinyablation.statistics.student_t import critical_rho
from tinyablation.verdicts.verdicts import blocked, judge_above_floor, judge_all_of


@pytest.mark.claim("H1.1")
@pytest.mark.counterexample("suppression")
def test_top_suppressor_is_in_layer_zero(sweep, methods, judge):
    """Some head of layer 0 suppresses the right answer, and no head of another layer does so more.

    Estimator: mean Delta of the layer-0 head that leads on the discovery split, and its lead over
      the head that leads elsewhere; both on the confirmation split, paired by example.
    Threshold: the 95 % interval of Delta over fact clusters lies above 5 % of the clean LD and the
      numerical noise, with p <= .05 corrected over all heads (max-T), and that of the lead above 0.
    Refuted if: the interval of Delta lies below that floor, or the interval of the lead below 0.
    """
    head = sweep.top_suppressor(among=sweep.layer(0))
    rival = sweep.top_suppressor(among=[other for other in sweep.heads if other[0] != 0])
    verdict = _suppresses_and_leads(sweep, head, rival)
    judge(
        sweep.for_every_head(verdict, head, layers=range(1, sweep.n_layers)),
        subject=head_name(head),
        details={
            "rival elsewhere": head_name(rival),
            "percentile in its layer": sweep.percentile(head, among=sweep.layer(0)),
            "lead over it": list(sweep.lead(head, rival)[:3]),
            "heads above the floor": [head_name(other) for other in sweep.above_floor()],
            "by ablation method": methods.methods(head),
            "behaviour": sweep.behaviour(head),
            "noise floor, logits": sweep.noise_floor,
        },
        heatmap=sweep.heatmap(),
        largest=sweep.extremes(head),
        runs=sweep.runs,
    )


@pytest.mark.claim("H1.1")
@pytest.mark.counterexample("suppression")
def test_named_head_tops_its_layer(sweep, subject, judge):
    """The head that the study names (or that was planted) is the top suppressor of its layer.

    Estimator: mean Delta of the named head, and its lead over the other head of its layer that
      leads on the discovery split; both on the confirmation split, paired by example.
    Threshold: the 95 % interval of Delta over fact clusters lies above 5 % of the clean LD and the
      numerical noise, with p <= .05 corrected over all heads (max-T), and that of the lead above 0.
    Refuted if: the interval of Delta lies below that floor, or the interval of the lead below 0.
    """
    head = subject.suppressor
    rival = sweep.top_suppressor(among=[h for h in sweep.layer(head[0]) if h != head])
    lead = sweep.lead(head, rival)
    judge(
        _suppresses_and_leads(sweep, head, rival),
        subject=head_name(head),
        details={
            "named by": subject.source,
            "rank in its layer": sweep.rank(head, among=sweep.layer(head[0])),
            "percentile in its layer": sweep.percentile(head, among=sweep.layer(head[0])),
            "rank in the model": sweep.rank(head),
            "rival in its layer": head_name(rival),
            "lead over it": list(lead[:3]),
        },
        heatmap=sweep.heatmap(),
        largest=sweep.extremes(head),
        runs=sweep.runs,
    )


@pytest.mark.claim("H1.2")
def test_partners_come_next(sweep, subject, judge):
    """The two other heads of the named trio come next after the named head, in its layer.

    Estimator: mean Delta of each of the two on the confirmation split, paired by example.
    Threshold: for both, the 95 % interval over fact clusters lies above 5 % of the clean LD and the
      numerical noise, with p <= .05 corrected over all heads (max-T), and no other head of the
      layer has a larger Delta than either.
    Refuted if: one of the intervals lies below that floor, or another head's Delta is larger.
    """
    partners = [head for head in subject.trio if head != subject.suppressor]
    verdicts = [_suppresses(sweep, head) for head in partners]
    others = [head for head in sweep.layer(subject.suppressor[0]) if head not in subject.trio]
    rival = sweep.top_suppressor(among=others)
    for head in partners:
        lead = sweep.lead(head, rival)
        what = f"lead of {head_name(head)} over {head_name(rival)}"
        verdicts.append(judge_above_floor(lead, floor=sweep.zero(), what=what))
    judge(
        judge_all_of(verdicts),
        subject=" ".join(head_name(head) for head in partners),
        details={
            "rank in the layer": {
                head_name(head): sweep.rank(head, among=sweep.layer(head[0])) for head in partners
            },
            "effects": {head_name(head): list(sweep.effect(head)[:3]) for head in partners},
        },
        heatmap=sweep.heatmap(),
        runs=sweep.runs,
    )


@pytest.mark.claim("H1.3")
def test_same_heads_lead_in_every_condition(sweeps, judge):
    """The heads of layer 0 are ranked alike by their effect in every condition.

    Estimator: mean Spearman correlation of the heads' mean Delta over all pairs of valid
    conditions,
      on the confirmation splits.
    Threshold: its 95 % interval (fact clusters of every condition resampled) lies above the 5 %
      critical value of Spearman's rho for the layer's heads: .50 of 16, .67 of 9, .71 of 8.
    Refuted if: the interval lies below that.
    """
    heads = sweeps[0].layer(0)
    if len(heads) < 3:
        judge(blocked(f"too few heads: a rank correlation of {len(heads)} has no critical value"))
        return
    agreement, pairs = rank_agreement_interval(sweeps, heads)
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

    Estimator: mean Delta of the head of that number, on the confirmation split, paired by example.
    Threshold: the 95 % interval over fact clusters lies above 5 % of the clean LD and the numerical
      noise, with p <= .05 corrected over all heads (max-T).
    Refuted if: the interval lies below that floor.
    """
    head = subject.suppressor
    judge(
        _suppresses(sweep, head),
        subject=head_name(head),
        details={
            "named by": subject.source,
            "rank in its layer": sweep.rank(head, among=sweep.layer(head[0])),
        },
        heatmap=sweep.heatmap(),
        largest=sweep.extremes(head),
        runs=sweep.runs,
    )


@pytest.mark.claim("H1.5")
@pytest.mark.counterexample("suppression")
@pytest.mark.needs("named heads")
@pytest.mark.usefixtures("trio")
def test_trio_of_the_small_model_raises_ld(subsets, subject, judge):
    """Zeroing the trio that is named for the small model raises the logit difference.

    Estimator: mean Delta of the three heads zeroed together, on the confirmation split, paired by
      example.
    Threshold: the 95 % interval over fact clusters lies above 5 % of the clean LD and the numerical
      noise.
    Refuted if: the interval lies below that floor.
    """
    trio = subject.trio
    judge(
        judge_above_floor(
            subsets.effect(trio), floor=subsets.floor(), what=f"zeroing {set_name(trio)}"
        ),
        subject=set_name(trio),
        details={
            "each alone": {head_name(head): list(subsets.effect([head])[:3]) for head in trio},
        },
        largest=subsets.largest(subsets.deltas(trio), "confirmation", 5),
        runs=subsets.runs,
    )


@pytest.mark.claim("H1.6")
@pytest.mark.counterexample("suppression")
@pytest.mark.needs("named heads")
def test_named_head_is_the_primary_suppressor(sweep, subject, judge):
    """The head that the handover names for Mistral is the primary suppressor of layer 0.

    Estimator: mean Delta of the named head, and its lead over the other head of its layer that
      leads on the discovery split; both on the confirmation split, paired by example.
    Threshold: the 95 % interval of Delta over fact clusters lies above 5 % of the clean LD and the
      numerical noise, with p <= .05 corrected over all heads (max-T), and that of the lead above 0.
    Refuted if: the interval of Delta lies below that floor, as it does for an anti-suppressor, or
      the interval of the lead below 0.
    """
    head = subject.suppressor
    rival = sweep.top_suppressor(among=[h for h in sweep.layer(head[0]) if h != head])
    judge(
        _suppresses_and_leads(sweep, head, rival),
        subject=head_name(head),
        details={"named by": subject.source},
        heatmap=sweep.heatmap(),
        largest=sweep.extremes(head),
        runs=sweep.runs,
    )


@pytest.mark.claim("H1.7")
@pytest.mark.counterexample("suppression")
@pytest.mark.needs("named heads")
def test_named_pair_suppresses(subsets, coalitions, subject, judge):
    """The pair of layer-0 heads that the study names for Mistral suppresses the right answer.

    Estimator: mean Delta of both heads zeroed together, on the confirmation split, paired by
      example.
    Threshold: the 95 % interval over fact clusters lies above 5 % of the clean LD and the numerical
      noise, with p <= .05 corrected over all pairs of the layer (max-T).
    Refuted if: the interval lies below that floor.
    """
    pair = subject.pair or subject.trio[:2]
    rivals = coalitions.rivals(pair, subject.suppressor)
    judge(
        judge_above_floor(
            subsets.effect(pair),
            floor=subsets.floor(),
            p_corrected=coalitions.p_corrected(pair),
            what=f"zeroing {set_name(pair)}",
        ),
        subject=set_name(pair),
        details={
            "named by": subject.source,
            "(k + 1) / (n + 1)": coalitions.exceedance(pair, rivals) if rivals else "no rival",
        },
        largest=subsets.largest(subsets.deltas(pair), "confirmation", 5),
        runs=[*subsets.runs, *coalitions.runs],
    )


@pytest.mark.claim("H1.8")
@pytest.mark.counterexample("lead")
def test_no_other_head_does_as_well(sweep, subject, judge):
    """No other head of the whole model raises the logit difference as much as the named one.

    Estimator: lead of the named head's mean Delta over that of the other head that leads on the
      discovery split, paired by example, on the confirmation split; and the exact share of heads
      that do as well, (k + 1) / (n + 1), the head itself not counted among the n.
    Threshold: the 95 % interval of the lead over fact clusters lies above 0, and the share is <=
    .05.
    Refuted if: the interval of the lead lies below 0.
    """
    head = subject.suppressor
    rival = sweep.top_suppressor(among=[other for other in sweep.heads if other != head])
    verdict = judge_above_floor(
        sweep.lead(head, rival),
        floor=sweep.zero(),
        p_corrected=sweep.exceedance(head),
        what=f"lead of {head_name(head)} over {head_name(rival)}",
    )
    judge(
        sweep.for_every_head(verdict, head),
        subject=head_name(head),
        details={
            "best other head": head_name(rival),
            "heads in the null": len(sweep.heads) - 1,
            "null 95th percentile": sweep.null_quantile(head, 0.95),
            "null 99th percentile": sweep.null_quantile(head, 0.99),
            "effect of the named head": list(sweep.effect(head)[:3]),
        },
        heatmap=sweep.heatmap(),
        largest=sweep.extremes(head),
        runs=sweep.runs,
    )


def _suppresses(sweep, head):
    return judge_above_floor(
        sweep.effect(head),
        floor=sweep.floor(),
        p_corrected=sweep.p_corrected(head),
        what=f"zeroing {head_name(head)}",
    )


def _suppresses_and_leads(sweep, head, rival):
    suppresses = _suppresses(sweep, head)
    leads = judge_above_floor(
        sweep.lead(head, rival), floor=sweep.zero(), what=f"lead over {head_name(rival)}"
    )
    return judge_all_of([suppresses, leads], show=suppresses)
