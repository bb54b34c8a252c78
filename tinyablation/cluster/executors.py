"""Executors by URL: where jobs run. Each one is a concurrent.futures.Executor.

    local                                   in this process: no executor at all
    dask://host:8786                        a dask.distributed scheduler, and its workers
    slurm://partition?time=60&gpus=1        Slurm, through submitit; options below
    submitit-local://?jobs=2                processes of this machine, through submitit: a rehearsal

For a job that died with its worker they raise Lost, with worker and reason.
"""

import contextlib
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Executor, Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tinyablation.errors import TinyAblationError
from tinyablation.spelling import nearest

LOCAL = "local"
# Seconds: within which a scheduler on the local network answers; between polls of submitted jobs;
# and between queries of Slurm. By itself submitit asks less and less often, finally every ten
# minutes, so the loss of a node would go unnoticed for that long.
CONNECT_SECONDS = 10
POLL_SECONDS = 0.5
ASK_SECONDS = 60
CANCEL_SECONDS = 10  # to wait for cancelled jobs to end; local ones take a second


class ExecutorError(TinyAblationError):
    """An executor cannot be used; the message says what to do."""


class UnknownExecutor(ExecutorError):
    """A URL names no executor, or has an unknown option."""


class NotInstalled(ExecutorError):
    """The package behind an executor is not installed here."""


class Unreachable(ExecutorError):
    """No scheduler answers."""


class Lost(Exception):
    """A job died with its worker. final: it must not be retried."""

    def __init__(self, worker: str, reason: str, *, final: bool = False) -> None:
        super().__init__(reason)
        self.worker = worker
        self.reason = reason
        self.final = final


@dataclass(frozen=True)
class Options:
    """How many shards one job computes, and how many jobs are submitted at a time (0: all).

    The other options are passed to submitit: minutes, GB of memory, GPUs and cores per job, and
    Slurm's accounting.
    """

    shards: int = 1
    jobs: int = 0
    time: int = 60
    mem_gb: int = 0
    gpus: int = 0
    cpus: int = 0
    account: str = ""
    qos: str = ""
    constraint: str = ""


# A submitit job loads the model each time, so it gets a few shards; a dask worker keeps it loaded.
_KNOWN: Mapping[str, Mapping[str, int | str]] = {
    LOCAL: {},
    "dask": {"shards": 1},
    "slurm": {
        **{"shards": 4, "jobs": 0, "time": 60, "mem_gb": 0, "gpus": 0, "cpus": 0},
        **{"account": "", "qos": "", "constraint": ""},
    },
    "submitit-local": {"shards": 4, "jobs": 2, "time": 60},
}


@dataclass(frozen=True)
class Address:
    """A parsed executor URL. place: host:port of a scheduler, or a partition."""

    scheme: str
    place: str = ""
    options: Options = Options()

    @property
    def is_local(self) -> bool:
        return self.scheme == LOCAL


def parse(url: str) -> Address:
    """Parse a URL; UnknownExecutor says what is wrong and suggests the nearest known word."""
    scheme = url.split("://", 1)[0]
    if scheme not in _KNOWN:
        raise UnknownExecutor(
            f"executor {url!r}: {_unknown(scheme, _KNOWN)}; give local, "
            "dask://HOST:PORT, slurm://PARTITION or submitit-local://"
        )
    if scheme == LOCAL:
        if url != LOCAL:
            raise UnknownExecutor(f"executor {url!r}: local takes no options; give local")
        return Address(LOCAL)
    parts = urlsplit(url)
    place = parts.netloc
    if parts.path.strip("/") or parts.fragment or parts.username or "://" not in url:
        raise UnknownExecutor(
            f"executor {url!r}: give {scheme}://{place or 'PLACE'}?OPTION=VALUE&..., no more"
        )
    if scheme == "dask" and not re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[\w.-]+):\d{1,5}", place):
        raise UnknownExecutor(
            f"executor {url!r}: give the scheduler's host and port, dask://HOST:8786"
        )
    if scheme == "slurm" and not re.fullmatch(r"[\w.,-]+", place):
        raise UnknownExecutor(f"executor {url!r}: give the partition, slurm://PARTITION")
    if scheme == "submitit-local" and place:
        raise UnknownExecutor(
            f"executor {url!r}: it runs on this machine and takes no host; give submitit-local://"
        )
    known = _KNOWN[scheme]
    given = dict(known)
    for key, value in parse_qsl(parts.query, keep_blank_values=True):
        if key not in known:
            raise UnknownExecutor(
                f"executor {url!r}: {_unknown(key, known)}; {scheme}:// takes {', '.join(known)}"
            )
        given[key] = _value(url, key, value, known[key])
    return Address(scheme, place, Options(**given))  # type: ignore[arg-type]


