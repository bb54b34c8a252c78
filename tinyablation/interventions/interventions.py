"""What is done to a model: frozen, hashable descriptions, with no model and no torch in them.

Each kind says of itself what tables name it by (`label`, `columns`), where it acts (`sites`), what
it borrows from another prompt (`source`), and which simpler one it equals by arithmetic (`plain`).
"""

import math
import re
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, ClassVar, Literal, NamedTuple, get_args

from tinyablation.errors import TinyAblationError
from tinyablation.heads import Head, heads_label

AblationMethod = Literal["zero", "zero_folded", "mean", "resample"]
METHODS: tuple[str, ...] = get_args(AblationMethod)
# What senders of a path become; a resampled path would need a donor of its own.
PathMethod = Literal["zero", "zero_folded", "mean"]
Donor = Literal["pair", "self", "other"]
Positions = Literal["all", "last", "subject"]


class InterventionError(TinyAblationError):
    """The intervention is not well formed: nothing could be measured by that name."""


class Part(IntEnum):
    """What of a layer is changed, in the order in which a forward pass comes to it."""

    STREAM = 0  # the residual stream that enters the layer
    ATTENTION = 1  # its heads' z, or the attention's output
    MLP = 2  # the MLP's output


class Site(NamedTuple):
    """A place in the model. The stream of layer n_layers is what enters the final norm."""

    layer: int
    part: Part


class ActivationSource(NamedTuple):
    """What an intervention borrows: from whom ("" none, "resample" or a Donor), and where."""

    donor: str = ""
    positions: str = ""


OWN = ActivationSource()  # nothing is borrowed


class Columns(NamedTuple):
    """What tables say of an intervention beside its label; tables.COLUMNS has the meanings."""

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


class _Change:
    """What holds of most kinds: nothing is borrowed, and nothing simpler is the same."""

    @property
    def source(self) -> ActivationSource:
        return ActivationSource()

    def plain(self, n_layers: int) -> "Intervention | None":
        kept: Any = self
        return kept


@dataclass(frozen=True)
class _HeadChange(_Change):
    heads: tuple[Head, ...]

    def __post_init__(self) -> None:
        _check_heads(self.heads)

    def sites(self, n_layers: int) -> tuple[Site, ...]:
        layers = sorted({layer for layer, _ in self.heads})
        return tuple(Site(layer, Part.ATTENTION) for layer in layers)


@dataclass(frozen=True)
class AblateHeads(_HeadChange):
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

    method: AblationMethod = "zero"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_choice("ablation method", self.method, METHODS)

    @property
    def label(self) -> str:
        """Name in tables, such as "zero:0.2+0.4" (layer.head)."""
        return f"{self.method}:{heads_label(self.heads)}"

    @property
    def columns(self) -> Columns:
        return Columns(self.method, "head", self.heads, *_single(self.heads))

    @property
    def source(self) -> ActivationSource:
        return ActivationSource("resample") if self.method == "resample" else ActivationSource()


@dataclass(frozen=True)
class ScaleHeads(_HeadChange):
    """Multiply the output z_h of attention heads by `scale`; 1.0 is the identity, 0.0 is zero."""

    scale: float

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "scale", _number("scale", self.scale))

    @property
    def label(self) -> str:
        """Name in tables, such as "scale0.5:1.3" (layer.head)."""
        return f"scale{self.scale!r}:{heads_label(self.heads)}"

    @property
    def columns(self) -> Columns:
        return Columns("scale", "head", self.heads, *_single(self.heads), scale=self.scale)

    def plain(self, n_layers: int) -> "Intervention | None":
        """z * 1.0 is z to the bit: nothing is done. z * 0.0 is zero ablation."""
        if self.scale == 1.0:
            return None
        return AblateHeads(self.heads) if self.scale == 0.0 else self


