"""Real workers in processes of their own, of which one is killed in the middle of a shard.

Loopback only: a dask scheduler with two workers, and submitit's local executor.

Run: pytest tests/test_clusters.py
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import lossy_jobs
from tests.lossy_jobs import BATTERY, SHARD, marker
from tests.small_corpora import put_corpora
from tinyablation.dispatch import Dispatch, JobLost, dispatching
from tinyablation.executors import ExecutorError, parse
from tinyablation.measuring import Bench
from tinyablation.registry import load_registry
from tinyablation.runs import TABLES, Run, RunStore

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name != "posix", reason="SIGKILL"),
]

ROOT = Path(__file__).parent.parent
PATIENCE = 120.0  # seconds a process may need to import torch and dask on a loaded machine
ENVIRONMENT = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


@pytest.fixture(scope="module")
def corpora(tmp_path_factory) -> Path:
    return put_corpora(tmp_path_factory.mktemp("corpora"), rows=(8, 8))


@pytest.fixture(scope="module")
def alone(corpora, tmp_path_factory) -> dict[str, bytes]:
    """The tables as one process makes them."""
    return tables(bench(tmp_path_factory.mktemp("alone"), corpora).run("facts", BATTERY))


def tables(run: Run) -> dict[str, bytes]:
    return {name: (run.path / name).read_bytes() for name in TABLES}


def bench(store: Path, corpora: Path, elsewhere: Dispatch | None = None) -> Bench:
    entry = load_registry(ROOT / "fixtures" / "models.toml")["tiny-llama"]
    return Bench(entry, corpora=corpora, store=RunStore(store), threads=1, elsewhere=elsewhere)


def until(what: str, holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, f"no {what} within {PATIENCE} s"
        time.sleep(0.02)


# --- dask ----------------------------------------------------------------------------------------


class Processes:
    """Processes that are ended at the end, and what they said."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.begun: list[subprocess.Popen[bytes]] = []

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        log = self.folder / f"{len(self.begun)}.log"
        with log.open("wb") as stream:
            self.begun.append(
                subprocess.Popen(
                    [sys.executable, "-m", "dask", *command],
                    env={**os.environ, **ENVIRONMENT},
                    stdout=stream,
                    stderr=subprocess.STDOUT,
                    cwd=self.folder,
                )
            )
        return self.begun[-1]

    def end(self) -> None:
        for process in self.begun:
            if process.poll() is None:
                process.kill()
            process.wait(PATIENCE)


@pytest.fixture
def dask(tmp_path: Path) -> Iterator[tuple[str, Processes]]:
    """The URL of a scheduler of its own on loopback, and two workers of one thread each."""
    folder = tmp_path / "dask"
    folder.mkdir()
    processes = Processes(folder)
    where = folder / "scheduler.json"
    local = ("--host", "127.0.0.1", "--no-dashboard")
    try:
        processes.start("scheduler", *local, "--port", "0", "--scheduler-file", str(where))
        until("scheduler", where.exists)
        until("address", lambda: bool(where.read_text().strip()))
        address = json.loads(where.read_text())["address"]
        for number in range(2):
            processes.start(
                *("worker", address, *local, "--no-nanny", "--nthreads", "1"),
                *("--death-timeout", "20", "--name", f"worker-{number}"),
                *("--local-directory", str(folder / f"worker-{number}")),
            )
        yield f"dask://{address.removeprefix('tcp://')}", processes
    finally:
        processes.end()


def killed(store: Path) -> int:
    """Wait for the one that stands still in the middle of a shard, and kill it; its process id."""
    until("worker in the middle of a shard", lambda: marker(store).exists())
    until("process id", lambda: bool(marker(store).read_text()))
    lost = int(marker(store).read_text())
    os.kill(lost, signal.SIGKILL)
    return lost


