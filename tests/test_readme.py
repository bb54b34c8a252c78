"""What the README says is so: files, options, commands.

Run: pytest tests/test_readme.py
"""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tinyablation.models.registry import load_registry
from tinyablation.records.error_rates import (
    ALL_CONDITIONS,
    EVERY_NULL,
    POWER_DOSE,
    UNTRUE,
    read_error_rates,
)
from tinyablation.verdicts.registered import load_subjects

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
REGISTRY = load_registry(ROOT / "fixtures" / "models.toml")
STUDIED = {
    name
    for name, subject in load_subjects(ROOT / "claims" / "subjects.toml").subjects.items()
    if "study" in subject.source
}
OUTPUT = (
    "reports/claims.html",
    "reports/pytest.html",
    "reports/predictions/",
    "reports/published/",
    "reports/runs/",
    "reports/runs/.jobs/",
    "corpora/<name>/",
)


def paths() -> list[str]:
    quoted = re.findall(r"`([\w./<>-]+/[\w./<>-]*|[A-Z]\w+\.(?:md|cff))`", README)
    return sorted({name for name in quoted if not name.startswith("http")})


@pytest.mark.parametrize("name", paths())
def test_files_exist(name):
    if name not in OUTPUT:
        assert (ROOT / name).exists()


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"`?make (\w+)", README):
        if target not in ("and", "alone"):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_ci_calls_the_two_commands():
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    for target in ("claims", "test"):
        assert re.search(rf"^make {target}$", ci, re.MULTILINE)
        assert re.search(rf"^\$ make {target}\b", README, re.MULTILINE)


def test_options_and_defaults_are_those_of_the_help():
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "claims", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    group = re.search(r"^tinyablation:\n(.*?)^\S", done.stdout, re.MULTILINE | re.DOTALL).group(1)
    offered = set(re.findall(r"--[a-z-]+", group))
    documented = set(re.findall(r"^\| `(--[a-z-]+)", README, re.MULTILINE))
    assert documented == offered
    assert "(default: 0)" in group
    assert "default:\n" in group or "default: reports" in re.sub(r"\s+", " ", group)


def test_embedded_models_and_tokenizers_are_those_named():
    assert len(REGISTRY.local_ids) == 8 and "Eight models are embedded" in README
    table = README.split("## Models", 1)[1].split("\n\n", 2)[1]
    for name in REGISTRY.local_ids:
        assert f"`{name}`" in table or (name.endswith("-plain") and "each also `-plain`" in table)
    named = re.search(r"Built here: ([^.]*)\.", README).group(1).split(", ")
    folders = {path.parent.name for path in (ROOT / "corpora").glob("*/facts.jsonl")}
    assert set(named) == folders


@pytest.mark.parametrize("name", REGISTRY.hub_ids)
def test_the_table_of_models_is_the_registrys(name):
    entry = REGISTRY[name]
    row = next(line for line in README.splitlines() if line.startswith(f"| `{name}` |"))
    _, _, source, status, weights, command, _ = (cell.strip() for cell in row.split("|"))
    assert source == entry.repo
    size = entry.parameters * (4 if entry.dtype == "float32" else 2)
    short = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}[entry.dtype]
    assert weights == f"{size / 1e9:.1f} GB {short}"
    assert ("gated" in status) == entry.gated == ("hf auth login" in command)
    assert ("checkpoints" in status) == bool(entry.checkpoints)
    assert ("the study's heads" in status) == (name in STUDIED)
    asked = command.strip("`").split("`")[-1]
    assert re.match(rf"pytest claims (-k|--model) {re.escape(name)}( -n 4)?$", asked)


def test_the_python_it_asks_for_is_the_one_required():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = re.search(r"Python (\d\.\d+)\+", README).group(1)
    assert project["requires-python"] == f">={wanted}"


def test_constraints_pin_every_dependency_and_draw_no_other_build():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.lower().split("==") for line in lines if line and not line.startswith("#"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["dev"]
    for requirement in wanted:
        name = re.match(r"[\w.-]+", requirement).group(0).lower()
        assert name in pins or name.replace("-", "_") in pins, requirement
    assert pins["torch"] == "2.13.0"
    assert not any("+" in version for version in pins.values())


SPEED = re.search(r"^## Speed\n(.*?)^## ", README, re.MULTILINE | re.DOTALL)
RECORDED = [
    ("engine", "zero 48 heads, all conditions", "{value:.0f} s", "{ratio:.1f} times as long"),
    ("engine", "zero 48 heads, facts", "{value:.0f} s", "{ratio:.1f} times as long"),
    ("engine", "share of torch.mm, necessary operations", "{value:.2f} of the time"),
    ("workers", "a cold run, -n 2", "{value:.0f} s", "{ratio:.2f} times as long"),
    ("startup", "list all claims", "{value:.1f} s"),
    ("startup", 'judge "tiny-gpt2 and facts", measured before', "{value:.1f} s"),
]


@pytest.mark.parametrize(("benchmark", "what", "said"), [(b, w, s) for b, w, *s in RECORDED])
def test_speed_is_one_that_was_recorded(benchmark, what, said):
    assert SPEED is not None
    kept = json.loads((ROOT / "benchmarks" / "results" / f"{benchmark}.json").read_text("utf-8"))
    figures = [one for each in kept["results"] for one in each["figures"] if one["what"] == what]
    rows = [line for line in SPEED[1].splitlines() if line.startswith("| ")]
    assert any(
        all(form.format(**one) in row for form in said)
        for one in figures
        if one.get("ratio") is not None or len(said) == 1
        for row in rows
    )


def test_what_is_said_of_error_rates_is_the_tables():
    rates = read_error_rates(ROOT / "fixtures" / "calibration" / "error_rates.json")
    flat = " ".join(README.split())
    nulls = [row for row in rates.false_positives if row.kind == EVERY_NULL]
    supported = sum(row.k for row in nulls)
    assert supported == sum(row.k_true for row in nulls)
    untrue = [row for row in rates.false_positives if row.kind == UNTRUE]
    assert not any(row.k for row in untrue)
    smallest, largest = (end(row.n for row in untrue) for end in (min, max))
    bounds = [f"{end(row.high for row in untrue):.3f}".lstrip("0") for end in (min, max)]
    by_model = [f"{end(row.high_models for row in untrue):.2f}".lstrip("0") for end in (min, max)]
    at_10 = [p for p in rates.power if (p.condition, p.dose) == (ALL_CONDITIONS, POWER_DOSE)]
    found = {p.test: f"{p.found} of {p.n}" for p in at_10}
    doses = [row.dose for row in rates.detectable]
    for said in (
        f"over {rates.notes[-1].split(' planned')[0]} planned models: all {supported} cells",
        f"of {smallest} to {largest} cells of which a claim is untrue none was supported",
        f"(95 % upper bounds {' to '.join(bounds)}, over models {' to '.join(by_model)})",
        f"from {found['test_zeroing_the_trio_raises_ld']} (H5.1) to "
        f"{found['test_named_head_tops_its_layer']} (H1.1's named head) were found",
        f"80 % are found from {100 * min(doses):.1f} to {100 * max(doses):.1f} % of the clean LD",
    ):
        assert said in flat, said
