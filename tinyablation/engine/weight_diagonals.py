"""Diagonals of the full OV and QK circuits of heads, over the whole vocabulary.

Full OV circuit: what the head adds to the logits of every token (column) if it attends to one token
(row). Full QK circuit: with what score a query of one token (row) attends to the key of every token
(column). On the diagonal a token is read against itself: a head that copies raises its own logit
most, one that suppresses copies lowers it, and one that looks for a token has its own key on top.
Both are vocab x vocab; they are made a few rows at a time, and of each row only the place of the
diagonal is kept.

What a token is at the head's input, its embedding, is one of
  token: W_E, its row of the embedding matrix (Elhage et al. 2021);
  mlp0: what the MLP of block 0 puts out, that block run on W_E alone. McDougall et al. 2023
    (arXiv 2310.04625) take this as the effective embedding, because the MLP of block 0 of GPT-2
    works as an extension of W_E. Of their head 10.7, 84.70 % of tokens are among the ten lowest
    logits of their own row, and 95.72 % have the highest key of their own query;
  effective: the stream after block 0 run on W_E alone: W_E + attention 0 + mlp0. It is the stream
    of a prompt of this token alone, but for the embedding of position 0, which is left out where
    positions are embedded in the stream (GPT-2): it is the same for all tokens.

OV: embedding -> linear part of the layer's first norm -> W_V W_O -> linear part of the final norm
-> W_U, as in ov_circuits.py: what is left out scales or shifts a row as a whole and moves no rank.
QK: the layer itself makes query and key of the embedding, its real norm, biases and norms of
queries and keys included, because keys compete across rows of different lengths, which the norm's
linear part would leave as they are. Query and key are at one position, so rotary embeddings turn
both alike: the score is that of relative position 0.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float32, Int
from torch import Tensor

from tinyablation.engine.architecture import Architecture, Calls, Kept
from tinyablation.engine.offload import exact, weight_of
from tinyablation.engine.ov_circuits import (
    ROW_NUMBERS,
    head_columns,
    one_token_calls,
    value_matrix,
)
from tinyablation.engine.prompt_checks import EngineError
from tinyablation.engine.readout import Readout, linear_tolerance, norm_map
from tinyablation.heads import Head

if TYPE_CHECKING:
    from tinyablation.engine.engine import Engine

# Figures of rows made at once: 8 MB, which stay in a processor's cache while they are compared. Of
# 49,152 columns 340 rows took .085 s on one core, and .155 s with eight times as many at once.
_FIGURES = 2**21
_PROBED = 8  # tokens of which the stream that enters block 0 is compared with the embedding

Embedding = Literal["token", "mlp0", "effective"]
# What a query is made of: the unembedding of a token, which the stream of a position that predicts
# the token points along (McDougall et al.), or the same embedding as a key's.
Query = Literal["unembedding", "embedding"]


class Diagonals(NamedTuple):
    """Where the diagonal stands in its row: how many of the row's figures lie above it, and below.

    Figures that are equal count in neither. above == 0: the largest; below < 10: of the ten lowest.
    """

    above: Int[np.ndarray, "n_heads n_tokens"]
    below: Int[np.ndarray, "n_heads n_tokens"]


@torch.no_grad()
def ov_diagonals(
    engine: Engine,
    heads: Sequence[Head],
    tokens: Int[np.ndarray, " n_tokens"],
    embedding: Embedding,
) -> Diagonals:
    """Each token's own logit among all logits of its row of the full OV circuit.

    tokens: ids, the rows; the columns are the whole vocabulary. A head of SmolLM2-135M over all
    49,152 tokens takes 18 s of one core, and 261 heads over 256 tokens 37 s. Raises EngineError for
    heads and tokens that the model does not have, a head that writes nothing, an embedding that
    block 0 makes for a head of that block, and what norm_map and value_matrix refuse.
    """
    _check(engine, heads, tokens, embedding)
    own = torch.as_tensor(tokens, device=engine.architecture.desk)
    return _ranked(heads, own, _ov_reader(engine, tokens, embedding))


@torch.no_grad()
def ov_entries(
    engine: Engine,
    heads: Sequence[Head],
    rows: Int[np.ndarray, " n_rows"],
    columns: Int[np.ndarray, " n_columns"],
    embedding: Embedding,
) -> Float32[np.ndarray, "n_heads n_rows n_columns"]:
    """Entries of the full OV circuits of heads: of some tokens (rows) on some others (columns).

    rows, columns: token ids. Within a row the entries are logits up to a factor and a shift that
    all columns share, as in ov_diagonals, which says what is refused.
    """
    for tokens in (rows, columns):
        _check(engine, heads, tokens, embedding)
    read = _ov_reader(engine, rows, embedding, torch.as_tensor(columns))
    found = {head: (left @ right).cpu().numpy() for head, left, right in _by_head(heads, read)}
    return np.stack([found[head] for head in heads])


@torch.no_grad()
def qk_diagonals(
    engine: Engine,
    heads: Sequence[Head],
    tokens: Int[np.ndarray, " n_tokens"],
    embedding: Embedding,
    query: Query,
) -> Diagonals:
    """The score of each token's own key among the keys of all tokens, for the token's query.

    tokens: ids, the queries; embedding: what keys are made of; query: what queries are. The
    unembedding of a token is the direction of the stream that raises its logit above the mean of
    all logits: its column of W_U through the adjoint of the final norm's linear part, minus the
    mean over the vocabulary. A head of SmolLM2-135M over all 49,152 tokens takes 21 s of one core,
    and 261 heads over 256 tokens 49 s. Raises EngineError as ov_diagonals does, and for a model
    whose attention does not hand over its queries and keys (see _handed_over).
    """
    arch = engine.architecture
    _check(engine, heads, tokens, embedding)
    calls = one_token_calls(arch)
    own = torch.as_tensor(tokens)
    every = torch.arange(engine.loaded.facts.vocab_size)
    keyed = _embedded(engine, calls, every, embedding)
    asking = keyed[own] if query == "embedding" else _unembedding(arch)[own]

    def read(layer: int, wanted: Sequence[int]) -> Iterator[_Row]:
        queries = _handed_over(arch, calls, layer, asking, "query")
        keys = _handed_over(arch, calls, layer, keyed, "key")
        group = queries.shape[1] // keys.shape[1]  # query heads that share a key head
        for head in wanted:
            yield queries[:, head], keys[:, head // group].T

    return _ranked(heads, own.to(arch.desk), read)


# The factors of a head's circuit: their product has a row a token, and a column for each token of
# the vocabulary, or for some of them.
_Row = tuple[Float32[Tensor, "n_tokens d_head"], Float32[Tensor, "d_head vocab"]]
# Those of some heads of a layer, in order.
_Reader = Callable[[int, Sequence[int]], Iterator[_Row]]


def _ov_reader(
    engine: Engine,
    tokens: Int[np.ndarray, " n_tokens"],
    embedding: Embedding,
    columns: Int[Tensor, " n_columns"] | None = None,
) -> _Reader:
    """The factors of heads' OV circuits, a row for each of the tokens; None: all columns."""
    arch = engine.architecture
    calls, readout = one_token_calls(arch), Readout(arch)
    rows = _embedded(engine, calls, torch.as_tensor(tokens), embedding)
    unembed = readout.unembed.float()
    if columns is not None:
        unembed = unembed[:, columns.to(unembed.device)]

    def read(layer: int, wanted: Sequence[int]) -> Iterator[_Row]:
        first = norm_map(
            arch.layers[layer].norm,
            len(unembed),
            f"the first norm of layer {layer} of model {arch.name!r}",
        )
        normed = first(rows.to(first.gain.device)).float().to(arch.desk)
        values = value_matrix(arch, calls, layer).float()
        for head in wanted:
            columns = head_columns(arch, layer)[head]
            w_o = exact(arch.output_matrix(layer, columns)).to(arch.desk)
            z, written = normed @ values[:, columns], readout.final(w_o).float()
            # The squares of all that it writes, without making it.
            if not ((z.T @ z) * (written @ written.T)).sum() > 0:
                raise EngineError(
                    f"model {arch.name!r}: head {layer}:{head} writes nothing; its OV circuit is "
                    "zero"
                )
            yield z, written @ unembed

    return read


