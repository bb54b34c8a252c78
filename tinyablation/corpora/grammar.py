"""The prompts of a condition as sequences of choices: prefix, frame, fact, foil and so on.

Sentences are worded by wording.py, like those of the corpora, but from all combinations in the
knowledge tables: every prefix with every frame, every fact with every foil, every two statements of
different relations. The corpora contain some hundred of these sentences.

A sentence is identified by its options, one index per choice, as in (0, 0, 3, 2, 1). Options are in
the order of the tables, so lower indices are plainer: no prefix, the first frame, the first fact.
The options of a choice may depend on earlier choices (subjects on the relation), but the number of
choices is fixed.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, ClassVar, NamedTuple, TypeVar

import numpy as np

from tinyablation.corpora.examples import contains_word
from tinyablation.corpora.knowledge import Fact, Knowledge, Member
from tinyablation.corpora.tokenisation import Prompt, TokenisationError, encode_prompt, is_one_token
from tinyablation.corpora.wording import (
    Template,
    affirmed,
    compound,
    counterfactual_prompt,
    fact_prompt,
    negated,
    phrase,
    truth_prompt,
)
from tinyablation.errors import TinyAblationError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

T = TypeVar("T")
Indices = tuple[int, ...]
# From a choice's name and the labels of its options to the index of the option taken.
Choose = Callable[[str, Sequence[str]], int]

# Draws per requested sentence before a sample is left smaller: a grammar of some thousand sentences
# yields repeats, one with the embedded models' 40,000 and more hardly any.
TRIES = 4


class GrammarError(TinyAblationError):
    """A condition has no grammar, or none of its prompts works with the tokenizer."""


class Sentence(NamedTuple):
    """One prompt: its options (indices, and choice -> label), its text, and its token ids.

    Answers include their leading space, as in examples.Example.
    """

    indices: Indices
    choices: Mapping[str, str]
    text: str
    target: str
    foil: str
    prompt: Prompt


class _Derivation:
    """Records the choices of one sentence as they are taken."""

    def __init__(self, choose: Choose) -> None:
        self.choose = choose
        self.indices: list[int] = []
        self.choices: dict[str, str] = {}

    def take(self, name: str, options: Mapping[str, T]) -> T:
        """The value of the option taken; IndexError if there is no such option."""
        labels = list(options)
        index = self.choose(name, labels)
        label = labels[index]
        self.indices.append(index)
        self.choices[name] = label
        return options[label]


class Grammar(ABC):
    """All sentences of one condition for one tokenizer.

    theme: the choices that determine what a sentence is about, apart from its wording. bos: the id
    to prepend, or None; longest: the model's maximum number of ids, including BOS, or None.
    """

    condition: ClassVar[str]
    theme: ClassVar[tuple[str, ...]]

    def __init__(
        self,
        knowledge: Knowledge,
        tokenizer: "PreTrainedTokenizerBase",
        *,
        bos: int | None = None,
        longest: int | None = None,
    ) -> None:
        self.knowledge = knowledge
        self.tokenizer = tokenizer
        self.bos = bos
        self.longest = longest
        wording = knowledge.wording
        self._prefixes = _named(name for tone in wording.prefixes.values() for name in tone)
        self._frames = _named(wording.cells(self._asked))
        self._made: dict[Indices, Sentence | None] = {}
        self.size = len(self._prefixes) * len(self._frames) * self._contents()
        if not self.size:
            raise GrammarError(
                f"{self.condition}: no prompt can be made, since no answer of the knowledge tables "
                "is one token for this tokenizer"
            )

    # Defined by each condition -------------------------------------------------------------------

    @property
    @abstractmethod
    def _asked(self) -> str:
        """Which frames are used: "facts", "counterfactual" or "truth"."""

    @abstractmethod
    def _contents(self) -> int:
        """The number of sentences per wording."""

    @abstractmethod
    def _words(self, derivation: _Derivation, template: Template) -> tuple[str, str, str]:
        """The text, its target and its foil, without leading spaces."""

    # Sentences -----------------------------------------------------------------------------------

    def derive(self, choose: Choose) -> Sentence | None:
        """The sentence of the options that `choose` takes; None if it cannot be measured.

        It cannot if the text contains an answer, an answer is not one token after it, or it is too
        long for the model. `size` counts these too. Raises IndexError if `choose` returns an index
        past the last option.
        """
        derivation = _Derivation(choose)
        template = Template(
            derivation.take("prefix", self._prefixes), derivation.take("frame", self._frames)
        )
        text, target, foil = self._words(derivation, template)
        indices = tuple(derivation.indices)
        if indices not in self._made:
            self._made[indices] = self._sentence(
                indices, derivation.choices, text, f" {target}", f" {foil}"
            )
        return self._made[indices]

    def _sentence(
        self, indices: Indices, choices: Mapping[str, str], text: str, target: str, foil: str
    ) -> Sentence | None:
        if contains_word(text, target) or contains_word(text, foil):
            return None
        try:
            prompt = encode_prompt(self.tokenizer, text, target, foil, self.bos)
        except TokenisationError:
            return None
        if self.longest is not None and len(prompt.ids) > self.longest:
            return None
        return Sentence(indices, choices, text, target, foil, prompt)

    def at(self, indices: Sequence[int]) -> Sentence | None:
        """The sentence of these options; None if an index is out of range, or as in `derive`."""
        taken = iter(indices)
        try:
            return self.derive(lambda name, labels: next(taken))
        except IndexError:
            return None

    def named(self, choices: Mapping[str, str]) -> Sentence | None:
        """The sentence of these labels, such as a Counterexample's choices; None as in `derive`.

        Raises GrammarError if a choice is missing, or has no such option after the earlier choices.
        """

        def choose(name: str, labels: Sequence[str]) -> int:
            if choices.get(name) not in labels:
                raise GrammarError(
                    f"{self.condition}: {name!r} cannot be {choices.get(name)!r} here; it is one "
                    f"of {', '.join(labels)}"
                )
            return labels.index(choices[name])

        return self.derive(choose)

    def sample(self, n: int, rng: np.random.Generator) -> list[Sentence]:
        """At most n different sentences, drawn choice by choice.

        So each prefix, frame and relation is about as frequent as any other of its kind, regardless
        of the number of sentences that contain it.
        """
        found: dict[Indices, Sentence] = {}
        for _ in range(TRIES * n):
            if len(found) == n:
                break
            sentence = self.derive(lambda name, labels: int(rng.integers(len(labels))))
            if sentence is not None:
                found.setdefault(sentence.indices, sentence)
        return list(found.values())

    def simpler(self, sentence: Sentence) -> list[Sentence]:
        """All sentences in which one choice has a lower index and the others are unchanged."""
        own = sentence.indices
        changed = (
            (*own[:place], lower, *own[place + 1 :])
            for place, index in enumerate(own)
            for lower in range(index)
        )
        return [other for indices in changed if (other := self.at(indices)) is not None]

    def corners(self, indices: Indices) -> list[Sentence]:
        """All sentences in which each choice has the given index or 0: at most 2^choices."""
        ends = [sorted({0, index}) for index in indices]
        return [found for each in product(*ends) if (found := self.at(each)) is not None]

    # Facts, which three of the conditions are built on -------------------------------------------

    def _questions(self) -> dict[str, dict[str, tuple[Fact, dict[str, str]]]]:
        """Relation -> subject -> the fact, and the wrong answers it can be contrasted with.

        As in the corpora, a fact is used only if its answer is one token in their templates.
        """
        templates = [Template.parse(cell) for cell in self.knowledge.wording.corpus.facts]
        relations = {}
        for name, relation in self.knowledge.relations.items():
            usable = [
                fact
                for fact in self.knowledge.facts(name)
                if not contains_word(phrase(self.knowledge, fact), fact.answer)
                and all(
                    is_one_token(
                        self.tokenizer,
                        fact_prompt(self.knowledge, template, fact),
                        f" {fact.answer}",
                    )
                    for template in templates
                )
            ]
            answers = _named(fact.answer for fact in usable)
            subjects = {}
            for fact in usable:
                wrong = _named(
                    answer
                    for answer in answers
                    if relation.contrasts(fact.answer, answer)
                    and not contains_word(phrase(self.knowledge, fact), answer)
                )
                if wrong:
                    subjects[fact.subject] = (fact, wrong)
            if subjects:
                relations[name] = subjects
        return relations


class FactsGrammar(Grammar):
    """A fact's answer against every plainly wrong answer of another fact of its relation."""

    condition = "facts"
    theme = ("relation",)
    _asked = "facts"

    def _contents(self) -> int:
        self._relations = self._questions()
        return sum(
            len(wrong) for subjects in self._relations.values() for _, wrong in subjects.values()
        )

    def _words(self, derivation: _Derivation, template: Template) -> tuple[str, str, str]:
        subjects = derivation.take("relation", self._relations)
        fact, wrong = derivation.take("subject", subjects)
        foil = derivation.take("foil", wrong)
        return fact_prompt(self.knowledge, template, fact), fact.answer, foil


