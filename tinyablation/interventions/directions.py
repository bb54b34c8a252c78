"""Steering directions of the residual stream: a head's own, and random ones as controls."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tinyablation.errors import TinyAblationError
from tinyablation.statistics.intervals import generator

Floats = NDArray[np.float64]
OV = "ov"
# Random directions of the same norm. With a single one the verdict would depend on its draw; three
# make 24 interventions per condition, a sixteenth of a sweep of GPT-2 medium.
CONTROLS = ("random-1", "random-2", "random-3")


class SteeringError(TinyAblationError):
    """Steering cannot be measured or summarised; the message says which."""


def control_directions(
    direction: Floats, seed: int, purpose: str, names: Sequence[str] = CONTROLS
) -> dict[str, Floats]:
    """Random isotropic directions by name, each [d_model] and with the norm of `direction`."""
    length = float(np.linalg.norm(direction))
    if direction.ndim != 1 or not np.isfinite(length) or length == 0:
        raise SteeringError(
            f"a direction of shape {direction.shape} and length {length} has no control"
        )
    found = {}
    for name in names:
        drawn = generator(seed, f"{purpose} {name}").standard_normal(len(direction))
        found[name] = np.asarray(drawn * (length / np.linalg.norm(drawn)))
    return found
