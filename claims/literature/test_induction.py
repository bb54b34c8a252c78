"""IND, PT: induction and previous-token heads (Olsson et al. 2022, arXiv:2209.11895).

Attention is read on random tokens written twice. Heads are chosen on the first half of the
sequences and judged on the other; what is lost without them is judged on prompts whose answer
stands in them ("repeats", "natural_repeats") and on facts, which no head can copy.
"""

from dataclasses import replace

import pytest

from tinyablation.analysis.coalitions import set_name
from tinyablation.verdicts.verdicts import blocked, judge_all_of

MOST = 0.5  # more than half of a head's attention
LARGEST = 5  # heads zeroed together: the smallest circuits of the literature have as many


@pytest.mark.claim("IND.1")
def test_some_head_inducts(repeated_tokens, judge):
    """Some head attends from a token to the one that followed its earlier copy.

    Estimator: prefix-matching score: the attention from each token of the second copy to the token
      after its first copy; of the head that leads on the first half of the sequences, its mean on
      the other.
    Threshold: the 95 % interval over sequences lies above .5, most of its attention.
    Refuted if: the interval of every head lies below that.
    Audit: planted control, selection correction
    """
    judge(repeated_tokens.some_head("induction", floor=MOST))


@pytest.mark.claim("IND.2", conditions="repeats")
def test_zeroing_induction_heads_destroys_copying(repeated_tokens, condition, knockout, judge):
    """Zero-ablating the induction heads destroys in-context copying; zero-ablating others does not.

    Estimator: share of LD that is lost without the (at most five) heads that lead by their
      prefix-matching score, among those above .5; and without as many heads of the same layers that
      have the lowest scores, none of them above .5. Confirmation split. Blocked where the layers
      have fewer.
    Threshold: the 95 % interval over clusters lies above .5 for the one set, and below for the
      other.
    Refuted if: either interval lies on the other side, with p <= .0125.
    Audit: planted control, selection correction, specificity
    """
    heads = induction_heads(repeated_tokens, judge)
    others = repeated_tokens.matched("induction", heads, most=MOST)
    if len(others) < len(heads):
        judge(
            blocked(
                f"too few heads of the layers of {set_name(heads)} do not induct: "
                f"{len(others) or 'none is'} left to match {len(heads)}"
            )
        )
        return
    without = knockout(condition, heads, others)
    spared = without.destroys_not(others, than=", of the same layers")
    destroys = without.destroys(heads)
    judge(
        judge_all_of([destroys, spared], show=destroys),
        subject=set_name(heads),
        details={"matched heads": set_name(others)},
        runs=[*repeated_tokens.runs, *without.runs],
    )


@pytest.mark.claim("IND.3", conditions="natural_repeats")
def test_induction_heads_copy_names_in_prose(repeated_tokens, condition, knockout, judge):
    """Zero-ablating the induction heads destroys the copying of a surname in prose.

    Estimator: share of LD that is lost without the heads of IND.2, chosen on random tokens.
    Threshold: the 95 % interval over clusters lies above .5.
    Refuted if: the interval lies below that.
    Audit: planted control, selection correction
    """
    heads = induction_heads(repeated_tokens, judge)
    without = knockout(condition, heads)
    judge(
        without.destroys(heads),
        subject=set_name(heads),
        runs=[*repeated_tokens.runs, *without.runs],
    )


@pytest.mark.claim("IND.4")
def test_induction_heads_copy_and_know_no_facts(repeated_tokens, knockout, judge):
    """Zero-ablating the induction heads destroys in-context copying and spares facts.

    Estimator: share of LD that is lost without the heads of IND.2, on repeats and on facts.
    Threshold: the 95 % interval lies above .5 on repeats; on facts the 90 % interval lies within
      +- .1 (two one-sided tests). Both must hold (intersection-union: no correction).
    Refuted if: on repeats the interval lies below .5, or on facts outside +- .1, with p <= .0125.
    Audit: planted control, selection correction, specificity
    """
    heads = induction_heads(repeated_tokens, judge)
    judge(dissociation(knockout, heads, repeated_tokens))


@pytest.mark.claim("PT.1")
def test_some_head_attends_to_the_previous_token(random_tokens, judge):
    """Some head attends to the previous token, whatever the tokens are.

    Estimator: mean attention from a token to the one before it, on random tokens; of the head that
      leads on the first half of the sequences, its mean on the other.
    Threshold: the 95 % interval over sequences lies above .5, most of its attention.
    Refuted if: the interval of every head lies below that.
    Audit: planted control, selection correction
    """
    judge(random_tokens.some_head("previous_token", floor=MOST))


@pytest.mark.claim("PT.2")
def test_previous_token_heads_serve_induction_and_no_facts(random_tokens, knockout, judge):
    """Zero-ablating the previous-token heads destroys in-context copying and spares facts.

    Estimator: share of LD that is lost without the (at most five) heads that lead by their
      attention to the previous token, among those above .5, on repeats and on facts.
    Threshold: the 95 % interval lies above .5 on repeats; on facts the 90 % interval lies within
      +- .1 (two one-sided tests). Both must hold (intersection-union: no correction).
    Refuted if: on repeats the interval lies below .5, or on facts outside +- .1, with p <= .0125.
    Audit: planted control, selection correction, specificity
    """
    heads = random_tokens.above("previous_token", MOST)[:LARGEST]
    if not heads:
        judge(blocked(f"no head of {random_tokens.model} attends to the previous token"))
    judge(dissociation(knockout, heads, random_tokens))


def induction_heads(attention, judge):
    """The heads that the claims zero; blocked where there are none."""
    heads = attention.above("induction", MOST)[:LARGEST]
    if not heads:
        judge(blocked(f"no head of {attention.model} has a prefix-matching score above {MOST:g}"))
    return heads


def dissociation(knockout, heads, attention):
    """The verdict that these heads serve copying, and no facts."""
    copying, facts = knockout("repeats", heads), knockout("facts", heads)
    destroys = copying.destroys(heads)
    return replace(
        judge_all_of([destroys, facts.spares(heads)], show=destroys),
        subject=set_name(heads),
        runs=(*attention.runs, *copying.runs, *facts.runs),
    )
