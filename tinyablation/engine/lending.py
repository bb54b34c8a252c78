"""What donor prompts lend to the rows of a chunk: their activations, or the mean over several."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from tinyablation.engine.architecture import Architecture, Clean, Kept
from tinyablation.engine.chunk import Lender
from tinyablation.engine.memory import Room
from tinyablation.engine.offload import exact
from tinyablation.engine.prompt_checks import Ids
from tinyablation.models.loading import LoadedModel

Records = tuple[dict[int, Float[Tensor, "rows positions width"]], ...]


def lent_activations(
    loaded: LoadedModel,
    arch: Architecture,
    room: Room,
    lenders: Sequence[Lender],
    length: int,
    kept: Kept,
    bound: int,
) -> Clean:
    """The activations in `kept` of each lender's last `length` positions, one row a lender.

    A lender of several prompts, all of them `length` tokens long, lends their mean, which is summed
    in float64; a prompt that occurs twice counts twice. bound: on what is recorded at once of such
    prompts, in numbers. The result's logits are empty.
    """
    facts, width = loaded.facts, arch.n_heads * arch.d_head

    def empty(layers: frozenset[int], size: int) -> dict[int, Tensor]:
        shape = (len(lenders), length, size)
        return {
            layer: torch.empty(shape, device=arch.homes[layer], dtype=loaded.dtype)
            for layer in layers
        }

    sizes = (facts.d_model, width, facts.d_model, facts.d_model)
    lent = Clean(
        *(empty(layers, size) for layers, size in zip(kept, sizes, strict=True)),
        logits=torch.empty(0, facts.vocab_size),
    )

    def clean(prompts: Sequence[Ids]) -> Records:
        ids = torch.tensor(prompts, dtype=torch.long, device=loaded.device)
        return _records(arch.clean(ids, kept, logits=False))

    by_length: dict[int, list[int]] = {}
    for row, lender in enumerate(lenders):
        if len(lender) == 1:
            by_length.setdefault(len(lender[0]), []).append(row)
    for longer, every in by_length.items():
        size = room.of(len(every))
        what = f"{longer} tokens of each of several donors"
        for begin in range(0, len(every), size):
            rows = every[begin : begin + size]
            with room.trying(len(every), len(rows), len(rows), what):
                found = clean([lenders[row][0] for row in rows])
                for into, out_of in zip(_records(lent), found, strict=True):
                    for layer, values in into.items():
                        values[rows] = out_of[layer][:, -length:]
    numbers = length * sum(len(of) * size for of, size in zip(kept, sizes, strict=True))
    for row, lender in enumerate(lenders):
        if len(lender) > 1:
            most = max(1, bound // max(1, numbers))
            sums = [dict.fromkeys(of, torch.zeros(())) for of in kept]
            size = room.of(most)
            what = f"{length} tokens of each of the prompts that a mean is taken over"
            for begin in range(0, len(lender), size):
                part = lender[begin : begin + size]
                with room.trying(most, len(part), len(part), what):
                    for into, out_of in zip(sums, clean(part), strict=True):
                        for layer in into:
                            total = exact(out_of[layer]).sum(dim=0)
                            into[layer] = into[layer].to(total) + total
            for into, totals in zip(_records(lent), sums, strict=True):
                for layer, total in totals.items():
                    into[layer][row] = total / len(lender)
    return lent


def _records(clean: Clean) -> Records:
    return clean.residual, clean.z, clean.attention, clean.mlp
