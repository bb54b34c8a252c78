"""Figures that were published: published.toml.

One table for each figure:

    [[figure]]
    claim = "H1.1"
"""

from pathlib import Path
from typing import Annotated, NamedTuple, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    model_validator,
)

from tinyablation.files.toml import read_toml
from tinyablation.records.conditions import ALL_CONDITIONS, NAMES
from tinyablation.spelling import did_you_mean
from tinyablation.verdicts.expectations import (
    ExpectationError,
    check_claim,
    place_of,
    refuse_unknown,
    validated,
)


class Figure(BaseModel):
    """One published figure: a number in `unit`, or text if it was published as text.

    low and high: its published interval. quantity: the figure of a record that measures the same:
    "effect", or the name of a detail ("effects/0:4": entry "0:4" of the detail "effects").
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    claim: str
    model: Annotated[str, Field(min_length=1)]
    condition: str
    value: Annotated[float, Field(allow_inf_nan=False)] | Annotated[str, Field(min_length=1)]
    unit: str
    source: Annotated[str, Field(min_length=1)]
    low: Annotated[float, Field(allow_inf_nan=False)] | None = None
    high: Annotated[float, Field(allow_inf_nan=False)] | None = None
    quantity: Annotated[str, Field(min_length=1)] = "effect"

    @model_validator(mode="after")
    def _interval_is_about_the_value(self) -> Self:
        if self.low is None and self.high is None:
            return self
        if self.low is None or self.high is None:
            raise ValueError("an interval has two ends; give low and high, or neither")
        if isinstance(self.value, str):
            raise ValueError("text has no interval; give value as a number, or no low and high")
        if not self.low <= self.value <= self.high:
            raise ValueError(f"{self.value} is not in its interval [{self.low}, {self.high}]")
        return self


class Published(NamedTuple):
    """The published figures, in file order."""

    path: Path
    figures: tuple[Figure, ...]

    def for_claim(self, claim: str) -> list[Figure]:
        """The figures published for a claim, in file order; an empty list if there are none."""
        return [figure for figure in self.figures if figure.claim == claim]


def load_published(path: str | Path) -> Published:
    """Read published.toml: [[figure]] tables, or `figure = [ {...}, ... ]` with one per line.

    Conditions are the named ones, those in conditions/ beside the file, and "all".
    """
    path = Path(path)
    text, document = read_toml(path, ExpectationError)
    refuse_unknown(document, ("figure",), str(path))
    of_pack = (file.stem for file in sorted((path.parent / "conditions").glob("*.jsonl")))
    known = (*NAMES, *of_pack, ALL_CONDITIONS)
    tables = document.get("figure", [])
    if not isinstance(tables, list):
        raise ExpectationError(f"{place_of(path, text, 'figure')}: write [[figure]], not [figure]")
    # tomllib gives no line numbers: a figure starts at its header or at the brace of its line.
    starts = ("[[figure]]", "{")
    begins = [n for n, line in enumerate(text.splitlines(), 1) if line.strip().startswith(starts)]
    figures = []
    for position, table in enumerate(tables):
        place = f"{path}:{begins[position]}" if len(begins) == len(tables) else str(path)
        where = f"{place}: figure {position + 1}"
        figure = validated(Figure, table, where)
        check_claim(figure.claim, where)
        if figure.condition not in known:
            raise ExpectationError(
                f"{where}: condition: {figure.condition!r} is not a condition; "
                f"{did_you_mean(figure.condition, known)}"
            )
        figures.append(figure)
    return Published(path, tuple(figures))
