"""The battery of head sets that someone names: each set ablated together, and each head alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tinyablation.files.hashes import digest
from tinyablation.heads import Head
from tinyablation.interventions.batteries import (
    BASELINE,
    EVERYTHING,
    Sample,
    Shard,
    Side,
    cut,
    require_head,
)
from tinyablation.interventions.interventions import AblateHeads, AblationMethod


@dataclass(frozen=True)
class ChosenSets:
    """These sets of heads, of one layer or several; and each of their heads alone.

    Whatever stands in several sets is measured once.
    """

    sets: tuple[tuple[Head, ...], ...]
    method: AblationMethod = "zero"
    side: Side = "clean"
    donor: Side | Literal[""] = ""
    sample: Sample = EVERYTHING

    @property
    def name(self) -> str:
        sets = [[list(head) for head in heads] for heads in self.ablated]
        return f"chosen-{digest([self.method, sets])[:12]}"

    @property
    def ablated(self) -> tuple[tuple[Head, ...], ...]:
        """What is ablated together, the smallest first, each in order of heads."""
        alone = {(head,) for heads in self.sets for head in heads}
        together = {tuple(sorted(set(heads))) for heads in self.sets}
        return tuple(sorted(alone | together, key=lambda heads: (len(heads), heads)))

    def shards(self, n_layers: int, n_heads: int) -> list[Shard]:
        for heads in self.ablated:
            for head in heads:
                require_head(head, n_layers, n_heads)
        ablations = [AblateHeads(heads, self.method) for heads in self.ablated]
        return [Shard(BASELINE, ()), *cut("sets", ablations)]
