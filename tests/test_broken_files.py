"""Files that are not what a command wants: one line with file and cause, and nothing is touched.

Run: pytest tests/test_broken_files.py
"""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.synthetic_runs import make_config, obtain, without_picture
from tinyablation.__main__ import main
from tinyablation.engine.tables import PER_EXAMPLE_COLUMNS, read_table
from tinyablation.errors import RunError
from tinyablation.files.manifests import write_manifest
from tinyablation.records.records import SCHEMA_VERSION
from tinyablation.runs.store import (
    FILES,
    HEAD_IMPACT,
    PER_EXAMPLE,
    RunStore,
)


def contents(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.stat().st_size < 2**30  # a file of holes takes a minute
    }


def parquet(path: Path) -> None:
    pd.DataFrame({"a": [1], "b": ["x"]}).to_parquet(path)


WRITE: dict[str, Callable[[Path], object]] = {
    "nothing": lambda path: path.write_bytes(b""),
    "bytes": lambda path: path.write_bytes(bytes(range(256))),
    "a cut object": lambda path: path.write_text('{"schema_version": 3, "session": {"sta'),
    "an empty object": lambda path: path.write_text("{}"),
    "an empty list": lambda path: path.write_text("[]"),
    "a number": lambda path: path.write_text("7"),
    "NaN": lambda path: path.write_text("NaN"),
    "a deep list": lambda path: path.write_text("[" * 100_000),
    "UTF-16": lambda path: path.write_text('{"schema_version": 3}', encoding="utf-16"),
    "Latin-1": lambda path: path.write_bytes('{"é": 1}'.encode("latin-1")),
    "a byte order mark": lambda path: path.write_text('{"schema_version": 3}', "utf-8-sig"),
    "a newer schema": lambda path: path.write_text('{"schema_version": 99, "records": []}'),
    "another Parquet file": parquet,
    "a page": lambda path: path.write_text("<!doctype html><title>404</title>"),
    "half a zip": lambda path: path.write_bytes(b"PK\x03\x04" + bytes(40)),
    "900 levels": lambda path: path.write_text(
        f'{{"schema_version": {SCHEMA_VERSION}, "session": {"[" * 900}{"]" * 900}, "records": []}}'
    ),
    "a FIFO": os.mkfifo,
    "a link to an endless device": lambda path: path.symlink_to("/dev/zero"),
    "ten gigabytes of nothing": lambda path: (path.touch(), os.truncate(path, 10 * 2**30)),
    "a folder": Path.mkdir,
    "no file at all": lambda path: None,
}
# What follows the command, for the one file that is broken.
COMMANDS: dict[str, Callable[[Path], list[str]]] = {
    "drift": lambda path: ["drift", str(path), str(path)],
    "report": lambda path: ["report", str(path), "-o", str(path.parent / "out.html")],
    "verdict": lambda path: ["verdict", str(path)],
    "ov-clusters": lambda path: [
        *("ov-clusters", str(path), str(path), "--output", str(path.parent / "out.json"))
    ],
    "rebuild-cross-condition": lambda path: ["rebuild-cross-condition", str(path)],
    "seeds": lambda path: ["seeds", str(path), str(path), "--metrics", "logit_diff"],
    "corpora adopt": lambda path: ["corpora", "adopt", str(path), "--tokenizer", str(path)],
}
SUFFIXES = {"drift": (".json", ".parquet", ".html"), "report": (".json", ".parquet", ".html")}
CASES = [
    (command, what, suffix)
    for command in COMMANDS
    for what in WRITE
    for suffix in SUFFIXES.get(command, (".json",))
]


@pytest.mark.parametrize(("command", "what", "suffix"), CASES)
def test_a_broken_file_ends_in_a_line_that_names_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, what: str, suffix: str
) -> None:
    path = tmp_path / f"given{suffix}"
    WRITE[what](path)
    before = contents(tmp_path)
    assert main(COMMANDS[command](path)) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and "Traceback" not in said
    assert str(path) in said or str(path.resolve()) in said  # of a link
    assert contents(tmp_path) == before


# --- run directories that somebody edited --------------------------------------------------------


