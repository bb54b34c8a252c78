"""Path patching on models whose paths are known, because their weights are written down here.

Run: pytest tests/engine/test_engine_paths.py
"""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from tinyablation.corpora.tokenisation import Prompt
from tinyablation.engine.engine import Engine
from tinyablation.interventions.interventions import AblateHeads, PatchPath

# Four layers of two heads, d_model 16. Directions of the residual stream, each as a pair of
# dimensions (+1, -1), so that every direction has mean 0 and LayerNorm does no more than scale:
SIGNAL = (0, 1)  # +1 from the embedding; the sender, head 0.1, turns it to -1
RELAY = (2, 3)  # 0 until head 1.0, where there is one, writes the signal there
ANSWER = (4, 5)  # what the unembedding reads, and only the MLP of layer 2 writes
ONE = (6, 7)  # +1 at every token, from which constants are made
# Dimensions 8 to 15 tell tokens apart, by as many +1 as -1. Turning the signal's sign changes no
# norm, so what does not read the signal does not see that it turned.
N_LAYERS, D_MODEL, D_HEAD, VOCABULARY = 4, 16, 8, 12
TARGET, FOIL = 10, 11
SENDER, CARRIER = ((0, 1),), ((1, 0),)
# fp32 shares of effects of some tenths of a logit.
TOLERANCE = 1e-4

PROMPTS = [
    Prompt(ids, TARGET, FOIL) for ids in ((0, 1, 2, 3), (4, 5, 6), (7, 8, 9, 1), (2, 2, 6, 9, 0))
]


def along(pair: tuple[int, int]) -> torch.Tensor:
    vector = torch.zeros(D_MODEL)
    vector[pair[0]], vector[pair[1]] = 1.0, -1.0
    return vector


def embedding() -> torch.Tensor:
    rows = []
    for token in range(VOCABULARY):
        tail = torch.ones(8)
        generator = torch.Generator().manual_seed(token)
        tail[torch.randperm(8, generator=generator)[:4]] = -1.0
        rows.append(along(SIGNAL) + along(ONE) + torch.cat([torch.zeros(8), tail]))
    return torch.stack(rows)


# Every row has the norm sqrt(12), so a norm divides by this until something else is written.
RMS = (12 / 16) ** 0.5


def unembedding() -> torch.Tensor:
    rows = torch.zeros(VOCABULARY, D_MODEL)
    rows[TARGET], rows[FOIL] = along(ANSWER), -along(ANSWER)
    return rows


def carried_matrices(relayed: bool) -> list[tuple[int, int, torch.Tensor, torch.Tensor]]:
    """(layer, head, what its value reads, what it writes) of the heads there are.

    Attention is uniform: queries are 0. The sender reads the constant and writes -2 x the signal.
    The carrier reads the signal, which is the same at every token, and writes it to the relay.
    """
    heads = [(0, 1, along(ONE) * RMS / 2, -2 * along(SIGNAL))]
    if relayed:
        heads.append((1, 0, along(SIGNAL) * RMS / 2, along(RELAY)))
    return heads


