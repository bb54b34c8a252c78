"""Known facts: by their other wordings, never by the prompt that is judged.

Run: pytest tests/corpora/test_known_facts.py
"""

import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyablation.corpora.examples import CONFIRMATION, DISCOVERY, Example
from tinyablation.corpora.known_facts import LEAST_CLUSTERS, NOTHING, known_rows, select


def clean(ld, wordings="abc", family="recall", fact="f"):
    """One fact in some wordings, one prompt each."""
    return pandas.DataFrame(
        {
            "template_id": [f"{family}/{name}" for name in wordings],
            "fact_id": fact,
            "logit_diff": ld,
        }
    )


def test_a_fact_is_known_by_most_of_its_other_wordings():
    assert known_rows(clean([1.0, 1.0, 1.0])) == [True, True, True]
    # The one that is wrong is known by the other two; of each of those one other is wrong.
    assert known_rows(clean([1.0, 1.0, -1.0])) == [False, False, True]
    assert known_rows(clean([1.0, 1.0, 1.0, -1.0], "abcd")) == [True, True, True, True]
    assert known_rows(clean([-1.0, -1.0, 1.0])) == [False, False, False]
    assert known_rows(clean([0.0, 0.0, 0.0])) == [False, False, False]


@given(
    st.lists(st.sampled_from([-2.0, -0.1, 0.0, 0.1, 2.0]), min_size=3, max_size=8),
    st.integers(0, 7),
    st.sampled_from([-9.0, 0.0, 9.0]),
)
def test_the_judged_prompt_decides_nothing_about_itself(ld, row, other):
    """A suppressor that lowers the LD of one prompt must not take that prompt out."""
    row %= len(ld)
    wordings = "abcdefgh"[: len(ld)]
    changed = [*ld[:row], other, *ld[row + 1 :]]
    assert known_rows(clean(ld, wordings))[row] == known_rows(clean(changed, wordings))[row]


def test_no_prompt_of_the_same_wording_decides_either():
    """Cells of one wording (answer first, answer last) are of one text."""
    two_cells = lambda own: clean([own, own, 1.0, 1.0, -1.0, 1.0], "aabbcc")  # noqa: E731
    assert known_rows(two_cells(9.0))[:2] == known_rows(two_cells(-9.0))[:2] == [True, True]


def test_families_and_facts_are_known_by_themselves():
    parts = [
        clean([1.0, 1.0, 1.0]),
        clean([-1.0, -1.0, -1.0], family="said"),
        clean([-1.0, -1.0, -1.0], fact="g"),
    ]
    table = pandas.concat(parts, ignore_index=True)
    assert known_rows(table) == [True] * 3 + [False] * 6


@pytest.mark.parametrize("ld", [1.0, -1.0])
def test_two_wordings_are_too_few_to_filter_by(ld):
    assert known_rows(clean([ld, ld], "ab")) == [True, True]


# --- what counts ----------------------------------------------------------------------------------


def examples(relations: int, facts: int = 2) -> list[Example]:
    return [
        Example(
            clean=f"{wording} {relation} {fact}",
            corrupt="other",
            null="",
            target=" a",
            foil=" b",
            fact_id=f"r{relation}/{fact}",
            template_id=f"recall/{wording}",
            cluster_id=f"r{relation}",
            cell="",
            aligned=True,
        )
        for relation in range(relations)
        for fact in range(facts)
        for wording in "abc"
    ]


def chosen(relations=2 * LEAST_CLUSTERS, unknown=(), rows=None, ld=1.0):
    """The selection where all but the unknown facts are known; relations alternate in split."""
    whole = examples(relations)
    rows = list(range(len(whole))) if rows is None else list(rows)
    halves = {
        row: (DISCOVERY, CONFIRMATION)[int(each.cluster_id[1:]) % 2]
        for row, each in enumerate(whole)
    }
    table = pandas.DataFrame(
        {
            "template_id": [whole[row].template_id for row in rows],
            "fact_id": [whole[row].fact_id for row in rows],
            "logit_diff": [-1.0 if whole[row].fact_id in unknown else ld for row in rows],
        }
    )
    return select(whole, halves, table, rows, ("recall",))


def test_rows_are_those_of_the_corpus():
    """The table has some of them only, in their order."""
    found = chosen(12, unknown={"r1/0"}, rows=range(6, 72))
    assert found.rows == frozenset(range(9, 72)) and found.lacking == ""
    assert found.known["r1"] == (1, 2) and found.known["r2"] == (2, 2)
    assert "r0" not in found.known


def test_the_share_is_of_facts():
    found = chosen(unknown={"r1/0", "r1/1", "r2/0"})
    assert found.share == pytest.approx(17 / 20)
    assert NOTHING.share == 0.0 and NOTHING.lacking


def test_too_few_relations_in_either_split_are_lacking():
    assert chosen(2 * LEAST_CLUSTERS).lacking == ""
    assert "4 of confirmation" in chosen(2 * LEAST_CLUSTERS - 1).lacking
    # A relation counts where one of its facts is known.
    assert chosen(unknown={"r1/0"}).lacking == ""
    lacking = chosen(unknown={"r1/0", "r1/1"}).lacking
    assert "4 of confirmation" in lacking and "discovery" not in lacking


def test_the_token_names_the_rows_and_nothing_else():
    assert chosen(ld=1.0).token == chosen(ld=7.0).token
    assert chosen().token != chosen(unknown={"r1/0"}).token
    assert len(chosen().token) == 12
