"""Fills an incomplete run, shard by shard, together with other processes that fill it too.

The process that holds a shard's claim computes it. The shard is durable before the claim is
released, and a process that gets a claim first checks whether the shard exists. So cooperating
processes compute no shard twice, and the shard of a process that died is free for the next one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tinyablation.runs.derived import Circumstances
from tinyablation.runs.locks import RunLocks
from tinyablation.runs.shards import ShardFolder

if TYPE_CHECKING:
    import pandas as pd

    from tinyablation.interventions.batteries import Shard

# Polling interval of a waiting process, in seconds; a shard takes seconds to minutes.
POLL_SECONDS = 0.2


def fill(
    work: ShardFolder,
    locks: RunLocks,
    shards: Sequence[Shard],
    compute: Callable[[Shard], pd.DataFrame],
    circumstances: Callable[[], Circumstances] | None = None,
    *,
    progress: bool = False,
) -> list[str]:
    """Compute all of `shards`, some of the plan's; return the keys of those computed here.

    Unclaimed shards are computed here, one after another. Once other processes compute all that
    are left, `locks.before_waiting` is called, and this process waits for them; it takes over the
    shard of a process that dies. Returns early if the run becomes complete meanwhile. Raises
    RunError if a shard stays unavailable for longer than the locks' timeout, and whatever `compute`
    and ShardFolder.add raise.
    """
    from tqdm import tqdm

    own: list[str] = []
    waiting_since: float | None = None
    with tqdm(total=len(shards), desc=work.folder.name, unit="shard", disable=not progress) as bar:
        while True:
            left = [shard for shard in shards if not work.has(shard)]
            bar.update(len(shards) - len(left) - bar.n)
            if not left or work.is_complete:
                return own
            for shard in left:
                with locks.claim(shard.key) as claimed:
                    if not claimed:
                        continue
                    # Check the shard before the manifest: shards are removed only after it exists.
                    if not work.recover_one(shard) and not work.is_complete:
                        _compute(work, locks, shard, compute, circumstances)
                        own.append(shard.key)
                    waiting_since = None
                    break
            else:
                if waiting_since is None:
                    waiting_since = time.monotonic()
                    locks.yield_device()
                elif 0 <= locks.timeout < time.monotonic() - waiting_since:
                    raise locks.refusal(locks.claim_path(left[0].key))
                time.sleep(POLL_SECONDS)


def _compute(
    work: ShardFolder,
    locks: RunLocks,
    shard: Shard,
    compute: Callable[[Shard], pd.DataFrame],
    circumstances: Callable[[], Circumstances] | None,
) -> None:
    with locks.notes():
        work.say("running", computing=shard.key)
    started = time.perf_counter()
    rows = compute(shard)
    seconds = time.perf_counter() - started
    work.add(shard, rows, seconds, circumstances().devices if circumstances else ())
