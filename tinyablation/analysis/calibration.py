"""Calibration of probabilities before and after an ablation. Pure functions of tables.

An example asks which of two answers is right. Its forecast is p(first) = sigmoid(+-LD), the
probability of the answer that sorts first, and its label says whether that one is right, so the
label comes from the corpus and never from the score. All functions take the forecast as a logit,
[n_examples], which does not saturate.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tinyablation.corpora.examples import CONFIRMATION, DISCOVERY
from tinyablation.statistics.clusters import StatisticsError
from tinyablation.statistics.intervals import (
    DegenerateInterval,
    Estimate,
    Floats,
    checked_figures,
    cluster_interval,
    cluster_statistic_interval,
    generator,
)
from tinyablation.verdicts.verdicts import Verdict, blocked, judge_above_floor, judge_all_of

if TYPE_CHECKING:
    import pandas

Labels = NDArray[np.bool_]
Stage = Literal["raw", "recalibrated"]
_Binned = tuple[NDArray[np.intp], Floats]

# The share of labels may differ from one half by this much. A forecast that knows only a base rate
# of 55 % has a Brier score of .2475 instead of .25: half of BRIER_FLOOR. The corpora are built with
# exactly one half.
BALANCE_TOLERANCE = 0.05
# Bins of equal width over [0, 1], as in Guo et al. 2017, sec. 2.
BINS = 15
_EDGES = np.linspace(0.0, 1.0, BINS + 1)[1:-1]
# The Brier improvement that counts: 2 % of the .25 of a coin, and about half of the .009 of the
# published claim (.033 -> .024). Fitting a temperature to 100 examples costs about as much at the
# 95th percentile of 200 simulated fits (.0042 to .0049; median .0005 to .0028), and half as much
# with 200 examples (.0015 to .0026).
BRIER_FLOOR = 0.005
REALS = (-math.inf, math.inf)


class CalibrationError(StatisticsError):
    """Calibration cannot be computed from these forecasts and labels."""


class Unbalanced(CalibrationError):
    """One label is more common than the other, so a forecast may score without knowledge."""


class TemperatureUndefined(CalibrationError):
    """No positive temperature fits, because the answers are no better than chance."""


class Oriented(NamedTuple):
    """Forecasts of the answer that sorts first, [n_examples] each."""

    logits: Floats
    labels: Labels  # whether the answer that sorts first is the target
    clusters: list[str]

    @property
    def probabilities(self) -> Floats:
        return probabilities(self.logits)


def oriented(table: "pandas.DataFrame") -> Oriented:
    """Forecasts and labels of rows with logit_diff, target, foil, cluster_id, one per example."""
    twice = (table["target"] == table["foil"]).to_numpy()
    if twice.any():
        raise CalibrationError(f"row {int(np.flatnonzero(twice)[0])}: target and foil are the same")
    first = (table["target"] < table["foil"]).to_numpy(dtype=bool)
    clusters = [str(name) for name in table["cluster_id"]]
    return Oriented(orient(table["logit_diff"], first), first, clusters)


def orient(ld: ArrayLike, targets_first: ArrayLike) -> Floats:
    """Logit of p(first), [n_examples]: LD if the target sorts first, -LD if the foil does."""
    differences, labels = _pair(ld, targets_first, "LD")
    return np.where(labels, differences, -differences)


def probabilities(logits: ArrayLike) -> Floats:
    from scipy.special import expit

    return np.asarray(expit(np.asarray(logits, dtype=np.float64)), dtype=np.float64)


def balanced(labels: ArrayLike, *, tolerance: float = BALANCE_TOLERANCE, what: str = "") -> None:
    """Raise Unbalanced, with the counts, if the labels differ from 50/50 by more than tolerance.

    A difference of half an example is always allowed, because n may be odd.
    """
    given = np.asarray(labels, dtype=bool)
    if not given.size:
        raise CalibrationError(f"{what or 'labels'}: n = 0 has no balance")
    yes = int(given.sum())
    if abs(yes - given.size / 2) > max(0.5, tolerance * given.size):
        raise Unbalanced(
            f"{what + ': ' if what else ''}{yes} examples whose target sorts first and "
            f"{given.size - yes} whose foil does; needed: half of each, within {tolerance:.0%}"
        )


def brier(logits: ArrayLike, labels: ArrayLike) -> Floats:
    """(p - label)^2 of each example (Brier 1950, for one of the two answers: 0 to 1)."""
    scores, right = _pair(logits, labels, "logits")
    return (probabilities(scores) - right) ** 2


def nll(logits: ArrayLike, labels: ArrayLike) -> Floats:
    """-log p(the right answer) of each example, in nats."""
    scores, right = _pair(logits, labels, "logits")
    return np.logaddexp(0.0, np.where(right, -scores, scores))


def ece(logits: ArrayLike, labels: ArrayLike) -> float:
    """Expected calibration error of p(first): mean |share of labels - mean forecast| over bins.

    15 bins of equal width, weighted by their counts (Guo et al. 2017, eq. 3), but for the forecast
    of one fixed answer, not for the confidence in the likelier one. Biased upwards: a perfect
    forecast has .09 to .13 (median) for 100 simulated examples, .07 to .09 for 200.
    """
    return _ece(*_binned(logits, labels))


def _binned(logits: ArrayLike, labels: ArrayLike) -> _Binned:
    """The bin of each example's forecast, and its label minus its forecast."""
    scores, right = _pair(logits, labels, "logits")
    forecast = probabilities(scores)
    return _bins(forecast), right - forecast


