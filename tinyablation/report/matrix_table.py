"""The matrix of claims by models: which models have a column, and in which groups."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from tinyablation.records.records import Record
from tinyablation.report.model_columns import ModelColumn


class Matrix(NamedTuple):
    """The columns of the matrix by group, and the models that have none."""

    groups: dict[str, list[ModelColumn]]
    left_out: list[str]  # in words, with the reason

    @property
    def columns(self) -> list[ModelColumn]:
        """All columns, in order."""
        return [column for group in self.groups.values() for column in group]


def matrix_of(families: Mapping[str, list[ModelColumn]], records: Iterable[Record]) -> Matrix:
    """The matrix without models of which nothing was measured; with them if none was measured.

    families: columns by group, as columns_of gives them.
    """
    cases: Counter[str] = Counter()
    measured: set[str] = set()
    for record in records:
        cases[record.model] += 1
        if record.verdict != "blocked":
            measured.add(record.model)
    kept = measured or set(cases)
    groups = {
        name: [column for column in group if column.model.id in kept]
        for name, group in families.items()
    }
    left_out = [
        f"{column.title} ({_why(cases[column.model.id])})"
        for group in families.values()
        for column in group
        if column.model.id not in kept
    ]
    return Matrix({name: group for name, group in groups.items() if group}, left_out)


def _why(cases: int) -> str:
    if not cases:
        return "no test case"
    return f"{cases} test case{'' if cases == 1 else 's'}, all blocked"
