"""Archives: the same bytes for the same files, and nothing hostile or damaged is unpacked.

Run: pytest tests/evidence/test_archive.py
"""

import json
import random
import stat
import struct
import zipfile
from pathlib import Path

import pytest

from tinyablation.evidence import archive as archives
from tinyablation.evidence.archive import BundleError, unpack, write_archive
from tinyablation.files.hashes import file_sha256
from tinyablation.files.manifests import MANIFEST

FILES = {
    "records.json": b"[]\n" * 40,
    "runs/a/config.json": b"{}\n",
    "runs/a/x.bin": bytes(range(256)),
}


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    for name, data in FILES.items():
        path = tmp_path / "made" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    write_archive(tmp_path / "a.zip", tmp_path / "made", {"fact": 1})
    return tmp_path / "a.zip"


def unpacked(path: Path) -> dict[str, bytes]:
    folder = path.parent / "unpacked"
    folder.mkdir()
    unpack(path, folder)
    return {
        each.relative_to(folder).as_posix(): each.read_bytes()
        for each in folder.rglob("*")
        if each.is_file()
    }


def refused(path: Path) -> str:
    """What is said of an archive that is refused; nothing of it lies outside its folder."""
    folder = path.parent / "unpacked"
    folder.mkdir(exist_ok=True)
    before = set(path.parent.iterdir())
    with pytest.raises(BundleError) as caught:
        unpack(path, folder)
    assert set(path.parent.iterdir()) == before
    assert not list(path.parent.parent.glob("evil*"))
    assert str(path) in str(caught.value)
    return str(caught.value)


def rewritten(path: Path, change) -> Path:
    """The archive with its entries changed: change(list of (ZipInfo, data)) in place."""
    with zipfile.ZipFile(path) as archive:
        entries = [(info, archive.read(info)) for info in archive.infolist()]
    change(entries)
    with zipfile.ZipFile(path, "w") as archive:
        for info, data in entries:
            archive.writestr(info, data)
    return path


def adding(name: str, mode: int = stat.S_IFREG | 0o644, data: bytes = b"evil"):
    def change(entries):
        info = zipfile.ZipInfo(name)
        info.create_system, info.external_attr = 3, mode << 16
        entries.append((info, data))

    return change


def manifest_with(**changes):
    def change(entries):
        at = next(at for at, (info, _) in enumerate(entries) if info.filename == MANIFEST)
        info, data = entries[at]
        entries[at] = (info, json.dumps({**json.loads(data), **changes}).encode())

    return change


def test_what_goes_in_comes_out(archive):
    assert unpacked(archive) == FILES


def test_the_manifest_names_every_file(archive, tmp_path):
    (tmp_path / "out").mkdir()
    manifest = unpack(archive, tmp_path / "out")
    assert manifest["fact"] == 1 and set(manifest["files"]) == set(FILES)
    for name, named in manifest["files"].items():
        path = tmp_path / "made" / name
        assert named == {"size": path.stat().st_size, "sha256": file_sha256(path)}


def test_the_same_files_give_the_same_bytes(archive, tmp_path):
    for name in reversed(FILES):  # written in another order, at another time, with other rights
        path = tmp_path / "again" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(FILES[name])
        path.chmod(0o600)
    write_archive(tmp_path / "b.zip", tmp_path / "again", {"fact": 1})
    assert (tmp_path / "b.zip").read_bytes() == archive.read_bytes()


@pytest.mark.parametrize(
    "name",
    [
        "../evil",
        "runs/../../evil",
        "/evil",
        "runs//evil",
        "./evil",
        "runs/..",
        "C:evil",
        "C:/evil",
        "..\\evil",
        "runs\\..\\..\\evil",
        "evil:stream",
        "evil\x1b[2J",
        "evil/",
    ],
)
def test_no_name_leads_elsewhere(archive, name):
    assert "nothing was unpacked" in refused(rewritten(archive, adding(name)))
    assert not list((archive.parent / "unpacked").iterdir())


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFDIR])
def test_nothing_but_files(archive, kind):
    said = refused(rewritten(archive, adding("evil", kind | 0o777, b"/etc/passwd")))
    assert "is a link, or not a file" in said


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", ["records.json", "RECORDS.json", MANIFEST])
def test_no_name_stands_in_it_twice(archive, name):
    assert "occurs twice" in refused(rewritten(archive, adding(name)))


def test_encrypted_files_are_refused(archive):
    data = bytearray(archive.read_bytes())
    at = data.rindex(b"PK\x01\x02")  # the last entry of the directory
    data[at + 8] |= 1
    archive.write_bytes(bytes(data))
    assert "encrypted" in refused(archive)


def test_other_compressions_are_refused(archive):
    def change(entries):
        for info, _ in entries:
            info.compress_type = zipfile.ZIP_LZMA

    assert "unsupported compression" in refused(rewritten(archive, change))


