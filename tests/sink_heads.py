"""A model in which heads are set by hand to attend to the first token. Not tests.

A GPT-2 of 6 layers and 2 heads, attention-only, with a dimension for each token, for each position
and for each token as the one before.
    L0H0  attends to the position before, and writes which token stands there
    L2H0  induction: attends to where its own token stood before, and writes the token there
    all   write next to nothing else, and attend to all positions alike
A head that rests attends to the first token where nothing else is to be attended to: that is known
by BOS, or by its position.
"""

from collections.abc import Mapping
from pathlib import Path

import torch

from tests.blank_gpt2 import blank_gpt2, matrices, off
from tests.induction_circuit import SHARPNESS
from tests.two_routes import POSITIONS, tokenizer
from tinyablation.heads import Head

LAYERS, HEADS = 6, 2
OFF = 1e-3  # of weights that write, beside .07
PREVIOUS_HEAD, INDUCTION_HEAD = Head(0, 0), Head(2, 0)
# By head, the first token's lead in attention scores: e^6 is .86 of 64 tokens. All that have no
# other task, in layers that the literature says have sinks.
RESTING: Mapping[Head, float] = {
    head: 6.0
    for head in (Head(layer, number) for layer in range(2, LAYERS) for number in range(HEADS))
    if head != INDUCTION_HEAD
}


def save_sink_heads(
    folder: Path, resting: Mapping[Head, float] = RESTING, *, by_position: bool = False
) -> None:
    """resting: of heads that rest, the first token's lead; by_position: how it is known."""
    made = tokenizer()
    n = len(made)
    token, position, before = 0, n, n + POSITIONS  # where the dimensions begin
    size = n + POSITIONS // 2
    model = blank_gpt2(made, width=2 * size, layers=LAYERS, heads=HEADS, positions=POSITIONS)
    one, places = torch.eye(n), torch.eye(POSITIONS)
    written = one / size**0.5  # what the norm makes of one of two dimensions
    model.transformer.wte.weight[:, token : token + n] = one
    model.transformer.wpe.weight[:, position : position + POSITIONS] = places
    torch.manual_seed(0)
    for layer in range(LAYERS):
        for number in range(HEADS):
            head = Head(layer, number)
            own = matrices(model, head)
            # No head writes anything of the first token: its values are drained (Gu et al. 2024).
            own.value[token : token + n, :n] = one
            own.value[token + made.bos_token_id] = 0.0
            if head == PREVIOUS_HEAD:
                own.key[position : position + POSITIONS, :POSITIONS] = places
                # The query of a position is the key of the one before.
                own.query[position + 1 : position + POSITIONS, : POSITIONS - 1] = (
                    SHARPNESS * places[1:, 1:]
                )
                own.output[:n, before : before + n] = written
                continue
            own.output[:n, token : token + n] = off(0 * written, OFF)
            if head == INDUCTION_HEAD:
                own.query[token : token + n, :n] = SHARPNESS * one
                own.key[before : before + n, :n] = one
                own.output[:n, token : token + n] = off(written, OFF)
            if head in resting:
                first = position if by_position else token + made.bos_token_id
                own.key[first, -1] = 1.0
                own.query_bias[-1] = resting[head]
    model.save_pretrained(folder)
    made.save_pretrained(folder)
