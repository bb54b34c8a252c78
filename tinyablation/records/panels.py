"""Panels: token tables, curves, forest plots and grids that a claim shows beside its figures.

    TokensPanel(title="0:2 writes", columns={"top": [{"token": " totally", "logit": 0.31}]})
    CurvePanel(
        title="Recovery by layer", x="layer", y="share",
        series=[Series.of("recovery", [0, 1], [(0.2, 0.1, 0.3), (0.6, 0.5, 0.7)])],
    )
    ForestPanel.of("Recovery", "share", {"0:2": (0.6, 0.5, 0.7), "0:4": (0.1, 0.0, 0.2)})
    GridPanel(
        title="Recovery by layer", x="position", y="layer",
        columns=["last", "subject"], rows=["0", "1"], values=[[0.1, None], [0.9, 0.2]],
    )

Plain data only; the report decides how they look (tinyablation/report/curves.py, forest_plots.py,
heat_tables.py).
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tinyablation.records.plain import Count, Number, Plain

# As many lines as marker, dash and label can distinguish on one chart.
MOST_SERIES = 12
_Name = Annotated[str, Field(min_length=1)]


class Token(Plain):
    """A token as text, decoded (" totally", not "Ġtotally"), and its logit or score."""

    token: str
    logit: Number


class TokensPanel(Plain):
    """Columns of tokens side by side, one per heading ("top", "bottom"), in the order given."""

    kind: Literal["tokens"] = "tokens"
    title: _Name
    columns: Annotated[dict[_Name, list[Token]], Field(min_length=1)]

    @model_validator(mode="after")
    def _has_tokens(self) -> Self:
        if not any(self.columns.values()):
            raise ValueError("a table of tokens needs at least one token")
        return self


class Series(Plain):
    """One line of a curve: points in the order given, all with an interval or all without.

    n: how many observations each point is of, where it is a share or a mean of some; a point of one
    says little, and no line leads to it.
    """

    LATER = frozenset({"n"})

    name: _Name
    x: Annotated[list[Number], Field(min_length=1)]
    y: list[Number]
    low: list[Number] | None = None
    high: list[Number] | None = None
    n: list[Count] | None = None

    @classmethod
    def of(cls, name: str, x: Sequence[float], estimates: Sequence[Sequence[float]]) -> Self:
        """A line from one (estimate, low, high, ...) per x, such as an Estimate or a detail."""
        if any(len(estimate) < 3 for estimate in estimates):
            raise ValueError(f"series {name!r}: give (estimate, low, high) for every x")
        return cls(
            name=name,
            x=list(x),
            y=[estimate[0] for estimate in estimates],
            low=[estimate[1] for estimate in estimates],
            high=[estimate[2] for estimate in estimates],
        )

    def joined(self) -> list[list[int]]:
        """The places of its points, those of each unbroken line together, a point of one alone."""
        runs: list[list[int]] = []
        for point in range(len(self.x)):
            alone = self.n is not None and 1 in self.n[max(0, point - 1) : point + 1]
            if alone or not runs:
                runs.append([])
            runs[-1].append(point)
        return runs

    @model_validator(mode="after")
    def _is_rectangular(self) -> Self:
        if (self.low is None) != (self.high is None):
            raise ValueError(f"series {self.name!r} has only one end of its intervals")
        for label, values in (
            *(("y", self.y), ("low", self.low), ("high", self.high), ("n", self.n)),
        ):
            if values is not None and len(values) != len(self.x):
                raise ValueError(
                    f"series {self.name!r} has {len(self.x)} x and {len(values)} {label}"
                )
        for low, high in zip(self.low or (), self.high or (), strict=True):
            if low > high:
                raise ValueError(f"series {self.name!r} has an interval from {low} to {high}")
        return self


class CurvePanel(Plain):
    """Lines over one x axis: a dose response, a layer profile, a reliability curve.

    x and y: the labels of the axes, with units. diagonal: whether y = x is drawn, where a perfect
    forecast lies.
    """

    LATER = frozenset({"diagonal"})

    kind: Literal["curve"] = "curve"
    title: _Name
    x: _Name
    y: _Name
    series: Annotated[list[Series], Field(min_length=1, max_length=MOST_SERIES)]
    diagonal: bool = False

    @model_validator(mode="after")
    def _has_names(self) -> Self:
        names = [series.name for series in self.series]
        if len(set(names)) < len(names):
            raise ValueError(f"the series of {self.title!r} must have different names")
        return self


class ForestRow(Plain):
    """One row of a forest plot: a figure, with its interval if it has one."""

    name: _Name
    value: Number
    low: Number | None = None
    high: Number | None = None

    @model_validator(mode="after")
    def _has_both_ends(self) -> Self:
        if (self.low is None) != (self.high is None):
            raise ValueError(f"{self.name!r} has only one end of its interval")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"{self.name!r} has an interval from {self.low} to {self.high}")
        return self


class ForestPanel(Plain):
    """A forest plot: figures of one unit, one per row, with intervals (heads, sets, shares).

    unit: unit of the axis; bound: the value they are compared with, drawn as a line.
    """

    kind: Literal["forest"] = "forest"
    title: _Name
    unit: _Name
    rows: Annotated[list[ForestRow], Field(min_length=1)]
    bound: Number | None = None

    @classmethod
    def of(
        cls,
        title: str,
        unit: str,
        estimates: Mapping[str, Sequence[float]],
        bound: float | None = None,
    ) -> Self:
        """A panel with one row per name, from (value,) or (estimate, low, high, ...)."""
        rows = []
        for name, estimate in estimates.items():
            if len(estimate) == 2:
                raise ValueError(f"{name!r}: give (value,) or (estimate, low, high)")
            low, high = estimate[1:3] if len(estimate) > 2 else (None, None)
            rows.append(ForestRow(name=name, value=estimate[0], low=low, high=high))
        return cls(title=title, unit=unit, rows=rows, bound=bound)


class GridPanel(Plain):
    """A figure for every row and column: layers by position, heads by heads; None: not measured.

    x says what the columns are, y what the rows are. Full shade is the largest absolute figure.
    """

    kind: Literal["grid"] = "grid"
    title: _Name
    x: _Name
    y: _Name
    columns: Annotated[list[str], Field(min_length=1)]
    rows: Annotated[list[str], Field(min_length=1)]
    values: list[list[Number | None]]

    @model_validator(mode="after")
    def _is_rectangular(self) -> Self:
        shape = {len(row) for row in self.values}
        if len(self.values) != len(self.rows) or shape != {len(self.columns)}:
            raise ValueError(
                f"the grid {self.title!r} has {len(self.rows)} rows and {len(self.columns)} "
                f"columns, but values of {len(self.values)} x {sorted(shape)}"
            )
        return self


Panel = Annotated[TokensPanel | CurvePanel | ForestPanel | GridPanel, Field(discriminator="kind")]
