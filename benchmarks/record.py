"""What every benchmark writes: figures beside their peers and targets, and where they were taken.

benchmarks/results/<name>.json is a history, newest last: {"benchmark": name, "results": [...]}.
Results are added and never written over, so that machines and versions can be compared. A
benchmark is a module of this folder whose main() does

    arguments = parser(__doc__).parse_args()
    recording = Recording("engine", arguments.results)
    recording.add("all heads", seconds, "s", "plain loop", theirs, faster=True, at_least=8.0)
    recording.write({"prompts": 32})
"""

import argparse
import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tinyablation.errors import TinyAblationError
from tinyablation.files.manifests import write_json
from tinyablation.installed import versions
from tinyablation.models.devices import choose_device, describe_device, gigabytes
from tinyablation.runs.derived import COMPUTING, utc_now

RESULTS = Path(__file__).parent / "results"
UNMEASURED = "no result"
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


class BenchmarkError(TinyAblationError):
    """A benchmark did not run, or a file of results cannot be used."""


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Target(_Data):
    """A bound that is aimed at, on the figure itself or on its ratio to the peer."""

    of: Literal["figure", "ratio"]
    at_least: float | None = None
    at_most: float | None = None

    @model_validator(mode="after")
    def _one_bound(self) -> Self:
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError("a target has one bound: at_least or at_most")
        return self

    @property
    def bound(self) -> float:
        return self.at_most if self.at_least is None else self.at_least  # type: ignore[return-value]

    def __str__(self) -> str:
        sign = "<=" if self.at_least is None else ">="
        return f"{sign} {self.bound:g}{'x' if self.of == 'ratio' else ''}"


class Figure(_Data):
    """One figure in its unit, and that of what it is compared with.

    ratio: figure / peer; where less is better and the figure is to be so many times faster, peer /
    figure (`faster`).
    """

    what: str = Field(min_length=1)
    value: float
    unit: str
    peer: str = ""
    peer_value: float | None = None
    ratio: float | None = None
    faster: bool = False
    target: Target | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if bool(self.peer) != (self.peer_value is not None) or bool(self.peer) != (
            self.ratio is not None
        ):
            raise ValueError("a peer has a name, a figure and a ratio, or there is none")
        if self.target is not None and self.target.of == "ratio" and self.ratio is None:
            raise ValueError("a target of the ratio needs a peer")
        return self

    @property
    def standing(self) -> str:
        """Whether the target is met, else by how much of it not; empty without a target."""
        if self.target is None:
            return ""
        found = self.value if self.target.of == "figure" else self.ratio
        assert found is not None
        short = (self.target.bound - found) / abs(self.target.bound)
        short = short if self.target.at_most is None else -short
        return "met" if short <= 0 else f"missed by {short:.0%}"


class Result(_Data):
    """One run of a benchmark: its figures, where they come from, and all that was counted.

    details: what the figures were made of, plain values, of the benchmark's own layout.
    """

    finished: str = Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00$")
    seconds: float | None = None
    command: str | None = None
    environment: dict[str, Any]
    figures: tuple[Figure, ...] = Field(min_length=1)
    details: dict[str, Any] = {}

    @property
    def machine(self) -> str:
        """The hardware, in a few words."""
        devices = self.environment.get("devices", [])
        names = [str(each["name"]) for each in devices if each["kind"] != "cpu"]
        for each in devices:
            if each["kind"] == "cpu":
                size = gigabytes(each["total_memory"])
                names.append(f"{each['name']}, {each['usable_cores']} cores, {size}")
        return " + ".join(names) or "a machine that is not described"


class Recording:
    """The figures of one run, until they are written; made before anything is measured."""

    def __init__(self, name: str, folder: Path = RESULTS) -> None:
        self.name = name
        self.path = folder / f"{name}.json"
        self.figures: list[Figure] = []
        self._began = time.perf_counter()
        # Before: what else the machine does; after: the benchmark's own work as well.
        self._load = load_average()
        history(self.path)  # a file that cannot be added to is refused before an hour's work

    def add(
        self,
        what: str,
        value: float,
        unit: str,
        peer: str = "",
        peer_value: float | None = None,
        *,
        faster: bool = False,
        of: Literal["figure", "ratio"] | None = None,
        at_least: float | None = None,
        at_most: float | None = None,
    ) -> Figure:
        """Take a figure down, say it, and return it.

        faster: the ratio is peer / figure. at_least or at_most: the target, of the ratio where
        there is a peer, else of the figure, unless `of` says which.
        """
        ratio = None
        if peer_value is not None:
            ratio = round(peer_value / value if faster else value / peer_value, 4)
        target = None
        if at_least is not None or at_most is not None:
            target = Target(
                of=of or ("ratio" if peer else "figure"), at_least=at_least, at_most=at_most
            )
        figure = Figure(
            what=what,
            value=round(value, 4),
            unit=unit,
            peer=peer,
            peer_value=None if peer_value is None else round(peer_value, 4),
            ratio=ratio,
            faster=faster,
            target=target,
        )
        self.figures.append(figure)
        print("  ".join(filter(None, _cells(self.name, figure)[1:])), flush=True)
        return figure

    def write(self, details: Mapping[str, Any], device: str = "cpu") -> Result:
        """Add the result to the history and say where it is.

        device: what was measured on beside the CPU ("cuda:0").
        """
        result = Result(
            finished=utc_now(),
            seconds=round(time.perf_counter() - self._began, 1),
            command=_command(self.name, sys.argv[1:]),
            environment=environment(device) | {"load_average_before": self._load},
            figures=tuple(self.figures),
            details=dict(details),
        )
        keep(self.path, self.name, [*history(self.path), result])
        print(f"written to {self.path}")
        return result


