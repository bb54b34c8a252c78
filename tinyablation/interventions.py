"""What is done to a model: frozen, hashable descriptions, with no model and no torch in them."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from tinyablation.errors import TinyAblationError

Head = tuple[int, int]
AblationMethod = Literal["zero", "zero_folded", "mean", "resample"]
METHODS: tuple[str, ...] = get_args(AblationMethod)


class InterventionError(TinyAblationError):
    """The intervention is not well formed: nothing could be measured by that name."""


@dataclass(frozen=True)
class AblateHeads:
    """Replace the output z_h of attention heads (before the output projection) at all positions.

    heads: (layer, head) pairs, sorted and distinct, so that equal interventions compare equal.
    method: what z_h becomes.
      zero         nothing, z_h = 0;
      zero_folded  nothing but what the head always adds because of biases: the z_h that a constant
                   value input, the bias of the layer's first norm, gives. It is what zeroing means
                   once LayerNorm is folded into the weights. Same as zero in a model without
                   biases;
      mean         the mean of z_h over the real tokens of the reference prompts;
      resample     the z_h of one other reference prompt (the donor), drawn by the seed.
    """

    heads: tuple[Head, ...]
    method: AblationMethod = "zero"

    def __post_init__(self) -> None:
        _check_heads(self.heads)
        if self.method not in METHODS:
            raise InterventionError(
                f"unknown ablation method {self.method!r}; choose one of {', '.join(METHODS)}"
            )

    @property
    def label(self) -> str:
        """Name in tables, such as "zero:0.2+0.4" (layer.head)."""
        return f"{self.method}:{heads_label(self.heads)}"


@dataclass(frozen=True)
class ScaleHeads:
    """Multiply the output z_h of attention heads by `scale`; 1.0 is the identity, 0.0 is zero."""

    heads: tuple[Head, ...]
    scale: float

    def __post_init__(self) -> None:
        _check_heads(self.heads)
        if isinstance(self.scale, bool) or not isinstance(self.scale, int | float):
            raise InterventionError(f"scale must be a number, got {self.scale!r}")
        if not math.isfinite(self.scale):
            raise InterventionError(f"scale must be finite, got {self.scale!r}")
        # 0.0 and -0.0, 1 and 1.0 are equal but print differently: one label each.
        object.__setattr__(self, "scale", float(self.scale) + 0.0)

    @property
    def label(self) -> str:
        """Name in tables, such as "scale0.5:1.3" (layer.head)."""
        return f"scale{self.scale!r}:{heads_label(self.heads)}"


Intervention = AblateHeads | ScaleHeads


def heads_label(heads: tuple[Head, ...]) -> str:
    """Heads as tables write them: "0.2+0.4"."""
    return "+".join(f"{layer}.{head}" for layer, head in heads)


def _check_heads(heads: object) -> None:
    if not isinstance(heads, tuple) or not heads:
        raise InterventionError(f"heads must be a non-empty tuple of (layer, head), got {heads!r}")
    for head in heads:
        if (
            not isinstance(head, tuple)
            or len(head) != 2
            or not all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in head)
        ):
            raise InterventionError(f"{head!r} is no head; write (layer, head), both from 0")
    if list(heads) != sorted(set(heads)):
        raise InterventionError(f"heads must be sorted and distinct, got {heads!r}")
