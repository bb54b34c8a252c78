"""What a metamorphic test is tried on: prompts of words and interventions, printed as such.

A failing example is shrunk by Hypothesis towards the first entry of every list here, and printed by
`__repr__`: as text, never as token ids. The words are whole tokens of the embedded tokenizer, too,
so that a counterexample can be tried on the embedded models.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from hypothesis import strategies as st

from tests.conftest import N_HEADS, N_LAYERS
from tinyablation.corpora.tokenisation import Prompt
from tinyablation.engine.engine import Engine
from tinyablation.heads import Head
from tinyablation.interventions.interventions import (
    METHODS,
    AblateHeads,
    Intervention,
    PatchHeads,
    PatchMLP,
    PatchPath,
    PatchResidual,
    ScaleHeads,
    Steer,
)

BOS = 0
D_MODEL = 32

# What sentences are made of: an opening, a relation with its subject, and how it ends.
OPENINGS = ("", "It is true that", "Perhaps", "Note that", "Everyone really knows that")
RELATIONS = (
    ("the capital of", ("France", "Italy", "Spain", "Japan")),
    ("the color of", ("snow", "blood", "grass")),
    ("the opposite of", ("up", "hot", "big")),
    ("the language of", ("Rome", "Paris", "Berlin")),
)
ENDINGS = ("is", "is simply", "is known to be", "is not")
ANSWERS = ("Paris", "Rome", "Madrid", "Tokyo", "white", "red", "green", "down", "cold", "French")
# Prompts that any other may borrow from: two of any length, none of them a sentence from above.
LENDERS = (
    "the main word after this statement is often found in many books and newspapers of stone or",
    "Some doctors have known that lemons and tomatoes covered the street with butter or yellow",
)
SUBJECTS = tuple(dict.fromkeys(word for _, subjects in RELATIONS for word in subjects))
WORDS = tuple(
    dict.fromkeys(
        word
        for text in (
            *(relation for relation, _ in RELATIONS),
            *ENDINGS,
            *OPENINGS,
            *SUBJECTS,
            *ANSWERS,
            *LENDERS,
        )
        for word in text.split()
    )
)
ID = {word: number for number, word in enumerate(WORDS, BOS + 1)}
MOST_WORDS = 12  # of a prompt: the longest sentence

DIRECTIONS = {
    name: torch.randn(D_MODEL, generator=torch.Generator().manual_seed(seed))
    for seed, name in enumerate(("truth", "noise"))
}


def ids_of(text: str) -> tuple[int, ...]:
    """BOS and one id a word."""
    return (BOS, *(ID[word] for word in text.split()))


@dataclass(frozen=True, repr=False)
class Question:
    """A prompt with its answers, and the other prompt of its pair: some of its words replaced."""

    words: tuple[str, ...]
    target: str
    foil: str
    places: tuple[int, ...]  # of the words that the pair has others for: the subject
    other: str  # the word that the pair has there

    @property
    def text(self) -> str:
        return " ".join(self.words)

    @property
    def pair(self) -> str:
        return " ".join(
            self.other if place in self.places else word for place, word in enumerate(self.words)
        )

    @property
    def subject(self) -> tuple[int, ...]:
        """Positions in the ids, where BOS counts."""
        return tuple(place + 1 for place in self.places)

    def prompt(self, text: str | None = None) -> Prompt:
        """The prompt, or another text with the same answers."""
        ids = ids_of(self.text if text is None else text)
        return Prompt(ids, ID[self.target], ID[self.foil])

    def swapped(self) -> "Question":
        return replace(self, target=self.foil, foil=self.target)

    def __repr__(self) -> str:
        return f"{self.text!r} -> {self.target!r}, not {self.foil!r} (pair: {self.pair!r})"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(repr(self))  # Hypothesis writes dataclasses as calls, field by field


@dataclass(frozen=True, repr=False)
class Case:
    """One call of the engine."""

    questions: tuple[Question, ...]
    interventions: tuple[Intervention, ...]
    reference: tuple[str, ...] = ()  # beside LENDERS
    seed: int = 0

    @property
    def prompts(self) -> list[Prompt]:
        return [question.prompt() for question in self.questions]

    def measure(self, engine: Engine) -> Any:
        """The engine's table: blocks of rows by intervention, the baseline first."""
        texts = [*self.reference, *LENDERS]
        return engine.measure(
            self.prompts,
            self.interventions,
            reference=prompts_of(texts),
            pairs=[question.prompt(question.pair) for question in self.questions],
            others=prompts_of(beginnings()),
            subjects=[question.subject for question in self.questions],
            directions=DIRECTIONS,
            seed=self.seed,
        )

    def __repr__(self) -> str:
        lines = ["", *(f"  prompt {n}: {each!r}" for n, each in enumerate(self.questions))]
        lines.append("  interventions: " + ", ".join(each.label for each in self.interventions))
        if self.reference:
            lines.append(f"  reference: {', '.join(map(repr, self.reference))}")
        return "\n".join([*lines, f"  seed: {self.seed}", ""])

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(repr(self))