def silent(model: Any) -> Any:
    """The model with every matrix and bias 0, norms as they are by default."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" not in name and "ln_" not in name:
                parameter.zero_()
    return model.eval().requires_grad_(False)


def gpt2(relayed: bool) -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=64,
        n_embd=D_MODEL,
        n_layer=N_LAYERS,
        n_head=2,
        n_inner=8,
        tie_word_embeddings=False,
        attn_implementation="eager",
        bos_token_id=0,
        eos_token_id=0,
    )
    model = silent(GPT2LMHeadModel(config))
    model.transformer.wte.weight.copy_(embedding())
    model.lm_head.weight.copy_(unembedding())
    blocks = model.transformer.h
    for layer, head, reads, writes in carried_matrices(relayed):
        attention = blocks[layer].attn
        attention.c_attn.weight[:, 2 * D_MODEL + head * D_HEAD] = reads
        attention.c_proj.weight[head * D_HEAD] = writes
    mlp = blocks[2].mlp
    mlp.c_fc.weight[:, 0] = along(RELAY if relayed else SIGNAL)
    mlp.c_proj.weight[0] = along(ANSWER)
    return model


def llama(relayed: bool) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=D_MODEL,
        intermediate_size=8,
        num_hidden_layers=N_LAYERS,
        num_attention_heads=2,
        num_key_value_heads=1 if relayed else 2,
        max_position_embeddings=64,
        attn_implementation="eager",
        bos_token_id=0,
        eos_token_id=0,
    )
    model = silent(LlamaForCausalLM(config))
    model.model.embed_tokens.weight.copy_(embedding())
    model.lm_head.weight.copy_(unembedding())
    for layer, head, reads, writes in carried_matrices(relayed):
        attention = model.model.layers[layer].self_attn
        # With one key-value head, both heads read what it reads; only one writes.
        shared = 0 if relayed else head
        attention.v_proj.weight[shared * D_HEAD] = reads
        attention.o_proj.weight[:, head * D_HEAD] = writes
    mlp = model.model.layers[2].mlp
    mlp.gate_proj.weight[0] = along(RELAY if relayed else SIGNAL)
    mlp.up_proj.weight[0] = along(ONE)
    mlp.down_proj.weight[:, 0] = along(ANSWER)
    return model


BUILDERS = {"gpt2": gpt2, "llama": llama}


@pytest.fixture(scope="module")
def known(tiny_models: dict[str, Any]) -> dict[tuple[str, bool], Engine]:
    """The engines by (family, whether a second head relays the signal)."""
    found = {}
    for family, build in BUILDERS.items():
        loaded = tiny_models[family]
        facts = replace(
            loaded.facts,
            n_layers=N_LAYERS,
            n_heads=2,
            d_model=D_MODEL,
            vocab_size=VOCABULARY,
            context=64,
        )
        for relayed in (False, True):
            found[family, relayed] = Engine(replace(loaded, model=build(relayed), facts=facts))
    return found


def carried(engine: Engine, heads: Any) -> dict[int, float]:
    """By receiver, the share of the heads' effect that goes straight into its stream.

    The share is the same at every prompt, as it must be here.
    """
    whole = AblateHeads(heads)
    paths = [PatchPath(heads, layer) for layer in range(heads[0][0] + 1, N_LAYERS + 1)]
    frame = engine.measure(PROMPTS, [whole, *paths])
    by = frame.pivot(index="example", columns="intervention", values="logit_diff")
    deltas = by.sub(by["baseline"], axis=0)
    assert deltas[whole.label].abs().min() > 0.1  # the head matters, at every prompt
    shares = {path.layer: deltas[path.label] / deltas[whole.label] for path in paths}
    assert all(share.max() - share.min() < TOLERANCE for share in shares.values())
    return {layer: float(share.mean()) for layer, share in shares.items()}


@pytest.mark.parametrize("family", BUILDERS)
def test_what_only_the_mlp_of_layer_2_reads_goes_into_streams_up_to_it(
    family: str, known: Any
) -> None:
    shares = carried(known[family, False], SENDER)
    assert shares == pytest.approx({1: 1, 2: 1, 3: 0, 4: 0}, abs=TOLERANCE)


@pytest.mark.parametrize("family", BUILDERS)
def test_what_a_head_relays_goes_no_further_than_that_head(family: str, known: Any) -> None:
    """0.1 reaches the logits through 1.0 and the MLP of layer 2, and in no other way."""
    shares = carried(known[family, True], SENDER)
    assert shares == pytest.approx({1: 1, 2: 0, 3: 0, 4: 0}, abs=TOLERANCE)


@pytest.mark.parametrize("family", BUILDERS)
def test_the_relaying_head_goes_into_the_stream_that_is_read(family: str, known: Any) -> None:
    """Past the MLP that reads it, what 1.0 writes is seen by the final norm alone.

    Without it the norm divides by less, so the answer's logits grow a little: the wrong way.
    """
    shares = carried(known[family, True], CARRIER)
    assert shares[2] == pytest.approx(1, abs=TOLERANCE)
    assert shares[3] == pytest.approx(shares[4], abs=TOLERANCE)
    assert -0.2 < shares[3] < 0


@pytest.mark.parametrize("family", BUILDERS)
def test_a_head_that_writes_nothing_has_no_path(family: str, known: Any) -> None:
    idle = [PatchPath(((1, 1),), layer) for layer in range(2, N_LAYERS + 1)]
    frame = known[family, True].measure(PROMPTS, [AblateHeads(((1, 1),)), *idle])
    assert frame.groupby("example").logit_diff.agg(np.ptp).max() < TOLERANCE
