"""The corpus "binding": what each cluster balances, the committed files, and refused tables.

Run: pytest tests/corpora/test_binding.py
"""

import re
import shutil
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from tests.small_tokenizers import byte_level, sentencepiece_like
from tinyablation.corpora.binding import BindingTable, Thing, build_binding, load_binding
from tinyablation.corpora.examples import (
    BINDING,
    CONDITIONS,
    IN_CONTEXT,
    SPLITS,
    Corpus,
    CorpusError,
    Example,
    Split,
    answer_fault,
    contains_word,
    load_corpus,
    load_split,
    write_corpus,
)
from tinyablation.corpora.filtering import BuildReport
from tinyablation.corpora.knowledge import KnowledgeError
from tinyablation.corpora.tokenisation import encode, encode_examples, load_tokenizer

ROOT = Path(__file__).parents[2]
CORPORA = ROOT / "corpora"
TABLES = CORPORA / "knowledge"
TOKENIZERS = ("tiny", "gpt2", "gpt-neox", "mistral", "llama2")
Built = tuple[Corpus, Split]

PROMPT = re.compile(r"\b[Aa] (\w+) (\w+) and a (\w+) (\w+)\b.*\. The (\w+)$")


@pytest.fixture(scope="module")
def table() -> BindingTable:
    return load_binding(TABLES)


@pytest.fixture(scope="module")
def tiny() -> Any:
    return load_tokenizer(str(ROOT / "fixtures" / "organisms" / "tiny-gpt2"))


def build(table: BindingTable, tokenizer: Any, **options: Any) -> tuple[Built | None, BuildReport]:
    report = options.pop("report", BuildReport())
    name = options.pop("name", "tiny")
    made = build_binding(table, tokenizer, name, null="something", report=report, **options)
    return made, report


@pytest.fixture(scope="module")
def built(table: BindingTable, tiny: Any) -> Built:
    made, _ = build(table, tiny)
    assert made is not None
    return made


def committed(tokenizer: str) -> Built:
    path = CORPORA / tokenizer / f"{BINDING}.jsonl"
    corpus = load_corpus(path)
    return corpus, load_split(path.with_suffix(".split.json"), corpus)


@pytest.fixture(scope="module", params=TOKENIZERS)
def each(request: pytest.FixtureRequest) -> Built:
    """The committed corpus of each tokenizer."""
    return committed(request.param)


def sides(corpus: Corpus, split: Split) -> list[list[Example]]:
    return [[corpus.examples[row] for row in split.rows[name]] for name in SPLITS]


# The committed corpora ---------------------------------------------------------------------------


def test_a_condition_of_its_own_with_a_reason() -> None:
    assert BINDING not in CONDITIONS
    assert set(IN_CONTEXT) == {BINDING} and IN_CONTEXT[BINDING]


def test_256_distinct_prompts_half_in_each_split(each: Built) -> None:
    corpus, split = each
    assert corpus.condition == BINDING and corpus.defects == split.defects == ()
    assert len({row.clean for row in corpus.examples}) == len(corpus.examples) == 256
    assert [len(rows) for rows in sides(*each)] == [128, 128]


def test_the_answers_are_worked_out_again_from_the_text(each: Built) -> None:
    for row in each[0].examples:
        for text, answer in ((row.clean, row.target), (row.corrupt, row.foil)):
            found = PROMPT.search(text)
            assert found is not None, text
            first, one, second, other, asked = found.groups()
            assert first != second and one != other
            assert f" {({first: one, second: other})[asked]}" == answer, row
            if text == row.clean:
                assert row.cell == ("first" if asked == first else "second")


def test_no_noun_no_pair_and_no_prompt_is_in_both_splits(each: Built) -> None:
    for parts in (
        lambda row: [row.target, row.foil],
        lambda row: [row.cluster_id],
        lambda row: [row.fact_id],
        lambda row: [row.clean, row.corrupt],
    ):
        seen = [{part for row in rows for part in parts(row)} for rows in sides(*each)]
        assert seen[0].isdisjoint(seen[1])


