"""Verdicts: whether a measurement leaves a claim supported, refuted, inconclusive or blocked.

Cheap to import: test collection needs the statuses, but not numpy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from tinyablation.errors import TinyAblationError

if TYPE_CHECKING:
    from tinyablation.statistics.intervals import Estimate

Status = Literal["supported", "refuted", "inconclusive", "blocked"]
STATUSES: tuple[Status, ...] = get_args(Status)

# An effect must exceed this share of the clean logit difference. Models without a plant have many
# heads with intervals above zero but effects of 2-6 % of it, a different head for every training
# seed. With the interval's lower end above 5 %, 0 of 8 such models had a layer-0 suppressor.
EFFECT_SHARE = 0.05
# Corrected p above which an effect is not significant: the field's convention, and the complement
# of the 95 % of our intervals.
ALPHA = 0.05
# Margins this close count as equal: in float32 the batch shape moved a figure by at most 1e-5
# logits, and margins are of means.
AS_NEAR = 1e-5
WITHIN_NOISE = "within the noise"
# Units whose figures have a range: an interval that leaves it was computed wrongly.
RANGES = {"share": (0.0, 1.0), "rho": (-1.0, 1.0), "cosine": (-1.0, 1.0), "Brier": (-1.0, 1.0)}


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
    """

    noise: float
    where: str
    limited: bool

    def __new__(cls, value: float, noise: float = 0.0, *, counts: float | None = None) -> Floor:
        """counts: the effect that would count without noise; by default the bound."""
        _finite(bound=value, noise=noise)
        if noise < 0:
            raise VerdictError(f"noise {noise} must not be negative")
        made = super().__new__(cls, value)
        made.noise = float(noise)
        made.where = noise.where if isinstance(noise, Noise) else ""
        made.limited = noise > abs(value if counts is None else counts)
        return made

    def __neg__(self) -> Floor:
        made = Floor(-float(self), Noise(self.noise, self.where))
        made.limited = self.limited
        return made

    @property
    def noise_said(self) -> str:
        """The noise as text: "the numerical noise 0.120 of cuda in bfloat16"."""
        where = f" of {self.where}" if self.where else ""
        return f"the numerical noise {figure(self.noise)}{where}"


@dataclass(frozen=True)
class Verdict:
    """A verdict with the figures it rests on; effect and floor in `unit`.

    p_value is the p of the whole claim, for the session's ledger (false_discovery.py): the largest
    over all parts that must hold; None if some part is not a test. details holds further plain
    values, which records.plain checks.
    """

    status: Status
    reason: str
    effect: Estimate | None = None
    floor: float | None = None
    p_corrected: float | None = None
    unit: str = "logits"
    details: Mapping[str, Any] = field(default_factory=dict, hash=False)
    p_value: float | None = None

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise VerdictError(f"{self.status!r} is not a verdict; known: {', '.join(STATUSES)}")
        if not self.reason.strip():
            raise VerdictError(f"a verdict {self.status!r} needs a reason")
        _finite(floor=self.floor)
        _probability(self.p_corrected)
        _probability(self.p_value)
        if self.effect is not None:
            _finite(effect=self.effect.estimate, low=self.effect.low, high=self.effect.high)
            least, most = RANGES.get(self.unit, (-math.inf, math.inf))
            if not least <= self.effect.low <= self.effect.high <= most:
                raise VerdictError(
                    f"the interval [{self.effect.low}, {self.effect.high}] of a {self.unit} is not "
                    f"within [{least:g}, {most:g}]"
                )


def figure(value: float) -> str:
    """A number as text with three significant digits: 0.265, 1.48, -0.0012, 160."""
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(float(f"{value:.2e}")))))
    if digits > 6:
        return f"{value:.2e}"
    return f"{float(f'{value:.2e}'):.{digits}f}"


