"""The locks: what is installed has a hash, and the version that constraints.txt has.

Run: pytest tests/test_locks.py
"""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def locked(name):
    """(package, version, hashes) of each requirement of a lock."""
    text = (ROOT / "locks" / name).read_text(encoding="utf-8")
    found = re.findall(r"^([a-z][\w.-]*)==([^ ]+)(.*(?:\n    .*)*)", text, re.MULTILINE)
    assert len(found) == len(re.findall(r"^[^#\s]", text, re.MULTILINE))
    return [
        (name, version, re.findall(r"sha256:([0-9a-f]{64})", rest)) for name, version, rest in found
    ]


LOCKS = ["requirements.txt", "requirements-torch.txt", "requirements-drift.txt"]


def test_these_are_all_the_locks():
    assert {path.name for path in (ROOT / "locks").iterdir()} == {
        *LOCKS,
        "requirements-torch-cpu.txt",
    }


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_has_hashes_and_the_versions_of_the_constraints(name):
    pins = dict(
        line.split("==") for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    )
    for package, version, hashes in locked(name):
        assert hashes and pins[package] == version, package


def test_the_locks_and_the_constraints_have_the_same_packages():
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    named = [name for lock in LOCKS[:2] for name, _, _ in locked(lock)]
    assert sorted(named) == sorted(re.findall(r"^[^=\n]+", pins, re.MULTILINE))


def test_make_installs_nothing_without_a_hash():
    done = subprocess.run(
        ["make", "--dry-run", "--always-make", ".venv/.ready"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    *checked, own = [line for line in done.stdout.splitlines() if "pip install" in line]
    assert len(checked) == 3 and all("--require-hashes" in line for line in checked)
    assert "--no-deps --no-build-isolation -e ." in own  # nothing is fetched by it
