"""Rows to a corpus: faults by condition, whole clusters dropped, and the report.

Run: pytest tests/corpora/test_filtering.py
"""

import pickle
from dataclasses import replace
from typing import Any

import pytest

from tests.small_tokenizers import byte_level
from tinyablation.corpora.examples import CONFIRMATION, DISCOVERY, Example
from tinyablation.corpora.filtering import LEAST_PROMPTS, BuildReport, TooFewPrompts, fault, finish

ROW = Example(
    clean="A red car and a blue truck were seen. The red",
    corrupt="A red car and a blue truck were seen. The blue",
    null="A red thing and a blue thing were seen. The red",
    target=" car",
    foil=" truck",
    fact_id="red car",
    template_id="plain.seen",
    cluster_id="car~truck",
    cell="first",
    aligned=True,
)


@pytest.fixture(scope="module")
def words() -> Any:
    return byte_level([" car", " truck", " yes", " no"])


def fact(number: int) -> tuple[Example, str]:
    """Row of a condition whose answers stand in no prompt; two rows are a cluster."""
    row = replace(
        ROW,
        clean=f"Is {number} it?",
        corrupt=f"Is {number} not it?",
        null="Is it?",
        target=" yes",
        foil=" no",
        cluster_id=f"cluster {number // 2}",
    )
    return row, (DISCOVERY, CONFIRMATION)[number // 2 % 2]


def test_answers_stand_in_the_prompts_of_one_condition_only(words: Any) -> None:
    assert fault(words, "binding", ROW) is None
    assert fault(words, "facts", ROW) == "an answer stands in a prompt"
    again = "an answer does not stand in a prompt once, before its end"
    assert fault(words, "binding", replace(ROW, corrupt="A red car. The blue")) == again
    assert fault(words, "binding", replace(ROW, clean=f"{ROW.clean} truck is a")) == again
    assert fault(words, "binding", replace(ROW, clean="The truck is by the car")) == again
    null = replace(ROW, null="A red car and a blue thing were seen. The red")
    assert fault(words, "binding", null) == "an answer stands in a prompt"


def test_answers_are_one_token_after_each_prompt(words: Any) -> None:
    row, _ = fact(0)
    assert fault(words, "facts", row) is None
    long = "the answers are not one token each after a prompt"
    assert fault(words, "facts", replace(row, foil=" never")) == long
    assert fault(words, "facts", replace(row, foil=" yes ")) == long


def test_a_cluster_goes_whole_with_its_split(words: Any) -> None:
    rows = [fact(number) for number in range(LEAST_PROMPTS + 4)]
    rows[2] = (replace(rows[2][0], foil=" never"), rows[2][1])
    rows[9] = (replace(rows[9][0], clean=rows[0][0].clean), rows[9][1])
    report = BuildReport()
    corpus, split = finish(words, "few", "facts", rows, 7, report)
    kept = [row for number, (row, _) in enumerate(rows) if number not in (2, 3, 8, 9)]
    assert corpus.examples == tuple(kept) and corpus.condition == "facts"
    assert split.seed == 7 and split.data_hash == corpus.content_hash
    of_row = split.of_row()
    assert [of_row[row] for row in range(len(kept))] == [
        side for number, (_, side) in enumerate(rows) if number not in (2, 3, 8, 9)
    ]
    assert report.dropped["facts"] == {
        "the answers are not one token each after a prompt": 2,
        "the same prompt again": 2,
    }
    assert report.made == {"facts": LEAST_PROMPTS}
    with pytest.raises(TooFewPrompts, match="few, facts: 198 prompts are left, 200 are wanted"):
        finish(words, "few", "facts", rows[:-2], 7, BuildReport())


def test_too_few_says_on_one_line_what_was_dropped_of_the_condition(words: Any) -> None:
    rows = [fact(number) for number in range(8)]
    rows[2] = (replace(rows[2][0], foil=" never"), rows[2][1])
    report = BuildReport()
    report.drop("facts", "capital: no partner", 3)
    report.drop("facts", "colour: no partner", 4)
    report.drop("logic", "of no concern", 5)
    with pytest.raises(TooFewPrompts) as caught:
        finish(words, "few", "facts", rows, 0, report)
    assert caught.value.reason == (
        "6 prompts are left, 200 are wanted; 9 were dropped: 7 (no partner), "
        "2 (the answers are not one token each after a prompt)"
    )
    assert str(caught.value) == f"few, facts: {caught.value.reason}"
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.reason) == (str(caught.value), caught.value.reason)
    with pytest.raises(TooFewPrompts, match="few, negation: 1 prompts .*; nothing was dropped"):
        finish(words, "few", "negation", rows[:1], 0, report)


def test_a_report_counts_by_condition_and_reason() -> None:
    report = BuildReport()
    report.made["facts"] = 7
    report.drop("facts", "too long")
    report.drop("facts", "too long", 2)
    report.drop("logic", "never", 0)
    four = [
        "facts: 7 examples",
        "  dropped 3: too long",
        "negation: 0 examples",
        "counterfactual: 0 examples",
        "logic: 0 examples",
    ]
    assert report.lines() == four
    report.drop("binding", "not a word")
    report.skipped["binding"] = "no words"
    assert report.lines() == [*four, "binding: skipped, no words", "  dropped 1: not a word"]
    report.skipped.clear()
    report.made["binding"] = 3
    assert report.lines() == [*four, "binding: 3 examples", "  dropped 1: not a word"]
