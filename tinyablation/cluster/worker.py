"""The worker's side: computes shards of a run, or a reading, as a job requests."""

import os
import socket
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from tinyablation.cluster.messages import BenchFacts, Failure, Job, JobError, Receipt
from tinyablation.errors import ModelChanged

if TYPE_CHECKING:
    from tinyablation.measurement.bench import Bench


# Folders that a worker may write measurements to, separated by os.pathsep: its operator chooses
# them, not who sends a job.
STORES = "TINYABLATION_STORES"


def worker_name() -> str:
    """The name of this worker: host and process."""
    return f"{socket.gethostname()}:{os.getpid()}"


@dataclass
class Desk:
    """Holds the one bench that a worker process keeps between jobs, with its model in memory."""

    facts: BenchFacts | None = None
    bench: "Bench | None" = None
    # One job at a time: threads must not share the model in memory.
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, facts: BenchFacts) -> "Bench":
        """The bench for these facts; the model of a different bench is dropped first."""
        if self.bench is None or self.facts != facts:
            self.clear()
            self.bench, self.facts = make_bench(facts), facts
        return self.bench

    def clear(self) -> None:
        if self.bench is not None:
            self.bench.release()
        self.bench = self.facts = None


DESK = Desk()


def check_store(store: Path) -> None:
    """Raise JobError unless a store is one of this worker's folders, or lies in one of them."""
    listed = [Path(each) for each in os.environ.get(STORES, "").split(os.pathsep) if each]
    inside = (store.resolve().is_relative_to(each.resolve()) for each in listed)
    if not any(inside):
        served = ", ".join(map(str, listed)) or "none"
        raise JobError(
            f"worker {worker_name()} does not write to {store}: its operator gives it the stores "
            f"in {STORES} ({served})"
        )


def make_bench(facts: BenchFacts) -> "Bench":
    """A bench on this machine.

    It takes no turns on an accelerator: it keeps its model there between jobs, so another worker
    would wait forever for its turn.
    """
    from tinyablation.corpora.own_conditions import read_own
    from tinyablation.measurement.bench import Bench
    from tinyablation.models.devices import choose_device
    from tinyablation.models.residency import Sharing
    from tinyablation.runs.store import RunStore

    check_store(facts.store)
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
    """Run a job: JSON of a Job in, JSON of a Receipt out. The function that workers call."""
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
        if isinstance(error, (JobError, ModelChanged)):  # the next job reads all files anew
            with DESK.lock:
                DESK.clear()
        receipt = Receipt(run=run, worker=worker, error=Failure.of(error))
    return receipt.model_dump_json()


KINDS = ("cpu", "cuda", "mps")


def kind_of_device(wanted: str) -> str:
    """The kind of device that a device name resolves to on this worker: cpu, cuda or mps."""
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
    if job.config.has_corpus:
        own = bench.config(condition, name, what.sample).model_dump(mode="json")
    else:
        own = bench.config_without_corpus(name).model_dump(mode="json")
    wanted = job.config.model_dump(mode="json")
    differing = sorted(key for key in wanted if own[key] != wanted[key])
    if differing:
        raise JobError(
            f"worker {worker_name()} would measure something else than {job.config.name}: "
            f"{', '.join(differing)} differ. Give all machines the same model files, corpora and "
            "version of tinyablation"
        )
    if not job.config.has_corpus:
        bench.reading_without_corpus(what)
        return {}
    if job.kind == "reading":
        bench.reading(condition, what)
        return {}
    if not job.shards:
        bench.run(condition, what, directions=directions)
        return {}
    return bench.advance(condition, what, job.shards, directions=directions)
