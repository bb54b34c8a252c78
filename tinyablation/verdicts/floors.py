"""Floors: the smallest effect that counts, and the numerical noise it cannot be told from.

Cheap to import, like verdicts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from tinyablation.errors import TinyAblationError

# An effect must exceed this share of the clean logit difference. Models without a plant have many
# heads with intervals above zero but effects of 2-6 % of it, a different head for every training
# seed. With the interval's lower end above 5 %, 0 of 8 such models had a layer-0 suppressor.
EFFECT_SHARE = 0.05
# And this many logits (or nats), however small the clean logit difference is: the odds of an answer
# change by 1 %.
ABSOLUTE_FLOOR = 0.01


class VerdictError(TinyAblationError):
    """The figures cannot be judged: not finite, negative noise, no verdicts to combine."""


class Noise(float):
    """The numerical noise of a measured effect, in its unit, and where it was measured.

    The number is the noise of the logit difference, in logits; `of` gives that of another column.
    where: the device and dtype for a reader ("cuda in bfloat16"), "" if unknown.
    """

    where: str
    columns: Mapping[str, float]

    def __new__(
        cls, value: float, where: str = "", columns: Mapping[str, float] | None = None
    ) -> Noise:
        made = super().__new__(cls, value)
        made.where, made.columns = where, dict(columns or {})
        return made

    def of(self, column: str) -> Noise:
        """The noise of a column, in its unit; that of LD if the column's was not measured."""
        return Noise(self.columns.get(column, float(self)), self.where, self.columns)


class Floor(float):
    """A bound that an effect is compared with, and the numerical noise of that effect.

    The number is the bound, in the effect's unit; noise is in the same unit. limited: the noise is
    larger than the effect that would count without it. An effect within the noise is then neither
    above the bound nor shown to be below it, because 0 and the bound cannot be distinguished.
    minimum: the bound is the smallest effect that counts, so that an effect of 0 to the bound is
    present. least: where the bound is a share of each example's own figure, the part of it that is
    not: an effect must lie beyond this, too.
    """

    noise: float
    where: str
    limited: bool
    minimum: bool
    least: float

    def __new__(
        cls,
        value: float,
        noise: float = 0.0,
        *,
        counts: float | None = None,
        minimum: bool = False,
        least: float | None = None,
    ) -> Floor:
        """counts: the effect that would count without noise; by default the bound."""
        finite(bound=value, noise=noise)
        if noise < 0:
            raise VerdictError(f"noise {noise} must not be negative")
        made = super().__new__(cls, value)
        made.noise = float(noise)
        made.where = noise.where if isinstance(noise, Noise) else ""
        made.limited = noise > abs(value if counts is None else counts)
        made.minimum = minimum
        made.least = float(value if least is None else least)
        return made

    def __neg__(self) -> Floor:
        made = Floor(-float(self), Noise(self.noise, self.where), minimum=self.minimum)
        made.limited, made.least = self.limited, -self.least
        return made

    @property
    def absolute(self) -> Floor:
        """The part of the bound that is no share of an example's own figure, as a bound."""
        made = Floor(self.least, Noise(self.noise, self.where))
        made.limited = self.limited
        return made

    @property
    def noise_said(self) -> str:
        """The noise as text: "the numerical noise 0.120 of cuda in bfloat16"."""
        where = f" of {self.where}" if self.where else ""
        return f"the numerical noise {figure(self.noise)}{where}"


def figure(value: float) -> str:
    """A number as text with three significant digits: 0.265, 1.48, -0.0012, 160."""
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(float(f"{value:.2e}")))))
    if digits > 6:
        return f"{value:.2e}"
    return f"{float(f'{value:.2e}'):.{digits}f}"


def effect_floor(
    clean_ld_mean: float,
    noise_floor: float,
    share: float = EFFECT_SHARE,
    absolute: float = ABSOLUTE_FLOOR,
) -> Floor:
    """The smallest effect that counts, in logits: the largest of three bounds.

    A share of |clean LD|, `absolute`, and the noise. clean_ld_mean: mean clean logit difference;
    noise_floor: largest numerical noise measured for the model's dtype and device; both in logits.
    If the noise is larger than the others, the floor is limited: an effect below it is not shown to
    be small.
    """
    finite(clean_ld_mean=clean_ld_mean, noise_floor=noise_floor, share=share, absolute=absolute)
    if noise_floor < 0 or share < 0 or absolute < 0:
        raise VerdictError(
            f"noise floor {noise_floor}, share {share} and absolute floor {absolute} must not be "
            "negative"
        )
    counts = max(share * abs(clean_ld_mean), absolute)
    return Floor(
        max(counts, noise_floor),
        noise_floor,
        counts=counts,
        minimum=True,
        least=max(absolute, noise_floor),
    )


def finite(**figures: float | None) -> None:
    for name, value in figures.items():
        if value is not None and not math.isfinite(value):
            raise VerdictError(f"{name} is {value}; it must be finite")
