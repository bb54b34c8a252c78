"""Steering along a direction: the dose response of the logit difference. Tables only.

The response of an example is its slope: the least-squares slope of LD over the scales, including
the unhooked run as scale 0. In logits per unit, where one unit adds the direction once.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tinyablation.analysis.effects import Effects, Floats
from tinyablation.corpora.examples import CONFIRMATION, DISCOVERY
from tinyablation.interventions.batteries import STEERING_SCALES
from tinyablation.interventions.directions import CONTROLS, OV, SteeringError
from tinyablation.interventions.interventions import Steer
from tinyablation.statistics.intervals import Estimate, spearman
from tinyablation.verdicts.floors import Floor, effect_floor
from tinyablation.verdicts.verdicts import Verdict, judge_equivalent

PER_UNIT = "logits per unit"


@dataclass(frozen=True)
class DoseResponse:
    """One condition's response to a direction and its controls, added at one layer."""

    effects: Effects
    layer: int
    controls: tuple[str, ...] = CONTROLS
    direction: str = OV
    doses: tuple[float, ...] = field(default=STEERING_SCALES)

    @property
    def condition(self) -> str:
        return self.effects.condition

    @property
    def runs(self) -> tuple[str, ...]:
        return self.effects.runs

    @property
    def scales(self) -> tuple[float, ...]:
        """The doses and 0, ascending."""
        return tuple(sorted({*self.doses, 0.0}))

    def floor(self, share: float) -> Floor:
        """A share of the clean LD, in logits per unit, or the numerical noise if that is larger."""
        clean = float(self.effects.whole(CONFIRMATION).mean())
        return effect_floor(clean, self.effects.noise(), share, absolute=0.0)

    def margin(self, share: float) -> Estimate:
        """The slope, times the sign on discovery, beyond a share of each example's clean LD."""
        values = self.sign(self.direction) * self.slopes(self.direction, CONFIRMATION)
        return self.effects.margin(values, CONFIRMATION, f"slope {self.direction}", share=share)

    def moved(self) -> float:
        """|mean slope| on the discovery split, as a share of the clean LD there."""
        clean = float(self.effects.whole(DISCOVERY).mean())
        return abs(float(self.slopes(self.direction, DISCOVERY).mean())) / clean

    def zero(self) -> Floor:
        """A bound of 0 for a lead, in logits per unit, with its noise."""
        return self.effects.zero()

    def by_scale(self, direction: str, split: str) -> NDArray[np.float64]:
        """[n_scales, n_examples] LD under each dose."""
        clean = self.effects.baseline(split)["logit_diff"].to_numpy(dtype=float)
        rows = [
            clean
            if scale == 0
            else self.effects.values(Steer(self.layer, direction, scale).label, split)
            for scale in self.scales
        ]
        return np.stack(rows)

    def slopes(self, direction: str, split: str) -> Floats:
        """[n_examples] least-squares slopes of LD over the scales."""
        centred = np.asarray(self.scales) - np.mean(self.scales)
        return np.asarray(centred @ self.by_scale(direction, split) / (centred @ centred))

    def sign(self, direction: str) -> float:
        """The sign of the direction's effect on LD on the discovery split: 1.0 or -1.0."""
        return -1.0 if self.slopes(direction, DISCOVERY).mean() < 0 else 1.0

    def slope(self, direction: str = OV, *, signed: bool = True) -> Estimate:
        """The mean slope on the confirmation split; signed: times the sign on discovery."""
        sign = self.sign(direction) if signed else 1.0
        values = sign * self.slopes(direction, CONFIRMATION)
        return self.effects.interval(values, CONFIRMATION, f"slope {direction}")

    def strongest_control(self) -> str:
        """The control with the largest |slope| on the discovery split."""
        if not self.controls:
            raise SteeringError(f"{self.condition}: no control direction was measured")
        means = [abs(float(self.slopes(name, DISCOVERY).mean())) for name in self.controls]
        return self.controls[int(np.argmax(means))]

    def lead(self, control: str) -> Estimate:
        """Slope minus a control's, each times its own sign on discovery, paired by example."""
        own, other = (
            self.sign(name) * self.slopes(name, CONFIRMATION) for name in (self.direction, control)
        )
        return self.effects.interval(own - other, CONFIRMATION, f"slope beyond {control}")

    def monotony(self) -> float:
        """Spearman's correlation of dose and mean LD on the confirmation split, times the sign.

        1: strictly monotonic. 0 if no dose moves LD at all.
        """
        means = self.by_scale(self.direction, CONFIRMATION).mean(axis=1)
        if np.ptp(means) == 0:
            return 0.0
        return spearman(self.scales, means) * self.sign(self.direction)

    def curve(self, direction: str = OV) -> list[Estimate]:
        """Mean change of LD by scale, confirmation split, in logits."""
        rows = self.by_scale(direction, CONFIRMATION)
        clean = rows[self.scales.index(0.0)]
        return [
            self.effects.interval(row - clean, CONFIRMATION, f"{direction} {scale!r}")
            for scale, row in zip(self.scales, rows, strict=True)
        ]

    def levels(self, direction: str = OV) -> list[Estimate]:
        """Mean LD itself by scale, confirmation split, in logits."""
        rows = self.by_scale(direction, CONFIRMATION)
        return [
            self.effects.interval(row, CONFIRMATION, f"{direction} LD at {scale!r}")
            for scale, row in zip(self.scales, rows, strict=True)
        ]


def judge_spared(slope: Estimate, *, floor: float, what: str) -> Verdict:
    """The verdict on "the slope is negligible", an equivalence test for conditions not to affect.

    supported: the whole 95 % interval lies within +- floor; else as judge_equivalent.
    """
    return judge_equivalent(slope, margin=floor, what=what, unit=PER_UNIT)
