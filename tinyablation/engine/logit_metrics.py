"""Figures read from next-token logits at a prompt's last token, always in float64."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from tinyablation.engine.offload import desk_of

# Columns of the engine's table, in its order.
FLOAT_FIGURES = (
    "logit_diff",
    "target_logit",
    "foil_logit",
    "target_probability",
    "kl",
    "entropy",
)
INTEGER_FIGURES = ("target_rank", "argmax")


@dataclass(frozen=True)
class Distribution:
    """A batch of next-token distributions over one vocabulary, in nats.

    Stored as logits minus each row's largest (0 or less) and the logarithm of the sum of their
    exponentials: log p = shifted - log_sum. No other array over the vocabulary is kept, because
    with 50,000 tokens these passes take a tenth of a sweep's time.
    """

    logits: Float[Tensor, "rows vocab"]
    shifted: Float64[Tensor, "rows vocab"]
    log_sum: Float64[Tensor, " rows"]
    entropy: Float64[Tensor, " rows"]

    def probabilities(self) -> Float64[Tensor, "rows vocab"]:
        """Every token's probability."""
        return (self.shifted - self.log_sum.unsqueeze(-1)).exp_()


def distribution(logits: Float[Tensor, "rows vocab"]) -> Distribution:
    """Softmax in float64; in fp16, the KL of two similar distributions underflows to NaN or 0.

    On the logits' device, or on the CPU if that has no float64 (MPS). A logit that is not finite
    makes its row's entropy NaN.
    """
    logits = logits.to(desk_of(logits.device))
    shifted = logits.double().sub_(logits.amax(dim=-1, keepdim=True))
    exponentials = shifted.exp()
    total = exponentials.sum(dim=-1)
    log_sum = total.log()
    entropy = log_sum - exponentials.mul_(shifted).sum(dim=-1) / total
    return Distribution(logits, shifted, log_sum, entropy)


def divergence(
    clean_probabilities: Float64[Tensor, "rows vocab"],
    clean_entropy: Float64[Tensor, " rows"],
    ablated: Distribution,
) -> Float64[Tensor, " rows"]:
    """KL(clean||ablated) in nats, row by row.

    Clipped at 0, because rounding (some 1e-15) could make it negative for equal distributions.
    """
    cross = ablated.log_sum - torch.linalg.vecdot(clean_probabilities, ablated.shifted)
    return (cross - clean_entropy).clamp_min(0.0)


def figures(
    ablated: Distribution,
    kl: Float64[Tensor, " rows"],
    row: Int[Tensor, " examples"],
    targets: Int[Tensor, " examples"],
    foils: Int[Tensor, " examples"],
) -> dict[str, np.ndarray]:
    """All figures per example, [examples] each: example i reads row row[i].

    logit_diff = target_logit - foil_logit; target_rank counts the tokens with a strictly greater
    logit (0 = top, ties do not push the target down); kl and entropy are in nats.
    """
    logits = ablated.logits
    target = logits[row, targets]
    target_logit, foil_logit = target.double(), logits[row, foils].double()
    values = {
        "logit_diff": target_logit - foil_logit,
        "target_logit": target_logit,
        "foil_logit": foil_logit,
        "target_probability": (ablated.shifted[row, targets] - ablated.log_sum[row]).exp(),
        # Compared in the logits' own dtype, which needs no conversion.
        "target_rank": (logits[row] > target.unsqueeze(-1)).sum(dim=-1),
        "argmax": logits.argmax(dim=-1)[row],
        "kl": kl[row],
        "entropy": ablated.entropy[row],
    }
    return {name: value.cpu().numpy() for name, value in values.items()}
