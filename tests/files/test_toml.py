"""TOML files and what is said of broken ones. Run: pytest tests/files/test_toml.py"""

import pytest

from tinyablation.errors import RunError
from tinyablation.files.toml import read_toml


def test_text_and_content(tmp_path):
    path = tmp_path / "a.toml"
    path.write_bytes("[a]\r\nx = 'é'\r\n".encode())
    assert read_toml(path, RunError) == ("[a]\nx = 'é'\n", {"a": {"x": "é"}})


def test_a_byte_order_mark_is_not_of_the_text(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text("x = 1\n", "utf-8-sig")
    assert read_toml(path, RunError) == ("x = 1\n", {"x": 1})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"x = 'caf\xe9'", r"a\.toml: not UTF-8 \(.*save it as UTF-8"),
        (b"x = 1\n[broken\n", r"a\.toml: not valid TOML: .*line 2"),
        (b"x = 1\nx = 2\n", r"a\.toml: not valid TOML: Cannot overwrite"),
        (None, r"a\.toml: cannot be read \(No such file"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path, content, said):
    path = tmp_path / "a.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RunError, match=said):
        read_toml(path, RunError)


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(RunError, match=r"cannot be read \(Is a directory"):
        read_toml(tmp_path, RunError)
