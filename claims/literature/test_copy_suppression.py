"""CS: copy suppression (McDougall et al. 2023, arXiv:2310.04625), posed of any model.

The head is the one that leads, over 1,000 tokens, by the share of tokens whose own logit it lowers
most. It is judged on the whole vocabulary, where a share has no error.
"""

import pytest

from tinyablation.analysis.weight_diagonals import SUPPRESSED
from tinyablation.heads import head_name
from tinyablation.interventions.head_sets import CopySuppressors
from tinyablation.measurement.diagonal_readings import WeightDiagonals
from tinyablation.verdicts.many import of_some
from tinyablation.verdicts.presuppositions import presupposed
from tinyablation.verdicts.shares import of_share
from tinyablation.verdicts.verdicts import judge_above_floor, judge_all_of

MOST = 0.5  # of the vocabulary, or of the head's effect


@pytest.mark.claim("CS.1")
def test_some_head_suppresses_the_tokens_it_attends_to(some_diagonals, findings, judge):
    """Some head lowers the logit of most tokens that it attends to.

    Estimator: share of the vocabulary whose own logit is among the ten lowest in its row of the
      head's full OV circuit (the stream after the first MLP, W_V W_O, the unembedding).
    Threshold: it lies above .5.
    Refuted if: it lies below that, and so does the 95 % interval of every other head over 1,000
      tokens.
    Audit: planted control
    """
    head, whole = suppressor(some_diagonals, findings)

    verdict = suppresses(whole, head)
    if verdict.status == "refuted":
        rest = {
            head_name(each): suppresses(some_diagonals, each)
            for each in some_diagonals.heads
            if each != head
        }
        verdict = of_some(verdict, rest)
    judge(verdict, subject=head_name(head), runs=[*some_diagonals.runs, *whole.runs])


@pytest.mark.claim("CS.2")
def test_the_suppressor_attends_to_what_is_predicted(some_diagonals, findings, judge):
    """The head that suppresses copies looks for the token that the stream predicts.

    Estimator: share of the vocabulary whose own key scores highest, of all tokens, for the query
      that its unembedding vector makes, in the head of CS.1.
    Threshold: it lies above .5, and so does the share of CS.1, without which there is no such head.
    Refuted if: it lies below that.
    Audit: planted control
    """
    head, whole = suppressor(some_diagonals, findings)
    share = whole.share(head, "qk", "top", 1)
    what = f"share of tokens whose key {head_name(head)} prefers for their own prediction"
    seeks = judge_above_floor(share, floor=MOST, what=what, unit="share")
    verdict = judge_all_of([seeks, presupposed(suppresses(whole, head))], show=seeks)
    judge(verdict, subject=head_name(head), runs=[*some_diagonals.runs, *whole.runs])


@pytest.mark.claim("CS.3", conditions="facts")
def test_copy_suppression_is_most_of_what_the_head_does(some_diagonals, findings, valid, judge):
    """Copy suppression is most of what the head of CS.1 does.

    Estimator: 1 - D(all but its copy suppression mean-ablated) / D(the head mean-ablated), D the
      mean KL divergence from the unhooked model on confirmation prompts.
    Threshold: the 95 % interval over clusters lies above .5, and so does the share of CS.1. Blocked
      where ablating the head changes nothing.
    Refuted if: the interval lies below that.
    Audit: planted control
    """
    head, whole = suppressor(some_diagonals, findings)
    kept = findings.copy_suppression(valid, CopySuppressors((head,)))
    what = f"share of the effect of {head_name(head)} that its copy suppression makes"
    most = of_share(
        lambda: judge_above_floor(kept.explained(head), floor=MOST, what=what, unit=""), what
    )
    verdict = judge_all_of([most, presupposed(suppresses(whole, head))], show=most)
    judge(
        verdict,
        subject=head_name(head),
        runs=[*some_diagonals.runs, *whole.runs, *kept.runs],
    )


def suppresses(diagonals, head):
    """Whether the head lowers the own logit of most tokens."""
    share = diagonals.share(head, "ov", "bottom", SUPPRESSED)
    what = f"share of tokens whose own logit {head_name(head)} lowers most"
    return judge_above_floor(share, floor=MOST, what=what, unit="share")


def suppressor(some_diagonals, findings):
    """The head that leads on some tokens, and its diagonals over the whole vocabulary."""
    (head,) = some_diagonals.leaders("ov", "bottom", SUPPRESSED, 1)
    return head, findings.diagonals(WeightDiagonals((head,)))
