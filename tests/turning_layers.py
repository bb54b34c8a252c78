"""A model of many layers, of which a few are needed and two do harm: set by hand. Not tests.

A GPT-2 of 18 layers without attention whose tokens are characters: the next is foretold by the last
alone, by how often one follows the other in corpora/text. Its stream has two dimensions for each
character.
    8 to 11  turn the stream by an angle each; the unembedding expects all of these turns
    12       writes noise, which depends on the character
    14, 17   write a part of the same noise each, or take it away
    others   do nothing
"""

import math
from pathlib import Path

import numpy as np
import torch
import transformers as hf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from claims.literature.test_layers import BETTER_WITHOUT, CRITICAL
from tests.benches import CORPORA
from tests.blank_gpt2 import blank_gpt2
from tests.small_tokenizers import END
from tinyablation.corpora.passages import load_passages

LAYERS, NOISY = 1 + max(BETTER_WITHOUT), 12
READ = 48  # tokens of a passage, for speed
NOISE, PART = 0.4, 0.3  # of the stream's length; of the noise, in each of the two layers


def tokenizer() -> hf.PreTrainedTokenizerFast:
    """The characters of corpora/text."""
    texts = [passage.text for passage in load_passages(CORPORA)]
    splitter = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    known = sorted(
        {part for text in texts for word, _ in splitter.pre_tokenize_str(text) for part in word}
    )
    vocabulary = {token: id for id, token in enumerate([END, *known])}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    core.pre_tokenizer, core.decoder = splitter, decoders.ByteLevel()
    return hf.PreTrainedTokenizerFast(tokenizer_object=core, bos_token=END, eos_token=END)


def following(made: hf.PreTrainedTokenizerFast) -> torch.Tensor:
    """[token, token] the logarithm of how often one follows the other, its mean by row 0."""
    counts = np.ones((len(made), len(made)))
    for passage in load_passages(CORPORA):
        ids = [made.bos_token_id, *made(passage.text)["input_ids"]]
        np.add.at(counts, (ids[:-1], ids[1:]), 1.0)
    logs = torch.from_numpy(np.log(counts)).float()
    return logs - logs.mean(dim=1, keepdim=True)


def save_turning_layers(folder: Path, *, turn: float = math.pi, harmful: bool = True) -> None:
    """turn: of each of the layers 8 to 11, in radians; harmful: whether 14 and 17 add noise."""
    made = tokenizer()
    n = len(made)
    width = 2 * n
    model = blank_gpt2(
        made, width=width, layers=LAYERS, positions=READ, inner=2 * width, tied=False
    )
    one = torch.eye(n)
    model.transformer.wte.weight[:, :n] = one
    normed = width**0.5  # what the norm makes of 1

    def turning(angle: float) -> torch.Tensor:
        """[width, width] of rows: from the first dimension of a character to its second."""
        return torch.cat(
            [
                torch.cat([math.cos(angle) * one, math.sin(angle) * one], dim=1),
                torch.cat([-math.sin(angle) * one, math.cos(angle) * one], dim=1),
            ]
        )

    torch.manual_seed(0)
    noise = NOISE * torch.randn(width, width) / normed
    written = {
        **dict.fromkeys(CRITICAL, turning(turn) - torch.eye(width)),
        NOISY: noise,
        **dict.fromkeys(BETTER_WITHOUT, (PART if harmful else -PART) * noise),
    }
    for layer, matrix in written.items():
        mlp = model.transformer.h[layer].mlp  # gelu(x) - gelu(-x) = x
        mlp.c_fc.weight[:] = torch.cat([torch.eye(width), -torch.eye(width)], dim=1)
        mlp.c_proj.weight[:] = torch.cat([matrix, -matrix]) / normed
    expected = turning(len(CRITICAL) * turn)[:n]
    model.lm_head.weight[:] = following(made).T @ expected / normed
    model.save_pretrained(folder)
    made.save_pretrained(folder)