def _command(name: str, given: Sequence[str]) -> str:
    """How to repeat it. Where a machine kept its results is its own affair, and left out."""
    known = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    known.add_argument("--results")
    _, others = known.parse_known_args(given)
    return shlex.join(["python", "-m", f"benchmarks.{name}", *others])


def environment(device: str = "cpu") -> dict[str, Any]:
    """Hardware, versions, load and threads, as they are now; plain values.

    device: "cpu", or the one that is described beside it; "auto" for the best there is.
    """
    chosen = choose_device(device)
    return {
        "devices": [describe_device(each) for each in dict.fromkeys(("cpu", chosen))],
        "platform": platform.platform(),
        "machine": platform.machine(),
        "versions": versions(*COMPUTING),
        "threads": {name: os.environ.get(name) for name in THREADS},
        "load_average": load_average(),
    }


def load_average() -> float | None:
    """Processes that ran or waited, over the last minute; None where the system does not say."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def parser(description: str | None) -> argparse.ArgumentParser:
    """The options that every benchmark has: --results DIR."""
    made = argparse.ArgumentParser(
        description=(description or "").partition("\n\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    made.add_argument(
        "--results", type=Path, default=RESULTS, metavar="DIR", help="where the histories are"
    )
    return made


# --- histories -----------------------------------------------------------------------------------


def history(path: Path) -> list[Result]:
    """The results of a file, oldest first; none where there is no file.

    Raises BenchmarkError naming file and field where it is no history.
    """
    if not path.exists():
        return []
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(document, dict) or set(document) != {"benchmark", "results"}:
            raise BenchmarkError(
                f"{path}: no history of results ('benchmark' and 'results'); move it away"
            )
        return [Result.model_validate(each) for each in document["results"]]
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise BenchmarkError(f"{path}: field {field!r}: {first['msg']}; move it away") from None
    except (OSError, ValueError) as error:
        raise BenchmarkError(f"{path}: cannot be read ({error}); move it away") from error


def keep(path: Path, name: str, results: Iterable[Result]) -> None:
    """Write a history, in the order of time."""
    ordered = sorted(results, key=lambda result: result.finished)
    documents = [result.model_dump(mode="json", exclude_none=True) for result in ordered]
    write_json(path, {"benchmark": name, "results": documents})


def take_in(folder: Path, into: Path = RESULTS) -> int:
    """Add results that another machine recorded in `folder`, each once; how many were new."""
    count = 0
    for path in sorted(folder.glob("*.json")):
        own = history(into / path.name)
        new = [result for result in history(path) if result not in own]
        if new:
            keep(into / path.name, path.stem, [*own, *new])
        count += len(new)
    return count


# --- the table -----------------------------------------------------------------------------------

HEAD = ("benchmark", "what", "figure", "compared with", "ratio", "target", "")


def table(results: Sequence[tuple[str, Result | str]]) -> str:
    """One line a figure, by machine; for a benchmark without a result, what is said instead."""
    groups: dict[str, list[tuple[str, ...]]] = {}
    for name, result in results:
        if isinstance(result, str):
            groups.setdefault("", []).append((name, result, *[""] * (len(HEAD) - 2)))
            continue
        rows = groups.setdefault(f"{result.machine}, {result.finished[:10]}", [])
        rows += [_cells(name, figure) for figure in result.figures]
    widths = [
        max(len(row[column]) for row in [HEAD, *(row for rows in groups.values() for row in rows)])
        for column in range(len(HEAD))
    ]
    lines = []
    for machine, rows in groups.items():
        lines += ["", machine] if machine else [""]
        lines += [_line(row, widths) for row in [HEAD, ["-" * width for width in widths], *rows]]
    return "\n".join(lines)


def _cells(name: str, figure: Figure) -> tuple[str, ...]:
    peer = f"{figure.peer}: {_number(figure.peer_value, figure.unit)}" if figure.peer else ""
    ratio = "" if figure.ratio is None else f"{figure.ratio:.3g}x"
    if figure.faster:
        ratio += " faster"
    target = "" if figure.target is None else str(figure.target)
    return (
        name,
        figure.what,
        _number(figure.value, figure.unit),
        peer,
        ratio,
        target,
        figure.standing,
    )


def _number(value: float | None, unit: str) -> str:
    assert value is not None
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{text} {unit}"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
