"""A GPT-2 whose weights are all zero but for its norms, to be set by hand. Not tests."""

from typing import Any, NamedTuple

import torch
import transformers as hf

from tinyablation.heads import Head


class Matrices(NamedTuple):
    """Views of what a head has: W_Q, W_K, W_V [width, size], W_O [size, width], b_Q [size]."""

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    output: torch.Tensor
    query_bias: torch.Tensor


def blank_gpt2(
    tokenizer: hf.PreTrainedTokenizerFast,
    *,
    width: int,
    layers: int,
    heads: int = 2,
    positions: int = 64,
    inner: int = 1,
    tied: bool = True,
) -> Any:
    """width: of the stream, a multiple of heads; inner: of the MLPs; tied: the unembedding."""
    model = hf.GPT2LMHeadModel(
        hf.GPT2Config(
            vocab_size=len(tokenizer),
            n_positions=positions,
            n_embd=width,
            n_inner=inner,
            n_layer=layers,
            n_head=heads,
            tie_word_embeddings=tied,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.fill_(1.0 if "ln_" in name and name.endswith("weight") else 0.0)
    return model.requires_grad_(False).eval()


def matrices(model: Any, head: Head) -> Matrices:
    attention = model.transformer.h[head.layer].attn
    width, size = model.config.n_embd, attention.head_dim
    own = slice(head.head * size, (head.head + 1) * size)
    query, key, value = (each[:, own] for each in attention.c_attn.weight.split(width, dim=1))
    bias = attention.c_attn.bias[own]
    return Matrices(query, key, value, attention.c_proj.weight[own], bias)


def off(matrix: torch.Tensor, by: float) -> torch.Tensor:
    """The matrix, each number off by so much: no figure is then the same for all prompts."""
    return matrix + by * torch.randn_like(matrix)
