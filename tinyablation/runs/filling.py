"""Fills an incomplete run, shard by shard, beside other processes that fill it, too.

A shard is computed by whoever has its claim. It is durable before the claim goes, and who gets a
claim looks first whether the shard is there: so none is computed twice by processes that see each
other, and one whose process died is there for the next.
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

# How often one who waits looks again, in seconds; a shard takes seconds to minutes.
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
    """Have all of `shards`, some of the plan's, computed; the keys of those computed here.

    What nobody computes is computed here, one shard after another. Once others compute all that is
    left, `locks.before_waiting` is called and they are waited for; the shard of one that dies is
    taken over. Returns early where the run is complete meanwhile. Raises RunError when one shard
    is not had for longer than the locks' timeout, and what `compute` and ShardFolder.add raise.
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
                    # The shard before the manifest: shards go only once that is there.
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
