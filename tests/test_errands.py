"""A newcomer's three errands, done in a copy as the README says: a claim, a model, a condition.

Run: pytest tests/test_errands.py
"""

import json
import re
import shlex
import subprocess
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from tests.checkouts import ROOT, checkout, run
from tests.loopback_hub import LoopbackHub

pytestmark = pytest.mark.slow
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return checkout(tmp_path / "project", without=("checkpoints", "trials.jsonl"))


def recipe(what: str) -> str:
    """What the README says of adding a claim, a model or a condition."""
    adding = README.split("\n## Adding things\n", 1)[1].split("\n## ", 1)[0]
    return re.split(r"^\*\*A \w+\*\*", adding, flags=re.MULTILINE)[
        ["claim", "model", "condition"].index(what) + 1
    ]


def blocks(text: str, language: str) -> list[str]:
    found = re.findall(rf"^ *```{language}\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    return [dedent(block) for block in found]


def commands(text: str) -> list[list[str]]:
    return [shlex.split(line) for line in re.findall(r"`(pytest claims [^`]*)`", text)]


def append(path: Path, text: str) -> None:
    path.write_text(f"{path.read_text(encoding='utf-8')}\n{text}", encoding="utf-8")


def judged(copy: Path, done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    assert done.returncode == 0, done.stdout + done.stderr
    records: list[dict[str, Any]] = json.loads((copy / "reports" / "records.json").read_text())[
        "records"
    ]
    return records


def test_a_claim(copy: Path) -> None:
    """Written, predicted, judged, and accepted: no other file knows of it."""
    text = recipe("claim")
    (module,) = blocks(text, "python")
    (predicted,) = blocks(text, "toml")
    (copy / "claims" / "suppressors" / "test_example.py").write_text(module, encoding="utf-8")
    append(copy / "claims" / "suppressors" / "predictions.toml", predicted)
    judge, accept = commands(text)
    # Of the other families a sham has some effect under one condition: "present", a miss.
    chosen = ("-k", "tiny-mistral and (facts or counterfactual)", "-n", "0", "-q")
    done = run(copy, *judge, *chosen, CI="")
    records = judged(copy, done)
    assert "4 test cases without a snapshot" in done.stdout
    assert len(records) == 4 and {record["claim"] for record in records} == {"E.1"}
    assert {record["model"]: record["verdict"] for record in records} == {
        "tiny-mistral": "supported",
        "tiny-mistral-plain": "refuted",
    }
    assert all(record["verdict"] == record["prediction"] for record in records)
    judged(copy, run(copy, *accept, *chosen, CI="true"))
    assert all(record["drift"] is None for record in judged(copy, run(copy, *judge, *chosen)))
    again = run(copy, "pytest", "-q", "tests/test_ledger.py")
    assert again.returncode == 0, again.stdout


def test_a_model(copy: Path, tmp_path: Path) -> None:
    """A repository of the hub with an entry and named heads; it runs when it is named."""
    text = recipe("model")
    entry, heads = blocks(text, "toml")
    append(copy / "fixtures" / "models.toml", entry)
    append(copy / "claims" / "suppressors" / "subjects.toml", heads)
    name, repo = (re.search(rf'^{key} = "(.*?)"', entry, re.MULTILINE)[1] for key in ("id", "repo"))
    (named,) = [words for words in commands(text) if name in words]
    with LoopbackHub() as hub:
        hub.add(repo, ROOT / "fixtures" / "organisms" / "tiny-llama")
        online = hub.environment(tmp_path / "hf", offline=False)
        online = {key: value for key, value in online.items() if key.startswith("HF_")}
        done = run(copy, *named, "--claim", "V,H1.1,H1.4", "-k", "facts", "-n", "0", "-q", **online)
    records = judged(copy, done)
    assert {record["model"] for record in records} == {name}
    by_test = {record["name"]: record for record in records}
    assert by_test["test_named_head_tops_its_layer"]["subject"] == "0:7"
    assert all(record["prediction"] is None for record in records)
    # Without its name it is no part of a session.
    listed = run(copy, "pytest", "claims", "--collect-only", "-q")
    assert listed.returncode == 0 and f"[{name}-" not in listed.stdout


def test_a_condition(copy: Path) -> None:
    """A file of lines like the README's; no code, no prediction."""
    text = recipe("condition")
    (example,) = blocks(text, "json")
    fields = list(json.loads(example))
    rows = (ROOT / "corpora" / "tiny" / "facts.jsonl").read_text().splitlines()
    lines = [{field: json.loads(row)[field] for field in fields} for row in rows]
    (asked,) = commands(text)
    path = asked[asked.index("--condition") + 1].partition("=")[2]
    assert (ROOT / path).is_file(), "the README's own example"
    (copy / "mine.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    words = [
        {"smollm2-135m": "tiny-llama"}.get(word, word.replace(path, "mine.jsonl")) for word in asked
    ]
    done = run(copy, *words, "-n", "0", "-q")
    records = judged(copy, done)
    assert {record["condition"] for record in records} == {"names"}
    verdicts = {record["name"]: record["verdict"] for record in records}
    assert verdicts["test_model_is_competent"] == "supported"
    assert verdicts["test_top_suppressor_is_in_layer_zero"] == "supported"
    assert all(record["prediction"] is None for record in records)
