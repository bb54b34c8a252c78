"""Reliability: sweeps and sessions killed at random, damaged files and stores, attacks.

Nothing is compared with a peer, and nothing may be lost, accepted or run: the first finished shard
that is computed again, table that is another to the byte, line that ends in another error than it
should, or attack that gets through, ends the benchmark. The same checks, with fewer kills and
damages, are tests (`make slow`).
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.attacks import ATTACKS
from benchmarks.record import BenchmarkError, Recording, parser
from benchmarks.timing import ROOT

# Inputs that are damaged, each a test: a line of file and cause, and what was there is untouched.
DAMAGED = {
    "damaged models refused": "tests/test_broken_models.py",
    "damaged files, runs and names refused": "tests/test_broken_files.py",
    "stores in trouble": "tests/test_stores_under_stress.py",
}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--kills", type=int, default=50, help="at random moments of cold sweeps")
    options.add_argument("--sessions", type=int, default=6, help="kills of sessions with workers")
    options.add_argument("--lines", type=int, default=10_000, help="damaged lines of a corpus")
    options.add_argument("--files", type=int, default=200, help="damaged files of each reader")
    options.add_argument("--seed", type=int, default=0, help="of moments and damages")
    arguments = options.parse_args()
    recording = Recording("reliability", arguments.results)
    with tempfile.TemporaryDirectory() as folder:
        killed, sessions = (
            kills(module, moments, Path(folder) / module, arguments.seed)
            for module, moments in (
                ("killing", arguments.kills),
                ("killing_sessions", arguments.sessions),
            )
        )
        read = damaged_lines(arguments.lines, Path(folder), arguments.seed)
        fuzzed = damaged_files(arguments.files, arguments.seed)
        tried = {what: passed((file,), Path(folder)) for what, file in DAMAGED.items()}
        attacks = {what: passed(tests, Path(folder)) for what, tests in ATTACKS.items()}
    recording.add("kills survived", killed["kills"], "kills", at_least=arguments.kills)
    recording.add("finished shards kept", killed["finished shards kept"], "shards")
    recording.add("finished shards lost", 0, "shards")
    recording.add("runs completed to the byte", killed["runs completed to the byte"], "runs")
    lost = "sessions with workers, kills survived"
    recording.add(lost, sessions["kills"], "kills", at_least=arguments.sessions)
    recording.add("their finished shards kept", sessions["finished shards kept"], "shards")
    again = "sessions completed to the byte"
    recording.add(again, sessions[again], "sessions")
    recording.add("damaged lines read or refused", sum(read.values()), "lines")
    recording.add("damaged files read or refused", sum(fuzzed.values()), "files")
    for what, count in tried.items():
        recording.add(what, count, "cases")
    for what, count in attacks.items():
        recording.add(what, count, "attempts")
    recording.add("attempts that got through", 0, "attempts")
    recording.write(
        {
            **{"kills": killed, "sessions": sessions, "lines": read, "files": fuzzed},
            "seed": arguments.seed,
        }
    )


def kills(module: str, moments: int, folder: Path, seed: int) -> dict[str, int]:
    """What a module of tests/ that kills counted; in a process of its own, as one forks."""
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", f"tests.{module}", str(moments), str(folder), str(seed)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
    )
    if done.returncode:
        raise BenchmarkError("a kill cost something: the lines above say what")
    return dict(json.loads(done.stdout))


def damaged_lines(count: int, folder: Path, seed: int) -> dict[str, int]:
    """How many lines were accepted, and how many refused."""
    from tests.fuzzing import read_damaged
    from tinyablation.corpora.examples import load_corpus

    rows = load_corpus(ROOT / "corpora" / "tiny" / "facts.jsonl").examples[:200]
    return dict(read_damaged(folder, rows, count, seed))


def damaged_files(each: int, seed: int) -> dict[str, int]:
    """How many files were read, and how many refused: so many of each reader."""
    from tests.readers import Fault, readers, rounds

    def failed(name: str, data: bytes, fault: Fault) -> None:
        raise BenchmarkError(f"{name}: a damaged file of {len(data):,} bytes: {fault}")

    return dict(rounds(readers(), random.Random(seed), range(each), failed))


def passed(tests: Sequence[str], folder: Path) -> int:
    """Run tests; how many passed, if none failed."""
    report = folder / "junit.xml"
    command = ["-m", "pytest", *tests, "-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
    done = subprocess.run([sys.executable, *command], cwd=ROOT, check=False)
    if done.returncode:
        raise BenchmarkError(f"{tests[0]} ...: exit status {done.returncode}: the lines above say")
    suites: Any = ElementTree.parse(report).getroot().iter("testsuite")
    return sum(int(suite.get("tests")) - int(suite.get("skipped")) for suite in suites)


if __name__ == "__main__":
    main()
