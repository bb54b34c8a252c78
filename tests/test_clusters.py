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
from tests.benches import bench_of
from tests.lossy_jobs import BATTERY, SHARD, marker
from tests.small_corpora import put_corpora
from tinyablation.__main__ import main
from tinyablation.analysis.findings import Findings
from tinyablation.cluster.dispatch import Dispatch, JobLost, dispatching
from tinyablation.cluster.executors import ExecutorError, parse
from tinyablation.measurement.bench import Bench
from tinyablation.measurement.plan import plan_run
from tinyablation.runs.store import TABLES, Run

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
    return bench_of("tiny-llama", store, corpora, elsewhere=elsewhere)


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
        folder = made.store.path(plan_run(made, "facts", BATTERY).config)
        lost = killed(store)
        assert lost in {process.pid for process in processes.begun[1:]}
        assert not (folder / "shards" / f"{SHARD}.json").exists()
        run = made.run("facts", BATTERY)
        assert tables(run) == alone and "model" not in made.__dict__
        assert {process.pid for process in processes.begun if process.poll() is not None} == {lost}
        # The one that is left measures the rest of the session.
        assert len(Findings(made).sweep("facts").heads) == 32


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


def test_the_command_measures_elsewhere_too(tmp_path, monkeypatch, capsys):
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    store, corpora = tmp_path / "runs", put_corpora(tmp_path / "corpora", rows=(32, 32))
    options = ["--model", "tiny-llama", "--condition", "facts", "--corpora", str(corpora)]
    options += ["--registry", str(ROOT / "fixtures" / "models.toml"), "--runs", str(store)]
    options += ["--battery", "baseline", "--seeds", "0", "1", "--share", "0.5"]
    assert main(["measure", *options, "--executor", "submitit-local://"]) == 0
    found = [Path(line) for line in capsys.readouterr().out.split()]
    assert len(found) == 2 and all((path / "manifest.json").exists() for path in found)
    assert len(list((store / ".jobs").glob("*_result.pkl"))) >= 2  # other processes did it
    assert main(["measure", *options, "--executor", "submitit-loca://"]) == 2
    assert "did you mean 'submitit-local'?" in capsys.readouterr().err


def test_a_shard_that_kills_every_job_is_given_up_with_its_name(corpora, tmp_path, monkeypatch):
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("submitit.core.core.Job._results_timeout_s", 1)
    monkeypatch.setattr("tinyablation.cluster.dispatch.RETRIES", 1)
    store = tmp_path / "runs"
    with dispatching(parse("submitit-local://?shards=1"), store, say=print) as elsewhere:
        elsewhere.call = lossy_jobs.always_dying
        made = bench(store, corpora, elsewhere)
        with pytest.raises(JobLost, match=rf"shard {SHARD}: lost with job \d+, after 2 attempt"):
            made.run("facts", BATTERY)
    assert made.store.status(plan_run(made, "facts", BATTERY).config) == "partial"


SBATCH = """#!{python}
# Runs a job at once, in the background, as one of its own: no Slurm is needed to submit to it.
import os, subprocess, sys
from pathlib import Path
jobs = Path(__file__).parent / "jobs"
jobs.mkdir(exist_ok=True)
number = 100 + len(list(jobs.iterdir()))
variables = dict(JOB_ID=number, NTASKS=1, PROCID=0, LOCALID=0, NODEID=0, JOB_NUM_NODES=1)
environment = os.environ | {{f"SLURM_{{name}}": str(value) for name, value in variables.items()}}
environment["SLURM_JOB_NODELIST"] = "node-1"
silent = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
job = subprocess.Popen(["bash", sys.argv[-1]], env=environment, **silent)
(jobs / str(number)).write_text(str(job.pid))
print(f"Submitted batch job {{number}}")
"""
SRUN = """#!/bin/sh
while [ "${1#--}" != "$1" ]; do
    [ "$1" = --unbuffered ] || shift
    shift
done
exec "$@"
"""
SACCT = """#!{python}
import os, re, sys
from pathlib import Path
print("JobID|State|NodeList")
for job in sorted((Path(__file__).parent / "jobs").iterdir()):
    try:
        alive = "\\nState:\\tZ" not in Path("/proc", job.read_text(), "status").read_text()
    except OSError:
        alive = False
    print(f"{{job.name}}|{{'RUNNING' if alive else 'NODE_FAIL'}}|node-1")
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="/proc")
def test_a_slurm_job_whose_node_fails_is_submitted_again(corpora, alone, tmp_path, monkeypatch):
    """Slurm's commands, pretended: submitit submits to them, and the jobs are real processes."""
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, text in (("sbatch", SBATCH), ("srun", SRUN), ("sacct", SACCT)):
        path = commands / name
        path.write_text(text.format(python=sys.executable) if "{python}" in text else text)
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}{os.pathsep}{os.environ['PATH']}")
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("submitit.core.core.Job._results_timeout_s", 1)
    monkeypatch.setattr("tinyablation.cluster.executors.ASK_SECONDS", 1)
    store, said = tmp_path / "runs", []
    with dispatching(parse("slurm://gpu?cpus=1&shards=1&jobs=2"), store, say=said.append) as sent:
        sent.call = lossy_jobs.dying
        made = bench(store, corpora, sent)
        run = made.run("facts", BATTERY)
    assert tables(run) == alone and "model" not in made.__dict__
    assert len(said) == 1 and f"shard {SHARD}: lost with job 10" in said[0]
    assert "NODE_FAIL" in said[0]
    # One job a shard, one that was lost; --jobs at a time.
    assert len(list((commands / "jobs").iterdir())) == 4


# --- a session -----------------------------------------------------------------------------------


def test_a_session_with_an_executor_only_judges(dask, tmp_path):
    """`pytest claims --executor` on real cells: the workers measure, and no torch comes here."""
    url, _ = dask
    (tmp_path / "seen.py").write_text(
        "import os, sys\n"
        "from pathlib import Path\n"
        "def pytest_sessionfinish():\n"
        "    Path(os.environ['SEEN']).write_text(str('torch' in sys.modules))\n"
    )
    environment = ENVIRONMENT | {"SEEN": str(tmp_path / "seen.txt")}
    environment["PYTHONPATH"] += f"{os.pathsep}{tmp_path}"
    command = [sys.executable, "-m", "pytest", "claims", "--executor", url, "-p", "seen"]
    command += ["--reports", str(tmp_path / "reports"), "-p", "no:cacheprovider"]
    command += ["-k", "tiny-llama and not plain and facts", "--claim", "V,H1.1"]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=4 * PATIENCE,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout and "failed" not in done.stdout
    runs = [path for path in (tmp_path / "reports" / "runs").glob("tiny-llama-*") if path.is_dir()]
    batteries = {path.name.split("-")[2] for path in runs}
    assert {"zero", "corrupt", "null"} <= batteries
    assert all((path / "manifest.json").exists() for path in runs)
    assert (tmp_path / "seen.txt").read_text() == "False"
