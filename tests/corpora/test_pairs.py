"""Pairs: the largest matching, of equal lengths where there is one, and halves of every group.

Run: pytest tests/corpora/test_pairs.py
"""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.organisms.tokenizer import build_tokenizer
from tinyablation.corpora.examples import CONFIRMATION, DISCOVERY
from tinyablation.corpora.filtering import BuildReport
from tinyablation.corpora.knowledge import Fact, Knowledge, Member, load_knowledge
from tinyablation.corpora.pairs import (
    FactPair,
    MemberPair,
    Pairing,
    assign,
    corpus_generator,
    match,
    turns,
)

TABLES = Path(__file__).parents[2] / "corpora" / "knowledge"


@pytest.fixture(scope="module")
def knowledge() -> Knowledge:
    return load_knowledge(TABLES)


@pytest.fixture(scope="module")
def tiny(knowledge: Knowledge) -> Any:
    return build_tokenizer(knowledge)


def test_a_pair_has_the_other_answer_as_the_wrong_one() -> None:
    first, second = Fact("capital", "France", "Paris"), Fact("capital", "Italy", "Rome")
    pair = FactPair(first, second)
    assert pair.id == "capital/France~Italy"
    assert (pair.wrong(first), pair.wrong(second)) == ("Rome", "Paris")
    assert MemberPair(Member("birds", "owls"), Member("fish", "eels")).id == "birds/owls~fish/eels"


def test_the_largest_matching_comes_before_equal_lengths() -> None:
    """0-1 is the one good pair, but taking it would leave 2 and 3 alone."""
    scores = {(0, 1): 1, (0, 2): 0, (1, 3): 0}
    found = match(range(4), lambda a, b: scores.get((a, b)), corpus_generator(0, "test"))
    assert found == [(0, 2), (1, 3)]


def test_of_equal_lengths_as_many_as_there_are() -> None:
    items = [3, 3, 5, 5, 7, 9, 7, 4]
    found = match(items, lambda a, b: int(a == b), corpus_generator(0, "test"))
    assert {(0, 1), (2, 3), (4, 6)} <= set(found) and len(found) == 4
    assert match(items, lambda a, b: None, corpus_generator(0, "test")) == []


@settings(max_examples=30, deadline=None)
@given(items=st.lists(st.integers(0, 4), max_size=12), seed=st.integers(0, 2**40))
def test_a_matching_uses_each_item_once_and_only_allowed_pairs(items: list[int], seed: int) -> None:
    found = match(items, lambda a, b: None if a == b else 0, corpus_generator(seed, "test"))
    used = [index for pair in found for index in pair]
    assert len(set(used)) == len(used) and all(items[a] != items[b] for a, b in found)
    # Different ones find partners until one kind alone is left.
    commonest = max(Counter(items).values(), default=0)
    assert len(found) == min(len(items) // 2, len(items) - commonest)


def test_the_seed_and_the_purpose_draw() -> None:
    def draws(*given: Any) -> list[int]:
        return [int(number) for number in corpus_generator(*given).integers(1000, size=8)]

    assert draws(0, "a") == draws(0, "a")
    assert draws(0, "a") != draws(0, "b") and draws(0, "a") != draws(1, "a")


def test_every_group_is_halved_and_the_odd_ones_take_turns() -> None:
    pairs = [(group, number) for group in "abc" for number in range(5)]
    assigned = assign(pairs, lambda pair: pair[0], corpus_generator(0, "test"))
    assert sorted(pair for pair, _ in assigned) == pairs
    counts = Counter((pair[0], split) for pair, split in assigned)
    assert [counts[group, DISCOVERY] for group in "abc"] == [3, 2, 3]
    assert [counts[group, CONFIRMATION] for group in "abc"] == [2, 3, 2]


def test_turns_count_within_each_split() -> None:
    pairs = [("a", DISCOVERY), ("b", CONFIRMATION), ("c", DISCOVERY), ("d", DISCOVERY)]
    assert [(turn, pair) for turn, pair, _ in turns(pairs)] == [
        (0, "a"),
        (0, "b"),
        (1, "c"),
        (2, "d"),
    ]


def test_pairs_of_facts_contrast_and_stand_once(knowledge: Knowledge, tiny: Any) -> None:
    report = BuildReport()
    pairing = Pairing(knowledge, tiny, 0, report)
    pairs = [pair for pair, _ in pairing.facts()]
    used = [fact.id for pair in pairs for fact in pair]
    assert len(set(used)) == len(used)
    for first, second in pairs:
        assert first.relation == second.relation
        assert knowledge.relations[first.relation].contrasts(first.answer, second.answer)
    everything = sum(len(knowledge.facts(relation)) for relation in knowledge.relations)
    assert len(used) + sum(report.dropped["facts"].values()) == everything


def test_quads_are_of_two_relations(knowledge: Knowledge, tiny: Any) -> None:
    report = BuildReport()
    pairing = Pairing(knowledge, tiny, 0, report)
    pairs = [pair for pair, _ in pairing.facts()][:31]
    quads = pairing.quads(pairs)
    assert all(one.first.relation != two.first.relation for one, two in quads)
    left = len(pairs) - 2 * len(quads)
    assert left >= 1 and report.dropped["logic"] == {"pairs without a partner": left}


def test_pairs_of_entities_are_of_two_kinds(knowledge: Knowledge, tiny: Any) -> None:
    pairs = Pairing(knowledge, tiny, 0, BuildReport()).members()
    assert len(pairs) == 32 and all(one.kind != two.kind for (one, two), _ in pairs)
    assert len({member for pair, _ in pairs for member in pair}) == 64