def _change_of_ece(before: _Binned, after: _Binned, rows: list[NDArray[np.intp]]) -> float:
    """What the ablation changes on these rows, given both sides' bins and gaps."""
    first, second = ((bins[rows[0]], gaps[rows[0]]) for bins, gaps in (before, after))
    return _ece(*second) - _ece(*first)


def _ece(bins: NDArray[np.intp], gaps: Floats) -> float:
    return float(np.abs(np.bincount(bins, weights=gaps, minlength=BINS)).sum() / len(gaps))


def reliability(logits: ArrayLike, labels: ArrayLike) -> list[dict[str, float]]:
    """The reliability curve: one point per non-empty bin, in order of the forecast.

    forecast: mean p(first); share: share of examples whose target sorts first; n: examples.
    """
    scores, right = _pair(logits, labels, "logits")
    forecast = probabilities(scores)
    place = _bins(forecast)
    counts = np.bincount(place, minlength=BINS)
    mean, share = (
        np.bincount(place, weights=each, minlength=BINS)[counts > 0] / counts[counts > 0]
        for each in (forecast, right)
    )
    return [
        {"forecast": float(p), "share": float(s), "n": int(n)}
        for p, s, n in zip(mean, share, counts[counts > 0], strict=True)
    ]


def temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """The T > 0 that minimises the NLL of logits / T (temperature scaling, Guo et al. 2017).

    The labels are Platt's (1999, sec. 2.2): (n1 + 1) / (n1 + 2) for the n1 true ones and
    1 / (n0 + 2) for the others. Otherwise the NLL has no minimum if every answer is right.
    Multiplying the logits by c multiplies T by c, up to rounding.

    Raises TemperatureUndefined if no positive T minimises it.
    """
    from scipy.optimize import minimize_scalar

    scores, right = _pair(logits, labels, "logits")
    n_right = int(right.sum())
    smooth = np.where(right, (n_right + 1) / (n_right + 2), 1 / (len(right) - n_right + 2))
    # The NLL is convex in 1 / T, so its slope at 1 / T = 0 tells on which side the minimum is.
    if not (gain := float(((smooth - 0.5) * scores).mean())) > 0:
        raise TemperatureUndefined(
            f"forecasts of {len(right)} examples are no better than a coin (mean of label x logit "
            f"{gain:.3g}): no temperature makes them calibrated"
        )
    unit = scores / np.sqrt((scores**2).mean())

    def loss(log_sharpness: float) -> float:
        scaled = np.exp(log_sharpness) * unit
        return float((np.logaddexp(0.0, scaled) - smooth * scaled).mean())

    # A mean logit of e^-14 to e^7 in units of T: beyond that every forecast is .5, or 0 or 1.
    found = minimize_scalar(loss, bounds=(-14.0, 7.0), method="bounded", options={"xatol": 1e-10})
    return float(np.sqrt((scores**2).mean()) * np.exp(-found.x))


