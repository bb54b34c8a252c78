"""Sends missing measurements to an executor, and waits until they are in the store.

The session itself holds no model: it sends descriptions, gets receipts, and reads the store.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tinyablation.cluster.batch import BatchJobs, Processes, Slurm
from tinyablation.cluster.executors import Address, ExecutorError, Lost, NotInstalled
from tinyablation.cluster.messages import BenchFacts, Job, JobError, Receipt
from tinyablation.cluster.serialization import DescriptionError, describe
from tinyablation.cluster.worker import KINDS, kind_of_device, run_job
from tinyablation.runs.address import RunConfig

if TYPE_CHECKING:
    from tinyablation.measurement.interface import Measures

# How often a job that died with its worker is rerun, in addition to the scheduler's own retries.
RETRIES = 2
# How long a file written by a worker may take to become visible here: NFS caches folders for up to
# 60 s.
VISIBLE_SECONDS = 90.0


class JobLost(JobError):
    """A job died with its worker on every allowed attempt."""


@dataclass
class _Submitted:
    """A submitted job, and why earlier attempts were lost."""

    job: Job
    future: Future[str]
    lost: list[str] = field(default_factory=list)


@dataclass
class _Pending:
    """The submitted jobs of one run or reading."""

    whole: Job
    total: int
    sent: list[_Submitted]


@dataclass
class Dispatch:
    """Jobs of one session on one executor.

    shards: how many of them a job computes. call: the function that a worker applies to a job. say:
    called with a line of text on each job that was lost and is rerun.
    """

    executor: Executor
    shards: int = 1
    call: Callable[[str], str] = run_job
    progress: bool = False
    say: Callable[[str], None] = print
    _pending: dict[str, _Pending] = field(default_factory=dict)

    def device(self, wanted: str) -> str:
        """The device that a device name resolves to on a worker."""
        try:
            found = str(self.executor.submit(kind_of_device, wanted).result())
        except Lost as lost:
            raise ExecutorError(f"no worker said which device it has: {lost.reason}") from lost
        if found not in KINDS:
            raise ExecutorError(
                f"a worker has a device that is none of {', '.join(KINDS)}; give workers and "
                "session the same version of tinyablation"
            )
        return found

    def is_under_way(self, config: RunConfig) -> bool:
        """Whether it was begun and has not been waited for yet."""
        return config.name in self._pending

    def begin(
        self, bench: Measures, kind: Literal["run", "reading"], config: RunConfig, **parts: Any
    ) -> bool:
        """Submit the missing parts of a run or reading, unless it is under way; does not wait.

        parts: what and directions, and for a run the keys of its `missing` shards. Returns False,
        and submits nothing, if they cannot be described: it must then be measured here.
        """
        if self.is_under_way(config):
            return True
        missing: Sequence[str] = parts.pop("missing", ())
        try:
            described = {name: describe(part) for name, part in parts.items()}
        except DescriptionError as error:
            self.say(f"{config.name} is measured in this process: {error}")
            return False
        whole = Job(kind=kind, bench=BenchFacts.of(bench), config=config, **described)
        starts = range(0, len(missing), self.shards)
        parted = [tuple(missing[start : start + self.shards]) for start in starts] or [()]
        jobs = [whole.model_copy(update={"shards": keys}) for keys in parted]
        sent = [_Submitted(job, self._submit(job)) for job in jobs]
        self._pending[config.name] = _Pending(whole, len(missing) or 1, sent)
        return True

    def complete(self, bench: Measures, config: RunConfig) -> None:
        """Wait until the run or reading is complete in the store.

        A job that died with its worker is rerun at most RETRIES times; then JobLost names the
        shard, the worker and the reason. An error inside a job is raised unchanged, and jobs still
        waiting for a worker are cancelled. Raises ExecutorError if the workers use another store.
        """
        pending = self._pending[config.name]
        try:
            done = self._collect(pending)
            if not done and bench.store.status(config) != "complete":
                # A shard was lost after the others ended, or came from an interrupted run.
                pending.sent = [_Submitted(pending.whole, self._submit(pending.whole))]
                self._collect(pending)
        finally:
            for one in pending.sent:
                one.future.cancel()
            del self._pending[config.name]
        began = time.monotonic()
        while bench.store.status(config) != "complete":
            if time.monotonic() - began > VISIBLE_SECONDS:
                raise ExecutorError(
                    f"the workers completed {config.name}, but it is not in {bench.store.root}: "
                    "they must see this folder as this machine does, under the same path"
                )
            time.sleep(0.2)

    def _submit(self, job: Job) -> Future[str]:
        return self.executor.submit(self.call, job.model_dump_json())

    def _collect(self, pending: _Pending) -> bool:
        """Wait for all submitted jobs; returns whether one of them found everything complete."""
        from tqdm import tqdm

        complete = False
        name = pending.whole.config.name
        with tqdm(total=pending.total, desc=name, unit="shard", disable=not self.progress) as bar:
            left = list(pending.sent)
            while left:
                wait([one.future for one in left], return_when=FIRST_COMPLETED)
                for one in [one for one in left if one.future.done()]:
                    receipt = self._receipt(one)
                    if receipt is None:
                        continue
                    if receipt.error is not None:
                        raise receipt.error.rebuilt(one.job.about, receipt.worker)
                    left.remove(one)
                    complete = complete or receipt.complete
                    bar.set_postfix_str(receipt.worker, refresh=False)
                    bar.update(min(len(one.job.shards) or 1, pending.total - bar.n))
        return complete

    def _receipt(self, one: _Submitted) -> Receipt | None:
        """The receipt of a finished job; None if it was lost and is submitted again."""
        try:
            return Receipt.read(one.future.result())
        except Lost as lost:
            worker = lost.worker or "its worker"
            one.lost.append(f"{worker}: {lost.reason}")
            if lost.final or len(one.lost) > RETRIES:
                raise JobLost(
                    f"{one.job.about}: lost with {worker}, after {len(one.lost)} attempt(s): "
                    f"{'; '.join(one.lost)}. What other jobs measured is kept; give workers more "
                    "memory or time, and run this again"
                ) from lost
            self.say(f"{one.job.about}: lost with {worker} ({lost.reason[:200]}); it is rerun")
        one.future = self._submit(one.job)
        return None


@contextlib.contextmanager
def opened(address: Address, store: Path) -> Iterator[Executor]:
    """Open the executor at an address that is not local; its jobs end with the block.

    store: the folder of measurements, visible to all machines. Raises NotInstalled if the package
    is missing, Unreachable if no scheduler answers, and Unsafe if one would answer anybody.
    """
    if address.scheme == "dask":
        try:
            from tinyablation.cluster.dask_client import connected
        except ImportError as error:
            raise NotInstalled(
                f"dask.distributed is not installed here ({error}): pip install -c "
                "constraints.txt -e '.[cluster]', on the workers too"
            ) from error
        with connected(address.place) as executor:
            yield executor
        return
    options = address.options
    queue = (
        Slurm(address.place, options) if address.scheme == "slurm" else Processes(options.time * 60)
    )
    jobs = BatchJobs(queue, store, options.jobs)
    try:
        yield jobs
    finally:
        jobs.shutdown(wait=False, cancel_futures=True)


@contextlib.contextmanager
def dispatching(
    address: Address,
    store: Path,
    *,
    progress: bool = False,
    say: Callable[[str], None] = print,
) -> Iterator[Dispatch | None]:
    """The dispatch of a session to the executor at an address; None for "local"."""
    if address.is_local:
        yield None
        return
    store.mkdir(parents=True, exist_ok=True)
    with opened(address, store.resolve()) as executor:
        yield Dispatch(executor, address.options.shards, progress=progress, say=say)


def device_of(address: Address, dispatch: Dispatch, wanted: str) -> str:
    """The kind of device that the jobs compute on; on Slurm a GPU if the jobs book one.

    The address of a run contains it, so it must be known before anything is submitted; a session
    whose measurements all exist must not wait in a queue for it.
    """
    if wanted != "auto":
        return wanted.split(":", 1)[0]
    if address.scheme == "slurm":
        return "cuda" if address.options.gpus else "cpu"
    return dispatch.device(wanted)
