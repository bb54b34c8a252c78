"""What the README and the pages of docs/ say is so: files, links, options, commands, figures.

Run: pytest tests/test_readme.py; `make docs` checks the links and anchors between pages
"""

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

import pytest
import yaml

from tests.test_structure import ORDER
from tinyablation.models.registry import load_registry
from tinyablation.records.error_rates import POWER_FAMILIES, goals, read_error_rates
from tinyablation.records.records import read_records
from tinyablation.sessions.foresight import came_true
from tinyablation.spelling import sentence_of
from tinyablation.verdicts.subjects import load_subjects

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md")}
EVERYTHING = "\n".join((README, *PAGES.values()))
FLAT = " ".join(README.split())
MOST_LINES = 200  # what a newcomer reads before the first claim; the rest is for docs/
REGISTRY = load_registry(ROOT / "fixtures" / "models.toml")
CLAIMS = ROOT / "claims" / "suppressors"
STUDIED = {
    name
    for name, subject in load_subjects(
        ROOT / "claims" / "suppressors" / "subjects.toml"
    ).subjects.items()
    if "study" in subject.source
}
OUTPUT = (
    "build/docs/",
    "corpora/<name>/",
    "reports/claims.html",
    "reports/predictions/",
    "reports/published/",
    "reports/pytest.html",
    "reports/real/",
    "reports/runs/",
    "reports/runs/.jobs/",
)
RECIPE = ("claims/suppressors/test_example.py",)  # what a reader makes


def test_the_readme_is_what_a_newcomer_needs():
    assert len(README.splitlines()) <= MOST_LINES


def claim_functions() -> list[ast.FunctionDef]:
    trees = [ast.parse(path.read_text()) for path in (ROOT / "claims").glob("*/test_*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    tests = [node for node in nodes if isinstance(node, ast.FunctionDef)]
    return [node for node in tests if node.name.startswith("test_")]


# What readers of an earlier page asked about, beside the field's word for it.
ODD = re.compile(r"\b(zeroing|accomplices?|lead over|as registered|let pass|by nature)\b", re.I)


def test_claims_and_readme_use_the_fields_words():
    texts = [README, *(ast.get_docstring(each) or "" for each in claim_functions())]
    texts += [sentence_of(each.name) for each in claim_functions()]
    assert len(texts) > 100
    assert [match[0] for text in texts for match in ODD.finditer(text)] == []


def paths() -> list[str]:
    # The files of migration.md are the study's; tests/test_migration.py runs what it says.
    own = "\n".join((README, *(PAGES[name] for name in PAGES if name != "migration.md")))
    return sorted(set(re.findall(r"`([\w./<>-]+/[\w./<>-]*|[A-Z]\w+\.(?:md|cff))`", own)))


@pytest.mark.parametrize("name", [name for name in paths() if name not in (*OUTPUT, *RECIPE)])
def test_files_exist(name):
    assert (ROOT / name).exists()


def anchors(page: str) -> set[str]:
    """Those of a page's headings, as GitHub and mkdocs make them."""
    titles = re.findall(r"^#+ (.+)$", page, re.MULTILINE)
    return {re.sub(r"[^\w\s-]", "", title).strip().lower().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)]+)\)", README))))
def test_links_of_the_readme_lead_somewhere(link):
    path, _, anchor = link.partition("#")
    assert (ROOT / path).is_file()
    assert not anchor or anchor in anchors(PAGES[Path(path).name])


def test_every_page_is_reached_from_the_navigation_and_from_the_readme():
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    assert sorted(page for entry in nav for page in entry.values()) == sorted(PAGES)
    for page in PAGES:
        assert f"](docs/{page}" in README


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"(?:`|\$ )make (\w+)", EVERYTHING):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_ci_calls_the_commands():
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    for target in ("claims", "test"):
        assert re.search(rf"^make {target}$", ci, re.MULTILINE)
        assert re.search(rf"^\$ make {target}\b", README, re.MULTILINE)
    assert re.search(r"^make docs$", ci, re.MULTILINE) and "`make docs`" in README


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
    documented = set(re.findall(r"^\| `(--[a-z-]+)", PAGES["running.md"], re.MULTILINE))
    assert documented == offered
    assert "(default: 0)" in group
    assert "default:\n" in group or "default: reports" in re.sub(r"\s+", " ", group)


