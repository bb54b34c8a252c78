"""Corpora for one tokenizer: knowledge rendered into clean and corrupt pairs, and their splits.

The unit is a pair of facts of one relation (or of two entities of two kinds) with different
answers. Each pair gives examples in both directions, so each answer is target as often as foil.

Every corpus is a full factorial: whatever is asked of a cluster is asked in every wording of its
condition. So no difference between wordings is mistaken for one between facts, and a measurement
that is to cost less can take the wordings in turn (subsampling.one_wording).

| condition | a cluster is | it is asked | wordings |
|---|---|---|---|
| facts | a pair of facts | 2 facts | 2 |
| negation | a pair of facts | 4 cells: affirmed or negated, true or false | 3 |
| counterfactual | an entity, moved into another kind | 4 attributes | 3 |
| logic | two pairs of facts of different relations | 8 cells in 12 statements (LOGIC_CELLS) | 3 |
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

from tinyablation.corpora.binding import BindingTable, build_binding
from tinyablation.corpora.examples import (
    BINDING,
    CONDITIONS,
    SPLITS,
    Corpus,
    Example,
    Split,
)
from tinyablation.corpora.filtering import (
    LEAST_PROMPTS,
    BuildReport,
    TooFewPrompts,
    fault,
    finish,
    summed,
)
from tinyablation.corpora.knowledge import Fact, Knowledge, Member
from tinyablation.corpora.pairs import FactPair, MemberPair, Pairing, turns
from tinyablation.corpora.tokenisation import encode
from tinyablation.corpora.wording import (
    Template,
    affirmed,
    compound,
    counterfactual_prompt,
    fact_prompt,
    negated,
    truth_prompt,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MADE_OF_FACTS = ("negation", "logic")  # made of the facts of "facts", whose report has the losses

# Cells of logic: truth of the parts, how often in each cluster and wording. Once each would make
# three of four compounds with "and" false and three of four with "or" true: a model that reads the
# operator alone would be right in 75 %, and a head that leans to "no" after "and" would look as if
# it served logic. So the cell that stands alone with its label is asked of three choices of facts
# (of the four that two pairs give), and both labels are equally frequent under each operator. Its
# three corrupt prompts are the three cells of the other label.
LOGIC_CELLS = {
    "and": {"TT": 3, "TF": 1, "FT": 1, "FF": 1},
    "or": {"FF": 3, "TF": 1, "FT": 1, "TT": 1},
}
# The counterpart of each cell, with the other truth value under the same operator.
LOGIC_FLIPS = {
    "and": {"TT": ("TF", "FT", "FF"), "TF": ("TT",), "FT": ("TT",), "FF": ("TT",)},
    "or": {"FF": ("TF", "FT", "TT"), "TF": ("FF",), "FT": ("FF",), "TT": ("FF",)},
}


class Built(NamedTuple):
    """The result for one tokenizer: each condition, including "binding", is in one of the two."""

    corpora: dict[str, tuple[Corpus, Split]]
    refused: dict[str, str]  # condition -> why it has too few prompts, on one line
    report: BuildReport


def build_everything(
    knowledge: Knowledge,
    things: BindingTable,
    tokenizer: "PreTrainedTokenizerBase",
    name: str,
    *,
    seed: int = 0,
    strict: bool = False,
) -> Built:
    """The four conditions and "binding" for one tokenizer; the same inputs give the same bytes.

    strict: raise TooFewPrompts, which says what was dropped of each condition, if one of the four
    cannot be built.
    """
    builder = CorpusBuilder(knowledge, tokenizer, name, seed=seed)
    corpora, refused = builder.build_each()
    if strict and refused:
        raise builder.too_few(refused)
    report = builder.report
    bound = build_binding(
        things, tokenizer, name, null=knowledge.wording.null.word, seed=seed, report=report
    )
    if bound is not None:
        corpora[BINDING] = bound
    return Built(corpora, {**refused, **report.skipped}, report)


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
        self.pairing = Pairing(knowledge, tokenizer, seed, self.report)
        self.fact_templates = self.pairing.templates
        cells = knowledge.wording.corpus
        self.truth_templates = [Template.parse(cell) for cell in cells.truth]
        self.counterfactual_templates = [Template.parse(cell) for cell in cells.counterfactual]

    def build(self) -> dict[str, tuple[Corpus, Split]]:
        """Condition -> (corpus, split).

        Raises TooFewPrompts, which says what was dropped of each condition, if one has too few
        prompts left.
        """
        made, refused = self.build_each()
        if refused:
            raise self.too_few(refused)
        return made

    def build_each(self) -> tuple[dict[str, tuple[Corpus, Split]], dict[str, str]]:
        """Condition -> (corpus, split), and condition -> why it has too few prompts left."""
        made, refused = {}, {}
        for condition in CONDITIONS:
            try:
                made[condition] = self.build_one(condition)
            except TooFewPrompts as few:
                refused[condition] = few.reason
        return made, refused

    def build_one(self, condition: str) -> tuple[Corpus, Split]:
        """One condition; TooFewPrompts says in one line what was dropped from it."""
        rows, lost = self._rows
        try:
            return finish(
                self.tokenizer, self.name, condition, rows[condition], self.seed, self.report
            )
        except TooFewPrompts as few:
            if condition not in MADE_OF_FACTS or not lost:
                raise
            reason = f"{few.reason}; of the facts it asks about {summed(lost)}"
            raise TooFewPrompts(f"{self.name}, {condition}: {reason}", reason=reason) from None

    def too_few(self, refused: Iterable[str]) -> TooFewPrompts:
        """The error that names the conditions with too few prompts and lists all drops."""
        first, *others = ((condition, self.report.made[condition]) for condition in refused)
        also = ", ".join(f"{condition} has {count}" for condition, count in others)
        return TooFewPrompts(
            f"{self.name}, {first[0]}: {first[1]} prompts are left, {LEAST_PROMPTS} are wanted"
            + (f"; {also}" if also else "")
            + ". What was dropped:\n"
            + "\n".join(self.report.lines())
        )

    @cached_property
    def _rows(self) -> tuple[dict[str, list[tuple[Example, str]]], Counter[str]]:
        """Condition -> (example, split name), and counts of the reasons why facts have no pair."""
        facts = self.pairing.facts()
        lost = Counter(self.report.dropped.get("facts", {}))
        rows = {
            "facts": self._facts(facts),
            "negation": self._negation(facts),
            "counterfactual": self._counterfactual(self.pairing.members()),
            "logic": self._logic(facts),
        }
        return rows, lost

    def _length(self, text: str) -> int:
        return len(encode(self.tokenizer, text))

    # Conditions --------------------------------------------------------------------------------

    def _facts(self, pairs: Sequence[tuple[FactPair, str]]) -> list[tuple[Example, str]]:
        rows = []
        blank = self.knowledge.wording.null.word
        for turn, pair, split in turns(pairs):
            # From another one on in every pair, so that the first rows hold all of them.
            start = turn % len(self.fact_templates)
            for template in (*self.fact_templates[start:], *self.fact_templates[:start]):
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
        for turn, pair, split in turns(pairs):
            order = pair if turn % 2 == 0 else pair[::-1]
            cells = [
                (fact, truth, operator)
                for fact, truth in zip(order, (True, False), strict=True)
                for operator in makes
            ]
            for template, (fact, truth, operator) in product(self.truth_templates, cells):
                make = makes[operator]
                right, wrong = fact.answer, pair.wrong(fact)
                holds = truth == (operator == "affirmed")
                obj, other = (right, wrong) if holds else (wrong, right)
                nothing = make(self.knowledge, fact._replace(subject=blank), blank)
                example = self._truth_example(
                    template,
                    make(self.knowledge, fact, obj),
                    make(self.knowledge, fact, other),
                    nothing,
                    truth,
                    fact_id=fact.id,
                    cluster=pair.id,
                    cell=f"{operator}-{'true' if truth else 'false'}",
                )
                rows.append((example, split))
        return rows

    def _logic(self, pairs: Sequence[tuple[FactPair, str]]) -> list[tuple[Example, str]]:
        """Twelve statements from every two pairs of different relations in one split."""
        rows = []
        for split in SPLITS:
            quads = self.pairing.quads([pair for pair, own in pairs if own == split])
            for turn, quad in enumerate(quads):
                rows += [(row, split) for row in self._logic_cells(quad, turn)]
        return rows

    def _logic_cells(self, quad: tuple[FactPair, FactPair], turn: int) -> Iterable[Example]:
        blank = self.knowledge.wording.null.word
        cluster = "+".join(pair.id for pair in quad)
        statements = (
            (operator, cell, LOGIC_FLIPS[operator][cell][repeat % len(LOGIC_FLIPS[operator][cell])])
            for operator, cells in LOGIC_CELLS.items()
            for cell, count in cells.items()
            for repeat in range(count)
        )
        for number, (operator, cell, flip) in enumerate(statements, start=turn):
            # The four choices of facts in turn: a cell's statements differ, each choice stands in
            # three of the twelve, and over the clusters every choice in every cell.
            facts = [pair[(number >> part) % 2] for part, pair in enumerate(quad)]
            nothing = [
                affirmed(self.knowledge, fact._replace(subject=blank), blank) for fact in facts
            ]
            truth = {"and": all, "or": any}[operator](part == "T" for part in cell)
            for template in self.truth_templates:
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
        """Both entities of a pair are moved: two clusters, whose answers are each other's foils.

        What two clusters of a pair share is the bias towards an answer, with opposite signs, so
        intervals that take them as independent are rather too wide than too narrow.
        """
        rows: list[tuple[Example, str]] = []
        kinds = self.knowledge.kinds
        seen: set[str] = set()
        for pair, split in pairs:
            for attribute in kinds.attributes:
                count = 2 * len(self.counterfactual_templates)
                if len({kinds.word(member.kind, attribute) for member in pair}) == 1:
                    self.report.drop(
                        "counterfactual", f"{attribute}: the same word for both kinds", count
                    )
                    continue
                examples = [
                    self._moved(member, other, attribute, template)
                    for template in self.counterfactual_templates
                    for member, other in (pair, pair[::-1])
                ]
                # Faults are found here, before the rows are clusters: of a pair both directions
                # have to go, in all wordings, or the labels are unbalanced.
                faults = (fault(self.tokenizer, "counterfactual", example) for example in examples)
                found = next(filter(None, faults), None)
                if any(example.clean in seen for example in examples):
                    found = "the same prompt again"
                if found is None:
                    rows += [(example, split) for example in examples]
                    seen |= {example.clean for example in examples}
                else:
                    self.report.drop("counterfactual", f"{attribute}: {found}", count)
        return rows

    def _moved(self, member: Member, other: Member, attribute: str, template: Template) -> Example:
        kinds, blank = self.knowledge.kinds, self.knowledge.wording.null.word

        def prompt(entity: str, kind: str) -> str:
            return counterfactual_prompt(self.knowledge, template, entity, kind, attribute)

        return self._example(
            clean=prompt(member.entity, other.kind),
            corrupt=prompt(member.entity, member.kind),
            null=prompt(blank, blank),
            target=kinds.word(other.kind, attribute),
            foil=kinds.word(member.kind, attribute),
            fact_id=f"{member.id}/{attribute}",
            template=template,
            cluster=member.id,
        )

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
