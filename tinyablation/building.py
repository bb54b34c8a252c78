"""Corpora for one tokenizer: knowledge rendered into clean and corrupt pairs, and their splits.

The unit is a pair of facts of one relation (or of two entities of two kinds) whose answers differ.
Each pair gives examples in both directions, so each answer is target as often as foil, and it is
one cluster: it never stands on both sides of a split. Pairs are matched so that as many facts as
possible find a partner, of equal token length where there is one.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import networkx
import numpy as np

from tinyablation.corpora import (
    CONDITIONS,
    CONFIRMATION,
    DISCOVERY,
    SPLITS,
    Corpus,
    CorpusError,
    Example,
    Split,
    contains_word,
)
from tinyablation.knowledge import Fact, Knowledge, Member
from tinyablation.rendering import (
    Template,
    affirmed,
    compound,
    counterfactual_prompt,
    fact_prompt,
    negated,
    truth_prompt,
)
from tinyablation.tokenisation import TokenisationError, encode, encode_prompt, is_one_token

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

T = TypeVar("T")

LEAST_PROMPTS = 200  # distinct clean prompts a condition must have to be of use
TEMPLATES_PER_PAIR = 2  # 2 x 2 prompts a pair: some 90 pairs of facts give 360 prompts

# Cells of logic: truth of the parts, how often. Both labels are equally frequent under each
# operator, so that the operator word alone is worth nothing.
LOGIC_CELLS = {
    "and": {"TT": 3, "TF": 1, "FT": 1, "FF": 1},
    "or": {"FF": 3, "TF": 1, "FT": 1, "TT": 1},
}
# The counterpart of each cell, with the other truth value under the same operator.
LOGIC_FLIPS = {
    "and": {"TT": ("TF", "FT", "FF"), "TF": ("TT",), "FT": ("TT",), "FF": ("TT",)},
    "or": {"FF": ("TF", "FT", "TT"), "TF": ("FF",), "FT": ("FF",), "TT": ("FF",)},
}


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


@dataclass
class BuildReport:
    """What was made, and what was dropped and why: condition -> reason -> count."""

    made: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, Counter[str]] = field(default_factory=dict)

    def drop(self, condition: str, reason: str, count: int = 1) -> None:
        if count:
            self.dropped.setdefault(condition, Counter())[reason] += count

    def lines(self) -> list[str]:
        lines = []
        for condition in CONDITIONS:
            lines.append(f"{condition}: {self.made.get(condition, 0)} examples")
            for reason, count in sorted(self.dropped.get(condition, Counter()).items()):
                lines.append(f"  dropped {count}: {reason}")
        return lines


class CorpusBuilder:
    """Builds the four corpora of one tokenizer; the same inputs give the same bytes."""

    def __init__(
        self,
        knowledge: Knowledge,
        tokenizer: "PreTrainedTokenizerBase",
        name: str,
        *,
        seed: int = 0,
    ) -> None:
        self.knowledge = knowledge
        self.tokenizer = tokenizer
        self.name = name
        self.seed = seed
        self.report = BuildReport()
        cells = knowledge.wording.corpus
        self.fact_templates = [Template.parse(cell) for cell in cells.facts]
        self.truth_templates = [Template.parse(cell) for cell in cells.truth]
        self.counterfactual_templates = [Template.parse(cell) for cell in cells.counterfactual]

    def build(self) -> dict[str, tuple[Corpus, Split]]:
        """Condition -> (corpus, split). CorpusError when a condition has too few prompts left."""
        facts = self._assign(self._fact_pairs(), "facts", by=lambda pair: pair.first.relation)
        members = self._assign(self._member_pairs(), "kinds", by=lambda pair: pair.first.kind)
        rows = {
            "facts": self._facts(facts),
            "negation": self._negation(facts),
            "counterfactual": self._counterfactual(members),
            "logic": self._logic(facts),
        }
        return {condition: self._finish(condition, rows[condition]) for condition in CONDITIONS}

    def _rng(self, purpose: str) -> np.random.Generator:
        return np.random.default_rng([self.seed, *purpose.encode()])

    def _length(self, text: str) -> int:
        return len(encode(self.tokenizer, text))

    # Pairs -------------------------------------------------------------------------------------

    def _fact_pairs(self) -> list[FactPair]:
        pairs = []
        for relation in self.knowledge.relations:
            usable = []
            for fact in self.knowledge.facts(relation):
                prompts = [fact_prompt(self.knowledge, cell, fact) for cell in self.fact_templates]
                if all(is_one_token(self.tokenizer, text, f" {fact.answer}") for text in prompts):
                    usable.append(fact)
                else:
                    self.report.drop("facts", f"{relation}: the answer is more than one token")
            matched = self._match(usable, self._contrast, f"pairs {relation}")
            pairs += [FactPair(usable[a], usable[b]) for a, b in matched]
            self.report.drop("facts", f"{relation}: no partner", len(usable) - 2 * len(matched))
        return pairs

    def _contrast(self, first: Fact, second: Fact) -> int | None:
        """Whether two facts can be a pair (None: no), and how well: 1 when of equal length."""
        relation = self.knowledge.relations[first.relation]
        if not relation.contrasts(first.answer, second.answer):
            return None
        for fact in (first, second):
            for answer in (first.answer, second.answer):
                if contains_word(fact.subject, answer):
                    return None
        lengths = [
            self._length(fact_prompt(self.knowledge, self.fact_templates[0], fact))
            for fact in (first, second)
        ]
        return int(lengths[0] == lengths[1])

    def _member_pairs(self) -> list[MemberPair]:
        kinds = self.knowledge.kinds
        members = [member for kind in kinds.kinds for member in kinds.members(kind)]
        lengths = {kind: self._length(f"dogs were {kind}") for kind in kinds.kinds}

        def contrast(first: Member, second: Member) -> int | None:
            if first.kind == second.kind:
                return None
            return int(lengths[first.kind] == lengths[second.kind])

        matched = self._match(members, contrast, "members")
        return [MemberPair(members[a], members[b]) for a, b in matched]

    def _match(
        self, items: Sequence[T], contrast: Callable[[T, T], int | None], purpose: str
    ) -> list[tuple[int, int]]:
        """A largest matching of the items, random by the seed among those of most equal lengths."""
        rng = self._rng(purpose)
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

    def _assign(
        self, pairs: Sequence[T], purpose: str, by: Callable[[T], str]
    ) -> list[tuple[T, str]]:
        """Pairs with their split, half and half within each group."""
        rng = self._rng(f"split {purpose}")
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

    # Conditions --------------------------------------------------------------------------------

    def _facts(self, pairs: Sequence[tuple[FactPair, str]]) -> list[tuple[Example, str]]:
        rows = []
        blank = self.knowledge.wording.null.word
        for turn, pair, split in _turns(pairs):
            for offset in range(TEMPLATES_PER_PAIR):
                template = self.fact_templates[(turn + offset) % len(self.fact_templates)]
                for fact, other in (pair, pair[::-1]):
                    rows.append(
                        (
                            self._example(
                                clean=fact_prompt(self.knowledge, template, fact),
                                corrupt=fact_prompt(self.knowledge, template, other),
                                null=fact_prompt(
                                    self.knowledge, template, fact._replace(subject=blank)
                                ),
                                target=fact.answer,
                                foil=other.answer,
                                fact_id=fact.id,
                                template=template,
                                cluster=pair.id,
                            ),
                            split,
                        )
                    )
        return rows

    def _negation(self, pairs: Sequence[tuple[FactPair, str]]) -> list[tuple[Example, str]]:
        """Each pair gives all four cells of operator and truth; corrupt keeps the operator."""
        rows = []
        blank = self.knowledge.wording.null.word
        makes = {"affirmed": affirmed, "negated": negated}
        for turn, pair, split in _turns(pairs):
            template = self.truth_templates[turn % len(self.truth_templates)]
            order = pair if turn % 2 == 0 else pair[::-1]
            for fact, truth in zip(order, (True, False), strict=True):
                for operator, make in makes.items():
                    right, wrong = fact.answer, pair.wrong(fact)
                    holds = truth == (operator == "affirmed")
                    obj, other = (right, wrong) if holds else (wrong, right)
                    nothing = make(self.knowledge, fact._replace(subject=blank), blank)
                    rows.append(
                        (
                            self._truth_example(
                                template,
                                make(self.knowledge, fact, obj),
                                make(self.knowledge, fact, other),
                                nothing,
                                truth,
                                fact_id=fact.id,
                                cluster=pair.id,
                                cell=f"{operator}-{'true' if truth else 'false'}",
                            ),
                            split,
                        )
                    )
        return rows

    def _logic(self, pairs: Sequence[tuple[FactPair, str]]) -> list[tuple[Example, str]]:
        """Two pairs of different relations of one split make the parts of six statements."""
        rows = []
        for split in SPLITS:
            for turn, quad in enumerate(self._quads([pair for pair, own in pairs if own == split])):
                operator = ("and", "or")[turn % 2]
                template = self.truth_templates[(turn // 2) % len(self.truth_templates)]
                rows += [(row, split) for row in self._logic_cells(operator, template, quad, turn)]
        return rows

    def _quads(self, pairs: Sequence[FactPair]) -> list[tuple[FactPair, FactPair]]:
        def contrast(first: FactPair, second: FactPair) -> int | None:
            return None if first.first.relation == second.first.relation else 0

        matched = self._match(pairs, contrast, "quads")
        if len(pairs) - 2 * len(matched):
            self.report.drop("logic", "pairs without a partner", len(pairs) - 2 * len(matched))
        quads = [(pairs[a], pairs[b]) for a, b in matched]
        order = self._rng("quad order").permutation(len(quads))
        return [quads[index] for index in order]

    def _logic_cells(
        self, operator: str, template: Template, quad: tuple[FactPair, FactPair], turn: int
    ) -> Iterable[Example]:
        blank = self.knowledge.wording.null.word
        cluster = "+".join(pair.id for pair in quad)
        number = turn
        for cell, count in LOGIC_CELLS[operator].items():
            for repeat in range(count):
                # Each repeat takes another pairing of the facts, so no statement comes twice.
                facts = [pair[(number >> part) % 2] for part, pair in enumerate(quad)]
                number += 1
                flip = LOGIC_FLIPS[operator][cell][repeat % len(LOGIC_FLIPS[operator][cell])]
                nothing = [
                    affirmed(self.knowledge, fact._replace(subject=blank), blank) for fact in facts
                ]
                truth = {"and": all, "or": any}[operator](part == "T" for part in cell)
                yield self._truth_example(
                    template,
                    self._compound(operator, quad, facts, cell),
                    self._compound(operator, quad, facts, flip),
                    compound(self.knowledge, operator, *nothing),
                    truth,
                    fact_id="+".join(fact.id for fact in facts),
                    cluster=cluster,
                    cell=f"{operator}-{cell}",
                )

    def _compound(
        self, operator: str, quad: tuple[FactPair, FactPair], facts: Sequence[Fact], cell: str
    ) -> str:
        parts = [
            affirmed(self.knowledge, fact, fact.answer if part == "T" else pair.wrong(fact))
            for pair, fact, part in zip(quad, facts, cell, strict=True)
        ]
        return compound(self.knowledge, operator, *parts)

    def _counterfactual(self, pairs: Sequence[tuple[MemberPair, str]]) -> list[tuple[Example, str]]:
        rows = []
        kinds, blank = self.knowledge.kinds, self.knowledge.wording.null.word
        for turn, pair, split in _turns(pairs):
            for shift, attribute in enumerate(kinds.attributes):
                words = [kinds.word(member.kind, attribute) for member in pair]
                if words[0] == words[1]:
                    self.report.drop(
                        "counterfactual", f"{attribute}: the same word for both kinds", 2
                    )
                    continue
                templates = self.counterfactual_templates
                template = templates[(turn + shift) % len(templates)]

                def prompt(entity: str, kind: str) -> str:
                    return counterfactual_prompt(self.knowledge, template, entity, kind, attribute)  # noqa: B023

                examples = [
                    self._example(
                        clean=prompt(member.entity, other.kind),
                        corrupt=prompt(member.entity, member.kind),
                        null=prompt(blank, blank),
                        target=kinds.word(other.kind, attribute),
                        foil=kinds.word(member.kind, attribute),
                        fact_id=f"{member.id}/{attribute}",
                        template=template,
                        cluster=pair.id,
                    )
                    for member, other in (pair, pair[::-1])
                ]
                fault = next(filter(None, map(self._fault, examples)), None)
                if fault is None:
                    rows += [(example, split) for example in examples]
                else:
                    self.report.drop("counterfactual", f"{attribute}: {fault}", 2)
        return rows

    # Examples ----------------------------------------------------------------------------------

    def _truth_example(
        self,
        template: Template,
        clean: str,
        corrupt: str,
        nothing: str,
        truth: bool,
        *,
        fact_id: str,
        cluster: str,
        cell: str,
    ) -> Example:
        labels = self.knowledge.wording.labels
        right, wrong = (labels.true, labels.false) if truth else (labels.false, labels.true)
        return self._example(
            clean=truth_prompt(self.knowledge, template, clean),
            corrupt=truth_prompt(self.knowledge, template, corrupt),
            null=truth_prompt(self.knowledge, template, nothing),
            target=right,
            foil=wrong,
            fact_id=fact_id,
            template=template,
            cluster=cluster,
            cell=cell,
        )

    def _example(
        self,
        *,
        clean: str,
        corrupt: str,
        null: str,
        target: str,
        foil: str,
        fact_id: str,
        template: Template,
        cluster: str,
        cell: str = "",
    ) -> Example:
        return Example(
            clean=clean,
            corrupt=corrupt,
            null=null,
            target=f" {target}",
            foil=f" {foil}",
            fact_id=fact_id,
            template_id=template.id,
            cluster_id=cluster,
            cell=cell,
            aligned=self._length(clean) == self._length(corrupt),
        )

    def _fault(self, example: Example) -> str | None:
        """Why the example cannot be used, if so."""
        answers = (example.target, example.foil)
        for text in (example.clean, example.corrupt, example.null):
            if any(contains_word(text, answer) for answer in answers):
                return "an answer stands in a prompt"
            try:
                encode_prompt(self.tokenizer, text, *answers, bos=None)
            except TokenisationError:
                return "the answers are not one token each after a prompt"
        return None

    def _finish(self, condition: str, rows: Sequence[tuple[Example, str]]) -> tuple[Corpus, Split]:
        """Keep whole clusters only: one row alone would take the labels out of balance."""
        faults: dict[str, str] = {}
        seen: set[str] = set()
        for example, _ in rows:
            fault = self._fault(example)
            if fault is None and example.clean in seen:
                fault = "the same prompt again"
            if fault is not None:
                faults.setdefault(example.cluster_id, fault)
            seen.add(example.clean)
        for example, _ in rows:
            if example.cluster_id in faults:
                self.report.drop(condition, faults[example.cluster_id])
        kept = [(example, split) for example, split in rows if example.cluster_id not in faults]
        self.report.made[condition] = len(kept)
        if len(kept) < LEAST_PROMPTS:
            raise CorpusError(
                f"{self.name}, {condition}: {len(kept)} prompts are left, {LEAST_PROMPTS} are "
                "wanted. What was dropped:\n" + "\n".join(self.report.lines())
            )
        corpus = Corpus.of(condition, self.name, [example for example, _ in kept])
        indices = {
            name: tuple(row for row, (_, split) in enumerate(kept) if split == name)
            for name in (DISCOVERY, CONFIRMATION)
        }
        return corpus, Split(self.seed, corpus.content_hash, indices)


def _turns(pairs: Sequence[tuple[T, str]]) -> Iterable[tuple[int, T, str]]:
    """Pairs with their number within their split, so that templates rotate in each."""
    counts: Counter[str] = Counter()
    for pair, split in pairs:
        yield counts[split], pair, split
        counts[split] += 1
