"""Changes between two sessions over the same cells: verdicts, effects and circumstances.

A cell is one test of a claim, for one model under one condition. The sessions are compared as
recorded; nothing is measured or printed here.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from tinyablation.errors import TinyAblationError
from tinyablation.records.plain import plain
from tinyablation.records.records import Record, RecordFile, Session, SessionModel
from tinyablation.sessions.protocol_comparison import CellKey, cell_key, disputed
from tinyablation.spelling import counted

# When a figure counts as unchanged, also for snapshots. Another machine's matrix library sums in
# another order: between one thread and many, or two instruction sets, effects of fp32 models move
# by up to some 1e-5 nats, a few 1e-4 of a small effect. 1e-3 of a value, or 1e-4 of a nat (2 % of
# the smallest effect floor), is above that noise and far below any difference a claim is about.
RELATIVE = 1e-3
ABSOLUTE = 1e-4

# Fields that always differ between sessions, or are compared separately; the rest (device,
# platform, and fields of later schemas) describes how a session was measured.
_OWN_WAY = frozenset({"versions", "models", "protocol", "predictions_hash", "predictions_commit"})
_EPHEMERAL = frozenset({"started", "finished", "command", "complete", "sources"})
# Results, not circumstances.
_FOUND = frozenset({"multiplicity", "error_rates", "noise"})
# Fields of a model about how it is shown, or about results.
_NOT_WEIGHTS = frozenset({"id", "title", "family", "variant", "note", "competence", "below_floor"})


class DriftError(TinyAblationError):
    """Two sessions cannot be compared; the message says why."""


class Cell(NamedTuple):
    """One cell in both sessions."""

    before: Record
    after: Record

    @property
    def verdict_changed(self) -> bool:
        """Whether the verdicts differ."""
        return self.before.verdict != self.after.verdict

    @property
    def effect_differs(self) -> bool:
        """Whether the effects differ by more than the tolerance, or in their unit.

        An effect that appeared or disappeared counts only if the verdict is unchanged, because a
        blocked cell has no effect.
        """
        old, new = self.before.effect, self.after.effect
        if old is None or new is None:
            return old is not new and not self.verdict_changed
        if self.before.unit != self.after.unit:
            return True
        return not math.isclose(old, new, rel_tol=RELATIVE, abs_tol=ABSOLUTE)

    @property
    def effect_moved(self) -> bool:
        """Whether they differ and neither lies in the other's 95 % interval."""
        if not self.effect_differs:
            return False
        if self.before.unit != self.after.unit:
            return True  # figures in different units cannot be compared
        return not (
            _within(self.after.effect, self.before) or _within(self.before.effect, self.after)
        )


class Change(NamedTuple):
    """One changed fact about a session or about one of its models."""

    what: str  # "device", "torch", "weight_hash"
    before: str | None  # None: not given
    after: str | None
    model: str | None = None  # None: of the whole session

    @property
    def label(self) -> str:
        """Its name for a reader: "weights" for "weight_hash"."""
        return "weights" if self.what == "weight_hash" else self.what.replace("_", " ")


class Remeasured(NamedTuple):
    """A model whose cells rest on runs with other addresses than before.

    The address of a run covers everything it depends on (weights, tokenizer, corpus, engine, dtype,
    device kind, seed), so at least one of these has changed.
    """

    model: str
    cells: int
    of: int  # cells in both sessions that name their runs


