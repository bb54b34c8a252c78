"""Prompts from knowledge: every template of every condition, word for word.

Run: pytest tests/corpora/test_wording.py
"""

from pathlib import Path

import pytest

from tinyablation.corpora.knowledge import Fact, Knowledge, load_knowledge
from tinyablation.corpora.wording import (
    Template,
    affirmed,
    compound,
    counterfactual_prompt,
    fact_prompt,
    negated,
    phrase,
    sentence,
    truth_prompt,
)

FRANCE = Fact("capital", "France", "Paris")
NOTHING = Fact("capital", "something", "something")
GRASS = Fact("color", "grass", "green")


@pytest.fixture(scope="module")
def knowledge() -> Knowledge:
    return load_knowledge(Path(__file__).parents[2] / "corpora" / "knowledge")


@pytest.mark.parametrize(
    ("cell", "prompt"),
    [
        ("plain.is", "The capital of France is"),
        ("short.known", "In short, the capital of France is known to be"),
        ("note.simply", "Note that the capital of France is simply"),
        ("usual.is", "As usual, the capital of France is"),
        ("clear.known", "Clearly, the capital of France is known to be"),
        ("rumor.simply", "It is rumored that the capital of France is simply"),
    ],
)
def test_fact_prompts(knowledge: Knowledge, cell: str, prompt: str) -> None:
    assert fact_prompt(knowledge, Template.parse(cell), FRANCE) == prompt


@pytest.mark.parametrize(
    ("cell", "prompt"),
    [
        ("plain.true", "The color of grass is not blue. Is this statement true? Answer:"),
        (
            "short.correct",
            "In short, the color of grass is not blue. Is that correct? Answer:",
        ),
        ("note.so", "Note that the color of grass is not blue. Is it really so? Answer:"),
    ],
)
def test_truth_prompts(knowledge: Knowledge, cell: str, prompt: str) -> None:
    statement = negated(knowledge, GRASS, "blue")
    assert truth_prompt(knowledge, Template.parse(cell), statement) == prompt


@pytest.mark.parametrize(
    ("cell", "prompt"),
    [
        ("plain.if", "If dogs were birds, dogs would be covered with"),
        ("short.suppose", "In short, supposing that dogs were birds, dogs would be covered with"),
        ("note.change", "Note that after dogs changed into birds, dogs would be covered with"),
    ],
)
def test_counterfactual_prompts(knowledge: Knowledge, cell: str, prompt: str) -> None:
    made = counterfactual_prompt(knowledge, Template.parse(cell), "dogs", "birds", "cover")
    assert made == prompt


def test_statements(knowledge: Knowledge) -> None:
    first = affirmed(knowledge, FRANCE, "Paris")
    second = negated(knowledge, GRASS, "green")
    assert first == "the capital of France is indeed Paris"
    assert second == "the color of grass is not green"
    assert compound(knowledge, "and", first, second) == f"{first} and {second}"
    assert compound(knowledge, "or", first, second) == f"{first} or {second}"
    with pytest.raises(KeyError, match="xor"):
        compound(knowledge, "xor", first, second)


def test_null_prompts_are_about_nothing(knowledge: Knowledge) -> None:
    assert phrase(knowledge, NOTHING) == "the capital of something"
    assert fact_prompt(knowledge, Template("plain", "is"), NOTHING) == "The capital of something is"
    assert affirmed(knowledge, NOTHING, "something") == (
        "the capital of something is indeed something"
    )


def test_every_prompt_begins_with_a_capital_and_ends_without_a_space(knowledge: Knowledge) -> None:
    wording = knowledge.wording
    prefixes = [name for tone in wording.prefixes.values() for name in tone]
    statement = affirmed(knowledge, FRANCE, "Paris")
    prompts = []
    for prefix in prefixes:
        prompts += [
            fact_prompt(knowledge, Template(prefix, frame), FRANCE)
            for frame in wording.frames.facts
        ]
        prompts += [
            truth_prompt(knowledge, Template(prefix, frame), statement)
            for frame in wording.frames.truth
        ]
        prompts += [
            counterfactual_prompt(knowledge, Template(prefix, frame), "dogs", "fish", attribute)
            for frame in wording.frames.counterfactual
            for attribute in knowledge.kinds.attributes
        ]
    assert len(set(prompts)) == len(prompts)
    for prompt in prompts:
        assert prompt[0].isupper() and prompt == prompt.strip()
        assert "  " not in prompt and "{" not in prompt


def test_only_the_first_letter_is_raised(knowledge: Knowledge) -> None:
    assert sentence(knowledge, "plain", "iOS of McDonald") == "IOS of McDonald"
    assert sentence(knowledge, "short", "Paris is") == "In short, Paris is"


def test_a_template_is_its_cell() -> None:
    template = Template.parse("plain.is")
    assert template == Template("plain", "is") and template.id == "plain.is"
