"""Executors by URL: what is refused, and how submitted jobs become futures.

Run: pytest tests/cluster/test_executors.py
"""

import builtins
import socket
import sys
import threading
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import pytest

from tinyablation.cluster.executors import (
    Address,
    Lost,
    NotInstalled,
    Options,
    SubmittedJobs,
    UnknownExecutor,
    Unreachable,
    opened,
    parse,
)

PATIENCE = 30


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("local", Address("local")),
        ("dask://127.0.0.1:8786", Address("dask", "127.0.0.1:8786")),
        ("dask://[::1]:8786?shards=3", Address("dask", "[::1]:8786", Options(shards=3))),
        ("slurm://gpu", Address("slurm", "gpu", Options(shards=4))),
        (
            "slurm://gpu,big?time=90&mem_gb=80&gpus=1&cpus=8&shards=2&jobs=30&account=a-1",
            Address("slurm", "gpu,big", Options(2, 30, 90, 80, 1, 8, "a-1")),
        ),
        ("submitit-local://?jobs=3", Address("submitit-local", "", Options(shards=4, jobs=3))),
    ],
)
def test_a_url_says_where_jobs_run(url, expected):
    assert parse(url) == expected
    assert parse(url).is_local == (url == "local")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("dsk://host:8786", "'dsk' is unknown; did you mean 'dask'?"),
        ("loca", "did you mean 'local'?"),
        ("k8s://there", "'k8s' is unknown; give local"),
        ("local://", "local takes no options"),
        ("dask://host", "host and port"),
        ("dask://user@host:8786", "no more"),
        ("dask://host:8786/path", "no more"),
        ("dask", "no more"),
        ("slurm://", "give the partition"),
        ("slurm://gpu?gpu=1", "'gpu' is unknown; did you mean 'gpus'?; slurm:// takes shards"),
        ("slurm://gpu?time=soon", "time='soon'; give a whole number from 1"),
        ("slurm://gpu?shards=0", "from 1"),
        ("slurm://gpu?account=a%20--wrap", "is not a name"),
        ("dask://host:8786?mem_gb=2", "dask:// takes shards"),
        ("submitit-local://there", "it runs on this machine"),
    ],
)
def test_a_wrong_url_is_refused_with_the_nearest_known(url, said):
    with pytest.raises(UnknownExecutor) as refusal:
        parse(url)
    assert url in str(refusal.value) and said in str(refusal.value)


@pytest.mark.parametrize(
    ("url", "package"),
    [
        ("dask://127.0.0.1:1", "distributed"),
        ("slurm://gpu", "submitit"),
        ("submitit-local://", "submitit"),
    ],
)
def test_a_package_that_is_not_installed_is_named_with_its_extra(
    url, package, tmp_path, monkeypatch
):
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.split(".")[0] == package:
            raise ImportError(f"No module named {name!r}")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(NotInstalled, match=r"\[cluster\]"), opened(parse(url), tmp_path):
        pass


def test_a_scheduler_that_does_not_answer(tmp_path, monkeypatch):
    monkeypatch.setattr("tinyablation.cluster.executors.CONNECT_SECONDS", 1)
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        refused = pytest.raises(Unreachable, match=f"{place}.*dask scheduler")
        with refused, opened(parse(f"dask://{place}"), tmp_path):
            pass


def test_no_slurm_on_this_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    refused = pytest.raises(Unreachable, match="no Slurm here.*srun")
    with refused, opened(parse("slurm://gpu"), tmp_path / "logs"):
        pass


def test_slurm_is_told_what_the_url_says(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "srun").write_text("#!/bin/sh\n")
    (tmp_path / "srun").chmod(0o755)
    address = parse("slurm://gpu?time=90&mem_gb=80&gpus=2&cpus=8&account=lab&constraint=a100")
    with opened(address, tmp_path / "logs") as executor:
        inner = executor.inner
        text = inner._make_submission_file_text("python job.py", "0")
    for line in (
        *("--partition=gpu", "--time=90", "--mem=80GB", "--gpus-per-node=2", "--cpus-per-task=8"),
        *("--account=lab", "--constraint=a100", "--job-name=tinyablation"),
    ):
        assert f"#SBATCH {line}\n" in text
    assert "qos" not in text