class _TruthGrammar(Grammar):
    """Base of the conditions that ask whether a statement is true."""

    _asked = "truth"

    def _contents(self) -> int:
        self._relations = self._questions()
        return self._statements()

    @abstractmethod
    def _statements(self) -> int:
        """The number of statements to ask about."""

    def _about(
        self, derivation: _Derivation, holds: bool, which: str = "", not_of: str = ""
    ) -> tuple[Fact, str]:
        """A fact of a relation other than `not_of`, with its answer, or a wrong one unless `holds`.

        which: "first " or "second ", if a sentence has two of them.
        """
        relations = {name: of for name, of in self._relations.items() if name != not_of}
        subjects = derivation.take(f"{which}relation", relations)
        fact, wrong = derivation.take(f"{which}subject", subjects)
        objects = {fact.answer: fact.answer} if holds else wrong
        return fact, derivation.take(f"{which}object", objects)

    def _question(self, template: Template, statement: str, truth: bool) -> tuple[str, str, str]:
        labels = self.knowledge.wording.labels
        right, wrong = (labels.true, labels.false) if truth else (labels.false, labels.true)
        return truth_prompt(self.knowledge, template, statement), right, wrong


class NegationGrammar(_TruthGrammar):
    """A statement, affirmed or negated, that is true or false."""

    condition = "negation"
    theme = ("operator", "truth", "relation")
    _operators: ClassVar[Mapping[str, Callable[[Knowledge, Fact, str], str]]] = {
        "affirmed": affirmed,
        "negated": negated,
    }

    def _statements(self) -> int:
        per_operator = sum(
            1 + len(wrong)
            for subjects in self._relations.values()
            for _, wrong in subjects.values()
        )
        return len(self._operators) * per_operator

    def _words(self, derivation: _Derivation, template: Template) -> tuple[str, str, str]:
        make = derivation.take("operator", self._operators)
        truth = derivation.take("truth", {"true": True, "false": False})
        fact, obj = self._about(derivation, holds=truth == (make is affirmed))
        return self._question(template, make(self.knowledge, fact, obj), truth)


