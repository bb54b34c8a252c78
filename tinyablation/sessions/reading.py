"""Reads a recorded session from a folder of reports, a file of records, or a page."""

import os
from pathlib import Path

from tinyablation.errors import TinyAblationError
from tinyablation.files.contents import read_text
from tinyablation.records.packs import packs, unpack
from tinyablation.records.records import RecordFile, parse_records, read_records

RECORDS = "records.json"  # the pack of a page, and the file of a folder, that holds a session


class SessionError(TinyAblationError):
    """A page holds no session; the message names it and says what to give instead."""


def read_session(path: Path) -> RecordFile:
    """The session in a report: a folder of reports, its runs/, records.json or .parquet, or a page.

    Raises RecordError, PackError or SessionError, which name the file and the cause.
    """
    if path.name == "runs" and os.path.isdir(path) and not (path / RECORDS).exists():
        path = path.parent  # measurements have no verdicts; the records are one folder up
    if path.suffix != ".html":
        return read_records(path)
    try:
        page = read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        raise SessionError(f"{path}: cannot be read: {error}") from error
    closed = packs(page).get(RECORDS)
    if closed is None:
        raise SessionError(
            f"{path}: holds no records: it is not a page of claims, or one of an older version. "
            "Give the records.json that lies beside it"
        )
    return parse_records(unpack(closed, str(path)).encode("utf-8"), path)
