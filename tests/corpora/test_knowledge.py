"""The knowledge tables: what the project's own say, and how broken ones are refused.

Run: pytest tests/corpora/test_knowledge.py
"""

import shutil
from collections import Counter
from pathlib import Path

import pytest

from tinyablation.corpora.knowledge import Fact, KnowledgeError, Member, load_knowledge

TABLES = Path(__file__).parents[2] / "corpora" / "knowledge"


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    """A copy of the project's tables, to be broken."""
    return Path(shutil.copytree(TABLES, tmp_path / "knowledge"))


def replaced(tables: Path, file: str, old: str, new: str) -> None:
    text = (tables / file).read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {file}"
    (tables / file).write_text(text.replace(old, new), encoding="utf-8")


def test_the_tables_have_at_least_eight_relations_of_at_least_twelve_facts() -> None:
    knowledge = load_knowledge(TABLES)
    assert len(knowledge.relations) >= 8
    assert min(len(knowledge.facts(relation)) for relation in knowledge.relations) >= 12


def test_facts_members_and_words_are_found_by_name() -> None:
    knowledge = load_knowledge(TABLES)
    france = knowledge.facts("capital")[0]
    assert france == Fact("capital", "France", "Paris") and france.id == "capital/France"
    assert Member("birds", "owls") in knowledge.kinds.members("birds")
    assert Member("birds", "owls").id == "birds/owls"
    assert knowledge.kinds.word("birds", "cover") == "feathers"
    assert knowledge.wording.prefix("short") == "In short,"


def test_no_relation_has_one_answer_for_most_of_its_facts() -> None:
    """Otherwise many facts would find no partner with another answer."""
    knowledge = load_knowledge(TABLES)
    for relation in knowledge.relations:
        facts = knowledge.facts(relation)
        commonest = Counter(fact.answer for fact in facts).most_common(1)[0][1]
        assert 2 * commonest <= len(facts), relation


def test_each_kind_has_members_of_its_own() -> None:
    kinds = load_knowledge(TABLES).kinds
    entities = [member.entity for kind in kinds.kinds for member in kinds.members(kind)]
    assert len(set(entities)) == len(entities)
    assert not set(entities) & set(kinds.kinds)


def test_newline_style_does_not_matter(tables: Path) -> None:
    for path in tables.glob("*.toml"):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert load_knowledge(tables) == load_knowledge(TABLES)


@pytest.mark.parametrize("file", ["facts.toml", "classes.toml", "templates.toml"])
def test_a_missing_table_is_named(tables: Path, file: str) -> None:
    (tables / file).unlink()
    with pytest.raises(KnowledgeError, match=f"{file}: cannot be read"):
        load_knowledge(tables)


@pytest.mark.parametrize("file", ["facts.toml", "classes.toml", "templates.toml"])
def test_malformed_toml_is_named_with_its_line(tables: Path, file: str) -> None:
    (tables / file).write_text("[broken\n", encoding="utf-8")
    with pytest.raises(KnowledgeError, match=f"{file}: not valid TOML.*line 1"):
        load_knowledge(tables)


def test_another_encoding_is_refused(tables: Path) -> None:
    (tables / "facts.toml").write_bytes('[x]\nphrase = "café"\n'.encode("latin-1"))
    with pytest.raises(KnowledgeError, match="facts.toml: not UTF-8"):
        load_knowledge(tables)


def test_a_folder_in_place_of_a_table_is_refused(tables: Path) -> None:
    (tables / "facts.toml").unlink()
    (tables / "facts.toml").mkdir()
    with pytest.raises(KnowledgeError, match="facts.toml: cannot be read"):
        load_knowledge(tables)


