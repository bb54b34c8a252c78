"""Run: pytest tests/files/test_manifests.py"""

import errno
import json
import os

import pytest

from tinyablation.errors import RunError
from tinyablation.files.manifests import (
    Damaged,
    NotWritten,
    check_manifest,
    read_json,
    remove_leftovers,
    write_atomic,
    write_json,
    write_manifest,
)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"value": 1})

    def half(handle):
        handle.write(b'{"val')
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomic(path, half)
    assert read_json(path) == {"value": 1}
    assert [each.name for each in tmp_path.iterdir()] == ["a.json"]


def test_a_reader_never_sees_half_a_file(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"value": 1})

    def slow(handle):
        handle.write(b'{"value"')
        handle.flush()
        assert read_json(path) == {"value": 1}
        handle.write(b": 2}")

    write_atomic(path, slow)
    assert read_json(path) == {"value": 2}


def test_leftovers_of_killed_writers_are_removed_and_nothing_else(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / ".a.json.12.ab.tmp").write_bytes(b"half")
    (tmp_path / "deep" / "kept.tmp").write_bytes(b"mine")
    remove_leftovers(tmp_path)
    assert [each.name for each in (tmp_path / "deep").iterdir()] == ["kept.tmp"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_json_is_refused_with_the_file_and_not_written(tmp_path, value):
    with pytest.raises(RunError, match=r"summary\.json"):
        write_json(tmp_path / "summary.json", {"mean": value})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["", "{", "[1]", "\xff"])
def test_json_that_is_no_object_is_refused_with_the_file(tmp_path, text):
    (tmp_path / "x.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(RunError, match=r"x\.json"):
        read_json(tmp_path / "x.json")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics" / "a.txt").write_text("alpha")
    (tmp_path / "b.txt").write_text("beta")
    write_manifest(tmp_path, ("metrics/a.txt", "b.txt"), {"run": "r"})
    return tmp_path


def test_an_untouched_folder_passes(folder):
    assert check_manifest(folder)["run"] == "r"


@pytest.mark.parametrize("name", ["metrics/a.txt", "b.txt"])
def test_same_size_changes_are_found_in_any_file(folder, name):
    (folder / name).write_bytes((folder / name).read_bytes()[:-1] + b"!")
    with pytest.raises(Damaged, match=r"\.txt: its sha256.*Run again with --remeasure"):
        check_manifest(folder)


def test_sizes_and_presence_are_always_checked(folder):
    (folder / "b.txt").write_text("longer")
    with pytest.raises(RunError, match=r"b\.txt: has 6 bytes, manifest\.json says 4"):
        check_manifest(folder)
    (folder / "b.txt").unlink()
    with pytest.raises(RunError, match=r"b\.txt: is listed .* missing"):
        check_manifest(folder)


@pytest.mark.parametrize("changes", [{"layout": 99}, {"files": {}}, {"files": None}])
def test_a_manifest_of_another_kind_is_refused(folder, changes):
    path = folder / "manifest.json"
    path.write_text(json.dumps({**read_json(path), **changes}))
    with pytest.raises(RunError, match=r"manifest\.json"):
        check_manifest(folder)


def test_a_file_may_have_to_be_listed(folder):
    with pytest.raises(RunError, match=r"does not list c\.txt"):
        check_manifest(folder, listed=["c.txt"])


# --- the disk ------------------------------------------------------------------------------------


@pytest.fixture
def synced(monkeypatch):
    """The files and folders that were synced, by inode, in order."""
    found, real = [], os.fsync

    def noted(descriptor):
        found.append(os.fstat(descriptor).st_ino)
        real(descriptor)

    monkeypatch.setattr("tinyablation.files.manifests.os.fsync", noted)
    return found


def inode(path):
    return path.stat().st_ino


def test_a_file_is_on_disk_before_its_name_is_and_both_when_it_is_durable(tmp_path, synced):
    write_json(tmp_path / "a.json", {})
    assert synced == [inode(tmp_path / "a.json"), inode(tmp_path)]
    synced.clear()
    write_json(tmp_path / "b.json", {}, durable=False)
    assert synced == [] and read_json(tmp_path / "b.json") == {}


def test_all_that_a_manifest_lists_is_on_disk_before_it(tmp_path, synced):
    names = ["a.json", "metrics/b.json", "metrics/c.json"]
    for name in names:
        write_json(tmp_path / name, {}, durable=False)
    write_manifest(tmp_path, names, {})
    listed = [
        *(inode(tmp_path / name) for name in names),
        inode(tmp_path),
        inode(tmp_path / "metrics"),
    ]
    assert synced == [*listed, inode(tmp_path / "manifest.json"), inode(tmp_path)]


def test_a_full_disk_under_a_listed_file_leaves_no_manifest(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    write_json(tmp_path / "a.json", {})
    monkeypatch.setattr("tinyablation.files.manifests.os.fsync", full)
    with pytest.raises(NotWritten, match="a.json: cannot be written"):
        write_manifest(tmp_path, ["a.json"], {})
    assert not (tmp_path / "manifest.json").exists()
