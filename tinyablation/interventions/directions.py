"""Directions that a stream is steered along: a head's own, and random ones as controls."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tinyablation.errors import TinyAblationError
from tinyablation.statistics.intervals import generator

Floats = NDArray[np.float64]
OV = "ov"
# Random directions of the same length. One alone would leave the verdict to the luck of its draw;
# three make 24 interventions a condition, a sixteenth of what a sweep of GPT-2 medium has.
CONTROLS = ("random-1", "random-2", "random-3")


class SteeringError(TinyAblationError):
    """Steering that cannot be measured or summarised; the message says which."""


def control_directions(
    direction: Floats, seed: int, purpose: str, names: Sequence[str] = CONTROLS
) -> dict[str, Floats]:
    """Random directions by name, [d_model] each, isotropic and as long as `direction` [d_model]."""
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
