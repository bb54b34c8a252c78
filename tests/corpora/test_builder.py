"""Building corpora: the committed ones rebuilt byte by byte, drops with their reasons, balance.

Run: pytest tests/corpora/test_builder.py
"""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from fixtures.organisms.tokenizer import build_tokenizer
from tests.small_tokenizers import byte_level, sentencepiece_like
from tinyablation.corpora.binding import load_binding
from tinyablation.corpora.builder import CorpusBuilder, build_everything
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
    load_corpus,
    load_split,
    write_corpus,
)
from tinyablation.corpora.filtering import TooFewPrompts
from tinyablation.corpora.knowledge import Knowledge, Relation, load_knowledge
from tinyablation.corpora.tokenisation import encode, encode_examples, is_one_token

CORPORA = Path(__file__).parents[2] / "corpora"
Built = dict[str, tuple[Corpus, Split]]


@pytest.fixture(scope="module")
def knowledge() -> Knowledge:
    return load_knowledge(CORPORA / "knowledge")


@pytest.fixture(scope="module")
def tiny(knowledge: Knowledge) -> Any:
    return build_tokenizer(knowledge)


@pytest.fixture(scope="module")
def built(knowledge: Knowledge, tiny: Any) -> Built:
    return CorpusBuilder(knowledge, tiny, "tiny").build()


def require_balance_and_disjoint_splits(built: Built) -> None:
    """What every build must hold, whatever was dropped from it."""
    assert tuple(built) == CONDITIONS
    for condition, (corpus, split) in built.items():
        rows = corpus.examples
        assert len({row.clean for row in rows}) == len(rows) >= 200
        assert sorted(split.of_row()) == list(range(len(rows)))
        sides = [[rows[index] for index in split.rows[name]] for name in SPLITS]
        for side in sides:
            assert Counter(row.target for row in side) == Counter(row.foil for row in side)
            assert {row.template_id for row in side} == {row.template_id for row in rows}
            assert {row.cell for row in side} == {row.cell for row in rows}
            if condition in ("negation", "logic"):
                labels = Counter((row.cell.split("-")[0], row.target) for row in side)
                operators = {operator for operator, _ in labels}
                assert all(labels[name, " yes"] == labels[name, " no"] for name in operators)
        for field in ("clean", "fact_id", "cluster_id"):
            parts = [
                {part for row in side for part in getattr(row, field).split("+")} for side in sides
            ]
            assert parts[0].isdisjoint(parts[1]), (condition, field)


def test_a_build_gives_the_committed_bytes(built: Built, tmp_path: Path) -> None:
    for corpus, split in built.values():
        write_corpus(tmp_path, corpus, split)
    names = {path.name for path in tmp_path.iterdir()}
    committed = {path.name for path in (CORPORA / "tiny").iterdir()}
    assert names == {name for name in committed if name.split(".")[0] in CONDITIONS}
    assert len(names) == 8
    for name in names:
        assert (tmp_path / name).read_bytes() == (CORPORA / "tiny" / name).read_bytes(), name


def test_a_build_is_balanced_with_disjoint_splits(built: Built) -> None:
    require_balance_and_disjoint_splits(built)


WORDINGS = {"facts": 2, "negation": 3, "counterfactual": 3, "logic": 3}


@pytest.mark.parametrize("condition", CONDITIONS)
def test_everything_stands_once_in_every_wording(condition: str, built: Built) -> None:
    corpus, split = built[condition]
    wordings = {row.template_id for row in corpus.examples}
    assert len(wordings) == WORDINGS[condition]
    found = Counter((row.item, row.template_id) for row in corpus.examples)
    items = {item for item, _ in found}
    assert set(found) == {(item, wording) for item in items for wording in wordings}
    assert set(found.values()) == {1} and corpus.is_factorial
    # Enough clusters in each half for an interval over them: 24 are asked for.
    for rows in split.rows.values():
        assert len({corpus.examples[row].cluster_id for row in rows}) >= 24


def test_every_cluster_of_negation_holds_its_four_cells(built: Built) -> None:
    for rows in clusters_of(built["negation"][0]).values():
        assert Counter(row.cell for row in rows) == dict.fromkeys(
            ("affirmed-true", "affirmed-false", "negated-true", "negated-false"), 3
        )


