"""Corpora and splits: the committed ones hold what they promise, broken ones are refused.

Run: pytest tests/corpora/test_examples.py
"""

import functools
import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyablation.corpora.corpus_folder import (
    BUILDER,
    EMBEDDED_BUILDER,
    Shelf,
    knowledge_hash,
    natural_hash,
)
from tinyablation.corpora.examples import (
    BINDING,
    CONDITIONS,
    CONFIRMATION,
    DISCOVERY,
    SPLITS,
    Corpus,
    CorpusError,
    Example,
    Split,
    answer_places,
    contains_word,
    family_of,
    load_corpus,
    load_split,
    word_after,
    write_corpus,
)
from tinyablation.corpora.knowledge import Knowledge, load_knowledge
from tinyablation.corpora.library import Library
from tinyablation.corpora.subsampling import mirror_rows

CORPORA = Path(__file__).parents[2] / "corpora"
EMBEDDED = "tiny"  # the small world; those of language models are of the natural one: crossed
CROSSED = ("gpt2", "gpt-neox", "mistral", "llama2", "smollm2")
TOKENIZERS = (EMBEDDED, *CROSSED)
TRUTH = ("negation", "logic")  # conditions that ask for a label


@functools.cache
def committed(tokenizer: str, condition: str) -> tuple[Corpus, Split]:
    path = CORPORA / tokenizer / f"{condition}.jsonl"
    corpus = load_corpus(path)
    return corpus, load_split(path.with_suffix(".split.json"), corpus)


@functools.cache
def knowledge() -> Knowledge:
    return load_knowledge(CORPORA / "knowledge")


def by_split(corpus: Corpus, split: Split) -> dict[str, list[Example]]:
    return {name: [corpus.examples[row] for row in split.rows[name]] for name in SPLITS}


every_corpus = pytest.mark.parametrize("condition", CONDITIONS)
every_tokenizer = pytest.mark.parametrize("tokenizer", TOKENIZERS)
every_crossed = pytest.mark.parametrize("tokenizer", CROSSED)


# The committed corpora ---------------------------------------------------------------------------


@every_corpus
@every_tokenizer
def test_names_come_from_the_path_and_nothing_is_defective(tokenizer: str, condition: str) -> None:
    corpus, split = committed(tokenizer, condition)
    assert (corpus.condition, corpus.tokenizer) == (condition, tokenizer)
    assert corpus.defects == split.defects == ()


@every_corpus
@every_tokenizer
def test_at_least_200_distinct_prompts_and_none_twice(tokenizer: str, condition: str) -> None:
    corpus, _ = committed(tokenizer, condition)
    prompts = {row.clean for row in corpus.examples}
    assert len(prompts) == len(corpus.examples) >= 200


@every_corpus
def test_no_answer_stands_in_a_prompt(condition: str) -> None:
    for row in committed(EMBEDDED, condition)[0].examples:
        for text in (row.clean, row.corrupt, row.null):
            assert not contains_word(text, row.target) and not contains_word(text, row.foil), row


@every_corpus
@every_tokenizer
def test_every_answer_is_target_as_often_as_foil(tokenizer: str, condition: str) -> None:
    corpus, split = committed(tokenizer, condition)
    for rows in (corpus.examples, *by_split(corpus, split).values()):
        assert Counter(row.target for row in rows) == Counter(row.foil for row in rows)


@every_corpus
@every_tokenizer
def test_splits_are_disjoint_by_prompt_fact_and_cluster(tokenizer: str, condition: str) -> None:
    rows = by_split(*committed(tokenizer, condition))
    kinds: dict[str, Callable[[Example], list[str]]] = {
        "prompt": lambda row: [row.clean, row.corrupt],
        # A statement of logic is about two facts, and neither may stand on the other side.
        "fact": lambda row: row.fact_id.split("+"),
        "cluster": lambda row: row.cluster_id.split("+"),
    }
    for kind, parts in kinds.items():
        seen = [{part for row in rows[name] for part in parts(row)} for name in SPLITS]
        assert seen[0].isdisjoint(seen[1]), kind


@every_corpus
@every_tokenizer
def test_the_splits_cover_all_rows_and_neither_is_small(tokenizer: str, condition: str) -> None:
    corpus, split = committed(tokenizer, condition)
    assert sorted(split.of_row()) == list(range(len(corpus.examples)))
    assert min(len(split.rows[name]) for name in SPLITS) >= 0.4 * len(corpus.examples)


