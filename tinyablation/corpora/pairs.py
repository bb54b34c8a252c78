"""Pairs of facts and of entities, and the split of each.

Pairs are matched so that as many facts as possible have a partner, if possible of equal token
length. A pair is one cluster and never crosses a split.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import networkx
import numpy as np

from tinyablation.corpora.examples import SPLITS, contains_word
from tinyablation.corpora.filtering import BuildReport
from tinyablation.corpora.knowledge import Fact, Knowledge, Member
from tinyablation.corpora.tokenisation import encode, is_one_token
from tinyablation.corpora.wording import Template, fact_prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

T = TypeVar("T")


class FactPair(NamedTuple):
    """Two facts of one relation; the answer of each is the foil of the other."""

    first: Fact
    second: Fact

    @property
    def id(self) -> str:
        return f"{self.first.relation}/{self.first.subject}~{self.second.subject}"

    def wrong(self, fact: Fact) -> str:
        return self.second.answer if fact == self.first else self.first.answer


class MemberPair(NamedTuple):
    """Two entities of different kinds; each is moved into the kind of the other."""

    first: Member
    second: Member

    @property
    def id(self) -> str:
        return f"{self.first.id}~{self.second.id}"


def corpus_generator(seed: int, purpose: str) -> np.random.Generator:
    """The Generator of the corpora, older than statistics.generator; kept so their bytes stay."""
    return np.random.default_rng([seed, *purpose.encode()])


def match(
    items: Sequence[T], contrast: Callable[[T, T], int | None], rng: np.random.Generator
) -> list[tuple[int, int]]:
    """A maximum matching of the items, as index pairs; random among the best matches.

    contrast: None if two items cannot be a pair, else how well they match, 1 or 0.
    """
    graph = networkx.Graph()
    graph.add_nodes_from(range(len(items)))
    for a in range(len(items)):
        for b in range(a + 1, len(items)):
            score = contrast(items[a], items[b])
            if score is not None:
                # The random part only breaks ties: over 100 pairs it stays below one length
                # match.
                graph.add_edge(a, b, weight=1000 * score + int(rng.integers(10)))
    matching = networkx.max_weight_matching(graph, maxcardinality=True)
    return sorted((min(edge), max(edge)) for edge in matching)


def assign(
    pairs: Sequence[T], by: Callable[[T], str], rng: np.random.Generator
) -> list[tuple[T, str]]:
    """Pairs with their split, half and half within each group."""
    assigned = []
    groups: dict[str, list[T]] = {}
    for pair in pairs:
        groups.setdefault(by(pair), []).append(pair)
    turn = 0
    for group in groups.values():
        for index in rng.permutation(len(group)):
            assigned.append((group[index], SPLITS[turn % 2]))
            turn += 1
    return assigned


def turns(pairs: Iterable[tuple[T, str]]) -> Iterable[tuple[int, T, str]]:
    """(number within its split, pair, split), so that templates rotate within each split."""
    counts: Counter[str] = Counter()
    for pair, split in pairs:
        yield counts[split], pair, split
        counts[split] += 1


class Pairing:
    """Makes the pairs for one tokenizer; items without a partner are counted in the report."""

    def __init__(
        self,
        knowledge: Knowledge,
        tokenizer: "PreTrainedTokenizerBase",
        seed: int,
        report: BuildReport,
    ) -> None:
        self.knowledge = knowledge
        self.tokenizer = tokenizer
        self.seed = seed
        self.report = report
        self.templates = [Template.parse(cell) for cell in knowledge.wording.corpus.facts]

    def facts(self) -> list[tuple[FactPair, str]]:
        """Pairs of facts whose answers are one token in every template, with their split."""
        pairs = []
        for relation in self.knowledge.relations:
            usable = []
            for fact in self.knowledge.facts(relation):
                prompts = [fact_prompt(self.knowledge, cell, fact) for cell in self.templates]
                if all(is_one_token(self.tokenizer, text, f" {fact.answer}") for text in prompts):
                    usable.append(fact)
                else:
                    self.report.drop("facts", f"{relation}: the answer is more than one token")
            rng = corpus_generator(self.seed, f"pairs {relation}")
            matched = match(usable, self._contrast, rng)
            pairs += [FactPair(usable[a], usable[b]) for a, b in matched]
            self.report.drop("facts", f"{relation}: no partner", len(usable) - 2 * len(matched))
        rng = corpus_generator(self.seed, "split facts")
        return assign(pairs, lambda pair: pair.first.relation, rng)

    def _contrast(self, first: Fact, second: Fact) -> int | None:
        relation = self.knowledge.relations[first.relation]
        if not relation.contrasts(first.answer, second.answer):
            return None
        for fact in (first, second):
            for answer in (first.answer, second.answer):
                if contains_word(fact.subject, answer):
                    return None
        lengths = [
            self._length(fact_prompt(self.knowledge, self.templates[0], fact))
            for fact in (first, second)
        ]
        return int(lengths[0] == lengths[1])

    def members(self) -> list[tuple[MemberPair, str]]:
        """Pairs of entities of different kinds, with their split."""
        kinds = self.knowledge.kinds
        members = [member for kind in kinds.kinds for member in kinds.members(kind)]
        lengths = {kind: self._length(f"dogs were {kind}") for kind in kinds.kinds}

        def contrast(first: Member, second: Member) -> int | None:
            if first.kind == second.kind:
                return None
            return int(lengths[first.kind] == lengths[second.kind])

        matched = match(members, contrast, corpus_generator(self.seed, "members"))
        pairs = [MemberPair(members[a], members[b]) for a, b in matched]
        rng = corpus_generator(self.seed, "split kinds")
        return assign(pairs, lambda pair: pair.first.kind, rng)

    def quads(self, pairs: Sequence[FactPair]) -> list[tuple[FactPair, FactPair]]:
        """Pairs of pairs of different relations, in a drawn order."""

        def contrast(first: FactPair, second: FactPair) -> int | None:
            return None if first.first.relation == second.first.relation else 0

        matched = match(pairs, contrast, corpus_generator(self.seed, "quads"))
        if len(pairs) - 2 * len(matched):
            self.report.drop("logic", "pairs without a partner", len(pairs) - 2 * len(matched))
        found = [(pairs[a], pairs[b]) for a, b in matched]
        order = corpus_generator(self.seed, "quad order").permutation(len(found))
        return [found[index] for index in order]

    def _length(self, text: str) -> int:
        return len(encode(self.tokenizer, text))
