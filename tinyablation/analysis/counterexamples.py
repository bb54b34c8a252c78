"""The boundary of a supported claim: a search of its condition's grammar for counterexamples.

A sample of the grammar is measured in one batch, which shows how often the claim fails, and with
which prefix, frame or relation. Starting from these failures, or anywhere in the grammar if there
are none, Hypothesis searches for a prompt on which the claim fails and shrinks it; then for the
next one, with another theme and wording.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from hypothesis import Phase, Verbosity, find, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample

from tinyablation.corpora.grammar import Grammar, Indices, Sentence
from tinyablation.errors import TinyAblationError
from tinyablation.heads import Head, head_name
from tinyablation.interventions.interventions import (
    AblateHeads,
    AblationMethod,
)
from tinyablation.records.trust import Boundary, Counterexample
from tinyablation.statistics.intervals import generator

if TYPE_CHECKING:
    from tinyablation.engine.engine import Engine

# Sentences in the sample. 1,000 determine a share of 15 % to within 2.2 % (two standard errors),
# and the share of each of ten prefixes to within 7 %. With two rows each they make 2,000 rows: .8
# to 2 s in an embedded model on one core, under 1 % of the sweep of a model of 1,024 heads.
N_GRAMMAR = 1000
MOST_FOUND = 5
# Hypothesis's draws from the whole grammar if the sample shows no failure; each is measured alone,
# in 10 to 17 ms in an embedded model. It also bounds the draws around a failure, where about one in
# three succeeds.
DRAWS = 100
# Choices with more options than this (subjects, foils) have no `parts`: a share of some ten prompts
# says little, and a hundred of them are no summary.
MOST_OPTIONS = 16
# Of ten, how often Hypothesis keeps a choice of the failure that it starts from: all of five to ten
# choices are kept in 59 to 35 % of draws.
_KEPT = st.sampled_from((False, *[True] * 9))


# No state between searches, and no dependence on the user's Hypothesis profile; a large model's
# batch may take any time. The phase "explain" would measure hundreds of prompts more.
SEARCH = settings(
    max_examples=DRAWS,
    derandomize=True,
    database=None,
    phases=(Phase.generate, Phase.shrink),
    deadline=None,
    verbosity=Verbosity.quiet,
    print_blob=False,
)


class BoundaryError(TinyAblationError):
    """The measurements cannot be searched: a reading is missing or not finite."""


class Reading(NamedTuple):
    """The measurement of one sentence, in logits.

    delta: the quantity that the claim says is above 0: the change of LD, the lead of one change
    over another, or the clean LD itself.
    """

    clean_ld: float
    delta: float


Measure = Callable[[Sequence[Sentence]], Sequence[Reading]]
Surveyed = Sequence[tuple[Sentence, Reading]]


@dataclass(frozen=True)
class Ablation:
    """The claim that zeroing some heads raises LD, or raises it more than zeroing others does.

    heads and over are sorted; without `over`, delta is the change of LD, else the lead over theirs.
    """

    only_known: ClassVar[bool] = True
    heads: tuple[Head, ...]
    over: tuple[Head, ...] = ()
    method: AblationMethod = "zero"

    @property
    def rule(self) -> str:
        """When the claim counts as failing on one prompt, as text."""
        known = "the model knows the answer (clean LD above the noise), but ablating"
        heads = _listed(self.heads)
        if self.over:
            over = _listed(self.over)
            less = f"raises LD less than ablating {over} (delta: the difference from it)"
            return f"{known} {heads} {less}"
        return f"{known} {heads} lowers LD (delta below 0 by more than the noise)"

    def measure(self, engine: "Engine", sentences: Sequence[Sentence]) -> list[Reading]:
        """Clean LD and delta of every sentence, measured in one call."""
        changes = [AblateHeads(heads, self.method) for heads in (self.heads, self.over) if heads]
        table = engine.measure([sentence.prompt for sentence in sentences], changes)
        values = table["logit_diff"].to_numpy(dtype=float).reshape(1 + len(changes), -1)
        less = values[2] if self.over else values[0]
        return [
            Reading(float(clean), float(delta))
            for clean, delta in zip(values[0], values[1] - less, strict=True)
        ]


@dataclass(frozen=True)
class Answer:
    """The claim that the unhooked model prefers the right answer: its LD is above 0."""

    only_known: ClassVar[bool] = False
    rule: ClassVar[str] = "the model prefers the wrong answer (LD below 0 by more than the noise)"

    def measure(self, engine: "Engine", sentences: Sequence[Sentence]) -> list[Reading]:
        """LD of every sentence, as both figures of a reading, measured in one call."""
        table = engine.measure([sentence.prompt for sentence in sentences], [])
        return [Reading(float(value), float(value)) for value in table["logit_diff"]]


About = Ablation | Answer


def _listed(heads: Sequence[Head]) -> str:
    return " and ".join(head_name(head) for head in heads)


def survey(grammar: Grammar, measure: Measure, *, seed: int = 0, n: int = N_GRAMMAR) -> Surveyed:
    """A sample of at most n sentences, drawn by the seed, with their readings."""
    sample = grammar.sample(n, generator(seed, f"grammar {grammar.condition}"))
    return list(zip(sample, measure(sample), strict=True)) if sample else []


def search(
    grammar: Grammar,
    measure: Measure,
    surveyed: Surveyed,
    *,
    rule: str,
    noise: float,
    seed: int = 0,
    only_known: bool = True,
) -> Boundary:
    """The boundary of a claim, which fails where clean LD > noise and delta < -noise, in logits.

    only_known: False if the clean LD need not be above the noise. surveyed: the result of `survey`
    with the same `measure`. Of the counterexamples, at most MOST_FOUND, no two share their wording
    (prefix and frame) or their theme (Grammar.theme). Each is shrunk until no sentence with a
    single plainer choice fails, among those that stay apart from the earlier counterexamples.
    Raises BoundaryError if a reading is not finite.
    """
    looking = _Search(grammar, measure, noise, surveyed, seed, only_known)
    found: list[Sentence] = []
    while len(found) < MOST_FOUND:
        known = [one for one in looking.failing() if _apart(grammar, one, found)]
        if found and not known:
            break
        start = min(known, key=_indices) if known else None
        failure = looking.find(start, found)
        if failure is None:
            break
        found.append(looking.settled(failure, found))
    return Boundary(
        rule=rule,
        grammar=grammar.size,
        searched=len(looking.searched),
        failed=len(looking.failing()),
        found=[looking.counterexample(sentence) for sentence in found],
        parts=looking.parts(),
    )


class _Search:
    """The measured sentences of a claim, and the search for more.

    searched: the sample and, if it had no failure, what Hypothesis drew until it found one;
    sentences measured while shrinking are not part of it, because they lie near failures.
    """

    def __init__(
        self,
        grammar: Grammar,
        measure: Measure,
        noise: float,
        surveyed: Surveyed,
        seed: int,
        only_known: bool,
    ) -> None:
        self.grammar = grammar
        self.measure = measure
        self.noise = noise
        self.seed = seed
        self.only_known = only_known
        self.readings: dict[Indices, Reading] = {}
        self.searched: dict[Indices, Sentence] = {one.indices: one for one, _ in surveyed}
        self._keep(surveyed)

    def read(self, sentences: Iterable[Sentence]) -> None:
        """Measure those of the sentences that have not been measured yet, in one call."""
        lacking = list({s.indices: s for s in sentences if s.indices not in self.readings}.values())
        if lacking:
            readings = self.measure(lacking)
            if len(readings) != len(lacking):
                raise BoundaryError(f"{len(readings)} readings for {len(lacking)} sentences")
            self._keep(zip(lacking, readings, strict=True))

    def _keep(self, surveyed: Iterable[tuple[Sentence, Reading]]) -> None:
        for sentence, reading in surveyed:
            if not all(map(math.isfinite, reading)):
                raise BoundaryError(f"{sentence.text!r}: {reading} is not finite")
            self.readings[sentence.indices] = reading

    def fails(self, sentence: Sentence) -> bool:
        """Whether the claim fails on it by the rule; it is measured if it was not yet."""
        self.read([sentence])
        reading = self.readings[sentence.indices]
        known = reading.clean_ld > self.noise or not self.only_known
        return known and reading.delta < -self.noise

    def failing(self) -> list[Sentence]:
        """The searched sentences on which the claim fails."""
        return [sentence for sentence in self.searched.values() if self.fails(sentence)]

    def find(self, start: Sentence | None, found: Sequence[Sentence]) -> Sentence | None:
        """A failure apart from those found, shrunk by Hypothesis; None if it finds none.

        start: a known failure to start from. Without one it draws from the whole grammar.
        """
        met = False

        def counts(sentence: Sentence | None) -> bool:
            nonlocal met
            if sentence is None or not _apart(self.grammar, sentence, found):
                return False
            if start is None and not met:
                self.searched[sentence.indices] = sentence
            met = self.fails(sentence) or met
            return self.fails(sentence)

        if start is not None:
            # Measure most of what shrinking will need in one call: alone each would take 10 ms.
            self.read(self.grammar.corners(start.indices))
        purpose = f"boundary {self.grammar.condition} {len(found)}"
        drawn = Random(int(generator(self.seed, purpose).integers(2**63)))
        try:
            return find(sentences(self.grammar, start), counts, settings=SEARCH, random=drawn)
        except NoSuchExample:
            return None

    def settled(self, sentence: Sentence, found: Sequence[Sentence]) -> Sentence:
        """The failure shrunk until no single plainer choice still fails.

        Hypothesis tries only some of the lower indices of each choice; here all are tried.
        """
        while True:
            simpler = [s for s in self.grammar.simpler(sentence) if _apart(self.grammar, s, found)]
            self.read(simpler)
            failing = [other for other in simpler if self.fails(other)]
            if not failing:
                return sentence
            sentence = min(failing, key=_indices)

    def counterexample(self, sentence: Sentence) -> Counterexample:
        reading = self.readings[sentence.indices]
        return Counterexample(
            prompt=sentence.text,
            target=sentence.target,
            foil=sentence.foil,
            choices=dict(sentence.choices),
            clean_ld=reading.clean_ld,
            delta=reading.delta,
        )

    def parts(self) -> dict[str, dict[str, tuple[int, int]]]:
        """Choice -> option -> [failed, searched], options in the grammar's order."""
        counts: dict[str, dict[tuple[int, str], list[int]]] = {}
        for sentence in self.searched.values():
            failed = self.fails(sentence)
            taken = zip(sentence.indices, sentence.choices.items(), strict=True)
            for index, (choice, option) in taken:
                count = counts.setdefault(choice, {}).setdefault((index, option), [0, 0])
                count[0] += failed
                count[1] += 1
        return {
            choice: _summed(options)
            for choice, options in counts.items()
            if len({option for _, option in options}) <= MOST_OPTIONS
        }


