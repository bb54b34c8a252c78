"""Jobs as processes of their own, of Slurm or of this machine: text goes in, and a file comes out.

Run: pytest tests/cluster/test_batch.py
"""

import os
import sys
import threading
import time
from collections.abc import Collection
from concurrent.futures import CancelledError
from pathlib import Path

import pytest

from tests import fake_slurm
from tests.benches import bench_of
from tests.small_corpora import put_corpora
from tinyablation.cluster import batch
from tinyablation.cluster.batch import BatchJobs, Call, Processes, Slurm
from tinyablation.cluster.dispatch import Dispatch, JobLost, opened
from tinyablation.cluster.executors import ExecutorError, Lost, Unreachable, parse
from tinyablation.cluster.messages import JobError
from tinyablation.cluster.worker import STORES

ROOT = Path(__file__).parents[2]
PATIENCE = 60


def upper(message: str) -> str:
    return message.upper()


def stores(message: str) -> str:
    return os.environ[STORES]


def failing(message: str) -> str:
    print("\x1b[2Jwhat it was doing")
    raise RuntimeError("no more\nmemory")


def slow(message: str) -> str:
    time.sleep(PATIENCE)
    return message


@pytest.fixture(autouse=True)
def _often(monkeypatch):
    monkeypatch.setattr(batch, "POLL_SECONDS", 0.01)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


# --- a pretended queue ---------------------------------------------------------------------------


class Pretended:
    """A queue whose jobs end when they are told so, and leave what they are told to."""

    ask_seconds = 0.0

    def __init__(self, receipt_seconds: float = 0.0) -> None:
        self.receipt_seconds = receipt_seconds
        self.calls: list[Call] = []
        self.ends: dict[str, str] = {}
        self.cancelled: list[str] = []
        self.came = threading.Semaphore(0)

    def submit(self, call: Call) -> str:
        if call.message == "too much":
            raise ExecutorError("the queue is full")
        self.calls.append(call)
        self.came.release()
        return str(len(self.calls) - 1)

    def ended(self, ids: Collection[str]) -> dict[str, str]:
        return {each: self.ends[each] for each in ids if each in self.ends}

    def cancel(self, ids: Collection[str]) -> None:
        self.cancelled += ids

    def leave(self, number: int, text: str) -> None:
        Path(self.calls[number].words[-1]).write_text(text)

    def wait(self, jobs: int) -> None:
        for _ in range(jobs):
            assert self.came.acquire(timeout=PATIENCE)


def test_receipts_and_deaths_reach_the_futures(tmp_path):
    jobs = BatchJobs(queue := Pretended(), tmp_path)
    good, bad = jobs.submit(upper, "four"), jobs.submit(upper, "five")
    never = jobs.submit(upper, "too much")
    queue.wait(2)
    queue.leave(0, "FOUR")
    queue.calls[1].log.write_text("it had\nno memory \x1b[2J")
    queue.ends |= {"0": "COMPLETED", "1": "OUT_OF_MEMORY"}
    assert good.result(PATIENCE) == "FOUR"
    with pytest.raises(
        Lost, match=r"OUT_OF_MEMORY; the end of its output: it had no memory U\+001B"
    ) as lost:
        bad.result(PATIENCE)
    assert lost.value.worker == "job 1" and not lost.value.final
    with pytest.raises(Lost, match="could not be submitted: the queue is full"):
        never.result(PATIENCE)
    jobs.shutdown()
    later = jobs.submit(upper, "six")  # a new watcher takes it
    queue.wait(1)
    queue.leave(2, "SIX")
    queue.ends["2"] = "COMPLETED"
    assert later.result(PATIENCE) == "SIX"
    jobs.shutdown()


def test_a_receipt_may_be_seen_before_the_end_of_its_job_and_some_time_after_it(tmp_path):
    jobs = BatchJobs(queue := Pretended(receipt_seconds=PATIENCE), tmp_path)
    early, late = jobs.submit(upper, "early"), jobs.submit(upper, "late")
    queue.wait(2)
    queue.leave(0, "EARLY")
    assert early.result(PATIENCE) == "EARLY"
    queue.ends["1"] = "COMPLETED"
    time.sleep(0.1)
    assert not late.done()
    queue.leave(1, "LATE")
    assert late.result(PATIENCE) == "LATE"
    jobs.shutdown()