def test_embedded_models_and_tokenizers_are_those_named():
    table = PAGES["models.md"].split("## The table", 1)[1].split("\n\n", 2)[1]
    for name in REGISTRY.local_ids:
        assert f"`{name}`" in table or (name.endswith("-plain") and "each also `-plain`" in table)
    named = re.search(r"Built here: ([^.]*)\.", PAGES["extending.md"]).group(1).split(", ")
    folders = {path.parent.name for path in (ROOT / "corpora").glob("*/facts.jsonl")}
    assert set(named) == folders


def test_packages_stand_in_the_order_of_the_structure():
    table = README.split("| packages | what they do |", 1)[1].split("\n\n", 1)[0]
    named = [name for row in table.splitlines() for name in re.findall(r"`(\w+)`", row)]
    assert tuple(named) == ORDER


def test_the_claim_that_is_shown_is_one_of_the_suite():
    shown = README.split("## What a claim looks like", 1)[1]
    path = re.search(r"`(claims/suppressors/\w+\.py)`", shown).group(1)
    code = re.search(r"```python\n(.+?)```", shown, re.DOTALL).group(1)
    assert code in (ROOT / path).read_text(encoding="utf-8")


STUDY = ROOT / "reports" / "smollm2-135m" / "records.json"
LITERATURE = ROOT / "reports" / "smollm2-135m" / "literature" / "records.json"


@pytest.mark.parametrize(
    ("page", "files"), [("README.md", (STUDY, LITERATURE)), ("docs/index.md", (STUDY,))]
)
def test_results_of_the_pretrained_model_are_those_recorded(page, files):
    records = [record for file in files for record in read_records(file).records]
    n = Counter(record.verdict for record in records)
    logic = sum(r.verdict == "blocked" and r.condition == "logic" for r in records)
    missed = sum(came_true(record) is False for record in records)
    flat = " ".join((ROOT / page).read_text(encoding="utf-8").split())
    assert (
        f"Of {len(records)} test cases {n['supported']} are supported, {n['present']} present "
        f"below the minimum effect, {n['refuted']} refuted, {n['inconclusive']} inconclusive and "
        f"{n['blocked']} blocked"
    ) in flat
    assert re.search(rf"\b{logic} of those? are blocked because|\b{logic} of these because", flat)
    assert re.search(rf"\b{missed} (predictions )?were missed", flat)


@pytest.mark.parametrize("path", [STUDY, LITERATURE], ids=["study", "literature"])
def test_a_committed_report_tells_a_command_that_others_can_run(path):
    """No path of the machine that it was made on."""
    command = read_records(path).session.command
    assert command.startswith("pytest claims/")
    assert not re.search(r"[\s=](/|~|[A-Za-z]:)", command)


def recorded_effects() -> dict[tuple[str, str], set[str]]:
    """ "-.04 [-.31, .17]" by claim and condition; a claim may have several tests."""
    found: dict[tuple[str, str], set[str]] = {}
    for record in read_records(STUDY).records:
        if record.effect is not None:
            mean, low, high = (
                re.sub(r"\b0\.", ".", f"{getattr(record, name):.2f}")
                for name in ("effect", "low", "high")
            )
            cell = (record.claim, record.condition)
            found.setdefault(cell, set()).add(f"{mean} [{low}, {high}]")
    return found


def test_effects_of_the_pretrained_model_are_those_recorded():
    effects = recorded_effects()
    study = PAGES["index.md"].split("### The field's claims", 1)[0]
    rows = re.findall(r"^\| ([A-Z]+\d*\.\d): (.+) \|$", study, re.MULTILINE)
    compared = 0
    for claim, row in rows:
        cells = row.split(" | ")[1:]
        for condition, cell in zip(("facts", "negation", "counterfactual"), cells, strict=True):
            for said in re.findall(r"[-+]?[\d.]+ \[[^\]]+\]", cell):
                assert said.replace("+", "") in effects[claim, condition], (claim, condition)
                compared += 1
    assert compared >= 16
    in_prose = re.findall(r"\(H1\.3: refuted, rho ([^)]+)\)", study)
    assert set(in_prose) == effects["H1.3", "all"]
    (binder,) = effects["B.1", "all"]
    assert f"changes LD by {binder}" in study
    assert f"zero-ablating L16H0: {binder} (98 %) |" in README
    leads = {name: effects["H1.1", name] for name in ("facts", "negation", "counterfactual")}
    said = re.search(r"leading head: \+([^\]]+\]) on facts; (\S+) and (\S+) on negation", FLAT)
    assert said is not None and said[1] in leads["facts"]
    for name, mean in (("negation", said[2]), ("counterfactual", said[3])):
        assert any(effect.startswith(f"{mean} ") for effect in leads[name])


