"""Jobs of which the first to come to a shard is lost with its worker. Not tests.

A worker of another process imports this module, so what it does is as real as can be: it stands
still, or is killed, in the middle of SHARD, which it has claimed. It leaves its process id behind.
"""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from tinyablation.cluster.messages import Job
from tinyablation.cluster.worker import run_job
from tinyablation.measurement.shard_computation import Measurement

BATTERY = "single-heads"  # of an embedded model: the baseline, and two shards
SHARD = "L00-L02"


def marker(store: Path) -> Path:
    """Where the lost one's process id is written."""
    return store.parent / "lost"


def standing_still(text: str) -> str:
    """run_job, but the first to come to SHARD stands still until it is killed."""
    return _losing(text, lambda: time.sleep(600))


def dying(text: str) -> str:
    """run_job, but the first to come to SHARD is killed."""
    return _losing(text, lambda: os.kill(os.getpid(), signal.SIGKILL))


def always_dying(text: str) -> str:
    """run_job, but everyone who comes to SHARD is killed."""
    return _losing(text, lambda: os.kill(os.getpid(), signal.SIGKILL), once=False)


def _losing(text: str, lose: Callable[[], None], *, once: bool = True) -> str:
    lost = marker(Job.model_validate_json(text).bench.store)
    own = Measurement.__call__

    def call(self: Measurement, shard: Any) -> Any:
        if shard.key == SHARD and not (once and lost.exists()):
            lost.write_text(str(os.getpid()))
            lose()
        return own(self, shard)

    with mock.patch.object(Measurement, "__call__", call):
        return run_job(text)
