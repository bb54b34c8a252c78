"""Executors by URL: where jobs run. Each one is a concurrent.futures.Executor.

    local                                   in this process: no executor at all
    dask://host:8786                        a dask.distributed scheduler, and its workers
    slurm://partition?time=60&gpus=1        Slurm: sbatch, squeue and scancel; options below
    processes://?jobs=2                     the same jobs as processes of this machine

For a job that died with its worker they raise Lost, with worker and reason.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tinyablation.errors import TinyAblationError
from tinyablation.spelling import nearest

LOCAL = "local"


class ExecutorError(TinyAblationError):
    """An executor cannot be used; the message says what to do."""


class UnknownExecutor(ExecutorError):
    """A URL names no executor, or has an unknown option."""


class NotInstalled(ExecutorError):
    """The package behind an executor is not installed here."""


class Unreachable(ExecutorError):
    """No scheduler answers."""


class Unsafe(ExecutorError):
    """A scheduler would be spoken to over a network without encryption and certificates."""


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

    The other options are Slurm's: minutes, GB of memory, GPUs and cores per job, and accounting.
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


# A batch job loads the model each time, so it gets a few shards; a dask worker keeps it loaded.
_KNOWN: Mapping[str, Mapping[str, int | str]] = {
    LOCAL: {},
    "dask": {"shards": 1},
    "slurm": {
        **{"shards": 4, "jobs": 0, "time": 60, "mem_gb": 0, "gpus": 0, "cpus": 0},
        **{"account": "", "qos": "", "constraint": ""},
    },
    "processes": {"shards": 4, "jobs": 2, "time": 60},
}
EXECUTORS = tuple(_KNOWN)


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
            "dask://HOST:PORT, slurm://PARTITION or processes://"
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
    if scheme == "processes" and place:
        raise UnknownExecutor(
            f"executor {url!r}: it runs on this machine and takes no host; give processes://"
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
