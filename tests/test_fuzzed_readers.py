"""Every reader, on damaged files: read, or refused in one line, soon, and nothing is written.

`make fuzz` goes on with the same for ten minutes; what it finds is kept under findings/.

Run: pytest tests/test_fuzzed_readers.py
"""

import logging
import random
import tempfile
import time
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.readers import FINDINGS, Fault, Reader, damaged, readers, require_taken
from tinyablation.errors import TinyAblationError

READERS = readers()
FOUND = sorted(path for path in FINDINGS.rglob("*") if path.is_file())


@pytest.fixture(autouse=True)
def _quiet() -> None:
    logging.getLogger("tinyablation").setLevel(logging.ERROR)  # discarded shards, one by one


@pytest.mark.parametrize("name", READERS)
def test_the_good_file_is_read(name: str, tmp_path: Path) -> None:
    """Else what follows would show nothing."""
    assert require_taken(READERS[name], READERS[name].good, tmp_path)


@pytest.mark.parametrize("name", READERS)
@settings(max_examples=12, deadline=None, derandomize=True, database=None)
@given(draws=st.randoms(use_true_random=False))
def test_a_damaged_file_is_read_or_refused(name: str, draws: random.Random) -> None:
    reader = READERS[name]
    with tempfile.TemporaryDirectory() as folder:
        require_taken(reader, damaged(reader.good, reader.name, draws), Path(folder))


@pytest.mark.parametrize("path", FOUND, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_what_was_found_stays_mended(path: Path, tmp_path: Path) -> None:
    require_taken(READERS[path.parent.name], path.read_bytes(), tmp_path)


def _fail(error: Exception) -> NoReturn:
    raise error


def _busy(seconds: float) -> None:
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (lambda path: _fail(KeyError("x")), "KeyError"),
        (lambda path: _fail(TinyAblationError("two\nlines")), "not one line"),
        (lambda path: path.with_name("more").write_text("x"), "it left"),
        (lambda path: _busy(1.1), "it took .* s"),
        (lambda path: bytes(range(256)) * 2_000_000, "it took .* MB"),
    ],
)
def test_a_reader_with_a_fault_is_found(fault: object, said: str, tmp_path: Path) -> None:
    reader = Reader("given.json", b"{}", fault)  # type: ignore[arg-type]
    with pytest.raises(Fault, match=said):
        require_taken(reader, reader.good, tmp_path)


def test_half_the_damage_is_refused() -> None:
    """Damage that were always or never seen would try only one of the two ways."""
    draws = random.Random(0)
    reader = READERS["run config"]
    with tempfile.TemporaryDirectory() as folder:
        taken = [
            require_taken(reader, damaged(reader.good, reader.name, draws), Path(folder))
            for _ in range(200)
        ]
    assert 10 < sum(taken) < 190
