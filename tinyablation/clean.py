"""Clean passes: what every row of a measurement starts from, in chunks that fit in memory."""

from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from tinyablation.architecture import Architecture, Calls, Clean, Kept
from tinyablation.examples import EngineError, Examples, Ids
from tinyablation.interventions import Loan
from tinyablation.loading import LoadedModel
from tinyablation.metrics import Distribution, distribution

# How far the engine's clean logits may be from the model's own, relative to the largest logit:
# batch shape changes the order of sums (fp32: some 1e-6 seen), a missed step changes all of it.
FORWARD_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 2e-2}
FORWARD_TOLERANCE_COARSE = 1e-1  # bfloat16: 8 bits of mantissa

# Bound of one clean pass's record, in numbers: residuals, z, attention outputs, distributions.
RECORD_NUMBERS = 2**26  # 256 MB in float32, and twice that for the float64 part


class Item(NamedTuple):
    """What a row is computed for: a prompt of the chunk, its donor and places, its examples."""

    prompt: int
    donor: Ids | None
    places: tuple[int, ...] | None  # the subject's positions, where they matter
    examples: np.ndarray


class Lot(NamedTuple):
    """The items of all interventions with one loan; a row is computed for each."""

    items: list[Item]
    prompts: Int[Tensor, " items"]  # row of the chunk's clean pass
    donors: Int[Tensor, " items"]  # row of its lent activations; 0 where nothing is borrowed
    places: Bool[Tensor, "items positions"]  # where the donor lends


class Borrowing(NamedTuple):
    """Who lends to the examples, and where: by Loan.donor, and the subjects' positions."""

    donors: dict[str, list[Ids]]
    subjects: list[tuple[int, ...]]


class Constants(NamedTuple):
    """What is put in whatever the prompt: z by ablation method, and directions to steer along."""

    z: dict[str, Float[Tensor, "layers width"]]
    directions: dict[str, Float[Tensor, " d_model"]]


