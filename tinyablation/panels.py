"""Panels: token tables and curves that a claim shows beside its figures.

    TokensPanel(title="0:2 writes", columns={"top": [{"token": " totally", "logit": 0.31}]})
    CurvePanel(
        title="Recovery by layer", x="layer", y="share",
        series=[Series.of("recovery", [0, 1], [(0.2, 0.1, 0.3), (0.6, 0.5, 0.7)])],
    )

Plain data only; what they look like is the report's affair (tinyablation/curves.py).
"""

from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tinyablation.plain import Number, Plain

# Lines that can still be told apart on one chart by marker, dash and label.
MOST_SERIES = 12
_Name = Annotated[str, Field(min_length=1)]


class Token(Plain):
    """A token as text, decoded (" totally", not "Ġtotally"), and its logit or score."""

    token: str
    logit: Number


class TokensPanel(Plain):
    """Tokens side by side, a column per heading ("top", "bottom"), in the order given."""

    kind: Literal["tokens"] = "tokens"
    title: _Name
    columns: Annotated[dict[_Name, list[Token]], Field(min_length=1)]

    @model_validator(mode="after")
    def _has_tokens(self) -> Self:
        if not any(self.columns.values()):
            raise ValueError("a table of tokens needs at least one token")
        return self


class Series(Plain):
    """One line of a curve: points in the order given, with an interval each or none at all."""

    name: _Name
    x: Annotated[list[Number], Field(min_length=1)]
    y: list[Number]
    low: list[Number] | None = None
    high: list[Number] | None = None

    @classmethod
    def of(cls, name: str, x: Sequence[float], estimates: Sequence[Sequence[float]]) -> Self:
        """A line of (estimate, low, high, ...) per x, as an Estimate or a detail holds them."""
        if any(len(estimate) < 3 for estimate in estimates):
            raise ValueError(f"series {name!r}: give (estimate, low, high) for every x")
        return cls(
            name=name,
            x=list(x),
            y=[estimate[0] for estimate in estimates],
            low=[estimate[1] for estimate in estimates],
            high=[estimate[2] for estimate in estimates],
        )

    @model_validator(mode="after")
    def _is_rectangular(self) -> Self:
        if (self.low is None) != (self.high is None):
            raise ValueError(f"series {self.name!r} has one end of its intervals only")
        for label, values in (("y", self.y), ("low", self.low), ("high", self.high)):
            if values is not None and len(values) != len(self.x):
                raise ValueError(
                    f"series {self.name!r} has {len(self.x)} x and {len(values)} {label}"
                )
        for low, high in zip(self.low or (), self.high or (), strict=True):
            if low > high:
                raise ValueError(f"series {self.name!r} has an interval from {low} to {high}")
        return self


class CurvePanel(Plain):
    """Lines over one axis: a dose response, a layer profile, a reliability curve.

    x and y are the labels of the axes, with their units.
    """

    kind: Literal["curve"] = "curve"
    title: _Name
    x: _Name
    y: _Name
    series: Annotated[list[Series], Field(min_length=1, max_length=MOST_SERIES)]

    @model_validator(mode="after")
    def _has_names(self) -> Self:
        names = [series.name for series in self.series]
        if len(set(names)) < len(names):
            raise ValueError(f"the series of {self.title!r} must have different names")
        return self


Panel = Annotated[TokensPanel | CurvePanel, Field(discriminator="kind")]
