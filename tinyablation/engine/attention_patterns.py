"""Attention probabilities at named positions: what each head attends to.

They are those that the model computes with: an eager attention module, which is what load_model
loads, returns its probabilities beside its output, and they are read there, layer by layer, so that
of the whole [heads, queries, keys] only one layer is in memory at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float32, Int
from torch import Tensor

from tinyablation.engine.architecture import Kept, hooked
from tinyablation.engine.prompt_checks import EngineError, Ids, check_length, check_vocabulary
from tinyablation.models.bounds import RECORD_NUMBERS

if TYPE_CHECKING:
    from tinyablation.engine.engine import Engine

# Copies of a layer's probabilities in eager attention: scores, masked scores, softmax, its cast.
_COPIES = 4


@torch.no_grad()
def attention_at(
    engine: Engine,
    sequences: Sequence[Ids],
    pairs: Sequence[Int[np.ndarray, "n_pairs 2"]],
) -> list[Float32[np.ndarray, "n_pairs n_layers n_heads"]]:
    """The probability with which each head attends from a query to a key, of every named pair.

    sequences: token ids, BOS included where the model has one. pairs: for each sequence its (query,
    key) positions, in [0, length) and with key <= query. Each sequence is read as it is alone:
    batched by length, without padding. A figure has the precision of the model's dtype.

    Raises EngineError for sequences that the model cannot process, pairs beyond them, and a model
    that does not return its probabilities.
    """
    _check(engine, sequences, pairs)
    n_layers, n_heads = engine.n_layers, engine.architecture.n_heads
    found: list[np.ndarray] = [np.empty((0, n_layers, n_heads), np.float32)] * len(sequences)
    buckets: dict[int, list[int]] = {}
    for index, ids in enumerate(sequences):
        buckets.setdefault(len(ids), []).append(index)
    for length, bucket in sorted(buckets.items()):
        own = _COPIES * n_heads * length**2
        costs = [own + n_layers * n_heads * len(pairs[index]) for index in bucket]

        def read(part: Sequence[int]) -> Float32[Tensor, "n_pairs n_layers n_heads"]:
            return _read(engine, [sequences[i] for i in part], [pairs[i] for i in part])

        what = f"attention over {length} tokens"
        for part, figures in engine.room.parts(bucket, costs, RECORD_NUMBERS, what, read):
            ends = np.cumsum([len(pairs[index]) for index in part])
            for index, own_figures in zip(part, np.split(figures.numpy(), ends[:-1]), strict=True):
                found[index] = own_figures
    return found


def _read(
    engine: Engine, sequences: list[Ids], pairs: list[np.ndarray]
) -> Float32[Tensor, "n_pairs n_layers n_heads"]:
    """The figures of sequences of one length, one sequence's pairs after the other's, on the CPU.

    Raises EngineError for a layer that does not return probabilities.
    """
    arch = engine.architecture
    rows = np.repeat(np.arange(len(sequences)), [len(own) for own in pairs])
    queries, keys = np.concatenate(pairs).reshape(-1, 2).T
    index = [torch.as_tensor(each) for each in (rows, queries, keys)]
    shape = (len(sequences), arch.n_heads, len(sequences[0]), len(sequences[0]))
    found: list[Tensor] = []

    def keep(_: Any, args: Any, out: Any) -> None:
        returned = out[1] if isinstance(out, tuple) and len(out) > 1 else None
        if not isinstance(returned, Tensor) or returned.shape != shape:
            raise EngineError(
                f"model {arch.name!r}, layer {len(found)}: its attention module does not return "
                "the probabilities of its heads, so there is no pattern to read; of this "
                "architecture no attention score can be measured"
            )
        row, query, key = (each.to(returned.device) for each in index)
        found.append(returned[row, :, query, key].float().cpu())

    handles = [layer.attention.register_forward_hook(keep) for layer in arch.layers]
    with hooked(*handles):
        ids = torch.tensor(sequences, dtype=torch.long, device=engine.loaded.device)
        arch.clean(ids, Kept(), logits=False)
    if len(found) != len(arch.layers):
        raise EngineError(
            f"model {arch.name!r}: a layer was called more or less than once per forward pass"
        )
    return torch.stack(found, dim=1)


def _check(engine: Engine, sequences: Sequence[Ids], pairs: Sequence[np.ndarray]) -> None:
    if len(sequences) != len(pairs):
        raise EngineError(f"pairs has {len(pairs)} entries for {len(sequences)} sequences")
    for index, (ids, own) in enumerate(zip(sequences, pairs, strict=True)):
        place = f"model {engine.name!r}: sequence {index}"
        check_length(engine.loaded, len(ids), place)
        check_vocabulary(engine.loaded, ids, place)
        for query, key in own:
            if not 0 <= key <= query < len(ids):
                raise EngineError(
                    f"{place}: ({query}, {key}) is no query and key of its {len(ids)} tokens; a "
                    "key is at or before its query, and both count from 0"
                )
