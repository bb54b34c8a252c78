"""Diagonals of OV and QK circuits against full matrices, and of heads that are set by hand.

Run: pytest tests/engine/test_weight_diagonals.py
"""

from typing import Any

import numpy as np
import pytest
import torch

from tests.by_hand import plain, queries_and_keys
from tests.conftest import FAMILIES, N_HEADS, VOCABULARY
from tests.engine.test_ov_circuits import bridge_values, reference_linear
from tinyablation.engine import weight_diagonals
from tinyablation.engine.engine import Engine
from tinyablation.engine.memory import Room
from tinyablation.engine.prompt_checks import EngineError
from tinyablation.engine.weight_diagonals import (
    Diagonals,
    Embedding,
    Query,
    ov_diagonals,
    ov_entries,
    qk_diagonals,
)
from tinyablation.heads import Head
from tinyablation.models.loading import load_model

EVERY = np.arange(VOCABULARY)
HEADS = [Head(2, 1), Head(1, 0), Head(2, 3)]
EMBEDDINGS: tuple[Embedding, ...] = ("token", "mlp0", "effective")
QUERIES: tuple[Query, ...] = ("unembedding", "embedding")
# One of each in the everyday tests.
PLAIN = (("gpt2", "mlp0"), ("mistral", "effective"), ("neox", "token"), ("llama", "mlp0"))
CASES = [
    pytest.param(family, embedding, marks=() if (family, embedding) in PLAIN else pytest.mark.slow)
    for family in FAMILIES
    for embedding in EMBEDDINGS
]
# Figures nearer to each other than float32 can tell: the ranks may differ by them.
TIE = 1e-4


def embedded(engine: Engine, embedding: Embedding, monkeypatch: Any) -> torch.Tensor:
    """The embeddings of all tokens from passes of the model over each token alone, no position."""
    model: Any = engine.loaded.model
    if embedding == "token":
        found: torch.Tensor = model.get_input_embeddings().weight.detach().double()
        return found
    positions = model.transformer.wpe if hasattr(model, "transformer") else None
    if positions is not None:
        monkeypatch.setattr(positions, "forward", lambda ids: torch.zeros(*ids.shape, 32))
    kept: list[torch.Tensor] = []
    mlp = engine.architecture.layers[0].mlp
    assert mlp is not None
    handle = mlp.register_forward_hook(lambda _, args, out: kept.append(out))
    with torch.no_grad():
        every = torch.arange(VOCABULARY)[:, None]
        streams = plain(model)(every, output_hidden_states=True).hidden_states
    handle.remove()
    monkeypatch.undo()
    return (streams[1] if embedding == "effective" else kept[0])[:, 0].double()


def agree(found: Diagonals, matrices: torch.Tensor) -> None:
    """The places of the diagonals of whole matrices [heads, rows, columns], in float64."""
    diagonal = matrices.diagonal(dim1=1, dim2=2)[..., None]
    tie = TIE * matrices.std(dim=2, keepdim=True)
    assert (matrices - diagonal > tie).sum(2).float().std() > 1  # places differ from row to row
    for side, figures in ((found.above, matrices - diagonal), (found.below, diagonal - matrices)):
        assert side.shape == matrices.shape[:2]
        least, most = (figures > tie).sum(2).numpy(), (figures > -tie).sum(2).numpy() - 1
        assert (least <= side).all() and (side <= most).all()
        assert (least == most).mean() > 0.9
    assert (found.above + found.below >= VOCABULARY - 2).all()  # one equal figure at most


def ov_matrices(
    engine: Engine, bridge: Any, embedding: Embedding, monkeypatch: Any
) -> torch.Tensor:
    """The whole OV circuits of HEADS [heads, rows, columns], of the bridge's weights."""
    rows = embedded(engine, embedding, monkeypatch)
    arch = engine.architecture
    after = reference_linear(engine, arch.final_norm) @ arch.unembed.weight.detach().double().T
    matrices = [
        rows
        @ reference_linear(engine, arch.layers[layer].norm)
        @ bridge_values(bridge, layer)[head]
        @ bridge.blocks[layer].attn.W_O[head].detach().double()
        @ after
        for layer, head in HEADS
    ]
    return torch.stack(matrices)


@pytest.mark.parametrize(("family", "embedding"), CASES)
def test_ov_diagonals_are_those_of_the_full_matrix(
    family: str, embedding: Embedding, engines: Any, bridges: Any, monkeypatch: Any
) -> None:
    engine = engines[family]
    matrices = ov_matrices(engine, bridges[family, False], embedding, monkeypatch)
    agree(ov_diagonals(engine, HEADS, EVERY, embedding), matrices)


