"""Jobs that run as processes of their own: Slurm's, or this machine's.

A job gets its message within the batch script, which lies where only Slurm and its user write, and
answers with a receipt, a file of text. Nobody loads a pickle; whoever can write to the store can at
most forge a receipt, which is parsed and believed in nothing that the store itself can tell.
"""

import contextlib
import io
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from tinyablation.characters import printable
from tinyablation.cluster.executors import ExecutorError, Lost, Options, Unreachable
from tinyablation.cluster.messages import MOST_BYTES
from tinyablation.cluster.worker import STORES
from tinyablation.files.contents import open_regular, read_text

WORKER = ("-m", "tinyablation.cluster.one_job")
FOLDER = ".jobs"  # in the store, for receipts and what jobs print
# Seconds: between looks for receipts, between questions to Slurm, and for one of its commands.
POLL_SECONDS = 0.5
ASK_SECONDS = 60
COMMAND_SECONDS = 60
# How long a receipt may take to become visible after the end of its job: NFS caches folders for up
# to 60 s.
RECEIPT_SECONDS = 60
CANCEL_SECONDS = 10  # to wait for cancelled processes before they are killed
# Slurm's states of a job that will not run again.
FINAL = {
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY"),
    *("PREEMPTED", "REVOKED", "TIMEOUT"),
}


class Call(NamedTuple):
    """What a job runs. words: its command line; message: its standard input; log: its output."""

    words: Sequence[str]
    message: str
    environment: Mapping[str, str]
    log: Path


class Queue(Protocol):
    """Where jobs run. Seconds: between questions, and after the end until a receipt is missed."""

    @property
    def ask_seconds(self) -> float: ...

    @property
    def receipt_seconds(self) -> float: ...

    def submit(self, call: Call) -> str:
        """Submit a job; its id. Raises ExecutorError if it is not accepted."""

    def ended(self, ids: Collection[str]) -> dict[str, str]:
        """Those of the jobs that are known to have ended, and how."""

    def cancel(self, ids: Collection[str]) -> None:
        """End jobs."""


class Slurm:
    """Jobs of Slurm, by its commands. Raises Unreachable where they are not installed."""

    def __init__(self, partition: str, options: Options) -> None:
        missing = [name for name in ("sbatch", "squeue", "scancel") if shutil.which(name) is None]
        if missing:
            raise Unreachable(
                f"there is no Slurm here (no {', '.join(missing)}): run this where its commands "
                "are, as on a login node, or give another executor"
            )
        wanted = {
            "mem": f"{options.mem_gb}GB" if options.mem_gb else None,
            "gpus-per-node": options.gpus or None,
            "cpus-per-task": options.cpus or None,
            "account": options.account or None,
            "qos": options.qos or None,
            "constraint": options.constraint or None,
        }
        # A job that was lost is submitted again by the session, which counts how often.
        self._options = [
            *("--parsable", "--no-requeue", "--job-name=tinyablation", "--nodes=1", "--ntasks=1"),
            *(f"--partition={partition}", f"--time={options.time}"),
            *(f"--{name}={value}" for name, value in wanted.items() if value is not None),
        ]

    @property
    def ask_seconds(self) -> float:
        return ASK_SECONDS

    @property
    def receipt_seconds(self) -> float:
        return RECEIPT_SECONDS

    def submit(self, call: Call) -> str:
        end = "END-OF-MESSAGE"
        exported = [f"export {name}={shlex.quote(it)}" for name, it in call.environment.items()]
        command = f"exec {shlex.join(call.words)} <<'{end}'"
        script = "\n".join(["#!/bin/sh", *exported, command, call.message, end, ""])
        log = str(call.log).replace("%", "%%")  # which stands for what Slurm knows of the job
        done = _ran("sbatch", *self._options, f"--output={log}", said=script)
        number = done.stdout.strip().split(";")[0]  # followed by the name of the cluster
        if done.returncode or not number.isdecimal():
            raise ExecutorError(f"sbatch: {_last(done.stderr or done.stdout)}")
        return number

    def ended(self, ids: Collection[str]) -> dict[str, str]:
        asked = ("--noheader", f"--user={os.getuid()}", "--states=all", "--format=%i|%T")
        try:
            done = _ran("squeue", *asked)
        except ExecutorError:
            return {}
        if done.returncode:
            return {}  # a controller that does not answer knows of no end
        states = dict(
            line.strip().split("|", 1) for line in done.stdout.splitlines() if "|" in line
        )
        found = {each: states.get(each, "it is in no queue any more") for each in ids}
        return {each: end for each, end in found.items() if each not in states or end in FINAL}

    def cancel(self, ids: Collection[str]) -> None:
        with contextlib.suppress(ExecutorError):
            _ran("scancel", *ids)


