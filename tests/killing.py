"""Kills real measurements with SIGKILL at random moments, and looks at what is left. Not tests.

As a script (`python -m tests.killing MOMENTS FOLDER [SEED]`) it prints what it did as JSON. It
forks its workers from a process that has imported torch but computed nothing, so that a kill costs
a second or two instead of ten, most of them imports.

Three ways, in turn: the whole of a run by one process, the whole of a run by two, and one of two
processes, while the other finishes the run alone. Every other run is killed once more while it
continues.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.small_corpora import put_corpora
from tinyablation.errors import RunError
from tinyablation.files.hashes import file_sha256
from tinyablation.files.manifests import read_json
from tinyablation.interventions.batteries import (
    BASELINE,
    EVERYTHING,
    BatteryError,
    Sample,
    Shard,
    Side,
    single_heads,
)
from tinyablation.interventions.interventions import AblateHeads, AblationMethod
from tinyablation.measurement.bench import Bench
from tinyablation.measurement.plan import plan_run
from tinyablation.measurement.setup import Setup
from tinyablation.models.registry import load_registry
from tinyablation.runs.shards import PARTIAL_SUMMARY, SHARDS, Plan
from tinyablation.runs.store import (
    FILES,
    TABLES,
    RunStore,
)

ROOT = Path(__file__).parent.parent
METHODS: tuple[AblationMethod, ...] = ("zero", "mean", "resample")
PATIENCE = 60  # seconds that a worker may need on a loaded machine; it needs two
WAYS = ("run of one", "run of two", "one of two")


class Damage(AssertionError):
    """A kill cost something that was finished, or left something that is not true."""


@dataclass(frozen=True)
class SmallShards:
    """Every head of a model by three methods, a shard for each layer and method: much to cut."""

    name: str = "small-shards"
    side: Side = "clean"
    donor: Side = ""  # type: ignore[assignment]  # nothing is lent
    sample: Sample = EVERYTHING

    def shards(self, n_layers: int, n_heads: int) -> list[Shard]:
        if n_layers < 1:
            raise BatteryError("no layer to ablate")
        return [
            Shard(BASELINE, ()),
            *(
                Shard(
                    f"L{layer:02d}-{method}",
                    tuple(
                        AblateHeads((head,), method)
                        for head in single_heads(n_layers, n_heads)
                        if head[0] == layer
                    ),
                )
                for layer in range(n_layers)
                for method in METHODS
            ),
        ]


def bench(store: Path, corpora: Path) -> Bench:
    entry = load_registry(ROOT / "fixtures" / "models.toml")["tiny-llama"]
    # A lock that the dead still held would be an error after a minute, not a test that hangs.
    return Bench(
        Setup(entry=entry, corpora=corpora), RunStore(store, lock_timeout=PATIENCE), threads=1
    )


def fork(work: Callable[[], object]) -> int:
    """A child process in a group of its own that does the work and exits 0, or 1 with a word."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        os.setpgid(0, 0)
        work()
        status = 0
    except BaseException as error:
        print(f"worker {os.getpid()}: {type(error).__name__}: {error}", file=sys.stderr)
    finally:
        sys.stderr.flush()
        os._exit(status)


def ended(child: int, seconds: float = PATIENCE) -> int:
    """The exit status of a child, waited for; minus the signal if one ended it."""
    deadline = time.monotonic() + seconds
    while True:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            raise Damage(f"process {child} did not end in {seconds} s: something is held")
        time.sleep(0.005)