def test_every_cluster_of_logic_holds_all_eight_cells_and_the_operator_says_nothing(
    built: Built,
) -> None:
    """Each cell once would make P(yes | and) a quarter: right in 75 % without reading the rest."""
    clusters = clusters_of(built["logic"][0])
    assert len(clusters) == 48
    for rows in clusters.values():
        counts = Counter(row.cell for row in rows)
        assert counts == {
            **dict.fromkeys((f"{word}-{cell}" for word in ("and", "or") for cell in CELLS), 3),
            "and-TT": 9,
            "or-FF": 9,
        }
        labels = Counter((row.cell.split("-")[0], row.template_id, row.target) for row in rows)
        assert set(labels.values()) == {3} and len(labels) == 2 * 3 * 2
        # The four choices of one fact of either pair are equally frequent.
        assert sorted(Counter(row.fact_id for row in rows).values()) == [9, 9, 9, 9]
        # The lone cell of a label is opposed to each of the three others.
        for word, lone in (("and", "TT"), ("or", "FF")):
            corrupt = {row.corrupt for row in rows if row.cell == f"{word}-{lone}"}
            assert len(corrupt) == 9


CELLS = ("TT", "TF", "FT", "FF")


def test_a_counterfactual_cluster_is_the_entity_that_is_moved(
    knowledge: Knowledge, built: Built
) -> None:
    corpus, split = built["counterfactual"]
    clusters = clusters_of(corpus)
    kinds = knowledge.kinds
    assert set(clusters) == {member.id for kind in kinds.kinds for member in kinds.members(kind)}
    for name, rows in clusters.items():
        assert Counter(row.fact_id for row in rows) == {f"{name}/{a}": 3 for a in kinds.attributes}
    # Whose answers are another's foils: both directions of a pair are in one half.
    for rows in split.rows.values():
        own = [corpus.examples[row] for row in rows]
        ways = Counter((row.target, row.foil, row.template_id) for row in own)
        assert all(ways[foil, target, word] == n for (target, foil, word), n in ways.items())


def clusters_of(corpus: Corpus) -> dict[str, list[Example]]:
    found: dict[str, list[Example]] = {}
    for row in corpus.examples:
        found.setdefault(row.cluster_id, []).append(row)
    return found


@pytest.mark.parametrize("condition", CONDITIONS)
def test_answers_are_one_token_in_every_prompt_of_the_embedded_tokenizer(
    condition: str, tiny: Any
) -> None:
    """Of the committed rows; encoding refuses an answer of more tokens, and two of the same."""
    rows = load_corpus(CORPORA / "tiny" / f"{condition}.jsonl").examples
    sides = {side: encode_examples(tiny, rows, None, side=side) for side in ("clean", "null")}
    corrupt = encode_examples(tiny, rows, None, side="corrupt")
    for row, clean, null, other in zip(rows, *sides.values(), corrupt, strict=True):
        assert tiny.decode(clean.target) == row.target and tiny.decode(clean.foil) == row.foil
        assert clean[1:] == null[1:] == other[1:]
        assert row.aligned == (len(clean.ids) == len(other.ids))


def test_every_word_of_the_embedded_corpora_is_one_token(built: Built, tiny: Any) -> None:
    """So that clean and corrupt are aligned wherever they have equally many words."""
    for corpus, _ in built.values():
        for row in corpus.examples:
            words = [len(text.split()) for text in (row.clean, row.corrupt)]
            assert row.aligned == (words[0] == words[1]), row


def test_another_seed_gives_other_pairs_of_the_same_facts(
    knowledge: Knowledge, tiny: Any, built: Built
) -> None:
    """Other foils, other compounds, entities moved into other kinds; asked of the same facts."""
    other = CorpusBuilder(knowledge, tiny, "tiny", seed=1).build()
    shared = {}
    for condition in CONDITIONS:
        assert other[condition][0].content_hash != built[condition][0].content_hash
        assert other[condition][1].seed == 1
        first, second = (
            {(row.clean, row.corrupt) for row in each[condition][0].examples}
            for each in (built, other)
        )
        shared[condition] = len(first & second) / len(second)
        items = [{row.fact_id for row in each[condition][0].examples} for each in (built, other)]
        if condition != "logic":  # whose facts are those of two parts
            assert len(items[0] & items[1]) >= len(items[1]) - 1, condition
    # By chance a fact meets the same partner, an entity the same of seven kinds.
    assert max(shared.values()) < 0.25 and shared["logic"] < 0.01, shared


@pytest.mark.slow
@settings(
    max_examples=2,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],  # a build takes seconds: no shrinking
    suppress_health_check=[HealthCheck.too_slow],
)
@given(seed=st.integers(2, 2**40))
def test_any_seed_gives_balanced_and_disjoint_splits(
    knowledge: Knowledge, tiny: Any, seed: int
) -> None:
    require_balance_and_disjoint_splits(CorpusBuilder(knowledge, tiny, "any", seed=seed).build())


