"""Frames: how facts become prompts, and which tables of them are refused.

Run: pytest tests/corpora/test_frames.py
"""

from pathlib import Path

import pytest

from tinyablation.corpora.frames import Pair, load_frames, phrases, render, sentence_case
from tinyablation.corpora.knowledge import Fact, KnowledgeError
from tinyablation.corpora.world import load_world

NATURAL = Path(__file__).parents[2] / "corpora" / "knowledge" / "natural"
WORLD = load_world(NATURAL)
CAPITAL = WORLD.relations["capital"]
FRANCE, ITALY = Fact("capital", "France", "Paris"), Fact("capital", "Italy", "Rome")
PAIR = Pair(FRANCE, ITALY, "France")

GOOD = """
[facts.recall]
about = "facts"
null = "as asked"
pairs = 3
target = { "" = "a" }
[facts.recall.wordings]
first = { "" = "{ask}" }
second = { "" = "{ask1}" }
"""
LABELS = """
[negation.question]
about = "facts"
null = "{ask}"
pairs = 1
labels = ["yes", "no"]
target = { "true" = "yes", "false" = "no" }
mirror = { "true" = "false" }
[negation.question.wordings]
first = { "true" = "is it so that {says_a}? Answer:", "false" = "is it so that {says_w}? Answer:" }
second = { "true" = "{says_a}. Is it so?", "false" = "{says_w}. Is it so?" }
"""


def frames(tmp_path: Path, text: str):
    (tmp_path / "frames.toml").write_text(text, encoding="utf-8")
    return load_frames(tmp_path)


def test_a_text_is_filled_up_to_its_answer():
    ask = CAPITAL.asks[0].format(subject="France")
    assert render("{ask}", CAPITAL, PAIR) == ask[0].upper() + ask[1:]
    assert render("{says_w}. {ask}", CAPITAL, PAIR).endswith(f"Rome. {ask[0].upper()}{ask[1:]}")
    assert render("{denies_w}", CAPITAL, PAIR).endswith(" not Rome")
    assert render("{either_wa}", CAPITAL, PAIR).endswith("either Rome or Paris")
    assert "Italy" in render("{other_says_w}", CAPITAL, PAIR)
    assert not render("{denied}", CAPITAL, PAIR).endswith(" ")
    assert {f"ask{n}" for n in range(1, 5)} <= set(phrases(CAPITAL, PAIR))


def test_a_pair_turned_is_of_the_other_fact_unless_neither_is_asked_about():
    assert PAIR.turned() == Pair(ITALY, FRANCE, "Italy")
    assert Pair(FRANCE, ITALY, "Umbrell").turned() == Pair(ITALY, FRANCE, "Umbrell")
    assert PAIR.turned().turned() == PAIR


def test_sentences_begin_with_capitals():
    assert sentence_case("it is. so? no: well") == "It is. So? No: Well"
    assert sentence_case("e.g.x") == "E.g.x"


def test_a_family_reads_its_defaults(tmp_path):
    (family,) = frames(tmp_path, GOOD)["facts"].values()
    assert family.relations is None and family.labels is None and family.mirror == {}
    assert family.mirror_of("") == ""
    (family,) = frames(tmp_path, LABELS)["negation"].values()
    assert (family.mirror_of("true"), family.mirror_of("false")) == ("false", "true")


@pytest.mark.parametrize(
    ("text", "before", "after", "message"),
    [
        (GOOD, "{ask1}", "{aks1}", "no field {aks1}"),
        (GOOD, "{ask1}", "{ask1", "wordings.second"),
        (GOOD, 'null = "as asked"', 'null = "{x}"', "null: no field {x}"),
        (GOOD, 'second = { "" =', 'second = { "x" =', "wordings.second: has the cells"),
        (GOOD, '"" = "a"', '"" = "b"', "target.: 'b' is none of a, w"),
        (GOOD, 'second = { "" = "{ask1}" }', "", "wordings"),
        (GOOD, "pairs = 3", "pairs = 0", "pairs"),
        (GOOD, 'about = "facts"', 'about = "fcats"', "about"),
        (GOOD, "pairs = 3", "pairs = 3\npiars = 3", "piars"),
        (GOOD, 'target = { "" = "a" }', 'target = { "" = "a" }\nmirror = { "" = "x" }', "mirror"),
        (LABELS, '"false" = "no" }', '"false" = "w" }', "target.false: 'w' is none of yes, no"),
        (LABELS, '"false" = "no" }', '"false" = "yes" }', "'false' has the same label"),
        (LABELS, 'mirror = { "true" = "false" }', "", "mirror: must join every cell"),
    ],
)
def test_a_table_at_fault_is_named(tmp_path, text, before, after, message):
    assert before in text
    with pytest.raises(KnowledgeError) as caught:
        frames(tmp_path, text.replace(before, after, 1))
    assert message in str(caught.value) and "frames.toml" in str(caught.value)


def test_what_is_no_table_of_families_is_refused(tmp_path):
    with pytest.raises(KnowledgeError, match="facts: must be a table of families"):
        frames(tmp_path, "facts = 3\n")


def test_the_committed_frames_are_four_conditions_of_families():
    found = load_frames(NATURAL)
    assert list(found) == ["facts", "negation", "counterfactual", "logic"]
    for families in found.values():
        for family in families.values():
            named = family.relations if isinstance(family.relations, list) else []
            assert set(named) <= set(WORLD.relations)
            # With two wordings a fact cannot be known by two others, and is not filtered.
            assert len(family.wordings) >= 2
