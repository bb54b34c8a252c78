"""Every claim has its prediction, every published figure its claim, and an id collects its claims.

Run: pytest tests/test_ledger.py
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tinyablation.plugin.selection import read_docstring
from tinyablation.verdicts.predictions import load_predictions
from tinyablation.verdicts.published import load_published

ROOT = Path(__file__).parent.parent
CLAIMS = ROOT / "claims"


def marked() -> dict[str, str]:
    """The claim that each test function under claims/ judges, by the function's name."""
    found = {}
    for path in sorted(CLAIMS.glob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            for mark in getattr(node, "decorator_list", ()):
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.claim":
                    found[f"{path.name}::{node.name}"] = ast.literal_eval(mark.args[0])
    return found


def test_every_claim_has_a_prediction_and_no_prediction_is_of_another():
    assert set(load_predictions(CLAIMS / "predictions.toml").claims) == set(marked().values())


def test_every_claim_of_ours_says_in_four_parts_what_is_measured():
    claims, read = marked(), 0
    for path in sorted(CLAIMS.glob("test_*.py")):
        for node in ast.parse(path.read_text("utf-8")).body:
            if f"{path.name}::{getattr(node, 'name', '')}" in claims:
                assert all(read_docstring(ast.get_docstring(node))), node.name
                read += 1
    assert read == len(claims)


def test_every_published_figure_is_of_a_claim():
    published = {figure.claim for figure in load_published(CLAIMS / "published.toml").figures}
    assert len(published) >= 28  # the rows of the study's ledger
    assert published <= set(marked().values())


@pytest.mark.parametrize("claims", ["H5.4", "OV.2,S.1", "D"])
def test_a_row_is_collected_by_its_id(claims):
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "claims", "--collect-only", "-q", "--claim", claims],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line for line in done.stdout.splitlines() if "::" in line]
    collected = {line.removeprefix("claims/").partition("[")[0] for line in lines}
    wanted = claims.split(",")
    assert collected == {
        name for name, claim in marked().items() if claim in wanted or claim[0] in wanted
    }
