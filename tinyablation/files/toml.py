"""TOML files: read, or refused in one line that names the file."""

import tomllib
from pathlib import Path
from typing import Any

from tinyablation.errors import TinyAblationError


def read_toml(path: Path, error: type[TinyAblationError]) -> tuple[str, dict[str, Any]]:
    """A file's text and what it holds; `error` where it cannot be read or is no UTF-8 TOML."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as cause:
        raise error(f"{path}: cannot be read ({cause.strerror})") from cause
    except UnicodeDecodeError as cause:
        raise error(f"{path}: not UTF-8 ({cause}); save it as UTF-8") from cause
    try:
        return text, tomllib.loads(text)
    except tomllib.TOMLDecodeError as cause:
        # A key given twice is one of these too; the error says at which line.
        raise error(f"{path}: not valid TOML: {cause}") from cause
