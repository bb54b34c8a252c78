"""Clean passes: what is compared with the model's own logits, and how often.

Run: pytest tests/engine/test_clean_pass.py
"""

from typing import Any

import pandas
import pytest

from tests.bridging import make_prompts
from tinyablation.engine import clean_pass
from tinyablation.engine.engine import Engine
from tinyablation.interventions.interventions import PatchHeads
from tinyablation.models.loading import load_model

PAIR = make_prompts([6, 6])
PATCHES = [PatchHeads(((1, 0),), donor="pair")]


@pytest.fixture
def replays(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The prompts of every replay."""
    found: list[Any] = []
    replayed = clean_pass.CleanPasses._replayed

    def counted(passes: Any, begin: int, prompts: Any) -> Any:
        found.append(prompts)
        return replayed(passes, begin, prompts)

    monkeypatch.setattr(clean_pass.CleanPasses, "_replayed", counted)
    return found


def measure(engine: Engine, prompts: Any = PAIR) -> pandas.DataFrame:
    return engine.measure(prompts, PATCHES, pairs=prompts[::-1])


def test_prompts_that_agreed_are_not_replayed_again(tiny_entry: Any, replays: list[Any]) -> None:
    engine = Engine(load_model(tiny_entry("llama")))
    first = measure(engine)
    assert len(replays) == 1
    pandas.testing.assert_frame_equal(measure(engine), first, check_exact=True)
    assert len(replays) == 1

    assert PAIR[0] != PAIR[1]
    turned = measure(engine, PAIR[::-1])
    assert len(replays) == 2, "the first prompt is another"
    assert sorted(turned["logit_diff"]) == pytest.approx(sorted(first["logit_diff"]), abs=1e-5)


def test_some_are_kept_and_long_ones_are_not(
    tiny_entry: Any, replays: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(load_model(tiny_entry("llama")))
    monkeypatch.setattr(clean_pass, "KEPT_CALLS", 1)
    for prompts in (PAIR, PAIR[::-1], PAIR):
        measure(engine, prompts)
    assert len(replays) == 3, "the older one was dropped"
    monkeypatch.setattr(clean_pass, "KEPT_TOKENS", 5)
    for _ in range(2):
        measure(engine, PAIR[::-1])
    assert len(replays) == 5
