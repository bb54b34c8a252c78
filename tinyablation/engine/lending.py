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


class TemplateMeans:
    """The mean z of prompts of one template, position by position, kept from shard to shard.

    bound: on what is recorded of prompts at once, and on the means that are kept, in numbers.
    """

    def __init__(self, loaded: LoadedModel, arch: Architecture, room: Room, bound: int) -> None:
        self.loaded = loaded
        self.arch = arch
        self.room = room
        self.bound = bound
        self._found: dict[Lender, list[Float[Tensor, "positions width"]]] = {}

    def __call__(self, lender: Lender) -> list[Float[Tensor, "positions width"]]:
        """By layer, summed in float64; a prompt that occurs twice counts twice."""
        if lender not in self._found:
            n_layers, length = len(self.arch.layers), len(lender[0])
            numbers = n_layers * length * self.arch.n_heads * self.arch.d_head
            if (len(self._found) + 1) * numbers > self.bound:
                self._found.clear()
            every, sums = Kept(z=frozenset(range(n_layers))), list[Tensor]()
            most = max(1, self.bound // numbers)
            size = self.room.of(most)
            what = f"{length} tokens of each of the prompts that a mean is taken over"
            for begin in range(0, len(lender), size):
                part = lender[begin : begin + size]
                ids = torch.tensor(part, dtype=torch.long, device=self.loaded.device)
                with self.room.trying(most, len(part), len(part), what):
                    z = self.arch.clean(ids, every, logits=False).z
                    totals = [exact(z[layer]).sum(dim=0) for layer in range(n_layers)]
                    sums = list(map(torch.add, sums, totals)) if sums else totals
            dtype = self.loaded.dtype
            self._found[lender] = [(total / len(lender)).to(dtype) for total in sums]
        return self._found[lender]


def lent_activations(
    loaded: LoadedModel,
    arch: Architecture,
    room: Room,
    lenders: Sequence[Lender],
    length: int,
    kept: Kept,
    averages: "TemplateMeans",
) -> Clean:
    """The activations in `kept` of each lender's last `length` positions, one row a lender.

    A lender of several prompts, all of them `length` tokens long, lends their mean z, and nothing
    else. The result's logits are empty.
    """
    facts, width = loaded.facts, arch.n_heads * arch.d_head

    def empty(layers: frozenset[int], size: int) -> dict[int, Tensor]:
        shape = (len(lenders), length, size)
        return {
            layer: torch.empty(shape, device=arch.homes[layer], dtype=loaded.dtype)
            for layer in layers
        }

    lent = Clean(
        residual=empty(kept.residual, facts.d_model),
        z=empty(kept.z, width),
        attention=empty(kept.attention, facts.d_model),
        mlp=empty(kept.mlp, facts.d_model),
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
    for row, lender in enumerate(lenders):
        if len(lender) > 1:
            means = averages(lender)
            for layer, values in lent.z.items():
                values[row] = means[layer].to(values.device)
    return lent


def _records(clean: Clean) -> Records:
    return clean.residual, clean.z, clean.attention, clean.mlp