@dataclass(frozen=True)
class PatchHeads(_HeadChange):
    """Give the output z_h of attention heads the donor's values at these positions.

    The donor of an example is the other prompt of its pair ("pair"), the prompt itself ("self", a
    sham that must change nothing), or the pair prompt of an example of another cluster ("other").
    positions: all, the last token, or the tokens of the subject.
    """

    positions: Positions = "all"
    donor: Donor = "pair"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_loan(self.positions, self.donor)

    @property
    def label(self) -> str:
        """Name in tables, such as "heads:0.2+0.4:all:pair"."""
        return f"heads:{heads_label(self.heads)}:{self.positions}:{self.donor}"

    @property
    def columns(self) -> Columns:
        return Columns(
            "patch_heads",
            "head",
            self.heads,
            *_single(self.heads),
            positions=self.positions,
            donor=self.donor,
        )

    @property
    def source(self) -> ActivationSource:
        return ActivationSource(self.donor, self.positions)

    def plain(self, n_layers: int) -> "Intervention | None":
        """After the last layer's heads no position but the last is read."""
        if self.positions == "all" and self.heads[0][0] == n_layers - 1:
            return PatchHeads(self.heads, "last", self.donor)
        return self


@dataclass(frozen=True)
class _PatchLayers(_Change):
    """Layers [layer - window, layer + window], as far as the model has them, from a donor.

    positions and donor as in PatchHeads.
    """

    layer: int
    window: int = 0
    positions: Positions = "last"
    donor: Donor = "pair"

    kind: ClassVar[str]
    part: ClassVar[Part]

    def __post_init__(self) -> None:
        _check_count("layer", self.layer)
        _check_count("window", self.window)
        _check_loan(self.positions, self.donor)

    @property
    def label(self) -> str:
        """Name in tables, such as "mlp:L03w0:last:pair"."""
        return f"{self.kind}:L{self.layer:02d}w{self.window}:{self.positions}:{self.donor}"

    @property
    def columns(self) -> Columns:
        return Columns(
            f"patch_{self.kind}",
            self.kind,
            layer=self.layer,
            window=self.window,
            positions=self.positions,
            donor=self.donor,
        )

    @property
    def source(self) -> ActivationSource:
        return ActivationSource(self.donor, self.positions)

    def layers(self, n_layers: int) -> range:
        """The layers of the window that the model has."""
        return range(max(0, self.layer - self.window), min(n_layers, self.layer + self.window + 1))

    def sites(self, n_layers: int) -> tuple[Site, ...]:
        return tuple(Site(layer, self.part) for layer in self.layers(n_layers))

    def _centre(self, n_layers: int) -> tuple[int, int]:
        # One (layer, window) for all windows that are the same once clipped.
        layers = self.layers(n_layers)
        if layers.start == 0:
            return 0, layers.stop - 1
        if layers.stop == n_layers:
            return n_layers - 1, n_layers - 1 - layers.start
        return self.layer, self.window


@dataclass(frozen=True)
class PatchResidual(_PatchLayers):
    """Give the residual stream entering each layer of a window the donor's values.

    The window is [layer - window, layer + window], as far as the model has it; positions and donor
    as in PatchHeads.
    """

    kind = "residual"
    part = Part.STREAM

    def plain(self, n_layers: int) -> "Intervention | None":
        """Of a window, its topmost layer alone counts, except at subject positions.

        The last position's stream is read by no other position, and a stream that is replaced at
        all positions has forgotten what came before. A subject's stream is read by later tokens.
        """
        if self.positions == "subject":
            layer, window = self._centre(n_layers)
        else:
            layer, window = self.layers(n_layers)[-1], 0
        return PatchResidual(layer, window, self.positions, self.donor)


@dataclass(frozen=True)
class PatchMLP(_PatchLayers):
    """Give the outputs of the MLPs of a window of layers the donor's values.

    The window is [layer - window, layer + window], as far as the model has it; positions and donor
    as in PatchHeads.
    """

    kind = "mlp"
    part = Part.MLP

    def plain(self, n_layers: int) -> "Intervention | None":
        """After the last layer's MLP no position but the last is read."""
        layer, window = self._centre(n_layers)
        only_last = (layer, window) == (n_layers - 1, 0)
        positions: Positions = "last" if only_last and self.positions == "all" else self.positions
        return PatchMLP(layer, window, positions, self.donor)


