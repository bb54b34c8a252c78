"""A law that does not hold is shown by a small case, as text that a person can read.

Run: pytest tests/metamorphic/test_counterexamples.py
"""

import re
from typing import Any

import pytest
from hypothesis import Phase, find, given, settings

from tests.metamorphic import laws
from tests.metamorphic.cases import (
    ENDINGS,
    OPENINGS,
    RELATIONS,
    WORDS,
    Case,
    cases,
    ids_of,
    questions,
)
from tests.metamorphic.faults import at_the_last_index, leaking_rows
from tests.small_corpora import EMBEDDED
from tinyablation.corpora.tokenisation import encode, load_tokenizer

FEW = settings(max_examples=200)


def shrunk(fault: Any, engine: Any, **given_cases: Any) -> tuple[str, str, list[dict[str, Any]]]:
    """The message, Hypothesis's notes, and the cases tried, when `company` is searched."""
    tried: list[dict[str, Any]] = []

    @settings(max_examples=30, phases=[Phase.generate, Phase.shrink])
    @given(**given_cases)
    def search(**found: Any) -> None:
        tried.append(found)
        laws.company_does_not_matter(engine, **found)

    with pytest.MonkeyPatch.context() as patch:
        fault(patch)
        with pytest.raises(AssertionError) as caught:
            search()
    return str(caught.value), "\n".join(caught.value.__notes__), tried


def test_a_wrong_position_is_shown_by_the_shortest_prompt(engines: Any) -> None:
    """P1: read at the last index, a prompt is another one as soon as a longer one is there."""
    message, notes, tried = shrunk(
        at_the_last_index,
        engines["gpt2"],
        case=cases(),
        more=cases(most_questions=2, most_interventions=1),
    )
    assert message.startswith("company: under ") and "for the prompt\n  'the' -> 'Paris'" in message
    # One prompt of one word, a longer one beside it, one intervention each.
    assert "prompt 0: 'the' -> 'Paris', not 'Rome'" in notes
    assert "prompt 1" not in notes and notes.count("interventions: zero:0.0\n") == 2
    beside = tried[-1]["more"].questions[0].text
    assert f"'{beside}' -> 'Paris'" in notes
    # Words and labels, and no ids or numbers of a tensor.
    assert not re.search(r"tensor|array|ids|\(0, \d", notes.split("You can reproduce")[0])


def test_a_fault_of_one_intervention_is_shown_with_it(engines: Any) -> None:
    message, notes, _ = shrunk(
        leaking_rows, engines["llama"], case=cases(), more=cases(most_questions=1)
    )
    label = re.match(r"company: under (\S+), ", message)
    assert label and label[1] in notes and notes.count("prompt 0: '") == 2


@settings(max_examples=50)
@given(case=cases())
def test_what_is_printed_is_what_is_measured(case: Case) -> None:
    for question, prompt in zip(case.questions, case.prompts, strict=True):
        text, target, foil, pair = re.findall(r"'([^']*)'", repr(question))
        assert ids_of(text) == prompt.ids and len(ids_of(pair)) == len(prompt.ids)
        assert ids_of(target) == (0, prompt.target) and ids_of(foil) == (0, prompt.foil)
        differing = {
            i for i, (a, b) in enumerate(zip(prompt.ids, ids_of(pair), strict=True)) if a != b
        }
        assert differing <= set(question.subject)
    assert all(each.label in repr(case) for each in case.interventions)


@pytest.mark.parametrize("word", WORDS)
def test_words_are_tokens_of_the_embedded_models(word: str, tokenizer: Any) -> None:
    assert len(encode(tokenizer, f" {word}")) == 1


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return load_tokenizer(str(EMBEDDED))


def test_sentences_are_among_the_prompts() -> None:
    """And words in any order, too."""
    sentences = {
        f"{opening} {relation} {subject} {ending}".lstrip()
        for opening in OPENINGS
        for relation, subjects in RELATIONS
        for subject in subjects
        for ending in ENDINGS
    }
    find(questions(), lambda question: question.text in sentences, settings=FEW)
    find(questions(), lambda question: question.text not in sentences, settings=FEW)