def test_a_pair_of_nouns_is_one_cluster_of_eight(each: Built) -> None:
    clusters: dict[str, list[Example]] = {}
    for row in each[0].examples:
        clusters.setdefault(row.cluster_id, []).append(row)
    assert len(clusters) == 32 and {len(rows) for rows in clusters.values()} == {8}
    nouns = [frozenset((rows[0].target, rows[0].foil)) for rows in clusters.values()]
    assert len(set(nouns)) == 32


def test_neither_noun_nor_colour_nor_place_tells_the_answer(each: Built) -> None:
    """In every cluster: a model that goes by any of them alone is right on one half."""
    for rows in sides(*each):
        assert Counter(row.target for row in rows) == Counter(row.foil for row in rows)
        clusters: dict[str, Counter[Any]] = {}
        for row in rows:
            asked = row.clean.split()[-1]
            clusters.setdefault(row.cluster_id, Counter())[asked, row.cell, row.target] += 1
        for counts in clusters.values():
            # Two colours x two places x two nouns, each once.
            assert len(counts) == 8 and set(counts.values()) == {1}


def test_every_frame_and_both_cells_are_in_each_split(each: Built, table: BindingTable) -> None:
    frames = {f"plain.{frame}" for frame in table.frames}
    for rows in sides(*each):
        counts = Counter((row.template_id, row.cell) for row in rows)
        assert set(counts) == {(frame, cell) for frame in frames for cell in ("first", "second")}
        assert len(set(counts.values())) == 1


def test_answers_stand_once_and_not_at_the_end(each: Built) -> None:
    for row in each[0].examples:
        for answer in (row.target, row.foil):
            for text in (row.clean, row.corrupt):
                assert len(re.findall(rf"{answer}\b", text)) == 1 and not text.endswith(answer)
            assert not contains_word(row.null, answer)


def test_the_null_prompt_keeps_the_colours_and_names_nothing(each: Built) -> None:
    for row in each[0].examples:
        nouns = rf"\b({row.target.strip()}|{row.foil.strip()})\b"
        assert re.subn(nouns, "something", row.clean) == (row.null, 2)


def test_clean_and_corrupt_are_aligned_and_answers_one_token(built: Built, tiny: Any) -> None:
    rows = built[0].examples
    clean, corrupt, null = (
        encode_examples(tiny, rows, None, side=side) for side in ("clean", "corrupt", "null")
    )
    for row, one, two, none in zip(rows, clean, corrupt, null, strict=True):
        assert row.aligned and len(one.ids) == len(two.ids) and one[1:] == two[1:] == none[1:]
        assert [a == b for a, b in zip(one.ids, two.ids, strict=True)].count(False) == 1
        assert tiny.decode(one.target) == row.target and tiny.decode(one.foil) == row.foil


def test_every_committed_pair_is_aligned(each: Built) -> None:
    assert all(row.aligned for row in each[0].examples)


# Building ----------------------------------------------------------------------------------------


