"""Merges sessions of several machines or shards: all cells, including those that disagree.

A model is identified by its id and its weights: if sessions have different weights under one id,
they become separate models, with the first digits of the hash in id and title. A cell on which two
sessions agree (same verdict, head and prediction, figures within the tolerance of drift.py) is
taken once, from the session that began first. A cell on which they disagree is kept from each, with
its source: the page shows them side by side, and neither silently wins. The result does not depend
on the order of the sessions.

Figures are merged as recorded; only the ledger of all tests (false_discovery.py) is recomputed,
because it covers all cells.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from tinyablation.errors import TinyAblationError
from tinyablation.files.hashes import text_sha256
from tinyablation.models.registry import TOLD_APART_DIGITS
from tinyablation.records.records import (
    SCHEMA_VERSION,
    Record,
    RecordFile,
    Session,
    SessionModel,
    Source,
    content_of,
)
from tinyablation.records.trust import NoiseRow
from tinyablation.sessions.drift import ABSOLUTE, RELATIVE
from tinyablation.sessions.false_discovery import multiplicity
from tinyablation.sessions.protocol_comparison import CellKey, cell_key

_FIGURES = ("effect", "low", "high", "floor", "margin", "margin_low", "margin_high", "p_corrected")
_FACTS = ("verdict", "subject", "unit", "prediction")


class MergeError(TinyAblationError):
    """Sessions cannot be merged; the message says which and why."""


class _Sorted(NamedTuple):
    """A session with its sort key and its name."""

    digest: str
    name: str
    file: RecordFile


def merge(files: Sequence[RecordFile]) -> RecordFile:
    """The sessions merged into one; a single session, even if given repeatedly, is unchanged.

    Raises MergeError if there is none, and for sessions of different protocols.
    """
    if not files:
        raise MergeError("there is nothing to merge: give at least one session")
    if len({file.session.protocol for file in files}) > 1:
        raise MergeError(
            "sessions of the corrected and of the published protocol cannot be merged: their "
            "figures are different quantities"
        )
    parts = _named(files)
    if len(parts) == 1:
        return parts[0].file
    parts = _with_unique_models(parts)
    kept: dict[CellKey, list[Record]] = {}
    counts = dict.fromkeys((part.name for part in parts), 0)
    for part in parts:
        for record in part.file.records:
            cells = kept.setdefault(cell_key(record), [])
            if not any(agree(record, other) for other in cells):
                own = record.source and f"{part.name}: {record.source}"
                cells.append(record.model_copy(update={"source": own or part.name}))
                counts[part.name] += 1
    records = _adjusted([record for cells in kept.values() for record in cells])
    sessions = [part.file.session for part in parts]
    together, _ = multiplicity(_with_unique_tests(records))
    return RecordFile(
        schema_version=SCHEMA_VERSION,
        session=Session(
            started=min(session.started for session in sessions),
            finished=_latest(sessions),
            command=_joined(session.command for session in sessions),
            versions=_versions(sessions),
            platform=_joined(session.platform for session in sessions),
            device=_joined(session.device for session in sessions),
            predictions_hash=_joined(session.predictions_hash for session in sessions),
            predictions_commit=_joined(
                session.predictions_commit or "not known" for session in sessions
            ),
            complete=all(session.complete for session in sessions),
            protocol=sessions[0].protocol,
            models=_models(sessions),
            multiplicity=together,
            error_rates=max(
                (session.error_rates for session in sessions if session.error_rates),
                key=lambda rates: (rates.made, rates.version, rates.model_dump_json()),
                default=None,
            ),
            noise=_noise(sessions),
            sources=[_source(part, counts[part.name]) for part in parts],
        ),
        records=records,
    )


def agree(one: Record, other: Record) -> bool:
    """Whether two records of a cell agree, within the tolerance of drift.py."""
    if any(getattr(one, name) != getattr(other, name) for name in _FACTS):
        return False
    return all(_close(getattr(one, name), getattr(other, name)) for name in _FIGURES)


def _close(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, rel_tol=RELATIVE, abs_tol=ABSOLUTE)


def _named(files: Iterable[RecordFile]) -> list[_Sorted]:
    """The distinct sessions in order of their start, named "session 1" and so on."""
    found = {}
    for file in files:
        text = json.dumps(content_of(file), sort_keys=True)
        found[text_sha256(text)] = file
    order = sorted(found, key=lambda digest: (found[digest].session.started, digest))
    return [
        _Sorted(digest, f"session {number}", found[digest])
        for number, digest in enumerate(order, 1)
    ]


def _with_unique_tests(records: Sequence[Record]) -> list[Record]:
    """Records with unique test ids, because two sessions use the same id for one test."""
    return [
        record.model_copy(update={"test": f"{number} {record.test}"})
        for number, record in enumerate(records)
    ]


def _adjusted(records: Sequence[Record]) -> list[Record]:
    named = _with_unique_tests(records)
    _, adjusted = multiplicity(named)
    return [
        record.model_copy(update={"p_adjusted": adjusted.get(name.test)})
        for record, name in zip(records, named, strict=True)
    ]


def _latest(sessions: Sequence[Session]) -> str | None:
    finished = [session.finished for session in sessions]
    return None if None in finished else max(filter(None, finished))


def _joined(texts: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(texts))


def _versions(sessions: Sequence[Session]) -> dict[str, str]:
    names = dict.fromkeys(name for session in sessions for name in session.versions)
    return {
        name: " / ".join(dict.fromkeys(s.versions[name] for s in sessions if name in s.versions))
        for name in names
    }


def _with_unique_models(parts: Sequence[_Sorted]) -> list[_Sorted]:
    """The sessions, with different ids for models that share an id but differ in weights.

    A model whose weights a session does not know keeps its id.
    """
    described = [model for part in parts for model in part.file.session.models]
    hashes: dict[str, set[str]] = {}
    for model in described:
        if model.weight_hash:
            hashes.setdefault(model.id, set()).add(model.weight_hash)

    def apart(model: SessionModel) -> SessionModel:
        weights = model.weight_hash
        if weights is None:
            return model
        digits = weights[:TOLD_APART_DIGITS]
        name = f"{model.id}-{digits}"
        # Second condition: an earlier merge already renamed it.
        if len(hashes[model.id]) == 1 and weights not in hashes.get(name, ()):
            return model
        note = f"Of the models called {model.id}, the one with weights {weights[:12]}."
        return model.model_copy(
            update={
                "id": name,
                "title": f"{model.title} ({digits})",
                "note": " ".join(filter(None, (model.note, note))),
            }
        )

    return [part._replace(file=_renamed(part.file, apart)) for part in parts]


def _renamed(file: RecordFile, apart: Callable[[SessionModel], SessionModel]) -> RecordFile:
    models = {model.id: apart(model) for model in file.session.models}
    ids = {name: model.id for name, model in models.items() if model.id != name}
    if not ids:
        return file
    return file.holding(
        (
            record.model_copy(update={"model": ids.get(record.model, record.model)})
            for record in file.records
        ),
        file.session.model_copy(update={"models": list(models.values())}),
    )


def _models(sessions: Sequence[Session]) -> list[SessionModel]:
    """Each model once, as described by the first session that knows its weights.

    Its competence is also taken from that session.
    """
    described: dict[str, list[SessionModel]] = {}
    for session in sessions:
        for model in session.models:
            described.setdefault(model.id, []).append(model)
    return [
        next((model for model in same if model.weight_hash), same[0]) for same in described.values()
    ]


def _noise(sessions: Sequence[Session]) -> list[NoiseRow]:
    """By device and dtype the largest noise of any session, with the runs of all."""
    rows: dict[tuple[str, str], NoiseRow] = {}
    for session in sessions:
        for row in session.noise:
            other = rows.get((row.device, row.dtype))
            rows[row.device, row.dtype] = row if other is None else _noisier(other, row)
    return [rows[key] for key in sorted(rows)]


def _noisier(one: NoiseRow, other: NoiseRow) -> NoiseRow:
    references = [row.reference for row in (one, other) if row.reference is not None]
    largest: Mapping[str, float | None] = {
        "repeat": max(one.repeat, other.repeat),
        "shape": max(one.shape, other.shape),
        "reference": max(references, default=None),
    }
    return one.model_copy(update={**largest, "runs": one.runs + other.runs})


def _source(part: _Sorted, kept: int) -> Source:
    session = part.file.session
    return Source(
        name=part.name,
        started=session.started,
        finished=session.finished,
        command=session.command,
        versions=session.versions,
        platform=session.platform,
        device=session.device,
        complete=session.complete,
        records=len(part.file.records),
        kept=kept,
    )