@every_corpus
def test_each_split_holds_every_template_and_every_cell(condition: str) -> None:
    cells = knowledge().wording.corpus
    templates = {
        "facts": cells.facts,
        "counterfactual": cells.counterfactual,
        "negation": cells.truth,
        "logic": cells.truth,
    }[condition]
    truths = {
        "facts": {""},
        "counterfactual": {""},
        "negation": {f"{word}-{truth}" for word in ("affirmed", "negated") for truth in TRUE_FALSE},
        "logic": {f"{word}-{parts}" for word in ("and", "or") for parts in PARTS},
    }[condition]
    for name, rows in by_split(*committed(EMBEDDED, condition)).items():
        assert {row.template_id for row in rows} == set(templates), name
        assert {row.cell for row in rows} == truths, name
        # Every cell in every template, so that no cell goes by one wording.
        found = {(row.template_id, row.cell) for row in rows}
        assert len(found) == len(templates) * len(truths), name


TRUE_FALSE = ("true", "false")
PARTS = ("TT", "TF", "FT", "FF")


@pytest.mark.parametrize("condition", TRUTH)
def test_labels_are_balanced_under_each_operator(condition: str) -> None:
    """So that neither the operator word nor the template alone is worth anything."""
    for rows in by_split(*committed(EMBEDDED, condition)).values():
        groups: dict[tuple[str, str], Counter[str]] = {}
        for row in rows:
            operator = row.cell.split("-")[0]
            groups.setdefault((operator, row.template_id), Counter())[row.target] += 1
        for counts in groups.values():
            assert counts[" yes"] == counts[" no"] > 0


@every_corpus
@every_tokenizer
def test_the_split_is_of_this_corpus(tokenizer: str, condition: str) -> None:
    corpus, split = committed(tokenizer, condition)
    written = json.loads((CORPORA / tokenizer / f"{condition}.split.json").read_bytes())
    assert written["data_hash"] == split.data_hash == corpus.content_hash
    assert set(written) == {"seed", "data_hash", *SPLITS}


@every_tokenizer
def test_no_two_corpora_have_the_same_hash(tokenizer: str) -> None:
    pairs = [committed(tokenizer, condition) for condition in CONDITIONS]
    assert len({corpus.content_hash for corpus, _ in pairs}) == len(CONDITIONS)
    assert len({split.content_hash for _, split in pairs}) == len(CONDITIONS)


@every_corpus
def test_clean_and_corrupt_have_different_answers(condition: str) -> None:
    """The right answers are worked out again here, from the text of the prompts alone."""
    rows = committed(EMBEDDED, condition)[0].examples
    answer = {"facts": named, "counterfactual": moved, "negation": judged, "logic": judged}
    for row in rows:
        assert answer[condition](row, row.clean) == row.target, row
        assert answer[condition](row, row.corrupt) == row.foil, row


def named(_: Example, text: str) -> str:
    """The answer of a fact prompt: of the one phrase that stands in it."""
    (found,) = [fact for phrase, fact in phrases().items() if f"{phrase} is" in text.lower()]
    return f" {found}"


def judged(_: Example, text: str) -> str:
    """The label of a statement under question."""
    statement = text.split(". ")[0].lower()
    operator = next((word for word in (" and ", " or ") if word in statement), None)
    truths = []
    for part in statement.split(operator) if operator else [statement]:
        subject, verb, obj = re.split(r" is (indeed|not) ", part)
        (right,) = [fact for phrase, fact in phrases().items() if subject.endswith(phrase)]
        truths.append((obj == right.lower()) == (verb == "indeed"))
    return " yes" if {" and ": all, " or ": any, None: all}[operator](truths) else " no"


def moved(row: Example, text: str) -> str:
    """The answer of a counterfactual: the attribute's word for the kind that is supposed."""
    (kind,) = re.findall(r"(?:were|changed into) (\w+),", text)
    (attribute,) = [
        name for name, words in knowledge().kinds.attributes.items() if text.endswith(words)
    ]
    assert row.fact_id.endswith(f"/{attribute}")
    return f" {knowledge().kinds.word(kind, attribute)}"


