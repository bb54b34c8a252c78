"""From the last residual stream to logits: final norm and unembedding, in float32 at least.

A logit of 20 is rounded to .125 in bfloat16 and to .016 in float16, but claims are about effects of
.1 to .5. So for a model in half precision the last-token logits are computed in float32 from the
same weights; only the rounding within its layers remains.
"""

from types import MethodType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from tinyablation.engine.offload import at_hand, home, replaced

HALF = (torch.float16, torch.bfloat16)
# The unembedding is converted in pieces of 64 MB in float32; Llama 3's whole one would take 2 GB.
WIDENED_NUMBERS = 2**24
# On a CPU it is also multiplied in pieces: 8 MB of a matrix of 154 MB stay in the cache while they
# are multiplied by 300 rows, which takes two thirds of the time.
CACHED_NUMBERS = 2**21


def widened(values: Tensor) -> Tensor:
    """The values in float32 if they are in half precision, else unchanged."""
    return values.float() if values.dtype in HALF else values


class Unembedding:
    """The final norm and the unembedding of one model."""

    def __init__(self, norm: nn.Module, unembed: nn.Module) -> None:
        self.norm = norm
        self.unembed = unembed
        # The usual case: modules without submodules, the second a plain Linear.
        self.is_matrix = type(unembed).forward is nn.Linear.forward
        self.widens = (
            not any(True for _ in norm.children())
            and self.is_matrix
            and unembed.weight.dtype in HALF
        )

    def own(self, hidden: Float[Tensor, "rows d_model"]) -> Float[Tensor, "rows vocab"]:
        """Logits as the model itself computes them, rounded to its dtype."""
        rows = self.norm(hidden)
        matrix: Any = self.unembed.weight
        whole = not self.is_matrix or matrix.is_meta or rows.requires_grad
        if whole or rows.device.type != "cpu":
            logits: Tensor = self.unembed(rows)
            return logits
        bias: Any = self.unembed.bias
        return _by_pieces(rows, matrix, bias, CACHED_NUMBERS)

    def __call__(self, hidden: Float[Tensor, "rows d_model"]) -> Float[Tensor, "rows vocab"]:
        """Logits in float32 for a model in half precision, else as the model computes them.

        They are on the unembedding's device, and still in half precision if the norm or the
        unembedding is not a plain norm or matrix.
        """
        if not self.widens:
            return self.own(hidden)
        with at_hand(self.unembed):
            matrix: Any = self.unembed.weight
            bias: Any = self.unembed.bias
        return _by_pieces(self.normed(hidden).to(matrix.device), matrix, bias, WIDENED_NUMBERS)

    def normed(self, hidden: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows d_model"]:
        """What the unembedding multiplies: the final norm's output, in float32 as in a call."""
        norm = self.norm
        if not self.widens:
            rows: Tensor = norm(hidden)
            return rows
        with at_hand(norm):
            weights = {name: widened(value.detach()) for name, value in norm.named_parameters()}
            place = home(norm, self.unembed)
        with replaced(norm, MethodType(type(norm).forward, norm)):
            return functional_call(norm, weights, (widened(hidden).to(place),))


def _by_pieces(
    rows: Float[Tensor, "rows d_model"],
    matrix: Float[Tensor, "vocab d_model"],
    bias: Float[Tensor, " vocab"] | None,
    numbers: int,
) -> Float[Tensor, "rows vocab"]:
    """rows @ matrix.T + bias in the rows' dtype, in pieces of the matrix of a limited size."""
    logits = rows.new_empty(len(rows), len(matrix))
    size = max(1, numbers // matrix.shape[1])
    for begin in range(0, len(matrix), size):
        part = matrix[begin : begin + size]
        logits[:, begin : begin + size] = rows @ part.to(rows.dtype).T
    return logits if bias is None else logits.add_(bias)
