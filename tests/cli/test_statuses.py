"""Exit statuses: each means one thing, in one line, and the table of docs/running.md has them all.

Run: pytest tests/cli/test_statuses.py
"""

import errno
import io
import os
import re
from pathlib import Path
from typing import Any, NoReturn

import pytest

from tests.test_main import one_line
from tinyablation import __main__ as command_line
from tinyablation.cli import statuses
from tinyablation.cli.statuses import status_of
from tinyablation.errors import TinyAblationError
from tinyablation.files.manifests import NotWritten

RUNNING = (Path(__file__).parents[2] / "docs" / "running.md").read_text()


def raising(error: BaseException) -> Any:
    def command() -> NoReturn:
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (TinyAblationError("no such model"), 2, "error: no such model"),
        (NotWritten("x: cannot be written (disk full)"), 2, "error: x: cannot be written"),
        (OSError(errno.EACCES, "Permission denied", "/x/y"), 2, "error: /x/y: Permission denied"),
        (MemoryError(), 3, "error: out of memory: "),
        (RuntimeError("DefaultCPUAllocator: not enough memory"), 3, "error: out of memory: "),
        (KeyError("x"), 3, r"error: KeyError: 'x' \(a fault of tinyablation"),
        (RecursionError("too\ndeep"), 3, "error: RecursionError: too deep "),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_an_error_ends_in_a_line_and_its_status(
    error: BaseException, status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status_of(raising(error)) == status
    found = capsys.readouterr()
    assert found.out == "" and found.err.count("\n") == 1 and re.match(said, found.err)


def test_what_the_terminal_cannot_show_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe of Windows is cp1252; a name may be of other bytes than UTF-8."""
    for encoding, shown in (("cp1252", rb"\u0394 \udce9"), ("utf-8", b"\xce\x94 \\udce9")):
        written = io.BytesIO()
        monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, encoding, newline="\n"))
        assert status_of(lambda: print("Δ \udce9")) == statuses.DONE
        assert written.getvalue() == shown + b"\n"


def test_full_trace_lets_an_error_through(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyError):
        status_of(raising(KeyError("x")), full_trace=True)


def test_a_fault_says_where_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tinyablation.cli.compare.read_session", lambda path: {}["records"])
    monkeypatch.setattr("tinyablation.cli.compare.compare_sessions", lambda before, after: None)
    assert command_line.main(["drift", "a", "b"]) == 3
    assert re.search(r"\(a fault of tinyablation at cli.compare.py:\d+; ", one_line(capsys))


@pytest.mark.parametrize("command", ["report", "drift", "verdict", "check", "corpora adopt"])
def test_a_name_of_5000_letters_is_a_line(
    command: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    name = "a" * 5000
    given = {
        "report": [name, "-o", str(tmp_path / "x.html")],
        "drift": [name, name],
        "verdict": [name],
        "check": [name],
        "corpora adopt": [name, "--tokenizer", name],
    }[command]
    assert command_line.main([*command.split(), *given]) == 2
    assert os.listdir(tmp_path) == [] and one_line(capsys)


def test_the_documented_table_has_each_status_once() -> None:
    part = RUNNING.partition("## Exit statuses")[2].partition("\n## ")[0]
    sessions, commands = (
        [int(number) for number in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)]
        for table in part.split("| `python -m tinyablation` |")
    )
    assert sessions == sorted(int(each) for each in pytest.ExitCode if each <= 5)
    assert commands == [
        statuses.DONE,
        statuses.DIFFERENT,
        statuses.REFUSED,
        statuses.BROKEN_OFF,
        statuses.INTERRUPTED,
    ]
