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

    kind: which null models ("fresh seed", "random weights", "sham plant"); n cells were judged, of
    n_models models trained from n_bases independent seeds; k of the cells were supported. low and
    high: Clopper-Pearson over cells, two-sided 95 %; high_models: the same upper end over models,
    where a model counts as false if any of its cells does. blocked: further cells, not judged.
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

    @property
    def meets_goal(self) -> bool:
        return self.high <= FALSE_POSITIVE_GOAL


class PowerPoint(Plain):
    """How often one claim found a plant of one dose: found of n cells, with its exact interval.

    dose: the plant's true effect as a share of the clean LD.
    """

    claim: str
    test: str
    dose: Number
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
