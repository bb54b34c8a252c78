"""A session believes no stored file that was changed, and --remeasure measures again.

Run: pytest tests/plugin/test_stored_runs.py
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def session(reports: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "claims", "-p", "no:cacheprovider", "-q"]
    command += ["--model", "tiny-gpt2", "--claim", "V.2", "-k", "facts", "--reports", str(reports)]
    return subprocess.run(
        [*command, *options], cwd=ROOT, capture_output=True, text=True, timeout=300
    )


def edited(path: Path) -> None:
    """As a person edits it: a figure, and the size stays."""
    text = path.read_text(encoding="utf-8")
    digit = re.search(r"\d", text)
    assert digit is not None
    at = digit.start()
    path.write_text(text[:at] + str((int(text[at]) + 1) % 10) + text[at + 1 :], encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "verify.json",
        pytest.param("metrics/summary.json", marks=pytest.mark.nightly),
        pytest.param("profile.json", marks=pytest.mark.nightly),
    ],
)
def test_an_edited_file_is_refused_by_name_and_measured_again_on_request(
    name: str, tmp_path: Path
) -> None:
    first = session(tmp_path)
    assert first.returncode == 0, first.stdout
    (run,) = (tmp_path / "runs").glob("tiny-gpt2-baseline-facts_*")
    edited(run / name)
    refused = session(tmp_path)
    assert refused.returncode == 1
    said = " ".join(refused.stdout.split())
    assert f"{run / name}: its sha256 is not the one in manifest.json" in said
    assert "Run again with --remeasure" in said
    again = session(tmp_path, "--remeasure")
    assert again.returncode == 0, again.stdout
    assert len(list((tmp_path / "runs" / ".set-aside").iterdir())) == 1
    assert session(tmp_path).returncode == 0
