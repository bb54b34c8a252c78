"""Next tokens of single prompts: against a forward pass with zeroed columns, and where they lie.

Run: pytest tests/measurement/test_token_readings.py
"""

from pathlib import Path
from typing import Any

import pytest
import torch

from tinyablation.interventions.interventions import AblateHeads
from tinyablation.measurement.bench import Bench
from tinyablation.measurement.setup import Setup
from tinyablation.measurement.token_readings import TOP_K, NextTokens
from tinyablation.models.registry import load_registry
from tinyablation.runs.store import RunStore

ROOT = Path(__file__).parents[2]
CASES = (
    (0, AblateHeads(((0, 2),))),
    (25, AblateHeads(((0, 2), (3, 1)))),
    (0, AblateHeads(((1, 5),))),
)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    entry = load_registry(ROOT / "fixtures" / "models.toml")["tiny-gpt2"]
    store = RunStore(tmp_path_factory.mktemp("store"))
    return Bench(Setup(entry=entry, corpora=ROOT / "corpora"), store, threads=1)


def expected(bench: Bench, text: str, heads: tuple[Any, ...]) -> dict[str, float]:
    """The most probable tokens by a pass of the Hugging Face model, columns of c_proj zeroed."""
    hf: Any = bench.model.model
    width = hf.config.n_embd // hf.config.n_head
    weights = [hf.transformer.h[layer].attn.c_proj.weight for layer, _ in heads]
    before = [weight.detach().clone() for weight in weights]
    with torch.no_grad():
        for weight, (_, head) in zip(weights, heads, strict=True):
            weight[head * width : (head + 1) * width] = 0
        ids = bench.model.tokenizer(text)["input_ids"]
        if bench.model.bos_id is not None and ids[0] != bench.model.bos_id:
            ids = [bench.model.bos_id, *ids]
        shares = hf(torch.tensor([ids])).logits[0, -1].double().softmax(-1)
        for weight, old in zip(weights, before, strict=True):
            weight.copy_(old)
    top = shares.topk(TOP_K)
    return {
        bench.model.tokenizer.decode([id]): share
        for share, id in zip(top.values.tolist(), top.indices.tolist(), strict=True)
    }


def test_the_most_probable_tokens_are_those_of_a_plain_pass(bench: Bench) -> None:
    reading = bench.reading("facts", NextTokens(CASES))
    corpus, _ = bench.corpus("facts")
    found = reading.document()["cases"]
    assert [(case["row"], case["ablation"]) for case in found] == [
        (row, ablation.label) for row, ablation in CASES
    ]
    for (row, ablation), case in zip(CASES, found, strict=True):
        text = corpus.examples[row].clean
        for key, heads in (("clean", ()), ("ablated", ablation.heads)):
            said = {each["token"]: each["probability"] for each in case[key]}
            assert list(said.values()) == sorted(said.values(), reverse=True)
            assert said == pytest.approx(expected(bench, text, heads), abs=2e-6)
        assert case["clean"] != case["ablated"]


def test_its_address_is_made_of_what_is_asked(bench: Bench) -> None:
    names = {
        NextTokens(cases).name(bench)
        for cases in (CASES, CASES[:2], CASES[::-1], ((1, CASES[0][1]), *CASES[1:]))
    }
    assert len(names) == 4 and NextTokens(CASES).name(bench) in names


@pytest.mark.parametrize("method", ["mean", "resample", "template_mean"])
def test_ablations_that_need_other_prompts_are_refused(method: Any) -> None:
    with pytest.raises(
        ValueError, match=f"{method}' replaces z by that of other prompts; use zero"
    ):
        NextTokens(((0, AblateHeads(((0, 2),), method)),))