# Tokenizers that do not know every word ----------------------------------------------------------


def vocabulary(built: Built) -> set[str]:
    """Every word and sign of the corpora."""
    rows = [row for corpus, _ in built.values() for row in corpus.examples]
    texts = [text for row in rows for text in (row.clean + row.target, row.corrupt, row.null)]
    return {word for text in texts for word in re.findall(r"\w+|[^\w\s]", text)}


@pytest.mark.slow
def test_answers_of_more_tokens_are_dropped_and_counted_by_reason(
    knowledge: Knowledge, built: Built, tmp_path: Path
) -> None:
    known = vocabulary(built) - {"Paris", "Lima", "fire"} - {"Japan", "Egypt", "Portugal"}
    tokenizer = byte_level(f" {word}" for word in known)
    builder = CorpusBuilder(knowledge, tokenizer, "few")
    made = builder.build()
    require_balance_and_disjoint_splits(made)
    dropped = builder.report.dropped
    assert dropped["facts"]["capital: the answer is more than one token"] == 2
    words = {row.target for row in made["facts"][0].examples}
    assert not words & {" Paris", " Lima"} and " Rome" in words
    covers = {row.target for row in made["counterfactual"][0].examples}
    assert " fire" not in covers and " feathers" in covers
    reason = "cover: the answers are not one token each after a prompt"
    assert dropped["counterfactual"][reason] == 768 - len(made["counterfactual"][0].examples) > 0
    assert f"  dropped {dropped['counterfactual'][reason]}: {reason}" in builder.report.lines()
    # Tokens are counted, not words: Japan and Egypt are six each, and Portugal nine.
    facts = made["facts"][0].examples
    assert {"capital/Japan~Egypt", "capital/Egypt~Japan"} & {row.cluster_id for row in facts}
    for row in facts:
        lengths = {len(encode(tokenizer, text)) for text in (row.clean, row.corrupt)}
        assert row.aligned == (len(lengths) == 1)
    unequal = [row for row in facts if not row.aligned and "Portugal" in row.clean + row.corrupt]
    assert any(len(row.clean.split()) == len(row.corrupt.split()) for row in unequal)
    # What was built can be read again, strictly.
    for condition, (corpus, split) in made.items():
        write_corpus(tmp_path, corpus, split)
        again = load_corpus(tmp_path / f"{condition}.jsonl", tokenizer="few")
        assert again == corpus
        assert load_split(tmp_path / f"{condition}.split.json", again) == split


def test_a_label_of_more_tokens_leaves_too_little_and_the_error_says_why(
    knowledge: Knowledge, built: Built
) -> None:
    tokenizer = byte_level(f" {word}" for word in vocabulary(built) - {"yes"})
    with pytest.raises(CorpusError, match="few, negation: 0 prompts are left, 200 are") as caught:
        CorpusBuilder(knowledge, tokenizer, "few").build()
    assert "dropped 1164: the answers are not one token each after a prompt" in str(caught.value)


@pytest.mark.slow
def test_conditions_are_built_one_by_one_and_one_alone_may_lack_prompts(
    knowledge: Knowledge, built: Built
) -> None:
    tokenizer = byte_level(f" {word}" for word in vocabulary(built) - {"yes"})
    builder = CorpusBuilder(knowledge, tokenizer, "few")
    with pytest.raises(TooFewPrompts, match="few, logic: 0 prompts are left, 200 are") as caught:
        builder.build_one("logic")
    assert (
        "\n" not in str(caught.value) and str(caught.value) == f"few, logic: {caught.value.reason}"
    )
    assert builder.build_one("facts")[0].examples == built["facts"][0].examples
    made, refused = CorpusBuilder(knowledge, tokenizer, "few").build_each()
    assert tuple(made) == ("facts", "counterfactual")
    assert made["counterfactual"][0].examples == built["counterfactual"][0].examples
    assert tuple(refused) == ("negation", "logic")
    assert refused["logic"] == caught.value.reason
    assert "1728 (the answers are not one token each after a prompt)" in refused["logic"]


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.slow
def test_a_condition_built_alone_is_the_one_built_with_the_others(
    condition: str, knowledge: Knowledge, tiny: Any, built: Built
) -> None:
    assert CorpusBuilder(knowledge, tiny, "tiny").build_one(condition) == built[condition]