@functools.cache
def phrases() -> dict[str, str]:
    found = {}
    for name, relation in knowledge().relations.items():
        for fact in knowledge().facts(name):
            found[relation.phrase.format(subject=fact.subject).lower()] = fact.answer
    return found


@every_corpus
def test_the_null_prompt_has_the_wording_but_no_subject(condition: str) -> None:
    for row in committed("tiny", condition)[0].examples:
        assert "something" in row.null and "something" not in row.clean
        assert row.null.split()[-1] == row.clean.split()[-1]


@every_corpus
def test_writing_a_loaded_corpus_gives_the_same_bytes(condition: str, tmp_path: Path) -> None:
    write_corpus(tmp_path, *committed("tiny", condition))
    for name in (f"{condition}.jsonl", f"{condition}.split.json"):
        assert (tmp_path / name).read_bytes() == (CORPORA / "tiny" / name).read_bytes()
    assert len(list(tmp_path.iterdir())) == 2


@every_tokenizer
def test_the_manifest_is_of_these_corpora_and_of_todays_knowledge(tokenizer: str) -> None:
    """Else: `python -m tinyablation corpora build` for each of the tokenizers again."""
    manifest = Shelf.at(CORPORA / tokenizer).manifest
    of_world = knowledge_hash if tokenizer == EMBEDDED else natural_hash
    assert manifest.knowledge == of_world(CORPORA / "knowledge")
    builder = EMBEDDED_BUILDER if tokenizer == EMBEDDED else BUILDER
    assert (manifest.tokenizer, manifest.builder, manifest.seed) == (tokenizer, builder, 0)
    assert manifest.built == (*CONDITIONS, BINDING)
    for condition in manifest.built:
        corpus, split = committed(tokenizer, condition)
        made = manifest.conditions[condition]
        assert (made.examples, made.corpus) == (len(corpus.examples), corpus.content_hash)
        assert made.split == split.content_hash


def test_the_manifests_name_six_tokenizers() -> None:
    shelves = Library(CORPORA).standing()
    assert {shelf.folder.name for shelf in shelves} == set(TOKENIZERS)
    sizes = {shelf.folder.name: shelf.manifest.vocabulary for shelf in shelves}
    assert sizes["gpt2"] == 50257 and sizes["mistral"] == sizes["llama2"] == 32000


def test_a_corpus_is_factorial_if_all_of_it_stands_in_every_wording() -> None:
    corpus, _ = committed(EMBEDDED, "facts")
    rows = corpus.examples
    assert Corpus.of("facts", EMBEDDED, rows).is_factorial
    assert not Corpus.of("facts", EMBEDDED, rows[1:]).is_factorial
    one = [row for row in rows if row.template_id == rows[0].template_id]
    assert not Corpus.of("facts", EMBEDDED, one).is_factorial
    twice = [*rows, replace(rows[0], clean=f"{rows[0].clean} once more")]
    assert not Corpus.of("facts", EMBEDDED, twice).is_factorial
    assert not committed(EMBEDDED, BINDING)[0].is_factorial


# Crossed corpora ---------------------------------------------------------------------------------


@every_corpus
@every_tokenizer
def test_which_corpora_are_crossed(tokenizer: str, condition: str) -> None:
    corpus, _ = committed(tokenizer, condition)
    assert corpus.is_crossed == (tokenizer in CROSSED)


@every_corpus
def test_relations_are_clusters_on_one_side_of_every_split(condition: str) -> None:
    """The same side for every tokenizer and condition, so that what is found out of one is not
    judged in another."""
    sides: dict[str, str] = {}
    for tokenizer in CROSSED:
        for each in CONDITIONS:
            for name, rows in by_split(*committed(tokenizer, each)).items():
                for row in rows:
                    assert row.fact_id.split("/")[0] == row.cluster_id
                    assert sides.setdefault(row.cluster_id, name) == name
        own = by_split(*committed(tokenizer, condition))
        counts = [len({row.cluster_id for row in rows}) for rows in own.values()]
        assert min(counts) >= 20


@every_corpus
@every_crossed
def test_every_fact_stands_in_every_wording_and_cell(tokenizer: str, condition: str) -> None:
    rows = committed(tokenizer, condition)[0].examples
    kinds: dict[str, set[tuple[str, str]]] = {}
    facts: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for row in rows:
        kind = (row.template_id, row.cell)
        kinds.setdefault(row.family, set()).add(kind)
        facts.setdefault((row.family, row.fact_id), []).append(kind)
    for (family, fact), found in facts.items():
        assert Counter(found) == Counter(dict.fromkeys(kinds[family], 1)), fact


