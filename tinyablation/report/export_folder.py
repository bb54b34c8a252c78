"""The files that a session is taken away as: a folder of tables, texts and figures.

records.json records.parquet   everything
cells.csv cells.md cells.tex   a row a cell
summary.md summary.tex         sentences and a table of claims by models, to be pasted
prompts.csv heatmaps.csv …     what a cell has many of (exports.details_csv)
figures/*.svg *.png            forest plots, heatmaps and panels by claim (figures.py)
"""

from pathlib import Path

from tinyablation.errors import TinyAblationError
from tinyablation.files.manifests import write_atomic
from tinyablation.records.records import RecordFile, write_records
from tinyablation.report import export_tables as exports
from tinyablation.report.figures import figures


class ExportError(TinyAblationError):
    """A file cannot be written; the message names it."""


def texts(file: RecordFile) -> dict[str, str]:
    """Every text file of an export, by name."""
    records = file.records
    return {
        "cells.csv": exports.cells_csv(records).text,
        "cells.md": exports.cells_markdown(records).text,
        "cells.tex": exports.cells_tex(records).text,
        "summary.md": exports.summary_markdown(file),
        "summary.tex": exports.summary_tex(file),
        **exports.details_csv(records),
    }


def write_exports(file: RecordFile, folder: Path) -> Path:
    """Write all files of a session under `folder`; returns it.

    Raises ExportError, naming the file, where one cannot be written.
    """
    write_records(file, folder)
    for name, text in texts(file).items():
        _write(folder / name, text.encode("utf-8"))
    for name, data in figures(file):
        _write(folder / "figures" / name, data)
    return folder


def _write(path: Path, data: bytes) -> None:
    try:
        write_atomic(path, lambda stream: stream.write(data))
    except OSError as error:
        raise ExportError(f"{path}: cannot be written: {error.strerror or error}") from error
