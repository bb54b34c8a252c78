"""Limits on memory: how much of a measurement is in memory at once, halved when memory runs out.

The limits on a batch, on logits and on the record of a clean pass are those of the device
(models.bounds), as counts of numbers; a Room holds the share of them that fits. When
memory runs out, everything the work held is freed, the share is halved until the failed part is at
most half as large, and the work resumes where it stopped.
"""

import contextlib
import gc
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

from tinyablation.engine.prompt_checks import EngineError

Row = TypeVar("Row")
Found = TypeVar("Found")

# Messages of RuntimeErrors that mean "out of memory". CUDA's caching allocator raises
# OutOfMemoryError, but cuBLAS handles, the driver, MPS and the CPU do not.
SIGNS = ("DefaultCPUAllocator", "out of memory", "_STATUS_ALLOC_FAILED")


class OutOfMemory(EngineError):
    """One row of one prompt does not fit; the message says what to try."""


class _Full(Exception):
    """A part of the work did not fit; raised by `trying`, never leaves this module."""

    def __init__(self, bound: int, used: int, rows: int, what: str, said: str) -> None:
        super().__init__(what)
        self.bound = bound  # the limit on such parts, in numbers
        self.used = used  # the size of this part, in the same unit
        self.rows = rows
        self.what = what
        self.said = said


class Room:
    """The share of every bound that fits in the memory of one model's devices.

    halvings counts how often memory ran out; share is 1.0 if it never did. After a measurement in
    which it did not, the next one tries twice the share: another process may have freed memory.
    """

    def __init__(self, name: str) -> None:
        """name: of the model, for messages."""
        self.name = name
        self.share = 1.0
        self.halvings = 0
        self._before = 0

    def of(self, bound: int) -> int:
        """The part of a bound that fits; at least 1."""
        return max(1, int(bound * self.share))

    def begin(self) -> None:
        """Called at the start of a measurement."""
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
        """Call `work` on rows, in order, in parts that cost at most the bound's share, or one row.

        costs: per row, in the bound's unit. what: the rows' name in messages. `work` must be
        repeatable after it raises: it is called again with fewer of the rows. Yields each part with
        its result. Raises OutOfMemory if a single row does not fit, and what else `work` raises.
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
            # Only here, outside the handler, nothing refers to the work's tensors any more.
            if full is None:
                yield part, found
                del found
                begin = end
            else:
                self._halve(*full)

    def whole(self, what: str, work: Callable[[], Found]) -> Found:
        """Call work that cannot be divided; OutOfMemory if it does not fit."""
        ((_, found),) = self.parts([None], [1], 1, what, lambda _: work())
        return found

    @contextlib.contextmanager
    def trying(self, bound: int, used: int, rows: int, what: str) -> Iterator[None]:
        """Context for a piece of work inside `parts` whose size depends on the share of its bound.

        used: its size in the bound's unit; rows: their number; what: their name in messages.
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
        # Halve what was tried: halving a bound far above it many times would have no effect.
        self.share = min(self.share, used / bound) / 2


def ran_out(error: BaseException) -> bool:
    """Whether the error means that a device, or the machine, is out of memory."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(sign in str(error) for sign in SIGNS)
    )


def give_back() -> None:
    """Return the unused memory that allocators keep to the devices."""
    gc.collect()  # a traceback in a cycle keeps its frames' tensors
    torch.cuda.empty_cache()  # on every GPU in use; does nothing without one
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()