PHRASE = 'phrase = "the capital of {subject}"'
KNOWN = 'known = "{phrase} is known to be"'
AND = 'and = "{first} and {second}"'
EAGLES = '"eagles", "crows"'
DEFECTS = {  # what is replaced by what, and what the message must say
    "missing field": ("facts.toml", PHRASE, "", "facts.toml: capital.phrase: Field required"),
    "unknown field": (
        "facts.toml",
        PHRASE,
        PHRASE.replace("phrase", "phrasing", 1),
        "facts.toml: capital.phrasing: unknown field; did you mean 'phrase'",
    ),
    "phrase without a subject": (
        "facts.toml",
        PHRASE,
        'phrase = "the capital"',
        "facts.toml: capital: phrase: 'the capital' must have exactly the fields {subject}",
    ),
    "phrase with a field too many": (
        "facts.toml",
        PHRASE,
        'phrase = "the {kind} of {subject}"',
        "facts.toml: capital: phrase: .* must have exactly the fields {subject}",
    ),
    "phrase with a conversion": (
        "facts.toml",
        PHRASE,
        'phrase = "the capital of {subject!r}"',
        "facts.toml: capital: phrase: .* must have exactly",
    ),
    "phrase with an open brace": (
        "facts.toml",
        PHRASE,
        'phrase = "the capital of {subject"',
        "facts.toml: capital: phrase: ",
    ),
    "answer of two words": (
        "facts.toml",
        'Peru = "Lima"',
        'Peru = "Lima City"',
        "facts.toml: capital.facts.Peru: ",
    ),
    "answer that is no text": (
        "facts.toml",
        'Peru = "Lima"',
        "Peru = 1",
        "facts.toml: capital.facts.Peru: ",
    ),
    "fact given twice": ("facts.toml", 'Peru = "Lima"', 'Iran = "Lima"', "facts.toml: not valid"),
    "kind without an attribute": (
        "classes.toml",
        'part = "wings"',
        "",
        "classes.toml: kinds.birds: missing .*part",
    ),
    "kind with an unknown attribute": (
        "classes.toml",
        'part = "wings"',
        'part = "wings"\nprat = "wings"',
        "classes.toml: kinds.birds: missing .*unknown .*prat",
    ),
    "attribute that is a list": (
        "classes.toml",
        'part = "wings"',
        'part = ["wings"]',
        "classes.toml: kinds.birds.part must be one word",
    ),
    "member given twice": (
        "classes.toml",
        EAGLES,
        '"crows", "crows"',
        "classes.toml: kinds.birds.members must be a list of different words",
    ),
    "members that are one word": (
        "classes.toml",
        'members = ["sharks", "salmon", "trout", "eels", "cod", "tuna", "carp", "sardines"]',
        'members = "sharks"',
        "classes.toml: kinds.fish.members must be a list",
    ),
    "unknown cell": (
        "templates.toml",
        'facts = ["short.known"',
        'facts = ["plain.was"',
        "templates.toml: corpus.facts: 'plain.was' is not a prefix.frame",
    ),
    "cell given twice": (
        "templates.toml",
        'facts = ["short.known"',
        'facts = ["short.known", "short.known"',
        "templates.toml: corpus.facts: 'short.known' is listed twice",
    ),
    "no cells": (
        "templates.toml",
        'truth = ["plain.true", "short.correct", "note.so"]',
        "truth = []",
        "templates.toml: corpus.truth: ",
    ),
    "frame without its field": (
        "templates.toml",
        KNOWN,
        'known = "is known to be"',
        "templates.toml: frames.facts.known: .* must have exactly the fields {phrase}",
    ),
    "frame with a dot in its name": (
        "templates.toml",
        KNOWN,
        KNOWN.replace("known", '"known.so"', 1),
        "templates.toml: frames.facts.known.so",
    ),
    "statement without its field": (
        "templates.toml",
        AND,
        'and = "{first}"',
        "templates.toml: statements.and: .* must have exactly the fields {first}, {second}",
    ),
    "missing statement": (
        "templates.toml",
        AND,
        "",
        "templates.toml: statements.and: Field required",
    ),
    "unknown statement": (
        "templates.toml",
        AND,
        AND.replace("and", "nand", 1),
        "templates.toml: statements.nand: unknown field; did you mean 'and'",
    ),
    "unknown table": (
        "templates.toml",
        "[labels]",
        "[lables]",
        "templates.toml: lables: unknown field; did you mean 'labels'",
    ),
    "unknown tone": (
        "templates.toml",
        "[prefixes.doubt]",
        "[prefixes.doubtful]",
        "templates.toml: prefixes.doubtful",
    ),
    "prefix under two tones": (
        "templates.toml",
        'rumor = "It is',
        'short = "It is',
        "templates.toml: prefixes: 'short' is listed under two tones",
    ),
    "labels that are the same": (
        "templates.toml",
        'false = "no"',
        'false = "yes"',
        "templates.toml: labels.false: 'yes' is labels.true as well",
    ),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_is_refused_with_its_file_and_field(tables: Path, defect: str) -> None:
    file, old, new, message = DEFECTS[defect]
    replaced(tables, file, old, new)
    with pytest.raises(KnowledgeError, match=message):
        load_knowledge(tables)


def test_a_relation_that_is_no_table_is_named(tables: Path) -> None:
    with (tables / "facts.toml").open("r+", encoding="utf-8") as file:
        text = file.read()
        file.seek(0)
        file.write(f"height = 1\n{text}")
    with pytest.raises(KnowledgeError, match="facts.toml: height: "):
        load_knowledge(tables)
