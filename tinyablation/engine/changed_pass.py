"""A batch of rows: clean activations recomputed from the first site that each row changes."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from tinyablation.engine.architecture import Architecture, Edit, Kept
from tinyablation.engine.chunk import Chunk
from tinyablation.engine.offload import picked
from tinyablation.interventions.copy_suppression import KeepCopySuppression
from tinyablation.interventions.interventions import Intervention, PatchPath, ScaleHeads, Steer
from tinyablation.interventions.sites import Part, Site


class Segment(NamedTuple):
    """Consecutive rows of a batch that share an intervention."""

    intervention: Intervention
    items: slice  # of the Lot of the intervention's source
    rows: slice  # of the batch


def needs(interventions: Iterable[Intervention], n_layers: int) -> tuple[Kept, Kept]:
    """What clean passes over the prompts, and over their donors, must keep."""
    clean: dict[str, set[int]] = {name: set() for name in Kept._fields}
    lent: dict[str, set[int]] = {name: set() for name in Kept._fields}
    borrowed = {Part.STREAM: "residual", Part.ATTENTION: "z", Part.MLP: "mlp"}
    for intervention in interventions:
        sites = intervention.sites(n_layers)
        start = sites[0]
        clean["residual"].add(start.layer)
        if start.part >= Part.ATTENTION:
            clean["attention"].add(start.layer)
        if start.part >= Part.MLP:
            clean["mlp"].add(start.layer)
        if isinstance(intervention, KeepCopySuppression):  # its attention is read there
            clean["residual"].add(intervention.heads[0][0])
        # The heads it acts on whose clean z a row starts from.
        clean["z"].update(layer for layer, _ in intervention.columns.heads[:1])
        if intervention.source.donor:
            for site in sites:
                lent[borrowed[site.part]].add(site.layer)
    return (
        Kept(**{name: frozenset(layers) for name, layers in clean.items()}),
        Kept(**{name: frozenset(layers) for name, layers in lent.items()}),
    )


class Rows:
    """Rows that are clean up to one site, each with its own intervention from there on."""

    def __init__(
        self, architecture: Architecture, chunk: Chunk, start: Site, segments: list[Segment]
    ) -> None:
        self.architecture = architecture
        self.chunk = chunk
        self.start = start
        self.segments = segments
        self.n_layers = len(architecture.layers)
        # The row of the clean pass that each row starts from.
        self.clean_rows = torch.cat(
            [chunk.clean_rows(s.intervention.source, s.items) for s in segments]
        )
        self._sites = [set(s.intervention.sites(self.n_layers)) for s in segments]
        # W_O by layer, read once: an offloaded layer's comes from disk.
        self._matrices: dict[int, Float[Tensor, "width d_model"]] = {}

    def final(self) -> Float[Tensor, "prompt_rows d_model"]:
        """The residual stream of each row's prompts at their last tokens, before the final norm.

        It is on the final norm's device.
        """
        arch, calls, clean = self.architecture, self.chunk.calls, self.chunk.clean
        layer, part = self.start
        if part == Part.STREAM:
            hidden = picked(clean.residual[layer], self.clean_rows)
        else:
            # After the last layer's attention only the ends of prompts are needed.
            window = self.chunk.ends if layer == self.n_layers - 1 else slice(None)
            before = clean.residual[layer][:, window]
            if not self.chunk.packed:  # a pack has one row for all
                before = picked(before, self.clean_rows)
            attention = picked(clean.attention[layer][:, window], self.clean_rows)
            if part == Part.ATTENTION:
                attention = self._attention(layer, attention, window)
                hidden = arch.after_attention(calls, layer, before, attention)
            else:
                mlp = picked(clean.mlp[layer][:, window], self.clean_rows)
                mlp = self._replaced(Site(layer, part), mlp)
                hidden = arch.after_mlp(calls, layer, before, attention, mlp)
            layer += 1
        for later in range(layer, self.n_layers):
            hidden = self._stream(later, hidden)
            edits = self._edit_z(later), self._edit_mlp(later)
            hidden = arch.through(calls, later, hidden, *edits, self.chunk.ends)
        return self._stream(self.n_layers, hidden).flatten(0, 1).to(arch.homes[-1])

    def _touching(self, site: Site) -> list[Segment]:
        return [s for s, sites in zip(self.segments, self._sites, strict=True) if site in sites]

    def _stream(
        self, layer: int, hidden: Float[Tensor, "rows positions d_model"]
    ) -> Float[Tensor, "rows positions d_model"]:
        """The stream entering a layer, after the changes of the rows."""
        return self._replaced(Site(layer, Part.STREAM), hidden)

    def _replaced(
        self, site: Site, live: Float[Tensor, "rows positions d_model"]
    ) -> Float[Tensor, "rows positions d_model"]:
        """A stream or MLP output, after the replacements of the rows."""
        touching = self._touching(site)
        if not touching:
            return live
        live = live.to(self.architecture.homes[site.layer], copy=True)
        lent = self.chunk.lent.mlp if site.part == Part.MLP else self.chunk.lent.residual
        for s in touching:
            if isinstance(s.intervention, PatchPath | KeepCopySuppression):
                window = self.chunk.ends if site.layer == self.n_layers else slice(None)
                live[s.rows] += self._sent(s, s.intervention, window).to(live.device)
            else:
                live[s.rows] = self._borrowed(s, lent[site.layer], live[s.rows])
        return live

    def _attention(
        self,
        layer: int,
        attention: Float[Tensor, "rows positions d_model"],
        window: slice | Int[Tensor, " prompts"],
    ) -> Float[Tensor, "rows positions d_model"]:
        """The attention's output in the layer where rows start, from `attention`, the clean one."""
        for s in self._touching(Site(layer, Part.ATTENTION)):
            if isinstance(s.intervention, Steer):
                direction = self.chunk.constants.directions[s.intervention.direction]
                attention[s.rows] += s.intervention.scale * direction.to(attention.device)
            else:
                attention[s.rows] += self._sent(s, s.intervention, window)
        return attention

    def _sent(
        self,
        segment: Segment,
        intervention: Intervention,
        window: slice | Int[Tensor, " prompts"],
    ) -> Float[Tensor, "rows positions d_model"]:
        """sum_h (z'_h - z_h) W_O[h] over the heads of the lowest layer, at these positions.

        In the model's dtype: in float32 it changed errors in half precision by -4 to +2 %.
        """
        heads = intervention.columns.heads
        layer = heads[0][0]
        clean = picked(self.chunk.clean.z[layer][:, window], self.clean_rows[segment.rows])
        if layer not in self._matrices:
            self._matrices[layer] = self.architecture.output_matrix(layer, slice(None))
        changes = []
        for columns in self.architecture.columns(layer, heads):
            before = clean[..., columns]
            change = self._z(segment, layer, columns, before) - before
            changes.append(change @ self._matrices[layer][columns])
        if isinstance(intervention, KeepCopySuppression):
            kept = self._suppressing(segment, intervention, window)
            changes.append(kept.to(clean.dtype).to(clean.device))
        return torch.stack(changes).sum(dim=0)

    def _suppressing(
        self,
        segment: Segment,
        intervention: KeepCopySuppression,
        window: slice | Int[Tensor, " prompts"],
    ) -> Float64[Tensor, "rows positions d_model"]:
        """What a head's copy suppression writes, at these positions."""
        chunk, rows = self.chunk, self.clean_rows[segment.rows]
        (head,) = intervention.heads
        (columns,) = self.architecture.columns(head[0], (head,))
        residual, z = (picked(of[head[0]], rows) for of in (chunk.clean.residual, chunk.clean.z))
        mean = chunk.constants.z["mean"][head[0], columns]
        ids = [chunk.ids[row] for row in rows.tolist()]
        written = chunk.constants.suppression.written(
            chunk.calls, ids, residual, z[..., columns], head, mean, intervention.share
        )
        return written[:, window]

    def _edit_z(self, layer: int) -> Edit | None:
        touching = self._touching(Site(layer, Part.ATTENTION))

        def edit(live: Tensor) -> Tensor:
            live = live.clone()
            for s in touching:
                for columns in self.architecture.columns(layer, s.intervention.columns.heads):
                    before = live[s.rows][..., columns]
                    live[s.rows, :, columns] = self._z(s, layer, columns, before)
            return live

        return edit if touching else None

    def _edit_mlp(self, layer: int) -> Edit | None:
        site = Site(layer, Part.MLP)
        return (lambda live: self._replaced(site, live)) if self._touching(site) else None

    def _z(
        self,
        segment: Segment,
        layer: int,
        columns: slice,
        live: Float[Tensor, "rows positions d_head"],
    ) -> Float[Tensor, "rows positions d_head"]:
        """The replacement of one head's z; positions may be only the last."""
        intervention = segment.intervention
        if isinstance(intervention, ScaleHeads):
            return live * intervention.scale
        if intervention.source.donor:
            return self._borrowed(segment, self.chunk.lent.z[layer][..., columns], live)
        method = getattr(intervention, "method", "")
        if method == "zero":
            return torch.zeros_like(live)
        return self.chunk.constants.z[method][layer, columns].to(live.device).expand_as(live)

    def _borrowed(
        self,
        segment: Segment,
        lent: Float[Tensor, "donors all_positions width"],
        live: Float[Tensor, "rows positions width"],
    ) -> Float[Tensor, "rows positions width"]:
        """`live` with the donors' values at their places, aligned at the last positions."""
        lot = self.chunk.lots[segment.intervention.source]
        values = picked(lent[:, -live.shape[1] :], lot.donors[segment.items])
        places = lot.places[segment.items, -live.shape[1] :].to(live.device)
        return torch.where(places.unsqueeze(-1), values, live)


def prompt_rows(chunk: Chunk, segment: Segment) -> Int[Tensor, " rows"]:
    """For every row of a segment, the row of the chunk's clean pass that it starts from."""
    return chunk.lots[segment.intervention.source].prompts[segment.items]
