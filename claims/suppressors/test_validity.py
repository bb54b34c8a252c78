"""V: a condition counts for a model only if the model knows its answers, and not by a shortcut.

Where a condition has families of prompts, each is judged by itself. V.2 and V.3 are the gate: a
family that fails one of them is left out, and the condition's claims are blocked where none
remains. V.1 and V.4 are asked of the families that count, and gate nothing.
"""

import pytest

from tinyablation.measurement.validity import exceeds_prior, follows_answers, is_competent


@pytest.mark.claim("V.1")
@pytest.mark.counterexample("knowledge")
def test_model_is_competent(counting, judge):
    """The model prefers the right answer.

    Estimator: share of clean prompts with LD > 0, by family; the worst family counts.
    Threshold: the 95 % interval of the share over clusters lies above .9 in every family.
    Refuted if: that of some family lies below .9.
    """
    verdict = is_competent(counting)
    judge(verdict, details=verdict.details, runs=counting.runs)


@pytest.mark.claim("V.2")
def test_clean_and_corrupt_are_told_apart(unhooked, validity, judge):
    """The model answers the corrupt prompt differently from the clean one.

    Estimator: share of prompts with LD clean > LD corrupt, by family.
    Threshold: the 95 % interval over clusters lies above .9 in some family, by no bias (V.3).
    Refuted if: every family fails: the interval lies below .9, or a bias explains it.
    """
    judge(validity, details=validity.details, runs=unhooked.runs)


@pytest.mark.claim("V.3")
def test_swapped_labels_flip_the_logit_difference(counting, model, judge):
    """The logit difference follows the right answer, whichever and wherever it is.

    Estimator: mean D = (LD clean - LD corrupt) / 2 of the examples whose target sorts before their
      foil, of the others, and by cell, which is the position where both answers stand in a prompt.
    Threshold: every 95 % interval over clusters lies above 0.
    Refuted if: one of them lies below 0, as it does for a model that prefers a label or a position.
    """
    judge(follows_answers(counting, seed=model.seed), runs=counting.runs)


@pytest.mark.claim("V.4")
def test_null_prompt_shows_no_prior(counting, model, judge):
    """What a prompt about nothing in particular prefers does not decide the answer.

    Estimator: mean LD clean - LD null and mean LD null - LD corrupt, paired by example; the null
      prompt has the same wording with "something" for its content.
    Threshold: both 95 % intervals over clusters lie above 0.
    Refuted if: one of them lies below 0.
    """
    verdict = exceeds_prior(counting, seed=model.seed)
    judge(verdict, details=verdict.details, runs=counting.runs)
