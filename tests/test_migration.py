"""docs/migration.md: every command and every line of code on it, run on an embedded model.

Run: pytest tests/test_migration.py
"""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pandas
import pytest

from tests.sessions.test_drift import cell, session
from tests.study_files import (
    CONDITIONS,
    FIRST_LAYER,
    PAIRS,
    REVERSE,
    TRIPLET,
    put_config,
    put_embedded,
    put_json,
)
from tinyablation.__main__ import main
from tinyablation.interventions.listed import NAMES
from tinyablation.records.records import write_records
from tinyablation.study.batteries import (
    ActivationPatch,
    HeadsPairZero,
    HeadsSubsetZero,
    HeadsZero,
)
from tinyablation.study.config import DatasetChoice, Settings
from tinyablation.study.equivalents import FAMILIES
from tinyablation.study.tables import HEAD, LAYER

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "migration.md").read_text(encoding="utf-8")
COMMANDS = [
    line[2:]
    for block in re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)
    for line in block.splitlines()
]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A folder with the study's lab/ and this project's models and corpora."""
    root = tmp_path_factory.mktemp("checkout")
    for name in ("fixtures", "corpora"):
        (root / name).symlink_to(ROOT / name)
    put_embedded(root, (6, 4))
    two = CONDITIONS[:2]
    for name, battery in (
        ("h1_cross_condition_balanced", FIRST_LAYER),
        ("h5_layer0_pairs_balanced", PAIRS),
        ("h5_layer0_triplet_balanced", TRIPLET),
        ("h6_layer_targets_window_balanced", REVERSE),
    ):
        put_config(root, name, battery, conditions=two[: 2 if name.startswith("h1") else 1])
    tokens = [{"token_id": n, "token": f" t{n}", "logit": -float(n)} for n in range(30)]
    head = {"layer": 0, "head": 2, "vector_norm": 1.0, "tokens": {"top": tokens, "bottom": tokens}}
    put_json(root / "reports" / "old_ov_report.json", {"heads": [head]})
    for name in ("before", "after"):
        write_records(session(cell()), root / "reports" / name)
    return root


@pytest.mark.slow
def test_every_command_runs(checkout, monkeypatch, capsys):
    monkeypatch.chdir(checkout)
    assert len(COMMANDS) > 10
    for command in COMMANDS:
        program, *arguments = shlex.split(command)
        if program == "pytest":  # judged elsewhere; here it must select something
            done = subprocess.run(
                [sys.executable, "-m", "pytest", *arguments, "--collect-only", "-q"],
                cwd=ROOT,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stdout[-2000:]
            continue
        assert arguments[:2] == ["-m", "tinyablation"]
        assert main(arguments[2:]) == 0, (command, capsys.readouterr().err[-2000:])
    capsys.readouterr()
    _code_on_the_page(capsys)
    document = json.loads(Path("reports/facts_partial_patch_head2.json").read_text())
    assert all("logit_diff" in document[name] for name in ("baseline", "zero", "patched"))


def _code_on_the_page(capsys):
    """After the commands, the code reads what they wrote."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    with pandas.option_context("display.width", 250, "display.max_columns", 20):
        exec(compile(code, "docs/migration.md", "exec"), {})
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    rows = [line[1:] for line in printed if line[0].isdigit()]  # run_id, seed, layer, head, ...
    assert len(rows) == 10
    heads = [row[3] for row in rows]
    # The planted head leads the second list and is not in the first.
    assert heads[5] == "7" and "7" not in heads[:5]


def test_every_key_of_a_config_is_on_the_page():
    keys = {*Settings.model_fields, "run_name", "tag", "battery", "shared", "conditions"}
    keys -= {"seed", "model", "dataset"}  # named by their own keys
    for key in keys:
        assert re.search(rf"`{key}[`,]|`{key}`", PAGE), key
    assert {*DatasetChoice.model_fields} >= {"id", "split"} and "`*_field`" in PAGE
    for battery in (HeadsZero, HeadsPairZero, HeadsSubsetZero, ActivationPatch):
        for key in battery.model_fields:
            assert f"`{key}`" in PAGE or key == "type", key


def test_families_and_batteries_are_those_of_migrate():
    for kind, (family, _) in FAMILIES.items():
        assert re.search(rf"\| `{kind}` \| {family}: ", PAGE), kind
    named = re.findall(r"`([a-z-]+)(?: --(?:layer|heads) [^`]+)?`", PAGE.split("## Configs")[0])
    assert {"zero", "pairs", "triples", "sets", "path", "patch-forward"} <= {*named} & {*NAMES}


def test_columns_are_those_of_the_tables():
    for columns in (HEAD, LAYER):
        assert ", ".join(columns) in PAGE


def test_the_page_is_in_the_navigation_and_in_the_readme():
    assert "migration.md" in (ROOT / "mkdocs.yml").read_text()
    assert "](docs/migration.md" in (ROOT / "README.md").read_text()
