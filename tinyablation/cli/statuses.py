"""Exit statuses of `python -m tinyablation`: each means one thing, and none is a traceback's."""

import contextlib
import io
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from tinyablation.characters import printable
from tinyablation.errors import TinyAblationError

DONE = 0
DIFFERENT = 1  # what was compared is not the same
REFUSED = 2  # what was given, or the place to write to, cannot be used; argparse exits so, too
BROKEN_OFF = 3  # out of memory, or a fault of the program
INTERRUPTED = 130  # as a shell says of SIGINT
_HERE = Path(__file__).parents[1]
_MOST = 2_000  # characters of a message of somebody else's; our own are shown whole


def status_of(command: Callable[[], object], *, full_trace: bool = False) -> int:
    """Run a command; its exit status, after one line on stderr where it is neither 0 nor 1.

    full_trace: let errors through, with their traceback.
    """
    _never_refuse(sys.stdout)
    try:
        command()
        sys.stdout.flush()
    except BrokenPipeError:  # as in `... | head`: the reader has all it wanted
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return REFUSED
    except KeyboardInterrupt:
        _say("interrupted")
        return INTERRUPTED
    except Exception as error:
        if full_trace:
            raise
        if isinstance(error, TinyAblationError):
            _say(f"error: {error}")
            return REFUSED
        if isinstance(error, OSError):
            where = f"{error.filename}: " if error.filename else ""
            _say(f"error: {where}{_line(error.strerror or str(error))}")
            return REFUSED
        _say(f"error: {_cause(error)}")
        return BROKEN_OFF
    return DONE


def _never_refuse(stream: object) -> None:
    """Let a stream escape what its encoding lacks, as stderr does.

    A pipe of Windows is cp1252, which has no delta; UTF-8 has no bytes of a file's name that are
    none. Files (--output) are UTF-8 anywhere.
    """
    if isinstance(stream, io.TextIOWrapper) and (
        stream.errors == "strict" or "utf" not in stream.encoding.lower()
    ):
        stream.reconfigure(errors="backslashreplace")


def _cause(error: Exception) -> str:
    if isinstance(error, MemoryError) or "not enough memory" in str(error):
        return (
            "out of memory: nothing that was finished is lost; free some, or ask for less (fewer "
            "models or workers, a smaller --dtype)"
        )
    own = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).is_relative_to(_HERE)
    ]
    where = f" at {Path(own[-1].filename).relative_to(_HERE)}:{own[-1].lineno}" if own else ""
    return (
        f"{type(error).__name__}: {_line(str(error))} (a fault of tinyablation{where}; please "
        "report it with what `python -m tinyablation --full-trace ...` shows)"
    )


def _line(text: str) -> str:
    return " ".join(text.split())[:_MOST]


def _say(text: str) -> None:
    with contextlib.suppress(OSError, ValueError):  # stderr may be closed
        print(printable(text), file=sys.stderr)
