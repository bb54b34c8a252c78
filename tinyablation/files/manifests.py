"""Durable files: atomic writes, and a manifest that lists the files of a run directory.

A directory is complete if and only if it has a manifest, which is written last.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from tinyablation.errors import RunError
from tinyablation.files.contents import parse_json, read_bytes
from tinyablation.files.hashes import file_sha256

MANIFEST = "manifest.json"
LAYOUT = 1  # incremented when the files of a run directory change their meaning
_TEMPORARY = ".tmp"
_MOST_BYTES = 255  # of a file's name, on every usual file system
# On Windows ":" names drives and NTFS streams, and "\\" separates folders.
_UNSAFE = re.compile(r"[\x00-\x1f\x7f:\\]")


class Damaged(RunError):
    """A complete directory does not hold what its manifest lists: a file was changed or lost."""


class NotWritten(RunError, OSError):
    """A file or folder could not be written: disk full, read-only or no permission.

    It is also an OSError, for callers that can continue without the file.
    """

    def __str__(self) -> str:
        return str(self.args[0])  # OSError.__str__ would show errno and strerror


def remedy(folder: Path) -> str:
    """Advice for a directory that cannot be trusted; the program itself never deletes it."""
    return f"Move {folder} away or delete it, then run again."


def renewal(folder: Path) -> str:
    """Advice for a complete directory whose files are not those of its manifest."""
    return (
        f"Run again with --remeasure, which moves {folder} aside and measures anew, or move it "
        "away or delete it yourself."
    )


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an OSError of the block into NotWritten, which says what could not be written and why.

    TimeoutError and NotWritten pass unchanged.
    """
    try:
        yield
    except (TimeoutError, NotWritten):
        raise
    except OSError as error:
        found = NotWritten(
            f"{path}: cannot be written ({error.strerror or error}). Make room in {path.parent}, "
            "let it be written, or name another folder; what was finished is kept, and the next "
            "attempt goes on from there."
        )
        found.errno, found.strerror = error.errno, error.strerror
        raise found from error


def write_atomic(path: Path, write: Callable[[BinaryIO], object], *, durable: bool = True) -> None:
    """Replace a file atomically: a reader sees either the old file or the complete new one.

    `write` fills a temporary file in the same folder (os.replace is atomic only within one file
    system), which is synced to disk before it is renamed. The temporary file is removed after any
    failure; only a killed process leaves one behind (see remove_leftovers). Raises NotWritten.

    durable: whether to wait for the disk, some milliseconds. If not, a power cut may lose the file
    or leave it empty, and a killed process loses nothing: for what is checked when it is read and
    soon made anew, and for files that a manifest lists, which write_manifest syncs.
    """
    write_together({path: write}, durable=durable)


def write_together(
    writers: Mapping[Path, Callable[[BinaryIO], object]], *, durable: bool = True
) -> None:
    """write_atomic for files that belong together: none is renamed before all are written."""
    temporary: dict[Path, Path] = {}
    try:
        for path, write in writers.items():
            with writing(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                name = f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}{_TEMPORARY}"
                temporary[path] = path.parent / name
                with open(temporary[path], "xb") as handle:
                    write(handle)
                    if durable:
                        handle.flush()
                        os.fsync(handle.fileno())
        for path, made in temporary.items():
            with writing(path):
                os.replace(made, path)
                if durable:
                    _sync(path.parent)
    except BaseException:
        for made in temporary.values():
            with contextlib.suppress(OSError):  # the file system may have become read-only
                made.unlink(missing_ok=True)
        raise


