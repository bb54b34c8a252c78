"""How often the suite is wrong, as measured: false support, false refutation, power, statistics.

The table is made by `make calibrate` (fixtures/calibration/) and shipped as
fixtures/calibration/error_rates.json; the report shows it beside the verdicts.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

import pydantic
from pydantic import Field, model_validator

from tinyablation.errors import TinyAblationError
from tinyablation.files.contents import read_text
from tinyablation.records.conditions import ALL_CONDITIONS as ALL_CONDITIONS
from tinyablation.records.conditions import CONDITIONS
from tinyablation.records.panels import CurvePanel, Series
from tinyablation.records.plain import Count, Number, Plain
from tinyablation.spelling import sentence_of

Share = Annotated[Number, Field(ge=0, le=1)]

# The suite's goals; the table shows whether they are met, and by how much.
ERROR_GOAL = 0.05  # upper confidence bound of either error, per claim
POWER_GOAL = 0.95  # share of the plants of POWER_DOSE that are found, under every condition
POWER_DOSE = 0.10  # of the clean LD
POWER_FAMILIES = ("H1", "H5")  # whose effects a plant's dose is
STATED_POWER = 0.80  # the smallest effect found with this power is stated
CONFIDENCE = 0.95

Kind = Literal["false support", "false refutation"]
FALSE_SUPPORT: Kind = "false support"
FALSE_REFUTATION: Kind = "false refutation"
KINDS = (FALSE_SUPPORT, FALSE_REFUTATION)
# Which cells a rate is over. Of a base that has several of them, one is taken, in turn.
EVERY = "all"
BOUNDARY = "at the boundary"
OLDER = (
    "This table was made before rates counted independently trained bases: its rates are left out."
)


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


class ErrorRate(Plain):
    """How often one claim was wrong in one way.

    error: "false support" (supported of a model of which it is untrue) or "false refutation"
    (refuted though true; "present" is neither). among: which cells are counted: "all", those "at
    the boundary" (true or untrue by at most 1 % of the clean figure), or those of one kind of
    model. n: independently trained bases that have such a cell; one cell of each is counted, taken
    in turn and not by its verdict; k of them came out wrong. low and high: Clopper-Pearson, 95 %.
    n_cells, k_cells: the same over all cells of these bases, which are not independent. blocked:
    further cells that the claim did not judge (no effect to take a share of).
    """

    claim: str
    test: str
    error: Kind
    among: str
    n: Count
    k: Count
    low: Share
    high: Share
    n_cells: Count
    k_cells: Count
    blocked: Count = 0

    @property
    def meets_goal(self) -> bool:
        return self.high <= ERROR_GOAL


class PowerPoint(Plain):
    """How often one claim detected a plant of one dose: found of n bases, with an exact interval.

    dose: the true effect of the head, or of the trio, that the claim is about, as a share of the
    clean LD. Counted are bases of whose plant the claim is true. condition: "all" for all together,
    else that of the base. present: of those not found, how many have the effect "present"; untrue:
    further plants of which the claim is not true (where, say, another head has as large an effect);
    invalid: further ones that the validity gate stopped.
    """

    claim: str
    test: str
    condition: str
    dose: Number
    n: Count
    found: Count
    present: Count = 0
    untrue: Count = 0
    invalid: Count = 0
    share: Share
    low: Share
    high: Share

    @model_validator(mode="after")
    def _share_in_its_interval(self) -> Self:
        if not self.low <= self.share <= self.high:
            raise ValueError(f"{self.share} is not between {self.low} and {self.high}")
        return self

    @property
    def has_goal(self) -> bool:
        """Whether a power is aimed at for this claim: the dose is what the claim is about."""
        return self.claim.split(".")[0] in POWER_FAMILIES


class Detectable(Plain):
    """The smallest dose that one claim detects with 80 % power; None if no dose reaches it."""

    claim: str
    test: str
    dose: Number | None


class Resolution(Plain):
    """What one claim about a real model can detect, by the spread of its own records.

    All as shares of the clean LD: the standard error, and the effect that is found above the
    floor with 80 % power, 1.96 + .84 standard errors above it.
    """

    model: str
    claim: str
    test: str
    condition: str
    standard_error: Number
    detectable: Number


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


class ErrorRates(Plain):
    """The table that ships with the project. made: UTC date; version: of the project then.

    bases: how many independently trained ones were judged.
    """

    made: str
    version: str
    bases: Count = 0
    errors: list[ErrorRate] = Field(default=[])
    power: list[PowerPoint] = Field(default=[])
    detectable: list[Detectable] = Field(default=[])
    resolution: list[Resolution] = Field(default=[])
    statistics: list[Simulated] = Field(default=[])
    notes: list[str] = Field(default=[])

    @model_validator(mode="before")
    @classmethod
    def _without_older_rates(cls, data: Any) -> Any:
        """Records keep the table of their day; one that counted cells has no row of today's."""
        if not isinstance(data, Mapping) or "false_positives" not in data:
            return data
        kept = {name: data[name] for name in ("made", "version", "statistics") if name in data}
        return {**kept, "notes": [OLDER]}

    def of_test(self, test: str) -> Sequence[ErrorRate]:
        """Both errors of one test over all its cells."""
        return [row for row in self.errors if (row.test, row.among) == (test, EVERY)]

    def tests(self) -> list[tuple[str, str]]:
        """Claim and test of every row, in order."""
        rows: list[ErrorRate | PowerPoint] = [*self.errors, *self.power]
        return list(dict.fromkeys((row.claim, row.test) for row in rows))