def test_no_more_than_so_many_at_a_time(tmp_path):
    jobs = BatchJobs(queue := Pretended(), tmp_path, most=2)
    futures = [jobs.submit(upper, str(n)) for n in range(4)]
    queue.wait(2)
    assert not queue.came.acquire(timeout=0.1)
    for number in range(4):
        queue.leave(number, f"{number}")
        queue.ends[str(number)] = "COMPLETED"
        assert futures[number].result(PATIENCE) == str(number)
        if number < 2:
            queue.wait(1)


def test_what_is_left_at_the_end_is_called_off(tmp_path):
    jobs = BatchJobs(queue := Pretended(), tmp_path, most=1)
    first, second = jobs.submit(upper, "a"), jobs.submit(upper, "b")
    queue.wait(1)
    jobs.shutdown(wait=False, cancel_futures=True)
    assert queue.cancelled == ["0"] and second.cancelled() and not first.cancelled()
    with pytest.raises(CancelledError):
        second.result()
    assert len(queue.calls) == 1
    with pytest.raises(ExecutorError, match="an open executor"):
        jobs.submit(upper, "c")


@pytest.mark.parametrize("arguments", [(), (1,), ("a", "b"), ("two\nlines",)])
def test_a_job_is_one_line_of_text(tmp_path, arguments):
    with pytest.raises(ExecutorError, match="one line of text"):
        BatchJobs(Pretended(), tmp_path).submit(upper, *arguments)


@pytest.mark.skipif(os.name != "posix", reason="modes")
def test_receipts_come_to_a_folder_in_which_only_the_user_writes(tmp_path):
    one, two = BatchJobs(Pretended(), tmp_path), BatchJobs(Pretended(), tmp_path)
    assert one.folder != two.folder and one.folder.parent == (tmp_path / ".jobs").resolve()
    assert one.folder.stat().st_mode & 0o777 == 0o700


# --- processes of this machine -------------------------------------------------------------------


def test_a_job_is_a_process_that_writes_to_the_sessions_store_only(tmp_path, monkeypatch):
    monkeypatch.delenv(STORES)
    with opened(parse("processes://"), tmp_path / "runs") as jobs:
        said = jobs.submit(upper, "say 'it' $HOME `id` \\ \x00"), jobs.submit(stores, "")
        assert said[0].result(PATIENCE) == "SAY 'IT' $HOME `ID` \\ \x00"
        assert said[1].result(PATIENCE) == str((tmp_path / "runs").resolve())
        monkeypatch.setenv(STORES, "/elsewhere")
        assert jobs.submit(stores, "").result(PATIENCE) == "/elsewhere"


def test_a_process_that_fails_says_how_and_what_it_printed(tmp_path):
    with opened(parse("processes://"), tmp_path) as jobs, pytest.raises(Lost) as lost:
        jobs.submit(failing, "").result(PATIENCE)
    said = lost.value.reason
    assert said.startswith("it ended with status 1; the end of its output: ")
    assert "U+001B[2Jwhat it was doing" in said and "RuntimeError: no more memory" in said


def test_a_process_has_a_time_limit_and_ends_with_the_session(tmp_path):
    with opened(parse("processes://?jobs=2"), tmp_path) as jobs:
        jobs.queue.seconds = 0.5
        with pytest.raises(Lost, match="it ran for more than 0 minutes"):
            jobs.submit(slow, "").result(PATIENCE)
        jobs.queue.seconds = PATIENCE
        jobs.submit(slow, "")
        while not jobs._running:
            time.sleep(0.01)
        (process, _), *_ = jobs.queue._begun.values()
    assert process.poll() is not None


def test_signals_have_names():
    assert batch._how(-9) == "it was ended by SIGKILL" and batch._how(3) == "it ended with status 3"
    assert batch._how(-99) == "it was ended by signal 99"


@pytest.mark.skipif(os.name != "posix", reason="FIFOs, devices")
@pytest.mark.parametrize(
    ("kind", "error", "said"),
    [
        ("pickle", JobLost, "its receipt cannot be read"),
        ("fifo", JobLost, "it is a FIFO"),
        ("device", JobLost, "it is a device"),
        ("folder", JobLost, "Is a directory"),
        ("large", JobLost, "at most 1,048,576 are read"),
        ("other", JobError, "a receipt that is none"),
        ("error", JobError, r"U\+001B\[2J"),
        ("nothing", JobLost, "it ended with status 0"),
    ],
)
def test_what_lies_in_a_receipts_place_runs_nothing(tmp_path, monkeypatch, kind, error, said):
    """Row 1a: whoever could replace a result in the store had the session run their code."""
    trap = tmp_path / "trap"
    monkeypatch.setattr(batch, "WORKER", ("-m", "tests.hostile_jobs", kind))
    monkeypatch.setenv("TRAP", str(trap))
    store = tmp_path / "runs"
    with opened(parse("processes://"), store) as jobs:
        sent = Dispatch(jobs, say=lambda line: None)
        made = bench_of("tiny-llama", store, put_corpora(tmp_path / "corpora"), elsewhere=sent)
        with pytest.raises(error, match=said):
            made.run("facts", "baseline")
    assert not trap.exists()


