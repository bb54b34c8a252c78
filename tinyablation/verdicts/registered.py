"""Registered beforehand: predicted verdicts, the heads that claims are about, published figures.

Three TOML files under claims/, all read at test collection, so nothing heavy is imported.

    predictions.toml   "H1.1" = { "*-plain" = "refuted", "tiny-*" = "supported" }
    subjects.toml      [tiny-gpt2]
                       suppressor = "0:5"
    published.toml     [[figure]]
                       claim = "H1.1"
"""

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import date
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, Self, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from tinyablation.errors import TinyAblationError
from tinyablation.files.hashes import text_sha256
from tinyablation.files.toml import read_toml
from tinyablation.heads import Head
from tinyablation.records.records import ALL_CONDITIONS, CONDITIONS
from tinyablation.records.splits import BOTH, CONFIRMATION
from tinyablation.spelling import did_you_mean
from tinyablation.verdicts.verdicts import STATUSES, Status

CLAIM = re.compile(r"[A-Z]+[0-9]*\.[0-9]+[a-z]?")  # H1.1, OV.3
_PATTERN = re.compile(r"[A-Za-z0-9._*?\[\]!-]+")  # the characters of cell ids and of fnmatch
_REGISTERED = "registered"
CHANGED = "changed after"  # begins the reason of a prediction edited after its measurement

Cell = tuple[str, str, str | None]  # claim, model, condition
Model = TypeVar("Model", bound=BaseModel)


class ExpectationError(TinyAblationError):
    """A file of expectations is invalid; the message names file, line, entry and what to do."""


# --- predictions.toml ----------------------------------------------------------------------------


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
    registered, groups = _registered(document.pop(_REGISTERED, {}), _place(path, text, _REGISTERED))
    for key, value in document.items():
        place = _place(path, text, key)
        _check_claim(key, place)
        if not isinstance(value, dict) or not value:
            raise ExpectationError(
                f'{place}: claim {key!r}: give its patterns: {{ "tiny-*" = "supported" }}'
            )
        claims[key] = {}
        for pattern, entry in value.items():
            where = f"{_place(path, text, key, pattern)}: claim {key!r}"
            days = [group.date.isoformat() for group in groups if group.holds(key, pattern)]
            day = days[0] if days else registered.get("date")
            claims[key][pattern] = _prediction(entry, pattern, where)._replace(date=day)
    return Predictions(path, claims, registered, groups)


def _prediction(entry: object, pattern: str, where: str) -> Prediction:
    if not _PATTERN.fullmatch(pattern):
        raise ExpectationError(
            f"{where}: {pattern!r} is not a pattern of model or cell ids; write one such as "
            '"tiny-*"'
        )
    where = f"{where}, {pattern!r}"
    table = {"verdict": entry} if isinstance(entry, str) else entry
    if not isinstance(table, dict):
        raise ExpectationError(f"{where}: {entry!r} is not a verdict; {did_you_mean('', STATUSES)}")
    _refuse_unknown(table, ("verdict", "reason"), where)
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
    _refuse_unknown(value, ("date", "note", "group"), where)
    day, note = value.get("date"), value.get("note", "")
    if day is not None and type(day) is not date:
        raise ExpectationError(f"{where}: date {day!r} is not a date; write it bare: 2025-01-31")
    if not isinstance(note, str):
        raise ExpectationError(f"{where}: note {note!r} is not text")
    tables = value.get("group", [])
    if not isinstance(tables, list):
        raise ExpectationError(f"{where}: write [[{_REGISTERED}.group]], with two brackets")
    groups = tuple(
        _validated(Group, table, f"{where}: group {number}")
        for number, table in enumerate(tables, 1)
    )
    return ({"date": day.isoformat()} if day else {}) | ({"note": note} if note else {}), groups


# --- subjects.toml -------------------------------------------------------------------------------


_TomlHead = Annotated[Head, BeforeValidator(Head.parse)]


class _Heads(BaseModel):
    """Heads that claims are about, and how they were identified."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    suppressor: _TomlHead
    trio: tuple[_TomlHead, ...] = ()
    pair: tuple[_TomlHead, ...] = ()
    receiver: Annotated[int, Field(ge=1, strict=True)] | None = None
    source: Annotated[str, Field(min_length=1)]
    chosen_on: Literal["", "discovery"] = ""
    note: str = ""

    @model_validator(mode="after")
    def _sets_hold_the_suppressor(self) -> Self:
        for name, size in (("trio", 3), ("pair", 2)):
            heads: tuple[Head, ...] = getattr(self, name)
            if heads and (len(set(heads)) != size or len(heads) != size):
                raise ValueError(
                    f"{name} must be {'three' if size == 3 else 'two'} distinct heads, not "
                    f"{len(set(heads))}"
                )
            if heads and self.suppressor not in heads:
                raise ValueError(f"{name} must contain the suppressor {self.suppressor.label}")
        return self

    @property
    def judging(self) -> str:
        """The examples that judge the suppressor: both splits if it was named beforehand.

        One that was chosen by its effects on the discovery split is judged by the other.
        """
        return CONFIRMATION if self.chosen_on else BOTH

    @property
    def heads(self) -> tuple[Head, ...]:
        """Every head named here, repeated if it is named in several places."""
        return (self.suppressor, *self.trio, *self.pair)


class Subject(_Heads):
    """The heads that claims about one model are about, and how they were identified.

    suppressor leads; trio: three distinct heads including the suppressor; pair: two such heads;
    either may be empty. receiver: the layer that a mediated path leads to (default: the middle
    layer). reference: the model with whose named head this one's is compared. claims: other heads
    for single claims, by ledger id, where sources contradict each other.
    """

    reference: Annotated[str, Field(min_length=1)] | None = None
    claims: Mapping[str, _Heads] = Field(default_factory=dict)

    @field_validator("claims")
    @classmethod
    def _claims_are_ids(cls, claims: Mapping[str, _Heads]) -> Mapping[str, _Heads]:
        for claim in claims:
            if not CLAIM.fullmatch(claim):
                raise ValueError(f'{claim!r} is not a claim id; write it quoted, such as "H1.6"')
        return claims

    def for_claim(self, claim: str) -> "Subject":
        """The heads that one claim is about: its own if it has any, else the model's."""
        own = self.claims.get(claim)
        return self if own is None else self.model_copy(update={**dict(own), "claims": {}})


