"""Predictions that a measurement missed, as data: claims/misses.toml.

    [[miss]]
    claim = "H1.1"
    test = "test_named_head_tops_its_layer"
    model = "smollm2-135m"
    condition = "facts"        # or "all"
    predicted = "inconclusive"
    found = "refuted"

A prediction is never edited, so a miss remains a miss. A listed cell is a known miss: its test is
xfailed (strict), and it fails if its verdict is not `found`. A line that matches no cell, or whose
prediction has changed, is an error.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from tinyablation.files.toml import read_toml
from tinyablation.verdicts.registered import ExpectationError
from tinyablation.verdicts.verdicts import Status

MISSES = "misses.toml"


class Miss(BaseModel):
    """One cell whose verdict differs from its prediction."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    claim: str
    test: str
    model: str
    condition: str
    predicted: Status
    found: Status

    @property
    def cell(self) -> tuple[str, str, str, str]:
        """The key that cells are matched by: claim, test, model, condition."""
        return self.claim, self.test, self.model, self.condition


class Misses(NamedTuple):
    """All misses of a file, by cell."""

    path: Path
    by_cell: dict[tuple[str, str, str, str], Miss]

    def unmatched(
        self, cells: Iterable[tuple[str, str, str, str]], models: Iterable[str]
    ) -> list[str]:
        """The lines about these models that match none of the cells, as text for messages."""
        known, asked = set(cells), set(models)
        return [
            " ".join(miss.cell)
            for miss in self.by_cell.values()
            if miss.model in asked and miss.cell not in known
        ]


def load_misses(path: Path) -> Misses:
    """Read the file; a missing file holds no misses. ExpectationError names file and entry."""
    if not path.exists():
        return Misses(path, {})
    _, document = read_toml(path, ExpectationError)
    found: dict[tuple[str, str, str, str], Miss] = {}
    tables = document.pop("miss", [])
    if document or not isinstance(tables, list):
        raise ExpectationError(f"{path}: holds [[miss]] tables and nothing else")
    for number, table in enumerate(tables, start=1):
        try:
            miss = Miss.model_validate(table)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(map(str, first["loc"]))
            raise ExpectationError(f"{path}: miss {number}: {field}: {first['msg']}") from None
        if miss.predicted == miss.found:
            raise ExpectationError(f"{path}: miss {number}: found is what was predicted")
        if found.setdefault(miss.cell, miss) is not miss:
            raise ExpectationError(f"{path}: miss {number}: {' '.join(miss.cell)} is listed twice")
    return Misses(path, found)
