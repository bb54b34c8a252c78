"""How often the suite is wrong, as measured: false positives, power, and its statistics.

The table is made by `make calibrate` (fixtures/calibration/) and shipped as
fixtures/calibration/error_rates.json; the report shows it beside the verdicts.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import pydantic
from pydantic import Field

from tinyablation.errors import TinyAblationError
from tinyablation.records.conditions import ALL_CONDITIONS as ALL_CONDITIONS
from tinyablation.records.panels import CurvePanel, Series
from tinyablation.records.plain import Count, Number, Plain

Share = Annotated[Number, Field(ge=0, le=1)]

# The suite's goals; the table shows whether they are met.
FALSE_POSITIVE_GOAL = 0.05  # upper confidence bound, per claim
POWER_GOAL = 0.95  # share of the plants of POWER_DOSE that are found
POWER_DOSE = 0.10  # of the clean LD
STATED_POWER = 0.80  # the smallest effect found with this power is stated
CONFIDENCE = 0.95


class ErrorRateError(TinyAblationError):
    """A table of error rates cannot be made or read; the message says why."""


class Bounds(NamedTuple):
    """A share with its exact interval."""

    share: float
    low: float
    high: float


def clopper_pearson(k: int, n: int, *, confidence: float = CONFIDENCE) -> Bounds:
    """Share k / n with the exact two-sided interval of Clopper and Pearson (1934).

    Raises ErrorRateError for n = 0 or k outside 0..n.
    """
    from scipy import stats

    if n < 1 or not 0 <= k <= n:
        raise ErrorRateError(f"{k} of {n} is not a share: n must be at least 1 and k from 0 to n")
    interval = stats.binomtest(k, n).proportion_ci(confidence_level=confidence, method="exact")
    return Bounds(k / n, float(interval.low), float(interval.high))


class FalsePositives(Plain):
    """How often one claim was supported where it should not be.

    kind: which cells (model x condition) are counted: those of null models, in which nothing was
    planted, or UNTRUE. n of them passed the validity gate, from n_models models made from n_bases
    independent seeds; k were supported. low and high: Clopper-Pearson over cells, two-sided 95 %;
    high_models: the same upper end over models, where a model counts as false if any of its cells
    does. blocked: how many of the n the claim itself did not judge (no effect to take a share of).
    invalid: further cells, blocked by the gate. n_true, k_true: in how many of the n, and of the k,
    the claim is true nevertheless (models have natural suppressors), by its own quantity over every
    example.
    """

    claim: str
    test: str
    kind: str
    n: Count
    k: Count
    low: Share
    high: Share
    n_models: Count
    k_models: Count
    high_models: Share
    n_bases: Count
    n_true: Count = 0
    k_true: Count = 0
    blocked: Count = 0
    invalid: Count = 0

    @property
    def meets_goal(self) -> bool:
        return self.high <= FALSE_POSITIVE_GOAL


class PowerPoint(Plain):
    """How often one claim detected a plant of one dose: found of n cells, with an exact interval.

    dose: the true effect of the head, or of the trio, that the claim is about, as a share of the
    clean LD over every example of the condition; n_bases: independent seeds of the models.
    condition: "all" for all together. n_true, found_true: in how many of the n, and of those found,
    the claim is true (it is not where, say, another head has as large an effect).
    """

    claim: str
    test: str
    condition: str
    dose: Number
    n_bases: Count
    n: Count
    n_true: Count = 0
    found: Count
    found_true: Count = 0
    share: Share
    low: Share
    high: Share


class Detectable(Plain):
    """The smallest dose that one claim detects with 80 % power; None if no dose reaches it."""

    claim: str
    test: str
    dose: Number | None


class Simulated(Plain):
    """One interval or test of tinyablation.statistics on simulated data with known truth.

    quantity: "coverage" of an interval, or "size" of a test (for `adjust` the share of discoveries
    that are false); nominal: what it should be; observed: what it was over n_simulations, with its
    Monte Carlo standard error. verdict: how observed compares with nominal, given that error:
    "nominal", "conservative" or "liberal".
    """

    procedure: str
    quantity: str
    data: str
    n_clusters: Count
    nominal: Share
    observed: Share
    error: Number
    n_simulations: Count
    verdict: str


EVERY_NULL = "all nulls"  # the kind that includes all other null kinds
UNTRUE = "untrue of the model, plants included"


class ErrorRates(Plain):
    """The table that ships with the project. made: UTC date; version: of the project then."""

    made: str
    version: str
    false_positives: list[FalsePositives] = Field(default=[])
    power: list[PowerPoint] = Field(default=[])
    detectable: list[Detectable] = Field(default=[])
    statistics: list[Simulated] = Field(default=[])
    notes: list[str] = Field(default=[])

    def of_test(self, test: str) -> Sequence[FalsePositives]:
        return [row for row in self.false_positives if row.test == test]


class Goal(NamedTuple):
    """How one claim compares with the goals, as text; "" where nothing was tried.

    nulls and untrue: false positives where nothing was planted, and where the claim is untrue;
    plants: how many plants of POWER_DOSE were found; true_plants: the same among those for which
    the claim is true; smallest: the dose detected with STATED_POWER.
    """

    claim: str
    test: str
    nulls: str
    nulls_goal: str
    untrue: str
    untrue_goal: str
    plants: str
    plants_goal: str
    true_plants: str
    smallest: str


def goals(table: ErrorRates) -> list[Goal]:
    """One row per claim: its false positives, its power, and whether it meets the goals."""
    false = {(row.test, row.kind): row for row in table.false_positives}
    at_dose = {
        p.test: p for p in table.power if (p.condition, p.dose) == (ALL_CONDITIONS, POWER_DOSE)
    }
    smallest = {
        row.test: "none" if row.dose is None else f"{row.dose:.1%}" for row in table.detectable
    }
    rows: list[FalsePositives | PowerPoint] = [*table.false_positives, *table.power]
    return [
        Goal(
            claim,
            test,
            *_false_positive_text(false.get((test, EVERY_NULL))),
            *_false_positive_text(false.get((test, UNTRUE))),
            *_power_text(at_dose.get(test)),
            smallest.get(test, ""),
        )
        for claim, test in dict.fromkeys((row.claim, row.test) for row in rows)
    ]


def _false_positive_text(row: FalsePositives | None) -> tuple[str, str]:
    if row is None:
        return "", ""
    missing = row.high - FALSE_POSITIVE_GOAL
    said = f"{row.k} of {row.n}, at most {row.high:.3f}"
    return said, "met" if row.meets_goal else f"missed by {missing:.3f}"


def _power_text(point: PowerPoint | None) -> tuple[str, str, str]:
    if point is None:
        return "", "", ""
    missing = POWER_GOAL - point.share
    met = "met" if missing <= 0 else f"missed by {missing:.2f}"
    true = f"{point.found_true} of {point.n_true}" if point.n_true else ""
    return f"{point.found} of {point.n}", met, true


def power_panel(table: ErrorRates) -> CurvePanel | None:
    """The share found by dose, one line per claim with exact intervals; None without plants."""
    lines = []
    for test in dict.fromkeys(point.test for point in table.power):
        curve = sorted(
            (p for p in table.power if (p.test, p.condition) == (test, ALL_CONDITIONS)),
            key=lambda point: point.dose,
        )
        lines.append(
            Series.of(
                f"{curve[0].claim} {_words(test)}",
                [100 * point.dose for point in curve],
                [(point.share, point.low, point.high) for point in curve],
            )
        )
    if not lines:
        return None
    return CurvePanel(
        title="Power", x="true effect, % of the clean LD", y="share found", series=lines
    )


def _words(test: str) -> str:
    return test.removeprefix("test_").replace("_", " ")


def read_error_rates(path: Path) -> ErrorRates:
    """The table in a file; ErrorRateError names the file and the invalid field."""
    try:
        return ErrorRates.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ErrorRateError(f"{path}: cannot be read: {error.strerror or error}") from error
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        raise ErrorRateError(f"{path}: field {field}: {first['msg']}") from error
