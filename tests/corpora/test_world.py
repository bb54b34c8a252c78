"""The tables of the natural world: what the project's own say, and how broken ones are refused.

Run: pytest tests/corpora/test_world.py
"""

import re
import shutil
from collections import Counter
from pathlib import Path

import pytest

from tinyablation.corpora.examples import contains_word
from tinyablation.corpora.knowledge import Fact, KnowledgeError
from tinyablation.corpora.world import World, load_world

TABLES = Path(__file__).parents[2] / "corpora" / "knowledge" / "natural"
FEW_ANSWERS = {"continent": 3, "legs": 4}  # there are no more continents or numbers of legs to ask


@pytest.fixture(scope="module")
def world() -> World:
    return load_world(TABLES)


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    """A copy of the project's tables, to be broken."""
    return Path(shutil.copytree(TABLES, tmp_path / "natural"))


def replaced(tables: Path, file: str, old: str, new: str) -> None:
    text = (tables / file).read_text(encoding="utf-8")
    assert old in text, f"{old!r} does not stand in {file}"
    (tables / file).write_text(text.replace(old, new, 1), encoding="utf-8")


def test_the_world_is_as_large_as_real_models_need(world: World) -> None:
    """95 % power for a claim about facts at large asks for some 40 relations."""
    assert len(world.relations) >= 46
    assert sum(len(world.facts(name)) for name in world.relations) >= 1100


def test_counts_by_relation(world: World) -> None:
    counts = {name: len(world.facts(name)) for name in world.relations}
    assert min(counts.values()) >= 17, min(counts, key=counts.__getitem__)


def test_facts_and_foils_are_found_by_name(world: World) -> None:
    france = world.facts("capital")[0]
    assert france == Fact("capital", "France", "Paris") and france.id == "capital/France"
    foils = world.relations["capital"].foils("France")
    assert "Rome" in foils and "Paris" not in foils and len(set(foils)) == len(foils)
    # "hot" is another's answer, and wrong; but it stands in the prompt
    assert world.relations["opposite_senses"].facts["cold"] == "hot"
    assert "cold" not in world.relations["opposite_senses"].foils("cold")
    assert "pup" not in world.relations["young"].foils("lion")  # alike


def test_relations_have_enough_answers(world: World) -> None:
    for name, relation in world.relations.items():
        answers = Counter(relation.facts.values())
        assert len(answers) >= FEW_ANSWERS.get(name, 6), name
        assert 2 * max(answers.values()) <= len(relation.facts), name


def test_articles_suit_what_follows_them(world: World) -> None:
    """Written "a {subject}" or ending in "a": then no subject or answer begins with a vowel."""
    for name, relation in world.relations.items():
        subjects = [*relation.facts, relation.null, *world.nonces.of(relation.kind)]
        for ask in (*relation.asks, relation.denies):
            assert not re.search(r"\ban( \{|$)", ask), (name, ask)
            if re.search(r"\ba \{subject\}", ask):
                assert not [s for s in subjects if s[0].lower() in "aeiou"], (name, ask)
            if ask.endswith(" a"):
                assert not [a for a in relation.facts.values() if a[0] in "aeiou"], (name, ask)


def test_the_first_ask_can_be_followed_by_either(world: World) -> None:
    for name, relation in world.relations.items():
        assert relation.asks[0].split()[-1] not in ("a", "an", "the", "your", "its"), name


def test_no_fact_is_in_two_relations(world: World) -> None:
    """Relations are the clusters: a fact in two of them would tie the two together."""
    seen: dict[tuple[str, str], str] = {}
    twice = []
    for name, relation in world.relations.items():
        for pair in relation.facts.items():
            if pair in seen:
                twice.append((*pair, seen[pair], name))
            seen[pair] = name
    assert not twice


def test_nonces_fit_both_kinds(world: World) -> None:
    nonces = world.nonces
    assert nonces.of("name") == nonces.names and nonces.of("word") == nonces.words
    assert all(name[0].isupper() for name in nonces.names)
    assert all(word.islower() for word in nonces.words)
    assert len(nonces.names) >= 24 and len(nonces.words) >= 24


@pytest.mark.parametrize(
    ("word", "text", "stands"),
    [
        ("one", "One plus two", True),
        ("one", "the phone", False),
        ("able", "able.", True),
        ("able", "unable", False),
        ("&", "this & that", True),
        ("Curaçao", "to CURAÇAO", True),
        ("k", "300 \N{KELVIN SIGN}", True),  # as a pattern that ignores case has it
    ],
)
def test_a_word_stands_in_a_text_as_a_word(word: str, text: str, stands: bool) -> None:
    assert contains_word(text, word) is stands


def test_newline_style_does_not_matter(tables: Path, world: World) -> None:
    for path in tables.glob("*.toml"):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert load_world(tables) == world


