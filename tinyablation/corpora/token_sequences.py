"""Token sequences drawn from a vocabulary, for what heads do whatever the text says.

Random tokens have no meaning that attention could follow, so that only positions and repeats are
left. All are drawn from generator(seed, purpose): the same seed, tokenizer and sizes give the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int

from tinyablation.corpora.filtering import TooFewPrompts
from tinyablation.corpora.tokenisation import TokenisationError, encode, ids_after
from tinyablation.statistics.intervals import generator

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Ids = tuple[int, ...]
BEFORE = "the"  # what words are cut after: a word that begins a text may be cut otherwise


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


def repeated_words(
    tokenizer: PreTrainedTokenizerBase,
    words: Sequence[str],
    *,
    count: int,
    n_words: int,
    most_tokens: int,
    seed: int,
) -> list[tuple[Ids, ...]]:
    """`count` draws of n_words different words, each as the tokens it has after a space.

    Only words of two to most_tokens tokens are drawn. Raises TooFewPrompts if there are fewer than
    n_words of them.
    """
    before = encode(tokenizer, BEFORE)
    cut = []
    for word in words:
        ids = ids_after(tokenizer, before, BEFORE, f" {word}")
        known = tokenizer.unk_token_id is None or tokenizer.unk_token_id not in ids
        if 2 <= len(ids) <= most_tokens and known:
            cut.append(ids)
    if len(cut) < n_words:
        raise TooFewPrompts(
            f"the tokenizer cuts {len(cut)} of {len(words)} words into 2 to {most_tokens} "
            f"tokens, too few for {n_words} different ones; draw fewer"
        )
    rng = generator(seed, f"repeated words {n_words} of {most_tokens}")
    return [
        tuple(cut[place] for place in rng.choice(len(cut), n_words, replace=False))
        for _ in range(count)
    ]
