"""Grammars: they hold the corpora and much more, in the builder's words, plainest first.

Run: pytest tests/corpora/test_grammar.py
"""

from collections import Counter
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from fixtures.organisms.tokenizer import build_tokenizer
from tests.small_tokenizers import byte_level
from tinyablation.corpora.examples import CONDITIONS, Example, contains_word, load_corpus
from tinyablation.corpora.grammar import GRAMMARS, Grammar, GrammarError, Sentence, grammar_of
from tinyablation.corpora.knowledge import Knowledge, load_knowledge
from tinyablation.corpora.tokenisation import answer_id, encode
from tinyablation.statistics.intervals import generator

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def knowledge() -> Knowledge:
    return load_knowledge(ROOT / "corpora" / "knowledge")


@pytest.fixture(scope="module")
def tiny(knowledge: Knowledge) -> Any:
    return build_tokenizer(knowledge)


@pytest.fixture(scope="module")
def grammars(knowledge: Knowledge, tiny: Any) -> dict[str, Grammar]:
    return {name: grammar_of(name, knowledge, tiny) for name in CONDITIONS}


def small(knowledge: Knowledge) -> Knowledge:
    """Two relations of three facts (two answers in one of them), three kinds of two entities."""
    relations = {
        "capital": {"France": "Paris", "Italy": "Rome", "Germany": "Berlin"},
        "color": {"grass": "green", "leaves": "green", "snow": "white"},
    }
    kept = {name: dict(knowledge.kinds.kinds[name]) for name in ("birds", "fish", "mammals")}
    for row in kept.values():
        row["members"] = row["members"][:2]
    kinds = knowledge.kinds.model_copy(update={"kinds": kept})
    return knowledge._replace(
        relations={
            name: knowledge.relations[name].model_copy(update={"facts": facts})
            for name, facts in relations.items()
        },
        kinds=kinds,
    )


def everything(grammar: Grammar) -> Iterator[Sentence | None]:
    """All sentences, in order of their indices, as an odometer goes."""
    indices: list[int] = []
    while True:
        counts: list[int] = []

        def choose(name: str, labels: Any) -> int:
            counts.append(len(labels))  # noqa: B023
            place = len(counts) - 1  # noqa: B023
            return indices[place] if place < len(indices) else 0  # noqa: B023

        yield grammar.derive(choose)
        own = indices + [0] * (len(counts) - len(indices))
        place = max((p for p, count in enumerate(counts) if own[p] + 1 < count), default=-1)
        if place < 0:
            return
        indices = [*own[:place], own[place] + 1]


def fixed_choices(condition: str, example: Example) -> dict[str, str]:
    """What an example's identifiers say of its choices."""
    prefix, frame = example.template_id.split(".")
    found = {"prefix": prefix, "frame": frame}
    about = [fact.split("/") for fact in example.fact_id.split("+")]
    if condition == "facts":
        names = ("relation", "subject", "foil")
        return found | dict(zip(names, (*about[0], example.foil.strip()), strict=True))
    if condition == "counterfactual":
        return found | dict(zip(("kind", "entity", "attribute"), about[0], strict=True))
    operator, cell = example.cell.split("-")
    if condition == "negation":
        names = ("operator", "truth", "relation", "subject")
        return found | dict(zip(names, (operator, cell, *about[0]), strict=True))
    found |= {"operator": operator, "cell": cell}
    for which, (relation, subject) in zip(("first", "second"), about, strict=True):
        found |= {f"{which} relation": relation, f"{which} subject": subject}
    return found


def candidates(grammar: Grammar, example: Example) -> Iterator[Sentence | None]:
    """Sentences with the example's known choices; the others are words of its prompt."""
    fixed = fixed_choices(grammar.condition, example)
    # In "the main language of Rome is indeed Italian", two options of a choice stand in the prompt.
    for picks in product(range(2), repeat=2):
        left = iter(picks)

        def choose(name: str, labels: Any) -> int:
            if name in fixed:
                return list(labels).index(fixed[name])
            words = [label for label in labels if contains_word(example.clean, label)]
            return list(labels).index(words[next(left) % len(words)])  # noqa: B023

        yield grammar.derive(choose)


@pytest.mark.parametrize("condition", CONDITIONS)
def test_every_prompt_of_the_committed_corpus_is_a_sentence(
    grammars: dict[str, Grammar], condition: str
) -> None:
    grammar = grammars[condition]
    corpus = load_corpus(ROOT / "corpora" / "tiny" / f"{condition}.jsonl")
    assert len(corpus.examples) > 200
    for example in corpus.examples:
        wanted = (example.clean, example.target, example.foil)
        made = [(s.text, s.target, s.foil) for s in candidates(grammar, example) if s]
        assert wanted in made, example


