"""Run benchmarks, each in a process of its own, and print one table of what they found.

    python -m benchmarks                              # all of them
    python -m benchmarks --only startup --only engine
    python -m benchmarks --list                       # what there is
    python -m benchmarks --show                       # the results that are kept, by machine
    python -m benchmarks --take-in DIR                # add what another machine recorded

A figure is compared with its peer on the same machine, in the same minutes. A target that is
missed is no failure: the exit status is 1 only where a benchmark did not run. One that is for a GPU
is left out where there is none, unless --only names it.
"""

import argparse
import ast
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.record import (
    RESULTS,
    UNMEASURED,
    BenchmarkError,
    Result,
    history,
    table,
    take_in,
)
from tinyablation.errors import TinyAblationError
from tinyablation.models.devices import look
from tinyablation.spelling import did_you_mean

FOLDER = Path(__file__).parent
NO_BENCHMARK = frozenset(
    ["__init__", "__main__", "attacks", "device", "loops", "record", "settings", "shapes", "timing"]
)
NEEDS_CUDA = ("gpu",)
LEFT_OUT = "left out: no CUDA device"


def benchmarks(folder: Path = FOLDER) -> dict[str, str]:
    """The modules that are benchmarks, by name: the first line of what each says of itself."""
    return {
        path.stem: (ast.get_docstring(ast.parse(path.read_bytes())) or "").partition("\n")[0]
        for path in sorted(folder.glob("*.py"))
        if path.stem not in NO_BENCHMARK
    }


def measure(name: str, results: Path) -> Result | str:
    """Run one benchmark; its result, or why there is none."""
    path = results / f"{name}.json"
    before = len(history(path))
    command = [sys.executable, "-m", f"benchmarks.{name}", "--results", str(results)]
    status = subprocess.run(
        command, cwd=FOLDER.parent, env=os.environ | {"HF_HUB_OFFLINE": "1"}, check=False
    ).returncode
    if status:
        return f"did not run: exit status {status}"
    found = history(path)
    return found[-1] if len(found) > before else "wrote no result"


def kept(names: Sequence[str], results: Path) -> list[tuple[str, Result | str]]:
    """The last result of each benchmark on each machine that measured it."""
    shown: list[tuple[str, Result | str]] = []
    for name in names:
        last = {result.machine: result for result in history(results / f"{name}.json")}
        shown += [(name, result) for result in last.values()] or [(name, UNMEASURED)]
    return shown


def main(given: Sequence[str] | None = None) -> int:
    known = benchmarks()
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--only", action="append", metavar="NAME", help="this benchmark; repeatable"
    )
    parser.add_argument("--list", action="store_true", help="name the benchmarks, run none")
    parser.add_argument("--show", action="store_true", help="print the results kept, run none")
    parser.add_argument("--take-in", type=Path, metavar="DIR", help="add the histories of a folder")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR")
    arguments = parser.parse_args(given)
    for name in arguments.only or ():
        if name not in known:
            parser.error(f"no benchmark {name!r}; {did_you_mean(name, known)}")
    chosen = [name for name in known if name in (arguments.only or known)]
    if arguments.list:
        width = max(map(len, chosen))
        print("\n".join(f"{name:{width}}  {known[name]}" for name in chosen))
        return 0
    try:
        if arguments.take_in is not None:
            print(f"{take_in(arguments.take_in, arguments.results)} results added")
            return 0
        if arguments.show:
            print(table(kept(chosen, arguments.results)))
            return 0
        found: list[tuple[str, Result | str]] = []
        for name in chosen:
            if name in NEEDS_CUDA and not arguments.only and not look().gpus:
                found.append((name, LEFT_OUT))
                continue
            print(f"\n{name}: {known[name]}", flush=True)
            try:
                found.append((name, measure(name, arguments.results)))
            except BenchmarkError as error:
                found.append((name, str(error)))
        print(table(found))
        return int(any(isinstance(result, str) and result != LEFT_OUT for _, result in found))
    except TinyAblationError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
