"""What interventions of every kind are made of: places, columns of tables, and checked fields."""

import math
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple

from tinyablation.errors import TinyAblationError
from tinyablation.heads import Head


class InterventionError(TinyAblationError):
    """The intervention is not well formed, so it cannot be measured."""


class Part(IntEnum):
    """The part of a layer that is changed, in the order of a forward pass."""

    STREAM = 0  # the residual stream that enters the layer
    ATTENTION = 1  # its heads' z, or the attention's output
    MLP = 2  # the MLP's output


class Site(NamedTuple):
    """A place in the model. The stream of layer n_layers is what enters the final norm."""

    layer: int
    part: Part


class ActivationSource(NamedTuple):
    """Where activations come from: the donor and positions.

    donor: "" for none, "resample", "template_mean", or a Donor.
    """

    donor: str = ""
    positions: str = ""


OWN = ActivationSource()  # no donor


class Columns(NamedTuple):
    """The columns that describe an intervention in tables; tables.COLUMNS explains them."""

    method: str
    granularity: str
    heads: tuple[Head, ...] = ()
    layer: int = -1
    head: int = -1
    scale: float = 0.0
    window: int = 0
    positions: str = "all"
    donor: str = ""


BASELINE_COLUMNS = Columns("none", "", scale=1.0, positions="")


class Change:
    """Defaults of most kinds: no donor, and no simpler equal intervention."""

    @property
    def source(self) -> ActivationSource:
        return ActivationSource()

    def plain(self, n_layers: int) -> Any:
        """The simplest equal intervention, None for the baseline; typed where the kinds are."""
        return self


@dataclass(frozen=True)
class HeadChange(Change):
    heads: tuple[Head, ...]

    def __post_init__(self) -> None:
        check_heads(self.heads)

    def sites(self, n_layers: int) -> tuple[Site, ...]:
        layers = sorted({layer for layer, _ in self.heads})
        return tuple(Site(layer, Part.ATTENTION) for layer in layers)


def single(heads: tuple[Head, ...]) -> Head:
    return heads[0] if len(heads) == 1 else Head(-1, -1)


def is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def check_count(name: str, value: object) -> None:
    if not is_count(value):
        raise InterventionError(f"{name} must be a whole number from 0, got {value!r}")


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InterventionError(f"unknown {name} {value!r}; choose one of {', '.join(choices)}")


def number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InterventionError(f"{name} must be a number, got {value!r}")
    if not math.isfinite(value):
        raise InterventionError(f"{name} must be finite, got {value!r}")
    # 0.0 and -0.0, 1 and 1.0 are equal but print differently: map each pair to one label.
    return float(value) + 0.0


def check_heads(heads: object) -> None:
    if not isinstance(heads, tuple) or not heads:
        raise InterventionError(f"heads must be a non-empty tuple of (layer, head), got {heads!r}")
    for head in heads:
        if not isinstance(head, tuple) or len(head) != 2 or not all(map(is_count, head)):
            raise InterventionError(f"{head!r} is not a head; write (layer, head), both from 0")
    if list(heads) != sorted(set(heads)):
        raise InterventionError(f"heads must be sorted and distinct, got {heads!r}")
