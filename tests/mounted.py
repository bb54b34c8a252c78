"""File systems of a test's own: one with little room, and one that cannot be written. Not tests."""

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest


def _mount(*arguments: str) -> None:
    """Skips the test where this user or system may not mount anything."""
    try:
        subprocess.run(["mount", *arguments], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"mount {' '.join(arguments)}: not permitted here ({error})")


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A disk of that size ("200k") at the folder, and nothing on it."""
    folder.mkdir()
    _mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder))
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def resize(folder: Path, size: str) -> None:
    """Make room on a small disk."""
    subprocess.run(["mount", "-o", f"remount,size={size}", str(folder)], check=True)


def _close(folder: Path, seconds: float = 10) -> None:
    """Makes a bound folder read-only; the kernel refuses while a process has a file of it open to
    write, which a session does for milliseconds at a time."""
    remount = ["mount", "-o", "remount,ro,bind", str(folder)]
    until = time.monotonic() + seconds
    while True:
        done = subprocess.run(remount, capture_output=True, text=True)
        if done.returncode == 0:
            return
        if "busy" not in done.stderr or time.monotonic() > until:
            raise OSError(f"{' '.join(remount)}: {done.stderr.strip()}")
        time.sleep(0.005)


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Nobody writes into the folder meanwhile, root neither."""
    if os.geteuid() != 0:
        mode = folder.stat().st_mode
        folder.chmod(0o555)
        try:
            yield
        finally:
            folder.chmod(mode)
        return
    _mount("--bind", str(folder), str(folder))
    try:
        _close(folder)
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
