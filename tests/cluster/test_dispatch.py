"""A session sends what is missing, waits, and reads the store: it loads nothing.

Run: pytest tests/cluster/test_dispatch.py
"""

from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path

import pytest

from tests.benches import CORPORA, bench_of
from tests.small_corpora import put_corpora
from tinyablation.analysis.findings import Findings
from tinyablation.cluster import dispatch as dispatching
from tinyablation.cluster.dispatch import RETRIES, Dispatch, JobLost, device_of
from tinyablation.cluster.executors import ExecutorError, Lost, parse
from tinyablation.cluster.messages import Failure, Job, JobError, Receipt
from tinyablation.cluster.worker import run_job
from tinyablation.errors import TooLarge
from tinyablation.files.manifests import Damaged
from tinyablation.interventions.batteries import ONE_EACH, Steering
from tinyablation.measurement.bench import Bench
from tinyablation.measurement.head_readings import Direction, SteeringDirections
from tinyablation.measurement.plan import plan_run
from tinyablation.measurement.screening import Screening, parse_screening
from tinyablation.runs.store import TABLES, RunStore

ROOT = Path(__file__).parents[2]
SHARDS = ["baseline", "L00-L02", "L03"]  # of battery single-heads


class Inline(Executor):
    """Does each job at once, in this process, but for those that are to be lost first."""

    def __init__(self, losing: tuple[Exception, ...] = ()) -> None:
        self.losing = list(losing)
        self.jobs: list[Job] = []

    def submit(self, call: Callable[..., str], /, *args: str, **kwargs: str) -> Future[str]:
        future: Future[str] = Future()
        if call is not dispatching.kind_of_device:
            self.jobs.append(Job.model_validate_json(args[0]))
        if self.losing and (self.jobs and self.jobs[-1].shards == ("L00-L02",)):
            future.set_exception(self.losing.pop(0))
        else:
            future.set_result(call(*args))
        return future


@pytest.fixture(scope="module")
def corpora(tmp_path_factory) -> Path:
    folder = put_corpora(tmp_path_factory.mktemp("corpora"), rows=(8, 8))
    # Patches need words of which nothing is known.
    (folder / "knowledge").symlink_to(CORPORA / "knowledge")
    return folder


@pytest.fixture(scope="module")
def alone(corpora, tmp_path_factory):
    """The run as one process makes it."""
    return bench(tmp_path_factory.mktemp("alone"), corpora).run("facts", "single-heads")


def bench(
    store: Path,
    corpora: Path,
    elsewhere: Dispatch | None = None,
    screening: Screening | None = None,
) -> Bench:
    store.mkdir(exist_ok=True)
    return bench_of("tiny-llama", store, corpora, elsewhere=elsewhere, screening=screening)


def test_shards_travel_and_the_session_loads_nothing(corpora, tmp_path, alone):
    executor = Inline()
    made = bench(tmp_path / "runs", corpora, Dispatch(executor))
    run = made.run("facts", "single-heads")
    assert [job.shards for job in executor.jobs] == [(key,) for key in SHARDS]
    assert "model" not in made.__dict__ and run.name == alone.name
    for name in TABLES:
        assert (run.path / name).read_bytes() == (alone.path / name).read_bytes()
    assert made.run("facts", "single-heads") == run and len(executor.jobs) == len(SHARDS)


def test_what_was_changed_is_sent_again_where_that_is_asked_for(corpora, tmp_path):
    store, executor = tmp_path / "runs", Inline()
    made = bench(store, corpora, Dispatch(executor))
    kept = [made.run("facts", "baseline"), made.reading("facts", Direction((0, 0)))]
    for each, file in zip(kept, ("verify.json", "reading.json"), strict=True):
        data = (each.path / file).read_bytes()
        (each.path / file).write_bytes(data.replace(b"0", b"1", 1))
    executor.jobs.clear()
    with pytest.raises(Damaged, match="verify.json.*--remeasure"):
        made.run("facts", "baseline")
    with pytest.raises(Damaged, match="reading.json.*--remeasure"):
        made.reading("facts", Direction((0, 0)))
    assert executor.jobs == []
    made.store = RunStore(store, remeasure=True)
    assert made.run("facts", "baseline") == kept[0]
    assert made.reading("facts", Direction((0, 0))) == kept[1]
    assert [job.config.name for job in executor.jobs] == [each.name for each in kept]
    assert "model" not in made.__dict__


