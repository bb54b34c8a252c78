"""A store in trouble: eight processes at once, a full disk, no permission, odd clocks, dead locks.

Run: pytest tests/test_stores_under_stress.py
"""

import errno
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests import synthetic_runs as synthetic
from tests.mounted import read_only, resize, small_disk
from tests.synthetic_runs import KEYS, Counting, make_config, obtain, tables, without_picture
from tinyablation.errors import RunError
from tinyablation.files import manifests
from tinyablation.files.manifests import NotWritten, write_atomic, write_json
from tinyablation.records.records import read_records
from tinyablation.runs import derived as artefacts
from tinyablation.runs.store import RunStore

PROCESSES = 8


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    without_picture(monkeypatch)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The tables of a run that nobody disturbed, by name."""
    return tables(obtain(tmp_path_factory.mktemp("alone")).path)


def contents(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# --- eight processes -----------------------------------------------------------------------------


@pytest.mark.slow
def test_eight_processes_on_one_store_make_one_set_of_tables(tmp_path: Path, alone: Any) -> None:
    root, log = tmp_path / "runs", tmp_path / "log"
    command = [sys.executable, synthetic.__file__, str(root), str(log), "0.2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(PROCESSES)
    ]
    for process in processes:
        out, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
        assert out.strip() == make_config().name
    assert sorted(log.read_text().split()) == sorted(KEYS)
    assert tables(root / make_config().name) == alone
    assert [path.name for path in root.iterdir() if path.name != ".locks"] == [make_config().name]
    RunStore(root).open(make_config().name)


# --- no room -------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="tmpfs")
def test_a_run_on_a_full_disk_says_so_and_goes_on_once_there_is_room(
    tmp_path: Path, alone: Any
) -> None:
    with small_disk(tmp_path / "disk", "60k") as root:
        with pytest.raises(NotWritten, match=f"{root}.*cannot be written .No space left"):
            obtain(root)
        folder = root / make_config().name
        assert not (folder / "manifest.json").exists() and not list(root.rglob("*.tmp"))
        before = contents(folder / "shards")
        resize(root, "40m")
        finished = [key for key in KEYS if f"{key}.json" in before]
        assert 0 < len(finished) < len(KEYS)
        counting = Counting()
        assert tables(obtain(root, with_=counting).path) == alone
        assert counting.keys == [key for key in KEYS if key not in finished]


@pytest.mark.parametrize("at", range(0, 28, 2))
def test_a_disk_that_fills_up_at_any_file_loses_nothing(
    tmp_path: Path, alone: Any, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    real, written = os.replace, iter(range(10_000))

    def full(made: Path, path: Path) -> None:
        if next(written) >= at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(made, path)

    counting = Counting()
    with monkeypatch.context() as patched:
        patched.setattr(manifests.os, "replace", full)
        with pytest.raises(NotWritten, match="No space left on device.*what was finished is kept"):
            obtain(tmp_path, with_=counting)
    folder = tmp_path / make_config().name
    assert not list(folder.rglob("*.tmp"))
    done = {path.stem for path in (folder / "shards").glob("*.json")}
    again = Counting()
    run = obtain(tmp_path, with_=again)
    assert tables(run.path) == alone
    assert again.keys == [key for key in KEYS if key not in done]


def test_what_cannot_be_written_is_an_error_of_both_kinds(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("here")
    with pytest.raises(RunError, match="file/one.json: cannot be written") as caught:
        write_json(tmp_path / "file" / "one.json", {})
    error = caught.value
    assert isinstance(error, OSError) and error.errno in (errno.ENOTDIR, errno.EEXIST)
    assert error.strerror and "\n" not in str(error)


def test_what_goes_wrong_in_a_writer_is_not_called_a_full_disk(tmp_path: Path) -> None:
    def broken(handle: object) -> None:
        raise ValueError("no figure")

    with pytest.raises(ValueError, match="no figure"):
        write_atomic(tmp_path / "one", broken)
    assert list(tmp_path.iterdir()) == []


# --- no permission -------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_store_that_cannot_be_written_is_named_and_still_read(tmp_path: Path) -> None:
    run = obtain(tmp_path)
    before = contents(tmp_path)
    with read_only(tmp_path):
        with pytest.raises(NotWritten, match=rf"^{tmp_path}.*cannot be written \(.*\)"):
            obtain(tmp_path, make_config(seed=1))
        counting = Counting()
        assert obtain(tmp_path, with_=counting) == run and counting.keys == []
        assert RunStore(tmp_path).open(run.name).table().shape == run.table().shape
    assert contents(tmp_path) == before


@pytest.mark.slow
def test_a_session_whose_reports_cannot_be_written_ends_in_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "reports"
    folder.mkdir()
    with read_only(folder):
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pytest", "claims", "-p", "no:cacheprovider"),
                *("--claim", "H1.1", "-k", "tiny-gpt2 and facts", "--reports", str(folder)),
            ],
            capture_output=True,
            text=True,
            cwd=Path(__file__).parent.parent,
        )
    assert done.returncode == pytest.ExitCode.USAGE_ERROR, done.stdout
    (line,) = [line for line in done.stderr.splitlines() if str(folder) in line]
    assert f"--reports {folder}: cannot be written" in line
    assert "Traceback" not in done.stdout + done.stderr and list(folder.iterdir()) == []


def claims_of(model: str, folder: Path, **settings: Any) -> subprocess.Popen[str]:
    """A session of two test cases."""
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "pytest", "claims", "-p", "no:cacheprovider", "-q"),
            *("--claim", "H1.1", "-k", f"{model}-facts", "--reports", str(folder)),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=Path(__file__).parent.parent,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        **settings,
    )


@pytest.mark.slow
def test_a_store_that_turns_read_only_in_mid_run_ends_in_a_line_and_a_report(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "reports"
    folder.mkdir()
    session = claims_of("tiny-gpt2", folder)
    while not list(folder.glob("runs/*/manifest.json")) and session.poll() is None:
        time.sleep(0.02)
    with read_only(folder):
        said, _ = session.communicate()
    assert session.returncode == pytest.ExitCode.INTERNAL_ERROR, said
    assert "INTERNALERROR" not in said and "Traceback" not in said
    assert re.search(r"^NotWritten: \S+: cannot be written .Read-only file system", said, re.M)
    assert re.search(r"^2 test cases: 2 error", said, re.M)
    (kept,) = re.findall(r"^what was judged is kept in (\S+) instead$", said, re.M)
    assert len(read_records(Path(kept)).records) == 2 and (Path(kept) / "claims.html").exists()
    shutil.rmtree(kept)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS")
def test_a_session_without_memory_fails_in_a_line_and_reports(tmp_path: Path) -> None:
    """2 GB of address space, of which torch's libraries take the most."""
    import resource

    limits = (2 * 2**30, 2 * 2**30)
    session = claims_of(
        "tiny-gpt2",
        tmp_path,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, limits),
    )
    said, _ = session.communicate()
    assert session.returncode == pytest.ExitCode.TESTS_FAILED, said
    assert "INTERNALERROR" not in said and "Traceback" not in said
    assert "has not enough memory: close other programs" in said
    records = read_records(tmp_path).records
    assert [record.verdict for record in records] == ["error"] * 2