def test_a_build_gives_the_committed_bytes(built: Built, tmp_path: Path) -> None:
    write_corpus(tmp_path, *built)
    names = [f"{BINDING}.jsonl", f"{BINDING}.split.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    for name in names:
        assert (tmp_path / name).read_bytes() == (CORPORA / "tiny" / name).read_bytes()


def test_another_seed_gives_other_pairs(table: BindingTable, tiny: Any, built: Built) -> None:
    made, _ = build(table, tiny, seed=1)
    assert made is not None and made[1].seed == 1
    clusters = [{row.cluster_id for row in one[0].examples} for one in (made, built)]
    assert clusters[0] != clusters[1] and made[0].content_hash != built[0].content_hash


def test_words_of_more_tokens_are_left_out_and_counted(table: BindingTable) -> None:
    known = [f" {word}" for word in (*table.adjectives, *table.nouns) if word not in NOT_KNOWN]
    made, report = build(table, byte_level(known), name="few")
    assert made is not None
    words = {
        word for row in made[0].examples for word in re.findall(r"\w+", row.clean + row.target)
    }
    assert not words & NOT_KNOWN and {"green", "ship"} <= words
    assert report.made == {BINDING: 256}
    assert report.dropped[BINDING] == {
        "an adjective is more than one token": 1,
        "a noun is more than one token": 2,
    }
    assert report.lines()[-3:] == [
        "binding: 256 examples",
        "  dropped 2: a noun is more than one token",
        "  dropped 1: an adjective is more than one token",
    ]


NOT_KNOWN = {"blue", "horse", "plane"}


def test_a_sentencepiece_tokenizer_keeps_what_a_lone_word_would_lose(table: BindingTable) -> None:
    texts = " ".join([*table.frames.values(), *table.adjectives, *table.nouns, "A something"])
    tokenizer = sentencepiece_like(re.findall(r"\w+", texts))
    made, report = build(table, tokenizer, name="pieces")
    assert made is not None and report.dropped == {}
    assert len(encode(tokenizer, made[0].examples[0].target)) == 2


@pytest.mark.parametrize(
    ("adjectives", "nouns", "left"),
    [(0, 40, 0), (1, 40, 0), (4, 0, 0), (4, 3, 0), (4, 8, 96), (2, 11, 160)],
)
def test_too_few_words_are_skipped_with_their_counts(
    adjectives: int, nouns: int, left: int, table: BindingTable
) -> None:
    known = [f" {word}" for word in (*table.adjectives[:adjectives], *table.nouns[:nouns])]
    made, report = build(table, byte_level(known), name="few")
    assert made is None and report.made == {}
    assert (
        f"binding: skipped, {left} prompts are left, 200 are wanted: {adjectives} of 12 adjectives "
        f"and {nouns} of 54 nouns are one token" in report.lines()
    )


def test_seven_nouns_a_split_give_the_whole_corpus(table: BindingTable) -> None:
    """21 pairs of 7, of which 16 are taken; two adjectives make one pair for all."""
    known = [f" {word}" for word in (*table.adjectives[:2], *table.nouns[:14])]
    made, _ = build(table, byte_level(known), name="few")
    assert made is not None and len(made[0].examples) == 256
    counts = Counter(row.target for row in made[0].examples)
    # 16 pairs of 7 nouns are 32 places: 4 or 5 pairs each, and each pair has a noun as target 4x.
    assert len(counts) == 14 and max(counts.values()) <= 4 * 6 and min(counts.values()) >= 4 * 4


# What the corpus check makes of it ----------------------------------------------------------------


CLEAN = "A red car and a blue truck were in the picture. The red"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "A red thing and a blue truck were seen. The red",
            "' car' stands 0 times in it, not once",
        ),
        (f"{CLEAN} car and the blue", "' car' stands 2 times in it, not once"),
        ("A blue truck was seen. The red one is a car", "it ends with the answer ' car'"),
        ("A blue truck was seen. The red one is a Car.", "it ends with the answer ' car'"),
    ],
)
def test_an_answer_that_does_not_stand_once_in_its_prompt_is_refused(
    text: str, message: str, tmp_path: Path
) -> None:
    assert answer_fault(BINDING, CLEAN, " car") is None
    row = Example(
        clean=CLEAN,
        corrupt=CLEAN.replace("The red", "The blue"),
        null="",
        target=" car",
        foil=" truck",
        fact_id="red car",
        template_id="plain.picture",
        cluster_id="car~truck",
        cell="first",
        aligned=True,
    )
    split = Split(0, "", dict.fromkeys(SPLITS, ()))
    write_corpus(tmp_path, Corpus.of(BINDING, "tiny", [row]), split)
    assert load_corpus(tmp_path / f"{BINDING}.jsonl").examples == (row,)
    for side in ("clean", "corrupt"):
        broken = replace(row, **{side: text})
        write_corpus(tmp_path, Corpus.of(BINDING, "tiny", [broken]), split)
        with pytest.raises(CorpusError, match=f"line 1: field '{side}': .*{message}"):
            load_corpus(tmp_path / f"{BINDING}.jsonl")
    # The exception is that of the condition: as facts the very same row is refused.
    write_corpus(tmp_path, Corpus.of("facts", "tiny", [row]), split)
    with pytest.raises(CorpusError, match="field 'clean': the answer ' car' stands in it"):
        load_corpus(tmp_path / "facts.jsonl")
    with pytest.raises(CorpusError, match="field 'clean': the answer ' car' stands in it"):
        load_corpus(tmp_path / f"{BINDING}.jsonl", condition="facts")
    assert asdict(row)["clean"] == CLEAN


