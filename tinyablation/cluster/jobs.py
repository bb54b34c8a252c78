"""What travels to another machine, and what is done there: shards of a run, or a reading.

A job is plain JSON: which model, which corpora, which store, what is measured. Its result is plain
JSON too, a receipt; what was measured lies in the store, which all machines see. The address that
the run has here goes with it, so that a machine with other weights, corpora or another version
refuses instead of measuring something else.
"""

import importlib
import os
import socket
import threading
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from tinyablation.errors import TinyAblationError
from tinyablation.models.registry import ModelEntry
from tinyablation.runs.address import RunConfig

if TYPE_CHECKING:
    from tinyablation.measurement.bench import Bench
    from tinyablation.measurement.interface import Measures


class JobError(TinyAblationError):
    """A job that cannot be done where it was sent, or that came back with an unexpected error."""


class BenchFacts(BaseModel):
    """What a bench is made of, in plain values; device: a kind, or auto."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    entry: ModelEntry
    corpora: Path
    store: Path
    battery: str
    seed: int
    device: str
    dtype: str
    protocol: str
    share: float
    per_relation: int
    own: dict[str, Path] = {}  # conditions from files

    @classmethod
    def of(cls, bench: "Measures") -> "BenchFacts":
        return cls(
            entry=bench.entry,
            corpora=Path(bench.corpora).resolve(),
            store=Path(bench.store.root).resolve(),
            battery=bench.battery,
            seed=bench.seed,
            device=bench.device.split(":", 1)[0],
            dtype=bench.dtype,
            protocol=bench.protocol,
            share=bench.share,
            per_relation=bench.per_relation,
            own={name: each.path.resolve() for name, each in bench.library.own.items()},
        )


class Job(BaseModel):
    """What one worker is to do.

    config: the address where the job was made. what: the battery or the reading, and directions
    what makes a battery's vectors, as described.describe has them. shards: the keys of the shards
    to compute; none: all that are missing, to the finished run.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["run", "reading"]
    bench: BenchFacts
    config: RunConfig
    what: Any
    directions: Any = None
    shards: tuple[str, ...] = ()

    @property
    def about(self) -> str:
        """Which part of what, for messages."""
        run = self.config.name
        return f"{run}, shard {', '.join(self.shards)}" if self.shards else run


class Receipt(BaseModel):
    """What a worker did: the seconds of each shard that it computed, in how many seconds in all,
    who it is, on what device. complete: whether the run or reading was, at its end; error: why
    nothing came of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: str
    shards: dict[str, float] = {}
    seconds: float = 0.0
    worker: str
    device: str = ""
    complete: bool = False
    error: "Failure | None" = None


class Failure(BaseModel):
    """An error inside a job. kind: the error's class, if it is one of this package's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str = ""
    message: str
    trace: str = ""

    @classmethod
    def of(cls, error: Exception) -> "Failure":
        kind = type(error)
        if isinstance(error, TinyAblationError):
            return cls(kind=f"{kind.__module__}:{kind.__qualname__}", message=str(error))
        return cls(message=f"{kind.__name__}: {error}", trace=traceback.format_exc())

    def rebuilt(self, about: str, worker: str) -> TinyAblationError:
        """The error as it was raised, with a note of where; JobError for one of another kind."""
        kind = _error_class(self.kind)
        line = self.message if not self.trace else f"{self.message}\n{self.trace}"
        found = JobError(f"{about}: {line}") if kind is None else kind(self.message)
        found.add_note(f"raised by worker {worker}, in job {about}")
        return found


def _error_class(name: str) -> type[TinyAblationError] | None:
    """The error class of this package that is called so; None where there is none."""
    module, _, attribute = name.partition(":")
    if module.split(".")[0] != "tinyablation":
        return None
    try:
        kind = getattr(importlib.import_module(module), attribute, None)
    except ImportError:
        return None
    return kind if isinstance(kind, type) and issubclass(kind, TinyAblationError) else None


def worker_name() -> str:
    """Who does a job: host and process."""
    return f"{socket.gethostname()}:{os.getpid()}"


# --- on the worker -------------------------------------------------------------------------------


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

    for what, folder in (("corpora", facts.corpora), ("store", facts.store)):
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
        facts.entry,
        corpora=facts.corpora,
        store=RunStore(facts.store),
        battery=facts.battery,
        seed=facts.seed,
        device=choose_device(facts.device),
        dtype=facts.dtype,
        protocol=facts.protocol,
        share=facts.share,
        per_relation=facts.per_relation,
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
