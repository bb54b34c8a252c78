"""Prompts from knowledge: the one module that words statements, questions and facts.

The corpora and the training text of the embedded models are both rendered here, so that they use
the same language. Every function returns the prompt up to but excluding the answer.
"""

from typing import NamedTuple

from tinyablation.corpora.knowledge import Fact, Knowledge


class Template(NamedTuple):
    """A cell of the wording table: how the prompt begins (prefix) and how it asks (frame)."""

    prefix: str
    frame: str

    @property
    def id(self) -> str:
        return f"{self.prefix}.{self.frame}"

    @classmethod
    def parse(cls, cell: str) -> "Template":
        prefix, frame = cell.split(".")
        return cls(prefix, frame)


def sentence(knowledge: Knowledge, prefix_id: str, text: str) -> str:
    """`text` after its prefix, with a capital letter at the front."""
    whole = f"{knowledge.wording.prefix(prefix_id)} {text}".strip()
    return whole[0].upper() + whole[1:]


def phrase(knowledge: Knowledge, fact: Fact) -> str:
    """What the fact is about: "the capital of France"."""
    return knowledge.relations[fact.relation].phrase.format(subject=fact.subject)


def affirmed(knowledge: Knowledge, fact: Fact, obj: str) -> str:
    text = knowledge.wording.statements.affirmed
    return text.format(phrase=phrase(knowledge, fact), object=obj)


def negated(knowledge: Knowledge, fact: Fact, obj: str) -> str:
    text = knowledge.wording.statements.negated
    return text.format(phrase=phrase(knowledge, fact), object=obj)


def compound(knowledge: Knowledge, operator: str, first: str, second: str) -> str:
    """Two statements joined by "and" or "or"."""
    statements = knowledge.wording.statements
    text = {"and": statements.both, "or": statements.either}[operator]
    return text.format(first=first, second=second)


def fact_prompt(knowledge: Knowledge, template: Template, fact: Fact) -> str:
    frame = knowledge.wording.frames.facts[template.frame]
    return sentence(knowledge, template.prefix, frame.format(phrase=phrase(knowledge, fact)))


def truth_prompt(knowledge: Knowledge, template: Template, statement: str) -> str:
    frame = knowledge.wording.frames.truth[template.frame]
    return sentence(knowledge, template.prefix, frame.format(statement=statement))


def counterfactual_prompt(
    knowledge: Knowledge, template: Template, entity: str, kind: str, attribute: str
) -> str:
    frame = knowledge.wording.frames.counterfactual[template.frame]
    words = knowledge.kinds.attributes[attribute]
    text = frame.format(entity=entity, kind=kind, attribute=words)
    return sentence(knowledge, template.prefix, text)
