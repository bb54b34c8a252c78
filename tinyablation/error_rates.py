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
from tinyablation.panels import CurvePanel, Series
from tinyablation.plain import Count, Number, Plain

Share = Annotated[Number, Field(ge=0, le=1)]

# What the suite promises, and the table says whether it is kept.
FALSE_POSITIVE_GOAL = 0.05  # upper confidence bound, per claim
POWER_GOAL = 0.95  # share found of plants of POWER_DOSE
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
        raise ErrorRateError(f"{k} of {n} is no share: n must be at least 1 and k from 0 to n")
    interval = stats.binomtest(k, n).proportion_ci(confidence_level=confidence, method="exact")
    return Bounds(k / n, float(interval.low), float(interval.high))


class FalsePositives(Plain):
    """How often one claim came out supported where nothing had been planted.

    kind: which null models; n cells (model x condition) passed the validity gate, of n_models
    models made from n_bases independent seeds, and k of the cells came out supported. low and high:
    Clopper-Pearson over cells, two-sided 95 %; high_models: the same upper end over models, where a
    model counts as false if any of its cells does. blocked: how many of the n the claim itself
    refused to judge (there was no effect to take a share of). invalid: further cells, which the
    gate had blocked.
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
    blocked: Count = 0
    invalid: Count = 0

    @property
    def meets_goal(self) -> bool:
        return self.high <= FALSE_POSITIVE_GOAL


class PowerPoint(Plain):
    """How often one claim found a plant of one dose: found of n cells, with its exact interval.

    dose: the plant's true effect as a share of the clean LD, over every example of the condition;
    n_bases: independent seeds that they come from. condition: "all" for all of them together.
    """

    claim: str
    test: str
    condition: str
    dose: Number
    n_bases: Count
    n: Count
    found: Count
    share: Share
    low: Share
    high: Share


class Detectable(Plain):
    """The smallest dose that one claim finds with 80 % power, None where no dose reached it."""

    claim: str
    test: str
    dose: Number | None


class Simulated(Plain):
    """One interval or test of tinyablation.statistics on simulated data whose truth is known.

    quantity: "coverage" of an interval, or "size" of a test; nominal: what it should be; observed,
    with its Monte Carlo standard error, over n_simulations. verdict: how it stands to the nominal
    within Monte Carlo error: "nominal", "conservative" or "liberal".
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


EVERY_NULL = "all nulls"  # the kind that holds every other
ALL_CONDITIONS = "all"


class ErrorRates(Plain):
    """The table that ships with the project. made: UTC date; engine: its version when made."""

    made: str
    version: str
    false_positives: list[FalsePositives] = Field(default=[])
    power: list[PowerPoint] = Field(default=[])
    detectable: list[Detectable] = Field(default=[])
    statistics: list[Simulated] = Field(default=[])
    notes: list[str] = Field(default=[])

    def of_test(self, test: str) -> Sequence[FalsePositives]:
        return [row for row in self.false_positives if row.test == test]


def said_of_goals(table: ErrorRates) -> list[str]:
    """One sentence a claim on each goal: met, or by how much not."""
    said = []
    for row in table.false_positives:
        if row.kind == EVERY_NULL:
            short = f"missed by {row.high - FALSE_POSITIVE_GOAL:.3f}"
            said.append(
                f"{row.claim} ({_words(row.test)}): {row.k} of {row.n} nulls supported, upper "
                f"bound {row.high:.3f}; goal {FALSE_POSITIVE_GOAL:g} "
                f"{'met' if row.meets_goal else short}"
            )
    for point in table.power:
        if point.condition == ALL_CONDITIONS and point.dose == POWER_DOSE:
            missing = POWER_GOAL - point.share
            said.append(
                f"{point.claim} ({_words(point.test)}): {point.found} of {point.n} plants of "
                f"{POWER_DOSE:.0%} found; goal {POWER_GOAL:g} "
                f"{'met' if missing <= 0 else f'missed by {missing:.2f}'}"
            )
    return said


def power_panel(table: ErrorRates) -> CurvePanel | None:
    """The share found by dose, a line a claim with exact intervals; None without plants."""
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
    """The table in a file; ErrorRateError names the file and the field where it is broken."""
    try:
        return ErrorRates.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ErrorRateError(f"{path}: cannot be read: {error.strerror or error}") from error
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        raise ErrorRateError(f"{path}: field {field}: {first['msg']}") from error