# --- clocks and locks ----------------------------------------------------------------------------


def test_a_clock_that_jumps_changes_no_table(
    tmp_path: Path, alone: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Back by decades between two shards, and on again between two attempts."""
    times = iter(["2031-01-01T00:00:00+00:00", "1970-01-01T00:00:00+00:00"] * 100)
    for module in (artefacts, sys.modules["tinyablation.runs.shards"]):
        monkeypatch.setattr(module, "utc_now", lambda: next(times))

    def cut(shard: Any) -> Any:
        if shard.key == KEYS[3]:
            raise KeyboardInterrupt
        return synthetic.compute(shard)

    with pytest.raises(KeyboardInterrupt):
        obtain(tmp_path, with_=cut)
    for number, path in enumerate(sorted(tmp_path.rglob("*"))):
        # Files of the future, and of before the epoch's first day is over.
        os.utime(path, (4e9, 4e9) if number % 2 else (1, 1))
    counting = Counting()
    run = obtain(tmp_path, with_=counting)
    assert counting.keys == KEYS[3:] and tables(run.path) == alone


def test_locks_of_the_dead_are_free(tmp_path: Path, alone: Any) -> None:
    """Files of every lock that a run has, older than its process, and one that names another."""
    name = make_config().name
    locks = tmp_path / ".locks"
    locks.mkdir()
    for lock in (name, f"{name}.notes", *(f"{name}.{key}" for key in KEYS)):
        path = locks / f"{lock}.lock"
        path.write_text(f"{2**22 - 1}\nsome-other-machine\n")
        os.utime(path, (1, 1))
    store = RunStore(tmp_path, lock_timeout=1)
    run = store.obtain(
        make_config(),
        synthetic.SHARDS,
        synthetic.compute,
        synthetic.make_examples(),
        verify=synthetic.verify,
    )
    assert tables(run.path) == alone


def test_a_dead_process_is_not_said_to_compute(tmp_path: Path) -> None:
    """partial_summary.json of one that was killed: its number may be given to another."""

    def cut(shard: Any) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        obtain(tmp_path, with_=cut)
    path = tmp_path / make_config().name / "partial_summary.json"
    said = json.loads(path.read_text())
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    said["computing"] = {KEYS[2]: {"process": dead.pid, "host": said["host"]}}
    path.write_text(json.dumps(said))
    with pytest.raises(KeyboardInterrupt):
        obtain(tmp_path, with_=cut)
    assert KEYS[2] not in json.loads(path.read_text())["computing"]