@dataclass(frozen=True, slots=True)
class Drift:
    """All differences between two sessions; lists are in the order of the report."""

    before: Session
    after: Session
    n_common: int  # cells in both sessions
    verdicts: list[Cell]
    moved: list[Cell]  # effects beyond tolerance and outside each other's interval
    shifted: list[Cell]  # effects beyond tolerance, but within an interval
    subjects: list[Cell]  # about other heads than before
    predictions: list[Cell]  # with another registered verdict
    added: list[Record]
    gone: list[Record]
    circumstances: list[Change]  # versions, device, predictions file, weights of models
    remeasured: list[Remeasured]
    unhashed: list[str]  # models whose weights one of the sessions does not identify
    disputed: list[CellKey]  # cells left out: merged sessions disagree on them

    @property
    def nothing(self) -> bool:
        """Whether neither results nor circumstances differ."""
        return not (
            self.verdicts
            or self.moved
            or self.shifted
            or self.subjects
            or self.predictions
            or self.added
            or self.gone
            or self.circumstances
            or self.remeasured
        )

    @property
    def partial(self) -> list[str]:
        """Which of the sessions did not finish: "earlier", "later"."""
        sessions = (("earlier", self.before), ("later", self.after))
        return [name for name, session in sessions if not session.complete]


def compare_sessions(before: RecordFile, after: RecordFile) -> Drift:
    """The cells and circumstances of `after` against those of `before`.

    Cells on which the sources of a merged session disagree are left out. Raises DriftError if the
    two sessions have different protocols, whose figures are different quantities, or if a session
    that is not merged holds a cell twice.
    """
    if before.session.protocol != after.session.protocol:
        raise DriftError(
            f"the sessions cannot be compared: the earlier is of the {before.session.protocol} "
            f"protocol, the later of the {after.session.protocol} one. Give two of the same"
        )
    left_out = disputed(before) | disputed(after)
    old, new = _by_cell(before, "earlier", left_out), _by_cell(after, "later", left_out)
    common = [Cell(old[key], record) for key, record in new.items() if key in old]
    differing = [cell for cell in common if cell.effect_differs]
    seen = {record.model for record in (*before.records, *after.records)}
    hashed, unhashed = _model_changes(before.session, after.session, seen)
    return Drift(
        before=before.session,
        after=after.session,
        n_common=len(common),
        verdicts=[cell for cell in common if cell.verdict_changed],
        moved=[cell for cell in differing if cell.effect_moved],
        shifted=[cell for cell in differing if not cell.effect_moved],
        subjects=[cell for cell in common if _both_differ(cell.before.subject, cell.after.subject)],
        predictions=[cell for cell in common if cell.before.prediction != cell.after.prediction],
        added=[record for key, record in new.items() if key not in old],
        gone=[record for key, record in old.items() if key not in new],
        circumstances=[*_session_changes(before.session, after.session), *hashed],
        remeasured=_remeasured(common),
        unhashed=unhashed,
        disputed=sorted(left_out),
    )


def within(before: RecordFile, after: RecordFile) -> RecordFile:
    """`before` restricted to the cells of `after`.

    For a session of selected cells, whose other cells must not count as removed.
    """
    keys = set(map(cell_key, after.records))
    kept = [record for record in before.records if cell_key(record) in keys]
    return before.holding(kept)


def summary(drift: Drift) -> str:
    """One or two sentences: "3 of 120 test cases changed their verdict, 2 effects moved, …"."""
    if drift.nothing:
        return (
            f"Nothing changed: {counted(drift.n_common, 'test case')} with the same verdicts and "
            "predictions, effects within tolerance, measured with the same."
        )
    if drift.n_common:
        n = len(drift.verdicts)
        many = f"{n or 'None'} of {counted(drift.n_common, 'test case')}"
        parts = [f"{many} changed {'its' if n < 2 else 'their'} verdict"]
    else:
        parts = ["No test case is in both sessions"]
    if drift.moved:
        parts.append(f"{counted(len(drift.moved), 'effect')} moved")
    elif drift.n_common:
        parts.append("no effect moved")
    if drift.shifted:
        n = len(drift.shifted)
        parts.append(
            f"{counted(n, 'effect')} shifted within {'its' if n == 1 else 'their'} interval"
        )
    for cells, what in (
        (drift.subjects, "about another head"),
        (drift.predictions, "predicted otherwise"),
        (drift.added, "new"),
        (drift.gone, "gone"),
    ):
        if cells:
            parts.append(f"{counted(len(cells), 'test case')} {_are(len(cells))} {what}")
    said = ", ".join(parts) + "."
    causes = [
        change.label if change.model is None else f"{change.label} of {change.model}"
        for change in drift.circumstances
    ]
    if drift.remeasured:
        causes.append(f"the runs measured ({', '.join(row.model for row in drift.remeasured)})")
    return f"{said} What differs beside: {', '.join(causes)}." if causes else said