def _sync(place: Path) -> None:
    """Wait until a file is on disk, or, of a folder, what was renamed in it."""
    posix = os.name == "posix"
    if not posix and place.is_dir():  # Windows has no such call
        return
    # Windows syncs only what could be written; elsewhere a file may be read-only by now.
    descriptor = os.open(place, os.O_RDONLY if posix else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files of killed writers. Call only while holding the folder's lock."""
    for path in folder.rglob(f".*{_TEMPORARY}"):
        path.unlink(missing_ok=True)


def write_json(path: Path, value: Any, *, durable: bool = True) -> None:
    """Indented UTF-8 JSON, plain numbers only: NaN or infinity raises RunError naming the file.

    durable: as in write_atomic.
    """
    try:
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise RunError(f"{path}: not plain JSON values: {error}") from error
    write_atomic(path, lambda handle: handle.write(f"{text}\n".encode()), durable=durable)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; RunError if it is missing, unreadable or not an object."""
    try:
        value = parse_json(read_bytes(path))
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise RunError(f"{path}: not JSON ({error})") from error
    if not isinstance(value, dict):
        raise RunError(f"{path}: a JSON object was expected, not {type(value).__name__}")
    return value


def write_manifest(folder: Path, names: Sequence[str], facts: dict[str, Any]) -> None:
    """Write manifest.json: `facts`, and the size and sha256 of every named file (POSIX paths).

    The files are on disk before it is, so whoever writes them need not wait for each.
    """
    places = [folder / name for name in names]
    for place in (*places, *dict.fromkeys(place.parent for place in places)):
        with writing(place):
            _sync(place)
    files = {
        name: {
            "size": (folder / name).stat().st_size,
            "sha256": file_sha256(folder / name),
        }
        for name in names
    }
    write_json(folder / MANIFEST, {"layout": LAYOUT, **facts, "files": files})


def path_fault(name: str) -> str | None:
    """Why a name is not a safe relative path inside a folder, on any system; None if it is one."""
    if _UNSAFE.search(name):
        return "has characters that are not allowed in file names"
    if any(part in ("", ".", "..") for part in name.split("/")):
        return "is not a path inside the folder"
    if any(len(part.encode("utf-8", "replace")) > _MOST_BYTES for part in name.split("/")):
        return "is longer than a file's name can be"
    return None


def check_manifest(folder: Path, *, listed: Collection[str] = ()) -> dict[str, Any]:
    """The manifest of a complete directory, after checking its files.

    Every file of the manifest must exist with the recorded size and sha256, and those of `listed`
    must be among them. Otherwise raises Damaged, which names the file and what to do.
    """
    try:
        manifest = read_json(folder / MANIFEST)
    except RunError as error:
        raise Damaged(f"{error}. {renewal(folder)}") from error
    if manifest.get("layout") != LAYOUT:
        raise Damaged(
            f"{folder / MANIFEST}: layout {manifest.get('layout')!r}, this version reads {LAYOUT}. "
            + renewal(folder)
        )
    files = manifest.get("files")
    if not isinstance(files, dict) or not files:
        raise Damaged(f"{folder / MANIFEST}: field 'files' lists no file. {renewal(folder)}")
    for name, entry in files.items():
        fault = path_fault(name)
        if fault is None and not (
            isinstance(entry, dict)
            and type(entry.get("size")) is int
            and isinstance(entry.get("sha256"), str)
        ):
            fault = "has no size and sha256"
        if fault is not None:
            raise Damaged(
                f"{folder / MANIFEST}: field 'files': {name!r} {fault}. {renewal(folder)}"
            )
    for name in listed:
        if name not in files:
            raise Damaged(f"{folder / MANIFEST}: does not list {name}. {renewal(folder)}")
    for name, entry in files.items():
        path = folder / name
        if not path.is_file():
            raise Damaged(f"{path}: is listed in {MANIFEST} but missing. {renewal(folder)}")
        size = path.stat().st_size
        if size != entry["size"]:
            raise Damaged(
                f"{path}: has {size} bytes, {MANIFEST} says {entry['size']}: it was changed after "
                f"the run. {renewal(folder)}"
            )
        if file_sha256(path) != entry["sha256"]:
            raise Damaged(
                f"{path}: its sha256 is not the one in {MANIFEST}: it was changed after the run. "
                + renewal(folder)
            )
    return manifest
