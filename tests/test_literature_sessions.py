"""Sessions of the literature pack: collected for a model of the hub, run on a random one.

Run: pytest tests/test_literature_sessions.py
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fixtures.conditions import CONDITIONS
from tests.small_tokenizers import byte_level

ROOT = Path(__file__).parent.parent
PACK = "claims/literature"
OF_ONE_MODEL = {"LAYER.1", "LAYER.2"}  # they name layers of SmolLM2

pytestmark = pytest.mark.slow  # sessions of their own

# A random model knows no condition, and the gate would leave most bodies of claims unrun. (The
# project's own conditions are left to it: it also says which of their families count.)
UNGATED = """
import sys

import pytest


class Open:
    def pytest_sessionstart(self):
        from fixtures.conditions import CONDITIONS
        from tinyablation.measurement.gate import Gate

        asked = Gate.reason_blocked
        Gate.reason_blocked = lambda gate, name: None if name in CONDITIONS else asked(gate, name)

sys.exit(pytest.main(sys.argv[1:], plugins=[Open()]))
"""


def save_random_gpt2(folder: Path) -> None:
    """2 layers x 4 heads; its tokens are bytes and the words of the pack's conditions."""
    import torch
    import transformers as hf

    texts = [text for rows in CONDITIONS.values() for row in rows() for text in row.values()]
    words = {word for text in texts for word in re.findall(r" ?[^\W\d]+", text)}
    tokenizer = byte_level(sorted(words))
    torch.manual_seed(0)
    sizes = {"vocab_size": len(tokenizer), "n_positions": 256, "n_embd": 32, "n_layer": 2}
    end = tokenizer.eos_token_id
    model = hf.GPT2LMHeadModel(hf.GPT2Config(**sizes, n_head=4, bos_token_id=end, eos_token_id=end))
    with torch.no_grad():
        for matrix in (each for each in model.parameters() if each.ndim > 1):
            matrix.copy_(0.25 * torch.randn_like(matrix))  # sizes at which heads matter
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def session(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    command = (sys.executable, *command)
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def marked() -> dict[tuple[str, str], str]:
    """(file, name) of every test of the pack -> the id of its claim."""
    mark = re.compile(r'claim\("([A-Z]+\.\d+)"(?:.|\n)*?\ndef (test_\w+)')
    return {
        (f"{PACK}/{path.name}", name): claim
        for path in (ROOT / PACK).glob("test_*.py")
        for claim, name in mark.findall(path.read_text(encoding="utf-8"))
    }


def test_every_claim_is_collected_for_a_model_of_the_hub():
    asked = [PACK, "--model", "gpt2", "--collect-only", "-q"]
    collected = session("-m", "pytest", *asked)
    assert collected.returncode == 0, collected.stdout + collected.stderr
    found = set(re.findall(r"^(\S+\.py)::(\w+)\[gpt2[-\]]", collected.stdout, re.MULTILINE))
    claims = marked()
    assert {claims[test] for test in found} == set(claims.values()) - OF_ONE_MODEL


def test_the_pack_runs_to_its_end_on_a_random_model(tmp_path):
    save_random_gpt2(tmp_path / "random")
    options = ["-p", "no:cacheprovider", "--model", str(tmp_path / "random")]
    options += ["--reports", str(tmp_path / "reports")]
    done = session("-c", UNGATED, PACK, *options, HF_HOME=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr
    records = json.loads((tmp_path / "reports" / "records.json").read_text())["records"]
    claims = set(marked().values())
    assert {record["claim"] for record in records} == claims - OF_ONE_MODEL
    judged = [record for record in records if record["verdict"] != "blocked"]
    assert all(record["reason"] and record["verdict"] != "error" for record in records)
    # Those about weights and random tokens, and some about conditions.
    assert len(judged) >= 9, [record["reason"] for record in records]
