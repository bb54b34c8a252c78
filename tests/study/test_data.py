"""Data files of the study: the split that is asked for, by its fields, and what is wrong with it.

Run: pytest tests/study/test_data.py
"""

import json
from pathlib import Path

import pytest

from tests.study_files import HEADS, IDS, embedded_rows, put_config, put_data
from tinyablation.corpora.examples import CorpusError
from tinyablation.corpora.tokenisation import load_tokenizer
from tinyablation.study.config import read_config
from tinyablation.study.data import StudyCondition, read_condition
from tinyablation.study.objects import StudyError

ROOT = Path(__file__).parents[2]
TRAIN, TEST = embedded_rows("facts", (6, 4))


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(str(ROOT / "fixtures" / "organisms" / "tiny-gpt2"))


def read(root: Path, split: str = "train", **changed) -> StudyCondition:
    dataset = {"id": IDS["facts"], "split": split, **changed.pop("fields", {})}
    config = read_config(put_config(root, "h1", HEADS, dataset=dataset, **changed))
    return read_condition(config.requests[0], root)


def kinds(condition: StudyCondition) -> dict[str, str]:
    return {each.kind: each.what for each in condition.defects}


def refused(root: Path, **changed) -> str:
    with pytest.raises(StudyError) as caught:
        read(root, **changed)
    return str(caught.value)


def test_only_the_rows_of_the_split_are_measured_under_its_name(tmp_path, tokenizer):
    put_data(tmp_path, IDS["facts"], TRAIN[:4], TEST, TRAIN[4:])
    for name, rows in (("train", TRAIN[:4]), ("val", TRAIN[4:]), ("test", TEST)):
        corpus, split, _ = read(tmp_path, name).for_tokenizer(tokenizer, "tiny", 0)
        assert [row.clean for row in corpus.examples] == [row["clean"] for row in rows]
        assert split.of_row() == dict.fromkeys(range(len(rows)), name)


def test_rows_of_different_splits_have_different_addresses(tmp_path, tokenizer):
    put_data(tmp_path, IDS["facts"], TRAIN, TEST)
    _, train, _ = read(tmp_path).for_tokenizer(tokenizer, "tiny", 0)
    renamed = train.__class__(0, train.data_hash, {**train.rows, "val": train.rows["train"]})
    assert renamed.content_hash != train.content_hash


def test_examples_that_share_a_prompt_share_a_cluster(tmp_path):
    put_data(tmp_path, IDS["facts"], [*TRAIN, TRAIN[0]], TEST)
    condition = read(tmp_path)
    first, *_, last = condition.examples
    assert first.cluster_id == last.cluster_id and condition.n_clusters < len(TRAIN)
    assert "the clean prompt of line 1 again" in kinds(condition)["the same clean prompt again"]


def test_fields_have_the_names_that_the_config_gives(tmp_path, tokenizer):
    names = {"clean": "good", "corrupt": "bad", "target": "right", "foil": "wrong"}
    rows = [{names[key]: value for key, value in row.items()} | {"note": 1} for row in TRAIN]
    put_data(tmp_path, IDS["facts"], rows[:4], rows[4:])
    fields = {f"{ours}_field": theirs for ours, theirs in names.items()}
    condition = read(tmp_path, fields=fields)
    assert condition.examples[0].target == TRAIN[0]["target"]
    assert kinds(condition)["fields that the config does not name: not read"] == "note"
    assert "field 'clean', which the config names, is missing; it has good, bad" in refused(
        tmp_path
    )


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({}, None),
        ({"crlf": True}, "splits whose hash is of other line ends"),
        ({"data_hash": "0" * 64}, "splits that may be of another corpus: the hash does not match"),
        ({"data_hash": "abc"}, "splits without a hash of their corpus"),
    ],
)
def test_the_hash_of_a_split_is_checked_in_either_line_ends(tmp_path, options, kind):
    put_data(tmp_path, IDS["facts"], TRAIN, TEST, **options)
    about = [name for name in kinds(read(tmp_path)) if "hash" in name]
    assert about == ([] if kind is None else [kind])


