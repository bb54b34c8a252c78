"""Run: pytest tests/corpora/test_defects.py"""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.small_tokenizers import byte_level
from tinyablation.corpora.defects import LEAST_CLUSTERS, listed, text_defects, token_defects
from tinyablation.corpora.examples import Example, load_corpus
from tinyablation.corpora.tokenisation import load_tokenizer
from tinyablation.records.conditions import CONDITIONS

ROOT = Path(__file__).parents[2]


def example(clean: str, corrupt: str, target: str, foil: str, **fields: str) -> Example:
    ids = {"null": "", "fact_id": clean, "template_id": "", "cluster_id": clean, "cell": ""}
    given = {**ids, **fields}
    return Example(clean=clean, corrupt=corrupt, target=target, foil=foil, aligned=False, **given)


def pairs(of: int = LEAST_CLUSTERS) -> list[Example]:
    """Facts of which each answer is right once and wrong once."""
    rows = []
    for n in range(of):
        one, other = (f"The capital of land {n}{side} is" for side in "ab")
        answers = (f" Alpha{n}", f" Beta{n}")
        rows.append(example(one, other, *answers, cluster_id=str(n)))
        rows.append(example(other, one, *answers[::-1], cluster_id=str(n)))
    return rows


def ioi(x: str, y: str, *, giver_is_first: bool) -> Example:
    """x and y in this order; the one that gives is wrong."""
    giver, other = (x, y) if giver_is_first else (y, x)
    clean, corrupt = (f"When {x} and {y} met, {one} gave a book to" for one in (giver, other))
    return example(clean, corrupt, f" {other}", f" {giver}", cluster_id=min(x, y))


def kinds(rows: list[Example]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for defect in text_defects(rows):
        found.setdefault(defect.kind, []).append(defect.line)
    return found


def balanced_ioi(of: int = LEAST_CLUSTERS) -> list[Example]:
    rows = []
    for n in range(of):
        x, y, first = f"Anna{n}", f"Bert{n}", n % 2 == 0
        rows += [ioi(x, y, giver_is_first=first), ioi(y, x, giver_is_first=first)]
    return rows


def test_a_balanced_corpus_has_none():
    assert text_defects(pairs()) == []


def test_both_answers_may_stand_in_prompts_that_are_mirrored_and_in_either_order():
    """One name stands there twice, as IOI has it: mirrored prompts make that worth nothing."""
    assert text_defects(balanced_ioi()) == []


def test_prompts_without_their_mirror_and_one_order_only_are_defects():
    unmirrored = [ioi(f"Anna{n}", f"Bert{n}", giver_is_first=n % 2 == 0) for n in range(40)]
    found = kinds(unmirrored)
    assert set(found) == {
        "both answers in the prompt, never exchanged",
        "answers not target as often as foil",
    }
    one_order = [row for row in balanced_ioi(40) if row.clean.split()[1] == row.foil.strip()]
    found = kinds(one_order)
    assert found == {"positions of the answers out of balance": [1]}


@pytest.mark.parametrize("condition", CONDITIONS)
def test_the_embedded_corpora_have_none(condition: str):
    """Those of the natural world cross what stands in prompts by cells: see test_validity."""
    corpus = load_corpus(ROOT / "corpora" / "tiny" / f"{condition}.jsonl")
    assert text_defects(corpus.examples) == []


CHANGES = {
    "the same clean prompt again": {"clean": "The capital of land 0a is"},
    "prompts that end with a space": {"corrupt": "The capital of land 1b is "},
    "answers without a space before them": {"foil": "Gamma"},
    "one answer in the prompt, the other not": {"clean": "The capital, Beta1 or not, is"},
    "prompts that end with an answer": {"clean": "The capital of land 1a is Alpha1"},
    "answers not target as often as foil": {"target": " Gamma"},
    "null prompts missing": {"null": "The capital of something is"},
}


@pytest.mark.parametrize("kind", CHANGES)
def test_each_kind_is_found_with_its_line(kind: str):
    rows = pairs()
    rows[2] = replace(rows[2], **CHANGES[kind])
    found = kinds(rows)
    expected = [1, 2] if kind == "null prompts missing" else [3]
    if kind == "answers not target as often as foil":
        assert 3 in found[kind]
    else:
        assert found[kind][: len(expected)] == expected
    assert listed(text_defects(rows))[kind].endswith(f"(first: line {found[kind][0]})")


def test_few_clusters_are_a_defect():
    assert kinds(pairs(LEAST_CLUSTERS - 1)) == {f"fewer than {LEAST_CLUSTERS} clusters": [1]}


def test_what_a_tokenizer_makes_of_answers_and_pairs():
    tiny = load_tokenizer(str(ROOT / "fixtures" / "organisms" / "tiny-gpt2"))
    one, other = "The capital of Russia is", "The capital of Iraq is"
    assert token_defects(tiny, example(one, other, " Moscow", " Baghdad")) == (True, [])
    longer = token_defects(tiny, example(one, f"Note that {other}", " Moscow", " Baghdad"))
    assert longer[0] is False and longer[1][0][0] == "pairs of unequal length"
    several = token_defects(tiny, example(one, other, " Moscow", " Baghdad Moscow"))
    assert several[0] is True
    assert several[1] == [
        ("answers of several tokens", "an answer is 2 tokens; logit differences are of the first")
    ]
    alike = token_defects(tiny, example(one, other, " Moscow", " Moscow Baghdad"))
    assert alike[0] is None and "left out" in alike[1][0][0]


def test_a_pair_is_aligned_by_its_tokens_and_not_by_its_words():
    """A word that the tokenizer does not know is a token a byte, its space among them."""
    tokenizer = byte_level([" capital", " of", " Iraq", " is", " Moscow", " Baghdad"])
    known, unknown, two = (f"The capital of {name} is" for name in ("Iraq", "Syria", "an Ur"))
    answers = (" Moscow", " Baghdad")
    assert token_defects(tokenizer, example(unknown, two, *answers)) == (True, [])
    aligned, ((kind, what),) = token_defects(tokenizer, example(unknown, known, *answers))
    assert not aligned and kind == "pairs of unequal length"
    assert what == "clean has 12 tokens, corrupt 7: not patched"
