"""The plugin as a guest: projects that know nothing of it, and claims in any of their tests.

Run: pytest tests/plugin/test_entry.py
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tinyablation.interventions import batteries
from tinyablation.plugin import command_line
from tinyablation.records import records

pytest_plugins = ["pytester"]
ROOT = Path(__file__).parents[2]
# As the entry point loads it, whichever version is installed.
ENTRY = ("-p", "tinyablation.plugin.entry")
CLAIM = '''
import pytest
from tinyablation.verdicts.verdicts import Verdict

@pytest.mark.claim("LAB.1", conditions="facts")
def test_mine(condition, judge):
    """Mine holds."""
    judge(Verdict("supported", f"because of {condition}"))
'''
PLAIN = "def test_theirs():\n    pass\n"


class Project:
    """A project of somebody else."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self.pytester = pytester
        self.root = pytester.path
        self.write("pyproject.toml", '[project]\nname = "lab"\nversion = "1"\n')

    def write(self, path: str, text: str) -> None:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")

    def run(self, *arguments: str) -> pytest.RunResult:
        return self.pytester.runpytest_subprocess(*ENTRY, *arguments)

    def records(self) -> list[dict]:
        path = self.root / "tinyablation-reports" / "records.json"
        return json.loads(path.read_text())["records"]

    def files(self) -> set[str]:
        """What lies in the project, without what pytest and pytester leave there."""
        left = (".pytest_cache", "__pycache__", "stdout", "stderr", "runpytest-")
        return {path.name for path in self.root.iterdir() if not path.name.startswith(left)}


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project without tests. (Called suite, as tests with sessions of their own are slow.)"""
    for variable in ("PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT", "PYTEST_ADDOPTS", "CI"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.delenv("TRANSFORMERS_OFFLINE", raising=False)  # set by the host that runs this
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return Project(pytester)


def said(result: pytest.RunResult) -> str:
    return "\n".join((*result.outlines, *result.errlines))


def test_what_is_written_out_is_what_its_modules_say():
    assert command_line.PER_RELATION == batteries.PER_RELATION
    assert command_line.PROTOCOLS == records.PROTOCOLS


@pytest.mark.parametrize(("option", "least"), [("--seed", 0), ("--per-relation", 1)])
def test_a_number_below_the_least_is_refused_before_anything_is_measured(option, least):
    given = {}
    command_line._table(lambda name, **rest: given.update({name: rest}))
    number = given[option]["type"]
    assert number(str(least)) == least
    for text in (str(least - 1), "x", "1.5"):
        with pytest.raises(argparse.ArgumentTypeError, match=f"number of at least {least}"):
            number(text)


def test_what_every_session_imports_is_next_to_nothing():
    """Nothing but pytest and the standard library; of that, no more than pytest has already."""
    code = (
        "import sys, pytest, argparse; before = set(sys.modules); "
        "import tinyablation.plugin.entry; print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(done.stdout.split()) == {
        "tinyablation",
        *(f"tinyablation.{name}" for name in ("plugin", "plugin.command_line")),
        *(f"tinyablation.plugin.{name}" for name in ("entry", "marks")),
    }


SEES = """
import sys

def pytest_addoption(parser):
    parser.addoption("--model", default="theirs")
    parser.addoption("--made", dest="claim", type=int, default=7)

def pytest_sessionfinish(session):
    assert (session.config.option.model, session.config.option.claim) == ("theirs", 7)
    plugins = [name for name, _ in session.config.pluginmanager.list_name_plugin()]
    print("LOADED", [name for name in plugins if name.startswith("tinyablation")])
    print("HEAVY", sorted({"torch", "pydantic", "pandas"} & set(sys.modules)))
