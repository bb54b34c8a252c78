"""Batteries: which interventions a hypothesis needs, cut into shards that can be computed alone.

A shard is the unit of work that survives a kill, so it should take seconds to minutes: one layer,
by all methods. Methods go together because each shard needs a clean pass of its own, and because
ablations that are the same by arithmetic are then measured once. For GPT-2 medium (24 layers of 16
heads) battery "single-heads" is 1 + 24 shards of 64 interventions, 1,536 in all, and "h1", whose
claims are about layer 0, 432.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Literal

from tinyablation.errors import TinyAblationError
from tinyablation.interventions import AblateHeads, AblationMethod, Intervention

BASELINE = "baseline"


class BatteryError(TinyAblationError):
    """A battery that does not exist, or a model shape it cannot be laid over."""


@dataclass(frozen=True)
class Shard:
    """Interventions measured together. `key` is unique within a battery and fit for a file name."""

    key: str
    interventions: tuple[Intervention, ...]


def single_heads(n_layers: int, n_heads: int) -> tuple[tuple[int, int], ...]:
    """Every (layer, head), layer by layer: n_layers * n_heads pairs."""
    if n_layers < 1 or n_heads < 1:
        raise BatteryError(f"a model of {n_layers} layers x {n_heads} heads has no head to ablate")
    return tuple((layer, head) for layer in range(n_layers) for head in range(n_heads))


@dataclass(frozen=True)
class Battery:
    """A named set of interventions.

    Every head alone is ablated by each of `methods`, those of layer 0 by each of `first_layer` too.
    `side` is the prompt of each example that is measured: "clean", "corrupt" or "null".
    """

    name: str
    methods: tuple[AblationMethod, ...]
    describe: str
    side: Literal["clean", "corrupt", "null"] = "clean"
    first_layer: tuple[AblationMethod, ...] = ()

    def shards(self, n_layers: int, n_heads: int) -> list[Shard]:
        """The baseline shard (no interventions), then one per layer: "L00", "L01", ..."""
        heads = single_heads(n_layers, n_heads)
        shards = [Shard(BASELINE, ())]
        for layer in range(n_layers if self.methods else 0):
            ablations = tuple(
                AblateHeads(heads=(head,), method=method)
                for method in (*self.methods, *(self.first_layer if layer == 0 else ()))
                for head in heads
                if head[0] == layer
            )
            shards.append(Shard(f"L{layer:02d}", ablations))
        return shards


BATTERIES: dict[str, Battery] = {
    battery.name: battery
    for battery in (
        Battery(BASELINE, (), "the unhooked model alone: what it knows, by condition"),
        Battery("corrupt", (), "the unhooked model on the corrupt prompts", side="corrupt"),
        Battery("null", (), "the unhooked model on prompts about nothing", side="null"),
        Battery("zero", ("zero",), "every single head of every layer, zeroed"),
        Battery(
            "h1",
            ("zero",),
            "every single head of every layer, zeroed; those of layer 0 in three other ways too",
            first_layer=("zero_folded", "mean", "resample"),
        ),
        Battery(
            "single-heads",
            ("zero", "zero_folded", "mean", "resample"),
            "every single head of every layer, ablated in four ways",
        ),
    )
}


def battery(name: str) -> Battery:
    """The battery of that name; BatteryError names the nearest known one."""
    if name in BATTERIES:
        return BATTERIES[name]
    near = difflib.get_close_matches(name, BATTERIES, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise BatteryError(f"no battery {name!r}: {hint}known are {', '.join(BATTERIES)}")
