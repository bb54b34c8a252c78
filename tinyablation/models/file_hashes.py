"""Hashes of model files, and whether files are still what was hashed.

A file's hash is that of bytes read through one open file. Large files are hashed once: the hash is
cached beside the hub's cache and reused while the file's identity (`Stamp`) is the same.
"""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

from tinyablation.errors import ModelChanged
from tinyablation.files.contents import open_regular, read_bytes
from tinyablation.files.hashes import text_sha256

# The hashes of files of at least this size are cached: 14 GB take some 10 s to read.
REMEMBERED_BYTES = 2**26
# A file this young may change again within the resolution of its times (2 s on FAT, 1 s on some
# network file systems), so its hash is not cached yet.
_SETTLED_NS = 2 * 10**9


class Stamp(NamedTuple):
    """A file's identity without its content.

    Unlike the modification time, the change time cannot be set by a program: it shows writes whose
    modification time was put back, and renames.
    """

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    @classmethod
    def of(cls, found: os.stat_result) -> Self:
        return cls(found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)


@dataclass(frozen=True)
class Watch:
    """Files of the model `name` as they were at one moment; links are followed."""

    name: str
    stamps: Mapping[Path, Stamp]

    @classmethod
    def over(cls, name: str, paths: Iterable[Path]) -> Self:
        """Watch these files from now on; ModelChanged if one is missing."""
        stamps = {}
        for path in paths:
            try:
                stamps[path] = Stamp.of(path.stat())
            except OSError as error:
                raise changed(name, path) from error
        return cls(name, stamps)

    def require_unchanged(self) -> None:
        """Raise ModelChanged, which names the file, if one was written, renamed or replaced."""
        now = Watch.over(self.name, self.stamps)
        for path, seen in self.stamps.items():
            if now.stamps[path] != seen:
                raise changed(self.name, path)


def changed(name: str, path: Path) -> ModelChanged:
    """The error for a file that is not what was hashed."""
    return ModelChanged(
        f"model {name!r}: {path} was changed while it was in use: it is not what was hashed, so "
        "nothing measured with it is stored; leave the model's files alone and run again"
    )


def weights_hash(paths: Sequence[Path], *, fresh: bool = False) -> str:
    """The hash of a model's weights: that of the one file, or files_hash of several.

    fresh: read every byte, whatever the cache says.
    """
    if len(paths) == 1:
        return file_hash(paths[0], fresh=fresh)
    return files_hash(paths, fresh=fresh)


def files_hash(paths: Iterable[Path], *, text: bool = False, fresh: bool = False) -> str:
    """sha256 of the names and hashes of some files; text, fresh: as for file_hash."""
    lines = [f"{path.name} {file_hash(path, text=text, fresh=fresh)}\n" for path in paths]
    return text_sha256("".join(lines))


def file_hash(path: Path, *, text: bool = False, fresh: bool = False) -> str:
    """sha256 of a file, as sha256sum prints it; text: of its content with LF newlines.

    The hash of a large file is cached beside the hub's cache and reused as long as its Stamp is the
    same. fresh: read every byte, whatever the cache says.
    """
    if text:  # a checkout with CRLF line ends holds the same tokenizer
        return hashlib.sha256(read_bytes(path).replace(b"\r\n", b"\n")).hexdigest()
    before = Stamp.of(path.stat())
    if fresh or before.size < REMEMBERED_BYTES:
        return _digest(path)[0]
    note = _note_of(path)
    known = _noted(note, before)
    if known is not None:
        return known
    found, after = _digest(path)
    settled = time.time_ns() - max(after.mtime_ns, after.ctime_ns) > _SETTLED_NS
    if before == after and settled:
        from tinyablation.files.manifests import write_json

        with contextlib.suppress(OSError):  # without the cache, hashing only takes longer
            write_json(note, {**after._asdict(), "sha256": found})
    return found


def _noted(note: Path, seen: Stamp) -> str | None:
    """The cached hash of a file with this stamp; None if there is no readable note of it."""
    try:
        kept = json.loads(note.read_text(encoding="utf-8"))
        return str(kept["sha256"]) if Stamp(*(kept[key] for key in seen._fields)) == seen else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _note_of(path: Path) -> Path:
    from huggingface_hub import cached_assets_path

    folder = cached_assets_path("tinyablation", namespace="hashes")
    return folder / f"{text_sha256(str(path.resolve()))[:32]}.json"


def _digest(path: Path) -> tuple[str, Stamp]:
    """sha256 of a file, and its stamp after the last byte was read."""
    with open_regular(path) as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
        return found, Stamp.of(os.fstat(file.fileno()))
