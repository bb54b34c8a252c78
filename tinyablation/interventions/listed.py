"""A battery of interventions that are listed one by one, and those that have a name of their own.

Named: all pairs or triples of a layer's heads, all subsets of some heads, patches in either
direction, and paths of one head. They are measured by `measure`; claims ask for them directly.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal

from tinyablation.files.hashes import digest
from tinyablation.heads import Head
from tinyablation.interventions.batteries import (
    BASELINE,
    BATTERIES,
    EVERYTHING,
    ONE_WORDING,
    AnyBattery,
    BatteryError,
    OneHead,
    Patching,
    Paths,
    Sample,
    Shard,
    Side,
    battery,
    cut,
    require_head,
)
from tinyablation.interventions.head_sets import Subsets
from tinyablation.interventions.interventions import (
    AblateHeads,
    AblationMethod,
    Intervention,
    PatchPath,
)
from tinyablation.spelling import did_you_mean

# Batteries of heads that are named by options, and those that are not.
OF_A_LAYER = {"pairs": 2, "triples": 3}
OF_HEADS = ("sets", "head", "path")
PATCHES = ("patch-forward", "patch-reverse")
NAMES = (*BATTERIES, *OF_A_LAYER, *OF_HEADS, *PATCHES)


@dataclass(frozen=True)
class Listed:
    """These interventions, in this order.

    kind: the first part of its name; a hash of the interventions is the other.
    """

    kind: str
    interventions: tuple[Intervention, ...]
    side: Side = "clean"
    donor: Side | Literal[""] = ""
    sample: Sample = ONE_WORDING

    @property
    def name(self) -> str:
        labels = [each.label for each in self.interventions]
        return f"{self.kind}-{digest(labels)[:8]}"

    def fitting(self, n_layers: int, n_heads: int) -> Listed:
        """The same battery without what a model of that shape has no layer or head for."""

        def fits(each: Intervention) -> bool:
            try:
                self._require_fit(each, n_layers, n_heads)
            except BatteryError:
                return False
            return True

        return replace(self, interventions=tuple(filter(fits, self.interventions)))

    def shards(self, n_layers: int, n_heads: int) -> list[Shard]:
        for each in self.interventions:
            self._require_fit(each, n_layers, n_heads)
        return [Shard(BASELINE, ()), *cut("part", self.interventions)]

    def _require_fit(self, each: Intervention, n_layers: int, n_heads: int) -> None:
        for head in getattr(each, "heads", ()):
            require_head(head, n_layers, n_heads)
        # The stream of layer n_layers is what enters the final norm: only paths may lead there.
        if getattr(each, "layer", 0) >= n_layers + isinstance(each, PatchPath):
            raise BatteryError(f"{each.label}: the model has layers 0 to {n_layers - 1}")


def chosen_sets(
    sets: Iterable[Sequence[Head]], method: AblationMethod = "zero", *, sample: Sample = EVERYTHING
) -> Listed:
    """These sets of heads, of one layer or several, and each of their heads alone.

    The smallest come first; whatever stands in several sets is measured once.
    """
    together = {tuple(sorted(set(heads))) for heads in sets}
    alone = {(head,) for heads in together for head in heads}
    ordered = sorted(alone | together, key=lambda heads: (len(heads), heads))
    return Listed("chosen", tuple(AblateHeads(each, method) for each in ordered), sample=sample)


def require_options(name: str, layer: int | None, heads: Sequence[Head]) -> None:
    """Raise BatteryError for an unknown name, and if an option is missing or superfluous."""
    if name not in NAMES:
        raise BatteryError(f"no battery {name!r}; {did_you_mean(name, NAMES)}")
    for option, given, needed in (
        ("--layer", layer is not None, name in OF_A_LAYER),
        ("--heads", bool(heads), name in OF_HEADS),
    ):
        if given != needed:
            verb = "needs" if needed else "has no use for"
            raise BatteryError(f"battery {name!r} {verb} {option}")
    if name in OF_HEADS[1:] and len(set(heads)) > 1:
        raise BatteryError(f"battery {name!r} is of one head, not of {len(set(heads))}")


def named(
    name: str, n_layers: int, n_heads: int, *, layer: int | None = None, heads: Sequence[Head] = ()
) -> AnyBattery:
    """The battery of a name in NAMES for a model of that shape.

    layer: of "pairs" and "triples", whose sets are all those of its heads. heads: of "sets", all
    of whose subsets are ablated, and of "head" and "path", one each. Raises BatteryError if one is
    missing or superfluous, if the model has no such layer or head, and for an unknown name.
    """
    require_options(name, layer, heads)
    if layer is not None:
        require_head(Head(layer, 0), n_layers, n_heads)
        own = [Head(layer, head) for head in range(n_heads)]
        sets = combinations(own, OF_A_LAYER[name])
        return Listed(f"{name}-L{layer:02d}", tuple(AblateHeads(each) for each in sets))
    if name in PATCHES:
        return Patching("forward" if name == PATCHES[0] else "reverse")
    if not heads:
        return battery(name)
    if name == "sets":
        return Subsets(tuple(sorted(set(heads))))
    return OneHead(heads[0]) if name == "head" else Paths(heads[0])
