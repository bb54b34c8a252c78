"""Contents of files that somebody else may have written: regular files of a bounded size only.

What is refused is refused before it is read: a FIFO would be waited for, /dev/zero never ends, and
a few kilobytes of JSON can say a thousand levels, which the next reader's stack does not hold.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Callable
from io import BufferedReader
from pathlib import Path
from typing import Any, NoReturn

# The largest file that is read as a whole: the tokenizer of Gemma, 33 MB. Records of every embedded
# model have 7.
MOST_BYTES = 2**26
# Brackets, braces and commas, of which there are at least as many as values: those records have
# 250,000. Python takes up to 100 bytes for a value of three letters.
MOST_VALUES = 4_000_000
MOST_LEVELS = 100  # of lists and objects in one another; records have 8
_KINDS: tuple[tuple[Callable[[int], bool], str], ...] = (
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)


def special_kind(mode: int) -> str | None:
    """What a file of this mode is ("a FIFO"), if it is neither a regular file nor a folder."""
    return next((name for is_kind, name in _KINDS if is_kind(mode)), None)


def open_regular(path: Path) -> BufferedReader:
    """A regular file, open for reading; OSError, at once, for a folder, FIFO, device or socket."""
    # Without O_NONBLOCK the open itself waits until somebody writes to a FIFO.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags)
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            kind = special_kind(mode) or "a special file"
            raise OSError(errno.EINVAL, f"it is {kind}, not a regular file", str(path))
        return open(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_bytes(path: Path, most: int = MOST_BYTES) -> bytes:
    """A regular file's bytes; OSError where it is none, or has more than `most` bytes."""
    with open_regular(path) as handle:
        size = os.fstat(handle.fileno()).st_size
        if size <= most:
            data = handle.read(most + 1)  # it may have grown meanwhile
            size = max(size, len(data))
        if size > most:
            raise OSError(
                errno.EFBIG, f"it has {size:,} bytes, at most {most:,} are read", str(path)
            )
    return data


def read_text(path: Path, most: int = MOST_BYTES) -> str:
    """A regular file's text in UTF-8, line ends as "\\n"; OSError as read_bytes, and ValueError."""
    return read_bytes(path, most).decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")


def parse_json(
    text: str | bytes,
    *,
    finite: bool = False,
    pairs: Callable[[list[tuple[str, Any]]], Any] | None = None,
) -> Any:
    """The value of a JSON text (bytes: in UTF-8); ValueError for anything else.

    It is one, too, if there are more than MOST_VALUES values, in more than MOST_LEVELS levels, or,
    where `finite`, numbers that are not finite. pairs: as object_pairs_hook of json.loads.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8")
    values = sum(map(text.count, ",[{"))
    if values > MOST_VALUES:
        raise ValueError(f"it may hold {values:,} values, at most {MOST_VALUES:,} are read")
    try:
        value = json.loads(
            text, object_pairs_hook=pairs, parse_constant=_refuse if finite else None
        )
    except RecursionError as error:
        raise ValueError(f"nested too deeply, over {MOST_LEVELS} levels") from error
    refuse_deep(value)
    return value


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"it holds {constant}, which is not a finite number")


def refuse_deep(value: Any) -> None:
    """Raise ValueError if lists and mappings lie in one another over MOST_LEVELS levels deep."""
    level = [value] if type(value) in (dict, list) else []
    for _ in range(MOST_LEVELS):
        if not level:
            return
        level = [
            item
            for held in level
            for item in (held.values() if type(held) is dict else held)
            if type(item) in (dict, list)
        ]
    if level:
        raise ValueError(f"nested too deeply, over {MOST_LEVELS} levels")
