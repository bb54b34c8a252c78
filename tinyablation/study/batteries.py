"""Battery files of the study: what they ask for, as interventions of this project.

Scale 0.0 is zero ablation. A patch "A->B" puts the activations of A's prompt into the run on B's.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import Field, PlainValidator, ValidationError, model_validator

from tinyablation.heads import Head
from tinyablation.interventions.batteries import UNHOOKED, Side
from tinyablation.interventions.interventions import (
    AblateHeads,
    Donor,
    Intervention,
    PatchHeads,
    PatchMLP,
    PatchResidual,
    Positions,
    ScaleHeads,
)
from tinyablation.interventions.listed import Listed
from tinyablation.spelling import did_you_mean
from tinyablation.study.objects import Strict, StudyError, explained

Index = Annotated[int, Field(ge=0)]


def _checked_layers(value: Any) -> Any:
    is_list = isinstance(value, list) and value and all(type(each) is int for each in value)
    if value != "all" and not (is_list and min(value) >= 0):
        raise ValueError(f'give "all" or a list of layers from 0, not {value!r}')
    return value


Layers = Annotated[Literal["all"] | list[int], PlainValidator(_checked_layers)]

# Corrections of the engine whose reasons a user asks for (pitfalls of the published study).
WHOLE_STREAMS = (
    "a residual stream that is replaced at every position is the donor's own run, the same at "
    "every layer; give positions last_token"
)


class Asked(NamedTuple):
    """A battery for a model of one shape. labels: of head sets, by intervention label.

    sham: the labels of controls that must change nothing; they are not part of the tables.
    """

    battery: Listed
    labels: Mapping[str, str]
    sham: tuple[str, ...] = ()


class _Scaled(Strict):
    scales: Annotated[list[float], Field(min_length=1)] = Field(default_factory=lambda: [0.0])
    positions: Literal["all"] = "all"


class HeadsZero(_Scaled):
    """Every head of the layers alone, multiplied by each scale."""

    type: Literal["heads_zero"]
    layers: Layers = "all"

    def asked(self, n_layers: int, n_heads: int) -> Asked:
        sets = [
            ((layer, head),) for layer in _layers(self.layers, n_layers) for head in range(n_heads)
        ]
        return Asked(_scaled(self.type, sets, self.scales), {})


class Pair(Strict):
    layer: Index
    h1: Index
    h2: Index

    @model_validator(mode="after")
    def _two(self) -> Self:
        if self.h1 == self.h2:
            raise ValueError(f"h1 and h2 are both {self.h1}")
        return self


class HeadsPairZero(_Scaled):
    """Pairs of heads of one layer together: all pairs of some layers, or those listed."""

    type: Literal["heads_pair_zero"]
    layers: Layers | None = None
    pairs: Annotated[list[Pair], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _either(self) -> Self:
        if (self.layers is None) == (self.pairs is None):
            raise ValueError("give either layers, for all their pairs, or pairs")
        return self

    def asked(self, n_layers: int, n_heads: int) -> Asked:
        if self.pairs is not None:
            sets = [tuple(sorted([(p.layer, p.h1), (p.layer, p.h2)])) for p in self.pairs]
        else:
            sets = [
                ((layer, one), (layer, other))
                for layer in _layers(self.layers or "all", n_layers)
                for one, other in combinations(range(n_heads), 2)
            ]
        return Asked(_scaled(self.type, sets, self.scales), {})


class Group(Strict):
    layer: Index
    heads: Annotated[list[Index], Field(min_length=1)]
    label: str | None = None


class HeadsSubsetZero(_Scaled):
    """Groups of heads of one layer, each zeroed together."""

    type: Literal["heads_subset_zero"]
    groups: Annotated[list[Group], Field(min_length=1)]

    def asked(self, n_layers: int, n_heads: int) -> Asked:
        sets = [tuple((g.layer, head) for head in sorted(set(g.heads))) for g in self.groups]
        labels = {
            each.label: group.label or ""
            for own, group in zip(sets, self.groups, strict=True)
            for each in _scaled(self.type, [own], self.scales).interventions
        }
        return Asked(_scaled(self.type, sets, self.scales), labels)


class ActivationPatch(Strict):
    """Activations of one prompt of each pair put into the run on the other, layer by layer.

    sham_control: also the prompt's own activations, which must change nothing.
    """

    type: Literal["activation_patch"]
    granularity: Literal["layer_resid", "head", "head_out", "mlp", "mlp_out"] = "layer_resid"
    layers: Layers = "all"
    positions: Literal["last_token", "all"] = "last_token"
    patch_direction: Literal["clean->corrupt", "corrupt->clean"] = "clean->corrupt"
    sham_control: bool = False

    @model_validator(mode="after")
    def _exact(self) -> Self:
        if self.granularity == "layer_resid" and self.positions == "all":
            raise ValueError(f"positions: {WHOLE_STREAMS}")
        return self

    @property
    def part(self) -> str:
        """layer_resid, head or mlp."""
        return self.granularity.removesuffix("_out")

    @property
    def donor(self) -> Side:
        return "clean" if self.patch_direction.startswith("clean") else "corrupt"

    def asked(self, n_layers: int, n_heads: int) -> Asked:
        patches = self._patches("pair", n_layers, n_heads)
        sham = self._patches("self", n_layers, n_heads) if self.sham_control else []
        side: Side = "corrupt" if self.donor == "clean" else "clean"
        listed = Listed(f"{self.type}-{self.donor}", (*patches, *sham), side, self.donor, UNHOOKED)
        return Asked(listed, {}, tuple(each.label for each in sham))

    def _patches(self, donor: Donor, n_layers: int, n_heads: int) -> list[Intervention]:
        where: Positions = "last" if self.positions == "last_token" else "all"
        layers = _layers(self.layers, n_layers)
        if self.part == "head":
            heads = [Head(layer, head) for layer in layers for head in range(n_heads)]
            return [PatchHeads((head,), where, donor) for head in heads]
        patch = PatchMLP if self.part == "mlp" else PatchResidual
        return [patch(layer, positions=where, donor=donor) for layer in layers]


Battery = HeadsZero | HeadsPairZero | HeadsSubsetZero | ActivationPatch
_TYPES: dict[str, type[Battery]] = {
    "heads_zero": HeadsZero,
    "heads_pair_zero": HeadsPairZero,
    "heads_subset_zero": HeadsSubsetZero,
    "activation_patch": ActivationPatch,
}


def parse_battery(path: Path, content: Mapping[str, Any]) -> Battery:
    """The battery of a file's content; StudyError with a line for each key that is wrong."""
    kind = content.get("type")
    if not isinstance(kind, str) or kind not in _TYPES:
        missing = "is missing" if kind is None else f"there is no battery {kind!r}"
        raise StudyError(f"{path}: type: {missing}; {did_you_mean(kind, _TYPES)}")
    try:
        return _TYPES[kind].model_validate(content)
    except ValidationError as error:
        lines = explained(error, _TYPES[kind])
        raise StudyError("\n".join(f"{path}: {line}" for line in lines)) from None


def _layers(layers: Layers, n_layers: int) -> list[int]:
    return list(range(n_layers)) if layers == "all" else sorted(set(layers))


def _scaled(
    kind: str, sets: Sequence[tuple[tuple[int, int], ...]], scales: Sequence[float]
) -> Listed:
    """Each set of heads, multiplied by each scale, once."""
    every: list[Intervention] = []
    for own in sets:
        heads = tuple(Head(*head) for head in own)
        every += [ScaleHeads(heads, scale) if scale else AblateHeads(heads) for scale in scales]
    return Listed(kind, tuple(dict.fromkeys(every)), sample=UNHOOKED)
