"""The measurement engine: interventions on attention heads, exact, batched, on plain HF modules.

The way of the data: prompts are checked and made distinct, grouped by length (there is no padding
anywhere), passed through the model once, and then every (intervention, prompt) is a row of a batch
that starts from the clean residual stream of the earliest layer it touches. That layer's attention
is not run again: its output is the clean one plus sum_h (z'_h - z_h) W_O[h]. In later touched
layers the heads' slices of the output projection's input are replaced row by row.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

from tinyablation.addresses import ENGINE_VERSION
from tinyablation.architecture import Architecture
from tinyablation.clean import Chunk, CleanPasses, Item
from tinyablation.donors import draw_donors
from tinyablation.examples import EngineError, Examples, Ids, check_prompts, check_reference
from tinyablation.interventions import AblateHeads, Intervention, ScaleHeads
from tinyablation.loading import LoadedModel
from tinyablation.metrics import Distribution, distribution, divergence, figures
from tinyablation.results import Results

if TYPE_CHECKING:
    import pandas

    from tinyablation.tokenisation import Prompt

# Bounds of one batch, in numbers.
BATCH_NUMBERS = 2**21  # rows x positions x d_model: 8 MB a residual stream, 34 MB in an MLP
LOGIT_NUMBERS = 2**24  # rows x vocabulary: 128 MB in float64

__all__ = ["ENGINE_VERSION", "Engine", "EngineError"]


class _Segment(NamedTuple):
    """Consecutive rows of a batch that share an intervention."""

    intervention: Intervention
    items: slice  # of the chunk's items or resampled items
    rows: slice  # of the batch


class Engine:
    """Measures interventions on one loaded model."""

    def __init__(self, model: LoadedModel) -> None:
        """Resolve the model's modules; EngineError if it is not built as needed."""
        self.loaded = model
        self.name = model.entry.id
        self.architecture = Architecture(model)
        self.passes = CleanPasses(model, self.architecture)
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
        seed: int = 0,
        progress: bool = False,
    ) -> "pandas.DataFrame":
        """Measure every intervention on every prompt, at the prompt's own last token.

        reference: the prompts of mean and resample ablation, and required by them. clusters: one
        name per prompt; a donor is never of the prompt's own cluster. reference_clusters: one per
        reference prompt, needed only where a reference prompt is none of the prompts (see
        donors.draw_donors). seed draws the donors. progress: a bar on stderr.

        Returns one row per (intervention, example): first the unhooked baseline, then the
        interventions as given, examples in order within each. Columns: intervention, method, heads
        (str); layer, head (of a single head, else -1), example, target_rank, argmax (int64);
        scale, logit_diff, target_logit, foil_logit, target_probability, kl = KL(clean||ablated)
        and entropy in nats (float64).

        Interventions that are the same by arithmetic (scale 0.0 and zero; zero_folded and zero
        where no bias is; scale 1.0 and the baseline) are measured once and reported under each
        label. The very same intervention given twice is an error, since rows could not be told
        apart.

        Raises EngineError for unusable prompts or interventions, a missing donor, a model whose
        own logits are not reproduced, and any figure that is not finite.
        """
        examples = check_prompts(self.loaded, prompts, "prompt")
        self._check_interventions(interventions)
        methods = {getattr(intervention, "method", "scale") for intervention in interventions}
        reference_ids = check_reference(self.loaded, reference, methods & {"mean", "resample"})
        for names, owners, what in (
            (clusters, prompts, "clusters"),
            (reference_clusters, reference, "reference_clusters"),
        ):
            if names is not None and len(names) != len(owners or ()):
                raise EngineError(
                    f"{what} has {len(names)} names for {len(owners or ())} prompts; give one each"
                )
        if seed < 0:
            raise EngineError(f"seed must not be negative, got {seed}")
        donors: list[Ids] = []
        if "resample" in methods:
            ids = [tuple(prompt.ids) for prompt in prompts]
            donors = draw_donors(ids, clusters, reference_ids, reference_clusters, seed)
        constants: dict[str, Tensor] = {}
        if "mean" in methods:
            constants["mean"] = self.passes.mean(tuple(reference_ids))
        if "zero_folded" in methods:
            constants["zero_folded"] = self.passes.folded(min(examples.distinct, key=len))
        wanted: dict[Intervention | None, list[int]] = {None: [0]}
        for position, intervention in enumerate(interventions, 1):
            wanted.setdefault(self._canonical(intervention, constants), []).append(position)
        results = Results(len(interventions) + 1, len(prompts))
        total = len(examples.distinct) * len(wanted)
        with tqdm(total=total, desc=self.name, unit="row", disable=not progress) as bar:
            self._measure_all(examples, donors, constants, wanted, results, bar)
        return results.frame(interventions)

    def _measure_all(
        self,
        examples: Examples,
        donors: list[Ids],
        constants: dict[str, Tensor],
        wanted: dict[Intervention | None, list[int]],
        results: Results,
        bar: "tqdm[None]",
    ) -> None:
        measured = [intervention for intervention in wanted if intervention is not None]
        starts: dict[int, list[Intervention]] = {}
        for intervention in measured:
            starts.setdefault(intervention.heads[0][0], []).append(intervention)
        resampled = [i for i in measured if getattr(i, "method", "") == "resample"]
        lent = frozenset(layer for i in resampled for layer, _ in i.heads)
        if not resampled:
            donors = []
        for chunk in self.passes.chunks(examples, donors, frozenset(starts), lent, constants):
            kl = torch.zeros(len(chunk.items), dtype=torch.float64, device=self.loaded.device)
            baseline = self._figures(chunk.distribution, kl, chunk.items, examples, "baseline")
            for position in wanted[None]:
                results.write(position, *baseline)
            bar.update(len(chunk.items))
            for segments, hidden in self._finals(chunk, starts):
                ablated = distribution(self.architecture.logits(hidden))
                rows = torch.cat([self._prompt_rows(chunk, s) for s in segments])
                entropy = chunk.distribution.entropy[rows]
                kl = divergence(chunk.probabilities[rows], entropy, ablated)
                for s in segments:
                    items = chunk.of(s.intervention)[s.items]
                    part = Distribution(
                        ablated.logits[s.rows],
                        ablated.shifted[s.rows],
                        ablated.log_sum[s.rows],
                        ablated.entropy[s.rows],
                    )
                    found = self._figures(part, kl[s.rows], items, examples, s.intervention.label)
                    for position in wanted[s.intervention]:
                        results.write(position, *found)
                    bar.update(len({item.prompt for item in items}))

    def _finals(
        self, chunk: Chunk, starts: dict[int, list[Intervention]]
    ) -> Iterator[tuple[list[_Segment], Float[Tensor, "rows d_model"]]]:
        """Last-token residual streams of all rows, some batches of them at a time.

        Batches are gathered before they meet the vocabulary: with 50,000 tokens the unembedding
        of 40 rows runs at 70 % of the rate that it reaches with 300.
        """
        limit = max(1, LOGIT_NUMBERS // self.loaded.facts.vocab_size)
        segments: list[_Segment] = []
        hidden: list[Tensor] = []
        used = 0
        for start in sorted(starts):
            for batch in self._batches(chunk, starts[start], limit):
                size = batch[-1].rows.stop
                if used and used + size > limit:
                    yield segments, torch.cat(hidden)
                    segments, hidden, used = [], [], 0
                hidden.append(self._run(chunk, start, batch))
                segments += [
                    s._replace(rows=slice(used + s.rows.start, used + s.rows.stop)) for s in batch
                ]
                used += size
        if used:
            yield segments, torch.cat(hidden)

    def _figures(
        self,
        ablated: Distribution,
        kl: Float[Tensor, " rows"],
        items: list[Item],
        examples: Examples,
        label: str,
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Examples and their figures, from one row per item."""
        which = np.concatenate([item.examples for item in items])
        row = np.repeat(np.arange(len(items)), [len(item.examples) for item in items])
        place = [
            torch.as_tensor(x, device=kl.device)
            for x in (row, examples.targets[which], examples.foils[which])
        ]
        found = figures(ablated, kl, *place)
        for name, values in found.items():
            if not np.isfinite(values).all():
                first = int(which[np.flatnonzero(~np.isfinite(values))[0]])
                raise EngineError(
                    f"model {self.name!r}: {name} of example {first} under {label} is not finite; "
                    "measure in float32, and check the weights"
                )
        return which, found

    def _batches(
        self, chunk: Chunk, interventions: list[Intervention], limit: int
    ) -> Iterator[list[_Segment]]:
        """Rows in the order of interventions, then items, cut into batches of bounded size."""
        facts = self.loaded.facts
        positions = next(iter(chunk.clean.residual.values())).shape[1]
        size = max(1, min(BATCH_NUMBERS // (positions * facts.d_model), limit))
        batch: list[_Segment] = []
        used = 0
        for intervention in interventions:
            count = len(chunk.of(intervention))
            begin = 0
            while begin < count:
                taken = min(count - begin, size - used)
                batch.append(
                    _Segment(intervention, slice(begin, begin + taken), slice(used, used + taken))
                )
                begin, used = begin + taken, used + taken
                if used == size:
                    yield batch
                    batch, used = [], 0
        if batch:
            yield batch

    def _prompt_rows(self, chunk: Chunk, segment: _Segment) -> Int[Tensor, " rows"]:
        items = chunk.of(segment.intervention)[segment.items]
        return torch.tensor([item.prompt for item in items], device=self.loaded.device)

    def _run(
        self, chunk: Chunk, start: int, segments: list[_Segment]
    ) -> Float[Tensor, "rows d_model"]:
        """The last token's residual stream, in a batch whose rows are clean up to layer `start`."""
        arch = self.architecture
        last = self.n_layers - 1
        window = slice(-1, None) if start == last else slice(None)
        rows = torch.cat([self._prompt_rows(chunk, segment) for segment in segments])
        hidden = chunk.clean.residual[start][:, window][rows]
        attention = chunk.clean.attention[start][:, window][rows]
        z = chunk.clean.z[start][:, window]
        for s in segments:
            live = z[rows[s.rows]]
            for columns in arch.columns(start, s.intervention.heads):
                before = live[..., columns]
                change = self._replacement(chunk, s, start, columns, before) - before
                attention[s.rows] += change @ arch.output_matrix(start, columns)
        hidden = arch.after_attention(chunk.calls, start, hidden, attention)
        for layer in range(start + 1, self.n_layers):
            touching = [s for s in segments if arch.columns(layer, s.intervention.heads)]

            def edit(
                live: Tensor, layer: int = layer, touching: list[_Segment] = touching
            ) -> Tensor:
                live = live.clone()
                for s in touching:
                    for columns in arch.columns(layer, s.intervention.heads):
                        before = live[s.rows][..., columns]
                        live[s.rows, :, columns] = self._replacement(
                            chunk, s, layer, columns, before
                        )
                return live

            hidden = arch.through(chunk.calls, layer, hidden, edit if touching else None)
        return hidden[:, -1]

    def _replacement(
        self,
        chunk: Chunk,
        segment: _Segment,
        layer: int,
        columns: slice,
        live: Float[Tensor, "rows positions d_head"],
    ) -> Float[Tensor, "rows positions d_head"]:
        """What the z of one head becomes, from what it is; positions may be only the last."""
        intervention = segment.intervention
        if isinstance(intervention, ScaleHeads):
            return live * intervention.scale
        if intervention.method == "zero":
            return torch.zeros_like(live)
        if intervention.method == "resample":
            return chunk.donor_z[layer][segment.items, -live.shape[1] :, columns]
        return chunk.constants[intervention.method][layer, columns].expand_as(live)

    def _canonical(
        self, intervention: Intervention, constants: dict[str, Tensor]
    ) -> Intervention | None:
        """The measurement this intervention is; None for the baseline."""
        if isinstance(intervention, ScaleHeads):
            if intervention.scale == 1.0:  # z * 1.0 is z to the bit: nothing is done
                return None
            return AblateHeads(intervention.heads) if intervention.scale == 0.0 else intervention
        if intervention.method == "zero_folded":
            folded = constants["zero_folded"]
            if not any(
                bool(folded[layer, columns].any())
                for layer in {layer for layer, _ in intervention.heads}
                for columns in self.architecture.columns(layer, intervention.heads)
            ):
                return AblateHeads(intervention.heads)
        return intervention

    def _check_interventions(self, interventions: Sequence[Intervention]) -> None:
        seen: set[Intervention] = set()
        for intervention in interventions:
            if intervention in seen:
                raise EngineError(f"intervention {intervention.label} is given twice; give it once")
            seen.add(intervention)
            for layer, head in intervention.heads:
                if layer >= self.n_layers or head >= self.architecture.n_heads:
                    raise EngineError(
                        f"model {self.name!r} has no head {layer}:{head} ({intervention.label}); "
                        f"it has {self.n_layers} layers of {self.architecture.n_heads} heads"
                    )
