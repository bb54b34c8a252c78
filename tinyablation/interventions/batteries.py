"""Batteries: the interventions a hypothesis needs, cut into shards that are computed separately.

A shard is the unit of work that survives a kill, so it should take seconds to minutes: as many
whole layers as fit into SHARD_SIZE interventions. Each shard needs its own clean passes (a quarter
of the work at 8 heads per shard), and interventions that are arithmetically equal are measured once
within it. For GPT-2 medium (24 layers of 16 heads) battery "zero" is 1 + 4 shards with 384
interventions; "single-heads", by four methods, 1,536; "h5", the single heads, pairs and triples of
one layer, 16 + 120 + 560; and "patch" some 700 in each direction, 168 of streams.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from tinyablation.errors import TinyAblationError
from tinyablation.heads import Head
from tinyablation.interventions.interventions import (
    AblateHeads,
    AblationMethod,
    Donor,
    Intervention,
    KeepHeads,
    PatchHeads,
    PatchMLP,
    PatchPath,
    PatchResidual,
    Positions,
    Steer,
)
from tinyablation.spelling import did_you_mean

BASELINE = "baseline"
Side = Literal["clean", "corrupt", "null"]

# Examples per relation that a sweep measures on a crossed corpus. Claims generalise over relations,
# so two prompts of each of 77 are more informative than twelve of each of 13.
PER_RELATION = 2
SHARD_SIZE = 96  # interventions measured together, unless one layer has more
WINDOWS = (0, 1, 2)  # half-widths of patched windows, in layers
PATCHED_POSITIONS: tuple[Positions, ...] = ("last", "subject")
# Multiples of the direction that is added. The study steered by -.5 and .5; the others show whether
# there is a dose response, and -1 removes the head's mean output.
STEERING_SCALES = (-2.0, -1.0, -0.5, 0.5, 1.0, 2.0)


@dataclass(frozen=True)
class Sample:
    """The examples a battery is measured on: one split or both, all of a cluster or some.

    per_cluster: at most so many examples of each cluster, drawn; 0: all. (In a crossed corpus,
    whose clusters are relations of many examples, Sampling.per_cluster scales these numbers.)
    wordings: "one" measures whatever is asked in one of its wordings, which are taken in turn, if
    the corpus has all of it in every wording (Corpus.is_factorial).

    among and lent concern crossed corpora. among: the examples whose facts the model knows
    ("known"), those of the families that count for it ("counting"), or all; any other corpus is
    used whole. lent: donor activations come from other clusters, so only prompts are used for which
    a prompt of another relation has the same length.

    pairs: the corrupt prompts of the corpus ("own"), or the clean ones with their content replaced
    by words of which nothing can be known ("unknown", corpora/unknown_words.py).
    """

    split: str | None = None
    per_cluster: int = 0
    wordings: Literal["all", "one"] = "all"
    among: Literal["known", "counting", "all"] = "known"
    lent: bool = False
    pairs: Literal["own", "unknown"] = "own"


EVERYTHING = Sample()
# For sweeps of every head, whose passes are many: the interval is over clusters, and all are kept.
ONE_WORDING = Sample(wordings="one")
UNHOOKED = Sample(among="all")  # to find out what the model knows, all prompts are needed
SOME = Sample(per_cluster=2)
ONE_EACH = Sample(per_cluster=1)
LENT = Sample(lent=True)
PATCHED = ONE_EACH
PATCHED_UNKNOWN = replace(PATCHED, pairs="unknown")


class BatteryError(TinyAblationError):
    """The battery does not exist, or it does not fit the shape of the model."""


@dataclass(frozen=True)
class Shard:
    """Interventions measured together. `key` is unique within a battery and a valid file name."""

    key: str
    interventions: tuple[Intervention, ...]


class AnyBattery(Protocol):
    """What a bench needs of a battery: its name, the prompts it measures, and its shards.

    side: the prompt of each example that is measured. donor: the side whose prompts provide
    activations, "" if there is no donor; with a donor only aligned pairs (equal numbers of tokens)
    are measured.
    """

    @property
    def name(self) -> str: ...
    @property
    def side(self) -> Side: ...
    @property
    def donor(self) -> Side | Literal[""]: ...
    @property
    def sample(self) -> Sample: ...
    def shards(self, n_layers: int, n_heads: int) -> list[Shard]: ...


def single_heads(n_layers: int, n_heads: int) -> tuple[Head, ...]:
    """Every (layer, head), layer by layer: n_layers * n_heads pairs."""
    if n_layers < 1 or n_heads < 1:
        raise BatteryError(f"a model of {n_layers} layers x {n_heads} heads has no head to ablate")
    return tuple(Head(layer, head) for layer in range(n_layers) for head in range(n_heads))


def all_but(kept: Sequence[Head], n_layers: int, n_heads: int, method: AblationMethod) -> KeepHeads:
    """Every head of a model of that shape ablated, except these; BatteryError if it lacks one."""
    for head in kept:
        require_head(head, n_layers, n_heads)
    others = set(single_heads(n_layers, n_heads)) - set(kept)
    return KeepHeads(tuple(sorted(others)), method, tuple(sorted(set(kept))))


@dataclass(frozen=True)
class Battery:
    """Single-head ablations.

    Each head is ablated alone, by each of `methods`; heads of layer 0 also by each of
    `first_layer`.
    """

    name: str
    methods: tuple[AblationMethod, ...]
    side: Side = "clean"
    first_layer: tuple[AblationMethod, ...] = ()
    donor: Side | Literal[""] = ""
    sample: Sample = ONE_WORDING

    def shards(self, n_layers: int, n_heads: int) -> list[Shard]:
        """The baseline shard (no interventions), then ranges of layers: "L00-L02", "L03-L05"..."""
        heads = single_heads(n_layers, n_heads)
        layers = n_layers if self.methods else min(1, len(self.first_layer))
        return [
            Shard(BASELINE, ()),
            *_by_layer(
                [
                    AblateHeads(heads=(head,), method=method)
                    for method in (*self.methods, *(self.first_layer if layer == 0 else ()))
                    for head in heads
                    if head[0] == layer
                ]
                for layer in range(layers)
            ),
        ]


@dataclass(frozen=True)
class Patching:
    """H6: activations of one side of each pair put into the run on the other.

    direction: "forward" is denoising, the clean prompt's activations in the corrupt one's run (are
    they sufficient for the answer?); "reverse" is noising, the corrupt prompt's in the clean one's
    (are the clean ones necessary?), in the words of Heimersheim and Nanda 2024 (arXiv 2404.15255).
    The names of stored runs are older. sample.pairs: which corrupt prompts.

    Residual stream by layer and in windows, MLPs by layer, single heads; donors: the pair's other
    prompt, and as controls the prompt itself ("self", the sham) and another example's ("other").
    parts: "streams" measures what claims choose and judge by, and one sham a layer, at either
    position in turn. It leaves out MLPs, heads, whole streams (whose recovery is 1) and wrong
    donors: on a crossed corpus the passes they take are better spent on prompts of more relations.
    """

    direction: Literal["forward", "reverse"]
    # Every patch takes half a forward pass of its own, since no prefix is shared; windows at the
    # last position equal another patch. That makes 5 a layer in streams, and 20 at 9 heads in all:
    # 10 and 20 s for a prompt of 22 tokens, 30 layers, 135 M parameters and two cores.
    sample: Sample = PATCHED
    parts: Literal["all", "streams"] = "all"

    @property
    def name(self) -> str:
        other = "" if self.sample.pairs == "own" else f"-{self.sample.pairs}"
        only = "" if self.parts == "all" else f"-{self.parts}"
        return f"patch-{self.direction}{other}{only}"

    @property
    def side(self) -> Side:
        return "corrupt" if self.direction == "forward" else "clean"

    @property
    def donor(self) -> Side:
        return "clean" if self.direction == "forward" else "corrupt"

    def shards(self, n_layers: int, n_heads: int) -> list[Shard]:
        single_heads(n_layers, n_heads)
        layers = [list(self._layer(layer, n_heads)) for layer in range(n_layers)]
        return [Shard(BASELINE, ()), *_by_layer(layers)]

    def _layer(self, layer: int, n_heads: int) -> Iterator[Intervention]:
        windows = [
            PatchResidual(layer, window=window, positions=where)
            for window in WINDOWS[1:]
            for where in PATCHED_POSITIONS
        ]
        if self.parts == "streams":
            yield from (PatchResidual(layer, positions=where) for where in PATCHED_POSITIONS)
            sham = PATCHED_POSITIONS[layer % len(PATCHED_POSITIONS)]
            yield PatchResidual(layer, positions=sham, donor="self")
            yield from windows
            return
        donors: tuple[Donor, ...] = ("pair", "self", "other")
        for donor in donors:
            for where in PATCHED_POSITIONS:
                yield PatchResidual(layer, positions=where, donor=donor)
        yield PatchResidual(layer, positions="all")
        yield from windows
        yield PatchMLP(layer, positions="last")
        yield PatchMLP(layer, positions="subject")
        for head in range(n_heads):
            yield PatchHeads((Head(layer, head),))


@dataclass(frozen=True)
class Paths:
    """Path patching: one head's direct path into the residual stream of every later layer."""

    head: Head
    side: Side = "clean"
    donor: Side | Literal[""] = ""
    sample: Sample = SOME

    @property
    def name(self) -> str:
        return f"path-{self.head[0]}.{self.head[1]}"

    def shards(self, n_layers: int, n_heads: int) -> list[Shard]:
        require_head(self.head, n_layers, n_heads)
        paths = [PatchPath((self.head,), layer) for layer in range(self.head[0] + 1, n_layers + 1)]
        return [Shard(BASELINE, ()), Shard("paths", (AblateHeads((self.head,)), *paths))]