def test_a_dask_worker_killed_in_the_middle_of_a_shard_loses_nothing(
    dask, corpora, alone, tmp_path
):
    url, processes = dask
    store = tmp_path / "runs"
    with dispatching(parse(url), store) as elsewhere:
        elsewhere.call = lossy_jobs.standing_still
        made = bench(store, corpora, elsewhere)
        assert elsewhere.device("auto") == "cpu"
        made.ahead("facts", BATTERY)
        folder = made.store.path(made._plan("facts", BATTERY).config)
        lost = killed(store)
        assert lost in {process.pid for process in processes.begun[1:]}
        assert not (folder / "shards" / f"{SHARD}.json").exists()
        run = made.run("facts", BATTERY)
        assert tables(run) == alone and "model" not in made.__dict__
        assert {process.pid for process in processes.begun if process.poll() is not None} == {lost}
        # The one that is left measures the rest of the session.
        assert len(made.sweep("facts").heads) == 32


def test_a_scheduler_that_goes_away_is_an_error_that_says_so(dask, corpora, tmp_path):
    url, processes = dask
    store = tmp_path / "runs"
    with dispatching(parse(url), store, say=lambda line: None) as elsewhere:
        elsewhere.call = lossy_jobs.standing_still
        made = bench(store, corpora, elsewhere)
        made.ahead("facts", BATTERY)
        until("worker in the middle of a shard", lambda: marker(store).exists())
        processes.begun[0].kill()
        with pytest.raises(ExecutorError, match=r"scheduler .* is gone; start it again"):
            made.run("facts", BATTERY)


# --- submitit ------------------------------------------------------------------------------------


def test_a_submitit_job_that_dies_is_run_again(corpora, alone, tmp_path, monkeypatch):
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("submitit.core.core.Job._results_timeout_s", 2)
    store, said = tmp_path / "runs", []
    address = parse("submitit-local://?jobs=2&shards=1")
    with dispatching(address, store, say=said.append) as elsewhere:
        elsewhere.call = lossy_jobs.dying
        made = bench(store, corpora, elsewhere)
        run = made.run("facts", BATTERY)
    assert tables(run) == alone and "model" not in made.__dict__
    assert len(said) == 1 and f"shard {SHARD}: lost with job " in said[0]
    assert marker(store).exists()


def test_a_shard_that_kills_every_job_is_given_up_with_its_name(corpora, tmp_path, monkeypatch):
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("submitit.core.core.Job._results_timeout_s", 1)
    monkeypatch.setattr("tinyablation.dispatch.RETRIES", 1)
    store = tmp_path / "runs"
    with dispatching(parse("submitit-local://?shards=1"), store, say=print) as elsewhere:
        elsewhere.call = lossy_jobs.always_dying
        made = bench(store, corpora, elsewhere)
        with pytest.raises(JobLost, match=rf"shard {SHARD}: lost with job \d+, after 2 attempt"):
            made.run("facts", BATTERY)
    assert made.store.status(made._plan("facts", BATTERY).config) == "partial"


# --- a session -----------------------------------------------------------------------------------


def test_a_session_with_an_executor_only_judges(dask, tmp_path):
    """`pytest claims --executor` on real cells: the workers measure, and no torch comes here."""
    url, _ = dask
    command = [sys.executable, "-m", "pytest", "claims", "--executor", url]
    command += ["--reports", str(tmp_path / "reports"), "-p", "no:cacheprovider"]
    command += ["-k", "tiny-llama and not plain and facts", "--claim", "V,H1.1"]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **ENVIRONMENT},
        capture_output=True,
        text=True,
        timeout=4 * PATIENCE,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout and "failed" not in done.stdout
    runs = [path for path in (tmp_path / "reports" / "runs").glob("tiny-llama-*") if path.is_dir()]
    batteries = {path.name.split("-")[2] for path in runs}
    assert {"zero", "corrupt", "null"} <= batteries
    for path in runs:
        assert (path / "manifest.json").exists()
