"""Predicted verdicts, registered beforehand: predictions.toml.

One line for each claim, a verdict for each pattern of models; the first that matches decides:

    "H1.1" = { "*-plain" = "refuted", "tiny-*" = "supported" }
"""

import json
import re
from collections.abc import Iterable, Mapping
from datetime import date
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
)

from tinyablation.files.hashes import text_sha256
from tinyablation.files.toml import read_toml
from tinyablation.records.records import ALL_CONDITIONS
from tinyablation.spelling import did_you_mean
from tinyablation.verdicts.expectations import (
    CLAIM,
    ExpectationError,
    check_claim,
    place_of,
    refuse_unknown,
    validated,
)
from tinyablation.verdicts.verdicts import STATUSES, Status

_PATTERN = re.compile(r"[A-Za-z0-9._*?\[\]!-]+")  # the characters of cell ids and of fnmatch
_REGISTERED = "registered"
CHANGED = "changed after"  # begins the reason of a prediction edited after its measurement

Cell = tuple[str, str, str | None]  # claim, model, condition


class Prediction(NamedTuple):
    """The verdict registered for a cell, why ("" if no reason is given), and the day (ISO 8601)."""

    verdict: Status
    reason: str = ""
    date: str | None = None

    @property
    def is_changed(self) -> bool:
        """Whether its reason says that it was edited after the measurement."""
        return self.reason.startswith(CHANGED)


class Group(BaseModel):
    """Predictions that were registered together, on another day than the others of the file.

    models: patterns of predictions' patterns ("smollm2-135m*"); claims: only those of these claims,
    all if empty. elsewhere: fixtures/models.toml need not list the models.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    date: date
    models: Annotated[tuple[str, ...], Field(min_length=1)]
    claims: tuple[str, ...] = ()
    elsewhere: bool = False
    note: str = ""

    def holds(self, claim: str, pattern: str) -> bool:
        """Whether a prediction is of this group."""
        return claim in (self.claims or (claim,)) and any(
            fnmatchcase(pattern, models) for models in self.models
        )


class Predictions(NamedTuple):
    """Registered verdicts: claim -> patterns in file order; the first that matches decides."""

    path: Path
    claims: Mapping[str, Mapping[str, Prediction]]
    registered: Mapping[str, str]
    groups: tuple[Group, ...] = ()

    def for_cell(self, claim: str, model: str, condition: str | None) -> Prediction | None:
        """The prediction for a cell; None if nothing is registered.

        Patterns are matched against "model-condition" and against the model id. If condition is
        None or "all" (a claim that spans conditions), only against the model id.
        """
        pattern = self._deciding(claim, model, condition)
        return None if pattern is None else self.claims[claim][pattern]

    def unused(self, cells: Iterable[Cell]) -> list[tuple[str, str]]:
        """The (claim, pattern) pairs that decide none of the cells."""
        deciding = {(cell[0], self._deciding(*cell)) for cell in cells}
        every = (
            (claim, pattern) for claim, patterns in self.claims.items() for pattern in patterns
        )
        return [entry for entry in every if entry not in deciding]

    def is_elsewhere(self, claim: str, pattern: str) -> bool:
        """Whether a prediction is about models that this project does not list."""
        return any(group.elsewhere and group.holds(claim, pattern) for group in self.groups)

    @property
    def content_hash(self) -> str:
        """sha256 (64 hex digits) of what is registered, ignoring newlines, comments and layout."""
        claims = {
            claim: [[pattern, *prediction] for pattern, prediction in self.claims[claim].items()]
            for claim in sorted(self.claims)
        }
        content = {"claims": claims, _REGISTERED: dict(sorted(self.registered.items()))}
        return text_sha256(json.dumps(content, ensure_ascii=False))

    def _deciding(self, claim: str, model: str, condition: str | None) -> str | None:
        names = [model]
        if condition not in (None, ALL_CONDITIONS):
            names.append(f"{model}-{condition}")
        for pattern in self.claims.get(claim, ()):
            if any(fnmatchcase(name, pattern) for name in names):
                return pattern
        return None


def load_predictions(path: str | Path) -> Predictions:
    """Read predictions.toml: claim id = { pattern = verdict, or { verdict, reason } }.

    An optional table `registered` says when and by whom: date, note; [[registered.group]] tables
    do for predictions of other days.
    """
    path = Path(path)
    text, document = read_toml(path, ExpectationError)
    claims: dict[str, dict[str, Prediction]] = {}
    registered, groups = _registered(
        document.pop(_REGISTERED, {}), place_of(path, text, _REGISTERED)
    )
    for key, value in document.items():
        place = place_of(path, text, key)
        check_claim(key, place)
        if not isinstance(value, dict) or not value:
            raise ExpectationError(
                f'{place}: claim {key!r}: give its patterns: {{ "tiny-*" = "supported" }}'
            )
        claims[key] = {}
        for pattern, entry in value.items():
            where = f"{place_of(path, text, key, pattern)}: claim {key!r}"
            days = [group.date.isoformat() for group in groups if group.holds(key, pattern)]
            day = days[0] if days else registered.get("date")
            claims[key][pattern] = _prediction(entry, pattern, where)._replace(date=day)
    return Predictions(path, claims, registered, groups)


def _prediction(entry: object, pattern: str, where: str) -> Prediction:
    if not _PATTERN.fullmatch(pattern):
        raise ExpectationError(
            f"{where}: {pattern!r} is not a pattern of model or test case ids; write one such as "
            '"tiny-*"'
        )
    where = f"{where}, {pattern!r}"
    table = {"verdict": entry} if isinstance(entry, str) else entry
    if not isinstance(table, dict):
        raise ExpectationError(f"{where}: {entry!r} is not a verdict; {did_you_mean('', STATUSES)}")
    refuse_unknown(table, ("verdict", "reason"), where)
    verdict, reason = table.get("verdict"), table.get("reason", "")
    if not isinstance(reason, str):
        raise ExpectationError(f"{where}: reason {reason!r} is not text")
    for status in STATUSES:
        if verdict == status:
            return Prediction(status, reason)
    if verdict is None:
        raise ExpectationError(f"{where}: no verdict; {did_you_mean('', STATUSES)}")
    raise ExpectationError(
        f"{where}: {verdict!r} is not a verdict; {did_you_mean(verdict, STATUSES)}"
    )


def _registered(value: object, place: str) -> tuple[dict[str, str], tuple[Group, ...]]:
    """When, and the groups of other days."""
    where = f"{place}: [{_REGISTERED}]"
    if not isinstance(value, dict):
        raise ExpectationError(f"{where} must be a table with date and note")
    for key in value:
        if CLAIM.fullmatch(key):
            raise ExpectationError(
                f"{where} holds claim {key!r}: in TOML a line belongs to the table above it; put "
                f"[{_REGISTERED}] at the end of the file"
            )
    refuse_unknown(value, ("date", "note", "group"), where)
    day, note = value.get("date"), value.get("note", "")
    if day is not None and type(day) is not date:
        raise ExpectationError(f"{where}: date {day!r} is not a date; write it bare: 2025-01-31")
    if not isinstance(note, str):
        raise ExpectationError(f"{where}: note {note!r} is not text")
    tables = value.get("group", [])
    if not isinstance(tables, list):
        raise ExpectationError(f"{where}: write [[{_REGISTERED}.group]], with two brackets")
    groups = tuple(
        validated(Group, table, f"{where}: group {number}")
        for number, table in enumerate(tables, 1)
    )
    return ({"date": day.isoformat()} if day else {}) | ({"note": note} if note else {}), groups
