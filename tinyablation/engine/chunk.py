"""A chunk of a measurement: prompts of one length, or of one pack, and the rows made for them."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from tinyablation.engine.architecture import ALONE, Calls, Clean
from tinyablation.engine.copy_suppression import CopySuppression
from tinyablation.engine.embedding_noise import EmbeddingNoise
from tinyablation.engine.logit_metrics import Distribution, figures
from tinyablation.engine.prompt_checks import Examples, Ids
from tinyablation.interventions.sites import ActivationSource

# The prompts whose activations are lent; those of several are averaged, position by position.
Lender = tuple[Ids, ...]


class Item(NamedTuple):
    """The subject of a row: a prompt of the chunk, its donor, positions and examples."""

    prompt: int
    donor: Lender | None
    places: tuple[int, ...] | None  # the subject's positions, if they matter
    examples: np.ndarray


class Lot(NamedTuple):
    """The items of all interventions with the same source; a row is computed for each item."""

    items: list[Item]
    prompts: Int[Tensor, " items"]  # row of the chunk's clean pass
    donors: Int[Tensor, " items"]  # row of the donor's activations; 0 if there is no donor
    places: Bool[Tensor, "items positions"]  # positions taken from the donor


class Borrowing(NamedTuple):
    """The donors of the examples, by ActivationSource.donor, and the subjects' positions."""

    donors: dict[str, list[Lender]]
    subjects: list[tuple[int, ...]]


class Constants(NamedTuple):
    """What does not depend on the prompt: z by ablation method, steering directions, noise.

    suppression: what is read of the unembedding for KeepCopySuppression.
    """

    z: dict[str, Float[Tensor, "layers width"]]
    directions: dict[str, Float[Tensor, " d_model"]]
    noise: EmbeddingNoise
    suppression: CopySuppression


class Chunk(NamedTuple):
    """Prompts of one length, or of one pack, with everything their rows need."""

    length: int  # positions of a row
    calls: Calls
    clean: Clean
    distribution: Distribution
    probabilities: Float64[Tensor, "prompts vocab"]
    lots: dict[ActivationSource, Lot]
    lent: Clean  # one row per donor, the last `length` positions; its logits are not kept
    constants: Constants
    ids: Sequence[Ids]  # of the prompts
    ends: slice | Int[Tensor, " prompts"] = ALONE.ends  # of the prompts in a row
    packed: bool = False

    @property
    def prompts_per_row(self) -> int:
        """The number of prompts that end in one row."""
        return len(self.probabilities) if self.packed else 1

    def clean_rows(self, source: ActivationSource, items: slice) -> Int[Tensor, " rows"]:
        """For every row computed for these items, the row of the clean pass."""
        prompts = self.lots[source].prompts[items]
        return prompts.new_zeros(1) if self.packed else prompts


class Replay(NamedTuple):
    """The calls of layers, and last-token logits: the model's own and those of replayed layers."""

    calls: Calls
    theirs: Float[Tensor, "rows vocab"]
    ours: Float[Tensor, "rows vocab"]
    read: Float[Tensor, "rows vocab"]  # ours, as figures are read from them (float32)


def owners_of(examples: Examples) -> list[list[int]]:
    """For each distinct prompt, the examples that have it."""
    owners: list[list[int]] = [[] for _ in examples.distinct]
    for example, index in enumerate(examples.which):
        owners[index].append(example)
    return owners


def items_of(
    prompt: int, owners: list[int], source: ActivationSource, borrowing: Borrowing
) -> Iterator[Item]:
    # Examples with the same prompt share a row if they have the same donor.
    found: dict[tuple[Lender | None, tuple[int, ...] | None], list[int]] = {}
    for example in owners:
        donor = borrowing.donors[source.donor][example] if source.donor else None
        places = borrowing.subjects[example] if source.positions == "subject" else None
        found.setdefault((donor, places), []).append(example)
    for (donor, places), which in found.items():
        yield Item(prompt, donor, places, np.array(which))


def lot_of(
    source: ActivationSource,
    items: list[Item],
    lenders: dict[Lender, int],
    length: int,
    device: torch.device,
) -> Lot:
    """The lot of a source's items in rows of so many positions; lenders: the row of each donor."""
    places = np.zeros((len(items), length), dtype=bool)
    for row, item in enumerate(items):
        places[row, list(item.places) if item.places is not None else slice(None)] = True
    if source.positions == "last":
        places[:, :-1] = False
    return Lot(
        items,
        torch.tensor([item.prompt for item in items], device=device),
        torch.tensor([lenders[i.donor] if i.donor else 0 for i in items], device=device),
        torch.as_tensor(places, device=device),
    )


def examples_of(items: Sequence[Item]) -> tuple[np.ndarray, np.ndarray]:
    """The items' examples, and for each the number of its item."""
    counts = [len(item.examples) for item in items]
    return np.concatenate([i.examples for i in items]), np.repeat(np.arange(len(items)), counts)


def read_rows(
    ablated: Distribution,
    kl: Float[Tensor, " rows"],
    which: np.ndarray,
    rows: np.ndarray,
    examples: Examples,
) -> dict[str, np.ndarray]:
    """The figures of these examples, each read from its row."""
    place = [
        torch.as_tensor(x, device=kl.device)
        for x in (rows, examples.targets[which], examples.foils[which])
    ]
    return figures(ablated, kl, *place)
