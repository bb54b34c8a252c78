"""Every pitfall put back, one at a time: its test must go red. Run: make mutations

Each mutant of mutants.toml is put into a copy of the project, where its test then runs in a process
of its own. Red means that the test itself failed: an error of collection would be no proof.
"""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
COPIED = ("tinyablation", "claims", "fixtures", "tests", "conftest.py", "pytest.ini")
PITFALLS = [f"P{number}" for number in range(1, 23)]


class Mutant(NamedTuple):
    """One pitfall, put back by putting `new` in place of `old` in `file`."""

    pitfall: str
    what: str
    file: str
    old: str
    new: str
    test: str

    @property
    def name(self) -> str:
        return f"{self.pitfall}: {self.what}"


MUTANTS = [
    Mutant(**table)
    for table in tomllib.loads((HERE / "mutants.toml").read_text(encoding="utf-8"))["mutant"]
]


def test_every_pitfall_has_a_test_named_after_it_and_a_mutant():
    assert list(dict.fromkeys(mutant.pitfall for mutant in MUTANTS)) == PITFALLS
    text = "".join(file.read_text(encoding="utf-8") for file in HERE.glob("test_*_pitfalls.py"))
    named = {f"P{int(number)}" for number in re.findall(r"^def test_p(\d\d)_", text, re.MULTILINE)}
    assert named == set(PITFALLS)
    for mutant in MUTANTS:
        function = mutant.test.rsplit("::", 1)[1]
        assert function.startswith(f"test_p{int(mutant.pitfall[1:]):02d}_"), mutant.name
        assert f"def {function}(" in text, mutant.name


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_what_a_mutant_replaces_stands_there_once(mutant):
    assert (ROOT / mutant.file).read_text(encoding="utf-8").count(mutant.old) == 1
    assert mutant.old != mutant.new


@pytest.fixture(scope="session")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The project as it stands, in a folder of its own; corpora are only read, so linked."""
    folder = tmp_path_factory.mktemp("mutated")
    ignored = shutil.ignore_patterns("__pycache__", "__snapshots__", "checkpoints", "trials.jsonl")
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=ignored)
        else:
            shutil.copyfile(source, folder / name)
    (folder / "corpora").symlink_to(ROOT / "corpora", target_is_directory=True)
    yield folder
    shutil.rmtree(folder)


def run(folder: Path, test: str) -> tuple[int, int, str]:
    """(tests that failed, tests that passed, output) of a test in the copy.

    Where Python would take its modules from is said by the copy itself, for the project may be
    installed in editable mode; no compiled file of an unmutated module is kept or used.
    """
    report = folder / "junit.xml"
    report.unlink(missing_ok=True)
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("PYTEST_XDIST_WORKER", None)
    check = "import tinyablation, sys; sys.exit(0 if {!r} in tinyablation.__file__ else 3)"
    where = [sys.executable, "-c", check.format(str(folder))]
    assert subprocess.run(where, cwd=folder, env=environment, check=False).returncode == 0
    command = [sys.executable, "-m", "pytest", test, "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, f"--junitxml={report}"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    output = done.stdout + done.stderr
    assert done.returncode in (0, 1), output
    (suite,) = ElementTree.parse(report).getroot().iter("testsuite")
    assert int(suite.attrib["errors"]) == 0, output
    failed = int(suite.attrib["failures"])
    return failed, int(suite.attrib["tests"]) - failed - int(suite.attrib["skipped"]), output


@pytest.mark.mutation
def test_without_a_mutant_all_is_green(copy):
    """Else every mutant would seem to be caught."""
    for file in sorted({mutant.test.split("::")[0] for mutant in MUTANTS}):
        failed, passed, output = run(copy, file)
        assert not failed and passed, output


@pytest.mark.mutation
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_is_caught(mutant, copy):
    path = copy / mutant.file
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
    try:
        failed, _, output = run(copy, mutant.test)
    finally:
        path.write_text(text, encoding="utf-8")
    assert failed, f"{mutant.name}: {mutant.test} stays green\n{output}"