def test_several_shards_a_job_and_only_what_is_missing(corpora, tmp_path):
    made = bench(tmp_path / "runs", corpora)
    plan = plan_run(made, "facts", "single-heads")
    made.advance("facts", plan.battery, ["baseline"])
    executor = Inline()
    bench(tmp_path / "runs", corpora, Dispatch(executor, shards=4)).run("facts", "single-heads")
    assert [job.shards for job in executor.jobs] == [("L00-L02", "L03")]


@pytest.mark.slow
def test_what_is_asked_for_ahead_is_sent_once(corpora, tmp_path):
    executor = Inline()
    made = bench(tmp_path / "runs", corpora, Dispatch(executor))
    made.ahead("facts", "baseline", "corrupt")
    assert len(executor.jobs) == 2
    made.run("facts", "corrupt")
    made.run("facts", "baseline")
    assert len(executor.jobs) == 2 and made.elsewhere._pending == {}
    made.gate.unhooked("facts")
    names = [job.config.battery for job in executor.jobs]
    # What the gate still lacks, and no sweep.
    assert names == ["baseline", "corrupt", "null"]
    Findings(made).patches("facts")
    # Both directions of patching, of which each is some shards, before either is waited for, and
    # first of all the prompts.
    words, *names = [job.config.battery for job in executor.jobs[3:]]
    assert words.startswith("unknown-words")
    assert {*names} == {"patch-forward-unknown", "patch-reverse-unknown"}
    assert "model" not in made.__dict__


def test_readings_and_steering_travel_too(corpora, tmp_path):
    executor = Inline()
    made = bench(tmp_path / "runs", corpora, Dispatch(executor))
    reading = made.reading("facts", Direction((0, 0)))
    assert reading.tensors()["direction"].shape == (made.facts.d_model,)
    controls = ("ov", "random-1", "random-2", "random-3")
    Findings(made).effects(
        "facts",
        Steering(0, "0.0-test", controls),
        directions=SteeringDirections((0, 0), "facts"),
    )
    assert {job.kind for job in executor.jobs} == {"reading", "run"}
    assert "model" not in made.__dict__
    assert made.elsewhere._pending == {}


@pytest.mark.slow
def test_a_screened_sweep_travels_with_its_scores(corpora, tmp_path):
    executor = Inline()
    made = bench(tmp_path / "runs", corpora, Dispatch(executor), parse_screening("2:2"))
    gate = [each.name for each in made.gate.batteries("facts")]
    assert gate == ["baseline", "corrupt", "null"]  # whichever heads are swept
    sweep = Findings(made).sweep("facts")
    assert 8 < len(sweep.heads) < 32 and "model" not in made.__dict__
    assert [job.kind for job in executor.jobs[:2]] == ["reading", "reading"]
    alone = bench(tmp_path / "alone", corpora, screening=parse_screening("2:2"))
    alone = Findings(alone).sweep("facts")
    assert alone.heads == sweep.heads and alone.runs == sweep.runs


def test_what_cannot_be_described_is_measured_here(corpora, tmp_path):
    import torch

    executor, said = Inline(), []
    made = bench(tmp_path / "runs", corpora, Dispatch(executor, say=said.append))
    vector = torch.ones(made.facts.d_model)
    battery = Steering(0, "ones", ("up",), sample=ONE_EACH)
    made.run("facts", battery, directions=lambda bench: {"up": vector})
    assert executor.jobs == [] and "is measured in this process" in said[0]
    assert "model" in made.__dict__


def test_a_lost_job_is_run_again(corpora, tmp_path, alone):
    executor = Inline((Lost("tcp://one", "killed"), Lost("", "its node is gone")))
    said: list[str] = []
    run = bench(tmp_path / "runs", corpora, Dispatch(executor, say=said.append)).run(
        "facts", "single-heads"
    )
    tried = [job.shards for job in executor.jobs]
    assert tried.count(("L00-L02",)) == 3 and tried.count(("L03",)) == 1
    assert len(said) == 2 and "shard L00-L02: lost with tcp://one (killed)" in said[0]
    for name in TABLES:
        assert (run.path / name).read_bytes() == (alone.path / name).read_bytes()