@every_corpus
@every_crossed
def test_every_corrupt_prompt_is_the_clean_one_of_a_mirror(tokenizer: str, condition: str) -> None:
    rows = committed(tokenizer, condition)[0].examples
    mirrors = mirror_rows(rows)
    for number, mirror in enumerate(mirrors):
        assert mirror is not None and mirrors[mirror] == number
        one, other = rows[number], rows[mirror]
        assert (one.template_id, one.cluster_id) == (other.template_id, other.cluster_id)


@every_corpus
@every_crossed
def test_targets_that_stand_in_prompts_are_first_as_often_as_last(
    tokenizer: str, condition: str
) -> None:
    """Over a family, a wording of it, and a relation."""
    signs: dict[tuple[str, str], list[int]] = {}
    for row in committed(tokenizer, condition)[0].examples:
        places = [answer_places(row.clean, answer) for answer in (row.target, row.foil)]
        assert not answer_places(row.null, row.target) + answer_places(row.null, row.foil)
        for found in places:
            assert not found or word_after(row.clean, found[-1]), row.clean
        if all(places):
            sign = 1 if places[0][0] < places[1][0] else -1
            for group in (row.family, row.template_id, row.cluster_id):
                signs.setdefault((row.family, group), []).append(sign)
    for group, found in signs.items():
        assert sum(found) == 0, group


def test_an_example_knows_its_family() -> None:
    assert example(0).family == family_of("plain.is") == ""
    assert example(0, template_id="said/not but").family == family_of("said/not but") == "said"
    assert not Corpus.of("facts", "x", [example(0), example(1, template_id="a/b")]).is_crossed


# Corpora that cannot be used ---------------------------------------------------------------------


def example(number: int, **fields: Any) -> Example:
    plain = Example(
        clean=f"The capital of land {number} is",
        corrupt=f"The capital of island {number} is",
        null="The capital of something is",
        target=" Alpha",
        foil=" Beta",
        fact_id=f"capital/{number}",
        template_id="plain.is",
        cluster_id=f"cluster {number}",
        cell="",
        aligned=True,
    )
    return replace(plain, **fields)


ROWS = [asdict(example(number)) for number in range(4)]
HANDOVER = [{name: row[name] for name in ("clean", "corrupt", "target", "foil")} for row in ROWS]


def written(path: Path, rows: list[Any], newline: str = "\n") -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_bytes("".join(f"{line}{newline}" for line in lines).encode())
    return path


def mirrored_pair(number: int, **fields: Any) -> list[Example]:
    """An example in whose prompts both answers stand, and its mirror."""
    first = example(
        number,
        clean=f"On day {number} it is Alpha, not Beta. It is",
        corrupt=f"On day {number} it is Beta, not Alpha. It is",
        template_id="said/not",
    )
    back = {"clean": first.corrupt, "corrupt": first.clean, "target": first.foil}
    return [replace(first, **fields), replace(first, **back, foil=first.target)]


def turned_pair(number: int) -> list[Example]:
    """The same with the right answer last."""
    texts = [f"On day {number} it is not {a} but {b}. It is" for a, b in (("Beta", "Alpha"),)]
    other = f"On day {number} it is not Alpha but Beta. It is"
    first = example(number, clean=texts[0], corrupt=other, template_id="said/but")
    back = {"clean": other, "corrupt": texts[0], "target": first.foil, "foil": first.target}
    return [first, replace(first, **back)]


BALANCED = [*mirrored_pair(0), *turned_pair(1)]
UNBALANCED: dict[str, tuple[list[Example], str]] = {
    "the target is always first": (mirrored_pair(0), "the target stands first in 2 of 2"),
    "no mirror": (BALANCED[1:], "no other row has this prompt as its clean one"),
    "an answer at the end": (
        [*mirrored_pair(0, clean="It is not Beta. Is it Alpha?"), *turned_pair(1)],
        "ends with one of its answers",
    ),
    "answers on the corrupt side alone": (
        [*BALANCED, example(9, corrupt="It is Beta. The capital of 9 is", template_id="said/x")],
        "no other row has this prompt as its clean one",
    ),
}


