"""Whether what a page prints can be true: intervals within their range, verdicts as in the legend.

The legend's rule is that of `judge_above_floor` and `judge_below_ceiling`, which word their reasons
alike: "WHAT: 1.39 logits, interval [1.29, 1.49] lies above the floor 0.229". A verdict is held to
the rule where its reason has such a part with the very figures of the record. Other judges have
rules of their own (an equivalence, a rank correlation), and a hand-written reason says nothing.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from tinyablation.errors import TinyAblationError
from tinyablation.records.records import Record, RecordFile
from tinyablation.verdicts.floors import figure
from tinyablation.verdicts.verdicts import ALPHA, RANGES

# One part of a reason, as the two judges word it; `rest` says what else decided.
_PART = re.compile(
    r"interval \[(?P<low>[^\],]+), (?P<high>[^\]]+)\] "
    r"(?:lies (?:above|below)|straddles) the (?P<bound>floor|ceiling) (?P<at>\S+?)(?=[\s,;(]|$)"
    r"(?P<rest>.*)"
)
# A part that another rule decides: several were corrected for each other, one of many rivals cannot
# refute, the noise may explain an effect, or p is that of a rank among random words or directions
# (OV.1, OV.3).
_EXCUSED = ("but not if corrected for", "the least sure of", "noise", "against random")


class InconsistentError(TinyAblationError):
    """A record that a page cannot print: its figures contradict its unit or its verdict."""


class _Side(NamedTuple):
    """Whether a judge may, or must, have said that the claim holds, or fails.

    They differ only where an effect was judged by its margin: the effect itself is held to a
    smaller bound then, which the record does not have.
    """

    may_hold: bool
    must_hold: bool
    may_fail: bool
    must_fail: bool
    there: bool  # beyond 0, on the side that holds


def check(file: RecordFile) -> None:
    """Raise InconsistentError for the first record whose figures contradict what the page says."""
    for record in file.records:
        for problem in _problems(record):
            where = f"{record.claim} {record.name}, {record.model}, {record.condition}"
            raise InconsistentError(
                f"the page cannot be written: {where}: {problem}; judge this test case again "
                f"({record.command})"
            )


def _problems(record: Record) -> Iterator[str]:
    low, high = record.low, record.high
    if record.effect is None or low is None or high is None:
        return
    shown = f"the interval [{low:.4g}, {high:.4g}]"
    if record.unit in RANGES:
        least, most = RANGES[record.unit]
        if not least <= low <= high <= most:
            yield f"{shown} of a {record.unit} is not within [{least:g}, {most:g}]"
    for part in _parts(record):
        side = _side(record, part["bound"])
        bound = f"the {part['bound']} {record.floor:.4g}"
        if not _agrees(record, side, alone="; " not in record.reason):
            yield f"{record.verdict} contradicts {shown} and {bound}"


def _parts(record: Record) -> Iterator[re.Match[str]]:
    """The parts of a reason that are about the record's own figures, by a judge of the legend."""
    if record.floor is None or record.low is None or record.high is None:
        return
    own = (figure(record.low), figure(record.high), figure(record.floor))
    for text in record.reason.split("; "):
        part = _PART.search(text)
        excused = any(words in text for words in _EXCUSED)
        if part and not excused and (part["low"], part["high"], part["at"]) == own:
            yield part


def _side(record: Record, bound: str) -> _Side:
    """Judged by the margin where there is one, as the judges do."""
    assert record.low is not None and record.high is not None and record.floor is not None
    sign = 1.0 if bound == "floor" else -1.0
    ends = sorted((sign * record.low, sign * record.high))
    holds, fails = ends[0] > sign * record.floor, ends[1] < sign * record.floor
    there = ends[0] > 0
    if record.margin_low is None or record.margin_high is None:
        return _Side(holds, holds, fails, fails, there)
    beyond = sorted((sign * record.margin_low, sign * record.margin_high))
    return _Side(
        beyond[0] > 0, beyond[0] > 0 and holds, beyond[1] < 0 or fails, beyond[1] < 0, there
    )


def _agrees(record: Record, side: _Side, *, alone: bool) -> bool:
    """Whether a part came to the record's verdict. alone: the claim has no other part."""
    significant = record.p_corrected is None or record.p_corrected <= ALPHA
    if record.verdict == "supported":
        return side.may_hold and significant
    if record.verdict == "present":
        return side.there and not (side.must_hold and significant)
    if record.verdict == "refuted":
        return side.may_fail
    if record.verdict == "inconclusive":
        # Of several parts one may fail and not refute the claim: of rivals one leads by chance.
        return not (side.must_hold and significant) and not (side.must_fail and alone)
    return True
