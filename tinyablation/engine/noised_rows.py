"""Rows whose subject's embeddings are noised, and what clean states restore in them.

A prompt passes through the model clean, and once for each draw of the noise. Whatever is restored
from layer l on starts from the noised stream that enters layer l; the layers below are not run
again. Rows of one start are computed together. What is restored is the prompt's own clean state.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from tinyablation.engine.architecture import Architecture, Calls, Clean, Edit, Kept, editing, hooked
from tinyablation.engine.chunk import read_rows
from tinyablation.engine.clean_pass import CleanPasses
from tinyablation.engine.embedding_noise import EmbeddingNoise
from tinyablation.engine.logit_metrics import Distribution, distribution, divergence
from tinyablation.engine.memory import Room
from tinyablation.engine.offload import picked
from tinyablation.engine.prompt_checks import Examples, Ids
from tinyablation.interventions.interventions import Intervention
from tinyablation.interventions.restoration import AddNoise, RestoreState, token_of
from tinyablation.interventions.sites import Part, Site
from tinyablation.models.bounds import RECORD_NUMBERS, Bounds


class Noised(NamedTuple):
    """A prompt and its subject's positions; the examples that have both."""

    ids: Ids
    subject: tuple[int, ...]
    examples: np.ndarray


# An intervention, and the number of the item that the row is of.
Row = tuple[AddNoise, int]
Pending = Callable[[AddNoise, int], bool]


class Found(NamedTuple):
    """Rows with their distributions and KL(clean || row), row by row."""

    rows: Sequence[Row]
    distribution: Distribution
    kl: Float64[Tensor, " rows"]


def kept_for(interventions: Sequence[AddNoise], n_layers: int) -> tuple[Kept, Kept]:
    """What the clean pass and the noised ones must keep for them."""
    of: dict[Part, set[int]] = {part: set() for part in Part}
    starts = set()
    for each in interventions:
        if isinstance(each, RestoreState):
            sites = each.sites(n_layers)
            starts.add(sites[0].layer)
            for site in sites:
                of[site.part].add(site.layer)
    clean = Kept(
        residual=frozenset(of[Part.STREAM]),
        attention=frozenset(of[Part.ATTENTION]),
        mlp=frozenset(of[Part.MLP]),
    )
    return clean, Kept(residual=frozenset(starts))


class NoisedRows:
    """The rows of prompts of one length."""

    def __init__(
        self,
        arch: Architecture,
        calls: Calls,
        items: Sequence[Noised],
        interventions: Sequence[AddNoise],
        noise: EmbeddingNoise,
    ) -> None:
        self.arch = arch
        self.calls = calls
        self.items = items
        self.noise = noise
        self.n_layers = len(arch.layers)
        self.length = len(items[0].ids)
        self.ids = torch.tensor([item.ids for item in items], device=arch.device)
        kept, self.kept_noised = kept_for(interventions, self.n_layers)
        clean = arch.clean(self.ids, kept)
        self._clean = {Part.STREAM: clean.residual, Part.ATTENTION: clean.attention}
        self._clean[Part.MLP] = clean.mlp
        self.distribution = distribution(clean.logits)
        self.probabilities = self.distribution.probabilities()
        self.by_noise: dict[AddNoise, list[AddNoise]] = {}
        for each in interventions:
            self.by_noise.setdefault(each.noise, []).append(each)

    def visit(self, most: int, room: Room, pending: Pending, work: Callable[[Found], None]) -> None:
        """Call `work` on the rows of every intervention, at most `most` of them at a time.

        pending: whether an example's figures are missing; an earlier attempt may have run out of
        memory.
        """
        for noise, interventions in self.by_noise.items():
            noised = self.noised(noise)
            starts: dict[int, list[AddNoise]] = {}
            for each in interventions:
                start = self.n_layers
                if isinstance(each, RestoreState):
                    start = each.sites(self.n_layers)[0].layer
                starts.setdefault(start, []).append(each)
            for start, alike in sorted(starts.items()):
                rows = [
                    (each, number)
                    for each in alike
                    for number, item in enumerate(self.items)
                    if pending(each, int(item.examples[0]))
                ]
                size = room.of(most)
                for begin in range(0, len(rows), size):
                    part = rows[begin : begin + size]
                    what = f"{self.length} tokens through the layers"
                    with room.trying(most, len(part), len(part), what):
                        work(self._read(part, self._restored(noised, start, part)))

    def noised(self, noise: AddNoise) -> Clean:
        """A pass in which the subjects' embeddings are noised."""

        def add(_: object, args: object, out: Tensor) -> Tensor:
            added = torch.zeros(out.shape, dtype=torch.float64)
            for row, item in enumerate(self.items):
                drawn = self.noise(item.ids, item.subject, noise, out.shape[-1])
                added[row, list(item.subject)] = torch.from_numpy(drawn)
            return out + added.to(out.dtype).to(out.device)

        with hooked(self.arch.embedding.register_forward_hook(add)):
            return self.arch.clean(self.ids, self.kept_noised, logits=False)

    def _restored(
        self, noised: Clean, start: int, rows: Sequence[Row]
    ) -> Float[Tensor, "rows d_model"]:
        """The last token's residual streams, before the final norm, of rows alike up to `start`."""
        hidden = picked(noised.residual[start], torch.tensor([item for _, item in rows]))
        for layer in range(start, self.n_layers):
            stream = self._putting_back(Site(layer, Part.STREAM), rows)
            hidden = hidden if stream is None else stream(hidden)
            attention, mlp = (
                self._putting_back(Site(layer, part), rows) for part in (Part.ATTENTION, Part.MLP)
            )
            with hooked(*editing(self.arch.layers[layer].attention, attention)):
                hidden = self.arch.through(self.calls, layer, hidden, edit_mlp=mlp)
        return hidden[:, -1].to(self.arch.homes[-1])

    def _putting_back(self, site: Site, rows: Sequence[Row]) -> Edit | None:
        """Puts the clean state of its token into every row that restores it at the site.

        It takes the rows at all positions, or at the last ones; None if no row restores anything.
        """
        where = [
            (row, item, token_of(each.where, self.items[item].subject, self.length))
            for row, (each, item) in enumerate(rows)
            if isinstance(each, RestoreState) and site in each.sites(self.n_layers)
        ]

        def put_back(
            live: Float[Tensor, "rows positions d_model"],
        ) -> Float[Tensor, "rows positions d_model"]:
            missing = self.length - live.shape[1]
            there = torch.tensor([each for each in where if each[2] >= missing], dtype=torch.long)
            row, item, token = there.reshape(-1, 3).T.to(live.device)
            live = live.clone()
            clean = self._clean[site.part][site.layer]
            live[row, token - missing] = clean[item.to(clean.device), token].to(live.device)
            return live

        return put_back if where else None

    def _read(self, rows: Sequence[Row], hidden: Float[Tensor, "rows d_model"]) -> Found:
        changed = distribution(self.arch.logits(hidden))
        items = torch.tensor([item for _, item in rows])
        clean = picked(self.probabilities, items), picked(self.distribution.entropy, items)
        return Found(rows, changed, divergence(*clean, changed))


