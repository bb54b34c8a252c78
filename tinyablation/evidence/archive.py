"""Evidence archives: reproducible when written, untrusted when read.

A zip with its own manifest: name, size and sha256 of every other file in it. The same files give
the same bytes. Reading trusts nothing in the archive: no name may lead out of the target folder, no
more is written than declared, and no file is used before all of them match the manifest.
"""

import hashlib
import json
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from tinyablation.errors import TinyAblationError
from tinyablation.files.contents import open_regular
from tinyablation.files.hashes import file_sha256
from tinyablation.files.manifests import (
    MANIFEST,
    path_fault,
    write_atomic,
)

LAYOUT = 1  # incremented when files of an archive change their meaning
# Limits of one archive. The largest expected evidence, the vectors of every head of a hub model in
# four conditions and its sweeps, is under 2 GB; tables do not compress, JSON some tenfold.
MOST_FILES = 20_000
MOST_BYTES = 2**33
MOST_EXPANSION = 200
SMALL = 2**26  # bytes that may always be unpacked, even from a tiny archive
MOST_MANIFEST_BYTES = 2**24
_PIECE = 2**20
_TIME = (1980, 1, 1, 0, 0, 0)  # the earliest time in a zip
_UNIX = 3
_MODE = stat.S_IFREG | 0o644
_ENCRYPTED = 0x1
# Errors that zipfile raises for files that are not zips, or damaged.
_BROKEN = (
    OSError,
    EOFError,
    ValueError,
    NotImplementedError,
    OverflowError,
    RuntimeError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


class BundleError(TinyAblationError):
    """An evidence archive is broken, unsafe or of another version; the message says which."""


def write_archive(path: Path, folder: Path, facts: Mapping[str, Any]) -> None:
    """Write everything in `folder` to a zip, with a manifest of it that also holds `facts`.

    The same files and facts give the same bytes: names are sorted, times are not stored.
    """
    names = sorted(
        each.relative_to(folder).as_posix() for each in folder.rglob("*") if each.is_file()
    )
    files = {
        name: {"size": (folder / name).stat().st_size, "sha256": file_sha256(folder / name)}
        for name in names
    }
    text = json.dumps(
        {"layout": LAYOUT, **facts, "files": files}, indent=1, ensure_ascii=False, allow_nan=False
    )

    def write(handle: BinaryIO) -> None:
        with zipfile.ZipFile(handle, "w") as archive:
            archive.writestr(_entry(MANIFEST), f"{text}\n".encode())
            for name in names:
                entry = _entry(name)
                entry.file_size = files[name]["size"]  # type: ignore[assignment]
                with (folder / name).open("rb") as source, archive.open(entry, "w") as target:
                    while piece := source.read(_PIECE):
                        target.write(piece)

    try:
        write_atomic(path, write)
    except OSError as error:
        raise BundleError(f"{path}: cannot be written ({error.strerror or error})") from error


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _TIME)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.create_system = _UNIX
    entry.external_attr = _MODE << 16
    return entry


def unpack(path: Path, folder: Path) -> dict[str, Any]:
    """Unpack an archive into an empty folder and return its manifest; every file is checked first.

    Raises BundleError, which names the file, what was expected and what was found; the folder must
    then not be used.
    """
    try:
        with open_regular(path) as opened, zipfile.ZipFile(opened) as archive:
            entries = _checked(path, archive)
            manifest = _manifest(path, archive, entries)
            for name, named in manifest["files"].items():
                _extract(path, archive, entries[name], folder / name, named)
    except _BROKEN as error:
        reason = getattr(error, "strerror", None) or error or type(error).__name__
        raise BundleError(f"{path}: is not a complete bundle: {reason}") from error
    return manifest


