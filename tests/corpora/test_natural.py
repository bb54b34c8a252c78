"""The natural world's corpora for tokenizers made on the spot; the committed ones: test_corpora.py.

Run: pytest tests/corpora/test_natural.py
"""

import re
from pathlib import Path

import pytest

from tests.small_tokenizers import byte_level
from tinyablation.corpora.examples import CONDITIONS, SPLITS, contains_word
from tinyablation.corpora.filtering import BuildReport, TooFewPrompts
from tinyablation.corpora.frames import load_frames
from tinyablation.corpora.natural import NATURAL, NaturalBuilder, build_natural, split_relations
from tinyablation.corpora.tokenisation import encode
from tinyablation.corpora.world import load_world

KNOWLEDGE = Path(__file__).parents[2] / "corpora" / "knowledge"
WORLD = load_world(KNOWLEDGE / NATURAL)
FRAMES = load_frames(KNOWLEDGE / NATURAL)


def knowing(*relations: str):
    """A tokenizer that has the answers of these relations as tokens, and yes and no."""
    words = [f" {fact.answer}" for name in relations for fact in WORLD.facts(name)]
    return byte_level(dict.fromkeys([*words, " yes", " no"]))


def builder(tokenizer, seed=0) -> NaturalBuilder:
    return NaturalBuilder(WORLD, FRAMES, tokenizer, "made", seed=seed, report=BuildReport())


@pytest.fixture(scope="module")
def some():
    return knowing("capital", "young", "material", "opposite_size", "past_tense", "digit")


@pytest.fixture(scope="module")
def built(some):
    return build_natural(KNOWLEDGE, some, "made")


@pytest.mark.slow
def test_the_same_inputs_give_the_same_corpora(some, built):
    again = build_natural(KNOWLEDGE, some, "made")
    assert again.corpora == built.corpora and again.refused == built.refused
    other = build_natural(KNOWLEDGE, some, "made", seed=1)
    assert other.corpora["facts"] != built.corpora["facts"]


def test_relations_are_on_one_side_whatever_the_tokenizer(built):
    """Also where another tokenizer has other relations."""
    sides = split_relations(tuple(WORLD.relations), 0)
    less = build_natural(KNOWLEDGE, knowing("capital", "comparative", "agent", "female"), "less")
    for corpus, split in (*built.corpora.values(), *less.corpora.values()):
        for row, name in split.of_row().items():
            relation = corpus.examples[row].cluster_id
            assert corpus.condition not in CONDITIONS or sides[relation] == name


def test_relations_are_split_half_and_half_within_their_kind():
    names = tuple(WORLD.relations)
    for seed in range(5):
        sides = split_relations(names, seed)
        assert set(sides) == set(names)
        counts = [sum(side == name for side in sides.values()) for name in SPLITS]
        assert abs(counts[0] - counts[1]) <= 1
        opposites = [side for name, side in sides.items() if name.startswith("opposite_")]
        assert abs(opposites.count(SPLITS[0]) - opposites.count(SPLITS[1])) <= 1
    assert split_relations(names, 0) != split_relations(names, 1)
    # In whatever order they are read.
    assert split_relations(names[::-1], 0) == split_relations(names, 0)


def test_both_ways_round_are_prompts(built):
    corpus, _ = built.corpora["facts"]
    rows = {(row.clean, row.target, row.foil) for row in corpus.examples}
    assert all((row.corrupt, row.foil, row.target) in rows for row in corpus.examples)
    wordings = {f"recall/{name}" for name in FRAMES["facts"]["recall"].wordings}
    for fact_id in {row.fact_id for row in corpus.examples}:
        relation, subject = fact_id.split("/")
        own = [row for row in corpus.examples if row.fact_id == fact_id]
        assert {row.template_id for row in own} == wordings and len(own) == len(wordings)
        answer = WORLD.relations[relation].facts[subject]
        assert all(subject.lower() in row.clean.lower() for row in own)
        assert {row.target for row in own} == {f" {answer}"}


def test_a_pair_is_aligned_by_its_tokens_and_not_by_its_words(some, built):
    """Most subjects are bytes here, so that equally many words are unequally many tokens."""
    rows = built.corpora["facts"][0].examples
    for row in rows:
        assert row.aligned == (len(encode(some, row.clean)) == len(encode(some, row.corrupt)))
    assert any(row.aligned for row in rows)
    assert any(
        not row.aligned and len(row.clean.split()) == len(row.corrupt.split()) for row in rows
    )


def test_prompts_about_nothing_name_no_answer(built):
    for condition in CONDITIONS:
        for row in built.corpora[condition][0].examples if condition in built.corpora else ():
            assert not contains_word(row.null, row.target)
            assert not contains_word(row.null, row.foil)


def test_an_answer_that_is_a_word_of_the_wording_is_left_out():
    """ "In the real world, the currency of Brazil is": real, in a prompt that says it is not."""
    (pair,) = [
        pair
        for pair in [*builder(knowing("currency"))._candidates("currency", family("reality"))]
        if " real" in (f" {pair.first.answer}", f" {pair.second.answer}")
    ][:1] or [None]
    if pair is None:
        pytest.skip("no pair of currencies has real")
    made = builder(knowing("currency"))
    made._seen = set()
    rows = list(made._rows("reality", family("reality"), pair))
    faults = {made._fault(row, family("reality")) for row in rows}
    assert "an answer is a word of the wording itself" in faults


def family(name: str):
    return FRAMES["counterfactual"][name]


def test_what_is_refused_says_how_many_are_left_and_why():
    built = build_natural(KNOWLEDGE, knowing("capital", "young", "material"), "less")
    assert "facts" not in built.corpora
    assert re.match(r"1\d\d prompts are left, 200 are wanted; ", built.refused["facts"])
    assert "the answer is more than one token" in built.refused["facts"]
    (line,) = [line for line in built.report.lines() if line.startswith("facts: ")]
    assert line == f"facts: skipped, {built.refused['facts']}"


def test_a_build_of_nothing_is_an_error_only_where_that_is_required():
    nothing = byte_level([" Paris"])
    assert not build_natural(KNOWLEDGE, nothing, "few").corpora
    with pytest.raises(TooFewPrompts, match="few: of no condition 200 prompts are left"):
        build_natural(KNOWLEDGE, nothing, "few", strict=True)
