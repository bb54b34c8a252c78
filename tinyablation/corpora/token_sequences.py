"""Token sequences drawn from a vocabulary, for what heads do whatever the text says.

Random tokens have no meaning that attention could follow, so that only positions and repeats are
left. All are drawn from generator(seed, purpose): the same seed, tokenizer and sizes give the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int

from tinyablation.corpora.tokenisation import TokenisationError
from tinyablation.statistics.intervals import generator

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Ids = tuple[int, ...]


def ordinary_ids(
    tokenizer: PreTrainedTokenizerBase, vocab_size: int
) -> Int[np.ndarray, " n_ordinary"]:
    """The ids of a vocabulary of this size that are text: no special token, and no padding id.

    vocab_size: the model's, which may be larger than the tokenizer's.
    """
    special = {id for id, token in tokenizer.added_tokens_decoder.items() if token.special}
    special |= set(tokenizer.all_special_ids)
    return np.setdiff1d(np.arange(min(vocab_size, len(tokenizer))), sorted(special))


def random_sequences(
    ordinary: Int[np.ndarray, " n_ordinary"],
    *,
    count: int,
    length: int,
    copies: int,
    bos_id: int | None,
    seed: int,
) -> list[Ids]:
    """Sequences of random tokens, all different within one, written `copies` times in a row.

    A sequence is BOS (unless bos_id is None), then `copies` times the same `length` tokens. Raises
    TokenisationError if there are fewer than `length` ordinary tokens.
    """
    if length > len(ordinary):
        raise TokenisationError(
            f"the vocabulary has {len(ordinary)} ordinary tokens, too few for {length} different "
            "ones; draw shorter sequences"
        )
    rng = generator(seed, f"random tokens {length} x {copies}")
    start = () if bos_id is None else (bos_id,)
    drawn = (rng.choice(ordinary, length, replace=False).tolist() for _ in range(count))
    return [(*start, *copies * tokens) for tokens in drawn]


def one_token_sequences(
    ordinary: Int[np.ndarray, " n_ordinary"], *, count: int, length: int, seed: int
) -> list[Ids]:
    """Sequences of one random token, written `length` times; another token in each.

    There is no BOS, whatever the model's policy: under rotary embeddings all positions are then
    alike, which a first token of another kind would end. Raises TokenisationError if there are
    fewer than `count` ordinary tokens.
    """
    if count > len(ordinary):
        raise TokenisationError(
            f"the vocabulary has {len(ordinary)} ordinary tokens, too few for {count} sequences of "
            "one each; draw fewer"
        )
    rng = generator(seed, f"one token x {length}")
    return [(token,) * length for token in rng.choice(ordinary, count, replace=False).tolist()]