@dataclass(frozen=True)
class Steering:
    """A direction and controls of the same norm, added at one layer in several doses.

    source: identifies what the directions were made from; it is part of the name and therefore of
    the address.
    """

    layer: int
    source: str
    directions: tuple[str, ...]
    scales: tuple[float, ...] = STEERING_SCALES
    side: Side = "clean"
    donor: Side | Literal[""] = ""
    sample: Sample = ONE_EACH

    @property
    def name(self) -> str:
        return f"steer-L{self.layer:02d}-{self.source}"

    def shards(self, n_layers: int, n_heads: int) -> list[Shard]:
        require_head(Head(self.layer, 0), n_layers, n_heads)
        doses = [
            Steer(self.layer, direction, scale)
            for direction in self.directions
            for scale in self.scales
        ]
        return [Shard(BASELINE, ()), Shard("doses", tuple(doses))]


@dataclass(frozen=True)
class OneHead:
    """One head zeroed alone, to follow its effect over the checkpoints of a training run."""

    head: Head
    side: Side = "clean"
    donor: Side | Literal[""] = ""
    sample: Sample = EVERYTHING  # needed to see, by cell, whether a checkpoint knows its answers

    @property
    def name(self) -> str:
        return f"head-{self.head[0]}.{self.head[1]}"

    def shards(self, n_layers: int, n_heads: int) -> list[Shard]:
        require_head(self.head, n_layers, n_heads)
        return [Shard(BASELINE, ()), Shard("head", (AblateHeads((self.head,)),))]