def test_answers_may_stand_in_prompts_of_families_that_cross_them() -> None:
    assert Corpus.of("negation", "x", BALANCED).defects == ()


@pytest.mark.parametrize("what", UNBALANCED)
def test_answers_that_are_not_crossed_are_defects(what: str, tmp_path: Path) -> None:
    rows, message = UNBALANCED[what]
    path = written(tmp_path / "negation.jsonl", [asdict(row) for row in rows])
    with pytest.raises(CorpusError, match=message):
        load_corpus(path)


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in ROWS[1].items() if key != name}


BROKEN_ROWS = {  # what stands on line 2, and what the message must say after the line
    "not JSON": ('{"clean": ', "not JSON"),
    "an empty line": ("", "not JSON"),
    "a list": ([1], "must be a JSON object, not list"),
    "a number of 5000 digits": ("9" * 5000, "not JSON"),
    "nested too deeply": ("[" * 100_000, "nested too deeply"),
    "a field twice": ('{"clean": "a", "clean": "b"}', "field 'clean' occurs twice"),
    "a missing field": (without("fact_id"), "field 'fact_id' is missing"),
    "a missing answer": (without("foil"), "field 'foil' is missing"),
    "a handover row without a foil": ({"clean": "a"}, "field 'corrupt' is missing"),
    "a field misspelt": (
        {**without("cluster_id"), "cluster": "x"},
        "field 'cluster' is unknown; did you mean 'cluster_id'",
    ),
    "an unknown field": ({**ROWS[1], "xyz": 1}, "field 'xyz' is unknown; known: clean, corrupt"),
    "a number for text": ({**ROWS[1], "target": 7}, "field 'target': 7 is not text"),
    "null for text": ({**ROWS[1], "cell": None}, "field 'cell': None is not text"),
    "text for a truth value": ({**ROWS[1], "aligned": "yes"}, "'yes' is not true or false"),
    "a number for a truth value": ({**ROWS[1], "aligned": 1}, "field 'aligned': 1 is not true"),
    "an empty prompt": ({**ROWS[1], "clean": " "}, "field 'clean' is empty"),
    "no corrupt prompt": ({**ROWS[1], "corrupt": ""}, "field 'corrupt' is empty"),
    "an empty cluster": ({**ROWS[1], "cluster_id": ""}, "field 'cluster_id' is empty"),
    "target and foil alike": ({**ROWS[1], "foil": " Alpha"}, "field 'foil': ' Alpha' is the targ"),
    "clean and corrupt alike": (
        {**ROWS[1], "corrupt": ROWS[1]["clean"]},
        "field 'corrupt': it equals the clean text",
    ),
    "half a surrogate pair": ({**ROWS[1], "null": "\ud800"}, "field 'null': .* surrogate"),
    "the prompt of line 1": (
        {**ROWS[1], "clean": ROWS[0]["clean"]},
        "field 'clean': the prompt of line 1 again",
    ),
    "the target in the prompt": (
        {**ROWS[1], "clean": "Is ALPHA the capital?"},
        "field 'clean': the answer ' Alpha' stands in it",
    ),
    "the foil in the corrupt prompt": (
        {**ROWS[1], "corrupt": "Is it Beta?"},
        "field 'corrupt': the answer ' Beta' stands in it",
    ),
}


@pytest.mark.parametrize("what", BROKEN_ROWS)
def test_a_broken_row_is_refused_with_file_line_and_field(tmp_path: Path, what: str) -> None:
    row, message = BROKEN_ROWS[what]
    path = written(tmp_path / "facts.jsonl", [ROWS[0], row, ROWS[2]])
    with pytest.raises(CorpusError, match=f"facts.jsonl, line 2: .*{message}"):
        load_corpus(path)


def test_an_answer_is_looked_for_as_a_word() -> None:
    assert contains_word("is it no?", " no") and contains_word("No, it is", " no")
    assert not contains_word("note that nobody knows", " no")
    assert contains_word("a c++ book", " c++") and not contains_word("a cpp book", " c++")


