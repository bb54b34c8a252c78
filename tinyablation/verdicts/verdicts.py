"""Verdicts: whether a measurement leaves a claim supported, refuted, inconclusive or blocked.

Cheap to import: test collection needs the statuses, but not numpy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from tinyablation.records.criteria import Criterion, Rule
from tinyablation.statistics.few_clusters import ENOUGH_CLUSTERS
from tinyablation.verdicts.floors import Floor, Noise, VerdictError, figure, finite

if TYPE_CHECKING:
    from tinyablation.statistics.intervals import Estimate

# present: the effect is there, but it is not shown to reach the smallest effect that counts.
Status = Literal["supported", "present", "refuted", "inconclusive", "blocked"]
STATUSES: tuple[Status, ...] = get_args(Status)

# Corrected p above which an effect is not significant: the field's convention, and the complement
# of the 95 % of our intervals.
ALPHA = 0.05
CONFIDENCE = 0.95  # of every interval
# Of the interval that must lie within a margin: two one-sided tests at 5 % each (Schuirmann 1987).
INNER_CONFIDENCE = 0.90
# Margins this close count as equal: in float32 the batch shape moved a figure by at most 1e-5
# logits, and margins are of means.
AS_NEAR = 1e-5
WITHIN_NOISE = "within the noise"
BY_T = "interval"  # the test of every p that an interval gives; see p_beyond
# Units whose figures have a range: an interval that leaves it was computed wrongly.
RANGES = {"share": (0.0, 1.0), "rho": (-1.0, 1.0), "cosine": (-1.0, 1.0), "Brier": (-1.0, 1.0)}


@dataclass(frozen=True)
class Verdict:
    """A verdict with the figures it rests on; effect and floor in `unit`.

    margin: the effect beyond a share of each example's own figure, where the bound is one: its
    interval is what is judged. p_value is the p of the whole claim, for the session's ledger
    (false_discovery.py): the largest over all parts that must hold; None if some part is not a
    test. details holds further plain values, which records.plain checks.

    distance: how far the estimate lies beyond its bound, on the side that holds, least of all
    parts: its sign is what would be said without any uncertainty. p_refuted: the p of "refuted", of
    one part; refutes: whether a part can refute the claim it is of.

    subject: the head it is about ("0:7"), runs: the run directories it rests on; `judge` takes them
    where the claim names none. criteria: what was compared with what, in all parts; p_test: the
    test that p_corrected is of ("permutation", "rank").
    """

    status: Status
    reason: str
    effect: Estimate | None = None
    floor: float | None = None
    p_corrected: float | None = None
    unit: str = "logits"
    details: Mapping[str, Any] = field(default_factory=dict, hash=False)
    p_value: float | None = None
    margin: Estimate | None = None
    distance: float | None = None
    p_refuted: float | None = None
    refutes: bool = True
    subject: str | None = None
    runs: tuple[str, ...] = ()
    criteria: tuple[Criterion, ...] = field(default=(), hash=False)
    p_test: str = ""

    @property
    def falls_short(self) -> bool:
        """Whether what is claimed was excluded: refuted, or present and surely too small."""
        short = self.p_refuted is not None and self.p_refuted <= (1 - CONFIDENCE) / 2
        return self.status == "refuted" or short

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise VerdictError(f"{self.status!r} is not a verdict; known: {', '.join(STATUSES)}")
        if not self.reason.strip():
            raise VerdictError(f"a verdict {self.status!r} needs a reason")
        finite(floor=self.floor)
        _probability(self.p_corrected)
        _probability(self.p_value)
        if self.effect is not None:
            finite(effect=self.effect.estimate, low=self.effect.low, high=self.effect.high)
            least, most = RANGES.get(self.unit, (-math.inf, math.inf))
            if not least <= self.effect.low <= self.effect.high <= most:
                raise VerdictError(
                    f"the interval [{self.effect.low}, {self.effect.high}] of a {self.unit} is not "
                    f"within [{least:g}, {most:g}]"
                )


def judge_above_floor(
    effect: Estimate,
    *,
    floor: float,
    margin: Estimate | None = None,
    p_corrected: float | None = None,
    p_test: str = "",
    alpha: float = ALPHA,
    what: str,
    unit: str = "logits",
    details: Mapping[str, Any] | None = None,
) -> Verdict:
    """The verdict on "the effect is above the floor".

    supported: the whole interval is above it, and p_corrected (if given) is at most alpha;
    refuted: the whole interval is below it; else inconclusive. If the floor is the smallest effect
    that counts (Floor.minimum) and the whole interval is above 0: present instead of the last two.
    margin: the effect beyond a share of each example's own figure; then it is its interval that
    must lie above or below 0, and that of the effect above Floor.least. `what` begins the reason
    ("zeroing L0H2"); p_test: the test that p_corrected is of. With a limited Floor a verdict needs
    an interval wholly beyond the noise.
    """
    bound = ("floor", floor, "above", "below")
    return _judge(effect, bound, margin, p_corrected, p_test, alpha, what, unit, details)


def judge_below_ceiling(
    effect: Estimate,
    *,
    ceiling: float,
    margin: Estimate | None = None,
    p_corrected: float | None = None,
    p_test: str = "",
    alpha: float = ALPHA,
    what: str,
    unit: str = "logits",
    details: Mapping[str, Any] | None = None,
) -> Verdict:
    """The verdict on "the effect is below the ceiling": that something is small, or a decrease.

    supported: the whole interval is below it, and p_corrected (if given) is at most alpha;
    refuted: the whole interval is above it; else inconclusive. A Floor and a margin act as in
    judge_above_floor.
    """
    bound = ("ceiling", ceiling, "below", "above")
    return _judge(effect, bound, margin, p_corrected, p_test, alpha, what, unit, details)


def judge_equivalent(
    effect: Estimate,
    *,
    margin: float,
    inner: Estimate | None = None,
    what: str,
    unit: str = "logits",
    details: Mapping[str, Any] | None = None,
) -> Verdict:
    """The verdict on "the effect is negligible": it lies within +- margin, on either side.

    effect: with its 95 % interval; inner: the same figure with its 90 % interval, which makes two
    one-sided tests at 5 % (Schuirmann 1987). supported: the whole 90 % interval lies within the
    margin; refuted: the whole 95 % interval lies outside it, on one side; else inconclusive, which
    an effect that is not shown to be there is too: that nothing was found is no evidence that
    nothing is there. Without inner the 95 % interval must lie within, the stricter test at 2.5 %.

    The record has the 95 % interval as its effect, the margin as its floor, and in its details the
    90 % interval. p_value is the larger p of the two one-sided tests, p_refuted the smaller p of
    lying beyond either end. With a limited Floor as margin nothing is shown to be small: the noise
    exceeds what would count. A double dissociation is judge_all_of the parts "A does this", "A
    spares that", "B spares this" and so on: an intersection-union test (Berger 1982).

    An effect as large as the margin was supported in .023 .049 .044 of 1,000 simulated data sets of
    12 / 24 / 48 normal clusters (for .05; standard error .007), in .062 .089 .063 where half of
    the clusters are unmoved and the tail reaches outwards, in .004 .016 .016 where it reaches
    inwards; refuted in .014 .027 .012 and at most .055 (for .025).

    Raises VerdictError for a margin that is not above 0 and if inner is not a narrower interval of
    the same estimate.
    """
    finite(margin=margin, estimate=effect.estimate, low=effect.low, high=effect.high)
    if margin <= 0:
        raise VerdictError(f"{what}: the margin is {margin:g}; it must be above 0")
    confidence = CONFIDENCE if inner is None else INNER_CONFIDENCE
    tested = effect if inner is None else inner
    nested = effect.low <= tested.low <= tested.high <= effect.high
    if not nested or tested.estimate != effect.estimate:
        raise VerdictError(
            f"{what}: {list(tested[:3])} is not an interval of 90 % within that of 95 %, "
            f"{list(effect[:3])}; make both of the same values by the same draws"
        )
    status: Status = "inconclusive"
    finding = f"straddles +-{figure(margin)}"
    if -margin < tested.low and tested.high < margin:
        status, finding = "supported", f"lies within +-{figure(margin)}"
        if isinstance(margin, Floor) and margin.limited:
            status, finding = "inconclusive", f"does not lie beyond {margin.noise_said}"
    elif side_of(effect, margin) == "above" or side_of(effect, -margin) == "below":
        status, finding = "refuted", f"lies outside +-{figure(margin)}"
    said = f"{what}: {figure(effect.estimate)}{f' {unit}' if unit else ''}, "
    said += f"interval [{figure(effect.low)}, {figure(effect.high)}]"
    shown = dict(details or {})
    if inner is not None:
        ends = [inner.low, inner.high]
        said += f", of 90 % [{', '.join(map(figure, ends))}]"
        shown["90 % interval"] = ends
    within = [
        p_beyond(tested, margin, "below", confidence=confidence),
        p_beyond(tested, -margin, "above", confidence=confidence),
    ]
    outside = [p_beyond(effect, margin, "above"), p_beyond(effect, -margin, "below")]
    return Verdict(
        status,
        f"{said} {finding}",
        effect,
        float(margin),
        None,
        unit,
        shown,
        _of_all(within),
        distance=float(margin) - abs(effect.estimate),
        p_refuted=_least(outside),
        criteria=(
            _criterion(
                tested, margin, "within", status == "supported", what, unit, _of_all(within)
            ),
        ),
    )


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
    margin: Estimate | None,
    p_corrected: float | None,
    p_test: str,
    alpha: float,
    what: str,
    unit: str,
    details: Mapping[str, Any] | None,
) -> Verdict:
    """Judge an effect against bound: (name, value, side that holds, side that fails)."""
    name, value, holding, failing = bound
    finite(**{name: value}, estimate=effect.estimate, low=effect.low, high=effect.high)
    _probability(p_corrected)
    tested = [(effect, value)]
    if margin is not None:
        finite(margin=margin.estimate, margin_low=margin.low, margin_high=margin.high)
        floor = value if isinstance(value, Floor) else Floor(value, least=0.0)
        tested = [(margin, Floor(0.0, Noise(floor.noise, floor.where))), (effect, floor.absolute)]
    sides = [side_of(*part) for part in tested]
    # Both must hold; either may fail.
    side = next((each for each in (failing, "", WITHIN_NOISE) if each in sides), holding)
    is_there = side_of(effect, Floor(0.0, value.noise)) if isinstance(value, Floor) else ""
    status: Status = "inconclusive"
    if side == WITHIN_NOISE:
        assert isinstance(value, Floor)
        finding = f"does not lie beyond {value.noise_said}"
    else:
        finding = f"lies {side} the {name}" if side else f"straddles the {name}"
        finding += f" {figure(value)}"
    if side == holding and p_corrected is not None and p_corrected > alpha:
        finding += f", but corrected p {figure(p_corrected)} > {alpha:g}"
    elif side == holding:
        status = "supported"
        finding += "" if p_corrected is None else f", corrected p {figure(p_corrected)}"
    elif side == failing or side == "":
        status = "refuted" if side == failing else "inconclusive"
        if isinstance(value, Floor) and value.minimum and is_there == holding:
            status = "present"
            finding += f" and {'lies ' if side == '' else ''}{holding} 0"
    said = f"{what}: {figure(effect.estimate)}{f' {unit}' if unit else ''}, "
    said += f"interval [{figure(effect.low)}, {figure(effect.high)}] {finding}"
    if margin is not None:
        said += (
            f" (beyond it by example: {figure(margin.estimate)}, interval "
            f"[{figure(margin.low)}, {figure(margin.high)}])"
        )
    if effect.n_clusters < ENOUGH_CLUSTERS and status != "supported":
        said += f"; underpowered: {effect.n_clusters} clusters, fewer than {ENOUGH_CLUSTERS}"
    held = [p_beyond(*part, holding) for part in tested]
    names = [what] if margin is None else [f"{what}, beyond its bound by example", what]
    criteria = [
        _criterion(*part, "above" if holding == "above" else "below", own == holding, name, unit, p)
        for part, own, name, p in zip(tested, sides, names, held, strict=True)
    ]
    if p_corrected is not None:
        criteria.append(by_p(what, p_corrected, p_test, alpha))
    sign = 1.0 if holding == "above" else -1.0
    return Verdict(
        status,
        said,
        effect,
        float(value),
        None if p_corrected is None else float(p_corrected),
        unit,
        dict(details or {}),
        _of_all([*held, *([] if p_corrected is None else [p_corrected])]),
        margin,
        min(sign * (part.estimate - limit) for part, limit in tested),
        _least([p_beyond(*part, failing) for part in tested]),
        criteria=tuple(criteria),
        p_test=p_test,
    )


def _criterion(
    effect: Estimate, bound: float, rule: Rule, met: bool, name: str, unit: str, p: float | None
) -> Criterion:
    estimate, low, high = effect[:3]
    figures = {"estimate": estimate, "low": low, "high": high, "threshold": float(bound)}
    test = "" if p is None else BY_T
    return Criterion(name=name, rule=rule, met=met, unit=unit, p=p, p_test=test, **figures)


def by_p(name: str, p: float, test: str, alpha: float = ALPHA) -> Criterion:
    """The criterion that a p is at most alpha."""
    return Criterion(name=name, rule="p", threshold=alpha, met=p <= alpha, p=p, p_test=test)


def p_beyond(
    effect: Estimate, bound: float, holding: str, *, confidence: float = CONFIDENCE
) -> float | None:
    """One-sided p of "the effect lies above (or below) the bound", from its interval.

    The interval is inverted under Student's t on n_clusters - 1. The standard error is that of the
    side facing the bound, so p is at most .025 exactly if that end of a 95 % interval clears the
    bound (confidence: of the interval, if it is another). Returns 1 if the noise of a limited Floor
    may explain the effect, and None for an interval of zero width, which gives no standard error.
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
    return student_above(distance / half * student_quantile((1 + confidence) / 2, freedom), freedom)