class Chunk(NamedTuple):
    """Prompts of one length with everything their rows need."""

    length: int
    calls: Calls
    clean: Clean
    distribution: Distribution
    probabilities: Float64[Tensor, "prompts vocab"]
    lots: dict[Loan, Lot]
    lent: Clean  # one row per donor, the last `length` positions; its logits are not kept
    constants: Constants


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
        loans: Collection[Loan],
        borrowing: Borrowing,
        kept: Kept,
        lent: Kept,
        constants: Constants,
    ) -> Iterator[Chunk]:
        """Clean passes over prompts of one length, short lengths first, as memory allows.

        loans: those of the interventions; kept, lent: what clean passes over prompts and over
        donors keep for them; constants: what is put in whatever the prompt.
        """
        buckets: dict[int, list[int]] = {}
        for index, ids in enumerate(examples.distinct):
            buckets.setdefault(len(ids), []).append(index)
        owners: list[list[int]] = [[] for _ in examples.distinct]
        for example, index in enumerate(examples.which):
            owners[index].append(example)
        donors = [borrowing.donors[loan.donor] for loan in loans if loan.donor]
        for length, bucket in sorted(buckets.items()):
            own = length * self._numbers(kept) + 5 * self.loaded.facts.vocab_size
            each = length * self._numbers(lent)
            costs = [
                own + each * len({of[example] for of in donors for example in owners[index]})
                for index in bucket
            ]
            calls = self.verify([examples.distinct[index] for index in bucket])
            for chunk in _cut(bucket, costs):
                clean = self.architecture.clean(
                    self._tensor([examples.distinct[i] for i in chunk]), kept
                )
                items = {
                    loan: [
                        item
                        for local, index in enumerate(chunk)
                        for item in _items(local, owners[index], loan, borrowing)
                    ]
                    for loan in loans
                }
                lenders = {
                    donor: row
                    for row, donor in enumerate(
                        dict.fromkeys(i.donor for of in items.values() for i in of if i.donor)
                    )
                }
                clean_distribution = distribution(clean.logits)
                yield Chunk(
                    length,
                    calls,
                    clean,
                    clean_distribution,
                    clean_distribution.probabilities(),
                    {loan: self._lot(loan, of, lenders, length) for loan, of in items.items()},
                    self._lent(list(lenders), length, lent),
                    constants,
                )

    def _numbers(self, kept: Kept) -> int:
        # Per position of a prompt.
        width = self.architecture.n_heads * self.architecture.d_head
        streams = len(kept.residual) + len(kept.attention) + len(kept.mlp)
        return streams * self.loaded.facts.d_model + len(kept.z) * width

    def _lot(self, loan: Loan, items: list[Item], lenders: dict[Ids, int], length: int) -> Lot:
        places = np.zeros((len(items), length), dtype=bool)
        for row, item in enumerate(items):
            places[row, list(item.places) if item.places is not None else slice(None)] = True
        if loan.positions == "last":
            places[:, :-1] = False
        device = self.loaded.device
        return Lot(
            items,
            torch.tensor([item.prompt for item in items], device=device),
            torch.tensor([lenders[i.donor] if i.donor else 0 for i in items], device=device),
            torch.as_tensor(places, device=device),
        )

    def verify(self, bucket: list[Ids]) -> Calls:
        """Record how layers are called at this length; refuse a model we do not reproduce."""
        arch = self.architecture
        calls, first = arch.record(self._tensor(bucket[:1]))
        same = bucket[0] == bucket[-1]
        own = [first, first if same else arch.record(self._tensor(bucket[-1:]))[1]]
        ids = self._tensor([bucket[0], bucket[-1]])
        hidden = arch.clean(ids, Kept(residual=frozenset([0]))).residual[0]
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

    def _lent(self, lenders: list[Ids], length: int, kept: Kept) -> Clean:
        facts = self.loaded.facts
        by_length: dict[int, list[int]] = {}
        for row, donor in enumerate(lenders):
            by_length.setdefault(len(donor), []).append(row)
        width = self.architecture.n_heads * self.architecture.d_head

        def room(layers: frozenset[int], size: int) -> dict[int, Tensor]:
            shape = (len(lenders), length, size)
            device, dtype = self.loaded.device, self.loaded.dtype
            return {layer: torch.empty(shape, device=device, dtype=dtype) for layer in layers}

        lent = Clean(
            residual=room(kept.residual, facts.d_model),
            z=room(kept.z, width),
            attention=room(kept.attention, facts.d_model),
            mlp=room(kept.mlp, facts.d_model),
            logits=torch.empty(0, facts.vocab_size),
        )
        for rows in by_length.values():
            clean = self.architecture.clean(self._tensor([lenders[row] for row in rows]), kept)
            for into, out_of in (
                (lent.residual, clean.residual),
                (lent.z, clean.z),
                (lent.attention, clean.attention),
                (lent.mlp, clean.mlp),
            ):
                for layer, values in into.items():
                    values[rows] = out_of[layer][:, -length:]
        return lent

    def check_paths(self, ids: Ids, layers: Collection[int]) -> None:
        """EngineError unless these layers add what their attention puts out to the stream as it is.

        A norm after the attention (Gemma 2, OLMo 2) would change what a head sends straight on.
        """
        arch = self.architecture
        if not layers:
            return
        kept = Kept(*(frozenset(layers) for _ in Kept._fields))
        if any(arch.layers[layer].mlp is None for layer in layers):
            raise EngineError(
                f"model {self.name!r}: its MLPs are no modules of their own, so they cannot be "
                "held at their clean outputs for path patching"
            )
        calls = self.verify([ids])
        clean = arch.clean(self._tensor([ids]), kept)
        for layer in layers:
            hidden, attention, mlp = (
                record[layer] for record in (clean.residual, clean.attention, clean.mlp)
            )
            change = attention.flip(-1)
            before, after = (
                arch.after_mlp(calls, layer, hidden, out, mlp)
                for out in (attention, attention + change)
            )
            allowed = FORWARD_TOLERANCE.get(self.loaded.dtype, FORWARD_TOLERANCE_COARSE)
            off = (after - before - change).abs().max().item()
            if not off <= allowed * max(1.0, before.abs().max().item()):
                raise EngineError(
                    f"model {self.name!r}: layer {layer} does not add its attention's output to "
                    f"the stream as it is (off by {off:.2g}), so heads have no direct path"
                )

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
            size = max(1, RECORD_NUMBERS // (length * n_layers * width))
            for begin in range(0, len(bucket), size):
                part = bucket[begin : begin + size]
                clean = arch.clean(self._tensor(part), Kept(z=layers))
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


def _items(prompt: int, owners: list[int], loan: Loan, borrowing: Borrowing) -> Iterator[Item]:
    # Examples with the prompt in common share a row if they borrow alike.
    found: dict[tuple[Ids | None, tuple[int, ...] | None], list[int]] = {}
    for example in owners:
        donor = borrowing.donors[loan.donor][example] if loan.donor else None
        places = borrowing.subjects[example] if loan.positions == "subject" else None
        found.setdefault((donor, places), []).append(example)
    for (donor, places), which in found.items():
        yield Item(prompt, donor, places, np.array(which))


def _cut(bucket: list[int], costs: list[int]) -> Iterator[list[int]]:
    # In order, into parts of at most RECORD_NUMBERS, or of one.
    part: list[int] = []
    used = 0
    for index, cost in zip(bucket, costs, strict=True):
        if part and used + cost > RECORD_NUMBERS:
            yield part
            part, used = [], 0
        part.append(index)
        used += cost
    yield part