def test_another_encoding_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "facts.jsonl"
    lines = [json.dumps({**row, "null": "café"}, ensure_ascii=False) for row in ROWS]
    good = [line.encode() for line in lines]
    path.write_bytes(b"\n".join([*good[:2], lines[2].encode("latin-1"), good[3]]))
    with pytest.raises(CorpusError, match="facts.jsonl, line 3: not UTF-8"):
        load_corpus(path)


def test_a_missing_file_says_what_makes_it(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="no such corpus; `python -m tinyablation corpora build`"):
        load_corpus(tmp_path / "facts.jsonl")


def test_a_folder_is_no_corpus(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="cannot be read"):
        load_corpus(tmp_path)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="facts.jsonl: no examples in it"):
        load_corpus(written(tmp_path / "facts.jsonl", []))


def test_both_formats_in_one_file_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "facts.jsonl", [ROWS[0], HANDOVER[1]])
    with pytest.raises(CorpusError, match="facts.jsonl: some rows have ids and some have none"):
        load_corpus(path)


def test_newlines_key_order_and_escapes_do_not_change_the_content_hash(tmp_path: Path) -> None:
    """P17: the hash is of what the rows say, and not of how the file was written."""
    rows = [{**row, "null": "café"} for row in ROWS]
    plain = load_corpus(written(tmp_path / "a.jsonl", rows))
    crlf = load_corpus(written(tmp_path / "b.jsonl", rows, newline="\r\n"))
    turned = [dict(reversed(row.items())) for row in rows]
    other = load_corpus(written(tmp_path / "c.jsonl", turned))
    unescaped = [json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in rows]
    short = load_corpus(written(tmp_path / "d.jsonl", unescaped))
    no_newline = tmp_path / "e.jsonl"
    no_newline.write_bytes((tmp_path / "a.jsonl").read_bytes().rstrip(b"\n"))
    hashes = {each.content_hash for each in (plain, crlf, other, short, load_corpus(no_newline))}
    assert hashes == {plain.content_hash}


def test_content_changes_the_content_hash(tmp_path: Path) -> None:
    plain = load_corpus(written(tmp_path / "a.jsonl", ROWS))
    for name, value in {"null": "x", "cell": "x", "aligned": False, "fact_id": "x"}.items():
        changed = written(tmp_path / "b.jsonl", [{**ROWS[0], name: value}, *ROWS[1:]])
        assert load_corpus(changed).content_hash != plain.content_hash
    assert load_corpus(written(tmp_path / "c.jsonl", ROWS[::-1])).content_hash != plain.content_hash


# Splits ------------------------------------------------------------------------------------------


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return load_corpus(written(tmp_path / "facts.jsonl", ROWS))


def test_a_split_is_read_and_written(corpus: Corpus, tmp_path: Path) -> None:
    split = Split(3, corpus.content_hash, {DISCOVERY: (0, 2), CONFIRMATION: (1,)})
    write_corpus(tmp_path / "new", corpus, split)
    again = load_corpus(tmp_path / "new" / "facts.jsonl")
    assert again.examples == corpus.examples
    assert load_split(tmp_path / "new" / "facts.split.json", again) == split
    assert split.of_row() == {0: DISCOVERY, 2: DISCOVERY, 1: CONFIRMATION}
    other = replace(split, rows={DISCOVERY: (0,), CONFIRMATION: (1,)})
    assert other.content_hash != split.content_hash


def test_a_folder_that_cannot_be_written_is_a_typed_error(corpus: Corpus, tmp_path: Path) -> None:
    split = Split(0, corpus.content_hash, {DISCOVERY: (0,), CONFIRMATION: (1,)})
    with pytest.raises(CorpusError, match="facts.jsonl: cannot be written"):
        write_corpus(tmp_path / "facts.jsonl", corpus, split)


