"""The mean output of heads over reference prompts, which mean ablation replaces z by."""

from collections import Counter
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from tinyablation.engine.architecture import Architecture, Kept
from tinyablation.engine.memory import Room
from tinyablation.engine.offload import exact
from tinyablation.engine.prompt_checks import EngineError, Ids
from tinyablation.models.loading import LoadedModel


def mean_z(
    loaded: LoadedModel,
    arch: Architecture,
    room: Room,
    reference: Sequence[Ids],
    bound: int,
) -> Float[Tensor, "layers width"]:
    """The mean of z over all tokens of these prompts except BOS; duplicates count twice.

    bound: on what is recorded at once, in numbers. Raises EngineError if BOS is the only token.
    """
    n_layers = len(arch.layers)
    width = arch.n_heads * arch.d_head
    counts = Counter(reference)
    buckets: dict[int, list[Ids]] = {}
    for ids in counts:
        buckets.setdefault(len(ids), []).append(ids)
    total = torch.zeros(n_layers, width, dtype=torch.float64, device=arch.desk)
    tokens = 0
    for length, bucket in sorted(buckets.items()):

        def add(part: Sequence[Ids], length: int = length) -> tuple[Tensor, int]:
            batch = torch.tensor(part, dtype=torch.long, device=loaded.device)
            clean = arch.clean(batch, Kept(z=frozenset(range(n_layers))), logits=False)
            weight = torch.tensor(
                [
                    [
                        0.0 if t == 0 and ids[0] == loaded.bos_id else counts[ids]
                        for t in range(length)
                    ]
                    for ids in part
                ],
                dtype=torch.float64,
            )
            sums = [
                torch.einsum("rt,rtw->w", weight.to(z.device), z).to(arch.desk)
                for z in map(exact, (clean.z[layer] for layer in range(n_layers)))
            ]
            return torch.stack(sums), int(weight.sum().item())

        costs = [length * n_layers * width] * len(bucket)
        what = f"reference prompts of {length} tokens with the z of all heads"
        for _, (sums, count) in room.parts(bucket, costs, bound, what, add):
            total += sums
            tokens += count
    if not tokens:
        raise EngineError("the reference prompts contain no token but BOS; there is no mean")
    return (total / tokens).to(loaded.dtype).to(loaded.device)
