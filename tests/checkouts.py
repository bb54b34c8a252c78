"""Copies of the project, to change what it holds and run it as it stands there. Not tests."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent
COPIED = ("tinyablation", "claims", "fixtures", "tests", "docs", "README.md")
SETTINGS = ("conftest.py", "pytest.ini", "pyproject.toml")


def checkout(folder: Path, *names: str, without: Sequence[str] = (), corpora: bool = True) -> Path:
    """The project in a folder of its own: these parts of it, or all that a session needs.

    without: patterns of names that are left out. Corpora are only read, so they are linked.
    """
    folder.mkdir(parents=True, exist_ok=True)
    left_out = shutil.ignore_patterns("__pycache__", *without)
    for name in (*(names or COPIED), *SETTINGS):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=left_out)
        else:
            shutil.copyfile(source, folder / name)
    if corpora:
        (folder / "corpora").symlink_to(ROOT / "corpora", target_is_directory=True)
    return folder


def environment(folder: Path, **more: str) -> dict[str, str]:
    """Has Python take the project's modules from the copy, though another one is installed."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    kept |= {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1", "HF_HUB_OFFLINE": "1"}
    return kept | more


def run(folder: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    """python -m WORDS in a copy."""
    return subprocess.run(
        [sys.executable, "-m", *words],
        cwd=folder,
        env=environment(folder, **more),
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
