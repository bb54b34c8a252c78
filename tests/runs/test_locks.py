"""Locks between processes: who waits, who does not, and what a dead holder leaves.

Run: pytest tests/runs/test_locks.py
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tinyablation.errors import RunError
from tinyablation.runs.locks import RunLocks

ROOT = Path(__file__).parents[2]

HOLD = """
import sys, time
from pathlib import Path
from tinyablation.runs.locks import RunLocks
locks = RunLocks(Path(sys.argv[1]), "a-run")
with locks.claim("L00") as claimed, locks.whole():
    print(claimed, flush=True)
    time.sleep(600)
"""


def locks(root: Path, **options) -> RunLocks:
    return RunLocks(root, "a-run", **options)


def test_a_claim_is_one_processs_and_never_waited_for(tmp_path):
    with locks(tmp_path).claim("L00") as first, locks(tmp_path).claim("L00") as second:
        assert first and not second
        with locks(tmp_path).claim("L01") as other:
            assert other
    with locks(tmp_path).claim("L00") as again:
        assert again


def test_the_run_as_a_whole_is_apart_from_its_shards_and_notes(tmp_path):
    with locks(tmp_path).claim("L00"), locks(tmp_path).notes(), locks(tmp_path).whole():
        with locks(tmp_path).whole_if_free() as held:
            assert not held
        with RunLocks(tmp_path, "another-run").whole_if_free() as held:
            assert held


def test_who_waits_makes_way_first_and_is_refused_in_time(tmp_path):
    ways = []
    waiting = locks(tmp_path, timeout=0.05, before_waiting=lambda: ways.append(1))
    with waiting.whole():
        assert not ways
        refused = pytest.raises(RunError, match="held by another process for over 0.05 s")
        with refused, waiting.whole():
            pass
    assert ways == [1]


def test_claims_are_forgotten_and_can_be_had_again(tmp_path):
    own = locks(tmp_path)
    with own.claim("L00"):
        pass
    assert own.claim_path("L00").exists()
    own.forget_claims(["L00", "never"])
    assert not own.claim_path("L00").exists()
    with own.claim("L00") as claimed:
        assert claimed


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
def test_the_locks_of_a_killed_process_are_free(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None and process.stdout.readline().strip() == "True"
    with locks(tmp_path).claim("L00") as claimed, locks(tmp_path).whole_if_free() as held:
        assert not claimed and not held
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    with locks(tmp_path).claim("L00") as claimed, locks(tmp_path).whole_if_free() as held:
        assert claimed and held
