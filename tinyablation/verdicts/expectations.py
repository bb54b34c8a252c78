"""What the files under claims/ have in common: their error, claim ids, and places in them.

They are read at test collection, so nothing heavy is imported.
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from pydantic import (
    BaseModel,
    ValidationError,
)

from tinyablation.errors import TinyAblationError
from tinyablation.spelling import did_you_mean

CLAIM = re.compile(r"[A-Z]+[0-9]*\.[0-9]+[a-z]?")  # H1.1, OV.3
Model = TypeVar("Model", bound=BaseModel)


class ExpectationError(TinyAblationError):
    """A file of expectations is invalid; the message names file, line, entry and what to do."""


def place_of(path: Path, text: str, *keys: str) -> str:
    """file:line of nested keys, found by search because tomllib gives no line numbers."""
    found = 0
    for key in keys:
        name = re.escape(key)
        written = re.compile(rf"""(?:["']{name}["']|(?<![\w."'-]){name}(?![\w"'-]))\s*[=\].]""")
        lines: Iterator[tuple[int, str]] = enumerate(text.splitlines(), 1)
        found = next(
            (
                n
                for n, line in lines
                # Whether the key occurs at all is seen soon, in a line of any length.
                if n >= found and key in line and written.search(line.split("#")[0])
            ),
            found,
        )
    return f"{path}:{found}" if found else str(path)


def check_claim(claim: str, where: str) -> None:
    if not CLAIM.fullmatch(claim):
        raise ExpectationError(
            f'{where}: {claim!r} is not a claim id; write it quoted, such as "H1.1" (letters, '
            "number, dot, number)"
        )


def validated(kind: type[Model], table: object, where: str) -> Model:
    if not isinstance(table, dict):
        raise ExpectationError(f"{where}: must be a table with {', '.join(kind.model_fields)}")
    refuse_unknown(table, tuple(kind.model_fields), where)
    try:
        return kind.model_validate(table)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        named = f"field {field!r}: " if field else ""
        raise ExpectationError(f"{where}: {named}{message}") from error


def refuse_unknown(table: Iterable[str], known: tuple[str, ...], where: str) -> None:
    for key in table:
        if key not in known:
            raise ExpectationError(f"{where}: unknown key {key!r}; {did_you_mean(key, known)}")
