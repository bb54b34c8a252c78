"""Whether a measured figure replicates a published one: same model, condition, quantity and unit.

    replicates        the measured 95 % interval contains the published value, or intervals overlap
    same sign         no overlap, but the effect has the published sign and its interval excludes 0
    opposite sign     the same with the other sign
    not told from zero  no overlap, and the measured interval contains zero
    not comparable    text, another unit, another model, no interval: the reason says which

A figure of one model says nothing about another's, so a difference between models is never a failed
replication; how often their signs agree is given as information (`sign_agreement`).
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple, Protocol

from tinyablation.records.records import PublishedFigure, Record

Outcome = Literal[
    "replicates", "same sign", "opposite sign", "not told from zero", "not comparable"
]
PERCENT = "%"  # "% of x" is a hundredth of "of x", "%" of "share"


class EstimateLike(Protocol):
    """A figure with its 95 % interval (statistics.Estimate, or Measured)."""

    @property
    def estimate(self) -> float: ...
    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...


class Measured(NamedTuple):
    """A figure from a record, in `unit`."""

    estimate: float
    low: float
    high: float
    unit: str


class Replication(NamedTuple):
    """The outcome of comparing a measured with a published figure, and its reason."""

    outcome: Outcome
    reason: str


def replicates(
    measured: EstimateLike, value: float, low: float | None = None, high: float | None = None
) -> Replication:
    """Compare an estimate with a published value and, if given, its published interval.

    All in one unit. Raises ValueError if only one end is given, or the ends are reversed.
    """
    if (low is None) != (high is None):
        raise ValueError("a published interval has two ends")
    if low is not None and high is not None and low > high:
        raise ValueError(f"the published interval [{low}, {high}] is upside down")
    away = measured.low > 0 or measured.high < 0
    also = "" if away else "; it holds zero too"
    if measured.low <= value <= measured.high:
        return Replication("replicates", f"the measured interval holds the published value{also}")
    if low is not None and high is not None and low <= measured.high and measured.low <= high:
        return Replication("replicates", f"the measured and published intervals overlap{also}")
    if not away:
        return Replication(
            "not told from zero", "the measured interval holds zero and not the published value"
        )
    if value == 0:
        return Replication("not comparable", "published as 0, without a sign, and measured off it")
    if (measured.estimate > 0) == (value > 0):
        size = "smaller" if abs(measured.estimate) < abs(value) else "larger"
        return Replication("same sign", f"the published sign, but {size} than published")
    return Replication("opposite sign", "the measured interval lies on the other side of zero")


def compare(record: Record, figure: PublishedFigure) -> Replication:
    """Compare a record's figure of the published quantity with the published figure."""
    if record.model != figure.model:
        return Replication("not comparable", "another model")
    if record.condition != figure.condition:
        return Replication("not comparable", "another condition")
    return _compared(record, figure)


def _compared(record: Record, figure: PublishedFigure) -> Replication:
    if isinstance(figure.value, str):
        return Replication("not comparable", "published as text")
    found = measured(record, figure.quantity)
    if isinstance(found, str):
        return Replication("not comparable", found)
    scale = _scale(figure.unit, found.unit)
    if scale is None:
        units = (f"in {unit}" if unit else "without one" for unit in (figure.unit, found.unit))
        reason = "another unit: published {}, measured {}".format(*units)
        return Replication("not comparable", reason)
    ends = (end if end is None else end * scale for end in (figure.low, figure.high))
    return replicates(found, figure.value * scale, *ends)


def _scale(published: str, own: str) -> float | None:
    """Factor from the published unit to the measured one; None if they are not comparable."""
    if published == own:
        return 1.0
    if _whole(published) == _whole(own):
        return 0.01 if published.startswith(PERCENT) else 100.0
    return None


def _whole(unit: str) -> str:
    """The whole that a share or percentage refers to; other units unchanged."""
    if not unit.startswith(PERCENT):
        return unit
    return unit.removeprefix(PERCENT).strip() or "share"


def measured(record: Record, quantity: str) -> Measured | str:
    """The figure of a record that `quantity` names, or why there is none.

    "effect" is the record's own; anything else is a detail, or "detail/entry" if the detail is a
    mapping. A detail is [estimate, low, high, ...] or {estimate, low, high, unit}; its unit is by
    default the record's.
    """
    if quantity == "effect":
        if record.effect is None:
            return f"not measured: {record.verdict}"
        if record.low is None or record.high is None:
            return "measured without an interval"
        return Measured(record.effect, record.low, record.high, record.unit)
    value: Any = record.details.get(quantity)
    if value is None and "/" in quantity:
        name, _, entry = quantity.partition("/")
        inner = record.details.get(name)
        value = inner.get(entry) if isinstance(inner, Mapping) else None
    if value is None:
        return f"not recorded: {quantity}" if record.details else f"not measured: {record.verdict}"
    unit = record.unit
    if isinstance(value, Mapping):
        unit = str(value.get("unit", unit))
        value = [value.get(name) for name in ("estimate", "low", "high")]
    figures = value[:3] if isinstance(value, list) else [value]
    if not all(type(figure) in (int, float) for figure in figures):
        return f"{quantity} is not recorded as a figure"
    if len(figures) < 3:
        return "measured without an interval"
    estimate, low, high = map(float, figures)
    return Measured(estimate, low, high, unit)


def sign_agreement(records: Iterable[Record], figure: PublishedFigure) -> Counter[str]:
    """How many effects of other models, under the figure's condition, have its sign.

    Keys: "same sign" and "opposite sign" if the interval excludes zero, else "not told from zero".
    This is information, not a replication: sizes are not compared. Empty without any figure.
    """
    counts: Counter[str] = Counter()
    if isinstance(figure.value, str) or figure.value == 0:
        return counts
    for record in records:
        if record.model == figure.model or record.condition != figure.condition:
            continue
        found = measured(record, figure.quantity)
        if isinstance(found, str) or _scale(figure.unit, found.unit) is None:
            continue
        if found.low <= 0 <= found.high:
            counts["not told from zero"] += 1
        elif (found.estimate > 0) == (figure.value > 0):
            counts["same sign"] += 1
        else:
            counts["opposite sign"] += 1
    return counts
