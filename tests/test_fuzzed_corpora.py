"""Ten thousand damaged lines: each is an example that holds, or an error of file and line.

Run: pytest tests/test_fuzzed_corpora.py
"""

from pathlib import Path

import pytest

from tests.fuzzing import damaged_lines, read_damaged
from tinyablation.corpora.examples import load_corpus

pytestmark = pytest.mark.slow  # some seconds

ROOT = Path(__file__).parent.parent
LINES = 10_000


def test_every_damaged_line_is_an_example_or_an_error_of_file_and_line(tmp_path: Path) -> None:
    own = load_corpus(ROOT / "corpora" / "tiny" / "facts.jsonl").examples
    found = read_damaged(tmp_path, own[:200], LINES, seed=0)
    # Else the damage were none, or nothing of it subtle.
    assert found["refused"] > LINES / 2 and found["accepted"] > LINES / 50
    assert found.total() == LINES


def test_the_lines_are_the_same_each_time_and_differ_from_each_other() -> None:
    rows = [{"clean": "a", "target": " b"}]
    lines = list(damaged_lines(rows, 500, seed=3))
    assert lines == list(damaged_lines(rows, 500, seed=3)) and len(set(lines)) > 200
    assert lines != list(damaged_lines(rows, 500, seed=4))
