"""Scores of attribution patching: the derivatives they claim to be, in all four families.

Run: pytest tests/engine/test_attribution.py
"""

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from tests.bridging import make_prompts
from tests.conftest import FAMILIES, N_HEADS, N_LAYERS
from tinyablation.engine import attribution
from tinyablation.engine.attribution import AttributionError, head_scores
from tinyablation.engine.engine import Engine, EngineError
from tinyablation.interventions.interventions import AblateHeads, ScaleHeads

EVERY_HEAD = [(layer, head) for layer in range(N_LAYERS) for head in range(N_HEADS)]
PROMPTS = make_prompts([6, 9, 6, 4, 9, 11])
PAIRS = make_prompts([6, 9, 6, 4, 9, 11], seed=1)
# A central difference is off by some STEP ** 2 of a third derivative, and by rounding / STEP; in
# float64 too, for RMSNorm and rotary embeddings compute in float32 there as well.
STEP = 5e-3
DIFFERENCE_TOLERANCE = 2e-3
# The same derivative by another way of summing, with those float32 steps in it.
GATE_TOLERANCE = 1e-5
# float32 sums in another order, as in tests/engine/test_engine.py.
BATCH_TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def exact_engines(tiny_models) -> dict[str, Engine]:
    """The engine over each tiny model in float64."""
    return {family: in_dtype(loaded, torch.float64) for family, loaded in tiny_models.items()}


def in_dtype(loaded: Any, dtype: torch.dtype) -> Engine:
    return Engine(replace(loaded, model=copy.deepcopy(loaded.model).to(dtype), dtype=dtype))


def changes(engine: Engine, interventions: list[Any]) -> np.ndarray:
    """The engine's Delta LD, [prompts, interventions]."""
    table = engine.measure(PROMPTS, interventions)
    values = table["logit_diff"].to_numpy(dtype=float).reshape(len(interventions) + 1, -1)
    return (values[1:] - values[0]).T


def gated(engine: Engine, become: Any) -> np.ndarray:
    """dLD/dg at g = 0 of z + g (become(z) - z), one gate a head, one prompt alone: by autograd.

    Written without the module under test: the model's own forward, its own logits, and a gate per
    head, whatever the gradient at z may be.
    """
    found = []
    for row, prompt in enumerate(PROMPTS):
        gates = torch.zeros(N_LAYERS, N_HEADS, dtype=engine.loaded.dtype, requires_grad=True)
        handles = []
        for layer, modules in enumerate(engine.architecture.layers):

            def gate(_: Any, args: Any, own: Any = gates[layer], row: int = row, at: int = layer):
                z = args[0].unflatten(-1, (N_HEADS, -1))
                other = become(row, at).reshape(-1, N_HEADS, z.shape[-1])
                return ((z + own[:, None] * (other - z)).flatten(-2),)

            handles.append(modules.output.register_forward_pre_hook(gate))
        logits = engine.loaded.model(torch.tensor([prompt.ids])).logits[0, -1]
        for handle in handles:
            handle.remove()
        (logits[prompt.target] - logits[prompt.foil]).backward()
        found.append(gates.grad.numpy())
    return np.stack(found)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_score_is_the_slope_of_ablation(family, exact_engines):
    """z scaled by 1 - e is e of the way to zero: the engine's own change, divided by e."""
    engine = exact_engines[family]
    down, up = (
        changes(engine, [ScaleHeads((head,), scale) for head in EVERY_HEAD])
        for scale in (1 - STEP, 1 + STEP)
    )
    slope = ((down - up) / (2 * STEP)).reshape(len(PROMPTS), N_LAYERS, N_HEADS)
    scores = head_scores(engine, PROMPTS)
    assert scores.shape == slope.shape
    assert np.abs(slope).max() > 0.1
    assert scores == pytest.approx(slope, abs=DIFFERENCE_TOLERANCE)


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_of_constants_and_pairs_are_those_of_gates(family, exact_engines):
    engine = exact_engines[family]
    arch = engine.architecture
    width = arch.n_heads * arch.d_head
    generator = torch.Generator().manual_seed(0)
    constant = torch.randn(N_LAYERS, width, generator=generator, dtype=torch.float64)
    by_constant = head_scores(engine, PROMPTS, replacement=constant)
    assert by_constant == pytest.approx(
        gated(engine, lambda row, at: constant[at]), abs=GATE_TOLERANCE
    )
    kept = []
    for pair in PAIRS:
        z: list[torch.Tensor] = []
        handles = [
            modules.output.register_forward_pre_hook(lambda _, args, z=z: z.append(args[0][0]))
            for modules in arch.layers
        ]
        with torch.no_grad():
            engine.loaded.model(torch.tensor([pair.ids]))
        for handle in handles:
            handle.remove()
        kept.append(z)
    by_pair = head_scores(engine, PROMPTS, pairs=PAIRS)
    assert by_pair == pytest.approx(
        gated(engine, lambda row, at: kept[row][at]), abs=GATE_TOLERANCE
    )
    # A constant of nothing is zero ablation; and what a prompt lends itself changes nothing.
    nothing = head_scores(engine, PROMPTS, replacement=torch.zeros_like(constant))
    assert np.array_equal(nothing, head_scores(engine, PROMPTS))
    assert not head_scores(engine, PROMPTS, pairs=PROMPTS).any()


