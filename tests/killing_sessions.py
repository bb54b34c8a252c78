"""Kills `pytest claims -n 2` with SIGKILL at random moments, and runs it again. Not tests.

As a script (`python -m tests.killing_sessions KILLS FOLDER [SEED]`) it prints what it did as JSON.
In turn one worker is killed, which xdist replaces, and the whole of the session. Moments are drawn
from the time between the first shard that is finished and the end of an undisturbed session.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from itertools import count, cycle
from pathlib import Path

import psutil

from tests.killing import Damage
from tinyablation.files.hashes import file_sha256
from tinyablation.files.manifests import (
    MANIFEST,
    read_json,
)
from tinyablation.runs.shards import SHARDS
from tinyablation.runs.store import TABLES

ROOT = Path(__file__).parent.parent
CELLS = "(tiny-llama or tiny-mistral) and facts and not plain"
CLAIM = "H1.1"
PATIENCE = 300  # seconds that a session may take on a loaded machine; it takes ten
WAYS = ("worker", "session")


class Session:
    """`pytest claims -n 2` into a folder of its own, in a process group of its own."""

    def __init__(self, reports: Path) -> None:
        self.reports = reports
        reports.mkdir(exist_ok=True)
        self.output = reports / f"output-{len(list(reports.glob('output-*')))}.txt"
        with self.output.open("w") as output:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "pytest", "claims", "-n", "2", "-k", CELLS),
                    *("--claim", CLAIM, "--reports", str(reports), "-p", "no:cacheprovider"),
                ],
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
                start_new_session=True,
            )

    def ended(self) -> int:
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            raise Damage(f"the session did not end: {self.output.read_text()}") from None

    def workers(self) -> list[psutil.Process]:
        """Its xdist workers: it starts nothing else."""
        return psutil.Process(self.process.pid).children()

    def wait_for_a_shard(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while not finished(self.reports) and self.process.poll() is None:
            if time.monotonic() > deadline:
                raise Damage(f"no shard was finished: {self.output.read_text()}")
            time.sleep(0.01)

    def kill(self, way: str, draws: random.Random) -> bool:
        """Kill one of its workers, or all of it; whether there was something left to kill."""
        if way == "session":
            if self.process.poll() is not None:
                return False
            os.killpg(self.process.pid, signal.SIGKILL)
            return True
        try:
            draws.choice(self.workers()).kill()
        except (IndexError, psutil.NoSuchProcess):
            return False
        return True


def finished(reports: Path) -> dict[tuple[str, str], float]:
    """The finished shards of runs that are not complete, and the seconds each took."""
    found = {}
    for path in sorted((reports / "runs").glob(f"*/{SHARDS}/*.json")):
        try:
            sidecar = read_json(path)
        except FileNotFoundError:  # its run was completed since
            continue
        found[path.parent.parent.name, path.stem] = sidecar["seconds"]
    return found


def tables(reports: Path) -> dict[str, str]:
    """The sha256 of every table of every complete run, and of every reading, by its path."""
    return {
        path.relative_to(reports).as_posix(): file_sha256(path)
        for manifest in sorted((reports / "runs").glob(f"*/{MANIFEST}"))
        for name in (*TABLES, "reading.json")
        if (path := manifest.parent / name).exists()
    }


def verdicts(reports: Path) -> dict[str, str]:
    records = json.loads((reports / "records.json").read_text("utf-8"))["records"]
    return {record["test"]: record["verdict"] for record in records}


def check_kept(reports: Path, survivors: dict[tuple[str, str], float]) -> None:
    for (run, key), seconds in survivors.items():
        took = read_json(reports / "runs" / run / "profile.json")["seconds_by_shard"]
        # A time to the microsecond: that of another computation is another.
        if took[key] != round(seconds, 6):
            raise Damage(f"{run}: shard {key} was finished, and computed again")


def check_crashed(session: Session, status: int) -> None:
    """A session that lost a worker says so, and shows no cell as judged that was not."""
    said = session.output.read_text("utf-8")
    if status != (1 if "crashed" in said else 0):
        raise Damage(f"exit status {status} of a session that lost a worker: {said}")
    if status == 1:
        file = json.loads((session.reports / "records.json").read_text("utf-8"))
        undone = [record for record in file["records"] if record["outcome"] == "error"]
        if file["session"]["complete"] and not undone:
            raise Damage(f"a worker is gone, and the page does not say so: {said}")
        if any(record["verdict"] != "error" for record in undone):
            raise Damage("a cell whose test did not end is shown with a verdict")


def kill_at(kills: int, folder: Path, seed: int = 0) -> Counter[str]:
    """So many kills of sessions under `folder`; Damage at the first loss."""
    draws = random.Random(seed)
    undisturbed = Session(folder / "undisturbed")
    undisturbed.wait_for_a_shard()
    began = time.perf_counter()
    if undisturbed.ended() != 0:
        raise Damage(f"the undisturbed session failed: {undisturbed.output.read_text()}")
    seconds = time.perf_counter() - began
    expected, judged = tables(undisturbed.reports), verdicts(undisturbed.reports)
    found: Counter[str] = Counter(tables=len(expected))
    ways = cycle(WAYS)
    way = next(ways)
    for number in count():
        if found["kills"] >= kills:
            break
        session = Session(folder / f"killed-{number}")
        session.wait_for_a_shard()
        time.sleep(draws.uniform(0, seconds))
        killed = session.kill(way, draws)
        survivors = finished(session.reports)
        status = session.ended()
        if way == "worker" and killed:
            check_crashed(session, status)
        found["kills" if killed else "moments after the end"] += 1
        found[way] += killed
        again = Session(session.reports)
        if again.ended() != 0:
            raise Damage(f"the session cannot be continued: {again.output.read_text()}")
        check_kept(session.reports, survivors)
        if tables(session.reports) != expected:
            raise Damage(f"{session.reports}: its tables are not those of the undisturbed session")
        if verdicts(session.reports) != judged:
            raise Damage(
                f"{session.reports}: its verdicts are not those of the undisturbed session"
            )
        found["finished shards kept"] += len(survivors)
        found["sessions completed to the byte"] += 1
        if killed:  # else the moment was after the end: the same again
            way = next(ways)
    return found


if __name__ == "__main__":
    print(json.dumps(kill_at(int(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:]))))
