"""OV circuits against TransformerBridge's weights, and the linear part of norms.

Run: pytest tests/engine/test_ov_circuits.py
"""

from typing import Any

import pytest
import torch
from torch import nn

from tests.bridging import bridge_of
from tests.conftest import FAMILIES, N_HEADS, N_LAYERS, VOCABULARY
from tinyablation.engine import ov_circuits as circuits
from tinyablation.engine.engine import Engine
from tinyablation.engine.ov_circuits import head_columns, ov_circuits, value_matrices
from tinyablation.engine.prompt_checks import EngineError
from tinyablation.engine.readout import ROUNDINGS, Readout, norm_map
from tinyablation.models.loading import load_model

# A difference of two fp32 projections.
TOLERANCE = 1e-5
# float64 against float64, over products of some thousand figures made in float32.
RELATIVE = 1e-5
D_MODEL = 32


@pytest.fixture(scope="module")
def engines(tiny_models: dict[str, Any]) -> dict[str, Engine]:
    return {family: Engine(model) for family, model in tiny_models.items()}


@pytest.fixture(scope="module")
def bridges(tiny_entry: Any) -> dict[str, Any]:
    return {family: bridge_of(load_model(tiny_entry(family))) for family in FAMILIES}


def bridge_values(bridge: Any, layer: int) -> torch.Tensor:
    """W_V [n_heads, d_model, d_head], those of a group repeated."""
    values = bridge.blocks[layer].attn.W_V.detach()
    return values.repeat_interleave(N_HEADS // len(values), dim=0).double()


@pytest.mark.parametrize("family", FAMILIES)
def test_value_matrices_are_the_bridges(family: str, engines: Any, bridges: Any) -> None:
    arch = engines[family].architecture
    found = value_matrices(arch)
    assert len(found) == N_LAYERS
    for layer, values in enumerate(found):
        expected = bridge_values(bridges[family], layer)
        if family == "mistral":  # grouped: 2 of 4 are there
            assert len(bridges[family].blocks[layer].attn.W_V) == 2
        for head, columns in enumerate(head_columns(arch, layer)):
            assert (values[:, columns] - expected[head]).abs().max() < TOLERANCE
            w_o = bridges[family].blocks[layer].attn.W_O[head]
            assert torch.equal(arch.output_matrix(layer, columns), w_o)
        assert expected.abs().max() > 0.3


def test_rows_in_parts_are_the_same(engines: Any, monkeypatch: Any) -> None:
    whole = value_matrices(engines["gpt2"].architecture)
    monkeypatch.setattr(circuits, "ROW_NUMBERS", 5 * D_MODEL)
    for one, other in zip(whole, value_matrices(engines["gpt2"].architecture), strict=True):
        assert (one - other).abs().max() < TOLERANCE


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_half_precision_rounds_the_circuits_and_refuses_none(
    family: str, dtype: str, engines: Any, tiny_entry: Any
) -> None:
    half = Engine(load_model(tiny_entry(family), dtype=dtype)).architecture
    whole = engines[family].architecture
    rounding = ROUNDINGS * torch.finfo(getattr(torch, dtype)).eps
    for found, expected in zip(value_matrices(half), value_matrices(whole), strict=True):
        assert (found - expected).abs().max() <= rounding * expected.abs().max()
    gain = norm_map(whole.final_norm, D_MODEL, "norm").gain
    found = norm_map(half.final_norm, D_MODEL, "norm").gain
    assert (found - gain).abs().max() <= rounding * gain.abs().max()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_attention_that_is_not_linear_over_one_token_is_refused(
    tiny_entry: Any, dtype: str
) -> None:
    engine = Engine(load_model(tiny_entry("llama"), dtype=dtype))
    output = engine.architecture.layers[1].output
    with (
        circuits.hooked(output.register_forward_pre_hook(lambda _, args: (args[0] ** 2,))),
        pytest.raises(EngineError, match="layer 1: over one token its attention is not linear"),
    ):
        value_matrices(engine.architecture)


def reference_linear(engine: Engine, norm: nn.Module) -> torch.Tensor:
    """The linear part of a norm as a matrix, from its weights: rows in, rows out."""
    weight = norm.weight.detach().double()
    matrix = torch.eye(D_MODEL, dtype=torch.float64)
    if isinstance(norm, nn.LayerNorm):
        matrix = matrix - 1 / D_MODEL
    return matrix * weight


@pytest.mark.parametrize("family", FAMILIES)
def test_the_leading_direction_is_that_of_the_whole_matrix(
    family: str, engines: Any, bridges: Any
) -> None:
    engine = engines[family]
    found = ov_circuits(engine)
    for layer in range(N_LAYERS):
        first = reference_linear(engine, engine.architecture.layers[layer].norm)
        values = bridge_values(bridges[family], layer)
        for head in range(N_HEADS):
            w_o = bridges[family].blocks[layer].attn.W_O[head].detach().double()
            _, sizes, right = torch.linalg.svd(first @ values[head] @ w_o)
            size = found[layer].singular_value[head]
            assert size == pytest.approx(sizes[0].item(), rel=RELATIVE)
            cosine = found[layer].direction[head] @ right[0] / size
            assert abs(cosine.item()) == pytest.approx(1, abs=RELATIVE)


@pytest.mark.parametrize("family", FAMILIES)
def test_copying_is_that_of_the_full_circuit(family: str, engines: Any, bridges: Any) -> None:
    """All eigenvalues of the vocabulary x vocabulary matrix; all but d_head of them are zero."""
    engine = engines[family]
    model = engine.loaded.model
    embed = model.get_input_embeddings().weight.detach().double()
    unembed = engine.architecture.unembed.weight.detach().double().T
    final = reference_linear(engine, engine.architecture.final_norm)
    found = ov_circuits(engine)
    layer = 1
    first = reference_linear(engine, engine.architecture.layers[layer].norm)
    for head in range(N_HEADS):
        w_o = bridges[family].blocks[layer].attn.W_O[head].detach().double()
        full = embed @ first @ bridge_values(bridges[family], layer)[head] @ w_o @ final @ unembed
        assert full.shape == (VOCABULARY, VOCABULARY)
        eigenvalues = torch.linalg.eigvals(full)
        expected = eigenvalues.real.sum() / eigenvalues.abs().sum()
        assert found[layer].copying[head].item() == pytest.approx(expected.item(), abs=1e-4)
        assert -1 <= expected <= 1


def test_a_head_that_copies_has_a_copying_score_of_one(tiny_entry: Any) -> None:
    engine = Engine(load_model(tiny_entry("gpt2")))
    arch = engine.architecture
    columns = head_columns(arch, 1)[2]
    values = value_matrices(arch)[1][:, columns]
    first = norm_map(arch.layers[1].norm, D_MODEL, "first")
    readout = Readout(arch)
    embed = engine.loaded.model.get_input_embeddings().weight.double()
    for sign in (1, -1):
        with torch.no_grad():
            # W_O so that the d_head x d_head product is the identity: W_O M = (W_V' M') pinv.
            linear = first(torch.eye(D_MODEL))
            right = readout.final(torch.eye(D_MODEL)) @ readout.unembed.double() @ embed
            inverse = torch.linalg.pinv(right @ linear @ values)
            arch.output_matrix(1, columns).copy_(sign * inverse)
        assert ov_circuits(engine)[1].copying[2].item() == pytest.approx(sign, abs=1e-3)


@pytest.mark.parametrize("width", [32, 33])
def test_the_linear_part_of_both_norms(width: int) -> None:
    rng = torch.Generator().manual_seed(width)
    rows = torch.randn(5, width, generator=rng)
    for norm, centred in ((nn.LayerNorm(width), True), (nn.RMSNorm(width, eps=1e-6), False)):
        with torch.no_grad():
            for parameter in norm.parameters():
                parameter.copy_(torch.randn(width, generator=rng))
        found = norm_map(norm, width, "norm")
        assert found.centred is centred
        assert (found.gain - norm.weight.double()).abs().max() < TOLERANCE
        inner = rows.double() - rows.double().mean(1, keepdim=True) * centred
        assert (found(rows) - inner * norm.weight.double()).abs().max() < TOLERANCE
        # The norm itself is that, divided by the rows' scale, and its bias.
        scale = inner.square().mean(1, keepdim=True).sqrt()
        bias = norm.bias.detach() if centred else 0.0
        assert (found(rows) / scale + bias - norm(rows)).abs().max() < 1e-4


class _PlusOne(nn.Module):
    """A norm whose gain is 1 + weight, as Gemma's."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-0.5, 0.5, 16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * (1 + self.weight)


def test_a_gain_is_taken_from_what_the_norm_does() -> None:
    norm = _PlusOne()
    assert (norm_map(norm, 16, "norm").gain - (1 + norm.weight)).abs().max() < TOLERANCE


def test_what_is_no_norm_is_refused() -> None:
    with pytest.raises(EngineError, match="the final norm is neither a LayerNorm nor an RMSNorm"):
        norm_map(nn.Linear(16, 16), 16, "the final norm")


@pytest.mark.parametrize("family", FAMILIES)
def test_differences_of_readout_are_the_models_own(family: str, engines: Any) -> None:
    """A small step along a direction moves the logits by the readout over the stream's scale.

    The step is taken where the norm's scale does not change: across the stream.
    """
    engine = engines[family]
    arch = engine.architecture
    rng = torch.Generator().manual_seed(0)
    stream = torch.randn(1, D_MODEL, generator=rng)
    step = torch.randn(1, D_MODEL, generator=rng)
    centred = Readout(arch).final.centred
    inner = stream - stream.mean() if centred else stream
    step = step - (step @ inner.T) / (inner @ inner.T) * inner
    size = 1e-2
    with torch.no_grad():
        moved = (arch.logits(stream + size * step) - arch.logits(stream - size * step)) / (2 * size)
    expected = Readout(arch)(step) / inner.square().mean().sqrt()
    assert (moved - expected).abs().max() < 1e-3 * expected.abs().max()
    assert Readout(arch)(step[0]).shape == (VOCABULARY,)