def effect_floor(clean_ld_mean: float, noise_floor: float, share: float = EFFECT_SHARE) -> Floor:
    """The smallest effect that counts, in logits: the larger of share * |clean LD| and the noise.

    clean_ld_mean: mean clean logit difference; noise_floor: largest numerical noise measured for
    the model's dtype and device; both in logits. If the noise is larger, the floor is limited: an
    effect below it is not shown to be small.
    """
    _finite(clean_ld_mean=clean_ld_mean, noise_floor=noise_floor, share=share)
    if noise_floor < 0 or share < 0:
        raise VerdictError(f"noise floor {noise_floor} and share {share} must not be negative")
    counts = share * abs(clean_ld_mean)
    return Floor(max(counts, noise_floor), noise_floor, counts=counts)


def judge_above_floor(
    effect: Estimate,
    *,
    floor: float,
    p_corrected: float | None = None,
    alpha: float = ALPHA,
    what: str,
    unit: str = "logits",
    details: Mapping[str, Any] | None = None,
) -> Verdict:
    """The verdict on "the effect is above the floor".

    supported: the whole interval is above it, and p_corrected (if given) is at most alpha;
    refuted: the whole interval is below it; else inconclusive. `what` begins the reason ("zeroing
    0:2"). With a limited Floor either verdict needs an interval wholly beyond the noise.
    """
    bound = ("floor", floor, "above", "below")
    return _judge(effect, bound, p_corrected, alpha, what, unit, details)


def judge_below_ceiling(
    effect: Estimate,
    *,
    ceiling: float,
    p_corrected: float | None = None,
    alpha: float = ALPHA,
    what: str,
    unit: str = "logits",
    details: Mapping[str, Any] | None = None,
) -> Verdict:
    """The verdict on "the effect is below the ceiling": that something is small, or a decrease.

    supported: the whole interval is below it, and p_corrected (if given) is at most alpha;
    refuted: the whole interval is above it; else inconclusive. A limited Floor acts as in
    judge_above_floor.
    """
    bound = ("ceiling", ceiling, "below", "above")
    return _judge(effect, bound, p_corrected, alpha, what, unit, details)


def side_of(effect: Estimate, bound: float) -> str:
    """Where the whole interval lies: "above" the bound, "below" it, or "" if it straddles it.

    With a limited Floor: "within the noise" if it lies on one side but not beyond the noise.
    """
    side = "above" if effect.low > bound else "below" if effect.high < bound else ""
    if isinstance(bound, Floor) and bound.limited:
        beyond = effect.low > bound.noise if side == "above" else effect.high < -bound.noise
        return side if beyond or not side else WITHIN_NOISE
    return side


def _judge(
    effect: Estimate,
    bound: tuple[str, float, str, str],
    p_corrected: float | None,
    alpha: float,
    what: str,
    unit: str,
    details: Mapping[str, Any] | None,
) -> Verdict:
    """Judge an effect against bound: (name, value, side that holds, side that fails)."""
    name, value, holding, failing = bound
    _finite(**{name: value}, estimate=effect.estimate, low=effect.low, high=effect.high)
    _probability(p_corrected)
    status: Status = "inconclusive"
    side = side_of(effect, value)
    if side == WITHIN_NOISE:
        assert isinstance(value, Floor)
        finding = f"does not lie beyond {value.noise_said}"
    else:
        finding = f"lies {side} the {name}" if side else f"straddles the {name}"
        finding += f" {figure(value)}"
    if side == failing:
        status = "refuted"
    elif side == holding and p_corrected is not None and p_corrected > alpha:
        finding += f", but corrected p {figure(p_corrected)} > {alpha:g}"
    elif side == holding:
        status = "supported"
        finding += "" if p_corrected is None else f", corrected p {figure(p_corrected)}"
    interval = f"interval [{figure(effect.low)}, {figure(effect.high)}]"
    return Verdict(
        status,
        f"{what}: {figure(effect.estimate)}{f' {unit}' if unit else ''}, {interval} {finding}",
        effect,
        float(value),
        None if p_corrected is None else float(p_corrected),
        unit,
        dict(details or {}),
        _of_all(
            [p_beyond(effect, value, holding), *([] if p_corrected is None else [p_corrected])]
        ),
    )