def _by_head(heads: Sequence[Head], read: _Reader) -> Iterator[tuple[Head, Tensor, Tensor]]:
    """Each head once, by layer, with the factors of its circuit."""
    for layer in sorted({head.layer for head in heads}):
        wanted = sorted({head.head for head in heads if head.layer == layer})
        for number, (left, right) in zip(wanted, read(layer, wanted), strict=True):
            yield Head(layer, number), left, right


def _ranked(heads: Sequence[Head], own: Int[Tensor, " n_tokens"], read: _Reader) -> Diagonals:
    """The places of the diagonal in the circuits of heads."""
    found = {head: _places(left, right, own) for head, left, right in _by_head(heads, read)}
    above, below = (
        np.stack([found[head][side].cpu().numpy() for head in heads]) for side in (0, 1)
    )
    return Diagonals(above, below)


def _places(
    left: Float32[Tensor, "n_tokens d_head"],
    right: Float32[Tensor, "d_head vocab"],
    own: Int[Tensor, " n_tokens"],
) -> tuple[Int[Tensor, " n_tokens"], Int[Tensor, " n_tokens"]]:
    """How many figures of each row of left @ right lie above the row's own, and below it."""
    n_tokens, n_columns = len(left), right.shape[1]
    above, below = torch.empty(2, n_tokens, dtype=torch.int32, device=left.device)
    # All parts are made in one place. Allocated anew, blocks of this size between small ones that
    # are kept fragment the heap: one head of 49,152 tokens once took 19 GB.
    size = min(n_tokens, max(1, _FIGURES // n_columns))
    figures = torch.empty(size, n_columns, device=left.device)
    found = torch.empty(size, n_columns, dtype=torch.bool, device=left.device)
    for begin in range(0, n_tokens, size):
        rows = slice(begin, begin + size)
        part, is_beyond = (each[: len(own[rows])] for each in (figures, found))
        torch.mm(left[rows], right, out=part)
        diagonal = part.gather(1, own[rows, None])
        for beyond, side in ((torch.gt, above), (torch.lt, below)):
            beyond(part, diagonal, out=is_beyond)
            torch.sum(is_beyond, dim=1, dtype=torch.int32, out=side[rows])
    return above, below


def _embedded(
    engine: Engine, calls: Calls, tokens: Int[Tensor, " n_tokens"], embedding: Embedding
) -> Float[Tensor, "n_tokens d_model"]:
    """The tokens' embeddings, on the architecture's desk.

    Raises EngineError for a model that makes its stream of more than embeddings and positions.
    """
    arch = engine.architecture
    embed: Any = engine.loaded.model.get_input_embeddings()
    _check_start(arch, embed)
    found = []
    # An MLP's hidden layer is some four times as wide as the stream.
    for part in tokens.split(max(1, ROW_NUMBERS // (8 * engine.loaded.facts.d_model))):
        rows = embed(part.to(engine.loaded.device))
        if embedding != "token":
            kept: list[Tensor] = []

            def keep(value: Tensor, kept: list[Tensor] = kept) -> Tensor:
                kept.append(value)
                return value

            edit = keep if embedding == "mlp0" else None
            after = arch.through(calls, 0, rows[:, None].to(arch.homes[0]), edit_mlp=edit)
            rows = (kept[0] if embedding == "mlp0" else after)[:, -1]
        found.append(rows.to(arch.desk))
    return torch.cat(found)


def _check_start(arch: Architecture, embed: Any) -> None:
    """Raise EngineError unless block 0 is given the embedding plus what is alike for all tokens.

    With a norm, a projection or a factor between them W_E would not be what a token is.
    """
    ids = torch.arange(_PROBED, device=arch.device)[:, None]
    stream = exact(arch.clean(ids, Kept(residual=frozenset([0])), logits=False).residual[0][:, 0])
    added = stream - exact(embed(ids)[:, 0]).to(stream.device)
    off = (added - added[0]).abs().max().item()
    if not off <= linear_tolerance(arch.model.dtype) * stream.abs().max().item():
        raise EngineError(
            f"model {arch.name!r}: the stream that enters block 0 is not the token's embedding "
            f"plus its position's (off by {off:.2g}), so its circuits cannot be read by token"
        )


def _unembedding(arch: Architecture) -> Float32[Tensor, "vocab d_model"]:
    """The directions of the stream that raise one logit above the mean of all."""
    final = Readout(arch).final
    rows = weight_of(arch.unembed).to(arch.desk).float() * final.gain.float()
    if final.centred:
        rows -= rows.mean(dim=1, keepdim=True)
    rows -= rows.mean(dim=0)
    return rows


class _HandedOver(Exception):
    """Ends a layer's pass at its attention, with its queries and keys; never leaves this module."""

    def __init__(self, query: Tensor, key: Tensor) -> None:
        super().__init__()
        self.query = query
        self.key = key


@contextlib.contextmanager
def _handing_over() -> Iterator[None]:
    """Context in which eager attention raises _HandedOver in place of attending.

    transformers' modules make queries and keys, then call the function that is registered for the
    implementation, or their own eager one if none is.
    """
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    def hand_over(_: Any, query: Tensor, key: Tensor, *rest: Any, **options: Any) -> Any:
        raise _HandedOver(query, key)

    ALL_ATTENTION_FUNCTIONS["eager"] = hand_over
    try:
        yield
    finally:
        del ALL_ATTENTION_FUNCTIONS["eager"]


def _handed_over(
    arch: Architecture,
    calls: Calls,
    layer: int,
    streams: Float[Tensor, "n_tokens d_model"],
    which: Literal["query", "key"],
) -> Float32[Tensor, "n_tokens n_heads_or_key_heads size"]:
    """The queries or the keys that a layer makes of streams at position 0, on the desk.

    Raises EngineError for a model whose attention does not go through transformers' interface.
    """
    modules, call = arch.layers[layer], calls.blocks[layer]
    weight = arch.output_matrix(layer, slice(0, 1))
    found: list[Tensor] = []
    with _handing_over():
        for part in streams.split(max(1, ROW_NUMBERS // (8 * streams.shape[1]))):
            try:
                call.into(modules.block, part[:, None].to(weight.device, weight.dtype))
            except _HandedOver as given:
                made = given.query if which == "query" else given.key
                found.append(made[:, :, -1].float().to(arch.desk))
                continue
            raise EngineError(
                f"model {arch.name!r}, layer {layer}: its attention does not hand over queries and "
                "keys, so of this architecture no QK diagonal can be measured"
            )
    return torch.cat(found)


def _check(engine: Engine, heads: Sequence[Head], tokens: np.ndarray, embedding: Embedding) -> None:
    n_heads, vocab_size = engine.architecture.n_heads, engine.loaded.facts.vocab_size
    for head in heads:
        if not (0 <= head.layer < engine.n_layers and 0 <= head.head < n_heads):
            raise EngineError(
                f"model {engine.name!r} has no head {head.label}; it has {engine.n_layers} layers "
                f"of {n_heads} heads"
            )
        if head.layer == 0 and embedding != "token":
            raise EngineError(
                f"model {engine.name!r}: head {head.label} is in block 0, which makes the "
                f"embedding {embedding!r}, and never reads it; take the embedding 'token'"
            )
    if not len(heads) or not len(tokens):
        raise EngineError(f"model {engine.name!r}: no heads or no tokens to read diagonals of")
    if tokens.min() < 0 or tokens.max() >= vocab_size:
        raise EngineError(
            f"model {engine.name!r}: tokens from {tokens.min()} to {tokens.max()} are not all "
            f"within the vocabulary of {vocab_size}"
        )
