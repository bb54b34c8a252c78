"""What is done on another machine: shards of a run, or a reading, as a job asks for them."""

import os
import socket
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pydantic import ValidationError

from tinyablation.cluster.messages import BenchFacts, Failure, Job, JobError, Receipt

if TYPE_CHECKING:
    from tinyablation.measurement.bench import Bench


def worker_name() -> str:
    """Who does a job: host and process."""
    return f"{socket.gethostname()}:{os.getpid()}"


@dataclass
class Desk:
    """The one bench that a worker process keeps from job to job, with its model in memory."""

    facts: BenchFacts | None = None
    bench: "Bench | None" = None
    # One job after another: a model in memory serves one at a time, whatever threads there are.
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, facts: BenchFacts) -> "Bench":
        """The bench of these facts; another one's model is dropped first."""
        if self.bench is None or self.facts != facts:
            self.clear()
            self.bench, self.facts = make_bench(facts), facts
        return self.bench

    def clear(self) -> None:
        if self.bench is not None:
            self.bench.release()
        self.bench = self.facts = None


DESK = Desk()


def make_bench(facts: BenchFacts) -> "Bench":
    """A bench on this machine.

    It takes no turns on an accelerator: between two jobs it keeps its model there, and another
    worker would wait for a turn that nobody gives up.
    """
    from tinyablation.corpora.own_conditions import read_own
    from tinyablation.measurement.bench import Bench
    from tinyablation.models.devices import choose_device
    from tinyablation.models.residency import Sharing
    from tinyablation.runs.store import RunStore

    for what, folder in (("corpora", facts.setup.corpora), ("store", facts.store)):
        if not folder.is_dir():
            raise JobError(
                f"worker {worker_name()} sees no folder {folder}: the {what} must lie where all "
                "machines see them, under the same path"
            )
    for name, path in facts.own.items():
        if not path.is_file():
            raise JobError(
                f"worker {worker_name()} sees no file {path} of the condition {name}: it must lie "
                "where all machines see it, under the same path"
            )
    return Bench(
        facts.setup.model_copy(update={"device": choose_device(facts.setup.device)}),
        RunStore(facts.store),
        sharing=Sharing(owner=worker_name()),
        own={name: read_own(name, path) for name, path in facts.own.items()},
    )


def run_job(text: str) -> str:
    """Do a job, given and answered as JSON: Job -> Receipt. What a worker is asked to call."""
    began = time.perf_counter()
    worker, run = worker_name(), "?"
    try:
        job = _read(text)
        run = job.config.name
        with DESK.lock:
            bench = DESK.take(job.bench)
            shards = _do(job, bench)
            complete = bench.store.status(job.config) == "complete"
        receipt = Receipt(
            run=run,
            shards=shards,
            seconds=round(time.perf_counter() - began, 6),
            worker=worker,
            device=bench.device,
            complete=complete,
        )
    except Exception as error:
        if type(error).__module__.split(".")[0] == "submitit":
            raise  # its signals, raised wherever the job stands: the time is up
        receipt = Receipt(run=run, worker=worker, error=Failure.of(error))
    return receipt.model_dump_json()


def kind_of_device(wanted: str) -> str:
    """What a device name comes to on the worker that is asked: cpu, cuda or mps."""
    from tinyablation.models.devices import choose_device

    return choose_device(wanted).split(":", 1)[0]


def _read(text: str) -> Job:
    try:
        return Job.model_validate_json(text)
    except ValidationError as error:
        raise JobError(
            f"worker {worker_name()} cannot read the job ({error}); give workers and session the "
            "same version of tinyablation"
        ) from error


def _do(job: Job, bench: "Bench") -> dict[str, float]:
    from tinyablation.cluster.serialization import rebuild

    what = rebuild(job.what)
    directions = rebuild(job.directions)
    condition = job.config.condition
    name = what.name(bench) if job.kind == "reading" else what.name
    own = bench.config(condition, name, what.sample).model_dump(mode="json")
    wanted = job.config.model_dump(mode="json")
    differing = sorted(key for key in wanted if own[key] != wanted[key])
    if differing:
        raise JobError(
            f"worker {worker_name()} would measure something else than {job.config.name}: "
            f"{', '.join(differing)} differ. Give all machines the same model files, corpora and "
            "version of tinyablation"
        )
    if job.kind == "reading":
        bench.reading(condition, what)
        return {}
    if not job.shards:
        bench.run(condition, what, directions=directions)
        return {}
    return bench.advance(condition, what, job.shards, directions=directions)