# Tables ------------------------------------------------------------------------------------------


def test_the_prompt_has_its_things_and_a_capital(table: BindingTable) -> None:
    car, truck = Thing("red", "car"), Thing("blue", "truck")
    assert table.prompt("picture", car, truck, "red") == CLEAN
    drawn = table.prompt("drawn", truck, car, "red")
    assert drawn == "The child drew a blue truck and a red car. The red"


GOOD = "a {first} and a {second} were in the picture. The {asked}"
BROKEN = {  # what stands in the file, what takes its place, and what the message must say
    "a word twice": ('"red",', '"red", "red",', "adjectives: 'red' is already listed under"),
    "a noun as adjective": (
        '"red",',
        '"red", "car",',
        "nouns: 'car' is already listed under adjectives",
    ),
    "a vowel": ('"red",', '"red", "orange",', "adjectives: 'orange' cannot follow \"a\""),
    "a capital": ('"red",', '"Red",', "adjectives.0: "),
    "two words": ('"bakery",', '"post office",', "nouns.0: "),
    "an unknown field": ("nouns =", "noun =", "noun: unknown field; did you mean 'nouns'"),
    "a missing field": (GOOD, GOOD.replace("{asked}", "{color}"), "must have exactly the fields"),
    "a field twice": (GOOD, GOOD.replace("The", "{first}, the"), "in this order, each once"),
    "the asked one first": (GOOD, "The {asked}: a {first} and a {second}", "in this order"),
    "words after the asked one": (GOOD, f"{GOOD} one", "and nothing after {asked}"),
    "no article": (GOOD, GOOD.replace("a {second}", "the {second}"), '"a " before {second}'),
    "a noun of the file": (GOOD, GOOD.replace("picture", "church"), "contains 'church', a word of"),
    "an adjective of the file": (GOOD, f"Black: {GOOD}", "contains 'black', a word of"),
    "a lone brace": (GOOD, "a {first", "frames.picture: "),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_table_is_refused_with_its_field(what: str, tmp_path: Path) -> None:
    old, new, message = BROKEN[what]
    folder = Path(shutil.copytree(TABLES, tmp_path / "knowledge"))
    text = (folder / "binding.toml").read_text(encoding="utf-8")
    assert old in text
    # The first that stands in no comment.
    head, tail = text.split("adjectives = [", 1)
    (folder / "binding.toml").write_text(
        head + "adjectives = [" + tail.replace(old, new, 1), encoding="utf-8"
    )
    with pytest.raises(KnowledgeError, match=f"binding.toml: .*{re.escape(message)}"):
        load_binding(folder)


@pytest.mark.parametrize(
    ("field", "value"), [("adjectives", ["red"]), ("nouns", ["car"] * 3), ("frames", {})]
)
def test_too_short_lists_are_refused(field: str, value: Any) -> None:
    fields: dict[str, Any] = {
        "adjectives": ["red", "blue"],
        "nouns": ["car", "truck", "boat", "ball"],
        "frames": {"picture": GOOD},
    }
    BindingTable.model_validate(fields)
    with pytest.raises(ValueError, match=field):
        BindingTable.model_validate({**fields, field: value})


def test_a_missing_table_is_said(tmp_path: Path) -> None:
    with pytest.raises(KnowledgeError, match=r"binding.toml: cannot be read"):
        load_binding(tmp_path)
