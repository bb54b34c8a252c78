"""A model that compares years by heads that are set by hand. Not tests.

A GPT-2 of 2 layers and 8 heads. The years of a century stand on half a circle: what is written of
one turned by a quarter raises the years that come after it, and lowers those before. Heads that
compare attend from a century to the year that stands before, and write so.
"""

import re
from collections.abc import Iterator

import torch
from tokenizers import models

from fixtures.conditions import CENTURIES, CONDITIONS
from tests.hand_set import POSITIONS, HandSet, flag
from tests.small_tokenizers import END, byte_level
from tinyablation.heads import Head

CLUSTERS = 24  # of the condition's 40
LAYERS, HEADS = 2, 8
PARTS = {"word": 32, "place": POSITIONS + 1, "year": 4, "said": 4}
FLAGS = ("dated", "asks", "first")
WRITTEN = 0.2  # so little beside the rest that the norm hardly makes up for a part of it


def asked() -> Iterator[dict[str, str]]:
    """Prompts of the pack's condition."""
    rows = list(CONDITIONS["greater_than"]())
    events = list(dict.fromkeys(row["cluster"] for row in rows))[:CLUSTERS]
    return (row for row in rows if row["cluster"] in events)


def years(n_heads: int) -> HandSet:
    """The model. n_heads: how many heads compare, of both layers in turn; together the same."""
    words = sorted({word for row in asked() for word in re.findall(r" ?[^\W\d]+", row["clean"])})
    numbers = [f"{year:02d}" for year in range(100)]
    centuries = [f" {century}" for century in CENTURIES]
    tokenizer = byte_level([*words, *numbers, *centuries])
    # The longest that fits: 1457 is the century and the year.
    core = tokenizer.backend_tokenizer
    vocabulary = tokenizer.get_vocab()
    core.model = models.WordPiece(vocabulary, unk_token=END, continuing_subword_prefix="")
    parts = {**PARTS, **dict.fromkeys(FLAGS, 2)}
    made = HandSet(tokenizer, parts, layers=LAYERS, heads=HEADS, size=12)
    every = range(len(tokenizer))
    made.embed("word", every, made.codes(len(every), "word"))
    made.place("place", made.codes(POSITIONS, "place"))
    ids = [vocabulary[number] for number in numbers]
    angle = torch.pi * torch.arange(100) / 100
    turned = torch.stack([angle.cos(), angle.sin()], dim=1)
    # With its negative, so that the norm takes no mean away.
    codes = torch.cat([turned, -turned], dim=1) / 2**0.5
    made.embed("year", ids, codes)
    made.unembed("said", ids, codes)
    made.embed("dated", ids, flag())
    made.embed("asks", made.ids(centuries), flag())
    made.embed("first", [tokenizer.bos_token_id], flag())
    quarter = torch.tensor([[0.0, 1.0], [-1.0, 0.0]])
    quarter = torch.block_diag(quarter, quarter)
    for number in range(n_heads):
        head = Head(number % LAYERS, number // LAYERS)
        made.attend(head, "asks", "dated", 2.0)
        made.attend(head, "asks", "first", 1.0)
        made.move(head, "year", "said", WRITTEN / n_heads * quarter)
    return made
