"""OV circuits of attention heads, and directions of the residual stream read as token logits.

A direction is read through the LINEAR part of the final norm (for LayerNorm: subtract the mean,
then multiply by the gain; for RMSNorm: multiply by the gain), then the unembedding. The norm's
division by the stream's scale, its bias and the unembedding's are left out, because they scale or
shift all directions alike. Inputs of an OV circuit pass through the linear part of the layer's
first norm in the same way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from tinyablation.engine.architecture import HIDDEN, Architecture, Calls, hooked
from tinyablation.engine.offload import exact, home, weight_of
from tinyablation.engine.prompt_checks import EngineError
from tinyablation.heads import Head

if TYPE_CHECKING:
    from tinyablation.engine.engine import Engine

# Numbers in the one-token rows sent through an attention module at once: 64 MB in float32.
ROW_NUMBERS = 2**24
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


class Circuits(NamedTuple):
    """The OV circuits of one layer's heads, from the normed stream to the stream.

    direction: the leading right singular vector of (linear part of the first norm) W_V W_O, times
    its singular value; copying: sum(Re lambda) / sum|lambda| of the eigenvalues lambda of the full
    circuit W_E W_V W_O W_U, both norms' linear parts included; 1: it only copies (Elhage et al.
    2021, "A Mathematical Framework for Transformer Circuits", on copying heads).
    """

    direction: Float64[Tensor, "n_heads d_model"]
    singular_value: Float64[Tensor, " n_heads"]
    copying: Float64[Tensor, " n_heads"]


def head_columns(arch: Architecture, layer: int) -> list[slice]:
    """The columns of each head of a layer in the output projection's input."""
    return arch.columns(layer, tuple(Head(layer, head) for head in range(arch.n_heads)))


def value_matrices(arch: Architecture) -> list[Float64[Tensor, "d_model width"]]:
    """W_V of every layer (see value_matrix)."""
    calls = one_token_calls(arch)
    return [value_matrix(arch, calls, layer) for layer in range(len(arch.layers))]


@torch.no_grad()
def one_token_calls(arch: Architecture) -> Calls:
    """The calls of every layer in a pass over one token, at position 0; they fit rows of one."""
    return arch.record(torch.zeros(1, 1, dtype=torch.long, device=arch.device))[0]


@torch.no_grad()
def value_matrix(arch: Architecture, calls: Calls, layer: int) -> Float64[Tensor, "d_model width"]:
    """W_V of a layer, its heads' columns side by side as in the output projection's input.

    This works for any architecture: for a single token attention weights are 1, so the projection's
    input is exactly x W_V + b_V, with grouped values repeated and independent of positions; rows of
    the identity minus a row of zeros give W_V. x is the stream after the layer's first norm. The
    matrix is on the architecture's desk, wherever its layer is. calls: one_token_calls. Raises
    EngineError if the module is not linear (attention sinks, or weights that are not 1).
    """
    modules = arch.layers[layer]
    kept: list[Tensor] = []

    def keep(_: nn.Module, args: Any) -> None:
        kept.append(exact(args[0][:, -1]).to(arch.desk))

    weight = arch.output_matrix(layer, slice(None))
    d_model = weight.shape[1]
    identity = torch.eye(d_model, dtype=weight.dtype, device=weight.device)
    probe = identity.mean(dim=0, keepdim=True)
    call = calls.attentions[layer]
    rows = torch.cat([torch.zeros_like(probe), d_model**0.5 * probe, identity])
    with hooked(modules.output.register_forward_pre_hook(keep)):
        for part in rows.split(max(1, ROW_NUMBERS // d_model)):
            modules.attention(*call.args, **{HIDDEN: part[:, None], **call.kwargs})
    z = torch.cat(kept)
    values = z[2:] - z[0]
    expected = d_model**0.5 * values.mean(dim=0)
    scale = max(expected.abs().max().item(), values.abs().max().item(), z[0].abs().max().item())
    allowed = linear_tolerance(arch.model.dtype) * scale
    if not (z[1] - z[0] - expected).abs().max().item() <= allowed:
        raise EngineError(
            f"model {arch.name!r}, layer {layer}: over one token its attention is not "
            "linear in its input, so W_V cannot be read off it"
        )
    return values


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


@torch.no_grad()
def ov_circuits(engine: Engine) -> list[Circuits]:
    """The static OV circuits of every layer's heads. The sign of a direction is arbitrary.

    Both figures come from d_head x d_head matrices: the SVD through QR of both factors, the
    eigenvalues through cyclic permutation (those of AB are those of BA, and zeros).
    """
    arch = engine.architecture
    d_model = engine.loaded.facts.d_model
    readout = Readout(arch)
    embed: Any = engine.loaded.model.get_input_embeddings()
    round_trip = (readout.unembed @ weight_of(embed).to(arch.desk)).double()  # W_U W_E
    values = value_matrices(arch)
    found = []
    for layer, modules in enumerate(arch.layers):
        name = f"the first norm of layer {layer} of model {arch.name!r}"
        first = norm_map(modules.norm, d_model, name)
        linear = first(torch.eye(d_model, device=first.gain.device)).to(arch.desk)
        parts = []
        for own in head_columns(arch, layer):
            w_v = linear @ values[layer][:, own]
            w_o = exact(arch.output_matrix(layer, own)).to(arch.desk)
            _, r_v = torch.linalg.qr(w_v)
            q_o, r_o = torch.linalg.qr(w_o.T)
            _, sizes, right = torch.linalg.svd(r_v @ r_o.T)
            eigenvalues = torch.linalg.eigvals(readout.final(w_o) @ round_trip @ w_v)
            total = eigenvalues.abs().sum()
            if not sizes[0] > 0 or not total > 0:
                raise EngineError(
                    f"model {arch.name!r}: head {layer}:{own.start // arch.d_head} writes nothing; "
                    "its OV circuit is zero"
                )
            copying = eigenvalues.real.sum() / total
            parts.append((sizes[0] * (q_o @ right[0]), sizes[0], copying))
        found.append(Circuits(*(torch.stack(column) for column in zip(*parts, strict=True))))
    return found