@pytest.mark.parametrize(("family", "embedding"), CASES)
def test_ov_entries_are_those_of_the_full_matrix(
    family: str, embedding: Embedding, engines: Any, bridges: Any, monkeypatch: Any
) -> None:
    engine, rows, columns = engines[family], np.array([7, 299, 0]), np.array([5, 0, 7, 150])
    whole = ov_matrices(engine, bridges[family, False], embedding, monkeypatch)
    found = torch.as_tensor(ov_entries(engine, HEADS, rows, columns, embedding)).double()
    expected = whole[:, rows][:, :, columns]
    assert found.shape == (len(HEADS), len(rows), len(columns))
    assert (found - expected).abs().max() < 1e-5 * whole.abs().max() < expected.std()
    again = ov_entries(engine, HEADS[::-1], rows, columns, embedding)
    assert np.array_equal(again[::-1], found.numpy().astype(np.float32))


def unembedding(engine: Engine) -> torch.Tensor:
    """The gradient of each logit, less that of their mean, where the final norm's scale is 1."""
    final = reference_linear(engine, engine.architecture.final_norm)
    weight = engine.architecture.unembed.weight.detach().double().T

    def centred(stream: torch.Tensor) -> torch.Tensor:
        logits = stream @ final @ weight
        return logits - logits.mean()

    zero = torch.zeros(32, dtype=torch.float64)
    found: torch.Tensor = torch.autograd.functional.jacobian(centred, zero, vectorize=True)
    return found


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize(("family", "embedding"), CASES)
def test_qk_diagonals_are_those_of_the_full_matrix(
    family: str, embedding: Embedding, query: Query, engines: Any, monkeypatch: Any
) -> None:
    engine = engines[family]
    model = engine.loaded.model
    rows = embedded(engine, embedding, monkeypatch)
    asking = rows if query == "embedding" else unembedding(engine)
    matrices = []
    for layer, head in HEADS:
        q, _ = queries_and_keys(model, family, layer, asking)
        _, k = queries_and_keys(model, family, layer, rows)
        matrices.append(q[head] @ k[head].T)
    agree(qk_diagonals(engine, HEADS, EVERY, embedding, query), torch.stack(matrices))


