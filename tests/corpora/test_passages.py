"""Passages of text: those shipped, and a file read strictly.

Run: pytest tests/corpora/test_passages.py
"""

import json

import pytest

from tests.benches import CORPORA
from tinyablation.corpora.examples import CorpusError
from tinyablation.corpora.passages import PASSAGES, content_hash, load_passages

ONE = {"id": "a", "text": "First words.", "source": "a book"}
TWO = {"id": "b", "text": "Other words.", "source": "a book"}


def put(folder, *lines):
    (folder / PASSAGES).parent.mkdir(parents=True, exist_ok=True)
    text = "".join(f"{each if isinstance(each, str) else json.dumps(each)}\n" for each in lines)
    (folder / PASSAGES).write_text(text, encoding="utf-8")
    return folder


def test_the_shipped_passages_are_of_one_length_each_from_another_address():
    passages = load_passages(CORPORA)
    assert len(passages) == 64 == len({passage.source for passage in passages})
    assert {len(passage.text.split()) for passage in passages} == {130}
    assert not any("[" in passage.text or "  " in passage.text for passage in passages)
    # The first half is spread over all the years, as its README says.
    years = sorted(int(passage.id[:4]) for passage in passages)
    half = sorted(int(passage.id[:4]) for passage in passages[:32])
    assert half == years[::2]


def test_a_folder_without_passages_has_those_that_are_shipped(tmp_path):
    assert load_passages(tmp_path) == load_passages(CORPORA)
    own = load_passages(put(tmp_path, ONE, TWO))
    assert [passage.id for passage in own] == ["a", "b"]
    assert load_passages(tmp_path, 1) == own[:1]


def test_the_hash_is_of_the_texts_in_their_order(tmp_path):
    one, two = load_passages(put(tmp_path, ONE, TWO))
    assert content_hash((one, two)) != content_hash((two, one)) != content_hash((two,))
    renamed = one._replace(id="c", source="another book")
    assert content_hash((renamed, two)) == content_hash((one, two))
    assert content_hash((one._replace(text="First words"), two)) != content_hash((one, two))


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([ONE, "{"], "line 2: .*"),
        ([ONE, "[]"], "line 2: must be a JSON object, not list"),
        ([{**ONE, "txt": "x"}], "line 1: field 'txt' is unknown; .*text"),
        ([{"id": "a", "text": "x"}], "line 1: field 'source' must be text that is not empty"),
        ([ONE, {**TWO, "text": " "}], "line 2: field 'text' must be text"),
        ([ONE, {**TWO, "id": "a"}], "line 2: field 'id' occurs in an earlier line too"),
        ([ONE, {**TWO, "text": ONE["text"]}], "line 2: field 'text' occurs in an earlier"),
        ([], "has 0 passages; some are needed"),
    ],
)
def test_a_broken_file_is_refused_in_one_line(lines, said, tmp_path):
    with pytest.raises(CorpusError, match=f"{PASSAGES}.*{said}"):
        load_passages(put(tmp_path, *lines))


def test_more_passages_than_there_are_is_refused(tmp_path):
    with pytest.raises(CorpusError, match="has 2 passages; 3 are needed"):
        load_passages(put(tmp_path, ONE, TWO), 3)
