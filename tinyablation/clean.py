"""Clean passes: what every row of a measurement starts from, in chunks that fit in memory."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from tinyablation.architecture import Architecture, Calls, Clean
from tinyablation.examples import EngineError, Examples, Ids
from tinyablation.interventions import AblateHeads, Intervention
from tinyablation.loading import LoadedModel
from tinyablation.metrics import Distribution, distribution

# How far the engine's clean logits may be from the model's own, relative to the largest logit:
# batch shape changes the order of sums (fp32: some 1e-6 seen), a missed step changes all of it.
FORWARD_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 2e-2}
FORWARD_TOLERANCE_COARSE = 1e-1  # bfloat16: 8 bits of mantissa

# Bound of one clean pass's record, in numbers: residuals, z, attention outputs, distributions.
RECORD_NUMBERS = 2**26  # 256 MB in float32, and twice that for the float64 part


class Item(NamedTuple):
    """What a row is computed for: a prompt of the chunk, with its donor, and its examples."""

    prompt: int
    donor: Ids | None
    examples: np.ndarray


class Chunk(NamedTuple):
    """Prompts of one length with everything their rows need."""

    calls: Calls
    clean: Clean
    distribution: Distribution
    probabilities: Float64[Tensor, "prompts vocab"]
    items: list[Item]  # one a prompt
    resampled: list[Item]  # one a (prompt, donor)
    donor_z: dict[int, Float[Tensor, "resampled positions width"]]
    constants: dict[str, Float[Tensor, "layers width"]]

    def of(self, intervention: Intervention) -> list[Item]:
        """What the intervention's rows are computed for."""
        resample = isinstance(intervention, AblateHeads) and intervention.method == "resample"
        return self.resampled if resample else self.items


