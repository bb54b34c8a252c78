"""The data file of a session: one record per claim, model and condition, and its provenance.

Written once per session as `records.json` (everything) and `records.parquet` (one row per record,
for notebooks); the report is a pure function of it. All values are plain JSON (see
tinyablation/records/plain.py).
"""

import json
import os
import re
import shlex
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    Field,
    JsonValue,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from tinyablation.files.contents import read_bytes
from tinyablation.files.manifests import write_together
from tinyablation.records.conditions import ALL_CONDITIONS as ALL_CONDITIONS
from tinyablation.records.conditions import CONDITIONS as CONDITIONS
from tinyablation.records.criteria import Criterion
from tinyablation.records.error_rates import ErrorRates
from tinyablation.records.panels import Panel
from tinyablation.records.parquet import from_json, from_parquet, to_parquet
from tinyablation.records.plain import Count, Number, Plain, RecordError, plain
from tinyablation.records.prompts import Extreme as Extreme
from tinyablation.records.trust import (
    BackendCheck,
    Boundary,
    Multiplicity,
    Multiverse,
    NoiseRow,
    Screened,
)

# 2: protocols, panels, and published figures with unit, interval and quantity.
# 3: robustness of a verdict, multiplicity, changed predictions, error rates, noise by device.
# 4: the verdict "present", margins, accepted verdicts, the date of a prediction, a model's repo.
SCHEMA_VERSION = 4
# Schemas 2 and 3 can be read too, because every field added since is optional: an older report can
# serve as a baseline.
READABLE = (2, 3, SCHEMA_VERSION)

