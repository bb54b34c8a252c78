"""Contributions of heads, MLPs and biases, against one prompt alone and TransformerBridge.

Run: pytest tests/engine/test_direct_effects.py
"""

from typing import Any

import numpy as np
import pytest
import torch

from tests.bridging import bridge_of, make_prompts, run_cached
from tests.conftest import FAMILIES, N_HEADS, N_LAYERS
from tinyablation.corpora.tokenisation import Prompt
from tinyablation.engine import clean_pass
from tinyablation.engine.direct_effects import contributions
from tinyablation.engine.engine import Engine
from tinyablation.engine.prompt_checks import EngineError
from tinyablation.heads import Head
from tinyablation.interventions.interventions import PatchPath
from tinyablation.models.loading import load_model

# fp32 sums in another order, in logits of some units: at most 4e-6 was seen here.
TOLERANCE = 2e-5

FIRST = make_prompts([6, 9, 6, 4, 9, 1])
# The last is the first prompt with its answers exchanged.
PROMPTS = [*FIRST, Prompt(FIRST[0].ids, FIRST[0].foil, FIRST[0].target)]


@pytest.fixture(scope="module")
def engines(tiny_models: dict[str, Any]) -> dict[str, Engine]:
    return {family: Engine(model) for family, model in tiny_models.items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_contributions_are_the_bridges_by_its_cache_and_frozen_norm(
    family: str, engines: Any, tiny_entry: Any
) -> None:
    """One prompt alone, the parts put through apply_ln's formula with the cached scale."""
    found = contributions(engines[family], PROMPTS)
    bridge = bridge_of(load_model(tiny_entry(family)))
    norm = bridge.ln_final.original_component
    centred = isinstance(norm, torch.nn.LayerNorm)
    shift = getattr(norm, "bias", None)

    for number, prompt in enumerate(PROMPTS):
        cache = run_cached(bridge, prompt.ids)
        scale = cache["ln_final.hook_scale"][0, -1].double()
        with torch.no_grad():
            read = (bridge.W_U[:, prompt.target] - bridge.W_U[:, prompt.foil]).double()

        def contributed(part: torch.Tensor, read: Any = read, scale: Any = scale) -> torch.Tensor:
            part = part.detach().double()
            part = part - part.mean(dim=-1, keepdim=True) if centred else part
            return part / scale * norm.weight.detach().double() @ read

        for layer in range(N_LAYERS):
            z = cache[f"blocks.{layer}.attn.hook_z"][0, -1]
            written = torch.einsum("hd,hdm->hm", z, bridge.blocks[layer].attn.W_O)
            expected = contributed(written).numpy()
            assert found.heads[number, layer] == pytest.approx(expected, abs=TOLERANCE)
            mlp = contributed(cache[f"blocks.{layer}.hook_mlp_out"][0, -1])
            assert found.mlps[number, layer] == pytest.approx(mlp.item(), abs=TOLERANCE)
        embedding = contributed(cache["blocks.0.hook_resid_pre"][0, -1])
        assert found.embedding[number] == pytest.approx(embedding.item(), abs=TOLERANCE)
        biases = [bridge.blocks[layer].attn.b_O for layer in range(N_LAYERS)]
        constant = sum(contributed(bias).item() for bias in biases if bias is not None)
        constant += 0.0 if shift is None else (shift.detach().double() @ read).item()
        assert found.biases[number] == pytest.approx(constant, abs=TOLERANCE)
    assert np.abs(found.heads).max() > 0.1
    assert (np.abs(found.biases).max() > 0.1) == (family in ("gpt2", "neox"))


@pytest.mark.parametrize("family", FAMILIES)
def test_all_parts_add_up_to_the_models_own_logit_difference(
    family: str, engines: Any, tiny_models: Any
) -> None:
    found = contributions(engines[family], PROMPTS)
    model = tiny_models[family].model
    for number, prompt in enumerate(PROMPTS):
        with torch.no_grad():
            logits = model(torch.tensor([prompt.ids])).logits[0, -1].double()
        clean = (logits[prompt.target] - logits[prompt.foil]).item()
        assert found.logit_diff[number] == pytest.approx(clean, abs=TOLERANCE)
        assert found.total()[number] == pytest.approx(clean, abs=TOLERANCE)
    # The answers exchanged, every part has the opposite sign.
    for part in found:
        assert part[-1] == pytest.approx(-part[0], abs=TOLERANCE)


@pytest.mark.parametrize("family", FAMILIES)
def test_recomputed_is_minus_the_effect_of_the_path_to_the_logits(
    family: str, engines: Any
) -> None:
    engine = engines[family]
    found = contributions(engine, PROMPTS)
    heads = [Head(layer, head) for layer in range(N_LAYERS) for head in range(N_HEADS)]
    frame = engine.measure(PROMPTS, [PatchPath((head,), N_LAYERS) for head in heads])
    wide = frame.pivot(index="example", columns="intervention", values="logit_diff")
    for layer, head in heads:
        label = PatchPath((Head(layer, head),), N_LAYERS).label
        delta = (wide[label] - wide["baseline"]).to_numpy()
        assert found.recomputed[:, layer, head] == pytest.approx(-delta, abs=TOLERANCE)
    # The norm does something: frozen and recomputed are told apart.
    assert np.abs(found.recomputed - found.heads).max() > 100 * TOLERANCE


def test_chunks_change_nothing(engines: Any, monkeypatch: Any) -> None:
    whole = contributions(engines["llama"], PROMPTS)
    monkeypatch.setattr(clean_pass, "RECORD_NUMBERS", 1)  # one prompt at a time
    for one, other in zip(contributions(engines["llama"], PROMPTS), whole, strict=True):
        assert one == pytest.approx(other, abs=TOLERANCE)


def test_half_precision_reads_the_same_contributions_within_its_rounding(
    engines: Any, tiny_entry: Any
) -> None:
    exact = contributions(engines["llama"], PROMPTS)
    coarse = contributions(Engine(load_model(tiny_entry("llama"), dtype=torch.bfloat16)), PROMPTS)
    for one, other in zip(coarse, exact, strict=True):
        assert one == pytest.approx(other, abs=0.15)
    assert coarse.total() == pytest.approx(coarse.logit_diff, abs=0.1)


def test_a_model_that_scales_what_its_layers_add_is_refused(tiny_entry: Any) -> None:
    """As Granite's residual multiplier does; its own logits are still those of its layers."""
    loaded = load_model(tiny_entry("llama"))
    block = loaded.model.model.layers[1]
    handle = block.register_forward_hook(
        lambda _, args, out: (
            args[0] + 0.5 * (out - args[0])
            if isinstance(out, torch.Tensor)
            else (args[0] + 0.5 * (out[0] - args[0]), *out[1:])
        )
    )
    try:
        with pytest.raises(EngineError, match="as they are, so that heads have no direct effect"):
            contributions(Engine(loaded), PROMPTS)
    finally:
        handle.remove()


def test_prompts_the_model_cannot_be_given_are_refused(engines: Any) -> None:
    with pytest.raises(EngineError, match="no prompts to measure"):
        contributions(engines["gpt2"], [])