def test_a_score_is_the_effect_where_ld_is_linear(tiny_models):
    """NeoX's last layer beside its MLP, with nothing but the unembedding after it."""
    loaded = tiny_models["neox"]
    model = copy.deepcopy(loaded.model).double()
    model.gpt_neox.final_layer_norm = torch.nn.Identity()
    engine = Engine(replace(loaded, model=model, dtype=torch.float64))
    effects = changes(engine, [AblateHeads((head,)) for head in EVERY_HEAD])
    effects = effects.reshape(len(PROMPTS), N_LAYERS, N_HEADS)
    scores = head_scores(engine, PROMPTS)
    assert np.abs(effects[:, -1]).max() > 0.1
    assert scores[:, -1] == pytest.approx(effects[:, -1], abs=1e-9)
    assert np.abs(scores[:, 0] - effects[:, 0]).max() > 0.01  # and nowhere below


@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_scores_as_each_prompt_alone(family, engines, monkeypatch):
    engine = engines[family]
    together = head_scores(engine, PROMPTS)
    alone = np.concatenate([head_scores(engine, [prompt]) for prompt in PROMPTS])
    assert together == pytest.approx(alone, abs=BATCH_TOLERANCE)
    monkeypatch.setattr(attribution, "GRAPH_NUMBERS", 1)
    assert np.array_equal(head_scores(engine, PROMPTS), alone)


def test_memory_that_ends_halves_the_batch(tiny_models, monkeypatch):
    engine = Engine(tiny_models["llama"])
    expected = head_scores(engine, PROMPTS)
    scored, sizes = attribution._scored, []

    def tight(engine, prompts, *rest):
        sizes.append(len(prompts))
        if len(prompts) > 1:
            raise torch.OutOfMemoryError("out of memory")
        return scored(engine, prompts, *rest)

    monkeypatch.setattr(attribution, "_scored", tight)
    assert head_scores(engine, PROMPTS) == pytest.approx(expected, abs=BATCH_TOLERANCE)
    assert max(sizes) == 2 and engine.room.halvings == 1


@pytest.mark.parametrize("family", FAMILIES)
def test_the_model_is_as_it_was(family, engines):
    engine = engines[family]
    model, ids = engine.loaded.model, torch.tensor([PROMPTS[0].ids])
    with torch.no_grad():
        before = model(ids).logits
        head_scores(engine, PROMPTS, pairs=PAIRS)
        after = model(ids).logits
    assert torch.equal(before, after)
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert not any(module._forward_hooks for module in model.modules())
    weights = list(model.parameters())
    assert not any(weight.requires_grad or weight.grad is not None for weight in weights)


def test_half_precision_scores_the_same_heads(tiny_models):
    loaded = tiny_models["llama"]
    full = head_scores(Engine(loaded), PROMPTS).mean(0)
    half = head_scores(in_dtype(loaded, torch.bfloat16), PROMPTS).mean(0)
    assert np.abs(half - full).max() < 0.1 * np.abs(full).max()
    assert half.argmax() == full.argmax()


def test_what_cannot_be_scored_is_refused(engines, tiny_models):
    engine = engines["gpt2"]
    nothing = torch.zeros(N_LAYERS, 32)
    with pytest.raises(AttributionError, match="give either a replacement or pairs"):
        head_scores(engine, PROMPTS, replacement=nothing, pairs=PAIRS)
    with pytest.raises(EngineError, match="no prompts"):
        head_scores(engine, [])
    with pytest.raises(EngineError, match="needs aligned pairs"):
        head_scores(engine, PROMPTS, pairs=PAIRS[::-1])
    nothing[1, 9] = torch.inf
    with pytest.raises(AttributionError, match=r"head 1:1 on prompt 0 is not finite, in float32"):
        head_scores(engine, PROMPTS, replacement=nothing)
    away = Engine(replace(tiny_models["gpt2"], model=copy.deepcopy(tiny_models["gpt2"].model)))
    away.loaded.model.transformer.h[1].to("meta")
    with pytest.raises(AttributionError, match="is offloaded"):
        head_scores(away, PROMPTS)