@dataclass(frozen=True)
class PatchPath(_HeadChange):
    """Path patching: what heads of one layer write straight into the stream entering `layer`.

    The stream entering `layer` becomes the clean one + sum_h (z'_h - z_h) W_O[h], z'_h being z_h as
    ablated by `method`; everything between the heads and that stream, the MLP of their own layer
    included, keeps its clean output. From `layer` on everything runs freely. layer = n_layers is
    the stream that enters the final norm, so what goes straight to the logits.
    """

    layer: int
    method: PathMethod = "zero"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_count("layer", self.layer)
        _check_choice("path method", self.method, get_args(PathMethod))
        senders = {layer for layer, _ in self.heads}
        if len(senders) != 1:
            raise InterventionError(f"senders must be heads of one layer, got {self.heads!r}")
        if self.layer <= max(senders):
            raise InterventionError(
                f"a path leads upwards: heads of layer {max(senders)} cannot write into the "
                f"stream entering layer {self.layer}"
            )

    @property
    def label(self) -> str:
        """Name in tables, such as "path:0.2:L11:zero" (senders, receiver, method)."""
        return f"path:{heads_label(self.heads)}:L{self.layer:02d}:{self.method}"

    @property
    def columns(self) -> Columns:
        # No head: it would read as a head of the receiving layer.
        return Columns("path", "path", self.heads, layer=self.layer)

    def sites(self, n_layers: int) -> tuple[Site, ...]:
        return (Site(self.layer, Part.STREAM),)


@dataclass(frozen=True)
class Steer(_Change):
    """Add scale * direction to the attention output of a layer, at all positions, BOS too.

    direction: the name by which Engine.measure is given the vector. A scale of 0.0 is the identity.
    """

    layer: int
    direction: str
    scale: float

    def __post_init__(self) -> None:
        _check_count("layer", self.layer)
        if not isinstance(self.direction, str) or not re.fullmatch(
            r"[A-Za-z0-9][A-Za-z0-9._-]*", self.direction
        ):
            raise InterventionError(
                f"{self.direction!r} cannot name a direction; use letters, digits, '.', '_', '-'"
            )
        object.__setattr__(self, "scale", _number("scale", self.scale))

    @property
    def label(self) -> str:
        """Name in tables, such as "steer:L00:truth:-0.5"."""
        return f"steer:L{self.layer:02d}:{self.direction}:{self.scale!r}"

    @property
    def columns(self) -> Columns:
        return Columns("steer", "steer", layer=self.layer, scale=self.scale)

    def sites(self, n_layers: int) -> tuple[Site, ...]:
        return (Site(self.layer, Part.ATTENTION),)

    def plain(self, n_layers: int) -> "Intervention | None":
        return None if self.scale == 0.0 else self


Intervention = AblateHeads | ScaleHeads | PatchResidual | PatchHeads | PatchMLP | PatchPath | Steer


def _single(heads: tuple[Head, ...]) -> Head:
    return heads[0] if len(heads) == 1 else Head(-1, -1)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _check_count(name: str, value: object) -> None:
    if not _is_count(value):
        raise InterventionError(f"{name} must be a whole number from 0, got {value!r}")


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InterventionError(f"unknown {name} {value!r}; choose one of {', '.join(choices)}")


def _check_loan(positions: object, donor: object) -> None:
    _check_choice("positions", positions, get_args(Positions))
    _check_choice("donor", donor, get_args(Donor))


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InterventionError(f"{name} must be a number, got {value!r}")
    if not math.isfinite(value):
        raise InterventionError(f"{name} must be finite, got {value!r}")
    # 0.0 and -0.0, 1 and 1.0 are equal but print differently: one label each.
    return float(value) + 0.0


def _check_heads(heads: object) -> None:
    if not isinstance(heads, tuple) or not heads:
        raise InterventionError(f"heads must be a non-empty tuple of (layer, head), got {heads!r}")
    for head in heads:
        if not isinstance(head, tuple) or len(head) != 2 or not all(map(_is_count, head)):
            raise InterventionError(f"{head!r} is no head; write (layer, head), both from 0")
    if list(heads) != sorted(set(heads)):
        raise InterventionError(f"heads must be sorted and distinct, got {heads!r}")
