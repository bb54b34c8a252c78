"""Processes that measure are killed with SIGKILL, and nothing that was finished is lost.

Run: pytest tests/test_kills.py; `make reliability` for fifty kills and the figures of the docs.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import killing
from tests.killing import Damage, Sweep

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="fork and SIGKILL"),
]

ROOT = Path(__file__).parent.parent


def run(code: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """In a process of its own, as it forks: this one has threads."""
    return subprocess.run(
        [sys.executable, "-c", code, str(folder)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )


KILL = """
import json, sys
from pathlib import Path
from tests.killing import kill_at
print(json.dumps(kill_at(5, Path(sys.argv[1]), seed=1)))
"""


def test_no_finished_shard_is_lost_and_tables_are_the_same_to_the_byte(tmp_path: Path) -> None:
    done = run(KILL, tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["kills"] == 5 and found["runs completed to the byte"] >= 3
    assert {way: found.get(way, 0) >= 1 for way in killing.WAYS} == dict.fromkeys(
        killing.WAYS, True
    )


class Left(Sweep):
    """What a killed sweep left, made up."""

    def __init__(self, keys: list[str], name: str) -> None:
        self.keys, self.name = keys, name


def test_the_checks_can_fail(tmp_path: Path) -> None:
    """A shard that is not the file of its sidecar, and a summary that claims too much."""
    from tests.synthetic_runs import KEYS, compute, make_config, obtain

    def cut(shard: object) -> object:
        if shard.key == KEYS[2]:  # type: ignore[attr-defined]
            raise ValueError("cut")
        return compute(shard)  # type: ignore[arg-type]

    with pytest.raises(ValueError, match="cut"):
        obtain(tmp_path, with_=cut)
    left = Left(KEYS, make_config().name)
    assert list(left.finished(tmp_path)) == sorted(KEYS[:2])
    summary = tmp_path / left.name / "partial_summary.json"
    said = json.loads(summary.read_text())
    for changes in (
        {"done": KEYS[:3], "missing": KEYS[3:]},
        {"missing": KEYS[3:]},
        {"rows_done": 0},
        {"complete": True},
    ):
        with pytest.raises(Damage, match="partial_summary"):
            left.check_truth(tmp_path, {**said, **changes}, 1)
    left.check_truth(tmp_path, said, 1)
    table = tmp_path / left.name / "shards" / f"{KEYS[1]}.parquet"
    table.write_bytes(table.read_bytes()[:-1])
    with pytest.raises(Damage, match="not that file"):
        left.finished(tmp_path)
