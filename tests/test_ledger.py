"""Every row of the study's ledger has its claim, collectable by its id, and its published figures.

Run: pytest tests/test_ledger.py
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tinyablation.verdicts.registered import load_predictions, load_published

ROOT = Path(__file__).parent.parent
LEDGER = {
    *(f"H1.{n}" for n in range(1, 9)),
    *(f"H5.{n}" for n in range(1, 6)),
    *(f"H6.{n}" for n in range(1, 5)),
    *(f"OV.{n}" for n in range(1, 4)),
    *(f"G.{n}" for n in range(1, 4)),
    *("K.1", "S.1", "B.1", "B.2", "D.1"),
}


def marked() -> set[str]:
    return {
        claim
        for path in (ROOT / "claims").glob("test_*.py")
        for claim in re.findall(r'@pytest\.mark\.claim\("([^"]+)"\)', path.read_text("utf-8"))
    }


def test_every_row_has_its_claim():
    assert marked() >= LEDGER


def test_every_row_has_its_published_figures_and_every_claim_its_prediction():
    published = {figure.claim for figure in load_published(ROOT / "claims/published.toml").figures}
    assert published == LEDGER
    assert set(load_predictions(ROOT / "claims" / "predictions.toml").claims) == marked()


@pytest.mark.parametrize("claims", ["H5.4", "OV.2,S.1", "D"])
def test_a_row_is_collected_by_its_id(claims):
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "claims", "--collect-only", "-q", "--claim", claims],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    cells = [line for line in done.stdout.splitlines() if "::" in line]
    expected = {"H5.4": 32, "OV.2,S.1": 32 + 8, "D": 32}
    assert len(cells) == expected[claims]
