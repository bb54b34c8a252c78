"""A model whose attention is set by hand: an induction circuit, a sink and a duplicate-token head.

A GPT-2 of 2 layers and 2 heads. Its stream has a dimension for each token, for each position and
for each token as the previous one; MLPs are zero. What each head attends to follows from its
queries and keys alone:
    L0H0  the position before; it writes which token stood there (Olsson et al. 2022)
    L0H1  the first position
    L1H0  induction: positions whose previous token is the query's own
    L1H1  positions of the query's own token, its own position included
"""

from pathlib import Path
from typing import Any

import torch

from tinyablation.heads import Head
from tinyablation.models.loading import LoadedModel, load_model
from tinyablation.models.registry import ModelEntry

N_TOKENS, N_POSITIONS, WIDTH, SIZE = 20, 16, 64, 32
PREVIOUS_HEAD, SINK_HEAD, INDUCTION_HEAD, DUPLICATE_HEAD = (
    Head(0, 0),
    Head(0, 1),
    Head(1, 0),
    Head(1, 1),
)
TOKEN, POSITION, BEFORE = 0, N_TOKENS, N_TOKENS + N_POSITIONS  # where the dimensions begin
# Of queries: a match is then e^20 times as likely as none, and of several each gets its share.
SHARPNESS = 6.0


def save_induction_circuit(folder: Path) -> None:
    import transformers as hf
    from tokenizers import Tokenizer, models, pre_tokenizers

    config = hf.GPT2Config(
        vocab_size=N_TOKENS,
        n_positions=N_POSITIONS,
        n_embd=WIDTH,
        n_layer=2,
        n_head=2,
        bos_token_id=0,
        eos_token_id=0,
    )
    model: Any = hf.GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.fill_(1.0 if "ln_" in name and name.endswith("weight") else 0.0)
        tokens, positions = torch.eye(N_TOKENS), torch.eye(N_POSITIONS)
        model.transformer.wte.weight[:, TOKEN : TOKEN + N_TOKENS] = tokens
        model.transformer.wpe.weight[:, POSITION : POSITION + N_POSITIONS] = positions

        def matrices(head: Head) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
            """Views of a head's W_Q, W_K, W_V [width, size] and W_O [size, width]."""
            attention = model.transformer.h[head.layer].attn
            own = slice(head.head * SIZE, (head.head + 1) * SIZE)
            query, key, value = (
                each[:, own] for each in attention.c_attn.weight.split(WIDTH, dim=1)
            )
            return query, key, value, attention.c_proj.weight[own]

        query, key, value, output = matrices(PREVIOUS_HEAD)
        key[POSITION : POSITION + N_POSITIONS, :N_POSITIONS] = positions
        # The query of a position is the key of the one before.
        query[POSITION + 1 : POSITION + N_POSITIONS, : N_POSITIONS - 1] = (
            SHARPNESS * positions[1:, 1:]
        )
        value[TOKEN : TOKEN + N_TOKENS, :N_TOKENS] = tokens
        output[:N_TOKENS, BEFORE : BEFORE + N_TOKENS] = tokens / 5  # the norm makes 5.6 of 1
        query, key, _, _ = matrices(SINK_HEAD)
        key[POSITION, 0] = 1.0
        model.transformer.h[0].attn.c_attn.bias[SINK_HEAD.head * SIZE] = 5 * SHARPNESS
        query, key, _, _ = matrices(INDUCTION_HEAD)
        query[TOKEN : TOKEN + N_TOKENS, :N_TOKENS] = SHARPNESS * tokens
        key[BEFORE : BEFORE + N_TOKENS, :N_TOKENS] = tokens
        query, key, _, _ = matrices(DUPLICATE_HEAD)
        query[TOKEN : TOKEN + N_TOKENS, :N_TOKENS] = SHARPNESS * tokens
        key[TOKEN : TOKEN + N_TOKENS, :N_TOKENS] = tokens
    words = {f"w{token}": token for token in range(1, N_TOKENS)}
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
