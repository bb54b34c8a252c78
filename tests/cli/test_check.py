"""`check` says what a model knows and what would be judged, and sweeps nothing.

Run: pytest tests/cli/test_check.py
"""

import re
from pathlib import Path

import pytest

from tinyablation.__main__ import main
from tinyablation.runs.store import RunStore

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


def check(capsys, monkeypatch, *arguments: str) -> tuple[int, str]:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("PYTEST_ADDOPTS", "-v")  # a habit of the user's, and no part of the question
    status = main(["check", *arguments])
    captured = capsys.readouterr()
    return status, captured.out + captured.err


def test_an_embedded_model(tmp_path, capsys, monkeypatch):
    status, said = check(capsys, monkeypatch, "tiny-gpt2", "--runs", str(tmp_path))
    assert status == 0
    for condition in ("facts", "negation", "counterfactual", "logic"):
        assert re.search(rf"^{condition} .*\[.*\]\s+valid$", said, re.MULTILINE), said
    cells = re.search(r"^test cases: (\d+) asked, (\d+) would be judged", said, re.MULTILINE)
    assert cells and cells[1] == cells[2] and int(cells[1]) > 100
    assert "heads: L0H7, L0H0, L0H5 (planted" in said and "memory: " in said
    assert re.search(r"^sweep: 32 heads x \d+ prompts of facts, about \d+ s", said, re.MULTILINE)
    batteries = {RunStore(tmp_path).open(p.name).config.battery for p in tmp_path.glob("*_*")}
    assert batteries == {"baseline", "corrupt"}  # null prompts decide nothing


def test_a_model_that_is_not_there_is_one_line(capsys, monkeypatch):
    status, said = check(capsys, monkeypatch, "/no/such/folder")
    assert status != 0 and said.count("\n") == 1 and "no such folder" in said


def test_of_several_models_each_has_its_say(tmp_path, capsys, monkeypatch):
    status, said = check(
        capsys, monkeypatch, "/no/such/folder", "tiny-gpt2", "--runs", str(tmp_path)
    )
    assert status != 0
    assert re.search(r"^/no/such/folder: .*no such folder", said, re.MULTILINE)
    assert "tiny-gpt2" in said and "test cases:" in said