Verdict = Literal["supported", "present", "refuted", "inconclusive", "blocked", "error"]
Prediction = Literal["supported", "present", "refuted", "inconclusive", "blocked"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
JUDGED: tuple[Verdict, ...] = ("supported", "present", "refuted", "inconclusive")
Outcome = Literal["passed", "xfailed", "failed", "skipped", "error"]
# How a session measured: as this project does, or as the published study did.
ProtocolName = Literal["corrected", "published"]
PROTOCOLS: tuple[ProtocolName, ...] = get_args(ProtocolName)


class PublishedFigure(Plain):
    """One published figure to show beside a measured one.

    low and high are its published interval, if there is one. quantity says which figure of a record
    to compare it with: "effect", or the name of a detail ("effects/0:4": the entry "0:4" of the
    detail "effects").
    """

    model: str
    condition: str
    value: Number | str
    unit: str = ""
    low: Number | None = None
    high: Number | None = None
    quantity: str = "effect"
    source: str


class Heatmap(Plain):
    """Mean change of the logit difference by head: `values[layer][head]`; None: not measured."""

    values: list[list[Number | None]]
    title: str

    @model_validator(mode="after")
    def _is_rectangular(self) -> Self:
        if len({len(row) for row in self.values}) > 1:
            raise ValueError("every layer of a heatmap must have as many heads as the others")
        return self

    @property
    def layers(self) -> list[str]:
        """The names of its rows."""
        return [str(layer) for layer in range(len(self.values))]

    @property
    def heads(self) -> list[str]:
        """The names of its columns."""
        return [str(head) for head in range(len(self.values[0]) if self.values else 0)]


class Record(Plain):
    """The result of one claim for one model under one condition."""

    LATER = frozenset({"criteria", "p_test", "audit"})

    claim: str = Field(description="ledger id, such as H1.1")
    family: str = Field(description="hypothesis family, such as H1")
    test: str = Field(description="pytest node id")
    name: str = Field(description="name of the test, with its class and other parameters")
    statement: str = Field(description="the claim, one sentence")
    estimator: str = Field(description="what is measured, and how")
    threshold: str = Field(description="when the claim counts as supported")
    refuted_if: str = Field(description="what would refute the claim")
    audit: str = Field(default="", description="audit columns that the claim declares filled")
    model: str = Field(description="model id of the registry")
    condition: str = Field(description="corpus condition; 'all' when the claim spans them")
    protocol: ProtocolName = Field(
        default="corrected", description="how it was measured: corrected or published"
    )
    verdict: Verdict = Field(description=f"one of {', '.join(VERDICTS)}")
    reason: str = Field(description="why this verdict, in words")
    prediction: Prediction | None = Field(default=None, description="verdict registered beforehand")
    predicted_on: str | None = Field(
        default=None, description="date on which the prediction was registered"
    )
    accepted: Prediction | None = Field(
        default=None, description="verdict last accepted here, in its model's baseline"
    )
    outcome: Outcome = Field(description="what pytest made of it")
    effect: Number | None = Field(default=None, description="point estimate, in `unit`")
    low: Number | None = Field(
        default=None, description="lower end of the 95 % interval, in `unit`"
    )
    high: Number | None = Field(
        default=None, description="upper end of the 95 % interval, in `unit`"
    )
    floor: Number | None = Field(default=None, description="smallest effect that counts, in `unit`")
    margin: Number | None = Field(
        default=None, description="effect beyond the floor by example, estimate, in `unit`"
    )
    margin_low: Number | None = Field(
        default=None, description="lower end of the margin's 95 % interval, in `unit`"
    )
    margin_high: Number | None = Field(
        default=None, description="upper end of the margin's 95 % interval, in `unit`"
    )
    p_corrected: Number | None = Field(
        default=None, ge=0, le=1, description="a p that the claim asks for beside the interval"
    )
    p_test: str = Field(default="", description="the test that p_corrected is of")
    unit: str = Field(default="", description="unit of effect, low, high and floor")
    n_examples: Count | None = Field(default=None, description="examples judged on")
    n_clusters: Count | None = Field(default=None, description="independent clusters among them")
    subject: str | None = Field(default=None, description="the head or heads, layer:head")
    published: list[PublishedFigure] = Field(default=[], description="figures of the literature")
    details: dict[str, JsonValue] = Field(default={}, description="further figures of this claim")
    heatmap: Heatmap | None = Field(default=None, description="effect of each head, layer x head")
    criteria: list[Criterion] = Field(default=[], description="each figure beside its threshold")
    largest: list[Extreme] = Field(default=[], description="prompts with the largest effects")
    panels: list[Panel] = Field(default=[], description="token tables and curves of this claim")
    runs: list[str] = Field(default=[], description="run directories measured or reused")
    source: str | None = Field(
        default=None, description="which of the merged sessions it is from; null: not merged"
    )
    drift: str | None = Field(default=None, description="how figures differ from their snapshot")
    p_value: Number | None = Field(
        default=None, ge=0, le=1, description="p of the whole claim, for the session's ledger"
    )
    p_adjusted: Number | None = Field(
        default=None, ge=0, le=1, description="p_value, adjusted over all tests of the session"
    )
    prediction_changed: str | None = Field(
        default=None, description="how the prediction was changed after its measurement existed"
    )
    multiverse: Multiverse | None = Field(
        default=None, description="the verdict under other analyses"
    )
    boundary: Boundary | None = Field(
        default=None, description="prompts on which the supported claim fails"
    )
    backends: list[BackendCheck] = Field(
        default=[], description="the effect measured on a sample without the engine"
    )
    screened: list[Screened] = Field(
        default=[], description="sweeps it rests on that measured some heads only"
    )
    scope: str = Field(
        default="", description="what the verdict generalises over, and what it is conditional on"
    )
    options: list[str] = Field(
        default=[], description="options of the session that running this test case again takes"
    )
    duration_s: Number = Field(default=0.0, ge=0, description="duration of the test, seconds")

    @property
    def command(self) -> str:
        """The shell command that reruns this test case."""
        asked = self.screened[0].asked if self.screened else None
        return rerun_command(self.test, self.protocol, self.options, screen=asked)


def rerun_command(
    test: str, protocol: ProtocolName, options: Sequence[str], *, screen: str | None
) -> str:
    """The shell command that runs one test case alone. screen: the value of --screen or None."""
    chosen = [] if protocol == "corrected" else ["--protocol", protocol]
    if screen is not None:
        chosen += ["--screen", screen]
    return shlex.join(["pytest", test, *chosen, *options])


class Competence(Plain):
    """How well the unhooked model does on one kind of example (a truth x operator cell)."""

    n: Count
    accuracy: Annotated[Number, Field(ge=0, le=1)]
    ld: Number


class SessionModel(Plain):
    """A model of the session (repo: of the hub, if it is there), and its competence unhooked."""

    LATER = frozenset({"repo"})

    id: str
    title: str
    family: str
    variant: str
    repo: str | None = None
    note: str = ""
    weight_hash: str | None = None
    competence: dict[str, dict[str, Competence]] = Field(default={})
    below_floor: list[str] = Field(default=[])


class Source(Plain):
    """One of the sessions merged into another. name: how records refer to it.

    records: number of its cells; kept: how many of them are shown as its own (the others agree with
    a cell of an earlier source).
    """

    name: str
    started: str
    finished: str | None = None
    command: str
    versions: dict[str, str]
    platform: str
    device: str
    complete: bool
    records: Count
    kept: Count


class Session(Plain):
    """The provenance of the records. Times are UTC, ISO 8601."""

    started: str
    finished: str | None = None
    command: str
    versions: dict[str, str]
    platform: str
    device: str
    predictions_hash: str
    predictions_commit: str | None = Field(
        default=None, description="git commit that last changed the predictions; null: not known"
    )
    complete: bool
    protocol: ProtocolName = "corrected"
    models: list[SessionModel] = Field(default=[])
    multiplicity: Multiplicity | None = None
    error_rates: ErrorRates | None = None
    noise: list[NoiseRow] = Field(default=[])
    sources: list[Source] = Field(default=[])  # of a merged session; see merging.py

    @field_validator("started", "finished")
    @classmethod
    def _is_utc(cls, text: str | None) -> str | None:
        if text is not None and datetime.fromisoformat(text).utcoffset() != timedelta(0):
            raise ValueError(f"{text!r} is not in UTC; write 2025-01-31T12:00:00+00:00")
        return text

    @property
    def duration_s(self) -> float | None:
        """Seconds from start to finish; None if the session has not finished."""
        if self.finished is None:
            return None
        began, ended = map(datetime.fromisoformat, (self.started, self.finished))
        return (ended - began).total_seconds()


class RecordFile(Plain):
    """All records of one session, in their canonical order, however they were given.

    By claim, test, model (in the session's order) and condition: workers finish in any order.
    """

    schema_version: int = SCHEMA_VERSION
    session: Session
    records: list[Record] = Field(default=[])

    @field_validator("records")
    @classmethod
    def _in_order(cls, records: list[Record], info: ValidationInfo) -> list[Record]:
        session = info.data.get("session")
        if session is None:  # it is not valid, and said to be so
            return records
        models = {model.id: rank for rank, model in enumerate(session.models)}
        conditions = {name: rank for rank, name in enumerate(CONDITIONS)}

        def key(record: Record) -> tuple[Any, ...]:
            return (
                claim_order(record.claim),
                record.name,
                models.get(record.model, len(models)),
                record.model,
                conditions.get(record.condition, len(conditions)),
                record.condition,
                record.test,
                record.source or "",
            )

        return sorted(records, key=key)

    def holding(self, records: Iterable[Record], session: Session | None = None) -> Self:
        """The same session, or another description of it, with these records, put in order."""
        about = session or self.session
        return type(self)(schema_version=self.schema_version, session=about, records=list(records))


def claim_order(claim: str) -> tuple[Any, ...]:
    """Sort key of ledger ids: validity first, then by letters and number (H1.2 before H1.10)."""
    parts = re.findall(r"\d+|\D+", claim)
    numbered = tuple((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts)
    return (not claim.upper().startswith("V"), numbered)


NESTED = (
    "published",
    "details",
    "heatmap",
    "criteria",
    "largest",
    "panels",
    "runs",
    "multiverse",
    "boundary",
    "backends",
    "screened",
    "options",
)


_NUMBERS = (
    *("effect", "low", "high", "floor", "margin", "margin_low", "margin_high"),
    *("p_corrected", "p_value", "p_adjusted", "duration_s"),
)
_COUNTS = ("n_examples", "n_clusters")


def content_of(file: RecordFile) -> dict[str, Any]:
    """The content of a records.json: plain values."""
    content: dict[str, Any] = plain(file, "records")
    return content


def write_records(file: RecordFile, folder: Path) -> tuple[Path, Path]:
    """Write `records.json` and `records.parquet` under `folder`; returns their paths.

    Both are complete before either replaces an older file, and each replacement is atomic. In the
    Parquet file nested fields (NESTED) are JSON text, each column has a description in its
    metadata, and the table's metadata holds schema_version and session (JSON). Raises RecordError
    for values that cannot be recorded.
    """
    content = content_of(file)
    text = json.dumps(content, allow_nan=False, ensure_ascii=False, indent=1) + "\n"
    descriptions = {
        name: f"{field.description}{' (JSON)' if name in NESTED else ''}"
        for name, field in Record.model_fields.items()
    }
    fields = Record.model_fields
    later = {name: fields[name].default for name in fields if name in Record.LATER}
    rows = content | {"records": [later | row for row in content["records"]]}
    table = to_parquet(rows, descriptions, nested=NESTED, numbers=_NUMBERS, counts=_COUNTS)
    as_json, as_parquet = folder / "records.json", folder / "records.parquet"
    try:
        write_together(
            {
                as_json: lambda stream: stream.write(text.encode("utf-8")),
                as_parquet: lambda stream: stream.write(table),
            }
        )
    except OSError as error:
        raise RecordError(f"the records cannot be written: {error}") from error
    return as_json, as_parquet


def read_records(path: Path) -> RecordFile:
    """The session in `path`: records.json, records.parquet, or a folder that holds records.json.

    Raises RecordError, which names the file and the cause, if it is missing, broken or of a schema
    that this version cannot read.
    """
    if os.path.isdir(path):  # False, not an error, for a name that is too long
        path = path / "records.json"
    try:
        data = read_bytes(path)
        is_table = path.suffix == ".parquet"
        content = from_parquet(data, NESTED) if is_table else from_json(data)
    except OSError as error:
        raise RecordError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError) as error:
        raise RecordError(f"{path}: is not a record file: {error}") from error
    return _validated(content, path)


def parse_records(data: bytes, path: Path) -> RecordFile:
    """The session in the bytes of a records.json; `path` is their origin, for error messages.

    Raises RecordError, as read_records does.
    """
    try:
        content = from_json(data)
    except ValueError as error:
        raise RecordError(f"{path}: is not a record file: {error}") from error
    return _validated(content, path)


def _validated(content: Any, path: Path) -> RecordFile:
    version = content.get("schema_version") if isinstance(content, dict) else None
    if type(version) is not int:
        raise RecordError(f"{path}: has no schema_version: it is not a record file")
    if version not in READABLE:
        age = "newer" if version > SCHEMA_VERSION else "older"
        raise RecordError(
            f"{path}: is of the {age} schema {version}, this program reads {SCHEMA_VERSION}: "
            "read it with the version of tinyablation that wrote it"
        )
    try:
        return RecordFile.model_validate(content)
    except RecordError as error:
        raise RecordError(f"{path}: {error}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise RecordError(f"{path}: field {field}: {first['msg']}{more}") from error