def extra_column(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(brand_new=1.0)


def other_type(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(target_rank=table["target_rank"].astype("float64"))


def fewer_columns(table: pd.DataFrame) -> pd.DataFrame:
    return table.drop(columns="kl")


def other_order(table: pd.DataFrame) -> pd.DataFrame:
    return table[list(reversed(table.columns))]


@pytest.mark.parametrize("change", [extra_column, other_type, fewer_columns, other_order])
def test_a_table_of_another_schema_is_refused_with_its_columns(tmp_path: Path, change: Any) -> None:
    """As a newer version might write it: neither read as if it were ours, nor written over."""
    path = tmp_path / "per_example.parquet"
    run = obtain_quietly(tmp_path)
    change(run.table()).to_parquet(path, index=False)
    with pytest.raises(RunError, match=r"per_example.parquet: columns are not those of this table"):
        read_table(path, PER_EXAMPLE_COLUMNS)


def obtain_quietly(root: Path) -> Any:
    with pytest.MonkeyPatch.context() as patched:
        without_picture(patched)
        return obtain(root / "runs")


def edited_manifest(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "manifest.json"
    found = json.loads(path.read_text())
    change(found)
    path.write_text(json.dumps(found))


EDITS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a table": (
        lambda folder: (folder / HEAD_IMPACT).write_bytes(b"PAR1" + bytes(50)),
        r"head_impact.parquet: has 54 bytes",
    ),
    "a byte of a table": (
        lambda folder: (folder / PER_EXAMPLE).write_bytes(
            (folder / PER_EXAMPLE).read_bytes()[:-9]
            + b"x"
            + (folder / PER_EXAMPLE).read_bytes()[-8:]
        ),
        r"per_example.parquet: its sha256 is not the one",
    ),
    "a table that the manifest vouches for": (
        lambda folder: (
            parquet(folder / PER_EXAMPLE),
            write_manifest(
                folder, FILES, json.loads((folder / "manifest.json").read_text()) | {"files": None}
            ),
        ),
        r"per_example.parquet: columns are not those of this table",
    ),
    "a newer layout": (
        lambda folder: edited_manifest(folder, lambda found: found.update(layout=99)),
        r"manifest.json: layout 99, this version reads",
    ),
    "a manifest of nothing": (
        lambda folder: edited_manifest(folder, lambda found: found.update(files={})),
        r"manifest.json: field 'files' lists no file",
    ),
    "a manifest without hashes": (
        lambda folder: edited_manifest(
            folder, lambda found: found.update(files={name: {} for name in found["files"]})
        ),
        r"manifest.json: field 'files'",
    ),
    "a manifest that leads out": (
        lambda folder: edited_manifest(
            folder,
            lambda found: found["files"].update({"../../x": {"size": 1, "sha256": "0" * 64}}),
        ),
        r"manifest.json: field 'files'.*\.\./\.\./x",
    ),
    "a manifest cut": (
        lambda folder: (folder / "manifest.json").write_text("{"),
        r"manifest.json: not JSON",
    ),
    "another seed": (
        lambda folder: (folder / "config.json").write_text(
            (folder / "config.json").read_text().replace('"seed": 0', '"seed": 7')
        ),
        r"config.json",
    ),
    "a config cut": (lambda folder: (folder / "config.json").write_text("{"), r"config.json"),
    "a link for a table": (
        lambda folder: (
            (folder / HEAD_IMPACT).unlink(),
            (folder / HEAD_IMPACT).symlink_to("/etc/hostname"),
        ),
        r"head_impact.parquet",
    ),
}


@pytest.mark.parametrize("what", EDITS)
def test_an_edited_run_is_refused_and_left_alone(tmp_path: Path, what: str) -> None:
    edit, message = EDITS[what]
    run = obtain_quietly(tmp_path)
    edit(run.path)
    before = contents(tmp_path)
    with pytest.raises(RunError, match=message):
        RunStore(tmp_path / "runs").open(run.name).table()
    assert contents(tmp_path) == before


# --- names that lead out of the store ------------------------------------------------------------

OUTWARD = ("../../x", "..", ".", "/etc/x", "a/b", "a\\b", "", "x" * 81, "a\x00b", "-x", "</script>")


@pytest.mark.parametrize("field", ["model", "battery", "condition", "protocol", "split"])
@pytest.mark.parametrize("name", OUTWARD)
def test_no_name_becomes_a_path(field: str, name: str) -> None:
    with pytest.raises(ValueError, match=field):
        make_config(**{field: name})


@pytest.mark.parametrize("name", ["..", "../runs", "/tmp", "a/../../b"])
def test_no_run_is_opened_outside_its_store(tmp_path: Path, name: str) -> None:
    run = obtain_quietly(tmp_path)
    (tmp_path / "other").mkdir()
    with pytest.raises(RunError):
        RunStore(tmp_path / "other").open(f"../runs/{run.name}")
    with pytest.raises(RunError):
        RunStore(tmp_path / "runs").open(name)
