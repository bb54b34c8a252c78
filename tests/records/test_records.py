"""Records: what may be recorded, and files that come back as written or say what is wrong.

Run: pytest tests/records/test_records.py
"""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow.parquet
import pytest
from pydantic import ValidationError

from tests.fake_sessions import fake_session
from tinyablation.records.plain import RecordError, plain
from tinyablation.records.records import (
    SCHEMA_VERSION,
    Record,
    RecordFile,
    SessionModel,
    claim_order,
    read_records,
    write_records,
)


def record(**changes) -> Record:
    fields = {
        "claim": "H1.1",
        "family": "H1",
        "test": "claims/test_h1.py::test_x[tiny-gpt2-facts]",
        "name": "test_x",
        "statement": "One head suppresses.",
        "estimator": "Mean Δ LD.",
        "threshold": "Above the floor.",
        "refuted_if": "Below it.",
        "model": "tiny-gpt2",
        "condition": "facts",
        "verdict": "supported",
        "reason": "It is above.",
        "prediction": "supported",
        "outcome": "passed",
        "effect": 0.5,
        "low": 0.25,
        "high": 0.75,
        "floor": 0.1,
        "p_corrected": 0.001,
        "unit": "LD",
        "n_examples": 10,
        "n_clusters": 5,
        "subject": "0:2",
        "protocol": "published",
        "published": [
            {"model": "gpt2", "condition": "facts", "value": "67 ± 4 %", "source": "v6"},
            {
                "model": "gpt2",
                "condition": "facts",
                "value": 67.0,
                "unit": "%",
                "low": 63.0,
                "high": 71.0,
                "quantity": "share",
                "source": "v6",
            },
        ],
        "details": {"by_method": {"zero": 0.5}, "heads": ["0:2"]},
        "heatmap": {"values": [[0.5, 0.0]], "title": "Δ LD"},
        "largest": [
            {
                "prompt": "a\u2028b",
                "target": " c",
                "foil": " d",
                "clean_ld": 1.0,
                "delta": -0.5,
                "split": "confirmation",
            }
        ],
        "runs": ["tiny-gpt2-h1-facts_0123"],
        "drift": None,
        "duration_s": 0.5,
    }
    return Record.model_validate(fields | changes)


def session_file(*records: Record) -> RecordFile:
    return RecordFile.model_validate(
        {
            "session": {
                "started": "2025-03-01T09:30:00Z",
                "finished": "2025-03-01T09:31:00Z",
                "command": "pytest claims",
                "versions": {"python": "3.12"},
                "platform": "Linux",
                "device": "cpu",
                "predictions_hash": "00",
                "complete": True,
                "models": [
                    {
                        "id": name,
                        "title": name,
                        "family": "gpt2",
                        "variant": "hedged",
                        "competence": {"facts": {"all": {"n": 3, "accuracy": 1, "ld": 2.5}}},
                    }
                    for name in ("tiny-gpt2", "a-model")
                ],
            },
            "records": list(records),
        }
    )


def test_records_take_numpy_and_keep_plain_values():
    made = record(effect=np.float32(0.5), n_examples=np.int64(3), details={"x": np.arange(2)})
    assert type(made.effect) is float and type(made.n_examples) is int
    assert made.details == {"x": [0, 1]}


@pytest.mark.parametrize(
    "changes",
    [
        {"verdict": "true"},
        {"effect": "0.5"},
        {"n_examples": -1},
        {"p_corrected": 1.5},
        {"unknown": 1},
        {"protocol": "corected"},
        {"heatmap": {"values": [[1.0], [1.0, 2.0]], "title": ""}},
    ],
)
def test_records_refuse(changes):
    with pytest.raises(ValidationError):
        record(**changes)


def test_records_refuse_nan_by_name():
    with pytest.raises(RecordError, match="effect is nan"):
        record(effect=float("nan"))


def test_times_must_be_utc():
    content = session_file().model_dump()
    content["session"]["started"] = "2025-03-01T09:30:00+02:00"
    with pytest.raises(ValidationError, match="not in UTC"):
        RecordFile.model_validate(content)


@pytest.mark.parametrize("name", ["records.json", "records.parquet", ""])
def test_files_come_back_as_written(tmp_path, name):
    file = session_file(record(), record(model="a-model", effect=None, heatmap=None, runs=[]))
    write_records(file, tmp_path)
    assert read_records(tmp_path / name) == file
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["records.json", "records.parquet"]


@pytest.mark.parametrize("name", ["records.json", "records.parquet"])
def test_a_session_without_records_is_written(tmp_path, name):
    write_records(session_file(), tmp_path)
    assert read_records(tmp_path / name).records == []


def test_order_of_records_does_not_change_the_files(tmp_path):
    made = [record(claim=c, model=m) for c in ("H1.10", "H1.2", "V.1") for m in ("z", "a-model")]
    one, _ = write_records(session_file(*made), tmp_path / "one")
    two, _ = write_records(session_file(*made[::-1]), tmp_path / "two")
    assert one.read_bytes() == two.read_bytes()
    assert [r.claim for r in read_records(one).records][::2] == ["V.1", "H1.2", "H1.10"]


