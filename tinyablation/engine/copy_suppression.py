"""What a head's copy suppression writes, for the ablation that leaves it (KeepCopySuppression)."""

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from tinyablation.engine.architecture import HIDDEN, Architecture, Call, Calls, hooked
from tinyablation.engine.offload import exact
from tinyablation.engine.prompt_checks import EngineError, Ids
from tinyablation.engine.readout import Readout, linear_tolerance
from tinyablation.heads import Head

# Two logits nearer than this are one token's, rounded differently.
TIE = 1e-6


class CopySuppression:
    """The copy suppression of one model's heads. The unembedding is read when first needed."""

    def __init__(self, arch: Architecture) -> None:
        self.arch = arch

    @cached_property
    def _readout(self) -> Readout:
        return Readout(self.arch)

    @cached_property
    def _centre(self) -> Float64[Tensor, " d_model"]:
        """The mean of the unembedding over the vocabulary."""
        return self._readout.unembed.double().mean(dim=1)

    @cached_property
    def _alone(self) -> Calls:
        """The calls of a pass over one token, in which attention weights are 1."""
        token = torch.zeros(1, 1, dtype=torch.long, device=self.arch.device)
        return self.arch.record(token)[0]

    def directions(self, ids: Sequence[Ids]) -> Float64[Tensor, "rows positions d_model"]:
        """The unembedding of every token, through the linear part of the final norm, centred."""
        tokens = torch.tensor(ids, device=self._readout.unembed.device)
        columns = self._readout.unembed.T[tokens].double() - self._centre
        columns = columns * self._readout.final.gain
        if self._readout.final.centred:
            columns = columns - columns.mean(dim=-1, keepdim=True)
        return columns

    def written(
        self,
        calls: Calls,
        ids: Sequence[Ids],
        residual: Float[Tensor, "rows positions d_model"],
        z: Float[Tensor, "rows positions d_head"],
        head: Head,
        mean: Float[Tensor, " d_head"],
        share: float,
    ) -> Float64[Tensor, "rows positions d_model"]:
        """The kept tokens' part of what the head writes: the sum in KeepCopySuppression.

        residual: the stream before its layer; z: its output there; mean: of its output, before the
        output projection. Raises EngineError if the attention does not say its weights.
        """
        arch, (layer, _) = self.arch, head
        (columns,) = arch.columns(layer, (head,))
        normed = arch.layers[layer].norm(residual)
        weights = self._weights(calls.attentions[layer], normed, head)
        values = self._values(layer, normed)[..., columns]
        residual, z, mean = (exact(each).to(arch.desk) for each in (residual, z, mean))
        off = (weights @ values - z).abs().max().item()
        if not off <= linear_tolerance(normed.dtype) * max(1.0, z.abs().max().item()):
            raise EngineError(
                f"model {arch.name!r}, layer {layer}: its attention's weights do not make its "
                f"output of its values (off by {off:.2g}), so no part of it can be kept"
            )
        matrix = exact(arch.output_matrix(layer, columns)).to(arch.desk)
        along = self.directions(ids).to(arch.desk)
        kept = kept_tokens(residual @ along.mT, ids, share)
        unit = along / along.norm(dim=-1, keepdim=True)
        moved = (values - mean) @ matrix
        against = (moved * unit).sum(dim=-1, keepdim=True).clamp_max(0.0) * unit
        return (weights * kept) @ against

    def _weights(
        self, call: Call, normed: Float[Tensor, "rows positions d_model"], head: Head
    ) -> Float64[Tensor, "rows destinations sources"]:
        module = self.arch.layers[head[0]].attention
        found: Any = module(*call.args, **{HIDDEN: normed, **call.kwargs})
        if not isinstance(found, tuple) or len(found) < 2 or found[1] is None:
            raise EngineError(
                f"model {self.arch.name!r}: its attention does not return its weights, so none of "
                "a head's sources can be kept"
            )
        return exact(found[1][:, head[1]]).to(self.arch.desk)

    def _values(
        self, layer: int, normed: Float[Tensor, "rows positions d_model"]
    ) -> Float64[Tensor, "rows positions width"]:
        """The values of every token: what the projection's input is, over that token alone."""
        modules, call = self.arch.layers[layer], self._alone.attentions[layer]
        kept: list[Tensor] = []

        def keep(_: object, args: tuple[Tensor, ...]) -> None:
            kept.append(exact(args[0][:, -1]).to(self.arch.desk))

        with hooked(modules.output.register_forward_pre_hook(keep)):
            modules.attention(*call.args, **{HIDDEN: normed.flatten(0, 1)[:, None], **call.kwargs})
        return kept[0].unflatten(0, normed.shape[:2])


def kept_tokens(
    logits: Float64[Tensor, "rows destinations sources"], ids: Sequence[Ids], share: float
) -> Bool[Tensor, "rows destinations sources"]:
    """At every destination, the source tokens that it predicts most, of those at or before it.

    Of n tokens as many as ceil(share * n), a token that recurs counted once and kept wherever it
    stands.
    """
    length = logits.shape[-1]
    causal = torch.ones(length, length, dtype=torch.bool, device=logits.device).tril()
    first = torch.tensor([[row.index(token) == at for at, token in enumerate(row)] for row in ids])
    least = torch.finfo(logits.dtype).min
    logits = logits.masked_fill(~causal, least)
    distinct = logits.masked_fill(~first[:, None].to(logits.device), least)
    ordered = distinct.sort(dim=-1, descending=True).values
    counts = [math.ceil(share * (at + 1)) - 1 for at in range(length)]
    bounds = ordered[:, torch.arange(length), counts].unsqueeze(-1)
    return (logits >= bounds - TIE) & causal
