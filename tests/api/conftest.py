"""An embedded model, loaded through the API once, and prompts that it answers."""

import json
from pathlib import Path

import pytest

import tinyablation as ta

ROOT = Path(__file__).parents[2]
ORGANISMS = ROOT / "fixtures" / "organisms"


@pytest.fixture(scope="session")
def rows() -> list[dict[str, str]]:
    """Thirty pairs of facts, one of each of thirty clusters."""
    kept: dict[str, dict[str, str]] = {}
    for line in (ROOT / "corpora" / "tiny" / "facts.jsonl").read_text().splitlines():
        row = json.loads(line)
        short = {name: row[name] for name in ("clean", "corrupt", "target", "foil")}
        if row["aligned"]:
            kept.setdefault(row["cluster_id"], short)
    return list(kept.values())[:30]


@pytest.fixture(scope="session")
def tuples(rows) -> list[tuple[str, str, str]]:
    """The same as (prompt, target, foil), without the corrupt prompts."""
    return [(row["clean"], row["target"], row["foil"]) for row in rows]


@pytest.fixture(scope="session")
def model() -> ta.Model:
    return ta.load(ORGANISMS / "tiny-gpt2")