IS = '"the capital of {subject} is",'
DENIES = 'denies = "the capital of {subject} is not {object}"'
SIGN = 'denies = "the Roman numeral {subject} does not stand for {object}"'
GEO, NUM, NON = "geography.toml", "numbers.toml", "nonces.toml"
DEFECTS = {  # what is replaced by what, and what the message must say
    "missing field": (GEO, DENIES, "", "geography.toml: capital.denies: Field required"),
    "unknown field": (
        GEO,
        DENIES,
        DENIES.replace("denies", "denied", 1),
        "geography.toml: capital.denied: unknown field; did you mean 'denies'",
    ),
    "unknown kind": (GEO, 'kind = "name"', 'kind = "thing"', "capital.kind: "),
    "four asks": (GEO, '  "{subject} has its capital in",\n', "", "capital.asks: .*at least 5"),
    "ask without a subject": (
        GEO,
        IS,
        '"the capital is",',
        "capital: asks.0: 'the capital is' must have exactly the fields {subject}",
    ),
    "ask with two fields": (GEO, IS, '"{object} of {subject} is",', "capital: asks.0: .* exactly"),
    "ask with a space behind": (GEO, IS, IS.replace("is", "is "), "geography.toml: capital.asks.0"),
    "ask that ends": (GEO, IS, IS.replace("is", "is."), "capital: asks.0: .* ends a sentence"),
    "ask given twice": (
        GEO,
        '"the capital city of {subject} is"',
        '"the capital of {subject} is"',
        "capital: asks.1: 'the capital of {subject} is' is listed twice",
    ),
    "denial without an object": (
        GEO,
        DENIES,
        DENIES.replace("{object}", "Rome"),
        "denies: .* exac",
    ),
    "denial that goes on": (
        GEO,
        DENIES,
        DENIES.replace("{object}", "{object} now"),
        "capital: denies: .* must end with ' {object}'",
    ),
    "denial of something else": (
        GEO,
        DENIES,
        DENIES.replace("capital", "seat"),
        "capital: denies: .* is not asks.0, 'the capital of {subject} is', negated",
    ),
    "denial that affirms": (GEO, DENIES, DENIES.replace(" not", ""), "capital: denies: .* negated"),
    "denial with another verb": (
        NUM,
        SIGN,
        SIGN.replace("stand", "go"),
        "numbers.toml: roman: denies: .* negated",
    ),
    "answer of two words": (GEO, 'Peru = "Lima"', 'Peru = "La Lima"', "capital.facts.Peru: "),
    "empty subject": (GEO, 'Peru = "Lima"', '"" = "Lima"', "geography.toml: capital.facts"),
    "fact given twice": (GEO, 'Peru = "Lima"', 'Iran = "Lima"', "geography.toml: not valid TOML"),
    "answer in its subject": (
        GEO,
        'Peru = "Lima"',
        '"all of lima" = "Lima"',
        "capital: facts: 'all of lima' contains its own answer, 'Lima'",
    ),
    "answer in an ask": (
        GEO,
        'Peru = "Lima"',
        'Peru = "City"',
        "capital: asks.1: it contains 'City', the answer of 'Peru'",
    ),
    "alike to nothing": (
        "animals.toml",
        '["cub", "pup"]',
        '["cub", "bear"]',
        "animals.toml: young: alike: 'bear' is the answer of no fact here",
    ),
    "relation in two files": (
        "calendar.toml",
        "[holiday]",
        "[young]",
        "calendar.toml: young: is also in animals.toml",
    ),
    "nonce that means something": (
        NON,
        '"Zorvia"',
        '"France"',
        "geography.toml: capital: 'France' occurs in it and also in nonces.toml",
    ),
    "nonce given twice": (NON, '"Zorvia"', '"Blick"', "nonces.toml: 'blick' is listed twice"),
    "nonce of two words": (NON, '"Zorvia"', '"Zor via"', "nonces.toml: names.0: "),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_broken_table_is_refused(tables: Path, defect: str) -> None:
    file, old, new, message = DEFECTS[defect]
    replaced(tables, file, old, new)
    with pytest.raises(KnowledgeError, match=message.replace("{", r"\{")):
        load_world(tables)


def relation_of(facts: str, alike: str = "") -> str:
    asks = [f"{word} {{subject}} is" for word in ("one", "two", "three", "four", "five")]
    return f"""[thing]
title = "a thing"
kind = "word"
{alike}
asks = {asks}
denies = "one {{subject}} is not {{object}}"
null = "something"
facts = {{ {facts} }}
"""


@pytest.fixture
def lone(tmp_path: Path) -> Path:
    """A folder whose only table of relations is thing.toml, to be written."""
    shutil.copy(TABLES / "nonces.toml", tmp_path)
    return tmp_path


def numbered(count: int, answer: str = "answer{}") -> str:
    return ", ".join(f'subject{n} = "{answer.format(n)}"' for n in range(count))


def test_twelve_facts_are_enough_and_eleven_are_not(lone: Path) -> None:
    (lone / "thing.toml").write_text(relation_of(numbered(12)))
    assert len(load_world(lone).facts("thing")) == 12
    (lone / "thing.toml").write_text(relation_of(numbered(11)))
    with pytest.raises(KnowledgeError, match="thing.toml: thing.facts: .*at least 12"):
        load_world(lone)


def test_a_fact_that_nothing_contrasts_with_is_refused(lone: Path) -> None:
    (lone / "thing.toml").write_text(relation_of(numbered(12, "same")))
    with pytest.raises(KnowledgeError, match="thing: facts: no other answer is plainly wrong"):
        load_world(lone)
    facts = numbered(11, "same") + ', subject11 = "other"'
    (lone / "thing.toml").write_text(relation_of(facts))
    load_world(lone)
    (lone / "thing.toml").write_text(relation_of(facts, 'alike = [["other", "same"]]'))
    with pytest.raises(KnowledgeError, match="thing: facts: no other answer is plainly wrong"):
        load_world(lone)


def test_a_folder_without_relations_is_refused(lone: Path) -> None:
    with pytest.raises(KnowledgeError, match="no table of relations beside nonces.toml"):
        load_world(lone)
    with pytest.raises(KnowledgeError, match="no such folder of knowledge tables"):
        load_world(lone / "elsewhere")


def test_missing_nonces_are_named(tables: Path) -> None:
    (tables / "nonces.toml").unlink()
    with pytest.raises(KnowledgeError, match=r"nonces.toml: cannot be read"):
        load_world(tables)
