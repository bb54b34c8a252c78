"""Foresight: how many of the verdicts registered beforehand came true.

A session passes if no verdict is another than the one last accepted; that says nothing about
whether the verdict was foreseen. This score does. Only predictions that stood unchanged before
their measurement count; edited ones are counted apart. Claims about validity (family V) say that a
model can do its task, which is easily foreseen, so the score is given without them, too.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tinyablation.records.records import Record

VALIDITY = "V"  # the family of claims about conditions rather than heads


class Score(NamedTuple):
    """Numbers of cells. predicted: those judged that have a prediction; edited: of these, whose
    prediction was changed after its measurement; missed + true are the others, `fixed` of them.
    blocked: of the true ones, those that were predicted to be blocked, and were.
    """

    predicted: int
    edited: int
    true: int
    blocked: int = 0

    @property
    def fixed(self) -> int:
        """Cells whose prediction stood unchanged before the measurement."""
        return self.predicted - self.edited

    @property
    def missed(self) -> int:
        """Cells whose fixed prediction did not come true."""
        return self.fixed - self.true


class Foresight(NamedTuple):
    """The score of a session, and without claims about validity."""

    every: Score
    without_validity: Score


def came_true(record: Record) -> bool | None:
    """Whether a cell's verdict is the predicted one; None if nothing was predicted or judged.

    A blocked cell was judged only if that was predicted, and one that a screened sweep left open
    was not, for predictions are about sweeps of every head.
    """
    if record.prediction is None or record.verdict == "error" or record.outcome == "error":
        return None
    if record.verdict == record.prediction:
        return True
    left_open = record.verdict == "inconclusive" and bool(record.screened)
    return None if record.verdict == "blocked" or left_open else False


def foresight(records: Sequence[Record]) -> Foresight | None:
    """The score over all records that were judged; None if nothing was predicted for them."""
    every = _score(records)
    if not every.predicted:
        return None
    return Foresight(every, _score(record for record in records if record.family != VALIDITY))


def sentence(found: Foresight) -> str:
    """The score in words, with the edited predictions beside it."""
    every, heads = found
    predictions = f"{every.predicted:,} prediction{'' if every.predicted == 1 else 's'}"
    if every.edited:
        began = (
            f"Of {predictions} {every.fixed:,} {_were(every.fixed)} fixed before the measurement: "
        )
    else:
        began = f"{predictions}, all fixed before the measurement: "
    said = f"{began}{every.true:,} came true{_share(every)}"
    if every.blocked:
        said += f", {every.blocked:,} of them as blocked"
    if 0 < heads.predicted < every.predicted:
        said += f"; without validity (V) {heads.true:,} of {heads.fixed:,}{_share(heads)}"
    if every.edited:
        said += f". {every.edited:,} {_were(every.edited)} edited after it: no foresight"
    return f"{said}."


def _score(records: Iterable[Record]) -> Score:
    judged = [(record, came_true(record)) for record in records]
    predicted = [(record, true) for record, true in judged if true is not None]
    fixed = [(record, true) for record, true in predicted if record.prediction_changed is None]
    came = [record for record, true in fixed if true]
    blocked = sum(record.verdict == "blocked" for record in came)
    return Score(len(predicted), len(predicted) - len(fixed), len(came), blocked)


def _were(number: int) -> str:
    return "was" if number == 1 else "were"


def _share(score: Score) -> str:
    return f" ({score.true / score.fixed:.0%})" if score.fixed else ""
