"""The README's walk, from a claim to the page, is the one that a session goes.

Run: pytest tests/test_walk.py
"""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
STOP = re.compile(r"^\d+\. `(?P<path>[\w/]+\.py)`, `(?P<name>[\w.]+)`", re.MULTILINE)


def stops() -> list[tuple[str, str]]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    walk = text[text.index("**The walk**") :]
    return [(match["path"], match["name"]) for match in STOP.finditer(walk)]


def test_every_stop_is_a_function_of_its_file():
    assert len(stops()) == 10
    for path, name in stops():
        scope: ast.AST = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        for part in name.split("."):
            scope = next(
                node
                for node in ast.iter_child_nodes(scope)
                if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == part
            )


@pytest.mark.slow  # a session of its own, cold
def test_a_session_goes_this_way(tmp_path):
    cell = ["--model", "tiny-gpt2", "--claim", "H1.1", "-k", "facts and named_head"]
    options = ["-p", "tests.walking", *cell, "--reports", str(tmp_path / "reports")]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "claims", *options],
        cwd=ROOT,
        env=os.environ | {"WALK": json.dumps(stops()), "WALKED": str(tmp_path / "walked.json")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    walked = [tuple(stop) for stop in json.loads((tmp_path / "walked.json").read_text())]
    assert walked == stops()