def test_a_file_with_crlf_line_ends_is_read_and_its_hash_is_of_its_bytes(tmp_path, tokenizer):
    path = put_data(tmp_path, IDS["facts"], TRAIN, TEST, crlf=True)
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    condition = read(tmp_path)
    assert [name for name in kinds(condition) if "hash" in name] == []
    assert condition.examples[-1].foil == TRAIN[-1]["foil"]


def test_prompts_of_test_that_stand_in_train_are_named(tmp_path):
    put_data(tmp_path, IDS["facts"], TRAIN, [*TEST, TRAIN[2]])
    leaks = [each for each in read(tmp_path, "test").defects if "also in train" in each.kind]
    assert [each.line for each in leaks] == [len(TRAIN) + len(TEST) + 1]
    assert not any("also in train" in kind for kind in kinds(read(tmp_path, "train")))


def test_answers_of_several_tokens_are_left_out_unless_their_spans_are_measured(
    tmp_path, tokenizer
):
    long = {**TRAIN[0], "clean": f"{TRAIN[0]['clean']} now", "target": " perhaps maybe"}
    put_data(tmp_path, IDS["facts"], [*TRAIN, long], TEST)
    for span, count in (("first_token", len(TRAIN)), ("full_target", len(TRAIN) + 1)):
        condition = read(tmp_path, metric_span=span)
        corpus, _, defects = condition.for_tokenizer(tokenizer, "tiny", 0)
        assert len(corpus.examples) == count
        out = [each for each in defects if "left out, for metric_span" in each.kind]
        assert [each.line for each in out] == ([len(TRAIN) + 1] if span == "first_token" else [])


def test_prompts_longer_than_max_seq_len_are_left_out_not_cut(tmp_path, tokenizer):
    put_data(tmp_path, IDS["facts"], TRAIN, TEST)
    lengths = sorted(len(tokenizer(row["clean"])["input_ids"]) for row in TRAIN)
    condition = read(tmp_path, max_seq_len=lengths[0] - 1)
    with pytest.raises(CorpusError, match="no row of train is of use for tiny; line 1: it has"):
        condition.for_tokenizer(tokenizer, "tiny", 0)


@pytest.mark.parametrize(
    ("split", "said"),
    [
        ({"train": [0, 99]}, "train: 99 is not a row (0 to 9)"),
        ({"test": [0]}, "test: row 0 is already in train"),
        ({"val": None}, "val: must be a list of row indices"),
        ({"train": [True]}, "train: must be a list of row indices"),
    ],
)
def test_an_unusable_split_is_refused_with_file_and_key(tmp_path, split, said):
    put_data(tmp_path, IDS["facts"], TRAIN, TEST)
    path = tmp_path / "lab" / "data" / "splits" / f"{IDS['facts']}.split.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | split))
    assert refused(tmp_path) == f"{path}: {said}"


def test_an_unusable_row_is_refused_with_file_and_line(tmp_path):
    assert "no such file, which dataset 'facts_single_token_v1' needs" in refused(tmp_path)
    path = put_data(tmp_path, IDS["facts"], TRAIN, TEST)
    for text, said in (
        ("{", "not JSON"),
        ("[]", "must be a JSON object"),
        ('{"clean": 1}', "'cor"),
    ):
        lines = path.read_text().splitlines()
        path.write_text("\n".join([lines[0], text, *lines[2:]]))
        assert f"{path}, line 2: " in refused(tmp_path) and said in refused(tmp_path)
    path.write_bytes(b"\n\xff")
    assert "line 2: not UTF-8" in refused(tmp_path)


def test_a_row_that_is_no_pair_is_left_out_and_the_others_keep_their_lines(tmp_path):
    same = {**TRAIN[1], "corrupt": TRAIN[1]["clean"]}
    put_data(tmp_path, IDS["facts"], [TRAIN[0], same, *TRAIN[2:], TRAIN[0]], TEST)
    condition = read(tmp_path)
    assert condition.lines == (1, 3, 4, 5, 6, 7)
    found = {each.kind: each.line for each in condition.defects}
    assert found["rows that are no pair of prompts: left out"] == 2
    assert found["the same clean prompt again"] == 7
    put_data(tmp_path, IDS["facts"], [same], TEST)
    assert "no row of train can be measured; field 'corrupt': it equals" in refused(tmp_path)