BROKEN_SPLITS: dict[str, tuple[dict[str, Any], str]] = {
    "another corpus": (
        {"data_hash": "0" * 64},
        "field 'data_hash': made for a corpus 000000000000",
    ),
    "a hash that is no text": ({"data_hash": 7}, "field 'data_hash': made for a corpus 7"),
    "a row out of range": ({CONFIRMATION: [4]}, "field 'confirmation': 4 is not a row .0 to 3."),
    "a negative row": ({CONFIRMATION: [-1]}, "field 'confirmation': -1 is not a row"),
    "a row that is no number": ({CONFIRMATION: ["1"]}, "field 'confirmation': '1' is not a row"),
    "a row that is a truth value": (
        {CONFIRMATION: [True]},
        "field 'confirmation': True is not a row",
    ),
    "a row in both": ({CONFIRMATION: [0]}, "field 'confirmation': row 0 is already in 'disc"),
    "a row twice": ({CONFIRMATION: [1, 1]}, "field 'confirmation': row 1 is already in 'conf"),
    "no list": ({CONFIRMATION: 1}, "field 'confirmation': must be a list of row indices"),
    "an empty split": ({CONFIRMATION: []}, "field 'confirmation': no row is left in it"),
    "an empty first split": ({DISCOVERY: []}, "field 'discovery': no row is left in it"),
    "an unknown field": ({"sede": 1}, "field 'sede' is unknown; did you mean 'seed'"),
    "a seed that is no number": ({"seed": "0"}, "field 'seed': '0' is not a whole number"),
    "a seed that is a truth value": ({"seed": True}, "field 'seed': True is not a whole number"),
}


@pytest.mark.parametrize("what", BROKEN_SPLITS)
def test_a_broken_split_is_refused_with_its_field(
    corpus: Corpus, tmp_path: Path, what: str
) -> None:
    changes, message = BROKEN_SPLITS[what]
    good = {"seed": 0, "data_hash": corpus.content_hash, DISCOVERY: [0], CONFIRMATION: [1]}
    path = written(tmp_path / "facts.split.json", [good])
    assert load_split(path, corpus).rows == {DISCOVERY: (0,), CONFIRMATION: (1,)}
    with pytest.raises(CorpusError, match=f"facts.split.json: {message}"):
        load_split(written(path, [{**good, **changes}]), corpus)


