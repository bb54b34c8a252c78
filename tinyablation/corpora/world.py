"""The natural world: facts that language models can be expected to know, and how to ask for them.

The tables are TOML files in one folder (`corpora/knowledge/natural/`), by theme: each holds
relations, and nonces.toml holds words without meaning. Only what a program can decide is checked
here: the author has to make sure that facts are true and questions natural.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, model_validator

from tinyablation.corpora.examples import contains_word
from tinyablation.corpora.knowledge import (
    Fact,
    Facts,
    KnowledgeError,
    Table,
    Word,
    load_table,
    load_tables,
    require_fields,
)

NEGATION = frozenset({"not", "never", "does", "do", "did"})  # what `denies` adds to an ask
NONCES = "nonces.toml"
FRAMES = "frames.toml"  # how facts become prompts: see frames.py
FEWEST_FACTS = 12  # enough for some facts of each relation in both splits for every tokenizer

Kind = Literal["name", "word"]  # of the subjects; what replaces them must be of the same kind
# Text as it occurs in a sentence; a line break or double space would become separate tokens.
Phrase = Annotated[str, Field(pattern=r"^\S+( \S+)*$")]


class WorldRelation(Facts):
    """One relation: its facts, and the prompts that ask for their answers.

    The affirmed statement of a fact is asks[0] plus its answer; `denies` is its negation.
    """

    title: Phrase
    kind: Kind
    asks: list[Phrase] = Field(min_length=5)
    denies: Phrase
    null: Phrase
    facts: dict[Phrase, Word] = Field(min_length=FEWEST_FACTS)

    @model_validator(mode="after")
    def _asks_have_a_subject_and_differ(self) -> "WorldRelation":
        for index, ask in enumerate(self.asks):
            require_fields(f"asks.{index}", ask, "subject")
            if ask[-1] in ".?!":
                raise ValueError(f"asks.{index}: {ask!r} ends a sentence; the answer must follow")
            if self.asks.index(ask) != index:
                raise ValueError(f"asks.{index}: {ask!r} is listed twice")
        return self

    @model_validator(mode="after")
    def _denies_is_the_first_ask_negated(self) -> "WorldRelation":
        require_fields("denies", self.denies, "subject", "object")
        if not self.denies.endswith(" {object}"):
            raise ValueError(f"denies: {self.denies!r} must end with ' {{object}}'")
        words = self.denies.removesuffix(" {object}").split()
        kept = [word for word in words if word not in NEGATION]
        asked = self.asks[0].split()
        # "stands for" becomes "does not stand for"
        same = len(kept) == len(asked) and all(
            there in (here, f"{here}s") for here, there in zip(kept, asked, strict=True)
        )
        if not same or not {"not", "never"} & set(words):
            raise ValueError(f"denies: {self.denies!r} is not asks.0, {self.asks[0]!r}, negated")
        return self

    @model_validator(mode="after")
    def _answers_are_not_given_away(self) -> "WorldRelation":
        for index, ask in enumerate([*self.asks, self.denies]):
            place = f"asks.{index}" if index < len(self.asks) else "denies"
            around = ask.replace("{subject}", "").replace("{object}", "")
            for subject, answer in self.facts.items():
                if contains_word(around, answer):
                    raise ValueError(f"{place}: it contains {answer!r}, the answer of {subject!r}")
        for subject, answer in self.facts.items():
            if contains_word(subject, answer):
                raise ValueError(f"facts: {subject!r} contains its own answer, {answer!r}")
        return self

    @model_validator(mode="after")
    def _every_fact_has_a_foil(self) -> "WorldRelation":
        for subject in self.facts:
            if not self.foils(subject):
                raise ValueError(f"facts: no other answer is plainly wrong for {subject!r}")
        return self

    def foils(self, subject: str) -> list[str]:
        """Answers that are plainly wrong for `subject` and not part of it, in table order."""
        answer = self.facts[subject]
        others = dict.fromkeys(self.facts.values())
        return [
            other
            for other in others
            if self.contrasts(answer, other) and not contains_word(subject, other)
        ]


class Nonces(Table):
    """Words without meaning, used as subjects about which nothing can be known."""

    names: list[Word] = Field(min_length=FEWEST_FACTS)
    words: list[Word] = Field(min_length=FEWEST_FACTS)

    @model_validator(mode="after")
    def _all_are_different(self) -> "Nonces":
        both = [word.lower() for word in (*self.names, *self.words)]
        for word in both:
            if both.count(word) > 1:
                raise ValueError(f"{word!r} is listed twice")
        return self

    def of(self, kind: Kind) -> list[str]:
        """The nonces that can replace subjects of this kind."""
        return self.names if kind == "name" else self.words


class World(NamedTuple):
    relations: Mapping[str, WorldRelation]
    nonces: Nonces

    def facts(self, relation: str) -> list[Fact]:
        table = self.relations[relation].facts
        return [Fact(relation, subject, answer) for subject, answer in table.items()]


def load_world(folder: Path) -> World:
    """Read every table of `folder`; KnowledgeError names the file, the relation and the field."""
    if not folder.is_dir():
        raise KnowledgeError(f"{folder}: no such folder of knowledge tables")
    nonces = load_table(folder / NONCES, Nonces)
    relations: dict[str, WorldRelation] = {}
    read_from: dict[str, Path] = {}
    for path in sorted(folder.glob("*.toml")):
        if path.name in (NONCES, FRAMES):
            continue
        for name, relation in load_tables(path, WorldRelation).items():
            if name in relations:
                raise KnowledgeError(f"{path}: {name}: is also in {read_from[name].name}")
            _no_nonce_means_something(path, name, relation, nonces)
            relations[name], read_from[name] = relation, path
    if not relations:
        raise KnowledgeError(f"{folder}: no table of relations beside {NONCES}")
    return World(relations, nonces)


def _no_nonce_means_something(
    path: Path, name: str, relation: WorldRelation, nonces: Nonces
) -> None:
    texts = (*relation.asks, relation.null, *relation.facts, *relation.facts.values())
    known = {word.lower() for text in texts for word in re.findall(r"\w+", text)}
    for nonce in (*nonces.names, *nonces.words):
        if nonce.lower() in known:
            raise KnowledgeError(f"{path}: {name}: {nonce!r} occurs in it and also in {NONCES}")