def prompts_of(texts: Iterable[str]) -> list[Prompt]:
    """Prompts to borrow from, whose answers nobody reads."""
    return [Prompt(ids_of(text), 1, 2) for text in texts]


def beginnings() -> list[str]:
    """Of every length, beginnings of LENDERS."""
    return [
        " ".join(text.split()[:length]) for length in range(1, MOST_WORDS + 1) for text in LENDERS
    ]


@st.composite
def questions(draw: st.DrawFn, min_words: int = 1, max_words: int = MOST_WORDS) -> Question:
    """A sentence, or any words at all (repeated ones too), of so many words."""
    sentence = draw(st.booleans().map(lambda any_words: not any_words))
    if sentence and max_words >= MOST_WORDS:
        opening, ending = (draw(st.sampled_from(texts)).split() for texts in (OPENINGS, ENDINGS))
        relation, subjects = draw(st.sampled_from(RELATIONS))
        words = (*opening, *relation.split(), draw(st.sampled_from(subjects)), *ending)
        places: tuple[int, ...] = (len(opening) + len(relation.split()),)
    else:
        size = draw(st.integers(min_words, max_words))
        words = tuple(draw(st.lists(st.sampled_from(WORDS), min_size=size, max_size=size)))
        which = draw(st.sets(st.integers(0, size - 1), min_size=1, max_size=3))
        places = tuple(sorted(which))
    target = draw(st.sampled_from(ANSWERS))
    foil = draw(st.sampled_from([answer for answer in ANSWERS if answer != target]))
    return Question(words, target, foil, places, draw(st.sampled_from(SUBJECTS)))


def heads(layers: Sequence[int] = range(N_LAYERS), most: int = 3) -> st.SearchStrategy[Any]:
    """Sets of heads of these layers, sorted as interventions want them."""
    head: st.SearchStrategy[Head] = st.tuples(st.sampled_from(layers), st.integers(0, N_HEADS - 1))
    return st.lists(head, min_size=1, max_size=most, unique=True).map(lambda h: tuple(sorted(h)))


@st.composite
def _paths(draw: st.DrawFn) -> PatchPath:
    sender = draw(st.integers(0, N_LAYERS - 1))
    receiver = draw(st.integers(sender + 1, N_LAYERS))
    method = draw(st.sampled_from(("zero", "zero_folded", "mean")))
    return PatchPath(draw(heads([sender])), receiver, method)


LAYER = st.integers(0, N_LAYERS - 1)
POSITIONS = st.sampled_from(("last", "all", "subject"))


def patches(donor: str) -> st.SearchStrategy[Intervention]:
    """Whatever borrows from this donor."""
    lender: Any = st.just(donor)
    window = st.integers(0, N_LAYERS)
    return st.one_of(
        st.builds(PatchHeads, heads(), POSITIONS, lender),
        st.builds(PatchResidual, LAYER, window, POSITIONS, lender),
        st.builds(PatchMLP, LAYER, window, POSITIONS, lender),
    )


ABLATIONS = st.builds(AblateHeads, heads(), st.sampled_from(METHODS))  # type: ignore[arg-type]
SCALES = st.builds(ScaleHeads, heads(), st.sampled_from((0.5, -1.0, 2.0, 0.0, 1.0)))
STEERS = st.builds(
    Steer, LAYER, st.sampled_from(tuple(DIRECTIONS)), st.sampled_from((0.5, -2.0, 0.0))
)
ANYTHING: st.SearchStrategy[Intervention] = st.one_of(
    ABLATIONS, SCALES, patches("pair"), _paths(), STEERS, patches("self"), patches("other")
)


@st.composite
def cases(
    draw: st.DrawFn,
    interventions: st.SearchStrategy[Any] = ANYTHING,
    *,
    most_questions: int = 4,
    most_interventions: int = 4,
) -> Case:
    """A call of the engine with some of these interventions on some prompts.

    One prompt may stand there twice, with its answers swapped and another pair: such rows share
    what can be shared.
    """
    asked = draw(st.lists(questions(), min_size=1, max_size=most_questions))
    if len(asked) < most_questions and draw(st.booleans()):
        asked.append(replace(asked[0].swapped(), other=draw(st.sampled_from(SUBJECTS))))
    return Case(
        tuple(asked),
        tuple(draw(st.lists(interventions, min_size=1, max_size=most_interventions, unique=True))),
        tuple(question.text for question in draw(st.lists(questions(), max_size=2))),
        draw(st.integers(0, 3)),
    )