class CleanPasses:
    """The clean passes of one model, and the constants that mean and zero_folded put in."""

    def __init__(self, loaded: LoadedModel, architecture: Architecture) -> None:
        self.loaded = loaded
        self.name = loaded.entry.id
        self.architecture = architecture
        # z of all layers' heads in the last reference measured, [layers, width], and its ids: the
        # shards of a sweep share a reference, and the means are a few numbers.
        self._mean: tuple[tuple[Ids, ...], Tensor] | None = None
        self._folded: Tensor | None = None

    def chunks(
        self,
        examples: Examples,
        donors: list[Ids],
        starts: frozenset[int],
        lent: frozenset[int],
        constants: dict[str, Float[Tensor, "layers width"]],
    ) -> Iterator[Chunk]:
        """Clean passes over prompts of one length, short lengths first, as memory allows.

        donors: one per example, or empty; starts: the layers rows start from; lent: the layers
        whose z donors lend; constants: what mean and zero_folded put in, by method.
        """
        facts = self.loaded.facts
        arch = self.architecture
        buckets: dict[int, list[int]] = {}
        for index, ids in enumerate(examples.distinct):
            buckets.setdefault(len(ids), []).append(index)
        owners: list[list[int]] = [[] for _ in examples.distinct]
        for example, index in enumerate(examples.which):
            owners[index].append(example)
        width = arch.n_heads * arch.d_head
        for length, bucket in sorted(buckets.items()):
            each = length * (len(starts) * (2 * facts.d_model + width) + len(lent) * width)
            size = max(1, RECORD_NUMBERS // (each + 5 * facts.vocab_size))
            calls = self.verify([examples.distinct[index] for index in bucket])
            for begin in range(0, len(bucket), size):
                chunk = bucket[begin : begin + size]
                clean = arch.clean(self._tensor([examples.distinct[i] for i in chunk]), starts)
                items, resampled = [], []
                for local, index in enumerate(chunk):
                    items.append(Item(local, None, np.array(owners[index])))
                    by_donor: dict[Ids, list[int]] = {}
                    for example in owners[index] if donors else []:
                        by_donor.setdefault(donors[example], []).append(example)
                    for donor, which in by_donor.items():
                        resampled.append(Item(local, donor, np.array(which)))
                donor_z = self._donor_z(resampled, length, lent)
                clean_distribution = distribution(clean.logits)
                yield Chunk(
                    calls,
                    clean,
                    clean_distribution,
                    clean_distribution.probabilities(),
                    items,
                    resampled,
                    donor_z,
                    constants,
                )

    def verify(self, bucket: list[Ids]) -> Calls:
        """Record how layers are called at this length; refuse a model we do not reproduce."""
        arch = self.architecture
        calls, first = arch.record(self._tensor(bucket[:1]))
        same = bucket[0] == bucket[-1]
        own = [first, first if same else arch.record(self._tensor(bucket[-1:]))[1]]
        ids = self._tensor([bucket[0], bucket[-1]])
        hidden = arch.clean(ids, frozenset([0])).residual[0]
        for layer in range(len(arch.layers)):
            hidden = arch.through(calls, layer, hidden)
        ours = arch.logits(hidden[:, -1]).double()
        theirs = torch.cat(own).double()
        if not torch.isfinite(theirs).all():
            raise EngineError(
                f"model {self.name!r}: its own logits are not finite; check the weights and dtype"
            )
        difference = (ours - theirs).abs().max().item()
        allowed = FORWARD_TOLERANCE.get(self.loaded.dtype, FORWARD_TOLERANCE_COARSE)
        if not difference <= allowed * max(1.0, theirs.abs().max().item()):
            raise EngineError(
                f"model {self.name!r}: replayed layer by layer, its logits differ from its own "
                f"forward by {difference:.2g} on prompts of {len(bucket[0])} tokens; this "
                "architecture does something between or after the layers that the engine does not"
            )
        return calls

    def _donor_z(
        self, resampled: list[Item], length: int, layers: frozenset[int]
    ) -> dict[int, Tensor]:
        by_length: dict[int, list[int]] = {}
        for position, item in enumerate(resampled):
            assert item.donor is not None
            by_length.setdefault(len(item.donor), []).append(position)
        shape = (len(resampled), length, self.architecture.n_heads * self.architecture.d_head)
        lent = {
            layer: torch.empty(shape, dtype=self.loaded.dtype, device=self.loaded.device)
            for layer in layers
        }
        for positions in by_length.values():
            ids = [resampled[p].donor or () for p in positions]
            clean = self.architecture.clean(self._tensor(ids), layers)
            for layer in layers:
                lent[layer][positions] = clean.z[layer][:, -length:]
        return lent

    def mean(self, reference: tuple[Ids, ...]) -> Float[Tensor, "layers width"]:
        """The mean of z over all tokens of these prompts but BOS; one given twice weighs twice."""
        if self._mean is not None and self._mean[0] == reference:
            return self._mean[1]
        arch = self.architecture
        bos = self.loaded.bos_id
        n_layers = len(arch.layers)
        counts: dict[Ids, int] = {}
        for ids in reference:
            counts[ids] = counts.get(ids, 0) + 1
        buckets: dict[int, list[Ids]] = {}
        for ids in counts:
            buckets.setdefault(len(ids), []).append(ids)
        width = arch.n_heads * arch.d_head
        total = torch.zeros(n_layers, width, dtype=torch.float64, device=self.loaded.device)
        tokens = 0
        layers = frozenset(range(n_layers))
        for length, bucket in sorted(buckets.items()):
            size = max(1, RECORD_NUMBERS // (length * n_layers * 3 * width))
            for begin in range(0, len(bucket), size):
                part = bucket[begin : begin + size]
                clean = arch.clean(self._tensor(part), layers)
                weight = torch.tensor(
                    [
                        [0.0 if t == 0 and ids[0] == bos else counts[ids] for t in range(length)]
                        for ids in part
                    ],
                    dtype=torch.float64,
                    device=self.loaded.device,
                )
                tokens += int(weight.sum().item())
                for layer in layers:
                    total[layer] += torch.einsum("rt,rtw->w", weight, clean.z[layer].double())
        if not tokens:
            raise EngineError("the reference prompts hold no token but BOS; mean has no meaning")
        mean = (total / tokens).to(self.loaded.dtype)
        self._mean = reference, mean
        return mean

    def folded(self, ids: Ids) -> Float[Tensor, "layers width"]:
        """What zero_folded puts in for z, found with a prompt of these ids' length."""
        if self._folded is None:
            self._folded = self.architecture.folded_z(self.verify([ids]), len(ids))
        return self._folded

    def _tensor(self, ids: Sequence[Ids]) -> Int[Tensor, "rows positions"]:
        return torch.tensor(ids, dtype=torch.long, device=self.loaded.device)