@st.composite
def sentences(draw: st.DrawFn, grammar: Grammar, start: Sentence | None = None) -> Sentence | None:
    """Sentences of the grammar for Hypothesis, which shrinks them towards the plainest.

    With `start`, mostly its neighbours: each choice is kept or redrawn. None for a sentence that
    cannot be measured.
    """
    kept = () if start is None else start.indices
    place = iter(range(len(kept)))

    def choose(name: str, labels: Sequence[str]) -> int:
        anew: int = draw(st.integers(0, len(labels) - 1))
        if not kept:
            return anew
        own = kept[next(place)]
        # Another relation may have fewer subjects than the index that was kept.
        return own if draw(_KEPT) and own < len(labels) else anew

    return grammar.derive(choose)


def _apart(grammar: Grammar, sentence: Sentence, found: Sequence[Sentence]) -> bool:
    """Whether it differs from each in both wording and theme."""

    def of(one: Sentence, names: Iterable[str]) -> list[str]:
        return [one.choices[name] for name in names]

    return not any(
        of(sentence, names) == of(other, names)
        for other in found
        for names in (("prefix", "frame"), grammar.theme)
    )


def _indices(sentence: Sentence) -> Indices:
    return sentence.indices


def _summed(options: dict[tuple[int, str], list[int]]) -> dict[str, tuple[int, int]]:
    """The counts by option, summed over the indices that have the same label."""
    summed: dict[str, tuple[int, int]] = {}
    for (_, option), (failed, searched) in sorted(options.items()):
        before = summed.get(option, (0, 0))
        summed[option] = (before[0] + failed, before[1] + searched)
    return summed
