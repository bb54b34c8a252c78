"""Corrupt prompts about unknown things, for the embedded tokenizer and for one made on the spot.

Run: pytest tests/corpora/test_unknown_words.py
"""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.benches import CORPORA, ROOT
from tests.small_tokenizers import byte_level
from tinyablation.corpora.examples import CONDITIONS, Example, load_corpus
from tinyablation.corpora.knowledge import load_knowledge
from tinyablation.corpora.subsampling import mirror_rows
from tinyablation.corpora.tokenisation import encode
from tinyablation.corpora.tokenizer_fingerprint import load_as_measured
from tinyablation.corpora.unknown_words import FEWEST_LETTERS, UnknownWords, content

KNOWLEDGE = CORPORA / "knowledge"


@pytest.fixture(scope="module")
def tiny():
    return load_as_measured(ROOT / "fixtures" / "organisms" / "tiny-gpt2")


@pytest.fixture(scope="module")
def embedded(tiny):
    """condition -> the corpus's examples, each beside what is made of it."""
    words = UnknownWords(tiny, KNOWLEDGE, 0)
    return {
        condition: [
            (row, words.corrupted(row))
            for row in load_corpus(CORPORA / "tiny" / f"{condition}.jsonl").examples
        ]
        for condition in CONDITIONS
    }


def example(clean, corrupt, target, foil, null="", fact_id="a/b"):
    return Example(
        clean=clean,
        corrupt=corrupt,
        null=null,
        target=target,
        foil=foil,
        fact_id=fact_id,
        template_id="plain.is",
        cluster_id="c",
        cell="",
        aligned=False,
    )


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.slow
def test_every_example_has_one_of_as_many_tokens_with_its_answers_kept(embedded, tiny, condition):
    for row, made in embedded[condition]:
        assert made is not None
        assert replace(made, corrupt=row.corrupt, aligned=row.aligned) == row
        assert made.aligned and made.corrupt not in (row.clean, row.corrupt)
        assert len(encode(tiny, made.corrupt)) == len(encode(tiny, row.clean))


@pytest.mark.parametrize("condition", CONDITIONS)
def test_no_pair_has_its_mirror(embedded, condition):
    made = [made for _, made in embedded[condition]]
    assert set(mirror_rows(made)) == {None}
    assert not {row.corrupt for row in made} & {row.clean for row in made}


def test_only_the_subject_of_a_fact_is_replaced_by_a_word_foreign_to_its_relation(embedded):
    relations = load_knowledge(KNOWLEDGE).relations
    for row, made in embedded["facts"]:
        relation, subject = row.fact_id.split("/")
        before, after = row.clean.split(subject)
        assert made.corrupt.startswith(before) and made.corrupt.endswith(after)
        word = made.corrupt[len(before) : len(made.corrupt) - len(after)]
        table = relations[relation].facts
        own = {part for text in (*table, *table.values()) for part in text.split()}
        assert len(word.split()) == len(subject.split()) and not own & set(word.split())
        if relation == "capital":  # countries stand in other tables, too
            others = {*relations["continent"].facts, *relations["language"].facts}
            assert word not in others


def test_statements_lose_subject_and_object_and_keep_their_operators(embedded):
    for condition in ("negation", "logic"):
        for row, made in embedded[condition]:
            blank = row.null.replace("something", "{}")
            before, *between, after = blank.split("{}")
            assert made.corrupt.startswith(before) and made.corrupt.endswith(after)
            for part in between:
                assert part in made.corrupt
            assert made.corrupt.count(" not ") == row.clean.count(" not ")


def test_the_same_word_is_replaced_alike_wherever_it_stands(embedded):
    for _, made in embedded["counterfactual"]:
        words = made.corrupt.replace(",", "").split()
        assert len([word for word in words if words.count(word) == 2 and word[0].isalpha()]) >= 2


def test_the_seed_draws_the_words(tiny, embedded):
    rows = [row for row, _ in embedded["facts"][:40]]
    again, other = (
        [UnknownWords(tiny, KNOWLEDGE, seed).corrupted(row) for row in rows] for seed in (0, 1)
    )
    assert again == [made for _, made in embedded["facts"][:40]]
    assert sum(a != b for a, b in zip(again, other, strict=True)) > 30


