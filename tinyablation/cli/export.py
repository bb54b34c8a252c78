"""The command `export`: recorded results in the formats of those who collect them."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from tinyablation.cli.measure import CommandError, add_output_options, put_text, refuse_overwriting
from tinyablation.cli.report import together

if TYPE_CHECKING:
    from tinyablation.records.records import RecordFile, SessionModel

EEE, MODEL_CARD, ZENODO = "eee", "model-card", "zenodo"
FORMATS = (EEE, MODEL_CARD, ZENODO)


def add_export_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command."""
    export = commands.add_parser(
        "export",
        help="write recorded results as Every Eval Ever, a model card, or metadata for Zenodo",
        description="Writes the recorded results of one model as eee, a JSON document of Every "
        "Eval Ever, or model-card, a model-index and a table for a Hugging Face model card; or, "
        "as zenodo, a .zenodo.json that describes the session. Nothing is measured, and nothing is "
        "sent.",
    )
    export.add_argument(
        "sessions",
        nargs="+",
        type=Path,
        metavar="RUNS",
        help="a folder of reports, its runs/, records.json, records.parquet, or a claims.html",
    )
    export.add_argument("--format", required=True, choices=FORMATS, help="what to write")
    export.add_argument("--model", metavar="ID", help="whose results (default: the only model)")
    export.add_argument(
        "--creator",
        nargs="+",
        default=[],
        metavar="NAME",
        help="who publishes the results, which no record says: an organisation, or 'Family, Given'",
    )
    export.add_argument(
        "--license", metavar="ID", help="licence of what is published, such as CC-BY-4.0 (zenodo)"
    )
    add_output_options(export)
    export.set_defaults(run=_export)


def _export(options: argparse.Namespace) -> None:
    from tinyablation.sessions.reading import read_session

    refuse_overwriting(options)
    file, other = together([read_session(path) for path in options.sessions])
    if other is not None:
        raise CommandError(
            "the sessions are of both protocols, whose figures are different quantities; export "
            "them apart"
        )
    write = {EEE: _eee, MODEL_CARD: _model_card, ZENODO: _zenodo}[options.format]
    put_text(write(file, options), options)


def _eee(file: "RecordFile", options: argparse.Namespace) -> str:
    from tinyablation.report.every_eval_ever import every_eval_ever
    from tinyablation.report.text import json_text

    model, source = _model(file, options), "; ".join(_creators(options))
    return json_text(every_eval_ever(file, model, source=source))


def _model_card(file: "RecordFile", options: argparse.Namespace) -> str:
    from tinyablation.report.model_card import model_card

    model = _model(file, options)
    return model_card(file, model)


def _zenodo(file: "RecordFile", options: argparse.Namespace) -> str:
    from tinyablation.report.text import json_text
    from tinyablation.report.zenodo import zenodo

    if options.model is not None:
        raise CommandError("--format zenodo describes a whole session; leave out --model")
    creators = _creators(options)
    if options.license is None:
        raise CommandError(
            "--format zenodo says under which licence the results are published; give --license "
            "ID, such as CC-BY-4.0"
        )
    return json_text(zenodo(file, creators=creators, licence=options.license))


def _creators(options: argparse.Namespace) -> list[str]:
    if not options.creator or not all(name.strip() for name in options.creator):
        raise CommandError(
            f"--format {options.format} says who publishes the results, and no record does; give "
            "--creator NAME"
        )
    return list(options.creator)


def _model(file: "RecordFile", options: argparse.Namespace) -> "SessionModel":
    """The model that is asked for, or the only one with records."""
    with_records = {record.model for record in file.records}
    known = {model.id: model for model in file.session.models if model.id in with_records}
    if options.model is None and len(known) == 1:
        return next(iter(known.values()))
    if options.model not in known:
        fault = "give --model" if options.model is None else f"--model {options.model}: no records"
        raise CommandError(f"{fault}; there are: {', '.join(known) or 'none'}")
    return known[options.model]
