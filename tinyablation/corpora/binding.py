"""The corpus "binding": which of two things has a property is read from the prompt itself.

"A red car and a blue truck were in the picture. The red" -> " car", not " truck". Both answers
occur in the prompt (see conditions.IN_CONTEXT), so no other cue may be informative. Two nouns and
two adjectives make a cluster of eight prompts: either noun has either adjective, in either order,
and either is asked for. So each noun is target as often as foil, after each adjective and in each
position; no noun, no colour and no position is right more often than not.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path
from string import Formatter
from typing import TYPE_CHECKING, Annotated, NamedTuple

from pydantic import Field, model_validator

from tinyablation.corpora.examples import BINDING, SPLITS, Corpus, Example, Split, contains_word
from tinyablation.corpora.filtering import LEAST_PROMPTS, BuildReport, TooFewPrompts, finish
from tinyablation.corpora.knowledge import Name, Table, load_table, require_fields
from tinyablation.corpora.tokenisation import encode, is_one_token
from tinyablation.corpora.wording import Template
from tinyablation.statistics.intervals import generator

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FILE = "binding.toml"
CLUSTERS_PER_SPLIT = 16  # of eight prompts each: 256 prompts in both splits
# The cells: whether the thing asked for was introduced first or second. A model that always names
# the last one is right in one cell only, and therefore never competent.
FIRST, SECOND = "first", "second"

LowerWord = Annotated[str, Field(pattern=r"^[a-z]+$")]


class Thing(NamedTuple):
    adjective: str
    noun: str

    def __str__(self) -> str:
        return f"{self.adjective} {self.noun}"


class BindingTable(Table):
    """binding.toml: the words, and the frames that introduce two things and ask for one."""

    adjectives: list[LowerWord] = Field(min_length=2)
    nouns: list[LowerWord] = Field(min_length=4)  # at least two per split
    frames: dict[Name, str] = Field(min_length=1)

    @model_validator(mode="after")
    def _words_are_told_apart(self) -> "BindingTable":
        seen: dict[str, str] = {}
        for where, words in (("adjectives", self.adjectives), ("nouns", self.nouns)):
            for word in words:
                if word in seen:
                    raise ValueError(f"{where}: {word!r} is already listed under {seen[word]}")
                seen[word] = where
        for word in self.adjectives:
            if word[0] in "aeiou":
                raise ValueError(f'adjectives: {word!r} cannot follow "a"; use another')
        return self

    @model_validator(mode="after")
    def _frames_ask_for_one_of_two(self) -> "BindingTable":
        for name, frame in self.frames.items():
            where = f"frames.{name}"
            require_fields(where, frame, "first", "second", "asked")
            pieces = [(text, field) for text, field, *_ in Formatter().parse(frame)]
            if [field for _, field in pieces] != ["first", "second", "asked"]:
                raise ValueError(
                    f"{where}: {frame!r} must have {{first}}, {{second}} and {{asked}} in this "
                    "order, each once, and nothing after {asked}"
                )
            for text, field in pieces[:2]:
                if not re.search(r"(?i)\ba $", text):
                    raise ValueError(f'{where}: {frame!r} must have "a " before {{{field}}}')
            for word in (*self.adjectives, *self.nouns):
                if any(contains_word(text, word) for text, _ in pieces):
                    raise ValueError(f"{where}: {frame!r} contains {word!r}, a word of this file")
        return self

    def prompt(self, frame: str, first: Thing, second: Thing, asked: str) -> str:
        """The prompt up to but excluding the answer, with a capital letter at the front."""
        text = self.frames[frame].format(first=first, second=second, asked=asked)
        return text[0].upper() + text[1:]


def load_binding(folder: Path) -> BindingTable:
    """Read binding.toml of the knowledge folder; KnowledgeError names the file and the field."""
    return load_table(folder / FILE, BindingTable)


def build_binding(
    table: BindingTable,
    tokenizer: "PreTrainedTokenizerBase",
    name: str,
    *,
    null: str,
    seed: int = 0,
    report: BuildReport,
) -> tuple[Corpus, Split] | None:
    """The corpus and its split; None, with the reason in the report, if there are too few words.

    Only words that are one token after a space are kept. No noun is in both splits. null: the
    neutral word that replaces the nouns in null prompts; the adjectives stay, so the LD of a null
    prompt is the effect of the adjectives alone. The same inputs give the same bytes.
    """
    adjectives = _one_token(tokenizer, "The", table.adjectives, "an adjective", report)
    nouns = _one_token(tokenizer, f"The {table.adjectives[0]}", table.nouns, "a noun", report)
    order = generator(seed, f"{BINDING} nouns").permutation(len(nouns))
    # Each split takes every second noun, so the two halves differ by one noun at most.
    halves = [[nouns[index] for index in order[part :: len(SPLITS)]] for part in range(len(SPLITS))]
    noun_pairs = [list(_pairs(half))[:CLUSTERS_PER_SPLIT] for half in halves]
    size = min(map(len, noun_pairs))
    rows: list[tuple[Example, str]] = []
    for split, pairs in zip(SPLITS, noun_pairs, strict=True):
        rng = generator(seed, f"{BINDING} adjectives {split}")
        drawn = [adjectives[index] for index in rng.permutation(len(adjectives))]
        colours = list(_pairs(drawn))
        # zip stops at the shorter one, so without a pair of adjectives there are no rows.
        for turn, (pair, both) in enumerate(zip(pairs[:size], cycle(colours), strict=False)):
            frame = list(table.frames)[turn % len(table.frames)]
            rows += [(row, split) for row in _cluster(table, tokenizer, frame, pair, both, null)]
    try:
        return finish(tokenizer, name, BINDING, rows, seed, report)
    except TooFewPrompts:
        report.skipped[BINDING] = (
            f"{report.made.pop(BINDING)} prompts are left, {LEAST_PROMPTS} are wanted: "
            f"{len(adjectives)} of {len(table.adjectives)} adjectives and {len(nouns)} of "
            f"{len(table.nouns)} nouns are one token"
        )
        return None


def _one_token(
    tokenizer: "PreTrainedTokenizerBase",
    before: str,
    words: Sequence[str],
    what: str,
    report: BuildReport,
) -> list[str]:
    kept = [word for word in words if is_one_token(tokenizer, before, f" {word}")]
    report.drop(BINDING, f"{what} is more than one token", len(words) - len(kept))
    return kept


def _pairs(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Every unordered pair once, disjoint neighbours first, so that words are used evenly."""
    n = len(words)
    seen: set[frozenset[int]] = set()
    for distance in range(1, n // 2 + 1):
        for start in (0, 1):
            for index in range(start, n, 2):
                pair = index, (index + distance) % n
                if frozenset(pair) not in seen:
                    seen.add(frozenset(pair))
                    yield words[pair[0]], words[pair[1]]


def _cluster(
    table: BindingTable,
    tokenizer: "PreTrainedTokenizerBase",
    frame: str,
    nouns: tuple[str, str],
    adjectives: tuple[str, str],
    null: str,
) -> Iterator[Example]:
    """The eight prompts of two nouns and two adjectives."""
    cluster = f"{BINDING}/{'~'.join(nouns)}"
    for bound in (adjectives, adjectives[::-1]):
        things = Thing(bound[0], nouns[0]), Thing(bound[1], nouns[1])
        for first, second in (things, things[::-1]):
            nothing = first._replace(noun=null), second._replace(noun=null)
            for cell, asked, other in ((FIRST, first, second), (SECOND, second, first)):
                clean = table.prompt(frame, first, second, asked.adjective)
                corrupt = table.prompt(frame, first, second, other.adjective)
                yield Example(
                    clean=clean,
                    corrupt=corrupt,
                    null=table.prompt(frame, *nothing, asked.adjective),
                    target=f" {asked.noun}",
                    foil=f" {other.noun}",
                    fact_id=f"{cluster}/{asked}",
                    template_id=Template("plain", frame).id,
                    cluster_id=cluster,
                    cell=cell,
                    aligned=len(encode(tokenizer, clean)) == len(encode(tokenizer, corrupt)),
                )
