"""Queries and keys of the tiny random models, worked out from their weights in float64."""

import copy
from typing import Any

import torch

from tests.conftest import N_HEADS


def plain(model: Any) -> Any:
    """A copy, to ask for attentions and streams: transformers leaves hooks on whatever it asked."""
    return copy.deepcopy(model)


def part(model: Any, family: str, name: str) -> torch.Tensor:
    """A weight by its name within the layers, such as "1.input_layernorm.weight", in float64."""
    prefix = {"gpt2": "transformer.h", "neox": "gpt_neox.layers"}.get(family, "model.layers")
    found: torch.Tensor = model.state_dict()[f"{prefix}.{name}"].double()
    return found


def queries_and_keys(
    model: Any, family: str, layer: int, stream: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """[heads, positions, size] each, before rotary embeddings; keys of a group repeated."""
    x, config = stream.double(), model.config
    size = config.hidden_size // N_HEADS

    def own(name: str) -> torch.Tensor:
        return part(model, family, f"{layer}.{name}")

    if family in ("gpt2", "neox"):
        norm = "ln_1" if family == "gpt2" else "input_layernorm"
        x = x - x.mean(-1, keepdim=True)
        x = x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        x = x * own(f"{norm}.weight") + own(f"{norm}.bias")
    else:
        x = x / (x.square().mean(-1, keepdim=True) + config.rms_norm_eps).sqrt()
        x = x * own("input_layernorm.weight")
    if family == "gpt2":
        both = x @ own("attn.c_attn.weight") + own("attn.c_attn.bias")
        q, k = (each.unflatten(-1, (N_HEADS, size)) for each in both.split(N_HEADS * size, -1)[:2])
    elif family == "neox":  # query, key and value side by side within each head
        both = x @ own("attention.query_key_value.weight").T + own("attention.query_key_value.bias")
        q, k = both.unflatten(-1, (N_HEADS, 3, size)).unbind(2)[:2]
    else:
        q = (x @ own("self_attn.q_proj.weight").T).unflatten(-1, (N_HEADS, size))
        k = (x @ own("self_attn.k_proj.weight").T).unflatten(-1, (-1, size))
        k = k.repeat_interleave(N_HEADS // k.shape[1], dim=1)
    return q.transpose(0, 1), k.transpose(0, 1)


def turned(rows: torch.Tensor, rotary: Any) -> torch.Tensor:
    """Rotary embeddings of [heads, positions, size], halves paired (Su et al. 2021)."""
    turns = int(rows.shape[-1] * rotary.get("partial_rotary_factor", 1.0))
    half = turns // 2
    speed = rotary["rope_theta"] ** (-torch.arange(half, dtype=torch.float64) / half)
    angle = torch.arange(rows.shape[1], dtype=torch.float64)[:, None] * speed
    one, other, rest = rows[..., :half], rows[..., half:turns], rows[..., turns:]
    return torch.cat(
        [
            one * angle.cos() - other * angle.sin(),
            other * angle.cos() + one * angle.sin(),
            rest,
        ],
        dim=-1,
    )