@pytest.mark.parametrize(
    ("given", "replaced"),
    [
        # The fact's subject, where clean and corrupt differ.
        (
            example("The word for a young sheep is", "The word for a young tiger is", " x", " y"),
            ["sheep"],
        ),
        # Of unequal lengths.
        (
            example("The capital of New Zealand is", "The capital of Peru is", " x", " y"),
            ["New", "Zealand"],
        ),
        # Answers in another order are no difference between the prompts around them.
        (
            example(
                "It must be four or six. Not six. It must be",
                "It must be six or four. Not four. It must be",
                " four",
                " six",
            ),
            ["four", "six", "six"],
        ),
        # What both prompts say of the subject stands for the answer, too.
        (
            example(
                "The pig is not two. The pig is",
                "The hen is not four. The hen is",
                " four",
                " two",
                fact_id="legs/pig",
            ),
            ["pig", "two", "pig"],
        ),
        # A subject in which the two do not differ.
        (
            example(
                "Is it true that Oslo is Norway? It is",
                "Is it true that Oslo is Peru? It is",
                " yes",
                " no",
                fact_id="city/Oslo",
            ),
            ["Oslo", "Norway"],
        ),
        # A null prompt of the same wording shows the subject; one of another wording shows nothing.
        (
            example(
                "Is it that Oslo is Norway? Say",
                "Is it that Oslo is Peru? Say",
                " yes",
                " no",
                "Is it that this is that? Say",
            ),
            ["Oslo", "Norway"],
        ),
        (
            example(
                "It must be four or six. It must be",
                "It must be six or four. It must be",
                " four",
                " six",
                "The number of that grimble is so it",
            ),
            ["four", "six"],
        ),
        # Operators are wording.
        (
            example("Ice is hot or cold. So", "Ice is hot and cold. So", " a", " b"),
            [],
        ),
    ],
)
def test_content_is_what_the_answer_follows_from(given, replaced):
    assert [given.clean[start:end] for start, end in content(given)] == replaced


def test_words_are_made_up_where_the_tokenizer_has_tokens_of_them():
    tokenizer = byte_level([" Peru", " Chad", " Zorvia", " Kalvonia", " wug", " pigs", " cows"])
    words = UnknownWords(tokenizer, KNOWLEDGE, 0)
    made = words.corrupted(example("So Peru is in", "So Chad is in", " x", " y"))
    assert made.corrupt in ("So Zorvia is in", "So Kalvonia is in")
    made = words.corrupted(example("So pigs say", "So cows say", " x", " y"))
    assert made.corrupt == "So wug say"
    # Of several tokens: the letters of a word that the tokenizer lacks, at least some of them.
    made = words.corrupted(example("So Niger is in", "So Congo is in", " x", " y"))
    word = made.corrupt.removeprefix("So ").removesuffix(" is in")
    assert len(word) == len("Niger") >= FEWEST_LETTERS and word.isalpha() and word != "Niger"


def test_a_word_that_begins_a_sentence_is_the_same_as_elsewhere():
    tokenizer = byte_level([" pigs", "Pigs", " cows", "Cows", " wug", "Wug", " blick", "Blick"])
    given = example("Pigs are pink. So pigs are", "Cows are pink. So cows are", " x", " y")
    made = UnknownWords(tokenizer, KNOWLEDGE, 0).corrupted(given)
    assert made.corrupt in (
        "Wug are pink. So wug are",
        "Blick are pink. So blick are",
    )


def test_without_words_of_as_many_tokens_there_is_none(tmp_path: Path):
    tokenizer = byte_level([" Peru", " Chad"])
    given = example("So Peru is in", "So Chad is in", " x", " y")
    assert UnknownWords(tokenizer, tmp_path, 0).corrupted(given) is None  # no tables at all
    alike = example("So it is", "So it is not", " x", " y")
    assert UnknownWords(tokenizer, KNOWLEDGE, 0).corrupted(alike) is None  # nothing to replace
