"""Hashes of files are cached by the file's identity, and changes of files are seen.

Run: pytest tests/models/test_file_hashes.py
"""

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tinyablation.errors import ModelChanged
from tinyablation.models import file_hashes
from tinyablation.models.file_hashes import Stamp, Watch, file_hash


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were hashed; those of 4 bytes are large, and none is too young."""
    monkeypatch.setattr(file_hashes, "REMEMBERED_BYTES", 4)
    monkeypatch.setattr(file_hashes, "_SETTLED_NS", -(10**12))
    notes = tmp_path / "cache"
    monkeypatch.setattr(file_hashes, "_note_of", lambda path: notes / f"{path.name}.json")
    found: list[Path] = []
    digest = file_hashes._digest

    def counting(path: Path) -> tuple[str, Stamp]:
        found.append(path)
        return digest(path)

    monkeypatch.setattr(file_hashes, "_digest", counting)
    return found


def test_the_hash_of_a_large_file_is_kept(tmp_path: Path, read: list[Path]) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"12345678")
    assert [file_hash(path) for _ in range(3)] == [sha256(b"12345678")] * 3 and len(read) == 1
    assert file_hash(path, fresh=True) == sha256(b"12345678") and len(read) == 2
    (tmp_path / "cache" / "model.safetensors.json").write_text("{")
    assert file_hash(path) == sha256(b"12345678") and len(read) == 3


def written(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"87654321")


def replaced(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(b"87654321")
    os.replace(other, path)


@pytest.mark.parametrize("change", [written, replaced])
def test_a_change_is_seen_though_size_and_modification_time_are_put_back(
    change: Callable[[Path], None], tmp_path: Path, read: list[Path]
) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"12345678")
    before = path.stat()
    assert file_hash(path) == sha256(b"12345678")
    watch = Watch.over("m", [path])
    watch.require_unchanged()
    time.sleep(0.02)  # the clock of file systems ticks every 4 ms or so
    change(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (8, before.st_mtime_ns)
    assert file_hash(path) == sha256(b"87654321")
    with pytest.raises(ModelChanged, match=f"model 'm': {path} was changed while it was in use"):
        watch.require_unchanged()


def test_a_file_that_is_gone_was_changed(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.touch()
    watch = Watch.over("m", [path])
    path.unlink()
    with pytest.raises(ModelChanged, match="a was changed"):
        watch.require_unchanged()
    with pytest.raises(ModelChanged, match="a was changed"):
        Watch.over("m", [path])


def test_the_hash_of_a_file_just_written_is_not_kept_yet(
    tmp_path: Path, read: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_hashes, "_SETTLED_NS", 2 * 10**9)
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"12345678")
    assert [file_hash(path) for _ in range(2)] == [sha256(b"12345678")] * 2 and len(read) == 2


def test_a_cache_that_cannot_be_written_loses_nothing(
    tmp_path: Path, read: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(file_hashes, "_note_of", lambda path: tmp_path / "file" / "note.json")
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"12345678")
    assert file_hash(path) == sha256(b"12345678")


def test_the_note_lies_in_the_caches_of_the_hub(tmp_path: Path, monkeypatch: Any) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_ASSETS_CACHE", str(tmp_path))
    monkeypatch.setattr(
        "huggingface_hub.utils._cache_assets.HF_ASSETS_CACHE", str(tmp_path), raising=False
    )
    assert file_hashes._note_of(tmp_path / "x").is_relative_to(tmp_path)
