"""Hashes of values: equal values have equal hashes on every machine."""

import hashlib
import json
from pathlib import Path
from typing import Any

from tinyablation.errors import RunError
from tinyablation.files.contents import open_regular

HASH_DIGITS = 12  # 48 bits: a million runs collide with probability 2e-3 %


def canonical_json(value: Any) -> str:
    """The canonical JSON text of a value: sorted keys, no spaces, ASCII.

    Raises RunError for NaN, infinity and values that JSON cannot represent.
    """
    try:
        return json.dumps(
            value,
            sort_keys=True,
            separators=(",", ":"),
            ensure_ascii=True,
            allow_nan=False,
        )
    except (TypeError, ValueError) as error:
        raise RunError(f"not representable as JSON: {error}") from error


def digest(value: Any) -> str:
    """sha256 (64 hex digits) of the canonical JSON of a value."""
    return text_sha256(canonical_json(value))


def text_sha256(text: str) -> str:
    """sha256 (64 hex digits) of a text encoded as UTF-8."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def file_sha256(path: Path) -> str:
    """sha256 (64 hex digits) of a file's bytes."""
    with open_regular(path) as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
