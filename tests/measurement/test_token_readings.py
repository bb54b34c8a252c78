"""Next tokens and attention of single prompts: against plain forward passes, and where they lie.

Run: pytest tests/measurement/test_token_readings.py
"""

from pathlib import Path
from typing import Any

import pytest
import torch

from tinyablation.engine.prompt_checks import EngineError
from tinyablation.interventions.interventions import AblateHeads
from tinyablation.measurement.bench import Bench
from tinyablation.measurement.setup import Setup
from tinyablation.measurement.token_readings import ATTENDED, TOP_K, NextTokens
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


def test_heads_attend_to_the_tokens_that_an_eager_pass_says(bench: Bench) -> None:
    corpus, _ = bench.corpus("facts")
    hf: Any = bench.model.model
    for (row, ablation), case in zip(
        CASES, bench.reading("facts", NextTokens(CASES)).document()["cases"], strict=True
    ):
        ids = list(bench.model.tokenizer(corpus.examples[row].clean)["input_ids"])
        if bench.model.bos_id is not None and ids[0] != bench.model.bos_id:
            ids = [bench.model.bos_id, *ids]
        with torch.no_grad():
            attentions = hf(torch.tensor([ids]), output_attentions=True).attentions
        assert [each["head"] for each in case["attended"]] == [
            f"L{layer}H{head}" for layer, head in ablation.heads
        ]
        for (layer, head), each in zip(ablation.heads, case["attended"], strict=True):
            weights, places = attentions[layer][0, head, -1].topk(ATTENDED)
            words = [bench.model.tokenizer.decode([ids[place]]) for place in places.tolist()]
            assert [one["token"] for one in each["tokens"]] == words
            shares = [one["probability"] for one in each["tokens"]]
            assert shares == pytest.approx(weights.tolist(), abs=2e-6)


def test_of_many_heads_the_first_are_read_and_of_modules_without_probabilities_none(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = NextTokens(((0, AblateHeads(tuple((2, head) for head in range(5)))),))
    (case,) = many.compute(bench, "facts").document["cases"]
    assert [each["head"] for each in case["attended"]] == ["L2H0", "L2H1", "L2H2"]

    def refused(*_: Any) -> None:
        raise EngineError("its attention module does not return the probabilities of its heads")

    monkeypatch.setattr("tinyablation.engine.attention_patterns.attention_at", refused)
    (case,) = many.compute(bench, "facts").document["cases"]
    assert case["attended"] == [] and len(case["ablated"]) == TOP_K


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