# --- Slurm ---------------------------------------------------------------------------------------


def test_no_slurm_on_this_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    refused = pytest.raises(Unreachable, match="no Slurm here.*sbatch, squeue, scancel")
    with refused, opened(parse("slurm://gpu"), tmp_path / "runs"):
        pass


def call_of(folder: Path, message: str = "say 'it' $HOME `id` \\") -> Call:
    receipt = folder / "it's 100%.json"
    words = (sys.executable, *batch.WORKER, f"{__name__}:upper", str(receipt))
    return Call(words, message, {STORES: "/a b/$HOME"}, receipt.with_suffix(".log"))


def test_slurm_is_told_what_the_url_says(tmp_path, monkeypatch):
    monkeypatch.setenv("SQUEUE_FORMAT", "%j")  # of the user's, who reads no such list
    slurm = fake_slurm.put(tmp_path / "bin", monkeypatch)
    url = "slurm://gpu?time=90&mem_gb=80&gpus=2&cpus=8&account=lab&constraint=a100"
    queue = Slurm("gpu", parse(url).options)
    (tmp_path / "out").mkdir()
    call = call_of(tmp_path / "out")
    assert queue.submit(call) == "100"
    words = slurm.words("100")
    for word in (
        *("--partition=gpu", "--time=90", "--mem=80GB", "--gpus-per-node=2", "--cpus-per-task=8"),
        *("--account=lab", "--constraint=a100", "--job-name=tinyablation", "--no-requeue"),
        f"--output={tmp_path}/out/it's 100%%.log",
    ):
        assert word in words
    assert not any(word.startswith("--qos") for word in words)
    slurm.wait("100")
    # The script that Slurm keeps has the message: nothing is fetched from a folder.
    assert Path(call.words[-1]).read_text() == "SAY 'IT' $HOME `ID` \\"
    assert f"export {STORES}='/a b/$HOME'\n" in slurm.script("100")
    assert queue.ended(["100", "7"]) == {"100": "COMPLETED", "7": "it is in no queue any more"}


def test_what_slurm_says_of_a_job(tmp_path, monkeypatch):
    slurm = fake_slurm.put(tmp_path / "bin", monkeypatch)
    queue = Slurm("gpu", parse("slurm://gpu").options)
    slurm.said("squeue", "1|RUNNING\n2|PENDING\n3|NODE_FAIL\n4|COMPLETING\n")
    assert queue.ended("12345") == {"3": "NODE_FAIL", "5": "it is in no queue any more"}
    slurm.said("squeue", "slurm_load_jobs error: Unable to contact slurm controller", status=1)
    assert queue.ended("12345") == {}
    slurm.said("sbatch", "sbatch: error: invalid partition specified: gpu\x07", status=1)
    with pytest.raises(ExecutorError, match=r"invalid partition specified: gpuU\+0007$"):
        queue.submit(call_of(tmp_path))
    slurm.said("sbatch", "4711;cluster-2")
    assert queue.submit(call_of(tmp_path)) == "4711"
    slurm.said("sbatch", "Submitted batch job 1")
    with pytest.raises(ExecutorError, match="sbatch: Submitted batch job 1"):
        queue.submit(call_of(tmp_path))


def test_slurms_jobs_are_cancelled_with_the_session(tmp_path, monkeypatch):
    slurm = fake_slurm.put(tmp_path / "bin", monkeypatch)
    with opened(parse("slurm://gpu?jobs=1"), tmp_path / "runs") as jobs:
        jobs.submit(slow, "")
        while not jobs._running:
            time.sleep(0.01)
    assert slurm.state("100") == "CANCELLED"


def test_processes_are_a_queue_and_so_is_slurm():
    for queue in (Processes(1.0), Pretended()):
        assert queue.ask_seconds == queue.receipt_seconds == 0.0
