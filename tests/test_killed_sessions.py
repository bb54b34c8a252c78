"""Sessions with workers are killed with SIGKILL, and nothing that was finished is lost.

Run: pytest tests/test_killed_sessions.py; `make reliability` for more kills.
"""

import os
from pathlib import Path

import pytest

from tests.killing_sessions import WAYS, kill_at


@pytest.mark.slow
@pytest.mark.nightly  # five cold sessions; test_kills.py kills what they measure with
@pytest.mark.skipif(not hasattr(os, "killpg"), reason="process groups and SIGKILL")
def test_a_killed_session_is_continued_to_the_same_tables(tmp_path: Path) -> None:
    found = kill_at(2, tmp_path)
    assert found["kills"] == 2 and found["tables"] >= 4
    assert {way: found[way] >= 1 for way in WAYS} == dict.fromkeys(WAYS, True)
