"""Corrupt prompts about unknown things: the clean prompt with every word of content replaced.

The pairs of most corpora stand in both orders: what is clean in one is corrupt in its mirror. Then
clean activations in the corrupt run are, for the mirror, corrupt activations in the clean run, and
no comparison of the two can come out. Here the corrupt prompt has no answer: its subject, and
whatever else the answer follows from, is replaced by words of which no model can know anything, of
as many tokens (as "ABC" prompts are in Wang et al. 2022, "Interpretability in the Wild").
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from difflib import SequenceMatcher
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from tinyablation.corpora.examples import Example
from tinyablation.corpora.knowledge import Knowledge, load_knowledge, load_table
from tinyablation.corpora.natural import NATURAL
from tinyablation.corpora.tokenisation import Encoder, encode
from tinyablation.corpora.world import NONCES, Nonces
from tinyablation.memo import Memo
from tinyablation.statistics.intervals import generator

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Fewer letters of a made-up word are no name: tokenizers keep single letters of words they lack.
FEWEST_LETTERS = 3
TRIES = 8  # words that are tried before a prompt is given up
_WORD = re.compile(r"\w+|[^\w\s]")
_BEFORE = "so"  # a word's tokens are counted after another: some tokenizers mark the first word
OPERATORS = frozenset({"and", "or", "not"})  # of statements: wording, not content
_ANSWER = "\0"  # stands for target and foil while two prompts are compared


class UnknownWords:
    """Makes corrupt prompts for one tokenizer; the same seed makes the same ones.

    knowledge: the folder of the knowledge tables. Words are made-up ones of nonces.toml, or their
    first tokens; where the tokenizer has none of so many tokens, words of the embedded world that
    no fact of the prompt's relation holds, nor of any relation with a word in common.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", knowledge: Path, seed: int) -> None:
        self.tokenizer = tokenizer
        self.knowledge = knowledge
        self.seed = seed
        self._lengths: dict[str, int] = {}
        self._encoder = Encoder(tokenizer)
        self._memo = Memo()

    def corrupted(self, example: Example) -> Example | None:
        """The example with a corrupt prompt about unknown things, aligned; answers are kept.

        None if no words of as many tokens are known, or nothing in the prompt can be replaced.
        """
        places = content(example)
        standing = [example.clean[start:end] for start, end in places]
        # A word that begins a sentence is the same as elsewhere.
        keys = {word: word.lower() if word.lower() in standing else word for word in standing}
        words = list(dict.fromkeys(keys.values()))
        if not words:
            return None
        wanted = len(encode(self._encoder, example.clean))
        offers = {word: self._offers(example, word) for word in words}
        # What stands in its prompts already cannot be unknown there.
        known = {each.lower() for each in _WORD.findall(f"{example.clean} {example.corrupt}")}
        for turn in range(TRIES):
            chosen: dict[str, str] = {}
            for word in words:
                free = [
                    each
                    for each in offers[word]
                    if each.lower() not in known and each not in chosen.values()
                ]
                if not free:
                    return None
                chosen[word] = free[turn % len(free)]
            corrupt = example.clean
            for (start, end), word in reversed([*zip(places, standing, strict=True)]):
                other = chosen[keys[word]]
                other = other if keys[word] == word else other[0].upper() + other[1:]
                corrupt = corrupt[:start] + other + corrupt[end:]
            if len(encode(self._encoder, corrupt)) == wanted:
                return replace(example, corrupt=corrupt, aligned=True)
        return None

    def _offers(self, example: Example, word: str) -> list[str]:
        """Words that may replace this one, in an order drawn by (seed, fact, word)."""
        # The wordings of a fact share them.
        asked = "offers", example.fact_id, example.target, example.foil, word
        return self._memo(asked, lambda: self._drawn(example, word))

    def _drawn(self, example: Example, word: str) -> list[str]:
        length = self._length(word)
        kind = self._nonces.of("name" if word[0].isupper() else "word") if self._nonces else []
        offers = self._made_up(tuple(kind)).get(length) or [
            each for each in self._others(example) if self._length(each) == length
        ]
        rng = generator(self.seed, f"unknown {example.fact_id} {word}")
        return [offers[int(index)] for index in rng.permutation(len(offers))]

    def _length(self, word: str) -> int:
        if word not in self._lengths:
            before, after = (
                len(encode(self._encoder, text)) for text in (_BEFORE, f"{_BEFORE} {word}")
            )
            self._lengths[word] = after - before
        return self._lengths[word]

    @cached_property
    def _nonces(self) -> Nonces | None:
        path = self.knowledge / NATURAL / NONCES
        return load_table(path, Nonces) if path.exists() else None

    @cached_property
    def _known(self) -> Knowledge | None:
        """The tables of the embedded world; None if the folder has none."""
        return load_knowledge(self.knowledge) if (self.knowledge / "facts.toml").exists() else None

    def _made_up(self, words: tuple[str, ...]) -> Mapping[int, list[str]]:
        """Number of tokens -> the words of so many, and the first tokens of longer words."""
        if words not in self._fragments:
            found: dict[int, list[str]] = {}
            self._encoder.read(f"{_BEFORE} {word}" for word in words)
            for word in words:
                found.setdefault(self._length(word), []).append(word)
            for word in words:
                before = len(encode(self._encoder, _BEFORE))
                ids = encode(self._encoder, f"{_BEFORE} {word}")[before:]
                for length in range(1, len(ids)):
                    part = str(self.tokenizer.decode(list(ids[:length]))).strip()
                    if (
                        len(part) >= FEWEST_LETTERS
                        and part.isalpha()
                        and self._length(part) == length
                        and part not in found.get(length, ())
                    ):
                        found.setdefault(length, []).append(part)
            self._fragments[words] = found
        return self._fragments[words]

    @cached_property
    def _fragments(self) -> dict[tuple[str, ...], Mapping[int, list[str]]]:
        return {}

    def _others(self, example: Example) -> list[str]:
        """Words of the embedded world that are foreign to the fact's relation or kind."""
        domains = self._domains
        own = tuple(
            name for part in example.fact_id.split("+") if (name := part.split("/")[0]) in domains
        )
        foreign = self._memo(("foreign", own), lambda: self._foreign(own))
        return sorted(foreign - {example.target.strip(), example.foil.strip()})

    def _foreign(self, own: Sequence[str]) -> set[str]:
        """Every word of the embedded world but those of these domains, and of any that has one."""
        domains = self._domains
        foreign = set().union(*(words for words in domains.values()))
        for name in own:
            for words in domains.values():
                if words & domains[name]:
                    foreign -= words
        return foreign

    @cached_property
    def _domains(self) -> dict[str, frozenset[str]]:
        """Relation, or kind of thing -> every word of its facts. All kinds are one domain."""
        if self._known is None:
            return {}
        found = {
            name: frozenset(
                word
                for fact in self._known.facts(name)
                for word in _words(fact.subject, fact.answer)
            )
            for name in self._known.relations
        }
        kinds = self._known.kinds
        things = frozenset(
            word
            for kind in kinds.kinds
            for word in _words(
                kind,
                *(member.entity for member in kinds.members(kind)),
                *(kinds.word(kind, attribute) for attribute in kinds.attributes),
            )
        )
        return found | dict.fromkeys(kinds.kinds, things)


