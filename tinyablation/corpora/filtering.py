"""From rows to a corpus: clusters with a faulty row are dropped, and every drop is counted."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tinyablation.corpora.examples import (
    CONDITIONS,
    IN_CONTEXT,
    SPLITS,
    Corpus,
    CorpusError,
    Example,
    Split,
    answer_fault,
    contains_word,
)
from tinyablation.corpora.tokenisation import TokenisationError, encode_prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LEAST_PROMPTS = 200  # distinct clean prompts that a condition needs


class TooFewPrompts(CorpusError):
    """A condition has fewer than LEAST_PROMPTS left; the message says what was dropped.

    reason: the message without the leading names of tokenizer and condition.
    """

    def __init__(self, message: str, *, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason or message


@dataclass
class BuildReport:
    """What was made, and what was dropped and why: condition -> reason -> count."""

    made: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, Counter[str]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)  # condition -> why it was not built

    def drop(self, condition: str, reason: str, count: int = 1) -> None:
        if count:
            self.dropped.setdefault(condition, Counter())[reason] += count

    def reasons(self, condition: str) -> str:
        """What was dropped from a condition and why, in one line, summed over relations."""
        return summed(self.dropped.get(condition, Counter()))

    def lines(self) -> list[str]:
        """Lines for the terminal: the four conditions, then any others."""
        others = dict.fromkeys([*self.made, *self.dropped, *self.skipped])
        lines = []
        for condition in [*CONDITIONS, *(name for name in others if name not in CONDITIONS)]:
            if condition in self.skipped:
                lines.append(f"{condition}: skipped, {self.skipped[condition]}")
            else:
                lines.append(f"{condition}: {self.made.get(condition, 0)} examples")
            for reason, count in sorted(self.dropped.get(condition, Counter()).items()):
                lines.append(f"  dropped {count}: {reason}")
        return lines


def summed(dropped: Mapping[str, int]) -> str:
    """Counts by reason in one line, summed over prefixes ("capital: no partner")."""
    counts: Counter[str] = Counter()
    for reason, count in dropped.items():
        counts[reason.split(": ", 1)[-1]] += count
    if not counts:
        return "nothing was dropped"
    parts = (f"{count} ({reason})" for reason, count in sorted(counts.items()))
    return f"{counts.total()} were dropped: {', '.join(parts)}"


def fault(tokenizer: "PreTrainedTokenizerBase", condition: str, example: Example) -> str | None:
    """Why the example cannot be used; None if it can."""
    answers = (example.target, example.foil)
    for side in ("clean", "corrupt", "null"):
        text = getattr(example, side)
        if condition in IN_CONTEXT and side != "null":
            if any(answer_fault(condition, text, answer) for answer in answers):
                return "an answer does not stand in a prompt once, before its end"
        elif any(contains_word(text, answer) for answer in answers):
            return "an answer stands in a prompt"
        try:
            encode_prompt(tokenizer, text, *answers, bos=None)
        except TokenisationError:
            return "the answers are not one token each after a prompt"
    return None


def finish(
    tokenizer: "PreTrainedTokenizerBase",
    name: str,
    condition: str,
    rows: Sequence[tuple[Example, str]],
    seed: int,
    report: BuildReport,
) -> tuple[Corpus, Split]:
    """The corpus and split of (example, split name) rows, without the clusters that have a fault.

    Whole clusters are dropped, because dropping single rows would unbalance the labels. Raises
    TooFewPrompts if fewer than LEAST_PROMPTS are left.
    """
    faults: dict[str, str] = {}
    seen: set[str] = set()
    for example, _ in rows:
        found = fault(tokenizer, condition, example)
        if found is None and example.clean in seen:
            found = "the same prompt again"
        if found is not None:
            faults.setdefault(example.cluster_id, found)
        seen.add(example.clean)
    for example, _ in rows:
        if example.cluster_id in faults:
            report.drop(condition, faults[example.cluster_id])
    kept = [(example, split) for example, split in rows if example.cluster_id not in faults]
    report.made[condition] = len(kept)
    if len(kept) < LEAST_PROMPTS:
        reason = f"{len(kept)} prompts are left, {LEAST_PROMPTS} are wanted"
        reason += f"; {report.reasons(condition)}"
        raise TooFewPrompts(f"{name}, {condition}: {reason}", reason=reason)
    corpus = Corpus.of(condition, name, [example for example, _ in kept])
    indices = {
        part: tuple(row for row, (_, split) in enumerate(kept) if split == part) for part in SPLITS
    }
    return corpus, Split(seed, corpus.content_hash, indices)