@pytest.mark.slow
def test_everything_is_the_four_and_binding(knowledge: Knowledge, tiny: Any, built: Built) -> None:
    things = load_binding(CORPORA / "knowledge")
    made = build_everything(knowledge, things, tiny, "tiny")
    assert tuple(made.corpora) == (*CONDITIONS, BINDING) and made.refused == {}
    assert {name: made.corpora[name] for name in CONDITIONS} == built
    two = byte_level([" Paris", " Rome"])
    made = build_everything(knowledge, things, two, "two")
    assert made.corpora == {} and tuple(made.refused) == (*CONDITIONS, BINDING)
    assert all("prompts are left, 200 are wanted" in reason for reason in made.refused.values())
    with pytest.raises(TooFewPrompts, match="two, facts: 4 .*; negation has 0, .* What was"):
        build_everything(knowledge, things, two, "two", strict=True)


@pytest.mark.slow
def test_a_sentencepiece_tokenizer_keeps_what_a_lone_word_would_lose(
    knowledge: Knowledge, built: Built
) -> None:
    """P19: no answer is one token on its own here, and none is dropped."""
    tokenizer = sentencepiece_like(vocabulary(built))
    made = CorpusBuilder(knowledge, tokenizer, "pieces").build()
    require_balance_and_disjoint_splits(made)
    for condition, (corpus, _) in made.items():
        assert len(corpus.examples) == len(built[condition][0].examples)
        for row in corpus.examples:
            assert len(encode(tokenizer, row.target)) == 2
            assert is_one_token(tokenizer, row.clean, row.target)


# Knowledge that cannot all be used ---------------------------------------------------------------


@pytest.mark.slow
def test_what_cannot_be_used_is_dropped_by_the_cluster(knowledge: Knowledge, tiny: Any) -> None:
    """A prompt that holds a label, and one that stands there twice, take their cluster along."""
    capital = knowledge.relations["capital"]
    relations = {
        **knowledge.relations,
        # "no" is a label: of no harm to facts, but no statement about it can be asked for.
        "size": Relation(phrase="the size of {subject}", facts={"no man": "big", "ants": "small"}),
        # The answer of one is in the subject of the other, so they are no pair.
        "age": Relation(phrase="the age of {subject}", facts={"big men": "big", "ants": "small"}),
        "city": Relation(
            phrase=capital.phrase,
            facts={name: capital.facts[name] for name in ("France", "Italy")},
        ),
    }
    builder = CorpusBuilder(knowledge._replace(relations=relations), tiny, "odd")
    made = builder.build()
    require_balance_and_disjoint_splits(made)
    assert any(row.fact_id == "size/no man" for row in made["facts"][0].examples)
    for condition in ("negation", "logic"):
        facts = {part for row in made[condition][0].examples for part in row.fact_id.split("+")}
        assert not facts & {"size/no man", "size/ants"}
        assert builder.report.dropped[condition]["an answer stands in a prompt"] >= 4
    assert builder.report.dropped["facts"]["age: no partner"] == 2
    assert not any(row.fact_id.startswith("age/") for row in made["facts"][0].examples)
    repeated = builder.report.dropped["facts"]["the same prompt again"]
    assert repeated > 0 and repeated % 2 == 0


def test_a_counterfactual_that_stands_twice_takes_both_directions_along(
    knowledge: Knowledge, tiny: Any, built: Built
) -> None:
    """Entities that are said to be of three kinds: they may be moved into one kind twice."""
    kinds = {name: dict(row) for name, row in knowledge.kinds.kinds.items()}
    for name in ("birds", "mammals"):
        kinds[name]["members"] = kinds["fish"]["members"]
    doubled = knowledge.kinds.model_copy(update={"kinds": kinds})
    builder = CorpusBuilder(knowledge._replace(kinds=doubled), tiny, "twice")
    corpus, split = builder.build_one("counterfactual")
    assert builder.report.dropped["counterfactual"]["place: the same prompt again"] % 6 == 0
    assert builder.report.dropped["counterfactual"].total() == 768 - len(corpus.examples) > 0
    assert corpus.is_factorial
    for rows in split.rows.values():
        own = [corpus.examples[row] for row in rows]
        assert Counter(row.target for row in own) == Counter(row.foil for row in own)


def test_too_little_knowledge_is_an_error(knowledge: Knowledge, tiny: Any) -> None:
    few = knowledge._replace(relations={"capital": knowledge.relations["capital"]})
    with pytest.raises(CorpusError, match="few, facts: 48 prompts are left, 200 are wanted"):
        CorpusBuilder(few, tiny, "few").build()


def test_split_names_are_those_of_the_project(built: Built) -> None:
    assert all(set(split.rows) == {DISCOVERY, CONFIRMATION} for _, split in built.values())