def _ran(*command: str, said: str = "") -> "subprocess.CompletedProcess[str]":
    # Variables of the user's could change what squeue lists, and how.
    environment = {name: it for name, it in os.environ.items() if not name.startswith("SQUEUE_")}
    try:
        return subprocess.run(
            command,
            input=said,
            capture_output=True,
            text=True,
            errors="replace",
            env=environment,
            timeout=COMMAND_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ExecutorError(f"{command[0]}: {error}") from error


def _last(text: str) -> str:
    return next((printable(line) for line in reversed(text.splitlines()) if line.strip()), "")


@dataclass
class Processes:
    """Jobs as processes of this machine, each of so many seconds at most."""

    seconds: float
    _begun: dict[str, tuple["subprocess.Popen[bytes]", float]] = field(default_factory=dict)
    ask_seconds: float = 0.0
    receipt_seconds: float = 0.0  # it is there when the process ends, or never

    def submit(self, call: Call) -> str:
        try:
            with tempfile.TemporaryFile() as message, call.log.open("xb") as log:
                message.write(call.message.encode())
                message.seek(0)
                process = subprocess.Popen(
                    call.words,
                    stdin=message,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **call.environment},
                    start_new_session=True,  # ctrl-c is for the session, which ends its jobs
                )
        except OSError as error:
            raise ExecutorError(str(error)) from error
        self._begun[str(process.pid)] = (process, time.monotonic())
        return str(process.pid)

    def ended(self, ids: Collection[str]) -> dict[str, str]:
        found = {}
        for each in ids:
            process, began = self._begun[each]
            if process.poll() is None and time.monotonic() - began > self.seconds:
                self.cancel([each])
                found[each] = f"it ran for more than {self.seconds / 60:.0f} minutes"
            elif (status := process.poll()) is not None:
                found[each] = _how(status)
                del self._begun[each]
        return found

    def cancel(self, ids: Collection[str]) -> None:
        processes = [self._begun.pop(each)[0] for each in ids if each in self._begun]
        for process in processes:
            process.terminate()
        deadline = time.monotonic() + CANCEL_SECONDS
        for process in processes:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _how(status: int) -> str:
    if status >= 0:
        return f"it ended with status {status}"
    with contextlib.suppress(ValueError):
        return f"it was ended by {signal.Signals(-status).name}"
    return f"it was ended by signal {-status}"


# --- jobs as futures -----------------------------------------------------------------------------


@dataclass
class _Waiting:
    """A call that has not been submitted yet."""

    future: "Future[str]"
    function: str
    message: str


@dataclass
class _Running:
    """A submitted job. missed: since when it has ended without a receipt that can be seen."""

    id: str
    receipt: Path
    log: Path
    end: str = ""
    missed: float | None = None


@dataclass
class BatchJobs(Executor):
    """Jobs of a queue as futures; a thread looks for their receipts.

    store: the one folder that they may write to, unless TINYABLATION_STORES says others. most: the
    largest number submitted at a time; 0: all.
    """

    queue: Queue
    store: Path
    most: int = 0
    _waiting: deque[_Waiting] = field(default_factory=deque)
    _running: dict["Future[str]", _Running] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _watcher: threading.Thread | None = None
    _closed: bool = False
    _number: int = 0

    def __post_init__(self) -> None:
        above = self.store / FOLDER
        above.mkdir(parents=True, exist_ok=True)
        # A folder of this session, in which only its user writes.
        prefix = time.strftime("%Y%m%d-%H%M%S-", time.gmtime())
        self.folder = Path(tempfile.mkdtemp(prefix=prefix, dir=above)).resolve()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        """Submit a function of a module with its message, one line of text."""
        if kwargs or len(args) != 1 or not isinstance(args[0], str) or "\n" in args[0]:
            raise ExecutorError("a job is a function of a module and one line of text")
        if self._closed:
            raise ExecutorError("jobs need an open executor")
        waiting = _Waiting(Future(), f"{fn.__module__}:{fn.__qualname__}", args[0])
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
                cancelled = [job.id for job in self._running.values()]
            if cancelled:
                self.queue.cancel(cancelled)
        watcher = self._watcher
        if wait and watcher is not None:
            watcher.join()

    def _watch(self) -> None:
        asked = time.monotonic()
        while True:
            with self._lock:
                if self._closed:
                    return
                self._submit_waiting()
                running = dict(self._running)
                if not running and not self._waiting:
                    self._watcher = None
                    return
                if time.monotonic() - asked >= self.queue.ask_seconds:
                    self._ask([job for job in running.values() if not job.end])
                    asked = time.monotonic()
            for future, job in running.items():
                self._look(future, job)
            time.sleep(POLL_SECONDS)

    def _submit_waiting(self) -> None:
        while self._waiting and (not self.most or len(self._running) < self.most):
            waiting = self._waiting.popleft()
            if not waiting.future.set_running_or_notify_cancel():
                continue
            self._number += 1
            receipt = self.folder / f"{self._number}.json"
            log = receipt.with_suffix(".log")
            call = Call(
                (sys.executable, *WORKER, waiting.function, str(receipt)),
                waiting.message,
                {STORES: os.environ.get(STORES) or str(self.store.resolve())},
                log,
            )
            try:
                job = _Running(self.queue.submit(call), receipt, log)
            except ExecutorError as error:
                waiting.future.set_exception(Lost("", f"it could not be submitted: {error}"))
            else:
                self._running[waiting.future] = job

    def _ask(self, jobs: Sequence[_Running]) -> None:
        ended = self.queue.ended([job.id for job in jobs])
        for job in jobs:
            if job.id in ended:
                job.end, job.missed = ended[job.id], time.monotonic()

    def _look(self, future: "Future[str]", job: _Running) -> None:
        """Settle a job whose receipt is there, or has been missed for long enough."""
        if not job.end and not self.queue.receipt_seconds:
            return
        try:
            future.set_result(read_text(job.receipt, MOST_BYTES))
        except FileNotFoundError:
            if job.missed is None or time.monotonic() - job.missed < self.queue.receipt_seconds:
                return
            future.set_exception(Lost(f"job {job.id}", f"{job.end}{_tail(job.log)}"))
        except (OSError, ValueError) as error:
            future.set_exception(Lost(f"job {job.id}", f"its receipt cannot be read: {error}"))
        with self._lock:
            del self._running[future]


def _tail(log: Path, most: int = 1500) -> str:
    """The end of what a job printed, in one line."""
    try:
        with open_regular(log) as stream:
            stream.seek(max(0, stream.seek(0, io.SEEK_END) - most))
            text = stream.read(most).decode(errors="replace")
    except OSError:
        return ""
    text = printable(re.sub(r"\s+", " ", text).strip())
    return f"; the end of its output: {text}" if text else ""