def measure_noised(
    passes: CleanPasses,
    examples: Examples,
    subjects: Sequence[tuple[int, ...]],
    interventions: Sequence[AddNoise],
    noise: EmbeddingNoise,
    bounds: Bounds,
    pending: Pending,
    write: Callable[[Intervention, np.ndarray, dict[str, np.ndarray]], None],
) -> None:
    """Call `write` with the examples and figures of these interventions.

    subjects: of every example, its positions. bounds: on a batch. pending: as in NoisedRows.visit.
    """
    arch, facts = passes.architecture, passes.loaded.facts
    alike: dict[tuple[Ids, tuple[int, ...]], list[int]] = {}
    for example, index in enumerate(examples.which):
        alike.setdefault((examples.distinct[index], subjects[example]), []).append(example)
    by_length: dict[int, list[Noised]] = {}
    for (ids, subject), which in alike.items():
        by_length.setdefault(len(ids), []).append(Noised(ids, subject, np.array(which)))
    kept = kept_for(interventions, len(arch.layers))
    records = sum(len(layers) for each in kept for layers in each)
    for length, items in sorted(by_length.items()):
        calls = passes.verify([item.ids for item in items])
        batch = max(
            1, min(bounds.batch // (length * facts.d_model), bounds.logits // facts.vocab_size)
        )

        def run(part: Sequence[Noised], calls: Calls = calls, batch: int = batch) -> None:
            rows = NoisedRows(arch, calls, part, interventions, noise)
            read = partial(_write, items=part, examples=examples, write=write)
            rows.visit(batch, passes.room, pending, read)

        cost = length * records * facts.d_model + 5 * facts.vocab_size
        what = f"prompts of {length} tokens with what is recorded of them, clean and noised"
        for _ in passes.room.parts(items, [cost] * len(items), RECORD_NUMBERS, what, run):
            pass


def _write(
    found: Found,
    items: Sequence[Noised],
    examples: Examples,
    write: Callable[[Intervention, np.ndarray, dict[str, np.ndarray]], None],
) -> None:
    begin = 0
    for intervention, group in groupby(found.rows, key=lambda row: row[0]):
        own = [items[item].examples for _, item in group]
        rows = begin + np.repeat(np.arange(len(own)), [len(each) for each in own])
        which = np.concatenate(own)
        write(
            intervention,
            which,
            read_rows(found.distribution, found.kl, which, rows, examples),
        )
        begin += len(own)
