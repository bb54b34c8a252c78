"""The change of one prompt's logit difference by an intervention, measured with a hook backend.

Every kind of intervention is implemented here a second time, as edits of activations at named
places.
"""

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Float64, Int
from torch import Tensor

from tinyablation.engine.embedding_noise import EmbeddingNoise
from tinyablation.engine.hook_backends import (
    Backend,
    BackendError,
    Case,
    Edit,
    Ids,
    Place,
    plain_exact,
)
from tinyablation.interventions.copy_suppression import KeepCopySuppression
from tinyablation.interventions.interventions import (
    AblateHeads,
    Intervention,
    PatchHeads,
    PatchMLP,
    PatchPath,
    PatchResidual,
    ScaleHeads,
    Steer,
)
from tinyablation.interventions.restoration import AddNoise, RestoreState, token_of

# Reference prompts per pass of a mean: 128 of 10 tokens take 5 ms in an embedded model, and 21 MB
# per layer in one with d_model 4096.
MEAN_ROWS = 128


class Changes:
    """Changes of the logit difference by one backend, for the prompts and vectors of one run.

    reference: the ids of the prompts that means are taken over; bos_id: a token that means leave
    out at the first position; directions: name -> [d_model]; seed: of the noise's draws.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        reference: Sequence[Ids] = (),
        bos_id: int | None = None,
        directions: Mapping[str, Tensor] | None = None,
        seed: int = 0,
    ) -> None:
        self.backend = backend
        self.reference = reference
        self.bos_id = bos_id
        self.directions = directions or {}
        self.seed = seed
        self._lent: dict[tuple[Ids, Place], Tensor] = {}
        self._constants: dict[tuple[str, int], Tensor] = {}
        self._templates: dict[tuple[Ids, ...], list[Tensor]] = {}

    def clean(self, case: Case) -> float:
        """LD of the unhooked model, in logits."""
        return _difference(self.logits(case), case)

    def changed(self, case: Case, intervention: Intervention) -> float:
        """LD under the intervention, in logits; BackendError if this backend cannot do it."""
        return _difference(self.logits(case, intervention), case)

    def logits(
        self, case: Case, intervention: Intervention | None = None
    ) -> Float64[Tensor, " vocab"]:
        """The last token's logits, unhooked or under an intervention; BackendError as `changed`."""
        if intervention is None:
            edits = {}
        elif isinstance(intervention, PatchPath):
            edits = self._path(case, intervention)
        else:
            edits = self._edits(case, intervention)
        return self.backend.run(self._tensor([case.ids]), edits)[0][0]

    def _edits(self, case: Case, intervention: Intervention) -> dict[Place, Edit]:
        if isinstance(intervention, Steer):
            push = intervention.scale * self.directions[intervention.direction]
            return {Place("attention", intervention.layer): lambda value: value + push.to(value)}
        if isinstance(intervention, AblateHeads | ScaleHeads | PatchHeads | PatchPath):
            layers = sorted({layer for layer, _ in intervention.heads})
            return {Place("z", at): self._of_heads(case, intervention, at) for at in layers}
        if isinstance(intervention, AddNoise):
            return self._noised(case, intervention)
        if isinstance(intervention, KeepCopySuppression):
            return self._suppressing(case, intervention)
        part: Literal["stream", "mlp"] = "mlp" if isinstance(intervention, PatchMLP) else "stream"
        assert isinstance(intervention, PatchMLP | PatchResidual)
        donor = case.lenders[intervention.donor]
        where = _positions(case, intervention.positions)

        def put(lent: Tensor) -> Edit:
            def edit(value: Tensor) -> Tensor:
                value[:, where] = lent[:, where]
                return value

            return edit

        places = [Place(part, layer) for layer in intervention.layers(self.backend.n_layers)]
        lent = self._lend(donor, places)
        return {place: put(lent[place]) for place in places}

    def _noised(self, case: Case, intervention: AddNoise) -> dict[Place, Edit]:
        """Noise on the subject's embeddings, and the clean states that are put back."""
        where = list(case.subject)
        noise = EmbeddingNoise(self._spread, self.seed)

        def add(embedded: Tensor) -> Tensor:
            drawn = noise(case.ids, case.subject, intervention.noise, embedded.shape[-1])
            embedded[:, where] += torch.from_numpy(drawn).to(embedded.dtype).to(embedded.device)
            return embedded

        edits: dict[Place, Edit] = {Place("embedding", 0): add}
        if isinstance(intervention, RestoreState):
            layers = intervention.layers(self.backend.n_layers)
            places = [Place(intervention.part, layer) for layer in layers]
            lent = self._lend(case.ids, places)
            token = token_of(intervention.where, case.subject, len(case.ids))

            def restore(place: Place) -> Edit:
                def edit(value: Tensor) -> Tensor:
                    value[:, token] = lent[place][:, token]
                    return value

                return edit

            edits |= {place: restore(place) for place in places}
        return edits

    def _suppressing(self, case: Case, intervention: KeepCopySuppression) -> dict[Place, Edit]:
        """The head's mean, and what it moves from each kept source against that source's token."""
        ((layer, head),) = intervention.heads
        places = [Place("pattern", layer), Place("v", layer), Place("stream", layer)]
        _, found = self.backend.run(self._tensor([case.ids]), kept=places)
        pattern, values, stream = (plain_exact(found[place])[0] for place in places)
        matrix = self.backend.output_matrix(layer, head)
        written = values[:, head * values.shape[1] // self.backend.n_heads] @ matrix
        mean = self._mean(layer)[head] @ matrix
        along = self.backend.read_directions(case.ids)
        change = torch.zeros_like(stream)
        for at in range(len(case.ids)):
            predicted = (along[: at + 1] @ stream[at]).tolist()
            most = sorted({*case.ids[: at + 1]}, key=lambda t: -predicted[case.ids.index(t)])
            kept = most[: math.ceil(intervention.share * (at + 1))]
            change[at] = mean - pattern[head, at] @ written
            for source in range(at + 1):
                if case.ids[source] in kept:
                    unit = along[source] / along[source].norm()
                    against = min(0.0, float((written[source] - mean) @ unit))
                    change[at] += pattern[head, at, source] * against * unit
        place = Place("attention", layer)
        if intervention.direct:
            place = Place("stream", self.backend.n_layers)
        return {place: lambda value: value + change.to(value.dtype).to(value.device)}

    @cached_property
    def _spread(self) -> float:
        """The standard deviation of the embeddings' components over the reference, without BOS."""
        place, found = Place("embedding", 0), []
        for ids in self.reference:
            _, kept = self.backend.run(self._tensor([ids]), kept=[place], up_to=0)
            found.append(plain_exact(kept[place])[0, 1 if ids[0] == self.bos_id else 0 :])
        return float(torch.cat(found).std(correction=0))

    def _of_heads(
        self, case: Case, intervention: AblateHeads | ScaleHeads | PatchHeads | PatchPath, at: int
    ) -> Edit:
        """The edit of the z of a layer."""
        heads = [head for layer, head in intervention.heads if layer == at]
        place = Place("z", at)
        if isinstance(intervention, ScaleHeads):
            scale = intervention.scale

            def scaled(z: Tensor) -> Tensor:
                z[:, :, heads] *= scale
                return z

            return scaled
        where: slice | list[int] = slice(None)
        if isinstance(intervention, PatchHeads):
            where = _positions(case, intervention.positions)
            values = self._lend(case.lenders[intervention.donor], [place])[place]
        elif intervention.method == "resample":
            values = self._lend(case.lenders["resample"], [place])[place][:, -len(case.ids) :]
        elif intervention.method == "template_mean":
            values = self._template_mean(case.template)[at]
        else:
            values = self._constant(intervention.method, at)

        def put(z: Tensor) -> Tensor:
            for head in heads:
                own = z[:, :, head]  # a view
                own[:, where] = values[:, :, head].to(z).expand_as(own)[:, where]
            return z

        return put

    def _path(self, case: Case, intervention: PatchPath) -> dict[Place, Edit]:
        """The stream that the receiver gets if only the senders' direct path is changed.

        Path patching by forward passes (Wang et al. 2022, section 3.1): a clean pass records the
        activations between senders and receiver; a second pass ablates the senders and holds those
        activations at their clean values; the third pass is given the receiver's stream of the
        second.
        """
        first, receiver = intervention.heads[0][0], Place("stream", intervention.layer)
        between = [Place("mlp", first)]
        for layer in range(first + 1, intervention.layer):
            between += [Place("attention", layer), Place("mlp", layer)]
        ids = self._tensor([case.ids])
        _, clean = self.backend.run(ids, kept=between)

        def held(place: Place) -> Edit:
            return lambda value: clean[place]

        edits = {place: held(place) for place in between} | self._edits(case, intervention)
        _, found = self.backend.run(ids, edits, [receiver])
        return {receiver: lambda value: found[receiver]}

    def _constant(self, method: str, layer: int) -> Tensor:
        """The prompt-independent replacement of z by a method, [1, 1, heads, d_head]."""
        if (method, layer) not in self._constants:
            if method == "mean":
                value = self._mean(layer)
            else:
                value = self.backend.folded(layer)
                value = torch.zeros_like(value) if method == "zero" else value
            self._constants[method, layer] = value[None, None]
        return self._constants[method, layer]

    def _mean(self, layer: int) -> Float64[Tensor, "heads d_head"]:
        """The mean of z over all tokens of the reference except BOS; duplicates count twice."""
        place, by_length = Place("z", layer), dict[int, list[Ids]]()
        for ids in self.reference:
            by_length.setdefault(len(ids), []).append(ids)
        sums, n = [], 0
        for same in by_length.values():
            for begin in range(0, len(same), MEAN_ROWS):
                rows = self._tensor(same[begin : begin + MEAN_ROWS])
                _, found = self.backend.run(rows, kept=[place], up_to=layer + 1)
                counted = torch.ones_like(rows, dtype=torch.bool)
                if self.bos_id is not None:
                    counted[:, 0] = rows[:, 0] != self.bos_id
                z = found[place][counted.to(found[place].device)]
                sums.append(plain_exact(z).sum(dim=0))
                n += len(z)
        if not n:
            raise BackendError("the reference prompts hold no token but BOS")
        return torch.stack(sums).sum(dim=0) / n

    def _template_mean(
        self, template: tuple[Ids, ...]
    ) -> list[Float64[Tensor, "1 positions heads d_head"]]:
        """By layer, the mean of z at each position over prompts of one length."""
        if template not in self._templates:
            places = [Place("z", layer) for layer in range(self.backend.n_layers)]
            found: dict[Place, list[Tensor]] = {place: [] for place in places}
            for begin in range(0, len(template), MEAN_ROWS):
                rows = self._tensor(template[begin : begin + MEAN_ROWS])
                _, kept = self.backend.run(rows, kept=places)
                for place in places:
                    found[place].append(plain_exact(kept[place]).sum(dim=0, keepdim=True))
            means = [torch.stack(found[place]).sum(dim=0) / len(template) for place in places]
            self._templates[template] = means
        return self._templates[template]

    def _lend(self, donor: Ids, places: Sequence[Place]) -> dict[Place, Tensor]:
        """Activations of a clean pass over one donor alone, [1, positions, ...] each."""
        missing = [place for place in places if (donor, place) not in self._lent]
        if missing:
            _, found = self.backend.run(self._tensor([donor]), kept=missing)
            self._lent |= {(donor, place): value for place, value in found.items()}
        return {place: self._lent[donor, place] for place in places}

    def _tensor(self, ids: Sequence[Ids]) -> Int[Tensor, "rows positions"]:
        return torch.tensor(ids, dtype=torch.long, device=self.backend.device)


def _difference(logits: Float64[Tensor, " vocab"], case: Case) -> float:
    return float(logits[case.target] - logits[case.foil])


def _positions(case: Case, positions: str) -> slice | list[int]:
    if positions == "all":
        return slice(None)
    return [len(case.ids) - 1] if positions == "last" else list(case.subject)
