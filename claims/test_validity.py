"""V: a condition counts for a model only if the model knows its answers, and not by a shortcut."""

import pytest

from tinyablation.validity import flips_with_labels, has_no_prior, is_competent, tells_apart


@pytest.mark.claim("V.1")
def test_model_is_competent(unhooked, model, judge):
    """The model prefers the right answer in every cell of truth and operator.

    Estimator: share of clean prompts with LD > 0, by cell; the worst cell counts.
    Threshold: at least .9 in every cell.
    Refuted if: the 95 % interval of some cell, over fact clusters, lies below .9.
    """
    verdict = is_competent(unhooked, seed=model.seed)
    judge(verdict, details=verdict.details)


@pytest.mark.claim("V.2")
def test_clean_and_corrupt_are_told_apart(unhooked, model, judge):
    """The model answers the corrupt prompt differently from the clean one.

    Estimator: mean LD clean - LD corrupt, paired by example.
    Threshold: the 95 % interval over fact clusters lies above 0.
    Refuted if: it lies below 0.
    """
    judge(tells_apart(unhooked, seed=model.seed))


@pytest.mark.claim("V.3")
def test_swapped_labels_flip_the_logit_difference(unhooked, model, judge):
    """The logit difference follows the right answer, whichever of the two answers that is.

    Estimator: mean LD of the examples whose target sorts before their foil, and of the others, on
      clean prompts, and with the sign turned on corrupt ones.
    Threshold: all four 95 % intervals over fact clusters lie above 0.
    Refuted if: one of them lies below 0, as it does for a model that prefers one label.
    """
    judge(flips_with_labels(unhooked, seed=model.seed))


@pytest.mark.claim("V.4")
def test_null_prompt_shows_no_prior(unhooked, model, judge):
    """A prompt about nothing in particular prefers neither answer as much as the real prompt does.

    Estimator: mean LD clean - |LD null|, paired by example; the null prompt has the same wording
      with "something" for its content.
    Threshold: the 95 % interval over fact clusters lies above 0.
    Refuted if: it lies below 0.
    """
    verdict = has_no_prior(unhooked, seed=model.seed)
    judge(verdict, details=verdict.details)