def _checked(path: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The entries by name, if all may be unpacked."""
    entries = archive.infolist()
    if len(entries) > MOST_FILES:
        raise BundleError(f"{path}: has {len(entries)} files; at most {MOST_FILES} are unpacked")
    seen: set[str] = set()
    for entry in entries:
        name = entry.orig_filename
        fault = _fault(entry)
        # On a case-insensitive file system one of two such names would overwrite the other.
        if fault is None and name.casefold() in seen:
            fault = "occurs twice"
        if fault is not None:
            raise BundleError(f"{path}: {name!r} {fault}; nothing was unpacked")
        seen.add(name.casefold())
    total = sum(entry.file_size for entry in entries)
    most = min(MOST_BYTES, max(SMALL, MOST_EXPANSION * path.stat().st_size))
    if total > most:
        raise BundleError(
            f"{path}: would unpack to {total:,} bytes, from {path.stat().st_size:,}; at most "
            f"{most:,} are unpacked"
        )
    return {entry.filename: entry for entry in entries}


def _fault(entry: zipfile.ZipInfo) -> str | None:
    """Why an entry must not be unpacked; None if it may be."""
    name, kind = entry.orig_filename, stat.S_IFMT(entry.external_attr >> 16)
    fault = path_fault(name)
    if fault is not None or name != entry.filename:
        return fault or "has two names"
    if kind not in (0, stat.S_IFREG):
        return "is a link, or not a file"
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "uses an unsupported compression"
    return "is encrypted" if entry.flag_bits & _ENCRYPTED else None


def _manifest(
    path: Path, archive: zipfile.ZipFile, entries: Mapping[str, zipfile.ZipInfo]
) -> dict[str, Any]:
    """The manifest, which names every other file of the archive, each with size and sha256."""
    if MANIFEST not in entries:
        raise BundleError(f"{path}: has no {MANIFEST}: it is not an evidence bundle")
    if entries[MANIFEST].file_size > MOST_MANIFEST_BYTES:
        raise BundleError(f"{path}: {MANIFEST} has {entries[MANIFEST].file_size:,} bytes")
    with archive.open(entries[MANIFEST]) as source:
        data = source.read(MOST_MANIFEST_BYTES + 1)
    try:
        manifest = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path}: {MANIFEST} is not JSON ({error})") from error
    files = manifest.get("files") if isinstance(manifest, dict) else None
    if not isinstance(files, dict) or not all(_is_named(each) for each in files.values()):
        raise BundleError(f"{path}: {MANIFEST} does not list files with their sizes and hashes")
    if manifest.get("layout") != LAYOUT:
        raise BundleError(
            f"{path}: layout {manifest.get('layout')!r}, this version reads {LAYOUT}: read it with "
            "the version of tinyablation that wrote it"
        )
    missing = sorted(set(files) - set(entries))
    if missing:
        raise BundleError(f"{path}: {missing[0]!r} is listed in {MANIFEST} but missing")
    strange = sorted(set(entries) - set(files) - {MANIFEST})
    if strange:
        raise BundleError(f"{path}: {strange[0]!r} is not listed in {MANIFEST}")
    return dict(manifest)


def _is_named(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and type(entry.get("size")) is int
        and isinstance(entry.get("sha256"), str)
        and re.fullmatch(r"[0-9a-f]{64}", entry["sha256"]) is not None
    )


def _extract(
    path: Path,
    archive: zipfile.ZipFile,
    entry: zipfile.ZipInfo,
    target: Path,
    named: Mapping[str, Any],
) -> None:
    """Unpack one file, at most as many bytes as the manifest gives, and check it."""
    name, size = entry.filename, named["size"]
    found, digest = 0, hashlib.sha256()
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(entry) as source, target.open("xb") as sink:
        while piece := source.read(_PIECE):
            found += len(piece)
            if found > min(size, entry.file_size):
                break
            digest.update(piece)
            sink.write(piece)
    if found != size:
        more = "more than " if found > size else ""
        raise BundleError(
            f"{path}: {name}: expected {size:,} bytes, found {more}{min(found, size):,}"
        )
    if digest.hexdigest() != named["sha256"]:
        raise BundleError(
            f"{path}: {name}: expected sha256 {named['sha256']}, found {digest.hexdigest()}"
        )
