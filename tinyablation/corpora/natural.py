"""Corpora of the natural world for one tokenizer: every fact in every wording of its family.

The unit is a pair of facts of one relation. The corpus has its prompts in both directions, so each
answer is target as often as foil, and the corrupt prompt of each example is the clean one of
another. Clusters are relations, and the two splits share none.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from tinyablation.corpora.binding import build_binding, load_binding
from tinyablation.corpora.builder import Built
from tinyablation.corpora.examples import BINDING, SPLITS, Corpus, Example, Split, contains_word
from tinyablation.corpora.filtering import LEAST_PROMPTS, BuildReport, TooFewPrompts
from tinyablation.corpora.frames import AS_ASKED, Family, Pair, load_frames, render
from tinyablation.corpora.knowledge import Fact
from tinyablation.corpora.pairs import corpus_generator, match
from tinyablation.corpora.tokenisation import encode
from tinyablation.corpora.world import World, WorldRelation, load_world

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# The number of facts of each relation that are tried, in pairs, to fill a family: pairs may drop
# out if a tokenizer merges an answer with the text before it.
SPARE = 3

_FIELD = re.compile(r"\{\w+\}")
NATURAL = "natural"  # the folder of its tables, within the knowledge folder
NOTHING = "something"  # replaces the content in null prompts


def build_natural(
    knowledge: Path,
    tokenizer: "PreTrainedTokenizerBase",
    name: str,
    *,
    seed: int = 0,
    strict: bool = False,
) -> Built:
    """The four conditions and "binding" for one tokenizer; the same inputs give the same bytes.

    knowledge: the folder that contains the folder "natural". Raises KnowledgeError, which names the
    file and the field, if a table cannot be used. strict: raise TooFewPrompts, which says what was
    dropped, if none of the four can be built.
    """
    report = BuildReport()
    world, frames = load_world(knowledge / NATURAL), load_frames(knowledge / NATURAL)
    builder = NaturalBuilder(world, frames, tokenizer, name, seed=seed, report=report)
    corpora, refused = builder.build()
    if strict and not corpora:
        raise TooFewPrompts(
            f"{name}: of no condition {LEAST_PROMPTS} prompts are left. What was dropped:\n"
            + "\n".join(f"  {line}" for line in report.lines())
        )
    bound = build_binding(
        load_binding(knowledge), tokenizer, name, null=NOTHING, seed=seed, report=report
    )
    if bound is not None:
        corpora[BINDING] = bound
    return Built(corpora, {**refused, **report.skipped}, report)


class NaturalBuilder:
    """Builds the conditions of one tokenizer; the same inputs give the same bytes."""

    def __init__(
        self,
        world: World,
        frames: Mapping[str, Mapping[str, Family]],
        tokenizer: "PreTrainedTokenizerBase",
        name: str,
        *,
        seed: int,
        report: BuildReport,
    ) -> None:
        self.world = world
        self.frames = frames
        self.tokenizer = tokenizer
        self.name = name
        self.seed = seed
        self.report = report
        self.splits = split_relations(tuple(world.relations), seed)
        self._pairs: dict[str, list[tuple[Fact, Fact]]] = {}
        # Most texts occur several times: the corrupt prompt of a row is the clean one of another.
        self._known_ids: dict[str, tuple[int, ...]] = {}

    def build(self) -> tuple[dict[str, tuple[Corpus, Split]], dict[str, str]]:
        """Condition -> (corpus, split), and condition -> why it has too few prompts left."""
        corpora: dict[str, tuple[Corpus, Split]] = {}
        refused: dict[str, str] = {}
        for condition, families in self.frames.items():
            self._seen: set[str] = set()
            rows = [
                row
                for name, family in families.items()
                for row in self._family(condition, name, family)
            ]
            self.report.made[condition] = len(rows)
            if len(rows) < LEAST_PROMPTS:
                reason = f"{len(rows)} prompts are left, {LEAST_PROMPTS} are wanted; "
                reason += self.report.reasons(condition)
                refused[condition] = self.report.skipped[condition] = reason
                continue
            corpus = Corpus.of(condition, self.name, rows)
            halves = {
                split: tuple(
                    n for n, row in enumerate(rows) if self.splits[row.cluster_id] == split
                )
                for split in SPLITS
            }
            corpora[condition] = corpus, Split(self.seed, corpus.content_hash, halves)
        return corpora, refused

    def _family(self, condition: str, name: str, family: Family) -> Iterator[Example]:
        for relation in self._relations(family):
            made = 0
            for pair in self._candidates(relation, family):
                rows = list(self._rows(name, family, pair))
                fault = next(filter(None, (self._fault(row, family) for row in rows)), None)
                if fault is not None:
                    self.report.drop(condition, f"{name}: {fault}", len(rows))
                    continue
                self._seen |= {row.clean for row in rows}
                yield from rows
                made += 1
                if made == family.pairs:
                    break
            if not made:
                self.report.drop(condition, f"{relation}: no pair of its facts can be asked", 1)

    def _relations(self, family: Family) -> Sequence[str]:
        """The relations of a family, in the order of the tables."""
        if isinstance(family.relations, list):
            return family.relations
        every = list(self.world.relations)
        if family.relations is None:
            return every
        rng = corpus_generator(self.seed, "relations of families")
        order = [every[int(index)] for index in rng.permutation(len(every))]
        drawn = {
            name
            for split in SPLITS
            for name in [one for one in order if self.splits[one] == split][: family.relations // 2]
        }
        return [name for name in every if name in drawn]

    def _candidates(self, relation: str, family: Family) -> Iterator[Pair]:
        """The pairs of a relation, those with prompts of equal length first."""
        found = self.pairs(relation)[: family.pairs + SPARE]
        if family.about == "opposites":
            yield from self._opposites(relation)
        elif family.about == "facts":
            yield from (Pair(first, second, first.subject) for first, second in found)
        else:
            nonces = self.world.nonces.of(self.world.relations[relation].kind)
            rng = corpus_generator(self.seed, f"nonces {relation}")
            order = rng.permutation(len(nonces))
            for turn, (first, second) in enumerate(found):
                yield Pair(first, second, nonces[int(order[turn % len(nonces)])])

    def pairs(self, relation: str) -> list[tuple[Fact, Fact]]:
        """Pairs of facts whose answers are one token after every question, best matched first."""
        if relation not in self._pairs:
            table = self.world.relations[relation]
            usable = [fact for fact in self.world.facts(relation) if self._one_token(table, fact)]
            self.report.drop(
                "facts",
                f"{relation}: the answer is more than one token",
                len(table.facts) - len(usable),
            )
            lengths = {
                fact: len(self._ids(table.asks[0].format(subject=fact.subject))) for fact in usable
            }

            def contrast(first: Fact, second: Fact) -> int | None:
                pair = (first, second)
                if not table.contrasts(first.answer, second.answer):
                    return None
                if any(contains_word(f.subject, g.answer) for f in pair for g in pair):
                    return None
                return int(lengths[first] == lengths[second])

            rng = corpus_generator(self.seed, f"pairs {relation}")
            matched = [(usable[a], usable[b]) for a, b in match(usable, contrast, rng)]
            order = [matched[int(index)] for index in rng.permutation(len(matched))]
            self._pairs[relation] = sorted(
                order, key=lambda pair: lengths[pair[0]] != lengths[pair[1]]
            )
        return self._pairs[relation]

    def _one_token(self, table: WorldRelation, fact: Fact) -> bool:
        asked = (ask.format(subject=fact.subject) for ask in table.asks)
        return all(self._answer_id(ask, f" {fact.answer}") is not None for ask in asked)

    def _ids(self, text: str) -> tuple[int, ...]:
        if text not in self._known_ids:
            self._known_ids[text] = encode(self.tokenizer, text)
        return self._known_ids[text]

    def _answer_id(self, prompt: str, answer: str) -> int | None:
        """The id of an answer after a prompt; None if it is not a single known token."""
        before, after = self._ids(prompt), self._ids(prompt + answer)
        if after[: len(before)] != before or len(after) != len(before) + 1:
            return None
        return None if after[-1] == self.tokenizer.unk_token_id else after[-1]

    def _opposites(self, relation: str) -> Iterator[Pair]:
        """Pairs of a word and its opposite, each a single word."""
        seen: set[frozenset[str]] = set()
        facts = self.world.facts(relation)
        order = corpus_generator(self.seed, f"opposites {relation}").permutation(len(facts))
        for index in order:
            fact = facts[int(index)]
            words = frozenset((fact.subject, fact.answer))
            if " " not in fact.subject and words not in seen:
                seen.add(words)
                back = Fact(relation, fact.answer, fact.subject)
                yield Pair(fact, back, fact.subject)

    def _rows(self, name: str, family: Family, pair: Pair) -> Iterator[Example]:
        """Every wording and cell, in both directions."""
        for wording, texts in family.wordings.items():
            for cell in texts:
                for way in (pair, _turned(family, pair)):
                    yield self._row(name, family, wording, cell, way)

    def _row(self, name: str, family: Family, wording: str, cell: str, pair: Pair) -> Example:
        relation = self.world.relations[pair.first.relation]
        texts = family.wordings[wording]
        clean = render(texts[cell], relation, pair)
        if family.labels is not None:
            target = family.target[cell]
            foil = next(label for label in family.labels if label != target)
            corrupt = render(texts[family.mirror_of(cell)], relation, pair)
        else:
            a, w = pair.first.answer, pair.second.answer
            target, foil = (a, w) if family.target[cell] == "a" else (w, a)
            corrupt = render(texts[cell], relation, _turned(family, pair))
        asked = texts[cell] if family.null == AS_ASKED else family.null
        about = pair.subject if family.about == "nonces" else relation.null
        return Example(
            clean=clean,
            corrupt=corrupt,
            null=render(asked, relation, pair._replace(subject=about)),
            target=f" {target}",
            foil=f" {foil}",
            fact_id=_fact_id(family, pair),
            template_id=f"{name}/{wording}",
            cluster_id=pair.first.relation,
            cell=cell,
            aligned=len(self._ids(clean)) == len(self._ids(corrupt)),
        )

    def _fault(self, row: Example, family: Family) -> str | None:
        """Why a row cannot be used; None if it can."""
        answers = (row.target, row.foil)
        if row.clean in self._seen:
            return "the same prompt again"
        wording = family.wordings[row.template_id.partition("/")[2]][row.cell]
        if any(contains_word(_FIELD.sub("", wording), answer) for answer in answers):
            return "an answer is a word of the wording itself"
        for side in ("clean", "corrupt", "null"):
            text = getattr(row, side)
            stands = any(contains_word(text, answer) for answer in answers)
            if stands and (not family.names_answers or side == "null"):
                return "an answer stands in a prompt"
            ids = [self._answer_id(text, answer) for answer in answers]
            if None in ids or ids[0] == ids[1]:
                return "the answers are not one token each after a prompt"
        return None


def _turned(family: Family, pair: Pair) -> Pair:
    """The pair in reverse: what the corrupt prompt is about."""
    if family.about == "opposites":
        return Pair(pair.second, pair.first, pair.second.subject)
    return pair.turned()


def _fact_id(family: Family, pair: Pair) -> str:
    relation, first, second = pair.first.relation, pair.first, pair.second
    if family.about == "facts":
        return f"{relation}/{first.subject}"
    return f"{relation}/{first.answer}~{second.answer}"


def split_relations(relations: Sequence[str], seed: int) -> dict[str, str]:
    """The split of every relation, half and half among relations of one kind ("opposite_size").

    It is the same for every tokenizer and condition.
    """
    rng = corpus_generator(seed, "split relations")
    found: dict[str, str] = {}
    kinds = Counter(name.split("_")[0] for name in relations)
    # Kinds with a single relation are pooled, in a drawn order, after the kinds with several.
    ordered = sorted(relations, key=lambda name: (kinds[name.split("_")[0]] == 1, name))
    turn = 0
    for _, group in groupby(
        ordered, key=lambda name: name.split("_")[0] if kinds[name.split("_")[0]] > 1 else ""
    ):
        members = list(group)
        for index in rng.permutation(len(members)):
            found[members[int(index)]] = SPLITS[turn % 2]
            turn += 1
    return found