def test_claim_order_is_by_number():
    claims = ["OV.1", "H5.1", "H1.10", "H1.2", "V2", "V1"]
    assert sorted(claims, key=claim_order) == ["V1", "V2", "H1.2", "H1.10", "H5.1", "OV.1"]


def test_parquet_says_what_its_columns_hold(tmp_path):
    _, path = write_records(session_file(record()), tmp_path)
    schema = pyarrow.parquet.read_schema(path)
    assert schema.names == list(Record.model_fields)
    assert all(schema.field(name).metadata[b"description"] for name in schema.names)
    assert schema.metadata[b"schema_version"] == str(SCHEMA_VERSION).encode()
    row = pd.read_parquet(path).iloc[0]
    assert row["effect"] == 0.5 and json.loads(row["details"])["by_method"] == {"zero": 0.5}


def _damaged(tmp_path, change):
    path, _ = write_records(session_file(record()), tmp_path)
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda c: c.update(schema_version=99),
            f"newer schema 99, this program reads {SCHEMA_VERSION}",
        ),
        (lambda c: c.update(schema_version=1), "older schema 1"),
        (lambda c: c.pop("schema_version"), r"json: has no schema_version"),
        (lambda c: c.update(schema_version="1"), "has no schema_version"),
        (lambda c: c["records"][0].update(verdict="yes"), r"field records\.0\.verdict"),
        (lambda c: c["records"][0].pop("claim"), r"field records\.0\.claim: Field required"),
        (lambda c: c["session"].update(mood="good"), r"field session\.mood"),
        (lambda c: c["records"][0].update(effect=float("nan")), "holds NaN"),
    ],
)
def test_broken_content_is_named(tmp_path, change, message):
    path = _damaged(tmp_path, change)
    with pytest.raises(RecordError, match=message) as caught:
        read_records(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["records.json", "records.parquet"])
@pytest.mark.parametrize(
    "data", [b"", b"{", b"\xff\xfe\x00", b"[1, 2]", b"[" * 100_000, b"PAR1garbagePAR1"]
)
def test_broken_bytes_are_named(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(RecordError, match=name):
        read_records(tmp_path / name)


@pytest.mark.parametrize("keep", [10, 1000, -1])
@pytest.mark.parametrize("name", ["records.json", "records.parquet"])
def test_truncated_files_are_named(tmp_path, name, keep):
    write_records(session_file(record()), tmp_path)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole.rstrip()[:keep])
    with pytest.raises(RecordError, match=name):
        read_records(tmp_path / name)


def test_newer_parquet_is_named(tmp_path):
    _, path = write_records(session_file(record()), tmp_path)
    table = pyarrow.parquet.read_table(path)
    metadata = {**table.schema.metadata, b"schema_version": b"7"}
    pyarrow.parquet.write_table(table.replace_schema_metadata(metadata), path)
    with pytest.raises(RecordError, match=r"records\.parquet: is of the newer schema 7"):
        read_records(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(RecordError, match=r"records\.json: cannot be read: No such file"):
        read_records(tmp_path)


def test_a_failed_write_leaves_the_old_files(tmp_path, monkeypatch):
    path, _ = write_records(session_file(record()), tmp_path)
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(RecordError, match="No space left"):
        write_records(session_file(), tmp_path)
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 2


def test_importing_records_is_cheap():
    heavy = "{'torch', 'pandas', 'pyarrow', 'numpy', 'scipy', 'matplotlib', 'transformers'}"
    code = f"import sys, tinyablation.records.records; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("name", ["records.json", "records.parquet"])
def test_a_report_of_the_schema_before_can_be_read(tmp_path, name):
    """So that what changed since can be shown; all that was added since may be missing."""
    file = fake_session()
    write_records(file, tmp_path)
    added = (
        *("p_value", "p_adjusted", "prediction_changed", "source"),
        *("multiverse", "boundary", "backends", "screened"),
    )
    if name.endswith(".json"):
        content = json.loads((tmp_path / name).read_text())
        content["schema_version"] = 2
        for record in content["records"]:
            for field in added:
                del record[field]
        for field in ("multiplicity", "error_rates", "noise", "sources"):
            del content["session"][field]
        (tmp_path / name).write_text(json.dumps(content))
    else:
        table = pyarrow.parquet.read_table(tmp_path / name).drop_columns(list(added))
        metadata = {**table.schema.metadata, b"schema_version": b"2"}
        pyarrow.parquet.write_table(table.replace_schema_metadata(metadata), tmp_path / name)
    assert read_records(tmp_path / name).records == file.records


def test_a_field_added_since_leaves_what_was_recorded_before_as_it_was():
    """Of a model without a repository; a bundle of an earlier version holds such records."""
    about = {"id": "mine", "title": "Mine", "family": "gpt2", "variant": "natural"}
    assert "repo" not in plain(SessionModel(**about))
    assert plain(SessionModel(**about, repo="owner/mine"))["repo"] == "owner/mine"
    assert SessionModel.model_validate(plain(SessionModel(**about))).repo is None
