"""`check`: what a model knows, which claims can be judged, and how long it takes; without a sweep.

    python -m tinyablation check MODEL...

It measures only the unhooked model (gate.py), and a few heads on a few prompts to time a sweep. A
later session reuses the measurements of the unhooked model from the store.
"""

import argparse
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tinyablation.characters import printable
from tinyablation.cli.measure import CommandError, add_bench_options, bench_of
from tinyablation.errors import TinyAblationError
from tinyablation.heads import Head
from tinyablation.interventions.batteries import EVERYTHING
from tinyablation.records.conditions import CONDITIONS
from tinyablation.runs.derived import peak_resident_bytes

if TYPE_CHECKING:
    from tinyablation.measurement.bench import Bench
    from tinyablation.verdicts.verdicts import Verdict

# The timed sample: the number of prompts, and of layers in which every head is zeroed.
PROMPTS, LAYERS = 6, 3
# The names of a family's verdicts in the table: see "How a claim is judged" in docs/claims.md.
WORDS = {"supported": "valid", "inconclusive": "perhaps", "refuted": "left out", "blocked": "none"}
_CELL = re.compile(r"^claims/(?:\w+/)?(?P<module>\w+)\.py::\w+\[(?P<cell>.*)\]$")
SUBJECTS = Path("claims/suppressors/subjects.toml")


def add_check_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register `check`."""
    check = commands.add_parser(
        "check",
        help="show what a model knows, and which claims can be judged",
        description="Measures what the unhooked model knows, condition by condition, and shows "
        "which claims can be judged, which are blocked and why, and how long the sweep of all "
        "heads takes. Only a timed sample of heads is ablated.",
    )
    check.add_argument(
        "models", nargs="+", metavar="MODEL", help="ids, folders, GGUF files or repositories"
    )
    add_bench_options(check, named=False)
    check.add_argument(
        "--known",
        action="store_true",
        help="show the known facts of every condition, not only of facts (takes some minutes)",
    )
    check.set_defaults(run=check_models)


def check_models(options: argparse.Namespace) -> None:
    """Print the report of every model; an error of one model does not stop the others."""
    failed: TinyAblationError | None = None
    for number, name in enumerate(options.models):
        if number:
            print()
        options.model = name
        try:
            bench, known_of = bench_of(options), CONDITIONS if options.known else ("facts",)
            for line in report(bench, name, known_of=known_of):
                print(printable(line), flush=True)
        except TinyAblationError as error:
            if len(options.models) == 1:
                raise
            print(printable(f"{name}: {error}"))
            failed = error
    if failed is not None:
        raise failed


def report(bench: "Bench", name: str, *, known_of: Sequence[str]) -> Iterator[str]:
    """Yield the lines of one model's report as they are found. name: as given to --model."""
    facts, entry = bench.facts, bench.entry
    yield (
        f"{entry.title} ({entry.id}): {facts.architecture}, {facts.n_layers} layers of "
        f"{facts.n_heads} heads, {facts.weight_bytes / 1e6:,.0f} MB of weights, {bench.dtype} on "
        f"{bench.device}"
    )
    if facts.derived:
        yield facts.derived
    yield ""
    yield f"{'condition':15}{'family':13}{'prompts':>8}{'clusters':>10}{'accuracy':>9}  told apart"
    reasons: dict[str, str] = {}
    for condition in CONDITIONS:
        lacking = bench.library.lacks(facts.folder, condition, entry.id)
        if lacking is not None:
            reasons[condition] = lacking
            yield f"{condition:15}{lacking}"
            continue
        for family, verdict in bench.gate.validities(condition).items():
            yield f"{condition:15}{_family_line(family, verdict)}"
        reason = bench.gate.blocked_by_validity(condition)
        if reason is not None:
            reasons[condition] = reason
    yield ""
    for condition in known_of:
        if condition not in reasons:
            yield from _known(bench, condition)
            reason = bench.gate.reason_blocked(condition)
            if reason is not None:
                reasons[condition] = reason
    yield ""
    yield _heads(bench)
    yield from _cells(name, reasons)
    if len(reasons) < len(CONDITIONS):
        yield from _time(bench, next(name for name in CONDITIONS if name not in reasons))


def _family_line(family: str, verdict: "Verdict") -> str:
    found = verdict.details
    share = "-"
    if verdict.effect is not None:
        effect = verdict.effect
        share = f"{effect.estimate:.2f} [{effect.low:.2f}, {effect.high:.2f}]"
    counts = f"{found['prompts']:>8}{found['clusters']:>10}{found['accuracy']:>9.2f}"
    return f"{family or '-':13}{counts}  {share:19} {WORDS[verdict.status]}"


