"""The skeleton of a claim. Run: pytest tests/cli/test_new_claim.py"""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tinyablation.__main__ import main
from tinyablation.plugin.selection import read_docstring

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_it_writes_a_claim(lab: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new-claim", "LAB.1"]) == 0
    assert capsys.readouterr().out == ("tests/test_lab_1.py\nRun it: pytest tests/test_lab_1.py\n")
    (function,) = [
        node
        for node in ast.parse((lab / "tests" / "test_lab_1.py").read_text()).body
        if isinstance(node, ast.FunctionDef)
    ]
    assert all(read_docstring(ast.get_docstring(function))[:-1])  # the audit may be empty
    (mark,) = function.decorator_list
    assert ast.unparse(mark) == (
        "pytest.mark.claim('LAB.1', models='tiny-gpt2', conditions='facts')"
    )


def test_what_it_writes_is_collected_as_one_cell(lab: Path) -> None:
    assert main(["new-claim", "LAB.2", "--to", "test_two.py", "--condition", "logic"]) == 0
    (lab / "pytest.ini").write_text("[pytest]\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "tinyablation.plugin.entry", "--collect-only", "-q"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert "test_two.py::test_lab_2[tiny-gpt2-logic]" in done.stdout.splitlines()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["lab one"], "'lab one' is not a claim id; give letters of your own"),
        (["LAB.1", "--to", "mine.py"], "pytest finds tests in files called test_*.py"),
        (["LAB.1", "--model", 'a"b'], "give a name without quotes"),
        (["LAB.1", "--to", "file/test_a.py"], "file/test_a.py: cannot be written"),
        (["LAB.1", "--to", "test_there.py"], "test_there.py: is there already"),
    ],
)
def test_nothing_is_overwritten_or_guessed(
    lab: Path, arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (lab / "file").write_text("")
    (lab / "test_there.py").write_text("theirs")
    assert main(["new-claim", *arguments]) == 2
    said = capsys.readouterr()
    assert complaint in said.err and said.err.count("\n") == 1 and said.out == ""
    assert (lab / "test_there.py").read_text() == "theirs"
    assert {path.name for path in lab.iterdir()} == {"file", "test_there.py"}
