"""The workflows: valid, minimal in what they may do, and every command in them is one that exists.

Run: pytest tests/test_workflows.py

PyYAML reads YAML 1.1, in which the key `on` is the boolean true: it is workflow[True] here, and
GitHub, which reads 1.2, sees "on".
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from _pytest.mark import KeywordMatcher
from _pytest.mark.expression import Expression

from tests.fake_sessions import one_record
from tests.test_locks import locked
from tinyablation.models.registry import load_registry
from tinyablation.plugin.command_line import Command
from tinyablation.records.records import CONDITIONS, RecordFile, write_records

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / ".github" / "workflows"
CI, NIGHTLY, RELEASE = (FOLDER / f"{name}.yml" for name in ("ci", "nightly", "release"))
ALL = (CI, NIGHTLY, RELEASE)
BOTH = pytest.mark.parametrize("path", [CI, NIGHTLY], ids=lambda path: path.stem)
EACH = pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
ON = True  # see above
REGISTRY = load_registry(ROOT / "fixtures" / "models.toml")


def workflow(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def steps(path):
    """(job id, job, step) of a workflow."""
    return [
        (name, job, step) for name, job in workflow(path)["jobs"].items() for step in job["steps"]
    ]


def script(path, name):
    """The script of the step called so."""
    (found,) = [step["run"] for _, _, step in steps(path) if step.get("name") == name]
    return found


def uploads(path):
    return [step for _, _, step in steps(path) if "/upload-artifact@" in step.get("uses", "")]


# --- the files as such -------------------------------------------------------------------------


def test_these_are_all_the_workflows():
    assert set(FOLDER.iterdir()) == set(ALL)


def check_schema(*paths):
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema"]
    return subprocess.run(
        [*command, "vendor.github-workflows", *map(str, paths)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


def test_they_follow_the_schema_that_github_publishes():
    done = check_schema(*ALL)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("timeout-minutes: 60", "timeout: 60"),
        ("contents: read", "contents: sometimes"),
        ("runs-on:", "run-on:"),
        ("      - uses: actions", "      - use: actions"),
    ],
)
def test_the_schema_check_finds_a_mistake(tmp_path, old, new):
    text = CI.read_text(encoding="utf-8")
    assert old in text
    broken = tmp_path / "ci.yml"
    broken.write_text(text.replace(old, new), encoding="utf-8")
    assert check_schema(broken).returncode == 1


@EACH
def test_actionlint_has_nothing_to_say(path):
    if shutil.which("actionlint") is None:
        pytest.skip("actionlint is not on the PATH; CI runs it, from a release on GitHub")
    done = subprocess.run(
        ["actionlint", "-no-color", str(path)], cwd=ROOT, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_actionlint_knows_the_label_of_the_runners_and_the_variables():
    config = yaml.safe_load((ROOT / ".github" / "actionlint.yaml").read_text(encoding="utf-8"))
    labels = set(workflow(NIGHTLY)["jobs"]["claims"]["runs-on"]) - {"self-hosted"}
    assert set(config["self-hosted-runner"]["labels"]) == labels == {"gpu"}
    used = set(re.findall(r"vars\.(\w+)", CI.read_text("utf-8") + NIGHTLY.read_text("utf-8")))
    assert set(config["config-variables"]) == used


@EACH
def test_permissions_are_minimal(path):
    assert workflow(path)["permissions"] == {"contents": "read"}
    more = {
        name: job["permissions"]
        for name, job in workflow(path)["jobs"].items()
        if "permissions" in job
    }
    # The drift job reads the artifacts of earlier runs.
    reads = {"drift": {"contents": "read", "actions": "read"}}
    # PyPI knows the publisher by a token that GitHub gives the job.
    publishes = {"publish": {"id-token": "write"}}
    assert more == {CI: {}, NIGHTLY: reads, RELEASE: publishes}[path]
    for _, _, step in steps(path):
        if "/checkout@" in step.get("uses", ""):
            assert step["with"]["persist-credentials"] is False


@EACH
def test_every_job_ends(path):
    for name, job in workflow(path)["jobs"].items():
        assert 0 < job["timeout-minutes"] <= 600, name


@EACH
def test_actions_are_pinned_by_commit_with_their_version(path):
    lines = [line for line in path.read_text("utf-8").splitlines() if "uses:" in line]
    assert lines
    for line in lines:
        owner = "(actions|pypa)" if path == RELEASE else "actions"
        assert re.search(rf"uses: {owner}/[a-z-]+@[0-9a-f]{{40}} # v\d+\.\d+\.\d+$", line), line


def test_an_action_has_one_version():
    text = "".join(path.read_text("utf-8") for path in ALL)
    pins = set(re.findall(r"uses: (\S+)@(.+)", text))
    assert len({name for name, _ in pins}) == len(pins)


@EACH
def test_no_expression_stands_in_a_script(path):
    """GitHub pastes its value into the text before the shell reads it: an input could be code."""
    for _, _, step in steps(path):
        assert "${{" not in step.get("run", "")


@EACH
def test_scripts_use_only_variables_that_are_set(path):
    given = {"GITHUB_RUN_ID", "GITHUB_STEP_SUMMARY"}
    for _, job, step in steps(path):
        text = step.get("run", "")
        known = given | {
            name for part in (workflow(path), job, step) for name in part.get("env", {})
        }
        own = set(re.findall(r"^\s*(\w+)=", text, re.MULTILINE))
        own |= set(re.findall(r"\bfor (\w+) in", text))
        used = set(re.findall(r"\$\{?#?([A-Za-z_]\w*)", text))
        assert used <= known | own, step


@BOTH
def test_reports_are_uploaded_after_a_failure_too(path):
    names = [step["with"]["name"] for step in uploads(path)]
    assert len(set(names)) == len(names) == (1 if path == CI else 2)
    for step in uploads(path):
        assert step["if"] == "${{ always() }}"
        first, *others = step["with"]["path"].split()
        # reports/README.md is no output: with it, a job that crashed would leave a report.
        assert (
            first == "reports/" and set(others) == {"!reports/runs/", "!reports/README.md"}
        ) or ([first, *others] == ["reports/runs/"])
        assert step["with"]["if-no-files-found"] == "warn"
        assert "${{ matrix." in step["with"]["name"]  # jobs of a matrix must not share a name
    if path == NIGHTLY:
        assert uploads(path)[1]["with"]["path"] == "reports/runs/"


# --- CI ----------------------------------------------------------------------------------------


def test_ci_runs_on_every_push_and_pull_request():
    found = workflow(CI)
    assert found[ON] == {"push": None, "pull_request": None}
    assert found["concurrency"]["cancel-in-progress"] is True
    assert "github.ref" in found["concurrency"]["group"]


def test_ci_tests_the_oldest_python_and_a_newer_one():
    suite = workflow(CI)["jobs"]["suite"]
    first, *newer = suite["strategy"]["matrix"]["python"]
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'requires-python = ">={first}"' in project
    minor = [int(version.removeprefix("3.")) for version in (first, *newer)]
    assert newer and minor == sorted(minor) and len(set(minor)) == len(minor)


def test_ci_takes_the_cpu_build_of_the_pinned_torch():
    suite = workflow(CI)["jobs"]["suite"]
    assert suite["env"]["PIP_EXTRA_INDEX_URL"] == "https://download.pytorch.org/whl/cpu"
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    pin = re.search(r"^torch==(\S+)$", pins, re.MULTILINE).group(1)
    ((name, version, hashes),) = locked("requirements-torch-cpu.txt")
    assert (name, version) == ("torch", f"{pin}+cpu")
    assert len(hashes) == len(suite["strategy"]["matrix"]["python"])


def test_ci_judges_the_claims_whatever_the_tests_said():
    names = [step.get("name") for _, _, step in steps(CI)]
    assert names.index("Test the instruments") < names.index("Judge the claims")
    (claims,) = [step for _, _, step in steps(CI) if step.get("name") == "Judge the claims"]
    assert claims["if"] == "${{ !cancelled() && steps.install.outcome == 'success' }}"
    assert script(CI, "Test the instruments").startswith("make test")
    assert claims["run"].startswith("make claims")


# --- the release -------------------------------------------------------------------------------


def test_a_release_is_built_and_tried_before_it_is_published():
    """By a job that may not publish, from a release of this repository; no secret is needed."""
    found = workflow(RELEASE)
    assert found[ON] == {"release": {"types": ["published"]}, "workflow_dispatch": None}
    build, publish = found["jobs"]["build"], found["jobs"]["publish"]
    scripts = [step["run"] for step in build["steps"] if "run" in step]
    assert scripts[-2:] == ["make dist", "make wheel"]
    assert publish["needs"] == "build" and publish["if"] == "${{ github.event_name == 'release' }}"
    assert publish["environment"] == {"name": "pypi", "url": "https://pypi.org/p/tinyablation"}
    assert not [step for step in publish["steps"] if "run" in step]
    assert "secrets." not in RELEASE.read_text("utf-8")
    names = {
        step["with"]["name"]
        for job in (build, publish)
        for step in job["steps"]
        if "load-artifact@" in step["uses" if "uses" in step else "run"]
    }
    assert names == {"dist"}


# --- the commands ------------------------------------------------------------------------------


def commands(path):
    """The scripts of one command, as words; without those that tests below run as a whole."""
    return [
        shlex.split(step["run"])
        for _, _, step in steps(path)
        if "run" in step and "\n" not in step["run"].strip()
    ]


def kind(words):
    if words[:3] == ["python", "-m", "pip"]:
        return "pip"
    return Path(words[0]).name


def test_every_command_is_looked_at():
    kinds = {kind(words) for path in ALL for words in commands(path)}
    assert kinds == {"make", "pytest", "pip", "actionlint", "npm"}
    longer = [
        step["name"]
        for path in (CI, NIGHTLY)
        for _, _, step in steps(path)
        if "\n" in step.get("run", "").strip()
    ]
    assert longer == ["Install actionlint", *DRIFT_STEPS]


@EACH
def test_make_targets_exist(path):
    found = [words for words in commands(path) if kind(words) == "make"]
    assert found
    for words in found:
        done = subprocess.run(
            [words[0], "--dry-run", "--always-make", *words[1:]],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        if "WORKERS=4" in words:
            assert "-n 4" in done.stdout


def test_what_pip_installs_is_pinned_by_hash():
    found = [
        words[3:] for path in (CI, NIGHTLY) for words in commands(path) if kind(words) == "pip"
    ]
    assert found == [["install", "--require-hashes", "-r", "locks/requirements-drift.txt"]]
    for path in (CI, NIGHTLY):
        for _, _, step in steps(path):
            assert "pip install" not in step.get("run", "") or "--require-hashes" in step["run"]


def test_a_download_is_compared_with_its_hash_before_it_is_unpacked():
    text = script(CI, "Install actionlint")
    url = re.search(r"https://\S+", text).group(0)
    assert url.startswith("https://github.com/rhysd/actionlint/releases/download/v")
    assert re.search(r"[0-9a-f]{64}  actionlint\.tar\.gz", text)
    assert text.index("sha256sum --check") < text.index("tar -xzf")


def nightly_arguments(tmp_path, model, **inputs):
    """What the nightly's script gives pytest, as the shell makes it, for a model of the matrix."""
    job = workflow(NIGHTLY)["jobs"]["claims"]
    values = {"DEVICE": "auto", "DTYPE": "auto", "REVISION": ""} | inputs
    (tmp_path / ".venv" / "bin").mkdir(parents=True, exist_ok=True)
    program = tmp_path / ".venv" / "bin" / "pytest"
    program.write_text(
        f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n", encoding="utf-8"
    )
    program.chmod(0o755)
    assert {"MODEL", "SELECT", *values} <= set(job["env"])
    done = subprocess.run(
        ["bash", "-e", "-u", "-c", script(NIGHTLY, "Judge the claims")],
        cwd=tmp_path,
        env={**os.environ, **values, "MODEL": model, "SELECT": selection(model)},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def selection(model):
    """The -k expression of a model: what the workflow's `a == 'x' && 'y' || a` comes to."""
    text = workflow(NIGHTLY)["jobs"]["claims"]["env"]["SELECT"]
    pattern = r"\$\{\{ matrix\.model == '([^']+)' && '([^']+)' \|\| matrix\.model \}\}"
    one, expression = re.fullmatch(pattern, text).groups()
    return expression if model == one else model


def test_pytest_knows_the_options_of_the_nightly(tmp_path, pytestconfig):
    given = nightly_arguments(tmp_path, "gpt2-xl")
    assert given[:6] == ["claims", "-k", "gpt2-xl", "-n", "4", "--require-models"]
    found, unknown = pytestconfig._parser.parse_known_and_unknown_args(given)
    options = Command(found)
    assert unknown == []
    assert options.file_or_dir == ["claims"] and options.require_models
    assert (options.keyword, options.device, options.dtype) == ("gpt2-xl", "auto", "auto")
    assert options.model == [] and options.revision is None
    assert options.xmlpath.startswith("reports/")  # and so it is uploaded


def test_inputs_reach_pytest_as_one_word_each(tmp_path, pytestconfig):
    harm = "main; touch $(pwd)/harmed `id`"
    given = nightly_arguments(tmp_path, "gpt2", REVISION=harm, DEVICE="cuda:1", DTYPE="bfloat16")
    found, unknown = pytestconfig._parser.parse_known_and_unknown_args(given)
    options = Command(found)
    assert unknown == [] and not (tmp_path / "harmed").exists()
    assert (options.revision, options.device, options.dtype) == (harm, "cuda:1", "bfloat16")
    assert options.model == ["gpt2"]  # --revision is that of a --model


def test_dtypes_offered_are_those_of_pytest(pytestconfig):
    offered = workflow(NIGHTLY)[ON]["workflow_dispatch"]["inputs"]["dtype"]["options"]
    for dtype in offered:
        pytestconfig._parser.parse_known_and_unknown_args(["--dtype", dtype])
    assert offered[0] == "auto" and len(offered) == 4


# --- the nightly -------------------------------------------------------------------------------


def matrix_models():
    text = workflow(NIGHTLY)["jobs"]["claims"]["strategy"]["matrix"]["model"]
    listed = re.fullmatch(r"\$\{\{ fromJSON\(inputs\.models \|\| '(\[.*\])'\) \}\}", text).group(1)
    return json.loads(listed)


def test_the_matrix_is_every_hub_model_of_the_registry():
    assert matrix_models() == list(REGISTRY.hub_ids)


def test_the_nightly_is_scheduled_and_can_be_asked_for():
    found = workflow(NIGHTLY)
    (schedule,) = found[ON]["schedule"]
    minute, hour, *rest = schedule["cron"].split()
    assert minute.isdecimal() and hour.isdecimal() and rest == ["*", "*", "*"]
    inputs = found[ON]["workflow_dispatch"]["inputs"]
    assert set(inputs) == {"models", "revision", "device", "dtype"}
    assert found["concurrency"] == {"group": "nightly", "cancel-in-progress": False}
    job = found["jobs"]["claims"]
    assert job["runs-on"] == ["self-hosted", "gpu"] and job["strategy"]["fail-fast"] is False
    # Scheduled runs have no inputs.
    assert job["env"]["DEVICE"].endswith("|| 'auto' }}")
    assert job["env"]["DTYPE"].endswith("|| 'auto' }}")


def test_weights_stay_on_the_disk_and_the_token_with_its_step():
    job = workflow(NIGHTLY)["jobs"]["claims"]
    assert re.fullmatch(r"\$\{\{ vars\.HF_HOME \|\| '/[\w/]+' \}\}", job["env"]["HF_HOME"])
    holders = [step["name"] for _, _, step in steps(NIGHTLY) if "HF_TOKEN" in step.get("env", {})]
    assert holders == ["Judge the claims"]
    assert NIGHTLY.read_text(encoding="utf-8").count("secrets.") == 1
    assert "secrets." not in CI.read_text(encoding="utf-8")
    # The Makefile forbids downloads, so `make claims` would never see a model of the hub.
    assert "HF_HUB_OFFLINE" in (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "make claims" not in NIGHTLY.read_text(encoding="utf-8").replace("`make claims`", "")


def cell_names(model):
    """The names of the cells that pytest makes of every claim for a model, with their module's."""
    for module in sorted((ROOT / "claims").glob("*/test_*.py")):
        tests = re.findall(r"^def (test_\w+)", module.read_text(encoding="utf-8"), re.MULTILINE)
        for test in tests:
            of_pack = [path.stem for path in (module.parent / "conditions").glob("*.jsonl")]
            for cell in (model, *(f"{model}-{name}" for name in (*CONDITIONS, *of_pack))):
                names = {"claims", module.parent.name, module.name}
                yield names | {f"{test}[{cell}]", "claim", "hub", "parametrize"}


@pytest.mark.parametrize("model", REGISTRY.hub_ids)
def test_each_expression_selects_its_own_model_alone(model):
    expression = Expression.compile(selection(model))
    for other in REGISTRY.ids:
        found = {expression.evaluate(KeywordMatcher(names)) for names in cell_names(other)}
        assert found == {other == model}, other


def test_the_expression_of_gpt2_is_needed():
    """-k gpt2 alone would run seven models in that job."""
    plain = Expression.compile("gpt2")
    found = [
        model
        for model in REGISTRY.ids
        if plain.evaluate(KeywordMatcher({f"test_x[{model}-facts]"}))
    ]
    assert len(found) > 1 and "gpt2" in found


def test_pytest_collects_the_model_of_the_job_and_no_other(tmp_path):
    """The whole command, collected in a process of its own; for the one hard expression."""
    given = nightly_arguments(tmp_path, "gpt2")
    given[given.index("-n") : given.index("-n") + 2] = []
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *given, "--collect-only", "-q"],
        cwd=ROOT,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    cells = [line.rsplit("[", 1)[1] for line in done.stdout.splitlines() if "::" in line]
    assert len(cells) > 50
    of_packs = [path.stem for path in (ROOT / "claims").glob("*/conditions/*.jsonl")]
    # Of a pack's conditions some are measured beside another one, and judged by themselves nowhere.
    every = {"gpt2]", *(f"gpt2-{name}]" for name in CONDITIONS)}
    assert every < set(cells) <= every | {f"gpt2-{name}]" for name in of_packs}


# --- drift between two nights ------------------------------------------------------------------

DRIFT_STEPS = [
    "Download the reports of this run",
    "Download the reports of the last night",
    "Show what changed",
]
# Stands in for gh: artifacts are folders <run>/<name>; `run list` prints the file "nights".
GH = """#!/usr/bin/env bash
set -euo pipefail
echo "$*" >> "$FAKE_GH/asked"
if [ "$1 $2" = "run list" ]; then
  cat "$FAKE_GH/nights"
  exit
fi
[ "$1 $2" = "run download" ]
run=$3 option=$4 wanted=$5
[ "$6" = "--dir" ]
folder=$7
shopt -s nullglob
if [ "$option" = "--name" ]; then
  [ -d "$FAKE_GH/$run/$wanted" ] || { echo "no artifact matches" >&2; exit 1; }
  mkdir -p "$folder"
  cp -r "$FAKE_GH/$run/$wanted/." "$folder"
else
  [ "$option" = "--pattern" ]
  found=("$FAKE_GH/$run"/$wanted/)
  [ ${#found[@]} -gt 0 ] || { echo "no artifact matches" >&2; exit 1; }
  for one in "${found[@]}"; do cp -r "$one" "$folder/$(basename "$one")"; done
fi
"""


class Nights:
    """A repository with runs of the nightly, and the drift job on a machine of its own."""

    def __init__(self, folder):
        self.folder, self.gh = folder, folder / "gh"
        programs = folder / "bin"
        programs.mkdir()
        self.gh.mkdir()
        (self.gh / "nights").write_text("", encoding="utf-8")
        for name, text in (("gh", GH), ("python", f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')):
            (programs / name).write_text(text, encoding="utf-8")
            (programs / name).chmod(0o755)
        self.path = f"{programs}{os.pathsep}{os.environ['PATH']}"

    def completed(self, *runs):
        """These nights are completed, the latest first."""
        (self.gh / "nights").write_text("".join(f"{run}\n" for run in runs), encoding="utf-8")

    def report(self, run, model, *, kind="nightly", verdict="supported", **session):
        """Upload a report of one cell."""
        record = one_record(claim="H1.1", name="test_x", model=model, condition="facts")
        record = record.model_copy(update={"verdict": verdict, "effect": None})
        fields = {
            "started": "2025-03-01T01:00:00Z",
            "command": "pytest claims",
            "versions": {},
            "platform": "Linux",
            "device": "cuda",
            "predictions_hash": "",
            "complete": True,
        }
        content = {"session": fields | session, "records": [record]}
        folder = self.gh / str(run) / f"{kind}-report-{model}"
        write_records(RecordFile.model_validate(content), folder)
        return folder

    def compare(self, run, kind="nightly"):
        """The steps of the drift job in order, as GitHub runs them; (summary, output)."""
        place = self.folder / f"work-{run}"
        place.mkdir()
        summary = place / "summary.md"
        summary.touch()
        env = {
            "PATH": self.path,
            "FAKE_GH": str(self.gh),
            "GITHUB_RUN_ID": str(run),
            "GITHUB_STEP_SUMMARY": str(summary),
            "KIND": kind,
            "HOME": str(place),
            "PYTHONPATH": str(ROOT),
        }
        said = ""
        for name in DRIFT_STEPS:
            file = place / "step.sh"
            file.write_text(script(NIGHTLY, name), encoding="utf-8")
            done = subprocess.run(
                ["bash", "-e", str(file)], cwd=place, env=env, capture_output=True, text=True
            )
            assert done.returncode == 0, f"{name}: {done.stdout}{done.stderr}"
            said += done.stdout
        return summary.read_text(encoding="utf-8"), said


@pytest.fixture
def nights(tmp_path):
    return Nights(tmp_path)


def test_the_first_night_has_nothing_to_compare_with(nights):
    nights.report(1, "gpt2")
    summary, said = nights.compare(1)
    assert summary == "\n### gpt2\n\nNo earlier night to compare with.\n"
    assert "warning" not in said


def test_the_second_night_is_compared_with_the_first(nights):
    nights.report(1, "gpt2")
    nights.report(1, "gpt2-medium")
    nights.completed(1)
    nights.report(2, "gpt2", verdict="refuted")
    nights.report(2, "gpt2-medium")
    summary, said = nights.compare(2)
    second, first = sorted(summary.split("\n### ")[1:])  # "gpt2\n" is before "gpt2-"
    assert first.startswith("gpt2-medium\n\nNothing changed: 1 test case with")
    assert second.startswith("gpt2\n\n1 of 1 test case changed its verdict, no effect moved.\n")
    assert "| H1.1 | x | gpt2 | facts | supported | refuted |" in second
    assert "warning" not in said


def test_a_model_that_failed_last_night_is_compared_with_the_night_before(nights):
    for night, verdict in ((1, "blocked"), (2, "supported")):
        nights.report(night, "pythia-1.4b", verdict=verdict)
    nights.report(3, "gpt2")
    nights.completed(3, 2, 1)
    nights.report(4, "pythia-1.4b", verdict="refuted")
    summary, _ = nights.compare(4)
    assert "| facts | supported | refuted |" in summary and "gpt2" not in summary


def test_a_night_that_wrote_no_records_is_passed_over(nights):
    nights.report(1, "gpt2")
    broken = nights.report(2, "gpt2")
    (broken / "records.json").unlink()
    nights.completed(2, 1)
    nights.report(3, "gpt2", verdict="refuted")
    summary, said = nights.compare(3)
    assert "| facts | supported | refuted |" in summary and "warning" not in said


def test_a_run_that_was_asked_for_is_compared_but_is_no_night(nights):
    nights.report(1, "gpt2")
    nights.report(2, "gpt2", kind="dispatched", verdict="refuted")
    nights.completed(1)
    summary, _ = nights.compare(2, "dispatched")
    assert "| facts | supported | refuted |" in summary
    nights.report(3, "gpt2")
    summary, _ = nights.compare(3)
    assert "Nothing changed" in summary
    asked = (nights.gh / "asked").read_text(encoding="utf-8")
    assert "run list --workflow nightly.yml --event schedule --status completed --limit 14" in asked


def test_what_cannot_be_compared_is_said_and_the_others_are(nights):
    nights.report(1, "gpt2", protocol="published")
    nights.report(1, "mistral-7b")
    (nights.report(1, "llama-2-7b") / "records.json").write_text("{", encoding="utf-8")
    nights.completed(1)
    for model in ("gpt2", "llama-2-7b", "mistral-7b"):
        nights.report(2, model, device="cpu")
    summary, said = nights.compare(2)
    gpt2, llama, mistral = summary.split("\n### ")[1:]
    assert gpt2.startswith("gpt2\n\nNot compared: the sessions cannot be compared: ")
    assert llama.startswith("llama-2-7b\n\nNot compared: ")
    assert "What differs beside: device." in mistral
    assert said.count("::warning::") == 2 and "::warning::gpt2: not compared" in said


def test_a_night_without_any_report_says_so(nights):
    nights.report(1, "gpt2")
    nights.completed(1)
    summary, said = nights.compare(2)
    assert summary == "No model left a report in this run.\n"
    assert "::warning::no model left a report" in said


def test_a_list_of_nights_that_cannot_be_had_breaks_nothing(nights):
    nights.report(2, "gpt2")
    (nights.gh / "nights").unlink()
    summary, said = nights.compare(2)
    assert "No earlier night to compare with." in summary
    assert "::warning::earlier nights cannot be listed" in said


def test_drift_is_shown_after_failures_too():
    job = workflow(NIGHTLY)["jobs"]["drift"]
    assert job["needs"] == "claims" and job["if"] == "${{ !cancelled() }}"
    assert set(job["env"]) == {"GH_TOKEN", "GH_REPO"} and job["runs-on"] == "ubuntu-latest"
    kind = workflow(NIGHTLY)["env"]["KIND"]
    assert kind == "${{ github.event_name == 'schedule' && 'nightly' || 'dispatched' }}"
    (report, _) = uploads(NIGHTLY)
    assert report["with"]["name"] == "${{ env.KIND }}-report-${{ matrix.model }}"