@pytest.mark.parametrize("name", ["seed", "data_hash", DISCOVERY, CONFIRMATION])
def test_a_missing_field_of_a_split_is_named(corpus: Corpus, tmp_path: Path, name: str) -> None:
    good = {"seed": 0, "data_hash": corpus.content_hash, DISCOVERY: [0], CONFIRMATION: [1]}
    del good[name]
    with pytest.raises(CorpusError, match=f"facts.split.json: field '{name}' is missing"):
        load_split(written(tmp_path / "facts.split.json", [good]), corpus)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"seed": 0,\n]', "facts.split.json, line 2: not JSON"),
        ("[]", "facts.split.json: must be a JSON object"),
        ("[" * 100_000, "facts.split.json: not JSON .nested too deeply"),
        ("9" * 5000, "facts.split.json: not JSON"),
    ],
)
def test_a_split_that_is_no_json_object_is_refused(
    corpus: Corpus, tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(CorpusError, match=message):
        load_split(written(tmp_path / "facts.split.json", [text]), corpus)


@pytest.mark.parametrize("name", ["cluster_id", "fact_id"])
def test_a_leak_from_one_split_to_the_other_is_refused(tmp_path: Path, name: str) -> None:
    rows = [ROWS[0], {**ROWS[1], name: ROWS[0][name]}, ROWS[2]]
    corpus = load_corpus(written(tmp_path / "facts.jsonl", rows))
    split = {"seed": 0, "data_hash": corpus.content_hash, DISCOVERY: [0], CONFIRMATION: [2, 1]}
    path = written(tmp_path / "facts.split.json", [split])
    with pytest.raises(CorpusError, match="field 'confirmation': row 1 shares its prompt, fact or"):
        load_split(path, corpus)


# The handover's own format -----------------------------------------------------------------------


def test_a_handover_corpus_is_read_with_its_prompts_as_clusters(tmp_path: Path) -> None:
    corpus = load_corpus(written(tmp_path / "facts_balanced.jsonl", HANDOVER), condition="facts")
    assert corpus.condition == "facts" and corpus.defects == ()
    for row, source in zip(corpus.examples, HANDOVER, strict=True):
        assert {name: getattr(row, name) for name in source} == source
        assert row.cluster_id == row.fact_id == row.clean
        assert (row.null, row.template_id, row.cell, row.aligned) == ("", "", "", False)


def test_the_known_defects_of_handover_files_are_counted(tmp_path: Path) -> None:
    """P12: what is an error in this project's own format is said and survived in the study's."""
    ends_with_answer = {**HANDOVER[3], "clean": "If it were so, the capital is Alpha"}
    rows = [HANDOVER[0], HANDOVER[1], HANDOVER[0], ends_with_answer]
    corpus = load_corpus(written(tmp_path / "facts.jsonl", rows))
    assert corpus.defects == (
        "facts.jsonl, line 3: field 'clean': the prompt of line 1 again",
        "facts.jsonl, line 4: field 'clean': the answer ' Alpha' stands in it",
    )
    assert corpus.examples[0].cluster_id == corpus.examples[2].cluster_id


def test_leaked_test_rows_of_a_handover_split_are_left_out(tmp_path: Path) -> None:
    rows = [HANDOVER[0], HANDOVER[1], HANDOVER[0], HANDOVER[2], HANDOVER[3]]
    corpus = load_corpus(written(tmp_path / "facts.jsonl", rows))
    data = {"seed": 13, "data_hash": "study", "train": [0, 1], "val": [3], "test": [2, 4]}
    split = load_split(written(tmp_path / "facts.split.json", [data]), corpus)
    assert split.rows == {DISCOVERY: (0, 1), CONFIRMATION: (4,)}
    assert split.seed == 13 and split.data_hash == corpus.content_hash
    assert "hash of a handover split cannot be checked" in split.defects[0]
    assert split.defects[1] == "1 test rows also stand in train and were left out"


def test_a_handover_split_of_leaks_only_is_refused(tmp_path: Path) -> None:
    corpus = load_corpus(written(tmp_path / "facts.jsonl", [HANDOVER[0], HANDOVER[0]]))
    data = {"seed": 13, "data_hash": "study", "train": [0], "val": [], "test": [1]}
    path = written(tmp_path / "facts.split.json", [data])
    with pytest.raises(CorpusError, match="field 'confirmation': no row is left in it"):
        load_split(path, corpus)


def test_a_handover_split_needs_its_three_names(tmp_path: Path) -> None:
    corpus = load_corpus(written(tmp_path / "facts.jsonl", HANDOVER))
    data = {"seed": 13, "data_hash": "study", "train": [0], "test": [1]}
    with pytest.raises(CorpusError, match="field 'val' is missing"):
        load_split(written(tmp_path / "facts.split.json", [data]), corpus)


# Whatever the bytes ------------------------------------------------------------------------------

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
field_names = st.sampled_from([*ROWS[0], "seed", "data_hash", "train", "val", "test", *SPLITS])
GOOD = "".join(f"{json.dumps(row)}\n" for row in ROWS).encode()


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A good corpus with a stretch of it replaced by anything."""
    start = draw(st.integers(0, len(GOOD)))
    end = start + draw(st.integers(0, 40))
    return GOOD[:start] + draw(st.binary(max_size=10)) + GOOD[end:]


@st.composite
def reworded(draw: st.DrawFn) -> bytes:
    """Rows whose fields have any names and values JSON can hold."""
    rows = draw(st.lists(st.sampled_from(ROWS + HANDOVER), min_size=1, max_size=4))
    changes = st.dictionaries(field_names | st.text(max_size=3), json_values, max_size=2)
    return "\n".join(json.dumps({**row, **draw(changes)}) for row in rows).encode()


@settings(max_examples=150, deadline=None)
@given(content=st.binary() | damaged() | reworded())
@pytest.mark.slow
def test_any_bytes_are_a_corpus_or_a_corpus_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.jsonl"
    path.write_bytes(content)
    try:
        corpus = load_corpus(path)
    except CorpusError as error:
        assert "fuzzed.jsonl" in str(error)
    else:
        assert corpus.examples and len(corpus.content_hash) == 64


@settings(max_examples=150, deadline=None)
@given(
    content=st.binary()
    | st.dictionaries(
        field_names, st.lists(st.integers(-1, 5), max_size=3) | st.integers() | json_values
    ).map(lambda data: json.dumps(data).encode())
)
def test_any_bytes_are_a_split_or_a_corpus_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    corpus = Corpus.of("facts", "tiny", [example(number) for number in range(4)])
    path = tmp_path_factory.getbasetemp() / "fuzzed.split.json"
    path.write_bytes(content)
    try:
        split = load_split(path, corpus)
    except CorpusError as error:
        assert "fuzzed.split.json" in str(error)
    else:
        assert split.rows[DISCOVERY] and split.rows[CONFIRMATION]
