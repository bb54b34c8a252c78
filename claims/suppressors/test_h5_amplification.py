"""H5: what a partner adds to the leading head, on its own and beyond the sum of both.

Heads are zero-ablated, alone and in pairs. Delta is LD ablated - LD clean, on the confirmation
split, paired by example.
"""

import pytest

from tinyablation.analysis.coalition_panels import cooperation, heads_together
from tinyablation.analysis.coalitions import set_name
from tinyablation.heads import head_name
from tinyablation.verdicts.presuppositions import presupposed
from tinyablation.verdicts.verdicts import judge_above_floor, judge_all_of

# A model for which only a pair is named has no claim here: blocked.
pytestmark = pytest.mark.usefixtures("trio")


@pytest.mark.claim("H5.7")
def test_partners_amplify_the_leader(subsets, subject, judge):
    """Zero-ablating either other named head besides the leader raises the logit difference more.

    Estimator: for each of the two, mean Delta of the leading head and it together minus Delta of
      the leading head alone, paired by example.
    Threshold: both 95 % intervals over fact clusters lie above 0 and the numerical noise; "amplify"
      names no size. So do those of the pairs' own Delta: else neither pair raises LD at all.
      (Published means over the conditions: .556 and .550, against .409 alone.)
    Refuted if: one of them lies below 0 with p <= .0125.
    """
    leader = subject.suppressor
    verdicts = [
        judge_above_floor(
            subsets.lead(pair, (leader,)),
            floor=subsets.zero(),
            what=f"lead of {set_name(pair)} over {head_name(leader)}",
        )
        for pair in _pairs_of_leader(subsets, subject)
    ]
    judge(
        judge_all_of([*verdicts, *_raise_ld(subsets, subject)], show=judge_all_of(verdicts)),
        subject=head_name(leader),
        details=_together(subsets, subject),
        panels=[heads_together(subsets, subject.trio)],
        largest=subsets.extremes(_leading_pair(subsets, subject, subsets.deltas)),
        runs=subsets.runs,
    )


@pytest.mark.claim("H5.8")
def test_pairs_cooperate(subsets, subject, judge):
    """The leading head and either other named head do more together than the sum of each.

    Estimator: for each of the two pairs, mean of Delta of the pair minus the sum of both heads'
      own, paired by example.
    Threshold: both 95 % intervals over fact clusters lie above 5 % of the clean LD, .01 logits and
      the numerical noise, as for the three heads (H5.3), and those of the pairs' own Delta above 0:
      what lowers LD less than the sum does no more. The published means come to .015 logits, 1 % of
      the clean LD: reproduced, they would be present.
    Refuted if: one of the intervals lies below that floor and not above 0, with p <= .0125.
    """
    pairs = _pairs_of_leader(subsets, subject)
    verdicts = [
        judge_above_floor(
            subsets.cooperation(pair),
            floor=subsets.floor(),
            margin=subsets.margin(
                subsets.cooperations(pair), "confirmation", f"cooperation {set_name(pair)}"
            ),
            what=f"{set_name(pair)} together minus the sum of each alone",
        )
        for pair in pairs
    ]
    judge(
        judge_all_of([*verdicts, *_raise_ld(subsets, subject)], show=judge_all_of(verdicts)),
        subject=head_name(subject.suppressor),
        details={
            **_together(subsets, subject),
            "beyond the sum": {
                set_name(pair): list(verdict.effect[:3])
                for pair, verdict in zip(pairs, verdicts, strict=True)
            },
        },
        panels=[cooperation(subsets, subject.trio)],
        largest=subsets.largest(
            subsets.cooperations(_leading_pair(subsets, subject, subsets.cooperations)),
            "confirmation",
            5,
        ),
        runs=subsets.runs,
    )


def _pairs_of_leader(subsets, subject):
    return [pair for pair in subsets.pairs_of(subject.trio) if subject.suppressor in pair]


def _raise_ld(subsets, subject):
    """That the leader's pairs suppress at all, which both claims take for granted."""
    return [
        presupposed(
            judge_above_floor(
                subsets.effect(pair),
                floor=subsets.zero(),
                what=f"zero-ablating {set_name(pair)}",
            )
        )
        for pair in _pairs_of_leader(subsets, subject)
    ]


def _together(subsets, subject):
    return {
        "each alone": {head_name(head): list(subsets.effect([head])[:3]) for head in subject.trio},
        "pairs": {
            set_name(pair): list(subsets.effect(pair)[:3])
            for pair in _pairs_of_leader(subsets, subject)
        },
    }


def _leading_pair(subsets, subject, values):
    """The pair that does more, on average."""
    return max(_pairs_of_leader(subsets, subject), key=lambda pair: values(pair).mean())