def p_beyond(effect: Estimate, bound: float, holding: str) -> float | None:
    """One-sided p of "the effect lies above (or below) the bound", from its interval.

    The interval is inverted under Student's t on n_clusters - 1. The standard error is that of the
    side facing the bound, so p is at most .025 exactly if that end of a 95 % interval clears the
    bound. Returns 1 if the noise of a limited Floor may explain the effect, and None for an
    interval of zero width, which gives no standard error.
    """
    from tinyablation.statistics.student_t import student_above, student_quantile

    if side_of(effect, bound) == WITHIN_NOISE:
        return 1.0
    sign = 1.0 if holding == "above" else -1.0
    distance = sign * (effect.estimate - bound)
    # The lower end faces a bound below the estimate, the upper end one above it.
    facing = effect.low if sign * distance > 0 else effect.high
    half = abs(effect.estimate - facing)
    if half == 0 or effect.n_clusters < 2:
        return None
    freedom = effect.n_clusters - 1
    return student_above(distance / half * student_quantile(0.975, freedom), freedom)


def _of_all(parts: Sequence[float | None]) -> float | None:
    """p of a claim that needs all parts: the largest (intersection-union, Berger 1982)."""
    known = [p for p in parts if p is not None]
    return max(known) if known and len(known) == len(parts) else None


def judge_all_of(verdicts: Sequence[Verdict], *, show: Verdict | None = None) -> Verdict:
    """The verdict on a claim that needs every one of `verdicts`.

    All supported: supported; else any refuted: refuted; else any blocked: blocked; else
    inconclusive. The figures are those of `show`, if given; else of the deciding verdict: the first
    of that status, or, if all are supported, the one nearest to its floor. Among equally near ones
    (AS_NEAR) the first is taken, so that rounding does not decide. p_value is the largest of all.
    """
    if not verdicts:
        raise VerdictError("no verdicts to combine: n = 0 supports nothing")
    order: tuple[Status, ...] = ("refuted", "blocked", "inconclusive", "supported")
    status = min((verdict.status for verdict in verdicts), key=order.index)
    deciding = [verdict for verdict in verdicts if verdict.status == status]
    nearest = min(map(_margin, deciding)) + AS_NEAR if status == "supported" else math.inf
    chosen = show or next(verdict for verdict in deciding if _margin(verdict) <= nearest)
    reason = "; ".join(dict.fromkeys(verdict.reason for verdict in deciding))
    if len(deciding) < len(verdicts):
        reason = f"{len(deciding)} of {len(verdicts)} {status}: {reason}"
    return Verdict(
        status,
        reason,
        chosen.effect,
        chosen.floor,
        chosen.p_corrected,
        chosen.unit,
        chosen.details,
        _of_all([verdict.p_value for verdict in verdicts]),
    )


def _margin(verdict: Verdict) -> float:
    if verdict.effect is None:
        return math.inf
    return verdict.effect.low - (verdict.floor or 0.0)


def only_supporting(verdict: Verdict) -> Verdict:
    """A part that cannot refute a claim: one of many rivals, of which one may lead by chance."""
    if verdict.status != "refuted":
        return verdict
    return replace(verdict, status="inconclusive", p_value=None)


def blocked(reason: str, *, details: Mapping[str, Any] | None = None) -> Verdict:
    """The verdict that the claim cannot be judged here (invalid condition, missing weights)."""
    return Verdict("blocked", reason, details=dict(details or {}))


def refuted(
    reason: str,
    *,
    effect: Estimate | None = None,
    floor: float | None = None,
    p_corrected: float | None = None,
    unit: str = "logits",
    details: Mapping[str, Any] | None = None,
) -> Verdict:
    """The verdict that the claim fails for a reason other than a floor (the wrong head leads)."""
    return Verdict("refuted", reason, effect, floor, p_corrected, unit, dict(details or {}))


def _finite(**figures: float | None) -> None:
    for name, value in figures.items():
        if value is not None and not math.isfinite(value):
            raise VerdictError(f"{name} is {value}; it must be finite")


def _probability(p: float | None) -> None:
    if p is not None and not 0 <= p <= 1:
        raise VerdictError(f"p_corrected or p_value is {p}; it must lie between 0 and 1")
