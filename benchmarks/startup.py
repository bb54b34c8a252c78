"""Start-up: listing the claims, judging warm measurements, importing modules.

Each command is run several times in turn with all others, after a round that is not counted; the
figure is the best of its runs, which other work on the machine disturbed least. All of them, and
the processor seconds, stand in the details.
"""

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.record import Recording, parser
from benchmarks.timing import ROOT, Seconds, summary, timed

COLLECTING_SECONDS = 2.0
WARM_SECONDS = 6.0
CELLS = "tiny-gpt2 and facts"
# What reads tables, what judges them, what makes the page of them; and what measures.
MODULES = ("records", "statistics", "reporting", "measuring", "engine")
NO_TESTS = 5  # pytest's exit status where there is nothing to collect


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--runs", type=int, default=5, help="of each command")
    options.add_argument(
        "--reports", type=Path, help="a folder with measurements, instead of measuring now"
    )
    arguments = options.parse_args()
    recording = Recording("startup", arguments.results)
    with ExitStack() as stack:
        empty = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (empty / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
        reports = arguments.reports or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        claims = ("-m", "pytest", str(ROOT / "claims"), "-q")
        warm = (*claims, "-k", CELLS, "--reports", str(reports.resolve()))
        commands: dict[str, dict[str, Any]] = {
            "empty": {
                "arguments": ("-m", "pytest", "--collect-only", "-q"),
                "folder": empty,
                "expected": (NO_TESTS,),
            },
            "collect": {"arguments": (*claims, "--collect-only")},
            "warm": {"arguments": warm},
            "torch": {"arguments": ("-c", "import torch")},
            "transformer_lens": {"arguments": ("-c", "import transformer_lens")},
            **{name: {"arguments": ("-c", f"import tinyablation.{name}")} for name in MODULES},
        }
        cold = {name: timed(**command) for name, command in commands.items()}
        found: dict[str, list[Seconds]] = {name: [] for name in commands}
        for _ in range(arguments.runs):
            for name, command in commands.items():
                found[name].append(timed(**command))

    best = {name: min(run.wall for run in runs) for name, runs in found.items()}
    recording.add(
        *("list all claims", best["collect"], "s"),
        *("pytest in an empty folder", best["empty"]),
        of="figure",
        at_most=COLLECTING_SECONDS,
    )
    recording.add(
        *(f'judge "{CELLS}", measured before', best["warm"], "s"),
        *("import transformer_lens", best["transformer_lens"]),
        of="figure",
        at_most=WARM_SECONDS,
    )
    for name in MODULES:
        recording.add(f"import tinyablation.{name}", best[name], "s", "import torch", best["torch"])
    recording.write(
        {
            "first_round": {name: run._asdict() for name, run in cold.items()},
            "seconds": {name: summary(runs) for name, runs in found.items()},
        }
    )


if __name__ == "__main__":
    main()