class Sweep:
    """One cold sweep of a small model, and the tables it makes when nobody disturbs it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.corpora = put_corpora(folder / "corpora", rows=(24, 24))
        plan = plan_run(bench(folder, self.corpora), "facts", SmallShards())
        self.name = plan.config.name
        self.keys = [shard.key for shard in plan.shards]
        began = time.perf_counter()
        undisturbed = self.start(folder / "undisturbed")
        if ended(undisturbed) != 0:
            raise Damage("the undisturbed run failed")
        self.seconds = time.perf_counter() - began
        self.tables = self.read(folder / "undisturbed")

    def start(self, store: Path) -> int:
        store.mkdir(exist_ok=True)
        return fork(lambda: bench(store, self.corpora).run("facts", SmallShards()))

    def check_undisturbed(self) -> None:
        """In the tables that all the others are compared with, every row stands once.

        Read at the end only: pyarrow starts threads, and this process forks.
        """
        table = RunStore(self.folder / "undisturbed").open(self.name).table()
        plan = plan_run(bench(self.folder, self.corpora), "facts", SmallShards())
        labels = [label for shard in plan.shards for label in Plan.labels(shard)]
        twice = table.duplicated(["intervention", "example"]).any()
        if twice or len(table) != len(labels) * len(plan.examples):
            raise Damage(f"{self.name}: rows are missing or counted twice")

    def read(self, store: Path) -> dict[str, bytes]:
        return {name: (store / self.name / name).read_bytes() for name in TABLES}

    def finished(self, store: Path) -> dict[str, dict[str, Any]]:
        """The sidecars of the finished shards, each with its file as it is on disk now."""
        shards = store / self.name / SHARDS
        found = {}
        for path in sorted(shards.glob("*.json")):
            sidecar = read_json(path)
            table = shards / f"{path.stem}.parquet"
            if file_sha256(table) != sidecar["sha256"]:
                raise Damage(f"{table}: its sidecar says it is finished, and it is not that file")
            found[path.stem] = {**sidecar, "mtime_ns": table.stat().st_mtime_ns}
        return found

    def check_killed(self, store: Path, processes: int) -> dict[str, dict[str, Any]]:
        """What is left after everybody was killed is true, and holds nobody up."""
        from filelock import FileLock

        folder = store / self.name
        for lock in (store / ".locks").glob("*.lock"):
            with FileLock(lock, timeout=0):
                pass
        status = RunStore(store).status(bench(store, self.corpora).config("facts", "small-shards"))
        if status == "complete":
            RunStore(store).open(self.name)
            return {}
        try:
            RunStore(store).open(self.name)
        except RunError:
            pass
        else:
            raise Damage(f"{folder}: opens, and is not complete")
        done = self.finished(store)
        path = folder / PARTIAL_SUMMARY
        if not path.exists():
            if done:
                raise Damage(f"{folder}: has shards and no {PARTIAL_SUMMARY}")
            return done
        self.check_truth(store, read_json(path), processes)
        return done

    def check_truth(self, store: Path, said: dict[str, Any], processes: int) -> None:
        """partial_summary.json says of every shard whether it is there, and counts its rows."""
        done = self.finished(store)
        # It is written as a shard is begun: each process may have finished one since.
        late = set(done) - set(said["done"])
        true = (
            said["complete"] is False
            and set(said["done"]) <= set(done)
            and len(late) <= processes
            and [key for key in self.keys if key in said["done"]] == said["done"]
            and [key for key in self.keys if key not in said["done"]] == said["missing"]
            and said["rows_done"] == sum(done[key]["rows"] for key in said["done"])
        )
        if not true:
            raise Damage(f"{PARTIAL_SUMMARY} says {said}, and there are {sorted(done)}")

    def check_complete(self, store: Path, survivors: dict[str, dict[str, Any]]) -> None:
        """The run is that of the undisturbed sweep, and made of what had survived."""
        run = RunStore(store).open(self.name)
        if self.read(store) != self.tables:
            raise Damage(f"{run.path}: its tables are not those of the undisturbed run")
        left = {path.relative_to(run.path).as_posix() for path in run.path.rglob("*")}
        extra = left - {*FILES, "manifest.json", "metrics", "artifacts"}
        if extra:
            raise Damage(f"{run.path}: a complete run has {sorted(extra)}")
        seconds = read_json(run.path / "profile.json")["seconds_by_shard"]
        for key, sidecar in survivors.items():
            # A time to the microsecond: that of another computation is another.
            if seconds[key] != round(sidecar["seconds"], 6):
                raise Damage(f"{run.path}: shard {key} was finished, and computed again")

    def trial(self, store: Path, way: str, moments: Iterator[float], kills: int) -> Counter[str]:
        """Kill a cold sweep so many times, then let it be completed; what was found, counted."""
        found: Counter[str] = Counter()
        survivors: dict[str, dict[str, Any]] = {}
        processes = 1 if way == "run of one" else 2
        while found["kills"] < kills:
            children = [self.start(store) for _ in range(processes)]
            time.sleep(next(moments))
            victims = children[:1] if way == "one of two" else children
            for child in victims:
                os.kill(child, signal.SIGKILL)
            statuses = [ended(child) for child in victims]
            if way == "one of two":
                survivors = self.finished(store) if statuses == [-signal.SIGKILL] else survivors
                if ended(children[1]) != 0:
                    raise Damage("the other of two processes failed")
            killed = -signal.SIGKILL in statuses
            if not killed:  # it had ended before the moment: that is none
                found["moments after the end"] += 1
            else:
                found["kills"] += 1
                found[way] += 1
                if way != "one of two":
                    left = self.check_killed(store, processes)
                    for key in survivors:
                        if left and left.get(key) != survivors[key]:
                            raise Damage(f"{store}: shard {key} was finished and is lost")
                    survivors = {**survivors, **left}
            if (store / self.name / "manifest.json").exists():
                break
        found["finished shards kept"] = len(survivors)
        if ended(self.start(store)) != 0:
            raise Damage(f"{store}: the run cannot be continued")
        self.check_complete(store, survivors)
        found["runs completed to the byte"] = 1
        return found


def kill_at(moments: int, folder: Path, seed: int = 0) -> Counter[str]:
    """So many kills at random moments of cold sweeps under `folder`; Damage at the first loss."""
    prepare()
    sweep = Sweep(folder)
    draws = random.Random(seed)
    at = iter(lambda: draws.uniform(0, sweep.seconds), None)
    found: Counter[str] = Counter(shards_of_a_run=len(sweep.keys))
    number = turn = 0
    while found["kills"] < moments:
        way = WAYS[turn % len(WAYS)]
        kills = 2 if turn % 2 and way != "one of two" else 1
        store = folder / f"killed-{number}"
        try:
            of_trial = sweep.trial(store, way, at, min(kills, moments - found["kills"]))
        except Exception as error:
            error.add_note(f"kill {found['kills'] + 1} of {moments}, seed {seed}, {way}")
            raise
        shutil.rmtree(store)
        number += 1
        # A moment after the end kills nothing: the way keeps its turn, so that each comes about.
        turn += of_trial["kills"] > 0
        found += of_trial
    sweep.check_undisturbed()
    return found


def prepare() -> None:
    """Import what workers need, and compute nothing: threads would not survive a fork."""
    import matplotlib.figure  # noqa: F401
    import pandas  # noqa: F401
    import pyarrow.parquet  # noqa: F401
    import torch
    import transformer_lens.model_bridge  # noqa: F401
    import transformers
    from transformers.models.llama import modeling_llama  # noqa: F401

    import tinyablation.engine.engine
    import tinyablation.runs.heatmaps  # noqa: F401

    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()


if __name__ == "__main__":
    print(json.dumps(kill_at(int(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:]))))
