"""Turns: a queue, first come, first served, for processes that share the memory of a device.

Every process that wants memory of an accelerator has a ticket: a number, a lock that it holds as
long as it lives, and a note of what it wants. A ticket either waits or holds memory. If a process
dies, the system frees its lock, and the next process that reads the queue removes its ticket. The
queue is read and changed under one lock, held for some milliseconds.

    <folder>/turns.lock  next  <number>.lock  <number>.json

To avoid deadlocks, no process waits while it holds memory (see Turns.take), and one ticket asks for
all the devices it needs at once.
"""

import contextlib
import getpass
import json
import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Self

from tinyablation.errors import LoadingError, TooLarge
from tinyablation.models.devices import SPARE, Memory, gigabytes, identity_of, memory_of

if TYPE_CHECKING:
    from filelock import FileLock

# Polling interval of a waiting process, in seconds: a poll takes milliseconds, a turn minutes.
POLL_SECONDS = 0.5
# How long to wait for memory that no ticket accounts for: the memory of a killed process is free
# within seconds, that of other users' programs perhaps never.
PATIENCE_SECONDS = 60.0

_LOCK = "turns.lock"
_NEXT = "next"


@dataclass(frozen=True)
class Ticket:
    """The memory a process wants or holds, in bytes by device identity, and its owner's name."""

    number: int
    holding: bool
    bytes: Mapping[str, int]
    owner: str
    purpose: str
    pid: int

    def about(self, device: str) -> str:
        """How much of one device the owner holds or waits for, as text."""
        verb = "holds" if self.holding else "waits for"
        return f"{self.owner} {verb} {gigabytes(self.bytes[device])} for {self.purpose}"


class Obstacle(NamedTuple):
    """Why a ticket has to wait: a line for the user, and the tickets ahead of it."""

    text: str
    tickets: frozenset[tuple[int, bool]]  # number, and whether it holds