class LogicGrammar(_TruthGrammar):
    """Two statements of different relations joined by "and" or "or"; the cell says which hold."""

    condition = "logic"
    theme = ("operator", "cell", "first relation")
    _operators: ClassVar[Mapping[str, str]] = {"and": "and", "or": "or"}
    _cells: ClassVar[Mapping[str, tuple[bool, bool]]] = {
        "TT": (True, True),
        "TF": (True, False),
        "FT": (False, True),
        "FF": (False, False),
    }

    def _statements(self) -> int:
        per_relation = [
            sum(1 + len(wrong) for _, wrong in subjects.values())
            for subjects in self._relations.values()
        ]
        total = sum(per_relation)
        return len(self._operators) * sum(own * (total - own) for own in per_relation)

    def _words(self, derivation: _Derivation, template: Template) -> tuple[str, str, str]:
        operator = derivation.take("operator", self._operators)
        cell = derivation.take("cell", self._cells)
        first = self._about(derivation, cell[0], "first ")
        second = self._about(derivation, cell[1], "second ", not_of=first[0].relation)
        truth = all(cell) if operator == "and" else any(cell)
        parts = (affirmed(self.knowledge, *part) for part in (first, second))
        return self._question(template, compound(self.knowledge, operator, *parts), truth)


class CounterfactualGrammar(Grammar):
    """An entity of one kind moved into another; the foil is the word of its own kind."""

    condition = "counterfactual"
    theme = ("attribute", "kind", "new kind")
    _asked = "counterfactual"

    def _contents(self) -> int:
        """Also sets the choices: attribute -> kind -> its entities, and the kinds to move to."""
        kinds = self.knowledge.kinds
        self._attributes: dict[str, dict[str, tuple[dict[str, Member], dict[str, str]]]] = {}
        for attribute in kinds.attributes:
            words = {
                kind: word
                for kind in kinds.kinds
                if self._is_answer(kind, attribute, word := kinds.word(kind, attribute))
            }
            moves = {}
            for kind, word in words.items():
                entities = {member.entity: member for member in kinds.members(kind)}
                others = _named(other for other, its in words.items() if its != word)
                if entities and others:
                    moves[kind] = (entities, others)
            if moves:
                self._attributes[attribute] = moves
        return sum(
            len(entities) * len(others)
            for moves in self._attributes.values()
            for entities, others in moves.values()
        )

    def _is_answer(self, kind: str, attribute: str, word: str) -> bool:
        """Whether the word is one token after the corpora's first template about the kind."""
        template = Template.parse(self.knowledge.wording.corpus.counterfactual[0])
        text = counterfactual_prompt(self.knowledge, template, kind, kind, attribute)
        return is_one_token(self.tokenizer, text, f" {word}")

    def _words(self, derivation: _Derivation, template: Template) -> tuple[str, str, str]:
        attribute = derivation.take("attribute", {name: name for name in self._attributes})
        entities, others = derivation.take("kind", self._attributes[attribute])
        member = derivation.take("entity", entities)
        kind = derivation.take("new kind", others)
        kinds = self.knowledge.kinds
        return (
            counterfactual_prompt(self.knowledge, template, member.entity, kind, attribute),
            kinds.word(kind, attribute),
            kinds.word(member.kind, attribute),
        )


GRAMMARS: Mapping[str, type[Grammar]] = {
    made.condition: made
    for made in (FactsGrammar, NegationGrammar, CounterfactualGrammar, LogicGrammar)
}


def grammar_of(
    condition: str,
    knowledge: Knowledge,
    tokenizer: "PreTrainedTokenizerBase",
    *,
    bos: int | None = None,
    longest: int | None = None,
) -> Grammar:
    """The grammar of a condition; GrammarError if it has none, or no prompt is left.

    bos: the id to prepend to every prompt, or None; longest: the model's maximum number of ids.
    """
    if condition not in GRAMMARS:
        raise GrammarError(
            f"{condition!r} has no grammar; there are those of {', '.join(GRAMMARS)}"
        )
    return GRAMMARS[condition](knowledge, tokenizer, bos=bos, longest=longest)


def _named(names: Iterable[str] | Iterator[str]) -> dict[str, str]:
    """Options that are their own labels, in order, without duplicates."""
    return {name: name for name in names}