def _by_cell(file: RecordFile, which: str, left_out: set[CellKey]) -> dict[CellKey, Record]:
    found = [record for record in file.records if cell_key(record) not in left_out]
    twice = [key for key, n in Counter(map(cell_key, found)).items() if n > 1]
    if twice:
        name, claim, model, condition = min(twice)
        raise DriftError(
            f"the sessions cannot be compared: the {which} holds {claim} {name} twice for {model}, "
            f"{condition}"
        )
    return {cell_key(record): record for record in found}


def _within(value: float | None, record: Record) -> bool:
    if value is None or record.low is None or record.high is None:
        return False
    return record.low <= value <= record.high


def _both_differ(old: str | None, new: str | None) -> bool:
    return None not in (old, new) and old != new


def _session_changes(before: Session, after: Session) -> list[Change]:
    changes = list(_differences(before.versions, after.versions))
    fields = sorted(set(type(before).model_fields) - _OWN_WAY - _EPHEMERAL - _FOUND)
    changes += _differences(_facts(before, fields), _facts(after, fields))
    predictions = (before.predictions_hash, after.predictions_hash)
    if predictions[0] != predictions[1]:
        changes.append(Change("predictions file", *predictions))
    return changes


def _model_changes(
    before: Session, after: Session, seen: set[str]
) -> tuple[list[Change], list[str]]:
    """Changed facts of each model that both sessions have cells of, and models without a hash.

    A fact that one of the sessions does not give is not a change.
    """
    old = {model.id: model for model in before.models}
    changes: list[Change] = []
    unhashed = []
    for model in after.models:
        if model.id not in old or model.id not in seen:
            continue
        if model.weight_hash is None or old[model.id].weight_hash is None:
            unhashed.append(model.id)
        fields = sorted(set(type(model).model_fields) - _NOT_WEIGHTS)
        changes += [
            change._replace(model=model.id)
            for change in _differences(_facts(old[model.id], fields), _facts(model, fields))
            if None not in (change.before, change.after)
        ]
    return changes, unhashed


def _facts(thing: Session | SessionModel, fields: Iterable[str]) -> dict[str, str]:
    """Fields as text, with one entry per key of a mapping; fields that are None are left out."""
    found: dict[str, Any] = {}
    for field in fields:
        value = getattr(thing, field)
        if isinstance(value, Mapping):
            found |= {f"{field} {key}": each for key, each in value.items()}
        else:
            found[field] = value
    return {
        name: value if isinstance(value, str) else _as_json(value)
        for name, value in found.items()
        if value is not None
    }


def _as_json(value: Any) -> str:
    return json.dumps(plain(value), ensure_ascii=False, sort_keys=True)


def _differences(old: Mapping[str, str], new: Mapping[str, str]) -> list[Change]:
    return [
        Change(name, old.get(name), new.get(name))
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]


def _remeasured(common: Iterable[Cell]) -> list[Remeasured]:
    measured: Counter[str] = Counter()
    changed: Counter[str] = Counter()
    for before, after in common:
        if before.runs and after.runs:
            measured[after.model] += 1
            changed[after.model] += set(before.runs) != set(after.runs)
    return [
        Remeasured(model, changed[model], of) for model, of in measured.items() if changed[model]
    ]


def _are(n: int) -> str:
    return "is" if n == 1 else "are"