def estimates() -> dict[str, list[tuple[float, ...]]]:
    """By claim of the literature, its effects and those of its criteria, with intervals."""
    found: dict[str, list[tuple[float, ...]]] = {}
    for record in read_records(LITERATURE).records:
        own = found.setdefault(record.claim, [])
        own += [
            (estimate, low, high)
            for estimate, low, high in [
                (record.effect, record.low, record.high),
                *((each.estimate, each.low, each.high) for each in record.criteria),
            ]
            if estimate is not None and low is not None and high is not None
        ]
    return found


def is_one_of(said: tuple[str, ...], known: list[tuple[float, ...]]) -> bool:
    """Whether an estimate is one of those known, rounded to the digits that it is given with."""
    return any(
        all(
            abs(figure * (100 if percent else 1) - float(text))
            <= 0.51 * 10 ** -len(text.partition(".")[2])
            for text, figure in zip(said, each, strict=True)
        )
        for each in known
        for percent in (False, True)
    )


@pytest.mark.parametrize("page", ["README.md", "docs/index.md"])
def test_effects_of_the_fields_claims_are_those_recorded(page):
    """Every estimate with an interval in a row that names claims of the literature."""
    known = estimates()
    compared = 0
    for row in re.findall(r"^\|.+\|$", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE):
        claims = [claim for claim in re.findall(r"\b[A-Z]+\.\d\b", row) if claim in known]
        for said in re.findall(r"([-+]?\.?\d[\d.]*)(?: %)? \[([-\d.]+), ([-\d.]+)\]", row):
            if claims:
                assert is_one_of(said, [e for claim in claims for e in known[claim]]), (said, row)
                compared += 1
    assert compared >= {"README.md": 6, "docs/index.md": 21}[page]


@pytest.mark.parametrize("name", REGISTRY.hub_ids)
def test_the_table_of_models_is_the_registrys(name):
    entry = REGISTRY[name]
    rows = PAGES["models.md"].splitlines()
    row = next(line for line in rows if line.startswith(f"| `{name}` |"))
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
    pins = dict(line.split("==") for line in lines)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = project["dependencies"] + extras["dev"] + extras["docs"]
    for requirement in wanted:
        name = re.match(r"[\w.-]+", requirement).group(0).lower()
        assert name.replace("_", "-") in pins, requirement
    assert pins["torch"] == "2.13.0"
    assert not any("+" in version for version in pins.values())


SPEED = PAGES["reliability-and-speed.md"].split("\n## Speed\n")[1]
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
    kept = json.loads((ROOT / "benchmarks" / "results" / f"{benchmark}.json").read_text("utf-8"))
    figures = [one for each in kept["results"] for one in each["figures"] if one["what"] == what]
    rows = [line for line in SPEED.splitlines() if line.startswith("| ")]
    assert any(
        all(form.format(**one) in row for form in said)
        for one in figures
        if one.get("ratio") is not None or len(said) == 1
        for row in rows
    )


def test_what_is_said_of_error_rates_is_the_tables():
    rates = read_error_rates(ROOT / "fixtures" / "calibration" / "error_rates.json")
    flat = " ".join(PAGES["claims.md"].split())
    rows = goals(rates)

    def met(name):
        told = [getattr(row, name) for row in rows if getattr(row, name)]
        return f"{told.count('met')} of {len(told)} claims"

    seen = [row for row in rates.detectable if row.claim.startswith(POWER_FAMILIES)]
    doses = [row.dose for row in seen if row.dose is not None]
    for said in (
        f"Over {rates.bases} base{'' if rates.bases == 1 else 's'}",
        f"the upper bound of false support is at most 5 % for {met('support_goal')}",
        f"at the boundary for {met('support_near_goal')}",
        f"that of false refutation at the boundary for {met('refutation_near_goal')}",
        f"95 % of plants of 10 % are found under every condition for {met('plants_goal')}",
        f"80 % are found from {100 * min(doses):.1f} to {100 * max(doses):.1f} % of the clean LD, "
        f"for {len(doses)} of {len(seen)} claims",
    ):
        assert said in flat, said
