"""Run: pytest tests/api/test_prompts.py"""

import json

import pandas
import pytest

from tinyablation.api.prompts import Prompts, condition_or_prompts
from tinyablation.corpora.examples import CorpusError
from tinyablation.corpora.own_conditions import read_own

FACTS = [
    ("The capital of France is", " Paris", " Rome"),
    ("The capital of Italy is", " Rome", " Paris"),
]


def test_tuples_mappings_frames_and_files_are_the_same_prompts(tmp_path):
    names = ("prompt", "target", "foil")
    mappings = [dict(zip(names, row, strict=True)) for row in FACTS]
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in mappings), encoding="utf-8")
    given = [FACTS, mappings, pandas.DataFrame(mappings), path, str(path)]
    found = [Prompts.of(each).own for each in given]
    assert [own.examples for own in found] == [found[0].examples] * 5
    assert [own.name for own in found] == ["prompts", "prompts", "prompts", "mine", "mine"]


def test_each_prompt_is_its_own_cluster_unless_one_is_given():
    assert Prompts.of(FACTS).own.n_clusters == 2
    frame = pandas.DataFrame(FACTS, columns=["clean", "target", "foil"]).assign(cluster=7)
    found = Prompts.of(frame)
    assert found.own.n_clusters == 1 and set(found.table["cluster"]) == {"7"}
    assert Prompts.of([*FACTS, (FACTS[0][0], " Rome", " Paris")]).own.n_clusters == 2


def test_a_file_of_the_claims_is_read_as_the_claims_read_it(tmp_path):
    rows = [
        {"clean": clean, "corrupt": other, "target": target, "foil": foil}
        for (clean, target, foil), (other, _, _) in zip(FACTS, FACTS[::-1], strict=True)
    ]
    path = tmp_path / "ioi.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    own = Prompts.of(path)
    assert own.own == read_own("ioi", path) and own.has_corrupt


def test_an_empty_cell_of_a_frame_is_a_field_left_out():
    frame = pandas.DataFrame(FACTS, columns=["prompt", "target", "foil"])
    frame["null"] = [None, float("nan")]
    assert Prompts.of(frame).own.examples == Prompts.of(FACTS).own.examples


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "prompts: no examples in it"),
        (
            FACTS[0],
            "prompts, line 1: str is not a prompt with answers; give (prompt, target, foil)",
        ),
        ([FACTS[0][:2]], "prompts, line 1: 2 parts; give (prompt, target, foil), or (prompt,"),
        ([FACTS[0], ("The", " a", " a")], "prompts, line 2: field 'foil': ' a' is the target too"),
        ([("The", " a", "")], "prompts, line 1: field 'foil' is empty"),
        ([("The", " a", 3)], "prompts, line 1: field 'foil': 3 is not text"),
        ([{"prompt": "The", "target": " a"}], "prompts, line 1: field 'foil' is missing"),
        (
            [{"promt": "The", "target": " a", "foil": " b"}],
            "field 'promt' is unknown; did you mean",
        ),
        (
            [(*FACTS[0], "The capital of Italy is"), FACTS[1]],
            "prompts, line 2: field 'corrupt' is missing, but other lines have it",
        ),
        (
            [FACTS[0], ("The capital of Italy is", "Rome", "Paris")],
            "prompts, line 2: 'Rome' would continue the last word of clean (answers: 'Rome', ",
        ),
        (
            [("The capital is ", " a", " b")],
            "prompts, line 1: clean ends with one (answers: ' a', ' b'); correct it, or give ",
        ),
        (5, "prompts: int is no list of prompts; give (prompt, target, foil) tuples, a data frame"),
        ({"prompt": "The"}, "prompts: dict is no list of prompts; give"),
    ],
)
def test_what_cannot_be_measured_is_said_in_one_line(rows, said):
    with pytest.raises(CorpusError) as error:
        Prompts.of(rows)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_names_of_the_project_are_taken():
    with pytest.raises(CorpusError, match="'facts' is taken"):
        Prompts.of(FACTS, name="facts")
    with pytest.raises(CorpusError, match="cannot name a condition"):
        Prompts.of(FACTS, name="My Prompts")


def test_a_text_is_a_condition_or_a_file(tmp_path, monkeypatch):
    assert condition_or_prompts("facts") == "facts"
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CorpusError, match="'facst' is neither a condition nor a file; did you"):
        condition_or_prompts("facst")
    with pytest.raises(CorpusError, match=r"missing\.jsonl: no such file"):
        condition_or_prompts("missing.jsonl")
    with pytest.raises(CorpusError, match="is neither a condition nor a file"):
        condition_or_prompts("a prompt " * 40)  # longer than any file's name


def test_misleading_prompts_are_measured_where_that_is_asked_for():
    rows = [("The capital of France is", "Paris", "Rome"), FACTS[1]]
    assert len(Prompts.of(rows, strict=False)) == 2
