"""Batteries of heads ablated together: all sets of a layer, subsets of a few heads, one trio."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from math import comb
from typing import Literal

from tinyablation.corpora.examples import CONFIRMATION
from tinyablation.files.hashes import digest
from tinyablation.heads import Head, head_name, heads_label
from tinyablation.interventions.batteries import (
    BASELINE,
    SOME,
    BatteryError,
    Sample,
    Shard,
    Side,
    all_but,
    cut,
    require_head,
)
from tinyablation.interventions.copy_suppression import KEPT_SHARE, KeepCopySuppression
from tinyablation.interventions.interventions import (
    AblateHeads,
    AblationMethod,
    KeepHeads,
    PatchPath,
)

# More triples than this are sampled: C(16, 3), all triples of a layer of GPT-2 medium. For a layer
# of 32 heads (Llama, Mistral) that is 560 of 4,960.
MOST_TRIPLES = 560
CONFIRMING = Sample(split=CONFIRMATION)
CONFIRMING_ONE_EACH = Sample(split=CONFIRMATION, per_cluster=1)


@dataclass(frozen=True)
class HeadSets:
    """H5: the single heads, pairs and triples of one layer, ablated together.

    All of them if the layer has at most MOST_TRIPLES triples; else all pairs, and triples drawn by
    the seed, including `trio`. `trio`, which may be a pair or empty, is then part of the name.
    """

    layer: int
    trio: tuple[Head, ...]
    n_heads: int
    method: AblationMethod = "zero"
    seed: int = 0
    side: Side = "clean"
    donor: Side | Literal[""] = ""
    # No head is chosen from this battery: the sets are named beforehand, rivals by single heads.
    sample: Sample = CONFIRMING_ONE_EACH

    @property
    def is_exact(self) -> bool:
        """Whether every triple of the layer is measured."""
        return comb(self.n_heads, 3) <= MOST_TRIPLES

    @property
    def name(self) -> str:
        named = () if self.is_exact else sorted(self.trio)
        heads = "-" + "_".join(f"{a}.{b}" for a, b in named) if named else ""
        folded = "" if self.method == "zero" else f"-{self.method}"
        return f"h5-L{self.layer:02d}{heads}{folded}"

    def sets(self) -> list[tuple[Head, ...]]:
        """The head sets, smallest first, each in order of heads."""
        heads = [Head(self.layer, head) for head in range(self.n_heads)]
        if any(head not in heads for head in self.trio):
            raise BatteryError(
                f"the trio {' '.join(map(head_name, self.trio))} is not within the {self.n_heads} "
                f"heads of layer {self.layer}"
            )
        triples = list(combinations(heads, 3))
        if not self.is_exact:
            from tinyablation.statistics.intervals import generator

            own = [triple for triple in triples if set(triple) == set(self.trio)]
            others = [triple for triple in triples if triple not in own]
            rng = generator(self.seed, f"triples of layer {self.layer}")
            drawn = sorted(rng.choice(len(others), MOST_TRIPLES, replace=False).tolist())
            triples = sorted([others[index] for index in drawn] + own)
        return [*((head,) for head in heads), *combinations(heads, 2), *triples]

    def shards(self, n_layers: int, n_heads: int) -> list[Shard]:
        if n_heads != self.n_heads or self.layer >= n_layers:
            raise BatteryError(
                f"sets of layer {self.layer} of {self.n_heads} heads do not fit a model of "
                f"{n_layers} layers x {n_heads} heads"
            )
        ablations = [AblateHeads(heads=heads, method=self.method) for heads in self.sets()]
        return [Shard(BASELINE, ()), *cut("sets", ablations)]


@dataclass(frozen=True)
class Subsets:
    """All non-empty subsets of a few named heads of one layer.

    Measured on every example of the confirmation split, because claims about these heads are judged
    on it; the other sets of the layer (HeadSets) serve only as a comparison.
    """

    heads: tuple[Head, ...]
    method: AblationMethod = "zero"
    side: Side = "clean"
    donor: Side | Literal[""] = ""
    sample: Sample = CONFIRMING

    @property
    def name(self) -> str:
        folded = "" if self.method == "zero" else f"-{self.method}"
        return "sets-" + "_".join(f"{a}.{b}" for a, b in sorted(self.heads)) + folded

    def shards(self, n_layers: int, n_heads: int) -> list[Shard]:
        for head in self.heads:
            require_head(head, n_layers, n_heads)
        ablations = [
            AblateHeads(heads, self.method)
            for size in range(1, len(self.heads) + 1)
            for heads in combinations(sorted(self.heads), size)
        ]
        return [Shard(BASELINE, ()), Shard("sets", tuple(ablations))]


@dataclass(frozen=True)
class Circuit:
    """A circuit: its heads knocked out, the circuit alone, and both without some of its heads.

    The faithfulness and completeness of Wang et al. 2022 (arXiv:2211.00593, sections 3.5 and 4):
    with M the model and C the circuit, M is compared with C alone (every other head ablated), and
    for every K of `parts` (sets of C's heads) M without K with C without K.

    donor: whose prompts template_mean averages over, "corrupt" (aligned pairs alone are measured)
    or "" for the measured side. They should differ in their content: on a corpus of mirrored pairs
    the corrupt prompts are the clean ones, unless sample.pairs is "unknown".
    """

    heads: tuple[Head, ...]
    parts: tuple[tuple[Head, ...], ...] = ()
    method: AblationMethod = "template_mean"
    side: Side = "clean"
    donor: Side | Literal[""] = "corrupt"
    sample: Sample = SOME

    @property
    def name(self) -> str:
        heads = digest([sorted(self.heads), [sorted(part) for part in self.parts]])[:8]
        pairs = "" if self.sample.pairs == "own" else f"-{self.sample.pairs}"
        return f"circuit-{heads}-{self.method}-{self.donor or self.side}{pairs}"

    def without(self, part: tuple[Head, ...] = ()) -> AblateHeads:
        """M without the heads of a part of the circuit (default: all of them)."""
        return AblateHeads(tuple(sorted(set(part or self.heads))), self.method)

    def alone(self, n_layers: int, n_heads: int, without: tuple[Head, ...] = ()) -> KeepHeads:
        """C without the heads of a part of it (default: none)."""
        if not set(without) < set(self.heads):
            raise BatteryError(
                f"{heads_label(without)} is not a part of the circuit {heads_label(self.heads)}"
            )
        return all_but(sorted({*self.heads} - {*without}), n_layers, n_heads, self.method)

    def shards(self, n_layers: int, n_heads: int) -> list[Shard]:
        whole = [self.without(), self.alone(n_layers, n_heads)]
        parts = [
            each
            for part in self.parts
            for each in (self.without(part), self.alone(n_layers, n_heads, part))
        ]
        return [Shard(BASELINE, ()), *cut("circuit", list(dict.fromkeys([*whole, *parts])))]


@dataclass(frozen=True)
class CopySuppressors:
    """Single heads, each by mean ablation, and by the one that leaves its copy suppression.

    Both as a whole and of the head's direct effect alone (McDougall et al. 2023,
    arXiv:2310.04625). The mean is over the prompts of the corpus.
    """

    heads: tuple[Head, ...]
    share: float = KEPT_SHARE
    side: Side = "clean"
    donor: Side | Literal[""] = ""
    sample: Sample = SOME

    @property
    def name(self) -> str:
        heads = "_".join(f"{layer}.{head}" for layer, head in sorted(self.heads))
        return f"copy-suppression{self.share:g}-{heads}"

    def kept(self, head: Head, *, direct: bool = False) -> KeepCopySuppression:
        """The head ablated but for its copy suppression."""
        return KeepCopySuppression((head,), self.share, direct)

    def ablated(
        self, head: Head, n_layers: int, *, direct: bool = False
    ) -> AblateHeads | PatchPath:
        """The head ablated as a whole."""
        return PatchPath((head,), n_layers, "mean") if direct else AblateHeads((head,), "mean")

    def shards(self, n_layers: int, n_heads: int) -> list[Shard]:
        for head in self.heads:
            require_head(head, n_layers, n_heads)
        ways = [
            each
            for head in sorted(self.heads)
            for direct in (False, True)
            for each in (
                self.ablated(head, n_layers, direct=direct),
                self.kept(head, direct=direct),
            )
        ]
        return [Shard(BASELINE, ()), *cut("heads", ways)]


@dataclass(frozen=True)
class TrioZeroed:
    """Three heads zeroed together, on both splits: one is fitted on, the other is judged."""

    trio: tuple[Head, ...]
    side: Side = "clean"
    donor: Side | Literal[""] = ""
    sample: Sample = SOME

    @property
    def ablation(self) -> AblateHeads:
        return AblateHeads(tuple(sorted(self.trio)))

    @property
    def name(self) -> str:
        return "trio-" + "_".join(f"{layer}.{head}" for layer, head in self.ablation.heads)

    def shards(self, n_layers: int, n_heads: int) -> list[Shard]:
        for head in self.trio:
            require_head(head, n_layers, n_heads)
        return [Shard(BASELINE, ()), Shard("trio", (self.ablation,))]
