"""How much of a measurement is held in memory at once; where memory runs out, half as much is.

The limits on a batch, on the logits held and on the record of a clean pass are set where they are
used (engine.py, clean_pass.py), as counts of numbers; a Room says what share of them fits. When
memory runs out, everything the work held is freed, the share is halved until the part that failed
is at most half as large, and the work resumes where it stopped, so that no run is lost.
"""

import contextlib
import gc
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

from tinyablation.engine.prompt_checks import EngineError

Row = TypeVar("Row")
Found = TypeVar("Found")

# What a RuntimeError says that is one of memory. CUDA's caching allocator raises OutOfMemoryError,
# but what goes past it (handles of cuBLAS, the driver) does not; nor do MPS and the CPU.
SIGNS = ("DefaultCPUAllocator", "out of memory", "_STATUS_ALLOC_FAILED")


class OutOfMemory(EngineError):
    """One row of one prompt does not fit; the message says what to try."""


class _Full(Exception):
    """A part of larger work did not fit; never leaves this module but through `trying`."""

    def __init__(self, bound: int, used: int, rows: int, what: str, said: str) -> None:
        super().__init__(what)
        self.bound = bound  # the figure that limits such parts, in numbers
        self.used = used  # how many numbers this one had, reckoned in the same way
        self.rows = rows
        self.what = what
        self.said = said


class Room:
    """The share of every bound that there is room for, on one model's devices.

    halvings counts how often memory ran out; share is 1.0 where it never did. A measurement in
    which it did not lets the next one try twice the share: another process may have made way.
    """

    def __init__(self, name: str) -> None:
        """name: of the model, for messages."""
        self.name = name
        self.share = 1.0
        self.halvings = 0
        self._before = 0

    def of(self, bound: int) -> int:
        """What there is room for, of a bound; at least 1."""
        return max(1, int(bound * self.share))

    def begin(self) -> None:
        """A measurement begins."""
        if self.halvings == self._before:
            self.share = min(1.0, 2 * self.share)
        self._before = self.halvings

    def parts(
        self,
        rows: Sequence[Row],
        costs: Sequence[int],
        bound: int,
        what: str,
        work: Callable[[Sequence[Row]], Found],
    ) -> Iterator[tuple[Sequence[Row], Found]]:
        """Work on rows, in order, in parts that cost at most the bound's share, or of one row.

        costs: of each row, in the bound's unit. what: the rows' name in messages. work must leave
        nothing half done where it raises: it is called again with fewer of the rows. Yields each
        part with what the work made of it. Raises OutOfMemory where one row does not fit, and
        whatever else the work raises.
        """
        begin = 0
        while begin < len(rows):
            end, cost = begin + 1, costs[begin]
            while end < len(rows) and cost + costs[end] <= self.of(bound):
                cost += costs[end]
                end += 1
            part = rows[begin:end]
            full: tuple[int, int, int, str, str] | None = None
            try:
                found = work(part)
            except Exception as error:
                if isinstance(error, _Full) and (error.rows > 1 or len(part) == 1):
                    full = error.bound, error.used, error.rows, error.what, error.said
                elif isinstance(error, _Full):
                    full = bound, cost, len(part), what, error.said
                elif ran_out(error):
                    full = bound, cost, len(part), what, str(error)
                else:
                    raise
            # Only here, out of the handler, is nothing left that holds on to the work's tensors.
            if full is None:
                yield part, found
                del found
                begin = end
            else:
                self._halve(*full)

    def whole(self, what: str, work: Callable[[], Found]) -> Found:
        """Work that has no parts, with OutOfMemory where it does not fit."""
        ((_, found),) = self.parts([None], [1], 1, what, lambda _: work())
        return found

    @contextlib.contextmanager
    def trying(self, bound: int, used: int, rows: int, what: str) -> Iterator[None]:
        """Within `parts`: a piece of the work that is smaller with a smaller share of its bound.

        used: its size in the bound's unit; rows: how many that are; what: their name in messages.
        """
        try:
            yield
        except Exception as error:
            if not ran_out(error):
                raise
            raise _Full(bound, used, rows, what, str(error)) from None

    def _halve(self, bound: int, used: int, rows: int, what: str, said: str) -> None:
        give_back()
        if rows == 1:
            first = said.strip().splitlines()[0] if said.strip() else "no message"
            raise OutOfMemory(
                f"model {self.name!r}: out of memory with a single row at once ({what}), after "
                f"halving the batch {self.halvings} times. Take --dtype bfloat16, a smaller model "
                f"or --device cpu, or end what else uses the device. It said: {first}"
            )
        self.halvings += 1
        # Half of what was tried: a bound far above that would be halved many times to no effect.
        self.share = min(self.share, used / bound) / 2


def ran_out(error: BaseException) -> bool:
    """Whether this is the error of a device, or of the machine, that has no memory left."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(sign in str(error) for sign in SIGNS)
    )


def give_back() -> None:
    """Return to the devices what their allocators keep of memory that nothing uses any more."""
    gc.collect()  # a traceback in a cycle keeps its frames' tensors
    torch.cuda.empty_cache()  # on every GPU that is in use, and nothing where none is
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()
