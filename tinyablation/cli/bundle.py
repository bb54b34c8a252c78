"""The commands `bundle` and `verdict`: export evidence, and rederive verdicts from it."""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from tinyablation.characters import printable
from tinyablation.cli.measure import add_output_options, refuse_overwriting
from tinyablation.cli.statuses import DIFFERENT
from tinyablation.records.conditions import ALL_CONDITIONS, CONDITIONS


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register both commands."""
    bundle = commands.add_parser(
        "bundle",
        help="write the evidence of recorded claims as one archive",
        description="Judges recorded test cases again on their measurements and "
        "writes everything that "
        "was used as a zip: runs, corpora, facts about the models, records and page, sources of "
        "the claims, with the sha256 of every file. No weights. Nothing is measured.",
    )
    for name, what in (
        ("claim", "ids or families, such as H1.1 or H1"),
        ("model", "model ids"),
        ("condition", f"{', '.join(CONDITIONS)} or {ALL_CONDITIONS} (claims that span them)"),
        ("test", "node ids, as in the records"),
    ):
        bundle.add_argument(
            f"--{name}", nargs="+", default=[], metavar=name.upper(), help=f"{what} (default: any)"
        )
    bundle.add_argument(
        "--reports",
        type=Path,
        default=Path("reports"),
        metavar="DIR",
        help="folder of records.json and runs/ (default: %(default)s)",
    )
    bundle.add_argument(
        "--creator",
        nargs="+",
        default=[],
        metavar="NAME",
        help="who ran the session, which no record says: an organisation, or 'Family, Given'",
    )
    bundle.add_argument("--license", metavar="ID", help="licence of the bundle, such as CC-BY-4.0")
    add_output_options(bundle, "the archive to write")
    _add_project(bundle)
    bundle.set_defaults(run=_bundle)

    verdict = commands.add_parser(
        "verdict",
        help="rederive the verdicts of a bundle",
        description="Checks every file of a bundle, judges its test cases from its tables with the "
        "claims of this checkout, and compares labels, verdicts, figures, reasons, predictions, "
        "outcomes, the page and what is said of the models with that; lists what it could not "
        "verify. Exit status 0 if all is the same, 1 if not, 2 if the bundle is broken or "
        "incomplete.",
    )
    verdict.add_argument("bundle", type=Path, metavar="BUNDLE")
    verdict.add_argument("--json", action="store_true", help="print JSON")
    _add_project(verdict)
    verdict.set_defaults(run=_verdict)


def _add_project(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--project",
        type=Path,
        default=Path(),
        metavar="DIR",
        help="checkout whose claims judge (default: the current folder)",
    )


def _bundle(options: argparse.Namespace) -> None:
    from tinyablation.evidence.bundle import choose, write_bundle
    from tinyablation.evidence.rederivation import EvidenceError
    from tinyablation.files.hashes import file_sha256
    from tinyablation.records.records import read_records

    refuse_overwriting(options)
    asked = {name: getattr(options, name) for name in ("claim", "model", "condition", "test")}
    if not any(asked.values()):
        raise EvidenceError("say which test cases: --claim, --model, --condition or --test")
    file = read_records(options.reports)
    records = choose(file, **{f"{name}s": wanted for name, wanted in asked.items()})
    write_bundle(
        options.output,
        options.project,
        _store_folder(options.reports),
        records,
        file,
        creators=options.creator,
        licence=options.license,
    )
    print(f"{options.output}: {len(records)} test case(s), sha256 {file_sha256(options.output)}")


def _store_folder(reports: Path) -> Path:
    """The folder of the measurements of a reports folder, shared by both protocols."""
    return reports if (reports / "runs").is_dir() else reports.parent


def _verdict(options: argparse.Namespace) -> None:
    from tinyablation.evidence.bundle import judge_bundle
    from tinyablation.evidence.readme import line

    os.environ["HF_HUB_OFFLINE"] = "1"  # a model that is not here is not fetched to be compared
    found = judge_bundle(options.bundle, options.project)
    if options.json:
        print(json.dumps(_document(options.bundle, found), indent=2))
    else:
        said = [f"note: {note}" for note in found.notes]
        for cell in found.cells:
            said += [
                cell.recorded.test,
                f"  recorded  {line(cell.recorded)}",
                f"  derived   {line(cell.derived)}",
                *(f"  differs   {each}" for each in cell.differences),
            ]
        said += [f"differs: {each}" for each in found.differences]
        said += [f"not verified: {each}" for each in found.unverified]
        count = sum(not cell.differences for cell in found.cells)
        print("\n".join(printable(each) for each in said))
        print(f"{count} of {len(found.cells)} test case(s) agree with the record")
        if found.differences:
            print(f"{len(found.differences)} statement(s) of the bundle differ")
    if not found.same:
        sys.exit(DIFFERENT)


def _document(path: Path, found: Any) -> dict[str, Any]:
    from tinyablation.evidence.comparison import compared
    from tinyablation.files.hashes import file_sha256

    return {
        "sha256": file_sha256(path),
        "same": found.same,
        "notes": found.notes,
        "differences": found.differences,
        "not_verified": found.unverified,
        "cells": [
            {
                "test": cell.derived.test,
                **cell.labels,
                "same": not cell.differences,
                "differences": cell.differences,
                "recorded": compared(cell.recorded),
                "derived": compared(cell.derived),
            }
            for cell in found.cells
        ],
    }