@dataclass(frozen=True)
class Side:
    """Calibration of one side on the confirmation split, [n_examples of it]."""

    temperature: float  # fitted on the discovery split
    logits: dict[Stage, Floats]
    labels: Labels

    def figures(self, stage: Stage) -> dict[str, Any]:
        """Mean Brier score and NLL (nats), ECE and the reliability curve, as plain values."""
        logits = self.logits[stage]
        return {
            "brier": float(brier(logits, self.labels).mean()),
            "nll": float(nll(logits, self.labels).mean()),
            "ece": ece(logits, self.labels),
            "reliability": reliability(logits, self.labels),
        }


@dataclass(frozen=True)
class Comparison:
    """Calibration before and after an ablation.

    differences[stage][score]: ablated - clean on the confirmation split, so that an improvement is
    below 0; scores are brier, nll (nats) and ece.
    """

    clean: Side
    ablated: Side
    differences: dict[Stage, dict[str, Estimate]]

    def details(self) -> dict[str, Any]:
        """Everything as plain values, for a verdict's details."""
        sides = {"clean": self.clean, "ablated": self.ablated}
        stages: tuple[Stage, ...] = ("raw", "recalibrated")
        return {
            "temperature": {name: side.temperature for name, side in sides.items()},
            "difference (ablated - clean)": {
                stage: {name: list(found[:3]) for name, found in self.differences[stage].items()}
                for stage in stages
            },
            **{
                name: {stage: side.figures(stage) for stage in stages}
                for name, side in sides.items()
            },
        }


def compare(
    clean_ld: ArrayLike,
    ablated_ld: ArrayLike,
    targets_first: ArrayLike,
    clusters: Sequence[str],
    splits: Sequence[str],
    *,
    seed: int = 0,
    resamples: int = 2000,
) -> Comparison:
    """Calibration of the ablated model minus that of the clean one, paired by example.

    All arrays [n_examples], both splits. Each side has its own temperature, fitted on the discovery
    split; everything else uses the confirmation split, where the temperatures are fixed.
    Multiplying all LD of a side by a constant changes no recalibrated figure. Brier score and NLL
    use cluster_interval, the ECE uses cluster_statistic_interval.

    Raises Unbalanced for either split, TemperatureUndefined for either side, StatisticsError for
    figures without an interval. If the ablation changes nothing, intervals are [0, 0].
    """
    clean, labels = _pair(clean_ld, targets_first, "clean LD")
    ablated, _ = _pair(ablated_ld, targets_first, "ablated LD")
    if not len(clean) == len(ablated) == len(clusters) == len(splits):
        raise CalibrationError(
            f"{len(clean)} clean LD, {len(ablated)} ablated LD, {len(clusters)} clusters and "
            f"{len(splits)} splits; give one of each for every example"
        )
    names = np.asarray(splits, dtype=object)
    discovery, confirmation = names == DISCOVERY, names == CONFIRMATION
    for rows, name in ((discovery, DISCOVERY), (confirmation, CONFIRMATION)):
        balanced(labels[rows], what=name)
    judged = labels[confirmation]
    own = [str(cluster) for cluster, kept in zip(clusters, confirmation, strict=True) if kept]

    def side(ld: Floats) -> Side:
        logits = orient(ld, labels)
        scale = temperature(logits[discovery], labels[discovery])
        raw = logits[confirmation]
        return Side(scale, {"raw": raw, "recalibrated": raw / scale}, judged)

    sides = side(clean), side(ablated)
    differences: dict[Stage, dict[str, Estimate]] = {}
    stages: tuple[Stage, ...] = ("raw", "recalibrated")
    for stage in stages:
        before, after = (found.logits[stage] for found in sides)
        found = {}
        for name, score, bounds in (("brier", brier, (-1.0, 1.0)), ("nll", nll, REALS)):
            change = score(after, judged) - score(before, judged)
            rng = generator(seed, f"calibration {stage} {name}")
            try:
                found[name] = cluster_interval(change, own, rng, bounds=bounds, resamples=resamples)
            except DegenerateInterval as same:
                found[name] = _nothing(same, own)
        rng = generator(seed, f"calibration {stage} ece")

        # Once for all resamples, which take nothing but other rows.
        both = _binned(before, judged), _binned(after, judged)
        try:
            found["ece"] = cluster_statistic_interval(
                partial(_change_of_ece, *both),
                [own],
                rng,
                bounds=(-1.0, 1.0),
                resamples=resamples,
            )
        except DegenerateInterval as same:
            found["ece"] = _nothing(same, own)
        differences[stage] = found
    return Comparison(*sides, differences)


