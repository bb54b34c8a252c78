"""What travels to another machine and back: jobs and receipts, as plain JSON.

A job says which model, which corpora, which store, and what is measured. Its result is a receipt;
what was measured lies in the store, which all machines see. The address that the run has here goes
with it, so that a machine with other weights, corpora or another version refuses instead of
measuring something else.
"""

import importlib
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict

from tinyablation.errors import TinyAblationError
from tinyablation.measurement.setup import Setup
from tinyablation.runs.address import RunConfig

if TYPE_CHECKING:
    from tinyablation.measurement.interface import Measures


class JobError(TinyAblationError):
    """A job that cannot be done where it was sent, or that came back with an unexpected error."""


class BenchFacts(BaseModel):
    """What a bench is made of, in plain values; its setup's device: a kind, or auto."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    setup: Setup
    store: Path
    own: dict[str, Path] = {}  # conditions from files

    @classmethod
    def of(cls, bench: "Measures") -> "BenchFacts":
        seen_from_anywhere = {
            "corpora": bench.setup.corpora.resolve(),
            "device": bench.device.split(":", 1)[0],
            "dtype": bench.dtype,
        }
        return cls(
            setup=bench.setup.model_copy(update=seen_from_anywhere),
            store=Path(bench.store.root).resolve(),
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
