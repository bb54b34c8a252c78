"""TOML files: read, or refused in one line that names the file."""

import tomllib
from pathlib import Path
from typing import Any

from tinyablation.errors import TinyAblationError
from tinyablation.files.contents import read_text, refuse_deep

MOST_BYTES = 2**18  # the largest, what was published about the claims, has 33 KB
# tomllib keeps every beginning of a dotted key: 100,000 parts in one line would take 40 GB.
MOST_DOTS = 500


def read_toml(path: Path, error: type[TinyAblationError]) -> tuple[str, dict[str, Any]]:
    """A file's text and what it holds; `error` where it cannot be read or is no UTF-8 TOML.

    A byte order mark, which some editors of Windows write, is not of the text.
    """
    try:
        text = read_text(path, MOST_BYTES).removeprefix("\ufeff")
    except OSError as cause:
        raise error(f"{path}: cannot be read ({cause.strerror})") from cause
    except UnicodeDecodeError as cause:
        raise error(f"{path}: not UTF-8 ({cause}); save it as UTF-8") from cause
    for number, line in enumerate(text.splitlines(), 1):
        if line.count(".") > MOST_DOTS:
            raise error(f"{path}:{number}: over {MOST_DOTS} dots; write shorter lines")
    try:
        found = tomllib.loads(text)
        refuse_deep(found)
    except RecursionError as cause:
        raise error(f"{path}: nested too deeply") from cause
    except ValueError as cause:
        # A key given twice is one of these too; the error says at which line.
        raise error(f"{path}: not valid TOML: {cause}") from cause
    return text, found