def judge_calibration(comparison: Comparison, *, what: str, floor: float = BRIER_FLOOR) -> Verdict:
    """The verdict on "the ablation improves forecasts, by more than a change of scale".

    Requires all of three improvements (clean - ablated; judge_all_of): the recalibrated Brier score
    by more than the floor, the recalibrated NLL and the raw NLL by more than 0. The figures are
    those of the recalibrated Brier score. `what` begins the reason ("zeroing 0:2").
    """
    details = comparison.details()
    needed: tuple[tuple[Stage, str, str, float, str], ...] = (
        ("recalibrated", "brier", "Brier score", floor, "Brier"),
        ("recalibrated", "nll", "NLL", 0.0, "nats"),
        ("raw", "nll", "NLL", 0.0, "nats"),
    )
    verdicts = []
    for stage, score, name, least, unit in needed:
        change = comparison.differences[stage][score]
        improvement = change._replace(
            estimate=0.0 - change.estimate, low=0.0 - change.high, high=0.0 - change.low
        )
        verdicts.append(
            judge_above_floor(
                improvement,
                floor=least,
                what=f"{what}, improvement of the {stage} {name}",
                unit=unit,
                details=details,
            )
        )
    return judge_all_of(verdicts, show=verdicts[0])


def calibration_verdict(
    clean: "pandas.DataFrame",
    ablated: "pandas.DataFrame",
    *,
    what: str,
    seed: int = 0,
    floor: float = BRIER_FLOOR,
    resamples: int = 2000,
) -> Verdict:
    """judge_calibration of two tables of the same examples in the same order, both splits.

    Both need the columns of `oriented` and split. Blocked if no temperature can be fitted.
    """
    for column in ("target", "foil", "split", "cluster_id"):
        if clean[column].tolist() != ablated[column].tolist():
            raise CalibrationError(
                f"clean and ablated rows differ in {column!r}: give the same examples in one order"
            )
    try:
        comparison = compare(
            clean["logit_diff"],
            ablated["logit_diff"],
            oriented(clean).labels,
            oriented(clean).clusters,
            [str(name) for name in clean["split"]],
            seed=seed,
            resamples=resamples,
        )
    except TemperatureUndefined as reason:
        return blocked(f"{what}: {reason}")
    return judge_calibration(comparison, what=what, floor=floor)


def _bins(forecast: Floats) -> NDArray[np.intp]:
    """The bin of each forecast, with the edges of sklearn's calibration_curve."""
    return np.searchsorted(_EDGES, forecast)


def _nothing(same: DegenerateInterval, clusters: Sequence[str]) -> Estimate:
    """The estimate of an ablation that changes nothing; any other constant is raised again."""
    if same.value != 0:
        raise same
    return Estimate(0.0, 0.0, 0.0, len(clusters), len(set(clusters)))


def _pair(logits: ArrayLike, labels: ArrayLike, what: str) -> tuple[Floats, Labels]:
    scores = checked_figures(logits, what, ndim=1)
    given = np.asarray(labels)
    if given.shape != scores.shape:
        raise CalibrationError(f"{what}: {scores.shape} for labels of {given.shape}")
    if given.dtype != bool and not np.isin(given, (0, 1)).all():
        raise CalibrationError("labels must be true or false: does the target sort first?")
    return scores, given.astype(bool)
