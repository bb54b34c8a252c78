"""D: when a head comes to suppress the right answer, over the checkpoints of a training run.

Delta is LD ablated - LD clean, heads are zero-ablated; every step is measured on the same examples
of the confirmation split.
"""

import pytest

from tinyablation.analysis.emergence import emergence
from tinyablation.heads import head_name
from tinyablation.records.panels import CurvePanel, Series
from tinyablation.verdicts.verdicts import judge_above_floor, judge_all_of


@pytest.mark.claim("D.1")
@pytest.mark.needs("checkpoints")
def test_suppression_emerges_during_training(training, judge):
    """The named head is no suppressor at the first checkpoint, and is one at the last.

    Estimator: mean Delta of the head at the first and at the last checkpoint, and the rise from the
      one to the other, paired by example.
    Threshold: the 95 % interval over fact clusters lies below the floor at the first checkpoint and
      above it at the last, and that of the rise above the last floor; a floor is 5 % of that step's
      clean LD, and at least the last one's while the model does not know the answers. Blocked where
      it is shown not to know those of some cell at the last either.
    Refuted if: one of the three fails with its whole interval: the head suppressed from the start,
      or suppression at the last checkpoint, or the rise, lies below its floor and not above 0
      (above 0 it is present, but less than counts).
    """
    found = emergence(training)
    first, last = training.steps[0], training.steps[-1]
    rise = judge_above_floor(
        found.change,
        floor=training.floors()[-1],
        what=f"rise of Delta of {head_name(training.head)} from step {first} to {last}",
    )
    verdict = found.verdict
    if verdict.status != "blocked":
        verdict = judge_all_of([verdict, rise], show=rise)
    clean, delta = training.clean(), training.delta()
    steps = [str(step) for step in training.steps]
    judge(
        verdict,
        subject=head_name(training.head),
        details={
            "LD by step": {step: list(one[:3]) for step, one in zip(steps, clean, strict=True)},
            "Delta by step": {step: list(one[:3]) for step, one in zip(steps, delta, strict=True)},
            "floor by step": dict(zip(steps, training.floors(), strict=True)),
            "knows the answers by step": dict(zip(steps, training.knows(), strict=True)),
            "first step above the floor": found.first_above,
            "trend over steps": None if found.trend is None else found.trend._asdict(),
        },
        panels=[
            CurvePanel(
                title=f"{head_name(training.head)} over training",
                x="training step",
                y="logits",
                series=[
                    Series.of("clean LD", training.steps, clean),
                    Series.of("Delta", training.steps, delta),
                ],
            )
        ],
        runs=training.runs,
    )
