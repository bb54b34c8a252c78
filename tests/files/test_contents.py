"""Contents of files: regular ones of a bounded size, JSON of bounded values and levels.

Run: pytest tests/files/test_contents.py
"""

import os
from pathlib import Path

import pytest

from tinyablation.files import contents
from tinyablation.files.contents import parse_json, read_bytes, read_text


def test_a_regular_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes("é\r\nb\r".encode())
    (tmp_path / "link").symlink_to(path)
    assert read_bytes(path) == read_bytes(tmp_path / "link") == "é\r\nb\r".encode()
    assert read_text(path) == "é\nb\n"
    assert read_bytes(path, 6)
    with pytest.raises(OSError, match="it has 6 bytes, at most 5 are read"):
        read_bytes(path, 5)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (os.mkfifo, "it is a FIFO, not a regular file"),
        (lambda path: path.symlink_to("/dev/zero"), "it is a device, not a regular file"),
        (lambda path: (path.touch(), os.truncate(path, 2**40)), "it has 1,099,511,627,776 bytes"),
        (Path.mkdir, "Is a directory"),
        (lambda path: path.symlink_to(path), "Too many levels of symbolic links"),
    ],
)
def test_others_are_refused_at_once(tmp_path: Path, make: object, said: str) -> None:
    make(tmp_path / "a")  # type: ignore[operator]
    with pytest.raises(OSError) as caught:
        read_bytes(tmp_path / "a")
    assert said in str(caught.value.strerror)


def test_json_has_so_many_values_and_levels(monkeypatch: pytest.MonkeyPatch) -> None:
    assert parse_json("[" * 100 + "]" * 100)
    for text in ("[" * 101 + "]" * 101, '{"a":' * 101 + "1" + "}" * 101, "[" * 100_000):
        with pytest.raises(ValueError, match="nested too deeply, over 100 levels"):
            parse_json(text)
    monkeypatch.setattr(contents, "MOST_VALUES", 10)
    assert parse_json(b"[1,2,3,4,5,6,7,8,9]")
    with pytest.raises(ValueError, match="it may hold 11 values, at most 10 are read"):
        parse_json(b"[1,2,3,4,5,6,7,8,9,10,11]")


def test_numbers_may_have_to_be_finite() -> None:
    assert parse_json("[NaN]") != [None]
    with pytest.raises(ValueError, match="holds NaN"):
        parse_json("[NaN]", finite=True)