class Turn:
    """Memory that this process may use until `release`; also a context manager."""

    def __init__(self, turns: "Turns", number: int, lock: "FileLock", bytes_: Mapping[str, int]):
        self.bytes = dict(bytes_)
        self._turns = turns
        self._number = number
        self._lock = lock

    def release(self) -> None:
        """Give the device up, after the caller has freed its memory. A second call does nothing."""
        if self._lock.is_locked:
            self._turns._drop(self._number, self._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()


class Turns:
    """The turns that one user's processes take on the devices of one machine.

    folder: where all of them keep their tickets; None: a folder of this user in the system's
    temporary directory. say: called with a line of text on what this process waits for. identity:
    maps a device to its machine-wide name.
    """

    def __init__(
        self,
        folder: Path | None = None,
        say: Callable[[str], None] = print,
        *,
        memory: Callable[[str], Memory] = memory_of,
        identity: Callable[[str], str] = identity_of,
    ) -> None:
        self.folder = default_folder() if folder is None else folder
        self.say = say
        self.memory = memory
        self.identity = identity

    def capacity(self, device: str) -> Memory:
        """The memory of a device that would be available without any turns: for placement."""
        with self._looking() as tickets:
            return _without(self._held(tickets, self.identity(device)), self.memory(device))

    def take(
        self,
        needed: Mapping[str, int],
        *,
        owner: str,
        purpose: str,
        yield_device: Callable[[], None] | None = None,
    ) -> Turn:
        """Wait until the needed bytes of all these devices are free, and reserve them.

        needed: bytes by device ("cuda:0"), all reserved at once; an empty mapping returns at once.
        owner, purpose: who takes it for what ("gw1", "mistral-7b"), for other processes' messages.
        yield_device: called once, before the first wait; it must free everything this process
        holds on these devices, models and turns, because a process that waits while it holds memory
        can deadlock. Without it, the caller must hold nothing.

        First come, first served: no ticket overtakes an earlier one that wants one of the same
        devices, so small models cannot starve a large one.

        Raises TooLarge if even an idle device would be too small, and if only other programs have
        been in the way for PATIENCE_SECONDS.
        """
        if not needed:
            return Turn(self, 0, self._lock("0.lock"), {})
        keys = {self.identity(device): device for device in needed}
        wanted = {key: needed[device] for key, device in keys.items()}
        for device in needed:
            total = self.memory(device).total
            if needed[device] > total - int(total * SPARE):
                raise TooLarge(
                    f"{purpose} needs {gigabytes(needed[device])} of {device}, which has "
                    f"{gigabytes(total)} in all; try --dtype bfloat16, --device cpu or a smaller "
                    "model"
                )
        number, lock = self._draw(wanted, owner, purpose)
        began = time.monotonic()
        alone_since: float | None = None
        said: Obstacle | None = None
        try:
            while (obstacle := self._try(number, keys)) is not None:
                if yield_device is not None:
                    yield_device()
                    yield_device = None
                    continue  # that may have freed enough
                # Once per change of tickets: the figures of other programs change all the time.
                if said is None or obstacle.tickets != said.tickets:
                    self.say(obstacle.text)
                    said = obstacle
                now = time.monotonic()
                alone_since = None if obstacle.tickets else alone_since or now
                if alone_since is not None and now - alone_since > PATIENCE_SECONDS:
                    raise TooLarge(
                        f"{purpose} does not fit: {obstacle.text}, and still do after "
                        f"{PATIENCE_SECONDS:.0f} s; end them, or try --device cpu"
                    )
                time.sleep(POLL_SECONDS)
        except BaseException:
            self._drop(number, lock)
            raise
        if said is not None:
            amounts = " and ".join(f"{gigabytes(needed[one])} on {one}" for one in needed)
            self.say(f"took {amounts} for {purpose} after {time.monotonic() - began:.0f} s")
        return Turn(self, number, lock, needed)

    # --- tickets ---------------------------------------------------------------------------------

    def _draw(self, wanted: Mapping[str, int], owner: str, purpose: str) -> tuple[int, "FileLock"]:
        with self._looking():
            counter = self.folder / _NEXT
            try:
                number = int(counter.read_text())
            except (OSError, ValueError):  # the first ticket ever, or the disk was full
                number = 1
            while (self.folder / f"{number}.json").exists():
                number += 1
            lock = self._lock(f"{number}.lock")
            lock.acquire(blocking=False)
            try:
                self._replace(counter, str(number + 1))
                self._write(Ticket(number, False, wanted, owner, purpose, os.getpid()))
            except BaseException:
                lock.release()
                raise
        return number, lock

    def _try(self, number: int, keys: Mapping[str, str]) -> Obstacle | None:
        """Make the ticket a holding one if it is its turn (None), else return the obstacle."""
        with self._looking() as tickets:
            own = tickets[number]
            lines: list[str] = []
            before: set[tuple[int, bool]] = set()
            for key, device in keys.items():
                mine = own.bytes[key]
                memory, held = self.memory(device), self._held(tickets, key)
                free_of_us = _without(held, memory)
                rivals = [one for one in tickets.values() if key in one.bytes]
                holders = [one for one in rivals if one.holding]
                ahead = [one for one in rivals if not one.holding and one.number < number]
                if mine <= free_of_us.room - held and not ahead:
                    continue
                standing = [*(one.about(key) for one in holders)]
                standing += [f"{one.about(key)} and came first" for one in ahead]
                if mine > free_of_us.room:
                    taken = gigabytes(memory.total - free_of_us.free)
                    standing.append(f"other programs hold {taken} of {gigabytes(memory.total)}")
                before |= {(one.number, one.holding) for one in (*holders, *ahead)}
                lines.append(f"waiting for {gigabytes(mine)} on {device}: {', '.join(standing)}")
            if not lines:
                self._write(replace(own, holding=True))
                return None
        return Obstacle("; ".join(lines), frozenset(before))

    def _drop(self, number: int, lock: "FileLock") -> None:
        with self._looking():
            self._remove(number)
            lock.release()
            with contextlib.suppress(OSError):
                (self.folder / f"{number}.lock").unlink()

    @contextlib.contextmanager
    def _looking(self) -> Iterator[dict[int, Ticket]]:
        """Lock the folder and yield the tickets of living processes, by number."""
        _make_private(self.folder)
        with self._lock(_LOCK):
            found: dict[int, Ticket] = {}
            for path in self.folder.glob("*.lock"):
                if not path.stem.isdigit():
                    continue
                number = int(path.stem)
                if self._is_alive(path):
                    ticket = self._read(number)
                    if ticket is not None:
                        found[number] = ticket
                else:
                    self._remove(number)
                    with contextlib.suppress(OSError):
                        path.unlink()
            yield dict(sorted(found.items()))

    def _is_alive(self, path: Path) -> bool:
        from filelock import Timeout

        lock = self._lock(path.name)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            return True
        lock.release()
        return False

    def _lock(self, name: str) -> "FileLock":
        from filelock import FileLock

        # Held by the process, not the thread: a fixture may be torn down in another thread.
        return FileLock(self.folder / name, thread_local=False)

    def _read(self, number: int) -> Ticket | None:
        try:
            return Ticket(**json.loads((self.folder / f"{number}.json").read_text()))
        except (OSError, ValueError, TypeError):
            return None  # another version's ticket: its memory counts as another program's

    def _write(self, ticket: Ticket) -> None:
        self._replace(self.folder / f"{ticket.number}.json", json.dumps(asdict(ticket)))

    def _replace(self, path: Path, text: str) -> None:
        # Not synced: tickets do not outlive the machine's processes.
        temporary = path.with_name(f"{path.name}.tmp")
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)

    def _remove(self, number: int) -> None:
        (self.folder / f"{number}.json").unlink(missing_ok=True)

    @staticmethod
    def _held(tickets: Mapping[int, Ticket], key: str) -> int:
        return sum(one.bytes.get(key, 0) for one in tickets.values() if one.holding)


def _without(held: int, memory: Memory) -> Memory:
    """The memory that would be free without any turns: total, less what other programs use.

    Other programs' use is the used memory beyond what is held. While a holder is still loading, its
    unused reservation may hide some of it.
    """
    used = memory.total - memory.free
    return Memory(memory.total - max(0, used - held), memory.total)


def default_folder() -> Path:
    """The folder of this user's tickets on this machine."""
    user = os.getuid() if hasattr(os, "getuid") else getpass.getuser()
    return Path(tempfile.gettempdir()) / f"tinyablation-turns-{user}"


def _make_private(folder: Path) -> None:
    """Create the folder for this user only; LoadingError if another user owns it."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if hasattr(os, "getuid") and (found.st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode)):
        raise LoadingError(
            f"{folder}: does not belong to this user, so turns cannot be taken there; remove it "
            "or set TMPDIR to another folder"
        )