class Goal(NamedTuple):
    """How one claim compares with the goals, as text; "" where nothing was tried or is asked.

    support, support_near: false support over all cells and at the boundary; refutation,
    refutation_near: false refutation likewise; plants: how many plants of POWER_DOSE were found
    under the condition where the fewest were; smallest: the dose detected with STATED_POWER.
    """

    claim: str
    test: str
    support: str
    support_goal: str
    support_near: str
    support_near_goal: str
    refutation: str
    refutation_near: str
    refutation_near_goal: str
    plants: str
    plants_goal: str
    smallest: str


def goals(table: ErrorRates) -> list[Goal]:
    """One row per claim: its errors, its power, and whether it meets the goals."""
    errors = {(row.test, row.error, row.among): row for row in table.errors}
    smallest = {
        row.test: "none" if row.dose is None else f"{row.dose:.1%}" for row in table.detectable
    }
    rows = []
    for claim, test in table.tests():
        refutation, _ = _error_text(errors.get((test, FALSE_REFUTATION, EVERY)))
        rows.append(
            Goal(
                claim,
                test,
                *_error_text(errors.get((test, FALSE_SUPPORT, EVERY))),
                *_error_text(errors.get((test, FALSE_SUPPORT, BOUNDARY))),
                refutation,
                *_error_text(errors.get((test, FALSE_REFUTATION, BOUNDARY))),
                *_power_text([point for point in table.power if point.test == test]),
                smallest.get(test, ""),
            )
        )
    return rows


def _error_text(row: ErrorRate | None) -> tuple[str, str]:
    if row is None:
        return "", ""
    said = f"{row.k} of {row.n}, at most {row.high:.3f}"
    return said, "met" if row.meets_goal else f"missed by {row.high - ERROR_GOAL:.3f}"


def _power_text(points: Iterable[PowerPoint]) -> tuple[str, str]:
    """Of the condition with the smallest share; a goal is set only for H1 and H5."""
    at_dose = {p.condition: p for p in points if p.dose == POWER_DOSE}
    tried = [at_dose[name] for name in CONDITIONS if name in at_dose]
    if not tried:
        return "", ""
    worst = min(tried, key=lambda point: point.share)
    said = f"{worst.found} of {worst.n} ({worst.condition})"
    if not worst.has_goal:
        return said, ""
    missing = POWER_GOAL - worst.share
    return said, "met" if missing <= 0 else f"missed by {missing:.2f}"


def power_panel(table: ErrorRates) -> CurvePanel | None:
    """The share found by dose, a line for each claim with a goal, exact intervals; or None."""
    lines = []
    for test in dict.fromkeys(point.test for point in table.power if point.has_goal):
        curve = sorted(
            (p for p in table.power if (p.test, p.condition) == (test, ALL_CONDITIONS)),
            key=lambda point: point.dose,
        )
        if not curve:  # a table that was cut to some conditions
            continue
        lines.append(
            Series.of(
                f"{curve[0].claim} {sentence_of(test)}",
                [100 * point.dose for point in curve],
                [(point.share, point.low, point.high) for point in curve],
            )
        )
    if not lines:
        return None
    return CurvePanel(
        title="Power", x="true effect, % of the clean LD", y="share found", series=lines
    )


def read_error_rates(path: Path) -> ErrorRates:
    """The table in a file; ErrorRateError names the file and the invalid field."""
    try:
        return ErrorRates.model_validate_json(read_text(path))
    except OSError as error:
        raise ErrorRateError(f"{path}: cannot be read: {error.strerror or error}") from error
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        raise ErrorRateError(f"{path}: field {field}: {first['msg']}") from error
    except UnicodeDecodeError as error:
        raise ErrorRateError(f"{path}: is not UTF-8 ({error.reason})") from error
