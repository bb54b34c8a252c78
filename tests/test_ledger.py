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
# The packs, and of how many of their claims figures were published at least.
PACKS = {"suppressors": 28, "literature": 9}


def marked(pack: str = "*") -> dict[str, str]:
    """The claim that each test function of a pack judges, by its module's path and its name."""
    found = {}
    for path in sorted(CLAIMS.glob(f"{pack}/test_*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            for mark in getattr(node, "decorator_list", ()):
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.claim":
                    name = f"{path.relative_to(CLAIMS)}::{node.name}"
                    found[name] = ast.literal_eval(mark.args[0])
    return found


def test_the_packs_are_the_folders_of_claims():
    assert {path.parent.name for path in CLAIMS.rglob("test_*.py")} == PACKS.keys()


@pytest.mark.parametrize("pack", PACKS)
def test_every_claim_has_a_prediction_and_no_prediction_is_of_another(pack):
    predicted = load_predictions(CLAIMS / pack / "predictions.toml").claims
    assert set(predicted) == set(marked(pack).values())


def test_every_claim_of_ours_says_in_four_parts_what_is_measured():
    claims, read = marked(), 0
    for path in sorted(CLAIMS.glob("*/test_*.py")):
        for node in ast.parse(path.read_text("utf-8")).body:
            if f"{path.relative_to(CLAIMS)}::{getattr(node, 'name', '')}" in claims:
                *parts, _ = read_docstring(ast.get_docstring(node))  # an audit may be empty
                assert all(parts), node.name
                read += 1
    assert read == len(claims)


@pytest.mark.parametrize("pack", PACKS)
def test_every_published_figure_is_of_a_claim(pack):
    figures = load_published(CLAIMS / pack / "published.toml").figures
    published = {figure.claim for figure in figures}
    assert len(published) >= PACKS[pack]
    assert published <= set(marked(pack).values())


@pytest.mark.parametrize(
    "claims", ["OV.2,S.1", *(pytest.param(each, marks=pytest.mark.slow) for each in ("H5.4", "D"))]
)
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
        name
        for name, claim in marked().items()
        if claim in wanted or claim.partition(".")[0] in wanted
    }