def _value(url: str, key: str, value: str, default: int | str) -> int | str:
    if isinstance(default, str):
        if not re.fullmatch(r"[\w.,&|*:-]+", value):
            raise UnknownExecutor(f"executor {url!r}: {key}={value!r} is not a name")
        return value
    least = 1 if key in ("shards", "time") else 0
    if not value.isdecimal() or int(value) < least:
        raise UnknownExecutor(
            f"executor {url!r}: {key}={value!r}; give a whole number from {least}"
        )
    return int(value)


def _unknown(word: str, known: Mapping[str, Any]) -> str:
    close = nearest(word, known)  # callers append the list of known words
    return f"{word!r} is unknown" + (f"; did you mean {close!r}?" if close else "")


@contextlib.contextmanager
def opened(address: Address, logs: Path) -> Iterator[Executor]:
    """Open the executor at an address that is not local; its jobs end with the block.

    logs: a folder visible to all machines, for the files of submitit and its jobs. Raises
    NotInstalled if the package is missing, and Unreachable if no scheduler answers.
    """
    if address.scheme == "dask":
        with _dask(address) as executor:
            yield executor
        return
    inner = _submitit(address, logs)
    executor = SubmittedJobs(inner, address.options.jobs)
    try:
        yield executor
    finally:
        executor.shutdown(wait=False, cancel_futures=True)


def _not_installed(package: str, error: ImportError) -> NotInstalled:
    return NotInstalled(
        f"{package} is not installed here ({error}): pip install -c constraints.txt "
        "-e '.[cluster]', on the workers too"
    )


# --- dask.distributed ----------------------------------------------------------------------------