class Subjects(NamedTuple):
    """Subjects by model id."""

    path: Path
    subjects: Mapping[str, Subject]

    def for_model(self, model: str) -> Subject | None:
        """The heads declared for a model; None if there are none."""
        return self.subjects.get(model)

    def check_shape(self, model: str, n_layers: int, n_heads: int) -> None:
        """Raise ExpectationError if the model has no such head or layer as is named for it."""
        found = self.subjects.get(model)
        for each in () if found is None else (found, *found.claims.values()):
            beyond = [
                head.label for head in each.heads if head.layer >= n_layers or head.head >= n_heads
            ]
            # A path may also lead to the stream after the last layer.
            if each.receiver is not None and each.receiver > n_layers:
                beyond.append(f"receiver {each.receiver}")
            if beyond:
                raise ExpectationError(
                    f"{self.path}: model {model!r} has {n_layers} layers of {n_heads} heads, "
                    f"counted from 0, and {beyond[0]} is not among them; name heads of the model "
                    "that was loaded, or load the intended model"
                )


def load_subjects(path: str | Path, models: Collection[str] | None = None) -> Subjects:
    """Read subjects.toml: one table per model id.

    If `models` is given, model ids and references must be among them.
    """
    path = Path(path)
    text, document = read_toml(path, ExpectationError)
    subjects = {}
    for model, table in document.items():
        place = _place(path, text, model)
        if models is not None and model not in models:
            raise ExpectationError(
                f"{place}: {model!r} is not a registered model; {did_you_mean(model, models)}"
            )
        found = _validated(Subject, table, f"{place}: model {model!r}")
        if models is not None and found.reference not in (None, *models):
            raise ExpectationError(
                f"{_place(path, text, model, 'reference')}: model {model!r}: reference "
                f"{found.reference!r} is not a registered model; "
                f"{did_you_mean(found.reference, models)}"
            )
        subjects[model] = found
    return Subjects(path, subjects)


# --- published.toml ------------------------------------------------------------------------------


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

    @model_validator(mode="after")
    def _condition_is_known(self) -> Self:
        known = (*CONDITIONS, ALL_CONDITIONS)
        if self.condition not in known:
            raise ValueError(
                f"{self.condition!r} is not a condition; {did_you_mean(self.condition, known)}"
            )
        return self


class Published(NamedTuple):
    """The published figures, in file order."""

    path: Path
    figures: tuple[Figure, ...]

    def for_claim(self, claim: str) -> list[Figure]:
        """The figures published for a claim, in file order; an empty list if there are none."""
        return [figure for figure in self.figures if figure.claim == claim]


def load_published(path: str | Path) -> Published:
    """Read published.toml: [[figure]] tables, or `figure = [ {...}, ... ]` with one per line."""
    path = Path(path)
    text, document = read_toml(path, ExpectationError)
    _refuse_unknown(document, ("figure",), str(path))
    tables = document.get("figure", [])
    if not isinstance(tables, list):
        raise ExpectationError(f"{_place(path, text, 'figure')}: write [[figure]], not [figure]")
    # tomllib gives no line numbers: a figure starts at its header or at the brace of its line.
    starts = ("[[figure]]", "{")
    begins = [n for n, line in enumerate(text.splitlines(), 1) if line.strip().startswith(starts)]
    figures = []
    for position, table in enumerate(tables):
        place = f"{path}:{begins[position]}" if len(begins) == len(tables) else str(path)
        where = f"{place}: figure {position + 1}"
        figure = _validated(Figure, table, where)
        _check_claim(figure.claim, where)
        figures.append(figure)
    return Published(path, tuple(figures))


# --- common to the three -------------------------------------------------------------------------


def _place(path: Path, text: str, *keys: str) -> str:
    """file:line of nested keys, found by search because tomllib gives no line numbers."""
    found = 0
    for key in keys:
        name = re.escape(key)
        written = re.compile(rf"""(?:["']{name}["']|(?<![\w."'-]){name}(?![\w"'-]))\s*[=\].]""")
        lines: Iterator[tuple[int, str]] = enumerate(text.splitlines(), 1)
        found = next(
            (n for n, line in lines if n >= found and written.search(line.split("#")[0])),
            found,
        )
    return f"{path}:{found}" if found else str(path)


def _check_claim(claim: str, where: str) -> None:
    if not CLAIM.fullmatch(claim):
        raise ExpectationError(
            f'{where}: {claim!r} is not a claim id; write it quoted, such as "H1.1" (letters, '
            "number, dot, number)"
        )


def _validated(kind: type[Model], table: object, where: str) -> Model:
    if not isinstance(table, dict):
        raise ExpectationError(f"{where}: must be a table with {', '.join(kind.model_fields)}")
    _refuse_unknown(table, tuple(kind.model_fields), where)
    try:
        return kind.model_validate(table)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        named = f"field {field!r}: " if field else ""
        raise ExpectationError(f"{where}: {named}{message}") from error


def _refuse_unknown(table: Iterable[str], known: tuple[str, ...], where: str) -> None:
    for key in table:
        if key not in known:
            raise ExpectationError(f"{where}: unknown key {key!r}; {did_you_mean(key, known)}")
