"""Defects of a corpus, line by line: in its texts alone, and for one tokenizer.

The corpora of this project have none. A user's corpus with defects can be measured if the user
accepts them.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from tinyablation.corpora.examples import Example, answer_places, word_after

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from tinyablation.corpora.tokenisation import AnyTokenizer, Encoder

# Clusters are the units of every interval: a t interval of 10 in one half of the split is 1.15
# times as wide as with known deviation, one of 4 is 1.6 times as wide.
LEAST_CLUSTERS = 20
SEVERAL = "answers of several tokens"
FEW = f"fewer than {LEAST_CLUSTERS} clusters"
# How far the share of prompts in which the right answer comes first may be from one half.
MOST_OFF_BALANCE = 0.1


class Defect(NamedTuple):
    """A defect of a corpus at one line of its file, counted from 1."""

    kind: str
    line: int
    what: str


def listed(defects: Iterable[Defect]) -> dict[str, str]:
    """Kind of defect -> their number and the line of the first, as text."""
    counts: dict[str, list[int]] = {}
    for each in defects:
        counts.setdefault(each.kind, []).append(each.line)
    return {kind: f"{len(lines)} (first: line {lines[0]})" for kind, lines in counts.items()}


def text_defects(rows: Sequence[Example]) -> list[Defect]:
    """The defects that the texts alone show: of single lines first, then of the whole corpus."""
    found: list[Defect] = []
    seen: dict[str, int] = {}
    for line, row in enumerate(rows, start=1):
        if row.clean in seen:
            what = f"the clean prompt of line {seen[row.clean]} again"
            found.append(Defect("the same clean prompt again", line, what))
        seen.setdefault(row.clean, line)
        for side in _sides(row):
            text = getattr(row, side)
            if text[-1].isspace():
                found.append(Defect("prompts that end with a space", line, f"{side} ends with one"))
            for answer in (row.target, row.foil):
                if text[-1].isalnum() and answer[0].isalnum():
                    what = f"{answer!r} would continue the last word of {side}"
                    found.append(Defect("answers without a space before them", line, what))
    found += _in_prompts(rows)
    found += _labels(rows)
    missing = [line for line, row in enumerate(rows, start=1) if not row.null]
    if 0 < len(missing) < len(rows):
        found += (Defect("null prompts missing", line, "no null prompt") for line in missing)
    clusters = len({row.cluster_id for row in rows})
    if clusters < LEAST_CLUSTERS:
        what = f"{clusters} clusters in all, {LEAST_CLUSTERS} are wanted"
        found.append(Defect(FEW, 1, what))
    return found


def _sides(row: Example) -> tuple[str, ...]:
    """The prompts of a row; one given from memory may have no corrupt one."""
    return ("clean", "corrupt") if row.corrupt else ("clean",)


def _all_sides(row: Example) -> tuple[str, ...]:
    return (*_sides(row), "null") if row.null else _sides(row)


def _in_prompts(rows: Sequence[Example]) -> Iterator[Defect]:
    """Answers that occur in prompts in a way that a model could exploit.

    It is not a defect if both answers occur, the corpus also has the prompt with the two exchanged
    and the other one right, and the right answer comes first as often as the wrong one.
    """
    # All (prompt, right answer, wrong answer) of the corpus, on either side.
    asked = {(row.clean, row.target, row.foil) for row in rows}
    asked |= {(row.corrupt, row.foil, row.target) for row in rows}
    first: dict[bool, list[int]] = {True: [], False: []}
    for line, row in enumerate(rows, start=1):
        for side in _sides(row):
            text = getattr(row, side)
            right, wrong = (row.target, row.foil) if side == "clean" else (row.foil, row.target)
            places = {answer: answer_places(text, answer) for answer in (right, wrong)}
            for answer, found in places.items():
                if found and not word_after(text, found[-1]):
                    what = f"{side} ends with {answer!r}"
                    yield Defect("prompts that end with an answer", line, what)
            if bool(places[right]) != bool(places[wrong]):
                one, other = (right, wrong) if places[right] else (wrong, right)
                what = f"{one!r} stands in {side}, {other!r} does not"
                yield Defect("one answer in the prompt, the other not", line, what)
            elif places[right]:
                mirrored = (_exchanged(text, right, wrong), wrong, right)
                if mirrored not in asked:
                    what = f"{side} has both answers, and no prompt has them exchanged"
                    yield Defect("both answers in the prompt, never exchanged", line, what)
                if side == "clean":
                    first[places[right][0] < places[wrong][0]].append(line)
    n = sum(map(len, first.values()))
    for is_right, lines in first.items():
        if n and len(lines) / n > 0.5 + MOST_OFF_BALANCE:
            which = "right" if is_right else "wrong"
            what = f"the {which} answer comes first in {len(lines)} of {n} clean prompts"
            yield Defect("positions of the answers out of balance", lines[0], what)


def _exchanged(text: str, one: str, other: str) -> str:
    """The text with the two answers exchanged."""
    one, other = one.strip(), other.strip()
    ends = [(*place, other) for place in answer_places(text, one)]
    ends += [(*place, one) for place in answer_places(text, other)]
    made, at = "", 0
    for start, end, word in sorted(ends):
        made += text[at:start] + word
        at = end
    return made + text[at:]


def _labels(rows: Sequence[Example]) -> Iterator[Defect]:
    """Answers that are not right as often as wrong: a bias for one would look like knowledge."""
    right, wrong = Counter(row.target for row in rows), Counter(row.foil for row in rows)
    first: dict[str, int] = {}
    for line, row in enumerate(rows, start=1):
        first.setdefault(row.target, line)
        first.setdefault(row.foil, line)
    for answer, line in first.items():
        if right[answer] != wrong[answer]:
            what = f"{answer!r} is target {right[answer]} times, foil {wrong[answer]} times"
            yield Defect("answers not target as often as foil", line, what)


def reader_of(tokenizer: "PreTrainedTokenizerBase", rows: Sequence[Example]) -> "Encoder":
    """What token_defects takes for each of the rows: their texts are split at once."""
    from tinyablation.corpora.answers import texts_of
    from tinyablation.corpora.tokenisation import Encoder

    encoder = Encoder(tokenizer)
    encoder.read(text for row in rows for side in _all_sides(row) for text in texts_of([row], side))
    return encoder


def token_defects(
    tokenizer: "AnyTokenizer", row: Example
) -> tuple[bool | None, list[tuple[str, str]]]:
    """Whether clean and corrupt have equal numbers of tokens, and the defects for this tokenizer.

    The first is None if the example is unusable; each defect is (kind, what).
    """
    from tinyablation.corpora.answers import encode_spans
    from tinyablation.corpora.tokenisation import TokenisationError

    found = []
    try:
        spans = [encode_spans(tokenizer, [row], None, side)[0] for side in _all_sides(row)]
    except TokenisationError as error:
        return None, [("examples that the tokenizer cannot tell apart: left out", str(error))]
    longest = max(len(answer) for span in spans for answer in (span.target, span.foil))
    if longest > 1:
        what = f"an answer is {longest} tokens; logit differences are of the first"
        found.append((SEVERAL, what))
    aligned = bool(row.corrupt) and len(spans[0].ids) == len(spans[1].ids)
    if row.corrupt and not aligned:
        what = f"clean has {len(spans[0].ids)} tokens, corrupt {len(spans[1].ids)}: not patched"
        found.append(("pairs of unequal length", what))
    return aligned, found
