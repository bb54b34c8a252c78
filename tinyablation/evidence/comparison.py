"""A recorded session beside what its evidence gives: which statements differ, which nobody checked.

Everything in a record is compared but its duration. What the evidence cannot show is listed: what
a bundle says of it is its author's word.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from tinyablation.models.devices import kind_of
from tinyablation.records.plain import plain
from tinyablation.records.records import Record, RecordFile, Session
from tinyablation.sessions.differences import differences
from tinyablation.sessions.false_discovery import multiplicity
from tinyablation.verdicts.outcomes import outcome_of

# Compared by their own rules below, or, like the duration, of no consequence.
_APART = frozenset(
    (
        *("accepted", "drift", "outcome", "prediction_changed", "multiverse", "boundary"),
        *("options", "p_adjusted", "source", "duration_s"),
    )
)
_LABELS = ("claim", "model", "condition")
_MOST = 300  # characters of a line that says what differs


class Rederived(NamedTuple):
    """One cell, as recorded and as rederived from the evidence.

    baseline: whether the checkout keeps accepted verdicts of the model; registered: whether cells
    of the model have predictions; named: whether no registry lists the model.
    """

    recorded: Record
    derived: Record
    baseline: bool = True
    registered: bool = True
    named: bool = False

    @property
    def labels(self) -> dict[str, str]:
        """Claim, model and condition, as the test and the evidence give them."""
        return {name: getattr(self.derived, name) for name in _LABELS}

    @property
    def differences(self) -> list[str]:
        """One line for each field or figure that differs: its key, what was recorded, what is."""
        was, now = compared(self.recorded), compared(self.derived)
        if not was.get("criteria"):  # an earlier version wrote it, and neither of the others
            was |= {name: now[name] for name in ("criteria", "p_test", "audit")}
        found = differences(was, now)
        return [_cut(str(each)) for each in found] + [
            _cut(f"{name}: was {was!r}, now {now!r}") for name, was, now in self._standing()
        ]

    def _standing(self) -> Iterator[tuple[str, object, object]]:
        """How the verdict stands to what was known before, where it is not as recorded."""
        was, now = self.recorded, self.derived
        if not self.baseline and was.accepted is not None:
            wanted = outcome_of(
                was.verdict,
                accepted=was.accepted,
                prediction=was.prediction,
                drifted=was.drift is not None,
                screened=bool(was.screened),
                registered=self.registered,
            )
            # A cell that was blocked before it was judged is skipped, whatever was accepted.
            if was.outcome != wanted and (was.verdict, was.outcome) != ("blocked", "skipped"):
                yield "outcome", was.outcome, wanted
        else:
            for name in ("accepted", "drift", "outcome"):
                if getattr(was, name) != getattr(now, name):
                    yield name, getattr(was, name), getattr(now, name)
        # What a bundle says beyond the prediction's own words rests on its author's earlier runs.
        if not (was.prediction_changed or "").startswith(now.prediction_changed or ""):
            yield "prediction_changed", was.prediction_changed, now.prediction_changed
        options, own = _without_device(was.options), _without_device(now.options)
        devices = {kind_of(device) for device in _devices(was.options)}
        if not self.named and (options != own or not devices <= {"cpu", "cuda", "mps"}):
            yield "options", was.options, now.options

    @property
    def unverified(self) -> list[str]:
        """What the record says that its evidence cannot show, one line each."""
        was, found = self.recorded, []
        if not self.baseline and was.accepted is not None:
            found.append(f"that {was.accepted} was accepted: this checkout has no baseline")
        if was.prediction_changed != self.derived.prediction_changed:
            found.append(f"how its prediction changed ({was.prediction_changed})")
        if was.multiverse or was.boundary:
            found.append("what --robustness found: other analyses, prompts on which it fails")
        if was.source is not None:
            found.append(f"which of the merged sessions it is from ({was.source})")
        if self.named and was.options != self.derived.options:
            found.append("the options of the command that runs it again")
        return [_cut(f"{was.test}: {line}") for line in found]


def compared(record: Record) -> dict[str, Any]:
    """The fields of a record that its evidence gives whatever else was known, as JSON has them."""
    found: dict[str, Any] = plain(record.model_dump(exclude=set(_APART), mode="json"))
    return found


def _devices(options: Sequence[str]) -> list[str]:
    return [value for name, value in pairwise(options) if name == "--device"]


def _without_device(options: Sequence[str]) -> list[str]:
    """The options without the device, which nothing is computed on here."""
    kept, rest = [], iter(options)
    for option in rest:
        if option == "--device":
            next(rest, None)
        else:
            kept.append(option)
    return kept


def _cut(line: str) -> str:
    """On one line, and not longer than a reader reads."""
    folded = " ".join(line.split())
    return folded if len(folded) <= _MOST else f"{folded[: _MOST - 1]}…"


# --- sessions ------------------------------------------------------------------------------------


def of_selection(file: RecordFile, records: Sequence[Record], derived: Session) -> RecordFile:
    """The session with these records alone, and what it says of them rather than of all.

    derived: the session that judged the selection again.
    """
    names = {record.model for record in records}
    about = {
        "device": derived.device,
        "error_rates": derived.error_rates,
        "noise": derived.noise,
        "models": [model for model in file.session.models if model.id in names],
    }
    return file.holding(records, file.session.model_copy(update=about))


def session_differences(file: RecordFile, derived: Session) -> list[str]:
    """Statements of a session that are not what its evidence gives, one line each."""
    was = file.session
    pairs = {
        name: (getattr(was, name), getattr(derived, name))
        for name in ("predictions_hash", "protocol", "device", "noise")
    }
    found = []
    for name, pair in pairs.items():
        old, new = ({name: plain(each)} for each in pair)
        found += list(map(str, differences(old, new)))
    found += _model_differences(file, derived)
    together, adjusted = multiplicity(file.records)
    if _whole_ledger(file):
        found += map(str, differences(plain(was.multiplicity), plain(together)))
        for record in file.records:
            if record.p_adjusted != adjusted.get(record.test):
                found.append(
                    f"p_adjusted of {record.test}: was {record.p_adjusted}, "
                    f"now {adjusted.get(record.test)}"
                )
    return [_cut(f"session: {line}") for line in found]


def _model_differences(file: RecordFile, derived: Session) -> list[str]:
    """Models that are not described as registry, cards and evidence do."""
    own = {model.id: model for model in derived.models}
    found = []
    for model in file.session.models:
        if model.id not in own:
            found.append(f"models: {model.id} is described, and no test case is of it")
            continue
        carded = bool(own[model.id].competence or own[model.id].below_floor)
        apart = set() if carded else {"competence", "below_floor", "note"}
        old, new = (plain(each.model_dump(exclude=apart)) for each in (model, own[model.id]))
        found += [f"models: {model.id}: {each}" for each in differences(old, new)]
    return found


def _whole_ledger(file: RecordFile) -> bool:
    """Whether the records hold every p-value that the session's ledger counts."""
    counted = sum(record.p_value is not None for record in file.records)
    known = file.session.multiplicity
    return known.n == counted if known is not None else counted == 0


def session_unverified(file: RecordFile, derived: Session) -> list[str]:
    """What a session says that its evidence cannot show, one line each."""
    was = file.session
    found = [
        f"when, where and by which versions it was measured ({was.started}, {was.platform}; "
        f"{was.command})"
    ]
    if was.predictions_commit not in (None, derived.predictions_commit):
        found.append(f"that the predictions were committed in {was.predictions_commit}")
    if not _whole_ledger(file):
        found.append(
            "p_adjusted and the session's discoveries, which rest on test cases that are not in "
            "the bundle"
        )
    # They are measured again with every calibration, and no verdict rests on them.
    if was.error_rates not in (None, derived.error_rates):
        found.append("the suite's error rates: this checkout has another table of them, or none")
    own = {model.id: model for model in derived.models}
    for model in was.models:
        here = own.get(model.id)
        if here is not None and (model.competence or model.below_floor) and not here.competence:
            found.append(f"the competence and note of {model.id}: this checkout has no card of it")
    if was.sources:
        found.append(f"the {len(was.sources)} sessions that it was merged from")
    return list(map(_cut, found))
