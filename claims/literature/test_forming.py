"""FORM: when attention circuits form (arXiv:2606.02378), over the checkpoints of a training run.

A checkpoint's induction score is that of the head that leads there: chosen on the first half of the
sequences of random tokens written twice, judged on the other. Its share of sinks is that of all
heads, on random tokens, as in SINK.1. The paper has induction at 23 billion tokens and half of the
sinks at 264 billion (OLMo 1B).
"""

import pytest

from tinyablation.analysis.attention_course import induction_before_sinks
from tinyablation.records.panels import CurvePanel, Series
from tinyablation.verdicts.verdicts import judge_above_floor

RISE = 0.3  # of a head's attention; in random models the leading head has .03


@pytest.mark.claim("FORM.1")
def test_induction_forms_during_training(attention_course, judge):
    """The best induction score rises during training, by more than .3.

    Estimator: induction score of the leading head of the last checkpoint minus that of the leading
      head of the first, paired by sequence.
    Threshold: the 95 % interval over sequences lies above .3.
    Refuted if: the interval lies below that.
    Audit: planted control, selection correction
    """
    first, last = attention_course.steps[0], attention_course.steps[-1]
    verdict = judge_above_floor(
        attention_course.rise(),
        floor=RISE,
        what=f"rise of the best induction score from step {first} to {last}",
        unit="",
    )
    judge(verdict, **_shown(attention_course))


@pytest.mark.claim("FORM.2")
def test_induction_forms_before_sinks(attention_course, judge):
    """Induction forms before sinks do.

    Estimator: at the first checkpoint that has half of the last one's induction score: its score
      minus that half, and half of the last one's share of sinks minus its share.
    Threshold: the 95 % intervals over sequences of both lie above 0, and that of the share at every
      checkpoint before, too (intersection-union: no correction). Blocked where the last
      checkpoint's score is below .3 or its share below .1.
    Refuted if: the interval of the share lies below 0 there and at the checkpoint before, where
      that of induction does too. If both came between the same two checkpoints, or before the
      first, it is left open.
    Audit: planted control, selection correction
    """
    judge(induction_before_sinks(attention_course), **_shown(attention_course))


def _shown(course):
    """Both figures of every step, and the runs."""
    places = range(len(course.steps))
    induction = [course.interval(course.induction(at), f"induction {at}") for at in places]
    sinks = [course.interval(course.sinks(at), f"sinks {at}") for at in places]
    steps = [str(step) for step in course.steps]
    return {
        "details": {
            "induction by step": {
                step: list(one[:3]) for step, one in zip(steps, induction, strict=True)
            },
            "sinks by step": {step: list(one[:3]) for step, one in zip(steps, sinks, strict=True)},
        },
        "panels": [
            CurvePanel(
                title="Induction and sinks over training",
                x="training step",
                y="share",
                series=[
                    Series.of("best induction score", course.steps, induction),
                    Series.of("share of heads that are sinks", course.steps, sinks),
                ],
            )
        ],
        "runs": course.runs,
    }
