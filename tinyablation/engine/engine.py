"""The measurement engine: interventions on activations, exact, batched, on plain HF modules.

Prompts are checked, deduplicated and arranged in rows of one length (there is no padding anywhere).
They pass through the model once. Then every intervention on a prompt is a row of a batch that
starts from the clean activations at the earliest site it touches (see changed_pass.Rows). If that
is the attention, it is not run again: its output is the clean one plus sum_h (z'_h - z_h) W_O[h].
If it is the MLP, neither is run. At later sites activations are replaced row by row.

Interventions that treat all prompts alike, and the unhooked model where nothing else is measured,
use rows in which prompts with common prefixes are packed (prefix_trie.py); interventions with a
donor, or at certain positions only, use one row per prompt.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from tinyablation.engine.architecture import Architecture
from tinyablation.engine.changed_pass import Rows, Segment, needs, prompt_rows
from tinyablation.engine.chunk import (
    Borrowing,
    Chunk,
    Constants,
    Item,
    Lender,
    examples_of,
    read_rows,
)
from tinyablation.engine.clean_pass import CleanPasses
from tinyablation.engine.copy_suppression import CopySuppression
from tinyablation.engine.donors import draw_donors
from tinyablation.engine.embedding_noise import EmbeddingNoise, embedding_spread
from tinyablation.engine.gelu import in_one_pass
from tinyablation.engine.intervention_checks import check_interventions
from tinyablation.engine.logit_metrics import distribution, divergence
from tinyablation.engine.memory import OutOfMemory, Room
from tinyablation.engine.noised_rows import measure_noised
from tinyablation.engine.offload import picked
from tinyablation.engine.prompt_checks import (
    EngineError,
    Examples,
    Ids,
    check_directions,
    check_donors,
    check_pairs,
    check_prompts,
    check_reference,
    check_subjects,
    check_templates,
)
from tinyablation.engine.result_table import Results
from tinyablation.engine.tables import BASELINE
from tinyablation.interventions.copy_suppression import KeepCopySuppression
from tinyablation.interventions.interventions import AblateHeads, Intervention, PatchPath, Steer
from tinyablation.interventions.restoration import AddNoise
from tinyablation.interventions.sites import OWN, Site
from tinyablation.models.bounds import bounds_on
from tinyablation.models.loading import LoadedModel

if TYPE_CHECKING:
    import pandas

    from tinyablation.corpora.tokenisation import Prompt

# Numbers that figures are read from at once on a CPU, so that they stay in its caches; a batch of
# all rows took four times as long (GPT-2's vocabulary: 1.6 ms per row, .4 by 16 rows; by 5, as
# here, a whole sweep took another 3 % less).
FIGURE_NUMBERS = 2**18

# Stores figures of some examples under an intervention, or of the baseline (None).
Write = Callable[[Intervention | None, np.ndarray, dict[str, np.ndarray]], None]

__all__ = ["Engine", "EngineError", "OutOfMemory"]


class Engine:
    """Measures interventions on one loaded model.

    bounds: on one batch, by the devices that compute; room: the share of them that fits, and how
    often memory ran out (halvings).
    """

    def __init__(self, model: LoadedModel) -> None:
        """Resolve the model's modules; EngineError if its structure is not supported."""
        self.loaded = model
        self.name = model.entry.id
        self.architecture = Architecture(model)
        self.bounds = bounds_on({str(device) for device in self.architecture.homes})
        self.room = Room(self.name)
        self.passes = CleanPasses(model, self.architecture, self.room)
        self.n_layers = model.facts.n_layers

    @torch.no_grad()
    def measure(
        self,
        prompts: Sequence["Prompt"],
        interventions: Sequence[Intervention],
        *,
        reference: Sequence["Prompt"] | None = None,
        clusters: Sequence[str] | None = None,
        reference_clusters: Sequence[str] | None = None,
        pairs: Sequence["Prompt"] | None = None,
        others: Sequence["Prompt"] | None = None,
        others_clusters: Sequence[str] | None = None,
        subjects: Sequence[tuple[int, ...]] | None = None,
        directions: Mapping[str, Tensor] | None = None,
        donors: Sequence[Ids] | None = None,
        templates: Sequence[Lender] | None = None,
        seed: int = 0,
        progress: bool = False,
    ) -> "pandas.DataFrame":
        """Measure every intervention on every prompt, at the prompt's own last token.

        reference: the prompts for mean and resample ablation and noise, needed by these. clusters:
        one name per prompt; a donor is never from its own cluster. reference_clusters: one per
        reference prompt, needed only if a reference prompt is not among the prompts (see
        donors.draw_donors). pairs: one donor prompt per prompt, with equally many tokens, needed by
        patches whose donor is "pair" or "other"; an "other" donor is one of `others` (default: the
        pairs) from another cluster, whose clusters are others_clusters. subjects: per prompt, the
        positions of the subject in its ids (BOS counts), needed by patches at "subject" positions.
        directions: name -> [d_model], needed by Steer. donors: the ids of the prompts' resample
        donors, one each and at least as long, instead of drawn ones. templates: the ids of the
        prompts that template_mean averages over, some for each prompt and as long as it. seed: for
        drawing donors. progress: whether to show a bar on stderr.

        Returns one row per (intervention, example): first the unhooked baseline, then the
        interventions as given, examples in order within each. Columns: tables.ENGINE_COLUMNS, with
        their meanings in tables.COLUMNS.

        Arithmetically equal interventions (scale 0.0 and zero; zero_folded and zero without biases;
        scale 1.0 and the baseline; a patched window and its topmost layer, see
        PatchResidual.plain) are measured once and reported under each label. A duplicate
        intervention is an error, because its rows could not be distinguished.

        If memory runs out, the batch is halved and the rest is measured so (see memory.py).

        Raises EngineError for unusable prompts or interventions, a missing donor, a model whose
        own logits are not reproduced, and any figure that is not finite; OutOfMemory, a subclass,
        if a single row does not fit.
        """
        self.room.begin()
        examples = check_prompts(self.loaded, prompts, "prompt")
        check_interventions(self.architecture, interventions)
        methods = {getattr(each, "method", "") for each in interventions}
        borrowing = {i.source.donor for i in interventions}
        needed = methods & {"mean", "resample"} | borrowing & {"noise"}
        reference_ids = check_reference(self.loaded, reference, needed)
        for names, owners, what in (
            (clusters, prompts, "clusters"),
            (reference_clusters, reference, "reference_clusters"),
            (others_clusters, others, "others_clusters"),
        ):
            if names is not None and len(names) != len(owners or ()):
                raise EngineError(
                    f"{what} has {len(names)} names for {len(owners or ())} prompts; give one each"
                )
        if seed < 0:
            raise EngineError(f"seed must not be negative, got {seed}")
        lending = {"pair", "other"}
        pair_ids = check_pairs(
            self.loaded,
            pairs,
            prompts,
            [i.label for i in interventions if i.source.donor in lending],
        )
        needed_by = [i.label for i in interventions if i.source.positions == "subject"]
        places = check_subjects(subjects, prompts, needed_by)
        steered = {i.direction: i.label for i in interventions if isinstance(i, Steer)}
        vectors = check_directions(self.loaded, directions, steered)

        ids = [tuple(prompt.ids) for prompt in prompts]
        alone: dict[str, list[Ids]] = {"self": ids, "pair": pair_ids}
        if "resample" in borrowing:
            alone["resample"] = (
                draw_donors(ids, clusters, reference_ids, reference_clusters, seed)
                if donors is None
                else check_donors(self.loaded, donors, prompts)
            )
        if "other" in borrowing:
            own = [repr(each) for each in ids] if clusters is None else clusters
            pool, names = pair_ids, own
            if others is not None:
                pool = check_reference(self.loaded, others, {"other"})
                names = others_clusters or [repr(each) for each in pool]
            alone["other"] = draw_donors(ids, own, pool, names, seed, purpose="other", longer=False)
        lenders: dict[str, list[Lender]] = {
            name: [(each,) for each in of] for name, of in alone.items()
        }
        if "template_mean" in borrowing:
            lenders["template_mean"] = check_templates(self.loaded, templates, prompts)
        constants: dict[str, Tensor] = {}
        sigma = 0.0
        if "noise" in borrowing:
            sigma = embedding_spread(self.loaded, self.architecture, self.room, reference_ids)
        if "mean" in methods:
            constants["mean"] = self.passes.mean(tuple(reference_ids))
        shortest = min(examples.distinct, key=len)
        if "zero_folded" in methods:
            constants["zero_folded"] = self.passes.folded(shortest)
        senders = {
            i.heads[0][0]
            for i in interventions
            if isinstance(i, PatchPath) or (isinstance(i, KeepCopySuppression) and i.direct)
        }
        self.passes.check_paths(shortest, sorted(senders))

        wanted: dict[Intervention | None, list[int]] = {None: [0]}
        for position, intervention in enumerate(interventions, 1):
            wanted.setdefault(self._canonical(intervention, constants), []).append(position)
        results = Results(len(interventions) + 1, len(prompts))
        total = len(prompts) * len(wanted)
        with (
            in_one_pass(self.architecture.model),
            tqdm(total=total, desc=self.name, unit="row", disable=not progress) as bar,
        ):
            self._measure_all(
                examples,
                Borrowing(lenders, places),
                Constants(
                    constants,
                    vectors,
                    EmbeddingNoise(sigma, seed),
                    CopySuppression(self.architecture),
                ),
                wanted,
                results,
                bar,
            )
        return results.frame(interventions)

    def _measure_all(
        self,
        examples: Examples,
        borrowing: Borrowing,
        constants: Constants,
        wanted: dict[Intervention | None, list[int]],
        results: Results,
        bar: "tqdm[None]",
    ) -> None:
        def write(
            intervention: Intervention | None, which: np.ndarray, found: dict[str, np.ndarray]
        ) -> None:
            label = BASELINE if intervention is None else intervention.label
            self._require_finite(which, found, label)
            for position in wanted[intervention]:
                results.write(position, which, found)
            bar.update(len(which))

        def work_on(interventions: list[Intervention]) -> Callable[[Chunk], None]:
            starts: dict[Site, list[Intervention]] = {}
            for intervention in interventions:
                starts.setdefault(intervention.sites(self.n_layers)[0], []).append(intervention)
            return lambda chunk: self._measure_chunk(
                chunk, examples, starts, wanted, results, write
            )

        noised = [each for each in wanted if isinstance(each, AddNoise)]
        if noised:
            bounds = self.bounds
            subjects, noise = borrowing.subjects, constants.noise

            def pending(intervention: Intervention, example: int) -> bool:
                return not results.has(wanted[intervention][-1], example)

            measure_noised(self.passes, examples, subjects, noised, noise, bounds, pending, write)
        measured = [each for each in wanted if each is not None and each not in set(noised)]
        alike = [intervention for intervention in measured if intervention.source == OWN]
        if (alike or len(wanted) == 1) and self.passes.can_pack(examples.distinct):
            kept, _ = needs(alike, self.n_layers)
            most = self.room.of(self.bounds.logits) // self.loaded.facts.vocab_size
            nodes = self.bounds.pack_nodes if alike else self.bounds.unhooked_nodes
            self.passes.visit_packs(examples, kept, constants, nodes, max(1, most), work_on(alike))
            measured = [intervention for intervention in measured if intervention.source != OWN]
            if not measured:
                return
        # The baseline's figures come from the prompts' own rows: the Lot without a donor.
        sources = dict.fromkeys([OWN, *(intervention.source for intervention in measured)])
        kept, lent = needs(measured, self.n_layers)
        self.passes.visit(examples, sources, borrowing, kept, lent, constants, work_on(measured))

    def _measure_chunk(
        self,
        chunk: Chunk,
        examples: Examples,
        starts: dict[Site, list[Intervention]],
        wanted: dict[Intervention | None, list[int]],
        results: Results,
        write: Write,
    ) -> None:
        """Write the chunk's missing figures; an earlier attempt may have run out of memory."""

        def pending(intervention: Intervention | None, item: Item) -> bool:
            return not results.has(wanted[intervention][-1], int(item.examples[0]))

        own = chunk.lots[OWN].items
        if pending(None, own[-1]):
            kl = torch.zeros_like(chunk.distribution.entropy)
            which, rows = examples_of(own)
            write(None, which, read_rows(chunk.distribution, kl, which, rows, examples))
        vocabulary = self.loaded.facts.vocab_size
        for segments, hidden in self._finals(chunk, starts, pending):
            n_rows = segments[-1].rows.stop
            what = "one after another to the vocabulary"
            with self.room.trying(self.bounds.logits, n_rows * vocabulary, n_rows, what):
                found = self._changes(chunk, segments, torch.cat(hidden), examples)
            for segment, (which, values) in zip(segments, found, strict=True):
                write(segment.intervention, which, values)

    def _changes(
        self,
        chunk: Chunk,
        segments: list[Segment],
        hidden: Float[Tensor, "rows d_model"],
        examples: Examples,
    ) -> list[tuple[np.ndarray, dict[str, np.ndarray]]]:
        """By segment, its examples and their figures, from last-token residual streams."""
        logits = self.architecture.logits(hidden)
        prompts = torch.cat([prompt_rows(chunk, s) for s in segments])
        items = [
            item for s in segments for item in chunk.lots[s.intervention.source].items[s.items]
        ]
        which, rows = examples_of(items)
        size = len(logits)
        if logits.device.type == "cpu":
            size = max(1, FIGURE_NUMBERS // logits.shape[1])
        parts = []
        for begin in range(0, len(logits), size):
            changed = distribution(logits[begin : begin + size])
            of = prompts[begin : begin + size]
            clean = picked(chunk.probabilities, of), picked(chunk.distribution.entropy, of)
            here = slice(*np.searchsorted(rows, [begin, begin + size]))
            kl = divergence(*clean, changed)
            parts.append(read_rows(changed, kl, which[here], rows[here] - begin, examples))
        found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        ends = np.searchsorted(rows, [s.rows.stop for s in segments])
        return [
            (which[begin:end], {name: values[begin:end] for name, values in found.items()})
            for begin, end in pairwise([0, *ends])
        ]

    def _finals(
        self,
        chunk: Chunk,
        starts: dict[Site, list[Intervention]],
        pending: Callable[[Intervention, Item], bool],
    ) -> Iterator[tuple[list[Segment], list[Float[Tensor, "rows d_model"]]]]:
        """Last-token residual streams of all rows, some batches of them at a time.

        The segments' rows are those of the streams, one per prompt. Batches are pooled before the
        unembedding: with 50,000 tokens it runs on 40 rows at 70 % of the rate it reaches with 300.
        """
        facts = self.loaded.facts
        each = chunk.prompts_per_row
        limit = max(1, self.room.of(self.bounds.logits) // facts.vocab_size)
        row = chunk.length * facts.d_model
        segments: list[Segment] = []
        hidden: list[Tensor] = []
        used = 0
        for start in sorted(starts):
            for batch in self._batches(chunk, starts[start], max(1, limit // each), pending):
                size = batch[-1].rows.stop
                if used and used + size * each > limit:
                    yield segments, hidden
                    segments, hidden, used = [], [], 0
                what = f"{chunk.length} tokens through the layers"
                with self.room.trying(self.bounds.batch, size * row, size, what):
                    hidden.append(self._run(chunk, start, batch))
                segments += [
                    s._replace(rows=slice(used + s.rows.start * each, used + s.rows.stop * each))
                    for s in batch
                ]
                used += size * each
        if used:
            yield segments, hidden

    def _require_finite(self, which: np.ndarray, found: dict[str, np.ndarray], label: str) -> None:
        for name, values in found.items():
            if not np.isfinite(values).all():
                first = int(which[np.flatnonzero(~np.isfinite(values))[0]])
                raise EngineError(
                    f"model {self.name!r}: {name} of example {first} under {label} is not finite; "
                    "measure in float32, and check the weights"
                )

    def _batches(
        self,
        chunk: Chunk,
        interventions: list[Intervention],
        limit: int,
        pending: Callable[[Intervention, Item], bool],
    ) -> Iterator[list[Segment]]:
        """Rows in the order of interventions, then items, cut into batches of bounded size.

        Rows are written in this order, so the pending items of an intervention are its last ones.
        """
        row = chunk.length * self.loaded.facts.d_model
        size = max(1, min(self.room.of(self.bounds.batch) // row, limit))
        batch: list[Segment] = []
        used = 0
        for intervention in interventions:
            items = chunk.lots[intervention.source].items
            count = len(items)
            if chunk.packed:  # one row for all of them
                if pending(intervention, items[-1]):
                    batch.append(Segment(intervention, slice(0, count), slice(used, used + 1)))
                    used += 1
                if used == size:
                    yield batch
                    batch, used = [], 0
                continue
            begin = next((n for n, item in enumerate(items) if pending(intervention, item)), count)
            while begin < count:
                taken = min(count - begin, size - used)
                batch.append(
                    Segment(intervention, slice(begin, begin + taken), slice(used, used + taken))
                )
                begin, used = begin + taken, used + taken
                if used == size:
                    yield batch
                    batch, used = [], 0
        if batch:
            yield batch

    def _run(
        self, chunk: Chunk, start: Site, segments: list[Segment]
    ) -> Float[Tensor, "rows d_model"]:
        """The last token's residual stream, in a batch whose rows are clean up to `start`."""
        return Rows(self.architecture, chunk, start, segments).final()

    def _canonical(
        self, intervention: Intervention, constants: dict[str, Tensor]
    ) -> Intervention | None:
        """The simplest arithmetically equal intervention; None for the baseline."""
        plain = intervention.plain(self.n_layers)
        if isinstance(plain, AblateHeads | PatchPath) and plain.method == "zero_folded":
            folded = constants["zero_folded"]
            if not any(
                bool(folded[layer, columns].any())
                for layer in {layer for layer, _ in plain.heads}
                for columns in self.architecture.columns(layer, plain.heads)
            ):
                return replace(plain, method="zero")
        return plain