# --- submitted jobs as futures -------------------------------------------------------------------


class Submitted:
    """A job of a pretended cluster, done when it is told so."""

    def __init__(self, number: int, call: Any, arguments: tuple[Any, ...]) -> None:
        self.job_id = str(number)
        self.call, self.arguments = call, arguments
        self.finished, self.cancelled = threading.Event(), False

    def done(self, force_check: bool) -> bool:
        return self.finished.is_set()

    def result(self) -> Any:
        return self.call(*self.arguments)

    def cancel(self, check: bool) -> None:
        self.cancelled = True
        self.finished.set()


class Cluster:
    """Takes jobs as submitit's executors do."""

    def __init__(self) -> None:
        self.jobs: list[Submitted] = []
        self.came = threading.Semaphore(0)

    def submit(self, call: Any, *arguments: Any) -> Submitted:
        if call is None:
            raise RuntimeError("the queue is full")
        self.jobs.append(Submitted(len(self.jobs), call, arguments))
        self.came.release()
        return self.jobs[-1]


@pytest.fixture(autouse=True)
def _often(monkeypatch):
    monkeypatch.setattr("tinyablation.cluster.executors.POLL_SECONDS", 0.01)


def test_results_and_deaths_reach_the_futures():
    def die() -> None:
        raise RuntimeError("has not produced\nany output")

    executor = SubmittedJobs(cluster := Cluster())
    good, bad, never = executor.submit(len, "four"), executor.submit(die), executor.submit(None)
    for _ in range(2):
        assert cluster.came.acquire(timeout=PATIENCE)
    for job in cluster.jobs:
        job.finished.set()
    assert good.result(PATIENCE) == 4
    with pytest.raises(Lost, match="not produced any output") as lost:
        bad.result(PATIENCE)
    assert lost.value.worker == "job 1" and not lost.value.final
    with pytest.raises(Lost, match="could not be submitted: the queue is full"):
        never.result(PATIENCE)
    executor.shutdown()
    assert executor.submit(len, "five") is not None  # a new watcher takes it
    assert cluster.came.acquire(timeout=PATIENCE)
    cluster.jobs[-1].finished.set()
    executor.shutdown()


def test_no_more_than_so_many_at_a_time():
    executor = SubmittedJobs(cluster := Cluster(), most=2)
    futures = [executor.submit(len, "x" * n) for n in range(4)]
    for _ in range(2):
        assert cluster.came.acquire(timeout=PATIENCE)
    assert not cluster.came.acquire(timeout=0.1)
    for number in range(4):
        cluster.jobs[number].finished.set()
        assert futures[number].result(PATIENCE) == number
        if number < 2:
            assert cluster.came.acquire(timeout=PATIENCE)


def test_what_is_left_at_the_end_is_called_off():
    executor = SubmittedJobs(cluster := Cluster(), most=1)
    first, second = executor.submit(len, "a"), executor.submit(len, "b")
    assert cluster.came.acquire(timeout=PATIENCE)
    executor.shutdown(wait=False, cancel_futures=True)
    assert cluster.jobs[0].cancelled and second.cancelled() and not first.cancelled()
    with pytest.raises(CancelledError):
        second.result()
    assert len(cluster.jobs) == 1


def test_nothing_heavy_is_imported_to_read_a_url():
    import subprocess

    code = (
        "import sys; from tinyablation.cluster.executors import parse; parse('dask://a:1'); "
        "print(*sorted({'torch', 'distributed', 'submitit', 'pandas'} & {*sys.modules}))"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root
    )
    assert done.stdout.strip() == ""
