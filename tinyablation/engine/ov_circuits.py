"""OV circuits of attention heads.

Their inputs pass through the linear part of the layer's first norm, and their outputs are read
through that of the final norm (readout.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor, nn

from tinyablation.engine.architecture import HIDDEN, Architecture, Calls, hooked
from tinyablation.engine.offload import exact, weight_of
from tinyablation.engine.prompt_checks import EngineError
from tinyablation.engine.readout import Readout, linear_tolerance, norm_map
from tinyablation.heads import Head

if TYPE_CHECKING:
    from tinyablation.engine.engine import Engine

# Numbers in the one-token rows sent through an attention module at once: 64 MB in float32.
ROW_NUMBERS = 2**24


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
