"""Prompts of one's own, from memory, a data frame or a file; checked before they are measured."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyablation.corpora.defects import Defect
from tinyablation.corpora.examples import CorpusError
from tinyablation.corpora.own_conditions import OwnCondition, check_name, own_of, read_rows
from tinyablation.records.conditions import NAMES, OWN_NAME
from tinyablation.spelling import did_you_mean

if TYPE_CHECKING:
    import pandas

NAME = "prompts"  # of prompts that were given none
REQUIRED = ("clean", "target", "foil")
LABELS = ("cluster", "template", "fact", "cell")  # may be whole numbers
_TUPLE = ("clean", "target", "foil", "corrupt")
# Defects by which a figure is not what it seems; the others are listed by `check`.
MISLEADING = (
    "prompts that end with a space",
    "answers without a space before them",
    "examples that the tokenizer cannot tell apart: left out",
    "answers of several tokens",
)


@dataclass(frozen=True)
class Prompts:
    """Prompts with their answers. Make one with `Prompts.of`.

    own: the examples; strict: whether misleading defects are refused (see `of`).
    """

    own: OwnCondition
    strict: bool = True

    @classmethod
    def of(cls, rows: Any, *, name: str | None = None, strict: bool = True) -> Prompts:
        """The prompts that `rows` are.

        rows: a sequence of (prompt, target, foil) or (prompt, target, foil, corrupt), or of
        mappings; a pandas data frame; or the path of a file of JSON lines. Columns and fields:
        `clean` (or `prompt`), `target`, `foil`; optional `corrupt` (the prompt whose right answer
        is the foil, in all rows or in none), `null`, `cluster`, `template`, `fact`, `cell`,
        `family`, `split`. Answers are written as they follow the prompt: " Paris", with the space.
        Rows of one `cluster` are one piece of evidence; without it, rows that share a prompt are.

        name: in tables, addresses and random draws (default: the file's, else "prompts"). strict:
        refuse prompts that end with a space, and answers that have no space before them, are
        several tokens, or cannot be told apart; else they are measured as they are, or left out.

        Raises CorpusError, one line that names file or "prompts", line (counted from 1) and field.
        """
        if isinstance(rows, cls):
            return rows
        path = Path(NAME if name is None else name)
        if isinstance(rows, str | Path):
            path = Path(os.path.expanduser(rows))
            own_name = path.stem.lower()
            is_name = OWN_NAME.fullmatch(own_name) and own_name not in NAMES
            name = name or (own_name if is_name else None)
            values: list[Any] = read_rows(path)
        else:
            values = _values(rows)
        name = NAME if name is None else name
        check_name(name)
        fields = [
            _fields(value, f"{path}, line {line}") for line, value in enumerate(values, start=1)
        ]
        own = own_of(name, path, fields, required=REQUIRED)
        lone = [line for line, row in enumerate(own.examples, start=1) if not row.corrupt]
        if 0 < len(lone) < len(own.examples):
            raise CorpusError(
                f"{path}, line {lone[0]}: field 'corrupt' is missing, but other lines have it; "
                "give it in all lines, or in none"
            )
        made = cls(own, strict)
        refuse_misleading(made, own.defects)
        return made

    @property
    def name(self) -> str:
        """Their name, as a condition is named."""
        return self.own.name

    @property
    def has_corrupt(self) -> bool:
        """Whether every prompt has its corrupt counterpart."""
        return bool(self.own.examples[0].corrupt)

    @property
    def table(self) -> pandas.DataFrame:
        """One row per prompt: clean, target, foil, corrupt, cluster; texts."""
        import pandas

        rows = self.own.examples
        columns = {"clean": "clean", "target": "target", "foil": "foil", "corrupt": "corrupt"}
        columns["cluster"] = "cluster_id"
        return pandas.DataFrame(
            {name: [getattr(row, own) for row in rows] for name, own in columns.items()}
        )

    def __len__(self) -> int:
        return len(self.own.examples)

    def __repr__(self) -> str:
        return f"Prompts({self.name!r}: {len(self)} prompts, {self.own.n_clusters} clusters)"


def refuse_misleading(prompts: Prompts, defects: Iterable[Defect]) -> None:
    """Raise CorpusError for the first of these that misleads, if the prompts are strict."""
    for defect in defects:
        if prompts.strict and defect.kind in MISLEADING:
            row = prompts.own.examples[defect.line - 1]
            raise CorpusError(
                f"{prompts.own.path}, line {defect.line}: {defect.what} (answers: {row.target!r}, "
                f"{row.foil!r}); correct it, or give Prompts.of(..., strict=False)"
            )


def condition_or_prompts(given: Any) -> str | Prompts:
    """The name of a condition of the project, or prompts of one's own.

    Raises CorpusError for text that is neither a condition nor a file.
    """
    if not isinstance(given, str) or "\n" in given:
        return Prompts.of(given)
    if given in NAMES:
        return given
    there = os.path.exists(os.path.expanduser(given))  # False for a name that is too long
    if not there and not re.search(r"[/\\.]", given):
        raise CorpusError(
            f"{given!r} is neither a condition nor a file; {did_you_mean(given, NAMES)}"
        )
    return Prompts.of(given)


def _values(rows: Any) -> list[Any]:
    import pandas

    if isinstance(rows, pandas.DataFrame):
        return rows.rename(columns=str).to_dict("records")
    if isinstance(rows, Mapping) or not isinstance(rows, Iterable):
        raise CorpusError(
            f"{NAME}: {type(rows).__name__} is no list of prompts; give (prompt, target, foil) "
            "tuples, a data frame, the path of a file or the name of a condition"
        )
    return list(rows)


def _fields(value: Any, place: str) -> dict[str, Any]:
    """The fields of one row, by their names in a file."""
    if isinstance(value, Mapping):
        fields = {str(name): each for name, each in value.items() if not _is_missing(each)}
        if "prompt" in fields and "clean" not in fields:
            fields["clean"] = fields.pop("prompt")
        labels = {name: fields[name] for name in LABELS if isinstance(fields.get(name), Integral)}
        return fields | {name: str(label) for name, label in labels.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        if len(REQUIRED) <= len(value) <= len(_TUPLE):
            return dict(zip(_TUPLE, value, strict=False))
        raise CorpusError(
            f"{place}: {len(value)} parts; give (prompt, target, foil), or (prompt, target, foil, "
            "corrupt)"
        )
    raise CorpusError(
        f"{place}: {type(value).__name__} is not a prompt with answers; give (prompt, target, foil)"
    )


def _is_missing(value: Any) -> bool:
    """None, or the NaN of a data frame's empty cell."""
    return value is None or (isinstance(value, float) and value != value)