@pytest.mark.parametrize("final", [False, True])
def test_one_that_is_lost_too_often_names_shard_worker_and_reason(corpora, tmp_path, final):
    losses = tuple(Lost(f"tcp://{n}", "killed", final=final) for n in range(9))
    executor = Inline(losses)
    made = bench(tmp_path / "runs", corpora, Dispatch(executor, say=lambda line: None))
    tries = 1 if final else 1 + RETRIES
    with pytest.raises(JobLost, match=rf"L00-L02: lost with tcp://{tries - 1}, .*killed"):
        made.run("facts", "single-heads")
    assert len(losses) - len(executor.losing) == tries
    # What others measured is kept; the next attempt sends the rest only.
    executor.losing.clear()
    executor.jobs.clear()
    made.run("facts", "single-heads")
    assert [job.shards for job in executor.jobs] == [("L00-L02",)]


def test_an_error_inside_a_job_is_raised_as_it_was_and_not_tried_again(corpora, tmp_path):
    calls = []

    def call(text: str) -> str:
        calls.append(text)
        failure = Failure.of(TooLarge("it needs 99 GB"))
        return Receipt(run="?", worker="host:1", error=failure).model_dump_json()

    made = bench(tmp_path / "runs", corpora, Dispatch(Inline(), call=call))
    with pytest.raises(TooLarge) as caught:
        made.run("facts", "baseline")
    assert str(caught.value) == "it needs 99 GB" and "worker host:1" in caught.value.__notes__[0]
    assert len(calls) == 1 and made.elsewhere._pending == {}


def test_a_run_that_is_cut_before_its_end_is_finished_by_a_last_job(corpora, tmp_path, monkeypatch):
    """The shards are there, and who would have verified them died."""
    executor = Inline()

    def cut(text: str) -> str:
        job = Job.model_validate_json(text)
        with monkeypatch.context() as patched:
            if job.shards:
                patched.setattr(RunStore, "_finish", lambda *args: None)
            return run_job(text)

    made = bench(tmp_path / "runs", corpora, Dispatch(executor, call=cut))
    run = made.run("facts", "single-heads")
    assert [job.shards for job in executor.jobs] == [*((key,) for key in SHARDS), ()]
    assert run.path.is_dir() and "model" not in made.__dict__


def test_workers_with_another_store_are_found_out(corpora, tmp_path, monkeypatch):
    monkeypatch.setattr(dispatching, "VISIBLE_SECONDS", 0.1)

    def aside(text: str) -> str:
        job = Job.model_validate_json(text)
        (tmp_path / "aside").mkdir(exist_ok=True)
        facts = job.bench.model_copy(update={"store": tmp_path / "aside"})
        return run_job(job.model_copy(update={"bench": facts}).model_dump_json())

    made = bench(tmp_path / "runs", corpora, Dispatch(Inline(), call=aside))
    with pytest.raises(ExecutorError, match="must see this folder as this machine does"):
        made.run("facts", "baseline")


def test_the_device_is_the_workers():
    sent = Dispatch(Inline())
    assert device_of(parse("dask://a:1"), sent, "auto") == "cpu"
    assert device_of(parse("dask://a:1"), sent, "cuda:1") == "cuda"
    assert device_of(parse("slurm://gpu?gpus=1"), sent, "auto") == "cuda"
    assert device_of(parse("slurm://cpu"), sent, "auto") == "cpu"
    lost = Inline()
    lost.submit = lambda *args: failed  # type: ignore[method-assign]
    failed: Future[str] = Future()
    failed.set_exception(Lost("", "no worker came"))
    with pytest.raises(ExecutorError, match="no worker came"):
        device_of(parse("dask://a:1"), Dispatch(lost), "auto")


@pytest.mark.parametrize("said", ["gASVBQ==", "", "{}", '{"run": "r"}'])
def test_a_result_that_is_no_receipt_ends_the_session_in_one_line(corpora, tmp_path, said):
    made = bench(tmp_path / "runs", corpora, Dispatch(Inline(), call=lambda text: said))
    with pytest.raises(JobError, match="a receipt that is none") as caught:
        made.run("facts", "baseline")
    assert "\n" not in str(caught.value) and made.elsewhere._pending == {}


def test_a_device_that_is_none_is_refused(monkeypatch):
    monkeypatch.setattr(dispatching, "kind_of_device", lambda wanted: "\x1b[2J")
    with pytest.raises(ExecutorError, match="a device that is none of cpu, cuda, mps"):
        Dispatch(Inline()).device("auto")
