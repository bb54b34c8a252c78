"""The command `report`: the page of one session, or of several merged, and its files."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from tinyablation.characters import printable
from tinyablation.cli.measure import CommandError, add_output_options, refuse_overwriting
from tinyablation.records.records import RecordFile


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command."""
    report = commands.add_parser(
        "report",
        help="write the page of one session of claims, or of several merged",
        description="Writes the page of recorded sessions; nothing is measured. Several sessions "
        "(from other machines, or shards of one) are merged: test cases on which they agree are "
        "shown once, others from each session. Sessions of both protocols are compared.",
    )
    report.add_argument(
        "sessions",
        nargs="+",
        type=Path,
        metavar="RUNS",
        help="a folder of reports, its runs/, records.json, records.parquet, or a claims.html",
    )
    add_output_options(report, "the page to write")
    report.add_argument(
        "--baseline",
        type=Path,
        metavar="PATH",
        help="an earlier session (as RUNS): the page shows what changed since",
    )
    report.add_argument(
        "--export",
        type=Path,
        metavar="DIR",
        help="also write records, CSV, Markdown, LaTeX, and figures as SVG and PNG to this folder",
    )
    report.set_defaults(run=_report)


def _report(options: argparse.Namespace) -> None:
    from tinyablation.report.page import write_report
    from tinyablation.sessions.drift import compare_sessions, summary
    from tinyablation.sessions.reading import read_session

    refuse_overwriting(options)
    if options.export is not None and not options.force and _is_filled(options.export):
        raise CommandError(f"{options.export} is not empty; give another --export, or --force")
    file, other = together([read_session(path) for path in options.sessions])
    baseline = None
    if options.baseline is not None:
        baseline, _ = together([read_session(options.baseline)])
        # An error before anything is written, if they have different protocols.
        drift = compare_sessions(baseline, file)
    runs = [folder for path in options.sessions for folder in _runs_beside(path)]
    print(write_report(file, options.output, other, baseline=baseline, runs=runs))
    if baseline is not None:
        print(printable(f"  since {baseline.session.started}: {summary(drift)}"))
    for line in said_of_merging(file):
        print(printable(f"  {line}"))
    if options.export is not None:
        from tinyablation.report.export_folder import write_exports

        print(write_exports(file, options.export))


def together(files: Sequence[RecordFile]) -> tuple[RecordFile, RecordFile | None]:
    """The sessions merged by protocol: those for the page, and those of the other protocol."""
    from tinyablation.sessions.merging import merge

    corrected = [file for file in files if file.session.protocol == "corrected"]
    published = [file for file in files if file.session.protocol != "corrected"]
    if not corrected:
        return merge(published), None
    return merge(corrected), merge(published) if published else None


def said_of_merging(file: RecordFile) -> list[str]:
    """The terminal line on a merged session: how many sessions and conflicting cells."""
    from tinyablation.sessions.protocol_comparison import disputed

    if not file.session.sources:
        return []
    n = len(disputed(file))
    conflicts = f"{n or 'no'} test case{'s' if n > 1 else ''} in conflict"
    return [f"merged from {len(file.session.sources)} sessions, {conflicts}"]


def _runs_beside(session: Path) -> list[Path]:
    """The folders of run directories that may belong to a given session."""
    folder = session if session.is_dir() else session.parent
    around = [folder, folder / "runs", folder.parent / "runs"]
    return [each for each in around if each.name == "runs" and each.is_dir()]


def _is_filled(folder: Path) -> bool:
    return folder.exists() and bool(os.listdir(folder))
