"""S: steering along the direction that the named head writes.

The direction is the head's mean output at the last token of facts, from the discovery split; it is
added to the attention output of the head's layer, at all positions, in seven doses from -2 to 2.
"""

import pytest

from tinyablation.analysis.steering import (
    PER_UNIT,
    judge_spared,
)
from tinyablation.corpora.examples import CONFIRMATION
from tinyablation.heads import head_name
from tinyablation.interventions.directions import OV
from tinyablation.records.criteria import Criterion
from tinyablation.records.panels import CurvePanel, Series
from tinyablation.verdicts.floors import EFFECT_SHARE, figure
from tinyablation.verdicts.verdicts import (
    Verdict,
    judge_above_floor,
    judge_all_of,
)

TARGET = "facts"
# The study steers three doses; over seven, .9 allows of one exchange of two or three neighbours.
MONOTONE = 0.9
# The published slope on facts, -.004 logits per unit of a clean LD of 1.425, is .28 % of it; half
# of that is a slope still. Negation's is the same: what is spared moves by less than half as much.
MOVES = 0.0014


@pytest.mark.claim("S.1")
def test_steering_moves_facts_and_spares_the_rest(steered, subject, judge):
    """Steering along what the named head writes moves facts by the dose, and no other condition.

    Estimator: slope of LD over the dose, least squares by example, with its sign on the discovery
      split; for facts also its difference from the strongest of three random directions of the same
      length (chosen on the discovery split), paired by example.
    Threshold: on facts the 95 % interval over fact clusters lies above .14 % of the clean LD per
      unit, half of the published slope, and the numerical noise, and that of the lead above 0, with
      Spearman's rho of dose and mean LD >= .9; under every other valid condition the interval of
      the slope lies within 5 % of its own clean LD either way, and within half of the share by
      which facts move on the discovery split.
    Refuted if: on facts the interval lies below that floor and not above 0 or that of the lead
      below 0, or the interval of another condition lies outside its bound; each with p <= .025 /
      the number of parts. (So the published figures would refute it: negation moves by as much.)
    Audit: specificity
    """
    facts = steered.responses[TARGET]
    control = facts.strongest_control()
    spared_share = min(EFFECT_SHARE, facts.moved() / 2)
    moves = judge_above_floor(
        facts.slope(),
        floor=facts.floor(MOVES),
        margin=facts.margin(MOVES),
        what=f"slope on {TARGET}",
        unit=PER_UNIT,
    )
    beyond = judge_above_floor(
        facts.lead(control),
        floor=facts.zero(),
        what=f"slope on {TARGET} beyond {control}",
        unit=PER_UNIT,
    )
    others = [each for name, each in steered.responses.items() if name != TARGET]
    spared = [
        judge_spared(
            each.slope(signed=False),
            floor=each.floor(spared_share),
            what=f"slope on {each.condition}",
        )
        for each in others
    ]
    judge(
        judge_all_of([moves, beyond, _judge_monotone(facts), *spared], show=moves),
        subject=head_name(steered.head),
        details={
            "named by": subject.source,
            "direction's norm": steered.norm,
            "sign on the discovery split": facts.sign(OV),
            "difference from the strongest random direction": list(beyond.effect[:3]),
            "slope, and 5 % of the clean LD": {
                name: [*each.slope(signed=False)[:3], each.floor(EFFECT_SHARE)]
                for name, each in steered.responses.items()
            },
            "share that others may move by": spared_share,
            "slope of random directions on facts": {
                name: list(facts.slope(name, signed=False)[:3]) for name in facts.controls
            },
            "rho of dose and LD": {
                name: each.monotony() for name, each in steered.responses.items()
            },
            "not valid": steered.invalid or "none",
            **{
                _levels_name(name): {
                    f"{scale:g}": list(level[:3])
                    for scale, level in zip(each.scales, each.levels(), strict=True)
                }
                for name, each in steered.responses.items()
            },
        },
        panels=[_curve(steered, control)],
        largest=facts.effects.largest(facts.slopes(OV, CONFIRMATION), CONFIRMATION, 5),
        runs=steered.runs,
    )


def _judge_monotone(response):
    rho = response.monotony()
    said = f"rho of dose and mean LD on {response.condition}: {figure(rho)}"
    met = rho >= MONOTONE
    criterion = Criterion(
        name=f"rho of dose and mean LD on {response.condition}",
        rule="above",
        threshold=MONOTONE,
        met=met,
        estimate=rho,
        unit="rho",
    )
    return Verdict(
        "supported" if met else "inconclusive",
        f"{said} {'>=' if met else '<'} {MONOTONE:g}",
        refutes=False,
        criteria=(criterion,),
    )


def _levels_name(condition):
    """As in published.toml for facts."""
    return "LD by alpha" if condition == TARGET else f"LD by alpha, {condition}"


def _curve(steered, control):
    facts = steered.responses[TARGET]
    series = [
        Series.of(name, each.scales, each.curve()) for name, each in steered.responses.items()
    ]
    series.append(Series.of(f"{TARGET}, {control}", facts.scales, facts.curve(control)))
    return CurvePanel(
        title=f"Steering along what {head_name(steered.head)} writes",
        x="dose, in lengths of the head's mean output",
        y="change of LD, logits",
        series=series,
    )
