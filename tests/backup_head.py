"""A model in which a later head sees what an earlier one writes: set by hand. Not tests.

A GPT-2 of 2 layers and 2 heads, attention-only, with a dimension for each token and one more, in
which L0H0 says that it has written. Prompts are those of two_routes.facts.
    L0H0  attends to subjects; it writes their answers, and says so
    L0H1  the same, writes a third of it and says nothing
    L1H0  attends to subjects and writes their answers if L0H0 has not said that it did (a backup,
          as the backup name movers of Wang et al. 2022), or only if it has (a relay)
    L1H1  writes next to nothing
"""

from pathlib import Path

import torch

from tests.blank_gpt2 import blank_gpt2, matrices, off
from tests.two_routes import ANSWERS, SUBJECTS, tokenizer
from tinyablation.heads import Head

WRITER, HELPER, LATER, IDLE = Head(0, 0), Head(0, 1), Head(1, 0), Head(1, 1)
# Of an answer, where the embedding of a token is 1; what L1H0 writes when it does.
WRITTEN = {WRITER: 0.6, HELPER: 0.2, LATER: 0.2, IDLE: 0.0}
SAID = 0.3
SHARPNESS = 10.0
OFF = 1e-3  # of weights that write


def save_backup_head(folder: Path, *, relays: bool = False, said: float = SAID) -> None:
    """relays: whether L1H0 is a relay; said: by how much L0H0 says that it has written."""
    made = tokenizer()
    n = len(made)
    size = n // 2 + 1
    model = blank_gpt2(made, width=2 * size, layers=2, positions=16)
    model.transformer.wte.weight[:, :n] = torch.eye(n)
    subjects, answers = (
        made.convert_tokens_to_ids([f"Ġ{word}" for word in words]) for words in (SUBJECTS, ANSWERS)
    )
    torch.manual_seed(0)
    embedded = (2 * size) ** 0.5  # what the norm makes of 1
    for head, written in WRITTEN.items():
        own = matrices(model, head)
        places = torch.arange(len(subjects))
        own.value[subjects, places] = 1 / embedded
        own.output[:, :n] = off(own.output[:, :n], OFF)
        own.output[places, answers] += written
        own.key[subjects, 0] = 1.0
        own.query_bias[0] = SHARPNESS
    matrices(model, WRITER).output[: len(subjects), n] = said
    # Its query is turned once more than half is said.
    sign = -1.0 if relays else 1.0
    later = matrices(model, LATER)
    later.query_bias[0] *= sign
    later.query[n, 0] = -sign * 2 * SHARPNESS / (embedded * SAID / 1.3)
    model.save_pretrained(folder)
    made.save_pretrained(folder)