def _of_all(parts: Sequence[float | None]) -> float | None:
    """p of a claim that needs all parts: the largest (intersection-union, Berger 1982)."""
    known = [p for p in parts if p is not None]
    return max(known) if len(known) == len(parts) else None


def _least(parts: Sequence[float | None]) -> float | None:
    known = [p for p in parts if p is not None]
    return min(known) if known else None


def judge_all_of(
    verdicts: Sequence[Verdict], *, show: Verdict | None = None, corrected: bool = True
) -> Verdict:
    """The verdict on a claim that needs every one of `verdicts`.

    All supported: supported; else any refuted: refuted; else any blocked: blocked; else any
    inconclusive: inconclusive; else present. Any of several parts may seem refuted by chance, so
    one refutes the claim only if its p is at most .025 / the number of parts that can (Bonferroni);
    else it is inconclusive. Not so if corrected is False. The figures are those of `show`, if
    given; else of the deciding verdict: the first of that status, or, if all are supported, the one
    nearest to its floor. Among equally near ones (AS_NEAR) the first is taken, so that rounding
    does not decide. p_value is the largest of all, distance the least.
    """
    if not verdicts:
        raise VerdictError("no verdicts to combine: n = 0 supports nothing")
    number = sum(verdict.refutes for verdict in verdicts)
    parts = [
        _corrected_refutation(verdict, number) if corrected else verdict for verdict in verdicts
    ]
    order: tuple[Status, ...] = ("refuted", "blocked", "inconclusive", "present", "supported")
    status = min((verdict.status for verdict in parts), key=order.index)
    deciding = [verdict for verdict in parts if verdict.status == status]
    nearest = min(map(_margin, deciding)) + AS_NEAR if status == "supported" else math.inf
    chosen = show or next(verdict for verdict in deciding if _margin(verdict) <= nearest)
    reason = "; ".join(dict.fromkeys(verdict.reason for verdict in deciding))
    if len(deciding) < len(verdicts):
        reason = f"{len(deciding)} of {len(verdicts)} {status}: {reason}"
    distances = [verdict.distance for verdict in parts if verdict.distance is not None]
    return Verdict(
        status,
        reason,
        chosen.effect,
        chosen.floor,
        chosen.p_corrected,
        chosen.unit,
        chosen.details,
        _of_all([verdict.p_value for verdict in verdicts]),
        chosen.margin,
        min(distances) if len(distances) == len(verdicts) else None,
        _least([verdict.p_refuted for verdict in parts if verdict.refutes]),
        criteria=tuple(dict.fromkeys(each for verdict in verdicts for each in verdict.criteria)),
        p_test=chosen.p_test,
    )


