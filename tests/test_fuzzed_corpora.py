"""Ten thousand damaged lines: each is an example that holds, or an error of file and line.

Run: pytest tests/test_fuzzed_corpora.py
"""

import re
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.fuzzing import damaged_lines
from tinyablation.corpora import CorpusError, canonical_lines, load_corpus

pytestmark = pytest.mark.slow  # some seconds

ROOT = Path(__file__).parent.parent
LINES = 10_000


def test_every_damaged_line_is_an_example_or_an_error_of_file_and_line(tmp_path: Path) -> None:
    own = load_corpus(ROOT / "corpora" / "tiny" / "facts.jsonl").examples
    rows = [asdict(example) for example in own[1:200]]
    first = canonical_lines(own[:1]).encode()
    path = tmp_path / "facts.jsonl"
    found: Counter[str] = Counter()
    for line in damaged_lines(rows, LINES, seed=0):
        path.write_bytes(first + line + b"\n")
        try:
            corpus = load_corpus(path)
        except CorpusError as error:
            # One of its own line ends may have made several lines of it.
            assert re.match(rf"{re.escape(str(path))}(, line \d+)?: .", str(error), re.DOTALL), line
            if "one format" not in str(error):  # says of the whole file that it mixes two
                assert ", line 1:" not in str(error) and ", line " in str(error), (line, error)
            found["refused"] += 1
        else:
            again = tmp_path / "again.jsonl"
            again.write_text(canonical_lines(corpus.examples), encoding="utf-8", newline="")
            read = load_corpus(again, condition="facts", tokenizer=corpus.tokenizer)
            assert read.content_hash == corpus.content_hash, line
            found["accepted"] += 1
    # Else the damage were none, or nothing of it subtle.
    assert found["refused"] > LINES / 2 and found["accepted"] > LINES / 50
    assert found.total() == LINES


def test_the_lines_are_the_same_each_time_and_differ_from_each_other() -> None:
    rows = [{"clean": "a", "target": " b"}]
    lines = list(damaged_lines(rows, 500, seed=3))
    assert lines == list(damaged_lines(rows, 500, seed=3)) and len(set(lines)) > 200
    assert lines != list(damaged_lines(rows, 500, seed=4))