def _known(bench: "Bench", condition: str) -> Iterator[str]:
    """Known facts by relation; nothing for a corpus that is not crossed."""
    selection = bench.gate.selection(condition)
    if selection is None or not selection.known:
        return
    kept, whole = (sum(each) for each in zip(*selection.known.values(), strict=True))
    yield f"known facts of {condition}, by their other wordings: {kept} of {whole}"
    each = [f"{name} {own}/{of}" for name, (own, of) in selection.known.items()]
    for start in range(0, len(each), 6):
        yield "  " + ", ".join(each[start : start + 6])


def _heads(bench: "Bench") -> str:
    """The heads that claims are about."""
    from tinyablation.verdicts.subjects import load_subjects

    declared = load_subjects(SUBJECTS).for_model(bench.entry.id) if SUBJECTS.is_file() else None
    if declared is None:
        return "heads: chosen on the discovery split; --heads L0H7,L0H2,L0H5 names others"
    heads = [declared.suppressor, *(declared.trio or declared.pair)]
    names = dict.fromkeys(head.name for head in heads)
    return f"heads: {', '.join(names)} ({declared.source}, {SUBJECTS})"


def _cells(name: str, reasons: dict[str, str]) -> Iterator[str]:
    """Lines on the cells of a session: how many would be judged, and how many are blocked."""
    asked = _asked(name)
    blocked = Counter(condition for condition in asked if condition in reasons)
    whole = len(asked)
    yield (
        f"test cases: {whole} asked, {whole - sum(blocked.values())} would be judged as far as the "
        f"unhooked model tells, {sum(blocked.values())} blocked"
    )
    for condition, count in blocked.items():
        yield f"  {count} of {condition}: {reasons[condition]}"


def _asked(name: str) -> list[str]:
    """The conditions of all cells that are neither about validity nor deselected for the model."""
    given = [sys.executable, "-m", "pytest", "claims", "--collect-only", "-q", "--model", name]
    # What PYTEST_ADDOPTS says, such as -v, changes the lines that are read here.
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    found = subprocess.run(given, capture_output=True, text=True, check=False, env=env)
    cells = [cell for line in found.stdout.splitlines() if (cell := _CELL.match(line.strip()))]
    if not cells:
        said = (found.stderr or found.stdout).strip().splitlines() or ["it said nothing"]
        raise CommandError(
            f"{name}: `pytest claims --collect-only --model {name}` "
            f"has no test cases ({said[-1]}); run "
            "it in the folder that holds claims/"
        )
    conditions = []
    for cell in cells:
        if cell["module"] != "test_validity":
            named = [each for each in CONDITIONS if cell["cell"].endswith(f"-{each}")]
            conditions.append(named[0] if named else "all")
    return conditions


def _time(bench: "Bench", condition: str) -> Iterator[str]:
    """How long the sweep of one condition takes here, from a timed sample."""
    from tinyablation.interventions.interventions import AblateHeads
    from tinyablation.report.text import duration

    facts = bench.facts
    rows = bench.rows(condition, EVERYTHING)
    every = bench.examples(condition)
    step = max(1, len(every) // PROMPTS)
    prompts = bench.encode(every[::step][:PROMPTS], "clean")
    layers = sorted({(facts.n_layers - 1) * part // (LAYERS - 1) for part in range(LAYERS)})
    seconds = []
    bench.engine.measure(prompts, [AblateHeads((Head(0, 0),))])  # untimed warm-up
    for layer in layers:
        heads = [AblateHeads((Head(layer, head),)) for head in range(facts.n_heads)]
        started = time.perf_counter()
        bench.engine.measure(prompts, heads)
        seconds.append(time.perf_counter() - started)
    whole = sum(seconds) / len(seconds) * facts.n_layers * len(rows) / len(prompts)
    yield (
        f"sweep: {facts.n_layers * facts.n_heads:,} heads x {len(rows)} prompts of {condition}, "
        f"about {duration(whole)} in this process (timed: {len(layers)} layers, {len(prompts)} "
        "prompts); as long again for patches, sets and the rest"
    )
    peak = peak_resident_bytes()
    if peak is not None:  # not available on every system
        yield f"memory: {peak / 1e9:.1f} GB at most so far, as much for each worker"