def test_a_bomb_is_not_unpacked(archive):
    said = refused(rewritten(archive, bomb))
    assert "would unpack to" in said
    assert not list((archive.parent / "unpacked").iterdir())


def bomb(entries):
    info = zipfile.ZipInfo("zeros")
    info.compress_type = zipfile.ZIP_DEFLATED
    entries.append((info, bytes(archives.SMALL + 1)))


def test_more_files_than_any_evidence_has(archive, monkeypatch):
    monkeypatch.setattr(archives, "MOST_FILES", 3)
    assert "has 4 files" in refused(archive)


def test_no_more_is_written_than_was_declared(archive):
    """The directory says that a file is small, and what is packed is large."""
    data = bytearray(rewritten(archive, longer).read_bytes())
    at = data.rindex(b"PK\x01\x02")
    assert data[at:].find(b"zz.bin") > 0
    struct.pack_into("<I", data, at + 24, 4)  # uncompressed size
    archive.write_bytes(bytes(data))
    refused(archive)
    written = archive.parent / "unpacked" / "zz.bin"
    assert not written.exists() or written.stat().st_size <= 4


def longer(entries):
    info = zipfile.ZipInfo("zz.bin")
    info.compress_type = zipfile.ZIP_DEFLATED
    entries.append((info, bytes(2**22)))
    files = json.loads(entries[0][1])["files"]
    files["zz.bin"] = {"size": 4, "sha256": "0" * 64}
    manifest_with(files=files)(entries)


def test_a_changed_file_is_named_with_both_hashes(archive):
    def change(entries):
        at = next(at for at, (info, _) in enumerate(entries) if info.filename == "runs/a/x.bin")
        entries[at] = (entries[at][0], bytes(256))

    said = refused(rewritten(archive, change))
    recorded = file_sha256(archive.parent / "made" / "runs" / "a" / "x.bin")
    assert f"runs/a/x.bin: expected sha256 {recorded}, found 5341e6b2" in said


def test_a_file_of_another_size_is_named(archive):
    def change(entries):
        at = next(at for at, (info, _) in enumerate(entries) if info.filename == "records.json")
        entries[at] = (entries[at][0], b"[]")

    assert "records.json: expected 120 bytes, found 2" in refused(rewritten(archive, change))


def test_missing_and_unlisted_files_are_named(archive):
    path = archive.with_name("b.zip")
    path.write_bytes(archive.read_bytes())
    said = refused(rewritten(path, lambda entries: entries.pop()))
    assert "'runs/a/x.bin' is listed in manifest.json but missing" in said
    assert "'evil' is not listed" in refused(rewritten(archive, adding("evil")))


def test_a_file_is_no_folder(archive):
    files = {"a": {"size": 1, "sha256": "0" * 64}, "a/b": {"size": 1, "sha256": "0" * 64}}

    def change(entries):
        del entries[1:]
        manifest_with(files=files)(entries)
        adding("a", data=b"1")(entries)
        adding("a/b", data=b"1")(entries)

    refused(rewritten(archive, change))


@pytest.mark.parametrize(
    "changes",
    [
        {"files": None},
        {"files": {"records.json": 1}},
        {"files": {"records.json": {"size": "1", "sha256": "0" * 64}}},
        {"files": {"records.json": {"size": 1, "sha256": "\x1b[2J"}}},
        {"layout": archives.LAYOUT + 1},
    ],
)
def test_a_manifest_that_says_something_else(archive, changes):
    said = refused(rewritten(archive, manifest_with(**changes)))
    assert ("layout 2" if "layout" in changes else "does not list files") in said


def test_what_is_no_zip(tmp_path):
    path = tmp_path / "a.zip"
    assert "no such file" in refused(path).lower()
    for data in (b"", b"PK", b"#!/bin/sh\n", bytes(1000)):
        path.write_bytes(data)
        refused(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("other.txt", "hello")
    assert "has no manifest.json" in refused(path)


def test_damage_anywhere_is_an_error_or_changes_nothing(archive, tmp_path):
    """300 flipped bits and 100 cuts: each is refused, or hit what no file depends on."""
    whole, rng = archive.read_bytes(), random.Random(0)
    damaged = tmp_path / "damaged.zip"
    refusals = 0
    for turn in range(400):
        data = bytearray(whole)
        if turn < 300:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        else:
            del data[rng.randrange(len(data)) :]
        damaged.write_bytes(bytes(data))
        folder = tmp_path / f"turn-{turn}"
        folder.mkdir()
        try:
            manifest = unpack(damaged, folder)
        except BundleError:
            refusals += 1
            continue
        assert {name: (folder / name).read_bytes() for name in manifest["files"]} == FILES
    assert refusals > 250