def content(example: Example) -> list[tuple[int, int]]:
    """The places (start, end) of the words of a clean prompt that its answer follows from.

    They are: words in which it differs from its corrupt prompt, or from a null prompt of the same
    wording; target and foil, wherever they stand; and the fact's subject.
    """
    clean = _marked(example.clean, example)
    found = set(_differing(clean, _marked(example.corrupt, example)))
    if example.null and _same_wording(clean, _marked(example.null, example)):
        found |= set(_differing(clean, _marked(example.null, example)))
    found |= {place for place, word in enumerate(clean) if word == _ANSWER}
    places = [match.span() for match in _WORD.finditer(example.clean)]
    subject = example.fact_id.partition("/")[2]
    for match in (
        re.finditer(rf"(?<!\w){re.escape(subject)}(?!\w)", example.clean) if subject else ()
    ):
        found |= {n for n, (at, end) in enumerate(places) if match.start() <= at < match.end()}
    return [
        (start, end)
        for start, end in (places[n] for n in sorted(found))
        if example.clean[start].isalnum() and example.clean[start:end] not in OPERATORS
    ]


def _marked(text: str, example: Example) -> list[str]:
    """The words of a text; target and foil are alike, so that their order makes no difference."""
    answers = {example.target.strip().lower(), example.foil.strip().lower()}
    return [_ANSWER if word.lower() in answers else word for word in _WORD.findall(text)]


def _differing(own: Sequence[str], other: Sequence[str]) -> Iterator[int]:
    """The places of `own` whose words differ from those of `other`."""
    if len(own) == len(other):
        yield from (place for place, (a, b) in enumerate(zip(own, other, strict=True)) if a != b)
        return
    for tag, start, end, _, _ in SequenceMatcher(None, own, other, autojunk=False).get_opcodes():
        if tag in ("replace", "delete"):
            yield from range(start, end)


def _same_wording(own: Sequence[str], other: Sequence[str]) -> bool:
    """Whether `other` is `own` with some words replaced, fewer than half of them."""
    same = 0
    for tag, start, end, _, _ in SequenceMatcher(None, own, other, autojunk=False).get_opcodes():
        if tag not in ("equal", "replace"):
            return False
        same += (end - start) * (tag == "equal")
    return same > len(own) / 2


def _words(*texts: str) -> Iterator[str]:
    for text in texts:
        yield from (word for word in _WORD.findall(text) if word[0].isalnum())
