"""Workers: a cold run of claims with two workers against the same run in one process.

Both measure everything anew, into empty folders of their own, one after the other. -n 0 gives
torch every core, -n 2 a half of them to each worker, as the suite does it; --threads gives all
processes the same number.
"""

import tempfile
from pathlib import Path
from typing import Any

from benchmarks.record import Recording, parser
from benchmarks.timing import Seconds, plain_environment, timed
from tinyablation.files.manifests import MANIFEST, read_json
from tinyablation.runs.store import PER_EXAMPLE

RATIO = 1.7
# Two models of one size, so that two workers have as much to do each.
CELLS = "(tiny-llama-plain or tiny-mistral-plain) and facts and (test_h1 or test_h5)"


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--workers", type=int, default=2, help="of the one side")
    options.add_argument("--cells", default=CELLS, metavar="EXPRESSION", help="as pytest's -k")
    options.add_argument("--all", action="store_true", help="every claim, instead of --cells")
    options.add_argument("--threads", type=int, help="for torch, in every process")
    arguments = options.parse_args()
    recording = Recording("workers", arguments.results)
    selection = () if arguments.all else ("-k", arguments.cells)
    seconds: dict[int, Seconds] = {}
    tables: dict[int, dict[str, str]] = {}
    for count in (0, arguments.workers):
        with tempfile.TemporaryDirectory() as folder:
            command = ("-m", "pytest", "claims", "-q", "-n", str(count), *selection)
            seconds[count] = timed(
                (*command, "--reports", folder),
                environment=plain_environment(arguments.threads),
            )
            tables[count] = hashes(Path(folder) / "runs")
        print(f"-n {count}: {seconds[count].wall:.1f} s", flush=True)
    recording.add(
        *(f"a cold run, -n {arguments.workers}", seconds[arguments.workers].wall, "s"),
        *("-n 0", seconds[0].wall),
        faster=True,
        at_least=RATIO,
    )
    alone, together = tables[0], tables[arguments.workers]
    details: dict[str, Any] = {
        "cells": "all" if arguments.all else arguments.cells,
        "threads": arguments.threads,
        "seconds": {f"-n {count}": found._asdict() for count, found in seconds.items()},
        "tables": len(alone),
        "tables_that_differ": sorted(
            name for name in alone.keys() | together.keys() if alone.get(name) != together.get(name)
        ),
    }
    recording.write(details)


def hashes(runs: Path) -> dict[str, str]:
    """sha256 of the table of each complete run, by the run's name."""
    found = {}
    for manifest in sorted(runs.glob(f"*/{MANIFEST}")):
        files = read_json(manifest)["files"]
        if PER_EXAMPLE in files:
            found[manifest.parent.name] = str(files[PER_EXAMPLE]["sha256"])
    return found


if __name__ == "__main__":
    main()
