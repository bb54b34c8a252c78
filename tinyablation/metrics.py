"""Figures read from next-token logits at a prompt's last token, always in float64."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

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
    """A batch of next-token distributions over one vocabulary, in nats."""

    log_probabilities: Float64[Tensor, "rows vocab"]
    probabilities: Float64[Tensor, "rows vocab"]
    entropy: Float64[Tensor, " rows"]


def distribution(logits: Float[Tensor, "rows vocab"]) -> Distribution:
    """Softmax in float64. In fp16, KL of two near distributions underflows to NaN or 0."""
    log_probabilities = torch.log_softmax(logits.double(), dim=-1)
    probabilities = log_probabilities.exp()
    entropy = -torch.linalg.vecdot(probabilities, log_probabilities)
    return Distribution(log_probabilities, probabilities, entropy)


def divergence(
    clean: Distribution, row: Int[Tensor, " rows"], ablated: Distribution
) -> Float64[Tensor, " rows"]:
    """KL(clean||ablated) in nats; ablated row i is compared with clean row row[i].

    Not below 0: rounding alone would give about -1e-16 for equal distributions.
    """
    difference = clean.log_probabilities[row] - ablated.log_probabilities
    return torch.linalg.vecdot(clean.probabilities[row], difference).clamp_min(0.0)


def figures(
    logits: Float[Tensor, "rows vocab"],
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
    wide = logits.double()
    target_logit = wide[row, targets]
    foil_logit = wide[row, foils]
    # Per row first, and in the logits' own dtype: comparisons need no widening.
    greater = (logits[row] > logits[row, targets].unsqueeze(-1)).sum(dim=-1)
    values = {
        "logit_diff": target_logit - foil_logit,
        "target_logit": target_logit,
        "foil_logit": foil_logit,
        "target_probability": ablated.probabilities[row, targets],
        "target_rank": greater,
        "argmax": logits.argmax(dim=-1)[row],
        "kl": kl[row],
        "entropy": ablated.entropy[row],
    }
    return {name: value.cpu().numpy() for name, value in values.items()}
