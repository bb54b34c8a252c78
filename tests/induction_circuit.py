"""A model whose attention is set by hand: an induction circuit, a sink and a duplicate-token head.

A GPT-2 of 2 layers and 2 heads. Its stream has a dimension for each token, for each position and
for each token as the previous one; MLPs are zero. What each head attends to follows from its
queries and keys alone:
    L0H0  the position before; it writes which token stood there (Olsson et al. 2022)
    L0H1  the first position
    L1H0  induction: positions whose previous token is the query's own
    L1H1  positions of the query's own token, its own position included
"""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch

from tinyablation.heads import Head
from tinyablation.models.loading import LoadedModel, load_model
from tinyablation.models.registry import ModelEntry

N_TOKENS, N_POSITIONS = 20, 16
PREVIOUS_HEAD, SINK_HEAD, INDUCTION_HEAD, DUPLICATE_HEAD = (
    Head(0, 0),
    Head(0, 1),
    Head(1, 0),
    Head(1, 1),
)
# Of queries: a match is then e^20 times as likely as none, and of several each gets its share.
SHARPNESS = 6.0


def save_induction_circuit(
    folder: Path,
    *,
    n_tokens: int = N_TOKENS,
    n_positions: int = N_POSITIONS,
    without: Collection[Head] = (),
) -> None:
    """Save the model; heads in `without` are not set, and attend to all positions alike."""
    import transformers as hf
    from tokenizers import Tokenizer, models, pre_tokenizers

    # Where the dimensions begin; a head has half of them.
    token, position, before = 0, n_tokens, n_tokens + n_positions
    size = 16 * -(-(before + n_tokens) // 32)
    width = 2 * size
    config = hf.GPT2Config(
        vocab_size=n_tokens,
        n_positions=n_positions,
        n_embd=width,
        n_layer=2,
        n_head=2,
        bos_token_id=0,
        eos_token_id=0,
    )
    model: Any = hf.GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.fill_(1.0 if "ln_" in name and name.endswith("weight") else 0.0)
        tokens, positions = torch.eye(n_tokens), torch.eye(n_positions)
        model.transformer.wte.weight[:, token : token + n_tokens] = tokens
        model.transformer.wpe.weight[:, position : position + n_positions] = positions

        def matrices(head: Head) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
            """Views of a head's W_Q, W_K, W_V [width, size] and W_O [size, width]."""
            attention = model.transformer.h[head.layer].attn
            own = slice(head.head * size, (head.head + 1) * size)
            query, key, value = (
                each[:, own] for each in attention.c_attn.weight.split(width, dim=1)
            )
            return query, key, value, attention.c_proj.weight[own]

        query, key, value, output = matrices(PREVIOUS_HEAD)
        key[position : position + n_positions, :n_positions] = positions
        # The query of a position is the key of the one before.
        query[position + 1 : position + n_positions, : n_positions - 1] = (
            SHARPNESS * positions[1:, 1:]
        )
        value[token : token + n_tokens, :n_tokens] = tokens
        output[:n_tokens, before : before + n_tokens] = tokens / 5  # the norm makes 5.6 of 1
        if SINK_HEAD not in without:
            query, key, _, _ = matrices(SINK_HEAD)
            key[position, 0] = 1.0
            model.transformer.h[0].attn.c_attn.bias[SINK_HEAD.head * size] = 5 * SHARPNESS
        if INDUCTION_HEAD not in without:
            query, key, _, _ = matrices(INDUCTION_HEAD)
            query[token : token + n_tokens, :n_tokens] = SHARPNESS * tokens
            key[before : before + n_tokens, :n_tokens] = tokens
        query, key, _, _ = matrices(DUPLICATE_HEAD)
        query[token : token + n_tokens, :n_tokens] = SHARPNESS * tokens
        key[token : token + n_tokens, :n_tokens] = tokens
    words = {f"w{id}": id for id in range(1, n_tokens)}
    backend = Tokenizer(models.WordLevel({"<s>": 0, **words}, unk_token="<s>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = hf.PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="<s>", unk_token="<s>"
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def load_induction_circuit(folder: Path) -> LoadedModel:
    save_induction_circuit(folder)
    fields = {"id": "induction", "title": "An induction circuit", "source": folder}
    fields |= {"family": "gpt2", "variant": "plain", "bos": True}
    return load_model(ModelEntry.model_validate(fields))
