"""H1, H5: what the named heads do in every condition, as one verdict over all that are valid.

Delta is LD ablated - LD clean, heads are zero-ablated. A condition that is not valid for the model
is left out, and the record says so; with fewer than two valid ones the claims are blocked.
"""

import pytest

from tinyablation.analysis.coalitions import set_name
from tinyablation.heads import head_name
from tinyablation.records.conditions import CONDITIONS
from tinyablation.verdicts.verdicts import judge_above_floor, judge_all_of


@pytest.mark.claim("H1.9")
def test_named_head_suppresses_in_every_condition(sweeps, subject, judge):
    """The head that the study names (or that was planted) suppresses in every condition.

    Estimator: mean Delta of the head under each valid condition, paired by example, on all
      examples, or on those that had no part in choosing it.
    Threshold: under every one of them the 95 % interval over fact clusters lies above 5 % of its
      clean LD, .01 logits and the numerical noise (intersection-union: no correction).
    Refuted if: under one of them the interval lies below that floor and not above 0, with p <= .025
      / the number of conditions.
    """
    head, split = subject.suppressor, subject.judging
    verdicts = [
        judge_above_floor(
            sweep.effect(head, split=split),
            floor=sweep.floor(split),
            margin=sweep.margin_of(head, split=split),
            what=f"{sweep.condition}, zero-ablating {head_name(head)}",
        )
        for sweep in sweeps
    ]
    judge(
        judge_all_of(verdicts),
        subject=head_name(head),
        details={
            "named by": subject.source,
            "judged by": split,
            **_by_condition(sweeps, verdicts, lambda sweep: sweep.floor(split)),
        },
        runs=[name for sweep in sweeps for name in sweep.runs],
    )


@pytest.mark.claim("H5.9")
@pytest.mark.usefixtures("trio")
def test_trio_suppresses_in_every_condition(every_subsets, subject, judge):
    """Zero-ablating the three named heads together raises the logit difference in every condition.

    Estimator: mean Delta of the three heads under each valid condition, on the confirmation split,
      paired by example.
    Threshold: under every one of them the 95 % interval over fact clusters lies above 5 % of its
      clean LD, .01 logits and the numerical noise (intersection-union: no correction).
    Refuted if: under one of them the interval lies below that floor and not above 0, with p <= .025
      / the number of conditions.
    """
    trio = subject.trio
    verdicts = [
        judge_above_floor(
            subsets.effect(trio),
            floor=subsets.floor(),
            margin=subsets.margin_of(trio),
            what=f"{subsets.condition}, zero-ablating {set_name(trio)}",
        )
        for subsets in every_subsets
    ]
    judge(
        judge_all_of(verdicts),
        subject=set_name(trio),
        details={
            "named by": subject.source,
            **_by_condition(every_subsets, verdicts, lambda subsets: subsets.floor()),
        },
        runs=[name for subsets in every_subsets for name in subsets.runs],
    )


def _by_condition(measured, verdicts, floor):
    """What was judged under which condition, and which ones were left out."""
    judged = [each.condition for each in measured]
    return {
        "conditions": judged,
        "not valid": [name for name in CONDITIONS if name not in judged] or "none",
        "effects": {
            name: list(verdict.effect[:3]) for name, verdict in zip(judged, verdicts, strict=True)
        },
        "floors": {each.condition: float(floor(each)) for each in measured},
        "verdicts": {name: verdict.status for name, verdict in zip(judged, verdicts, strict=True)},
    }
