"""`pytest claims --robustness` itself, on an embedded model: what is examined, and that it agrees.

Run: pytest tests/test_examined_cells.py
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.nightly]
ROOT = Path(__file__).parent.parent
CELLS = (
    "tiny-llama and not plain and (counterfactual or test_same_heads"
    " or (logic and improves_calibration))"  # K.1 is blocked on counterfactual
)
# Claims whose functions ask for more than tables of ablations, patches and paths.
NO_MULTIVERSE = ("D.1", "G.2", "OV.1", "OV.2", "OV.3", "S.1", "V")


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    reports = tmp_path_factory.mktemp("reports")
    command = [
        *(sys.executable, "-m", "pytest", "claims", "-k", CELLS, "--robustness"),
        *("--reports", str(reports), "-p", "no:cacheprovider"),
    ]
    ended = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout
    found: list[dict[str, Any]] = json.loads((reports / "records.json").read_text())["records"]
    return [record for record in found if record["verdict"] != "blocked"]


def test_every_claim_about_tables_has_a_multiverse(records: list[dict[str, Any]]) -> None:
    with_one = {record["claim"] for record in records if record["multiverse"]}
    without = {record["claim"] for record in records if not record["multiverse"]}
    assert all(claim.startswith(NO_MULTIVERSE) for claim in without), without
    assert {"H1.1", "H1.3", "H5.1", "H5.4", "H6.1", "H6.3", "B.2", "G.1", "K.1"} <= with_one
    for record in records:
        if found := record["multiverse"]:
            # The registered analysis is one of them.
            assert 1 <= found["agreed"] <= found["n"], record["test"]
            assert found["agreed"] == found["verdicts"][record["verdict"]], record["test"]


def test_every_supported_claim_about_one_prompt_has_a_boundary(
    records: list[dict[str, Any]],
) -> None:
    text = "".join(
        path.read_text("utf-8")
        for path in sorted((ROOT / "claims" / "suppressors").glob("test_*.py"))
    )
    marked = set(re.findall(r"@pytest.mark.counterexample\(.*\)\n(?:@.*\n)*def (\w+)", text))
    assert len(marked) >= 9
    seen = set()
    for record in records:
        wanted = record["verdict"] == "supported" and record["name"] in marked
        assert (record["boundary"] is not None) == wanted, record["test"]
        if wanted:
            seen.add(record["claim"])
            assert record["boundary"]["searched"] > 0
            failed, shown = record["boundary"]["failed"], record["boundary"]["found"]
            assert bool(failed) == bool(shown), record["test"]
    assert {"V.1", "H1.1"} <= seen
