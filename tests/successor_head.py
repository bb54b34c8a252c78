"""A model with one head that is set by hand to write the next word. Not tests.

A GPT-2 of 2 layers and 2 heads whose words stand on a circle in the order of their sequences, one
sequence after the other. The MLP of block 0 puts out what it reads; L1H0 turns it by some steps of
the circle and writes it; the other heads write next to nothing.
"""

from pathlib import Path

import torch

from tests.blank_gpt2 import blank_gpt2
from tests.small_tokenizers import byte_level
from tinyablation.corpora.ordinals import SEQUENCES, ordinal_ids
from tinyablation.heads import Head

HEAD = Head(1, 0)
WIDTH, SIZE = 16, 8
LITTLE = 1e-3


def save_successor_head(folder: Path, steps: int) -> None:
    """steps: how far on the circle the head writes; 1: the successor."""
    words = list(dict.fromkeys(word for each in SEQUENCES for word in each.words))
    tokenizer = byte_level(f" {word}" for word in words)
    model = blank_gpt2(tokenizer, width=WIDTH, layers=2, inner=4 * WIDTH)
    ids = ordinal_ids(tokenizer)
    angle = torch.tensor(2 * torch.pi / len(words))
    with torch.no_grad():
        for place, word in enumerate(words):
            at = torch.stack([(place * angle).cos(), (place * angle).sin()])
            # With its negative, so that the norm takes no mean away.
            model.transformer.wte.weight[ids[word], :4] = torch.cat([at, -at])
        mlp = model.transformer.h[0].mlp  # gelu(x) - gelu(-x) = x
        mlp.c_fc.weight[:, :WIDTH], mlp.c_fc.weight[:, WIDTH : 2 * WIDTH] = (
            torch.eye(WIDTH),
            -torch.eye(WIDTH),
        )
        mlp.c_proj.weight[:WIDTH], mlp.c_proj.weight[WIDTH : 2 * WIDTH] = (
            torch.eye(WIDTH),
            -torch.eye(WIDTH),
        )
        torch.manual_seed(0)
        for block in model.transformer.h:
            for matrix in (block.attn.c_attn.weight, block.attn.c_proj.weight):
                matrix.copy_(LITTLE * torch.randn_like(matrix))
        attention = model.transformer.h[HEAD.layer].attn
        value = attention.c_attn.weight.split(WIDTH, dim=1)[2]
        own = slice(HEAD.head * SIZE, HEAD.head * SIZE + 2)
        value[:2, own] = torch.eye(2)
        turn = steps * angle
        turned = torch.stack(
            [torch.stack([turn.cos(), turn.sin()]), torch.stack([-turn.sin(), turn.cos()])]
        )
        attention.c_proj.weight[own, :4] = torch.cat([turned, -turned], dim=1)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