def test_some_tokens_are_rows_of_all_in_any_parts(
    engines: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, some = engines["mistral"], np.array([7, 299, 0])
    whole = (
        ov_diagonals(engine, HEADS, EVERY, "mlp0"),
        qk_diagonals(engine, HEADS, EVERY, "mlp0", "unembedding"),
    )
    monkeypatch.setattr(weight_diagonals, "ROW_NUMBERS", 8 * 32 * 7)
    monkeypatch.setattr(weight_diagonals, "_FIGURES", 2 * VOCABULARY)
    parts = (
        ov_diagonals(engine, HEADS, some, "mlp0"),
        qk_diagonals(engine, HEADS, some, "mlp0", "unembedding"),
    )
    for found, every in zip(parts, whole, strict=True):
        for side, other in zip(found, every, strict=True):
            assert np.abs(side - other[:, some]).max() <= 1  # two figures that float32 cannot tell


# --- heads that are set by hand ------------------------------------------------------------------

HEAD = Head(1, 2)


def circular(tiny_entry: Any, *, ov: float, qk: float) -> Engine:
    """A Llama whose tokens stand on a circle, and whose head HEAD reads and writes their places.

    Token t is (cos, sin) of its angle in the first two dimensions of embedding and unembedding, and
    nothing else, so that of logits and scores the own one is at one end: the top one for ov, qk >
    0, the lowest below 0.
    """
    engine = Engine(load_model(tiny_entry("llama")))
    model: Any = engine.loaded.model
    angle = torch.arange(VOCABULARY) * (2 * torch.pi / VOCABULARY)
    places = torch.zeros(VOCABULARY, 32)
    places[:, 0], places[:, 1] = angle.cos(), angle.sin()
    size = 32 // N_HEADS
    own = slice(HEAD.head * size, HEAD.head * size + 2)
    attention = model.model.layers[HEAD.layer].self_attn
    with torch.no_grad():
        model.model.embed_tokens.weight.copy_(places)
        model.lm_head.weight.copy_(places)
        for norm in (model.model.norm, model.model.layers[HEAD.layer].input_layernorm):
            norm.weight.fill_(1.0)
        for matrix, scale in (
            (attention.q_proj.weight, qk),
            (attention.k_proj.weight, 1.0),
            (attention.v_proj.weight, 1.0),
            (attention.o_proj.weight.T, ov),
        ):
            matrix.zero_()
            matrix[own, :2] = scale * torch.eye(2)
    return engine


def test_a_head_that_copies_raises_every_own_logit_most(tiny_entry: Any) -> None:
    found = ov_diagonals(circular(tiny_entry, ov=2.0, qk=1.0), [HEAD], EVERY, "token")
    assert (found.above == 0).all() and (found.below == VOCABULARY - 1).all()


def test_a_head_that_suppresses_copies_lowers_every_own_logit_most(tiny_entry: Any) -> None:
    found = ov_diagonals(circular(tiny_entry, ov=-2.0, qk=1.0), [HEAD], EVERY, "token")
    assert (found.below == 0).all() and (found.above == VOCABULARY - 1).all()


@pytest.mark.parametrize("query", QUERIES)
def test_a_head_that_looks_for_a_token_has_its_own_key_on_top(
    tiny_entry: Any, query: Query
) -> None:
    looking, averting = (
        qk_diagonals(circular(tiny_entry, ov=1.0, qk=qk), [HEAD], EVERY, "token", query)
        for qk in (3.0, -3.0)
    )
    assert (looking.above == 0).all()
    assert (averting.below == 0).all()


def test_the_keys_real_norm_is_what_makes_them_compete(tiny_entry: Any) -> None:
    """With the norm's linear part only, a token with a long embedding would win every query."""
    engine = circular(tiny_entry, ov=1.0, qk=1.0)
    with torch.no_grad():
        engine.loaded.model.get_input_embeddings().weight[5] *= 100
    found = qk_diagonals(engine, [HEAD], EVERY, "token", "unembedding")
    assert (found.above == 0).all()


def test_a_head_that_writes_nothing_is_refused(tiny_entry: Any) -> None:
    """All logits are then alike, and every token would be among the ten lowest and the ten top."""
    engine = circular(tiny_entry, ov=0.0, qk=1.0)
    with pytest.raises(EngineError, match="head 1:2 writes nothing; its OV circuit is zero"):
        ov_diagonals(engine, [HEAD], EVERY, "token")


# --- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("heads", "tokens", "embedding", "said"),
    [
        ([Head(3, 0)], [1], "token", "has no head 3:0; it has 3 layers of 4 heads"),
        ([Head(0, 4)], [1], "token", "has no head 0:4"),
        ([Head(0, 1)], [1], "mlp0", "head 0:1 is in block 0, which makes the embedding 'mlp0'"),
        ([Head(0, 1)], [1], "effective", "take the embedding 'token'"),
        ([Head(1, 1)], [300], "token", "tokens from 300 to 300 are not all within the vocabulary"),
        ([Head(1, 1)], [-1, 2], "token", "tokens from -1 to 2 are not all within the vocabulary"),
        ([Head(1, 1)], [], "token", "no heads or no tokens"),
        ([], [1], "token", "no heads or no tokens"),
    ],
)
def test_what_the_model_does_not_have_is_refused(
    heads: Any, tokens: Any, embedding: Embedding, said: str, engines: Any
) -> None:
    ids = np.array(tokens, dtype=int)
    with pytest.raises(EngineError, match=said):
        ov_diagonals(engines["llama"], heads, ids, embedding)
    with pytest.raises(EngineError, match=said):
        qk_diagonals(engines["llama"], heads, ids, embedding, "embedding")
    for rows, columns in ((ids, np.array([1])), (np.array([1]), ids)):
        with pytest.raises(EngineError, match=said):
            ov_entries(engines["llama"], heads, rows, columns, embedding)


def test_a_stream_that_is_not_made_of_embeddings_is_refused(tiny_entry: Any) -> None:
    engine = Engine(load_model(tiny_entry("gpt2")))
    block = engine.architecture.layers[0].block
    handle = block.register_forward_pre_hook(lambda _, args: (2 * args[0], *args[1:]))
    for read in (
        lambda: ov_diagonals(engine, [Head(1, 0)], EVERY, "token"),
        lambda: qk_diagonals(engine, [Head(1, 0)], EVERY, "token", "embedding"),
    ):
        with pytest.raises(EngineError, match="that enters block 0 is not the token's embedding"):
            read()
    handle.remove()
    ov_diagonals(engine, [Head(1, 0)], EVERY, "token")


def test_heads_of_block_0_read_tokens(engines: Any) -> None:
    found = ov_diagonals(engines["gpt2"], [Head(0, 1)], EVERY, "token")
    assert found.above.shape == (1, VOCABULARY)


def test_attention_that_hands_nothing_over_is_refused_and_nothing_is_left(
    tiny_entry: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    engine = Engine(load_model(tiny_entry("gpt2")))
    monkeypatch.setattr(engine, "room", Room(engine.name))
    for layer in engine.architecture.layers:
        layer.attention.reorder_and_upcast_attn = True  # computes in its own way
    with pytest.raises(EngineError, match="layer 1: its attention does not hand over queries"):
        qk_diagonals(engine, [Head(1, 0)], EVERY, "token", "embedding")
    assert "eager" not in ALL_ATTENTION_FUNCTIONS
