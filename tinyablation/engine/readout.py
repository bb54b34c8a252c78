"""Directions of the residual stream read as token logits, and the linear part of a norm.

A direction is read through the LINEAR part of the final norm (for LayerNorm: subtract the mean,
then multiply by the gain; for RMSNorm: multiply by the gain), then the unembedding. The norm's
division by the stream's scale, its bias and the unembedding's are left out, because they scale or
shift all directions alike.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from tinyablation.engine.architecture import Architecture
from tinyablation.engine.offload import exact, home, weight_of
from tinyablation.engine.prompt_checks import EngineError

# Norms are probed with values this large, so that the epsilon in their denominator is negligible.
PROBE = 1e4
# Effect of the order of float32 sums, relative to the largest figure (2e-6 measured).
LINEAR_TOLERANCE = 1e-3
# In half precision figures are rounded to 2^-8 (bfloat16) or 2^-11 (float16) of themselves a few
# times; something that is not linear is off by as much as its own size.
ROUNDINGS = 8


class NormMap(NamedTuple):
    """The linear part of a norm: x -> (x - mean(x) if centred) * gain."""

    centred: bool
    gain: Float64[Tensor, " d_model"]

    def __call__(self, rows: Float[Tensor, "*rows d_model"]) -> Float64[Tensor, "*rows d_model"]:
        rows = rows.double()
        return (rows - rows.mean(dim=-1, keepdim=True) if self.centred else rows) * self.gain


def linear_tolerance(dtype: torch.dtype) -> float:
    """The allowed deviation from linearity in this dtype, relative to the largest figure."""
    return max(LINEAR_TOLERANCE, ROUNDINGS * torch.finfo(dtype).eps)


@torch.no_grad()
def norm_map(norm: nn.Module, d_model: int, name: str) -> NormMap:
    """The linear part of a norm, from its outputs for unit vectors and their negatives.

    For a unit vector LayerNorm gives sqrt(d - 1) in its own component and non-zero values in the
    others, RMSNorm sqrt(d) and zeros. Raises EngineError, which names `name`, for other norms.
    """
    dtype = next(norm.parameters()).dtype
    allowed = linear_tolerance(dtype)
    unit = torch.eye(d_model, dtype=dtype, device=home(norm))
    odd = (exact(norm(PROBE * unit)) - exact(norm(-PROBE * unit))) / 2
    own = odd.diagonal()
    centred = bool((odd - own.diag()).abs().max() > allowed * own.abs().max() / d_model)
    scale = (d_model - centred) ** 0.5
    found = NormMap(centred, own / scale)
    factor = d_model / scale if centred else scale
    if not (found(exact(unit)) * factor - odd).abs().max() <= allowed * odd.abs().max():
        raise EngineError(
            f"{name} is neither a LayerNorm nor an RMSNorm; its logits have no meaning"
        )
    return found


class Readout:
    """Reads directions of one model's stream as logits over its vocabulary (see the module)."""

    def __init__(self, arch: Architecture) -> None:
        """Raises EngineError for a final norm that has no linear part."""
        self.unembed: Float[Tensor, "d_model vocab"] = weight_of(arch.unembed).to(arch.desk).T
        name = f"the final norm of model {arch.name!r}"
        final = norm_map(arch.final_norm, len(self.unembed), name)
        self.final = final._replace(gain=final.gain.to(arch.desk))

    @torch.no_grad()
    def __call__(self, directions: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows vocab"]:
        """The logits of directions, in float32."""
        return self.final(directions).float() @ self.unembed.float()
