"""Losses with layers removed, against plain forward passes with the block replaced by identity.

Run: pytest tests/engine/test_layer_removal.py
"""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.bridging import make_prompts
from tests.conftest import FAMILIES, N_LAYERS, VOCABULARY
from tinyablation.engine import layer_removal
from tinyablation.engine.engine import Engine
from tinyablation.engine.layer_removal import removal_losses
from tinyablation.engine.prompt_checks import EngineError
from tinyablation.models.loading import load_model

# fp32 sums in another order, of losses of some nats: at most 1e-6 was seen here.
TOLERANCE = 1e-5

TEXTS = [prompt.ids for prompt in make_prompts([20, 7, 20, 13, 2])]


@pytest.fixture(scope="module")
def engines(tiny_models: dict[str, Any]) -> dict[str, Engine]:
    return {family: Engine(model) for family, model in tiny_models.items()}


class Identity(nn.Module):
    """A block that returns the stream as it is, in the form in which the model's blocks do."""

    def __init__(self, replaced: nn.Module, returns_tuple: bool) -> None:
        super().__init__()
        self.returns_tuple = returns_tuple
        self.attention_type = getattr(replaced, "attention_type", None)

    def forward(self, hidden_states: torch.Tensor, *_: Any, **__: Any) -> Any:
        return (hidden_states,) if self.returns_tuple else hidden_states


def blocks_of(model: Any) -> nn.ModuleList:
    return next(child for child in model.base_model.children() if isinstance(child, nn.ModuleList))


def plain_loss(model: Any, ids: tuple[int, ...]) -> float:
    """The model's own mean loss on one text alone."""
    with torch.no_grad():
        logits = model(torch.tensor([ids]), use_cache=False).logits[0, :-1].double()
    log_p = logits.log_softmax(dim=-1)
    return -float(log_p[torch.arange(len(ids) - 1), torch.tensor(ids[1:])].mean())


@pytest.mark.parametrize("family", FAMILIES)
def test_losses_are_those_of_a_model_whose_block_is_the_identity(
    family: str, engines: Any, tiny_entry: Any
) -> None:
    found = removal_losses(engines[family], TEXTS)
    assert found.tokens.tolist() == [19, 6, 19, 12, 1]
    model = load_model(tiny_entry(family)).model
    blocks = blocks_of(model)
    shown: list[Any] = []
    handle = blocks[0].register_forward_hook(lambda _, args, out: shown.append(out))
    whole = [plain_loss(model, ids) for ids in TEXTS]
    handle.remove()
    assert found.whole == pytest.approx(whole, abs=TOLERANCE)
    for layer in range(N_LAYERS):
        block = blocks[layer]
        blocks[layer] = Identity(block, isinstance(shown[0], tuple))
        expected = [plain_loss(model, ids) for ids in TEXTS]
        blocks[layer] = block
        assert found.removed[:, layer] == pytest.approx(expected, abs=TOLERANCE)
        assert np.abs(found.removed[:, layer] - whole).max() > 0.05  # it does something


def test_small_pieces_change_nothing(engines: Any, monkeypatch: Any) -> None:
    whole = removal_losses(engines["mistral"], TEXTS)
    engine = engines["mistral"]
    monkeypatch.setattr(layer_removal, "RECORD_NUMBERS", 1)  # a text at a time
    bounds = engine.bounds._replace(batch=1, logits=1)  # a row, a position at a time
    monkeypatch.setattr(engine, "bounds", bounds)
    again = removal_losses(engine, TEXTS)
    for one, other in zip(again, whole, strict=True):
        assert one == pytest.approx(other, abs=TOLERANCE)


def test_a_layer_that_adds_nothing_is_missed_by_nobody(tiny_entry: Any) -> None:
    loaded = load_model(tiny_entry("llama"))
    block = loaded.model.model.layers[1]
    with torch.no_grad():
        block.self_attn.o_proj.weight.zero_()
        block.mlp.down_proj.weight.zero_()
    found = removal_losses(Engine(loaded), TEXTS)
    assert found.removed[:, 1] == pytest.approx(found.whole, abs=TOLERANCE)
    assert np.abs(found.removed[:, 0] - found.whole).max() > 0.05


def test_each_text_costs_half_a_pass_per_layer(engines: Any) -> None:
    """What a block is given, in rows: those below it, and the whole model."""
    rows: list[int] = []
    engine = engines["neox"]
    handles = [
        layer.block.register_forward_pre_hook(
            lambda _, args, kwargs: rows.append(len(args[0] if args else kwargs["hidden_states"])),
            with_kwargs=True,
        )
        for layer in engine.architecture.layers
    ]
    try:
        removal_losses(engine, [TEXTS[0], TEXTS[2]])
    finally:
        for handle in handles:
            handle.remove()
    assert rows[-N_LAYERS:] == [2 * (1 + layer) for layer in range(N_LAYERS)]


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        ([], "no texts to measure"),
        ([(3,)], "text 0 is a single token"),
        ([(1, 2), (1, VOCABULARY)], "text 1: token id 300 is outside"),
        ([(1,) * 65], "text 0 has 65 tokens, more than the context"),
    ],
)
def test_what_the_model_cannot_be_given_is_refused(texts: Any, said: str, engines: Any) -> None:
    with pytest.raises(EngineError, match=said):
        removal_losses(engines["gpt2"], texts)