"""


def test_a_project_without_claims_shows_no_trace(suite):
    """Not even where another has options of the same names, and strict marks."""
    suite.write("tests/test_theirs.py", PLAIN)
    suite.write("conftest.py", SEES)
    with_it = suite.run("-s", "--strict-markers")
    assert with_it.ret == 0
    assert "LOADED ['tinyablation.plugin.entry']" in said(with_it)
    assert "HEAVY []" in with_it.outlines
    assert "-- claims --" not in said(with_it)
    assert suite.files() == {"pyproject.toml", "tests", "conftest.py"}


def test_an_option_of_anothers_name_has_a_long_form(suite):
    suite.write("tests/test_theirs.py", PLAIN)
    suite.write("conftest.py", SEES)
    text = "\n".join(suite.run("--help").outlines)
    assert "--tinyablation-model=ID_OR_PATH" in text and "--condition=NAME=FILE" in text
    suite.write("tests/test_mine.py", CLAIM)
    unknown = suite.run("--tinyablation-model", "tiny-gtp2")
    assert unknown.ret == pytest.ExitCode.USAGE_ERROR
    assert "--model tiny-gtp2: no model has this id" in said(unknown)
    # The command that runs a test case again has the same names.
    shutil.copytree(ROOT / "fixtures" / "organisms" / "tiny-llama", suite.root / "mine")
    suite.write("tests/test_mine.py", CLAIM.replace("(condition", "(model, condition"))
    suite.run("--tinyablation-model", "mine", "--seed", "3").assert_outcomes(passed=1, deselected=9)
    (record,) = suite.records()
    assert record["options"][:2] == ["--tinyablation-model", "mine"]
    assert record["options"][-2:] == ["--seed", "3"]


@pytest.mark.parametrize("workers", [(), ("-n", "2")])
def test_a_claim_in_any_test_file_is_judged(suite, workers):
    suite.write("tests/test_theirs.py", PLAIN)
    suite.write("tests/test_mine.py", CLAIM)
    result = suite.run(*workers)
    result.assert_outcomes(passed=2)
    (record,) = suite.records()
    assert record["claim"] == "LAB.1" and record["statement"] == "Mine holds."
    assert record["test"] == "tests/test_mine.py::test_mine[facts]"
    assert record["reason"] == "because of facts" and record["verdict"] == "supported"
    # Neither snapshots nor the reports of a host.
    assert suite.files() == {"pyproject.toml", "tests", "tinyablation-reports"}
    assert not list(suite.root.rglob("__snapshots__"))
    assert "accepted" not in said(result)


def test_a_refuted_claim_fails(suite):
    suite.write("tests/test_mine.py", CLAIM.replace('"supported"', '"refuted"'))
    result = suite.run()
    result.assert_outcomes(failed=1)
    assert "LAB.1 facts is refuted: because of facts" in said(result)


def test_tests_of_the_project_are_left_alone(suite):
    """Properties that only xdist minds, its Hypothesis profile, its environment, its order."""
    suite.write(
        "tests/test_zeta.py",
        "import os, numpy, pytest\nfrom hypothesis import given, settings, strategies\n"
        "@pytest.mark.parametrize('model', ['b', 'a'])\n"
        "def test_theirs(model, record_property):\n"
        "    record_property('x', numpy.float64(1))\n"
        "    assert 'TRANSFORMERS_OFFLINE' not in os.environ\n"
        "    assert settings().max_examples == 3\n",
    )
    suite.write(
        "conftest.py",
        "from hypothesis import settings\n"
        "settings.register_profile('own', max_examples=3)\nsettings.load_profile('own')\n",
    )
    suite.write("tests/test_mine.py", CLAIM)
    suite.write(
        "tests/test_properties.py",
        "def test_words(record_property):\n"
        "    for name in ('claim', 'device', 'verdict'):\n"
        "        record_property(name, 'C-123')\n",
    )
    suite.pytester.makeini("[pytest]\nmarkers =\n    counterexample: of their own\n")
    result = suite.run("-v", "-p", "no:cacheprovider", "-p", "no:html")
    result.assert_outcomes(passed=4)
    assert [record["claim"] for record in suite.records()] == ["LAB.1"]
    order = [line.split("::")[1].split(" ")[0] for line in result.outlines if "PASSED" in line]
    assert order.index("test_theirs[b]") < order.index("test_theirs[a]")


def test_a_mark_from_elsewhere_is_seen_too(suite):
    """Only the test itself, or its class or module, has the mark when it is collected."""
    suite.write(
        "tests/marks.py", 'import pytest\nours = pytest.mark.claim("LAB.2", conditions="logic")\n'
    )
    suite.write(
        "tests/test_class.py",
        "from marks import ours\nfrom tinyablation.verdicts.verdicts import Verdict\n"
        "@ours\nclass TestMine:\n    def test_it(self, condition, judge):\n"
        '        """It holds."""\n'
        '        judge(Verdict("supported", "so"))\n',
    )
    suite.run().assert_outcomes(passed=1)
    assert [record["condition"] for record in suite.records()] == ["logic"]


def test_settings_of_the_project_are_read_when_a_claim_is_collected(suite):
    suite.write("pyproject.toml", '[tool.tinyablation]\nreport = "out"\n')
    suite.write("tests/test_theirs.py", PLAIN)
    assert suite.run().ret == 0
    suite.write("tests/test_mine.py", CLAIM)
    result = suite.run()
    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert "[tool.tinyablation]: unknown key 'report'; did you mean 'reports'?" in said(result)
    assert "Traceback" not in said(result)


def test_settings_say_what_is_registered_and_where_reports_go(suite):
    suite.write(
        "pyproject.toml",
        '[tool.tinyablation]\nreports = "out"\npredictions = "foreseen.toml"\n'
        'conditions = { own = "own.jsonl" }\n',
    )
    suite.write("foreseen.toml", '["LAB.1"]\n"*" = "refuted"\n')
    line = {"clean": "a b", "corrupt": "a c", "target": " d", "foil": " e"}
    suite.write("own.jsonl", json.dumps(line) + "\n")
    suite.write("tests/test_mine.py", CLAIM.replace('"facts"', '["facts", "own"]'))
    result = suite.run("--accept-defects")
    result.assert_outcomes(failed=1, passed=1)
    assert "LAB.1 facts was predicted refuted, and is supported" in said(result)
    content = json.loads((suite.root / "out" / "records.json").read_text())
    assert [record["condition"] for record in content["records"]] == ["facts", "own"]
    assert "own.jsonl (1 examples" in content["records"][1]["details"]["corpus"]
    assert suite.files() == {"pyproject.toml", "foreseen.toml", "own.jsonl", "tests", "out"}


def test_the_commit_of_the_predictions_is_recorded(suite):
    suite.write("pyproject.toml", '[tool.tinyablation]\npredictions = "foreseen.toml"\n')
    suite.write("foreseen.toml", '["LAB.1"]\n"*" = "supported"\n')
    suite.write("tests/test_mine.py", CLAIM)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "foreseen"]):
        subprocess.run([*git, *words], cwd=suite.root, check=True)
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=suite.root, check=True, capture_output=True, text=True
    ).stdout.strip()
    assert suite.run().ret == 0
    path = suite.root / "tinyablation-reports" / "records.json"
    assert json.loads(path.read_text())["session"]["predictions_commit"] == head


def test_figures_are_compared_where_the_project_says_so(suite):
    suite.write("pyproject.toml", "[tool.tinyablation]\nsnapshots = true\n")
    suite.write("tests/test_mine.py", CLAIM)
    assert suite.run("--snapshot-update-new-only").ret == 0
    assert [path.name for path in suite.root.rglob("__snapshots__/*.json")]
    suite.write("tests/test_mine.py", CLAIM.replace('"supported"', '"inconclusive"'))
    result = suite.run()
    result.assert_outcomes(failed=1)
    assert "the verdict last accepted is supported" in said(result)


def test_a_claim_cannot_take_an_id_of_a_pack(suite):
    """Nor a fixture that claims need."""
    suite.write("packed/__init__.py", "raise RuntimeError('read as text only')\n")
    suite.write(
        "packed/test_a.py", 'import pytest\n@pytest.mark.claim("H1.1")\ndef test_a(): ...\n'
    )
    suite.write("packed-1.dist-info/entry_points.txt", "[tinyablation.claims]\nstudy = packed\n")
    suite.write("packed-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: packed\nVersion: 1\n")
    suite.write("tests/test_mine.py", CLAIM.replace("LAB.1", "H1.1"))
    suite.pytester.makeini("[pytest]\npythonpath = .\n")
    text = said(suite.run("tests"))
    assert "tests/test_mine.py: test_mine: the id H1.1 is taken by the pack study; give" in text
    suite.write("tests/test_mine.py", CLAIM)
    suite.write(
        "tests/conftest.py", "import pytest\n@pytest.fixture\ndef condition(): return 'mine'\n"
    )
    text = said(suite.run("tests"))
    assert "its fixture 'condition' is another one, of tests; rename that fixture" in text
