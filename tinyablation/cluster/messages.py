"""Messages to other machines and back: jobs and receipts, as plain JSON.

A job names the model, the corpora, the store and what to measure. Its result is a receipt; the
measurements are in the store, which all machines see. The job contains the run's address on this
machine, so that a machine with other weights, corpora or another version raises an error instead of
measuring something else.
"""

import contextlib
import importlib
import re
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from tinyablation.characters import printable
from tinyablation.errors import TinyAblationError
from tinyablation.measurement.setup import Setup
from tinyablation.runs.address import RunConfig

if TYPE_CHECKING:
    from tinyablation.measurement.interface import Measures

# The longest receipt that is read. One of a run has 300 bytes, one of an error some kilobytes.
MOST_BYTES = 2**20
_ERROR = re.compile(r"(tinyablation(?:\.[a-z_]\w*)+):([A-Za-z]\w*)")
# A receipt may come from anybody who can write to the store: its text is shown, not obeyed.
Text = Annotated[str, AfterValidator(printable)]


class JobError(TinyAblationError):
    """A job cannot be done where it was sent, or failed with an unexpected error."""


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
    """The task of one worker.

    config: the run's address on the sending machine. what: the battery or reading, and directions:
    the source of a battery's vectors, both from serialization.describe. shards: the keys of the
    shards to compute; empty: all that are missing, and finish the run.
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
        """The run and its shards, for messages."""
        run = self.config.name
        return f"{run}, shard {', '.join(self.shards)}" if self.shards else run


class Receipt(BaseModel):
    """What a worker did: seconds per computed shard and in total, worker name and device.

    complete: whether the run or reading was complete at the end; error: why the job failed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: Text
    shards: dict[Text, float] = {}
    seconds: float = 0.0
    worker: Text
    device: Text = ""
    complete: bool = False
    error: "Failure | None" = None

    @classmethod
    def read(cls, text: str) -> "Receipt":
        """The receipt of a text that anybody may have written; JobError if it is none."""
        if len(text) > MOST_BYTES:
            raise JobError(f"a receipt of {len(text):,} letters; at most {MOST_BYTES:,} are read")
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            fault = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, fault["loc"])) or "text"
            raise JobError(
                printable(f"a receipt that is none ({where}: {fault['msg']}); give workers and ")
                + "session the same version of tinyablation"
            ) from None


class Failure(BaseModel):
    """An error inside a job. kind: the error's class, if it belongs to this package."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str = ""
    message: Text
    trace: Text = ""

    @classmethod
    def of(cls, error: Exception) -> "Failure":
        kind = type(error)
        if isinstance(error, TinyAblationError):
            return cls(kind=f"{kind.__module__}:{kind.__qualname__}", message=str(error))
        return cls(message=f"{kind.__name__}: {error}", trace=traceback.format_exc())

    def rebuilt(self, about: str, worker: str) -> TinyAblationError:
        """The error as raised in the job, with a note of where; JobError for a foreign class."""
        kind = _error_class(self.kind)
        line = self.message if not self.trace else f"{self.message}\n{self.trace}"
        found: TinyAblationError = JobError(f"{about}: {line}")
        if kind is not None:
            with contextlib.suppress(TypeError):  # it is made of other things than a message
                found = kind(self.message)
        found.add_note(f"raised by worker {worker}, in job {about}")
        return found


def _error_class(name: str) -> type[TinyAblationError] | None:
    """The error class of this package with that name; None if there is none."""
    found = _ERROR.fullmatch(name)
    if found is None:
        return None
    try:
        kind = getattr(importlib.import_module(found[1]), found[2], None)
    except ImportError:
        return None
    return kind if isinstance(kind, type) and issubclass(kind, TinyAblationError) else None