@contextlib.contextmanager
def _dask(address: Address) -> Iterator[Executor]:
    try:
        from distributed import Client
    except ImportError as error:
        raise _not_installed("dask.distributed", error) from error
    try:
        client = Client(f"tcp://{address.place}", timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise Unreachable(
            f"no dask scheduler answers at {address.place} ({error}): start one with `dask "
            "scheduler`, workers with `dask worker HOST:PORT --nthreads 1`, and give its address"
        ) from error
    try:
        executor = client.get_executor(pure=False)
        yield DaskJobs(executor, client)
        executor.shutdown(wait=False)
    finally:
        client.close()


class DaskJobs(Executor):
    """Jobs of a dask scheduler, which itself reruns a job whose worker died.

    It gives up after `distributed.scheduler.allowed-failures` (default 3) more workers died.
    """

    def __init__(self, executor: Executor, client: Any) -> None:
        self._executor = executor
        self._client = client

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        if self._client.status != "running":
            raise Unreachable(
                f"the dask scheduler at {self._client.scheduler.address} is gone; start it again, "
                "and run this again: what was measured is kept"
            )
        outer: Future[Any] = Future()
        inner = self._executor.submit(fn, *args, **kwargs)

        def hand_on(done: Future[Any]) -> None:
            if not outer.set_running_or_notify_cancel():
                return
            try:
                outer.set_result(done.result())
            except CancelledError:
                outer.set_exception(Lost("", "the scheduler dropped the job"))
            except Exception as error:
                outer.set_exception(self._lost(error))

        inner.add_done_callback(hand_on)
        outer.add_done_callback(lambda mine: inner.cancel() if mine.cancelled() else None)
        return outer

    @staticmethod
    def _lost(error: Exception) -> Lost:
        if type(error).__name__ == "KilledWorker":
            last: Any = getattr(error, "last_worker", None)
            tried = int(getattr(error, "allowed_failures", 0)) + 1
            address = str(getattr(last, "address", last))
            return Lost(address, f"it died with {tried} workers, one after another", final=True)
        return Lost("", f"{type(error).__name__}: {error}")


# --- submitit ------------------------------------------------------------------------------------


def _submitit(address: Address, logs: Path) -> Any:
    try:
        import submitit
    except ImportError as error:
        raise _not_installed("submitit", error) from error
    options = address.options
    logs.mkdir(parents=True, exist_ok=True)
    if address.scheme == "submitit-local":
        local = submitit.LocalExecutor(folder=logs)
        local.update_parameters(timeout_min=options.time)
        return local
    try:
        slurm = submitit.SlurmExecutor(folder=logs)
    except RuntimeError as error:
        raise Unreachable(
            f"there is no Slurm here ({error}): run this where sbatch and srun are, as on a login "
            "node, or give another executor"
        ) from error
    wanted = {
        "mem": f"{options.mem_gb}GB" if options.mem_gb else None,
        "gpus_per_node": options.gpus or None,
        "cpus_per_task": options.cpus or None,
        "account": options.account or None,
        "qos": options.qos or None,
        "constraint": options.constraint or None,
    }
    slurm.update_parameters(
        job_name="tinyablation",
        partition=address.place,
        time=options.time,
        **{key: value for key, value in wanted.items() if value is not None},
    )
    return slurm


@dataclass
class _Waiting:
    """A call that has not been submitted yet."""

    future: Future[Any]
    call: tuple[Callable[..., Any], tuple[Any, ...]]


@dataclass
class SubmittedJobs(Executor):
    """Jobs of a submitit executor as futures; a thread polls for their results.

    most: the largest number submitted at a time; 0: all.
    """

    inner: Any
    most: int = 0
    _waiting: deque[_Waiting] = field(default_factory=deque)
    _running: dict[Future[Any], Any] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _watcher: threading.Thread | None = None
    _closed: bool = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        if kwargs or self._closed:
            raise ExecutorError("jobs need an open executor and positional arguments only")
        waiting = _Waiting(Future(), (fn, args))
        with self._lock:
            self._waiting.append(waiting)
            if self._watcher is None or not self._watcher.is_alive():
                self._watcher = threading.Thread(target=self._watch, daemon=True)
                self._watcher.start()
        return waiting.future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Cancel waiting jobs, with cancel_futures also running ones; then wait, if asked to."""
        self._closed = self._closed or cancel_futures
        if cancel_futures:
            with self._lock:
                for waiting in self._waiting:
                    waiting.future.cancel()
                self._waiting.clear()
                cancelled = list(self._running.values())
            self._cancel(cancelled)
        watcher = self._watcher
        if wait and watcher is not None:
            watcher.join()

    @staticmethod
    def _cancel(jobs: Sequence[Any]) -> None:
        """Cancel jobs, and make sure that those on this machine end."""
        for job in jobs:
            with contextlib.suppress(Exception):  # it may have ended by now
                job.cancel(check=False)
        deadline = time.monotonic() + CANCEL_SECONDS
        for job in jobs:
            while not job.done(force_check=False) and time.monotonic() < deadline:
                time.sleep(0.05)

    def _watch(self) -> None:
        asked = time.monotonic()
        while True:
            with self._lock:
                self._submit_waiting()
                running = dict(self._running)
                if not running and not self._waiting:
                    self._watcher = None
                    return
                if self._closed:
                    return
            asking = time.monotonic() - asked > ASK_SECONDS
            for future, job in running.items():
                if job.done(force_check=asking):
                    self._settle(future, job)
            if asking:
                asked = time.monotonic()
            time.sleep(POLL_SECONDS)

    def _submit_waiting(self) -> None:
        while self._waiting and (not self.most or len(self._running) < self.most):
            waiting = self._waiting.popleft()
            if not waiting.future.set_running_or_notify_cancel():
                continue
            function, arguments = waiting.call
            try:
                self._running[waiting.future] = self.inner.submit(function, *arguments)
            except Exception as error:
                waiting.future.set_exception(Lost("", f"it could not be submitted: {error}"))

    def _settle(self, future: Future[Any], job: Any) -> None:
        try:
            future.set_result(job.result())
        except Exception as error:
            text = " ".join(str(error).split())
            future.set_exception(Lost(f"job {job.job_id}", text[-1500:]))
        with self._lock:
            del self._running[future]
