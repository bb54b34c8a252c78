"""Commands, timed: wall and processor seconds of a process and all that it started."""

import os
import resource
import subprocess
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

from benchmarks.record import THREADS, BenchmarkError

ROOT = Path(__file__).parent.parent


class Seconds(NamedTuple):
    wall: float
    cpu: float


def plain_environment(threads: int | None = None) -> dict[str, str]:
    """The environment of a user: byte code is kept, and the suite shares out the threads itself.

    threads: given to every process instead.
    """
    left_out = {"PYTHONDONTWRITEBYTECODE", *THREADS}
    kept = {name: value for name, value in os.environ.items() if name not in left_out}
    kept |= {name: str(threads) for name in THREADS} if threads is not None else {}
    return kept | {"HF_HUB_OFFLINE": "1"}


def timed(
    arguments: Sequence[str],
    *,
    folder: Path = ROOT,
    environment: Mapping[str, str] | None = None,
    expected: Collection[int] = (0,),
) -> Seconds:
    """Run Python with these arguments; BenchmarkError, with its last lines, for another status."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=plain_environment() if environment is None else environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode not in expected:
        raise BenchmarkError(
            f"python {' '.join(arguments)}: exit status {done.returncode}\n{done.stdout[-2000:]}"
        )
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Seconds(round(wall, 3), round(cpu, 3))


def summary(runs: Sequence[Seconds]) -> dict[str, object]:
    """Best and median of several runs, and all of them: plain values, in seconds."""
    found: dict[str, object] = {}
    for name in Seconds._fields:
        values = [getattr(run, name) for run in runs]
        found[name] = {"best": min(values), "median": round(median(values), 3), "all": values}
    return found
