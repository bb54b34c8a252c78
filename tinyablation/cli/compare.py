"""The command `compare`: changes between two sessions, as terminal tables or as Markdown."""

import argparse
import sys
from pathlib import Path

from tinyablation.cli.measure import add_output_options, put_text, refuse_overwriting
from tinyablation.cli.statuses import DIFFERENT
from tinyablation.errors import TinyAblationError
from tinyablation.report.drift_tables import as_markdown, as_text
from tinyablation.report.markdown import escaped
from tinyablation.sessions.drift import Drift, compare_sessions
from tinyablation.sessions.reading import read_session

VERDICT, FIGURE, ANY, NEVER = "verdict", "figure", "any", "never"


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command."""
    drift = commands.add_parser(
        "compare",
        aliases=["drift"],
        help="show what changed between two sessions of claims, with an exit status for CI",
        description="Compares the records of two sessions, test case by test case: "
        "verdicts, effects beyond "
        "the tolerance of snapshots, predictions, added and removed test cases, and circumstances: "
        "weights, versions, device. Exit status 0, or 1 under the condition of --fail-on.",
    )
    for name, when in (("before", "earlier"), ("after", "later")):
        drift.add_argument(
            name,
            type=Path,
            metavar=name.upper(),
            help=f"the {when} session: a folder of reports, records.json, records.parquet, or a "
            "claims.html",
        )
    drift.add_argument(
        "--markdown",
        action="store_true",
        help="print Markdown, for instance for $GITHUB_STEP_SUMMARY",
    )
    drift.add_argument(
        "--fail-on",
        choices=(VERDICT, FIGURE, ANY, NEVER),
        default=NEVER,
        help="exit with status 1 if a verdict changed; if a verdict or an effect did, beyond the "
        "tolerance; if anything did; in each case also if no test case is in both sessions "
        "(default: %(default)s)",
    )
    add_output_options(drift)
    drift.set_defaults(run=_compare)


def _compare(options: argparse.Namespace) -> None:
    refuse_overwriting(options)
    render = as_markdown if options.markdown else as_text
    try:
        drift = compare_sessions(read_session(options.before), read_session(options.after))
    except TinyAblationError as error:
        # In a step summary an empty output would look like "no drift".
        if options.markdown:
            put_text(f"Not compared: {escaped(str(error))}\n", options)
        raise
    put_text(render(drift), options)
    if _fails(drift, options.fail_on):
        sys.exit(DIFFERENT)


def _fails(drift: Drift, on: str) -> bool:
    """Whether a comparison fails under a condition of --fail-on."""
    if on == NEVER:
        return False
    # Where no cell was compared, nothing shows that nothing changed.
    changed = bool(drift.verdicts) or drift.n_common == 0
    if on == FIGURE:
        changed = changed or bool(drift.moved or drift.shifted)
    return changed or (on == ANY and not drift.nothing)
