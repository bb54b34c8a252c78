"""Locks between processes; the system frees a lock when its holder dies in any way.

<root>/.locks/<run>.lock           to verify a run and write its tables, or to make a document
<root>/.locks/<run>.notes.lock     held for milliseconds, to begin a folder or write its summary
<root>/.locks/<run>.<shard>.lock   the claim on one shard, held while it is computed

They work between machines if the store's file system supports flock between machines (NFS 4, Lustre
mounted with `flock`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tinyablation.errors import RunError
from tinyablation.files.manifests import writing

if TYPE_CHECKING:
    from filelock import FileLock

LOCKS = ".locks"


@dataclass(frozen=True)
class RunLocks:
    """The locks of one run in the store at `root`.

    timeout: seconds to wait for another process; -1: no limit. before_waiting: called each time
    before this process starts to wait for another one that works on the same run.
    """

    root: Path
    run: str
    timeout: float = -1
    before_waiting: Callable[[], None] | None = field(default=None, compare=False, repr=False)

    @contextlib.contextmanager
    def whole(self) -> Iterator[None]:
        """Hold the lock of the whole run, waiting if necessary; RunError after the timeout."""
        from filelock import Timeout

        lock = self._lock(f"{self.run}.lock")
        try:
            try:
                _acquire(lock, 0)
            except Timeout:
                self.yield_device()
                _acquire(lock, self.timeout)
        except Timeout as error:
            raise self.refusal(Path(lock.lock_file)) from error
        try:
            yield
        finally:
            lock.release()

    @contextlib.contextmanager
    def whole_if_free(self) -> Iterator[bool]:
        """Hold the lock of the whole run if it is free; yields whether it is held."""
        with self._attempt(f"{self.run}.lock") as held:
            yield held

    @contextlib.contextmanager
    def claim(self, shard: str) -> Iterator[bool]:
        """Claim a shard if it is free; yields whether it is claimed. Never waits."""
        with self._attempt(f"{self.run}.{shard}.lock") as held:
            yield held

    @contextlib.contextmanager
    def notes(self) -> Iterator[None]:
        """Hold the lock for the notes about the run; other processes hold it for milliseconds."""
        lock = self._lock(f"{self.run}.notes.lock")
        _acquire(lock, -1)
        try:
            yield
        finally:
            lock.release()

    def yield_device(self) -> None:
        """Release what other processes may need, before waiting for one of them."""
        if self.before_waiting is not None:
            self.before_waiting()

    def claim_path(self, shard: str) -> Path:
        return self.root / LOCKS / f"{self.run}.{shard}.lock"

    def refusal(self, path: Path) -> RunError:
        """The error to raise if a lock cannot be acquired in time."""
        return RunError(
            f"{path}: held by another process for over {self.timeout} s. Wait for it, or "
            "end it; the run then continues where it stopped."
        )

    def forget_claims(self, shards: Iterable[str]) -> None:
        """Remove the claim files of a complete run; processes still polling find it complete."""
        for shard in shards:
            with contextlib.suppress(OSError):
                self.claim_path(shard).unlink(missing_ok=True)

    @contextlib.contextmanager
    def _attempt(self, name: str) -> Iterator[bool]:
        from filelock import Timeout

        lock = self._lock(name)
        try:
            _acquire(lock, 0)
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    def _lock(self, name: str) -> FileLock:
        from filelock import FileLock

        path = self.root / LOCKS / name
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(path)


def _acquire(lock: FileLock, timeout: float) -> None:
    with writing(Path(lock.lock_file)):
        lock.acquire(timeout=timeout)