@pytest.mark.parametrize("condition", CONDITIONS)
def test_wordings_go_beyond_those_of_the_corpora(
    grammars: dict[str, Grammar], knowledge: Knowledge, condition: str
) -> None:
    grammar = grammars[condition]
    sample = grammar.sample(1000, generator(0, "wordings"))
    prefixes = Counter(sentence.choices["prefix"] for sentence in sample)
    frames = {sentence.choices["frame"] for sentence in sample}
    every = [name for tone in knowledge.wording.prefixes.values() for name in tone]
    assert set(prefixes) == set(every)
    assert len(frames) == 3
    # Each is drawn as often as any other: 100 of 1,000, give or take five standard errors of 9.5.
    assert all(50 < count < 150 for count in prefixes.values())
    corpus = load_corpus(ROOT / "corpora" / "tiny" / f"{condition}.jsonl")
    own = {example.clean for example in corpus.examples}
    assert sum(sentence.text not in own for sentence in sample) > 800


def test_the_first_options_make_the_plainest_sentence(grammars: dict[str, Grammar]) -> None:
    plainest = {name: next(everything(grammar)) for name, grammar in grammars.items()}
    assert {name: (s.text, s.target, s.foil) for name, s in plainest.items() if s} == {
        "facts": ("The capital of France is", " Paris", " Rome"),
        "negation": (
            "The capital of France is indeed Paris. Is this statement true? Answer:",
            " yes",
            " no",
        ),
        "counterfactual": (
            "If eagles were fish, eagles would be covered with",
            " scales",
            " feathers",
        ),
        "logic": (
            "The capital of France is indeed Paris and the continent of Kenya is indeed Africa. "
            "Is this statement true? Answer:",
            " yes",
            " no",
        ),
    }


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.slow
def test_size_counts_every_sentence_once(knowledge: Knowledge, tiny: Any, condition: str) -> None:
    grammar = grammar_of(condition, small(knowledge), tiny)
    made = [sentence for sentence in everything(grammar) if sentence is not None]
    assert len(made) == grammar.size > 200
    assert len({sentence.indices for sentence in made}) == grammar.size
    assert len({(s.text, s.target, s.foil) for s in made}) == grammar.size
    assert [s.indices for s in made] == sorted(s.indices for s in made)
    assert len({len(s.indices) for s in made}) == 1


@pytest.mark.parametrize("condition", CONDITIONS)
def test_a_sentence_can_be_measured_and_gives_nothing_away(
    grammars: dict[str, Grammar], tiny: Any, condition: str
) -> None:
    for s in grammars[condition].sample(150, generator(0, "measurable")):
        assert not contains_word(s.text, s.target) and not contains_word(s.text, s.foil)
        assert s.prompt.ids == encode(tiny, s.text)
        assert s.prompt.target == answer_id(tiny, s.text, s.target) != s.prompt.foil
        assert s.prompt.foil == answer_id(tiny, s.text, s.foil)


def test_labels_are_right_for_every_operator_and_cell(grammars: dict[str, Grammar]) -> None:
    base = {"prefix": "plain", "frame": "true"}
    capital = {"relation": "capital", "subject": "France"}
    found = {}
    for operator, truth, said in product(
        ("affirmed", "negated"), ("true", "false"), ("Paris", "Rome")
    ):
        about = {"operator": operator, "truth": truth, **capital, "object": said}
        holds = (said == "Paris") == (operator == "affirmed")
        if holds == (truth == "true"):
            sentence = grammars["negation"].named(base | about)
            assert sentence is not None
            found[operator, said] = sentence.target
            assert (" not " in sentence.text) == (operator == "negated")
        else:
            with pytest.raises(GrammarError, match="'object' cannot be"):
                grammars["negation"].named(base | about)
    assert found == {
        ("affirmed", "Paris"): " yes",
        ("affirmed", "Rome"): " no",
        ("negated", "Paris"): " no",
        ("negated", "Rome"): " yes",
    }
    targets = {}
    for operator, (first, second) in product(("and", "or"), product("TF", repeat=2)):
        sentence = grammars["logic"].named(
            base
            | {"operator": operator, "cell": first + second}
            | {"first relation": "capital", "first subject": "France"}
            | {"first object": "Paris" if first == "T" else "Rome"}
            | {"second relation": "color", "second subject": "grass"}
            | {"second object": "green" if second == "T" else "red"}
        )
        assert sentence is not None
        targets[operator, first + second] = sentence.target
    true = {key for key, target in targets.items() if target == " yes"}
    assert true == {("and", "TT"), ("or", "TT"), ("or", "TF"), ("or", "FT")}


