"""The loss on texts with each layer removed: its block is skipped, the stream passes unchanged.

Removing a layer takes out its attention and its MLP at all positions, as in studies that prune
whole layers (Men et al. 2024, "ShortGPT", arXiv:2403.03853). The loss is the mean negative
log-likelihood per token in nats; its exponential is the perplexity.

A model without layer l equals the whole one up to l. So all variants are rows of one batch: before
layer k it holds the whole model and the variants without a layer below k, which only differ from
each other in their streams; the variant without k starts as a copy of the whole model's stream. For
L layers that is L (L + 1) / 2 layer passes instead of L^2.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from tinyablation.corpora.tokenisation import Prompt
from tinyablation.engine.architecture import Calls, Kept
from tinyablation.engine.prompt_checks import EngineError, Ids, check_prompts
from tinyablation.models.bounds import RECORD_NUMBERS

if TYPE_CHECKING:
    from tinyablation.engine.engine import Engine


class Losses(NamedTuple):
    """Mean negative log-likelihoods per token by text, in nats.

    whole: of the model as it is; removed: without each of its layers; tokens: how many tokens of a
    text are predicted, all but its first.
    """

    whole: Float64[np.ndarray, " n_texts"]
    removed: Float64[np.ndarray, "n_texts n_layers"]
    tokens: Int[np.ndarray, " n_texts"]


@torch.no_grad()
def removal_losses(engine: Engine, texts: Sequence[Ids]) -> Losses:
    """The losses on texts, given as token ids (with BOS, if the model's policy adds one).

    Texts of one length are computed together, without padding. Layers are computed in the model's
    dtype, log-likelihoods in float32 from logits in float32 (unembedding.py), means in float64.
    Logits of a few hundred positions are in memory at once.

    Raises EngineError for a text of fewer than two tokens or one that the model cannot process, and
    for a model that does more between or after its layers than they say (CleanPasses.verify).
    """
    check_prompts(engine.loaded, [Prompt(tuple(ids), 0, 1) for ids in texts], "text")
    short = next((place for place, ids in enumerate(texts) if len(ids) < 2), None)
    if short is not None:
        raise EngineError(
            f"model {engine.name!r}: text {short} is a single token, which nothing predicts; give "
            "texts of two tokens or more"
        )
    engine.room.begin()
    facts = engine.loaded.facts
    found = np.empty((len(texts), 1 + facts.n_layers))
    by_length: dict[int, list[int]] = {}
    for place, ids in enumerate(texts):
        by_length.setdefault(len(ids), []).append(place)
    for length, places in sorted(by_length.items()):
        calls = engine.passes.verify([tuple(texts[place]) for place in places])

        def losses(part: Sequence[int], calls: Calls = calls) -> Float64[np.ndarray, "n variants"]:
            ids = torch.tensor([texts[place] for place in part], device=engine.loaded.device)
            hidden = _streams(engine, calls, ids)
            return np.stack([_losses(engine, rows, ids) for rows in hidden], axis=1)

        costs = [(1 + facts.n_layers) * length * facts.d_model] * len(places)
        what = f"texts of {length} tokens, with every layer removed in turn"
        for part, values in engine.room.parts(places, costs, RECORD_NUMBERS, what, losses):
            found[list(part)] = values
    if not np.isfinite(found).all():
        place, variant = np.argwhere(~np.isfinite(found))[0].tolist()
        removed = f"without layer {variant - 1}" if variant else "as it is"
        raise EngineError(
            f"model {engine.name!r}: its loss on text {place} {removed} is not finite; measure in "
            "float32, and check the weights"
        )
    tokens = np.array([len(ids) - 1 for ids in texts])
    return Losses(found[:, 0], found[:, 1:], tokens)


def _streams(
    engine: Engine, calls: Calls, ids: Int[Tensor, "texts positions"]
) -> Float[Tensor, "variants texts positions d_model"]:
    """What enters the final norm: in the whole model, then without each layer."""
    arch = engine.architecture
    clean = arch.clean(ids, Kept(residual=frozenset({0})), logits=False).residual[0]
    hidden = clean.new_empty(1 + len(arch.layers), *clean.shape)
    hidden[0] = clean
    numbers = engine.bounds.batch
    for layer, modules in enumerate(arch.layers):
        hidden = hidden.to(arch.homes[layer])
        hidden[1 + layer] = hidden[0]
        rows = hidden[: 1 + layer].flatten(0, 1)  # a view: what is written there is kept
        for part in _parts(engine, numbers, len(rows), clean[0].numel(), "rows of a layer"):
            rows[part] = calls.blocks[layer].into(modules.block, rows[part])
    return hidden


def _losses(
    engine: Engine,
    hidden: Float[Tensor, "texts positions d_model"],
    ids: Int[Tensor, "texts positions"],
) -> Float64[np.ndarray, " texts"]:
    """By text, the mean of -log p of each token but the first."""
    rows, following = hidden[:, :-1].flatten(0, 1), ids[:, 1:].flatten()
    found = torch.empty(len(rows), dtype=torch.float32)
    vocabulary = engine.loaded.facts.vocab_size
    for part in _parts(engine, engine.bounds.logits, len(rows), vocabulary, "rows of logits"):
        logits = engine.architecture.logits(rows[part]).float()
        own = following[part].to(logits.device)
        found[part] = cross_entropy(logits, own, reduction="none").cpu()
    return found.reshape(len(ids), -1).double().mean(dim=1).numpy()


def _parts(engine: Engine, bound: int, n: int, each: int, what: str) -> Iterator[slice]:
    """Slices of n rows of so many numbers each, as many at once as memory allows."""
    size = max(1, engine.room.of(bound) // each)
    for begin in range(0, n, size):
        count = min(size, n - begin)
        with engine.room.trying(bound, count * each, count, what):
            yield slice(begin, begin + count)