def _corrected_refutation(verdict: Verdict, number: int) -> Verdict:
    """One of `number` parts, inconclusive if it is refuted only without a correction for them."""
    p = verdict.p_refuted
    if verdict.status != "refuted" or p is None or p <= (1 - CONFIDENCE) / 2 / number:
        return verdict
    reason = f"{verdict.reason}, but not if corrected for {number} parts (p {figure(p)})"
    return replace(verdict, status="inconclusive", reason=reason)


def _margin(verdict: Verdict) -> float:
    if verdict.effect is None:
        return math.inf
    return verdict.effect.low - (verdict.floor or 0.0)


def of_many(verdict: Verdict, least: float) -> Verdict:
    """The part of a claim about many rivals that names the one which is nearest to doing as well.

    It cannot refute the claim, for of many rivals one may lead by chance. least: the smallest
    estimate of any lead, which need not be this rival's.
    """
    bound = verdict.floor or 0.0
    return replace(
        verdict,
        status="inconclusive" if verdict.status == "refuted" else verdict.status,
        p_value=None if verdict.status == "refuted" else verdict.p_value,
        distance=least - bound,
        refutes=False,
    )


def blocked(reason: str, *, details: Mapping[str, Any] | None = None) -> Verdict:
    """The verdict that the claim cannot be judged here (invalid condition, missing weights)."""
    return Verdict("blocked", reason, details=dict(details or {}))


def _probability(p: float | None) -> None:
    if p is not None and not 0 <= p <= 1:
        raise VerdictError(f"p_corrected or p_value is {p}; it must lie between 0 and 1")