def test_statements_of_one_sentence_are_of_different_relations(
    grammars: dict[str, Grammar],
) -> None:
    for sentence in grammars["logic"].sample(300, generator(0, "relations")):
        assert sentence.choices["first relation"] != sentence.choices["second relation"]


def test_samples_are_drawn_by_the_seed_and_hold_nothing_twice(knowledge: Knowledge) -> None:
    def drawn(seed: int, n: int, world: Knowledge) -> list[tuple[int, ...]]:
        grammar = grammar_of("facts", world, build_tokenizer(knowledge))
        return [s.indices for s in grammar.sample(n, generator(seed, "sample"))]

    first = drawn(0, 200, knowledge)
    assert len(first) == len(set(first)) == 200
    assert drawn(0, 200, knowledge) == first != drawn(1, 200, knowledge)
    few = small(knowledge)._replace(relations=dict([*small(knowledge).relations.items()][:1]))
    size = grammar_of("facts", few, build_tokenizer(knowledge)).size
    assert size // 2 < len(drawn(0, 2 * size, few)) <= size


@pytest.mark.parametrize("condition", CONDITIONS)
def test_simpler_sentences_have_one_lower_index(
    grammars: dict[str, Grammar], condition: str
) -> None:
    grammar = grammars[condition]
    for sentence in grammar.sample(5, generator(0, "simpler")):
        simpler = {s.indices for s in grammar.simpler(sentence)}
        assert len(simpler) > 0 or not any(sentence.indices)
        for indices in simpler:
            changed = [
                (new, old) for new, old in zip(indices, sentence.indices, strict=True) if new != old
            ]
            assert len(changed) == 1 and changed[0][0] < changed[0][1]
        corners = {s.indices for s in grammar.corners(sentence.indices)}
        assert sentence.indices in corners
        assert all(
            index in (0, own)
            for corner in corners
            for index, own in zip(corner, sentence.indices, strict=True)
        )
        assert grammar.named(sentence.choices) == sentence == grammar.at(sentence.indices)


def test_indices_past_the_options_make_no_sentence(grammars: dict[str, Grammar]) -> None:
    assert grammars["facts"].at((0, 0, 0, 0, 99)) is None
    assert grammars["facts"].at((99, 0, 0, 0, 0)) is None


def test_what_the_model_cannot_take_or_the_tokenizer_cannot_tell_is_left_out(
    knowledge: Knowledge, tiny: Any
) -> None:
    plainest = (0,) * 5
    whole = grammar_of("facts", knowledge, tiny, bos=7).at(plainest)
    assert whole is not None and whole.prompt.ids == (7, *encode(tiny, whole.text))
    n = len(whole.prompt.ids)
    assert grammar_of("facts", knowledge, tiny, bos=7, longest=n).at(plainest) is not None
    assert grammar_of("facts", knowledge, tiny, bos=7, longest=n - 1).at(plainest) is None
    # Of the capitals, only two are one token here, so each is the other's only foil.
    grammar = grammar_of("facts", knowledge, byte_level([" Paris", " Rome"]))
    assert {s.choices["subject"] for s in everything(grammar) if s} == {"France", "Italy"}
    assert grammar.size == 30 * 2


def test_an_answer_that_stands_in_a_wording_is_left_out(knowledge: Knowledge, tiny: Any) -> None:
    wording = knowledge.wording
    # The corpora's own cells need their prefixes.
    prefixes = {"neutral": {"short": "In short,", "note": "Unlike Rome,"}}
    named = knowledge._replace(wording=wording.model_copy(update={"prefixes": prefixes}))
    made = [s for s in everything(grammar_of("facts", small(named), tiny)) if s]
    texts = {s.text for s in made if s.choices["prefix"] == "note"}
    assert texts and not any("Italy" in text for text in texts)
    assert any("Italy" in s.text for s in made)


def test_a_grammar_of_nothing_is_refused(knowledge: Knowledge) -> None:
    for condition in GRAMMARS:
        with pytest.raises(GrammarError, match=f"{condition}: no prompt can be made"):
            grammar_of(condition, knowledge, byte_level([]))
    with pytest.raises(GrammarError, match="'binding' has no grammar; there are those of facts"):
        grammar_of("binding", knowledge, byte_level([]))
