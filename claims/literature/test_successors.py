"""SUCC: successor heads (Gould et al. 2023, arXiv:2312.09230), posed of any model.

Words are those of sequences that everybody knows (tinyablation/corpora/ordinals.py: days, months,
numerals, ordinals, letters), as many as the tokenizer has as one token. They are all there are, so
that a share of them has no error. Block 0, whose MLP makes what a word is for later heads, is left
out, as in the paper.
"""

import pytest

from tinyablation.analysis.knockouts import costs_more
from tinyablation.heads import head_name
from tinyablation.verdicts.verdicts import blocked, judge_above_floor

MOST = 0.5  # of the words
FEWEST = 20  # words with a successor: about two sequences
LEADING = 5  # heads that a record lists


@pytest.mark.claim("SUCC.1")
def test_some_head_writes_the_successor(successor_scores, judge):
    """Some head writes the successor of most words that it attends to, all sequences together.

    Estimator: successor score: the share of words whose successor's logit is the highest, among all
      words of all sequences, in the word's row of the head's full OV circuit (the MLP of block 0 of
      the embedding, W_V W_O, the unembedding); of the head that leads by it.
    Threshold: it lies above .5.
    Refuted if: it lies below that.
    Audit: planted control
    """
    head = successor_head(successor_scores, judge)
    verdict = judge_above_floor(
        successor_scores.score(head),
        floor=MOST,
        what=f"share of words whose successor {head_name(head)} raises most",
        unit="share",
    )
    leaders = successor_scores.leaders(LEADING)
    judge(
        verdict,
        subject=head_name(head),
        details={
            "by sequence": successor_scores.by_sequence(head),
            "leading heads": {
                head_name(each): successor_scores.score(each).estimate for each in leaders
            },
        },
        runs=successor_scores.runs,
    )


@pytest.mark.claim("SUCC.2", conditions=["facts", "greater_than", "ioi", "repeats"])
def test_the_head_serves_successors_above_all(successor_scores, condition, knockout, judge):
    """Zero-ablating the successor head costs the successor more than the other condition's answer.

    Estimator: share of LD that is lost without the head of SUCC.1 on prompts that ask for a
      successor, minus the share lost under the other condition. Confirmation splits.
    Threshold: the 95 % interval over clusters (of a difference of independent figures) lies above
      .05, from which on an effect counts. Blocked where no head's successor score is above .5.
    Refuted if: the interval lies below that.
    Audit: planted control, selection correction, specificity
    """
    head = successor_head(successor_scores, judge)
    here, there = knockout("successors", (head,)), knockout(condition, (head,))
    score = successor_scores.score(head).estimate
    if score <= MOST:
        judge(
            blocked(
                f"no head of {successor_scores.model} writes successors: the best score is "
                f"{score:.2f}, of {head_name(head)}"
            )
        )
    judge(
        costs_more(here, there, (head,)),
        subject=head_name(head),
        details={
            "successor score": score,
            "lost": {each.condition: each.lost_shown((head,)) for each in (here, there)},
        },
        runs=[*successor_scores.runs, *here.runs, *there.runs],
    )


def successor_head(successor_scores, judge):
    """The head that leads by its score; blocked where the tokenizer has too few words."""
    words = successor_scores.followed
    if len(words) < FEWEST:
        judge(
            blocked(
                f"the tokenizer of {successor_scores.model} has {len(words)} words with a "
                f"successor as one token, {FEWEST} are needed"
            )
        )
    (head,) = successor_scores.leaders(1)
    return head