@dataclass(frozen=True)
class InEveryMethod:
    """Head sets ablated by several methods: batteries that differ only in their method.

    Each set is listed with all methods before the next set, so that arithmetically equal methods
    (zero and zero_folded in a model without biases) share a shard and are measured once.
    """

    batteries: tuple[AnyBattery, ...]
    sample: Sample = LENT
    side: Side = "clean"
    donor: Side | Literal[""] = ""

    @property
    def name(self) -> str:
        return f"{self.batteries[0].name}-methods"

    def shards(self, n_layers: int, n_heads: int) -> list[Shard]:
        by_method = [
            [each for shard in battery.shards(n_layers, n_heads) for each in shard.interventions]
            for battery in self.batteries
        ]
        return [
            Shard(BASELINE, ()),
            *cut("sets", [each for ways in zip(*by_method, strict=True) for each in ways]),
        ]


def one_head(head: Head) -> OneHead:
    """The battery that zeroes only this head."""
    return OneHead(Head(int(head[0]), int(head[1])))


def require_head(head: Head, n_layers: int, n_heads: int) -> None:
    """Raise BatteryError if a model of that shape has no such head."""
    if head not in single_heads(n_layers, n_heads):
        raise BatteryError(
            f"there is no head {head[0]}:{head[1]} in {n_layers} layers of {n_heads} heads"
        )


def cut(name: str, interventions: Sequence[Intervention]) -> list[Shard]:
    """Shards of at most SHARD_SIZE interventions, in order: "<name>00", "<name>01", ..."""
    starts = range(0, len(interventions), SHARD_SIZE)
    return [
        Shard(f"{name}{number:02d}", tuple(interventions[start : start + SHARD_SIZE]))
        for number, start in enumerate(starts)
    ]


def _by_layer(layers: Iterable[Sequence[Intervention]]) -> list[Shard]:
    """Shards of whole layers, at most SHARD_SIZE interventions each unless one layer has more."""
    shards: list[Shard] = []
    first, held = 0, []  # type: tuple[int, list[Intervention]]
    for layer, interventions in enumerate(layers):
        if held and len(held) + len(interventions) > SHARD_SIZE:
            shards.append(_layers(first, layer - 1, held))
            first, held = layer, []
        held = [*held, *interventions]
        last = layer
    return [*shards, _layers(first, last, held)] if held else shards


def _layers(first: int, last: int, interventions: Sequence[Intervention]) -> Shard:
    key = f"L{first:02d}" if first == last else f"L{first:02d}-L{last:02d}"
    return Shard(key, tuple(interventions))


BATTERIES: dict[str, Battery] = {
    battery.name: battery
    for battery in (
        # The unhooked model on each side of the pairs.
        Battery(BASELINE, (), sample=UNHOOKED),
        Battery("corrupt", (), side="corrupt", sample=UNHOOKED),
        Battery("null", (), side="null", sample=UNHOOKED),
        # Every single head of every layer.
        Battery("zero", ("zero",)),
        Battery("folded", ("zero_folded",)),
        Battery(
            "single-heads",
            ("zero", "zero_folded", "mean", "resample"),
            sample=replace(ONE_WORDING, lent=True),
        ),
        Battery(
            "other-methods",
            ("zero_folded", "mean", "resample"),
            sample=replace(ONE_WORDING, lent=True),
        ),
        # Every head of layer 0, on one example of each cluster.
        Battery(
            "methods",
            (),
            first_layer=("zero", "zero_folded", "mean", "resample"),
            sample=replace(ONE_EACH, lent=True),
        ),
    )
}


def battery(name: str) -> Battery:
    """The battery of that name; BatteryError names the nearest known one."""
    if name in BATTERIES:
        return BATTERIES[name]
    raise BatteryError(f"no battery {name!r}; {did_you_mean(name, BATTERIES)}")
