"""Real workers in processes of their own, of which one is killed in the middle of a shard.

Loopback only: a dask scheduler with two workers, processes, and Slurm's commands pretended.

Run: pytest tests/test_clusters.py
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import fake_slurm, lossy_jobs
from tests.benches import bench_of
from tests.dask_processes import ENVIRONMENT, PATIENCE, Processes, until
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


# --- dask ----------------------------------------------------------------------------------------


@pytest.fixture
def dask(tmp_path: Path) -> Iterator[tuple[str, Processes]]:
    """The URL of a scheduler of its own on loopback, and two workers of one thread each."""
    folder = tmp_path / "dask"
    folder.mkdir()
    processes = Processes(folder, tmp_path)
    try:
        yield f"dask://{processes.cluster(2)}", processes
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


# --- jobs as processes ---------------------------------------------------------------------------


@pytest.fixture
def _jobs_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("_jobs_environment")
def test_a_job_that_dies_is_run_again(corpora, alone, tmp_path):
    store, said = tmp_path / "runs", []
    with dispatching(parse("processes://?jobs=2&shards=1"), store, say=said.append) as elsewhere:
        elsewhere.call = lossy_jobs.dying
        made = bench(store, corpora, elsewhere)
        assert elsewhere.device("auto") == "cpu"
        run = made.run("facts", BATTERY)
    assert tables(run) == alone and "model" not in made.__dict__
    assert len(said) == 1 and f"shard {SHARD}: lost with job " in said[0]
    assert "it was ended by SIGKILL" in said[0]
    assert marker(store).exists()


@pytest.mark.usefixtures("_jobs_environment")
def test_the_command_measures_elsewhere_too(tmp_path, capsys):
    store, corpora = tmp_path / "runs", put_corpora(tmp_path / "corpora", rows=(32, 32))
    options = ["--model", "tiny-llama", "--condition", "facts", "--corpora", str(corpora)]
    options += ["--registry", str(ROOT / "fixtures" / "models.toml"), "--runs", str(store)]
    options += ["--battery", "baseline", "--seeds", "0", "1", "--share", "0.5"]
    assert main(["measure", *options, "--executor", "processes://"]) == 0
    found = [Path(line) for line in capsys.readouterr().out.split()]
    assert len(found) == 2 and all((path / "manifest.json").exists() for path in found)
    receipts = [*(store / ".jobs").glob("*/*.json")]
    assert len(receipts) >= 2  # other processes did it
    assert not [*store.rglob("*.pkl")]
    assert main(["measure", *options, "--executor", "proceses://"]) == 2
    assert "did you mean 'processes'?" in capsys.readouterr().err


@pytest.mark.usefixtures("_jobs_environment")
def test_a_shard_that_kills_every_job_is_given_up_with_its_name(corpora, tmp_path, monkeypatch):
    monkeypatch.setattr("tinyablation.cluster.dispatch.RETRIES", 1)
    store = tmp_path / "runs"
    with dispatching(parse("processes://?shards=1"), store, say=print) as elsewhere:
        elsewhere.call = lossy_jobs.always_dying
        made = bench(store, corpora, elsewhere)
        with pytest.raises(JobLost, match=rf"shard {SHARD}: lost with job \d+, after 2 attempt"):
            made.run("facts", BATTERY)
    assert made.store.status(plan_run(made, "facts", BATTERY).config) == "partial"


@pytest.mark.usefixtures("_jobs_environment")
def test_a_slurm_job_whose_node_fails_is_submitted_again(corpora, alone, tmp_path, monkeypatch):
    slurm = fake_slurm.put(tmp_path / "bin", monkeypatch)
    monkeypatch.setattr("tinyablation.cluster.batch.RECEIPT_SECONDS", 1)
    monkeypatch.setattr("tinyablation.cluster.batch.ASK_SECONDS", 1)
    store, said = tmp_path / "runs", []
    with dispatching(parse("slurm://gpu?cpus=1&shards=1&jobs=2"), store, say=said.append) as sent:
        sent.call = lossy_jobs.dying
        made = bench(store, corpora, sent)
        run = made.run("facts", BATTERY)
    assert tables(run) == alone and "model" not in made.__dict__
    assert len(said) == 1 and f"shard {SHARD}: lost with job 10" in said[0]
    assert "NODE_FAIL" in said[0]
    # One job a shard, one that was lost; jobs= at a time.
    assert slurm.jobs() == ["100", "101", "102", "103"]


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
