"""Interventions: frozen, hashable descriptions of changes to a model, without model or torch.

Each kind provides its names in tables (`label`, `columns`), the places where it acts (`sites`), the
donor of its activations (`source`), and a simpler, arithmetically equal intervention (`plain`).
"""

import re
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from tinyablation.files.hashes import digest
from tinyablation.heads import Head, heads_label
from tinyablation.interventions.copy_suppression import KeepCopySuppression
from tinyablation.interventions.restoration import AddNoise
from tinyablation.interventions.sites import (
    ActivationSource,
    Change,
    Columns,
    HeadChange,
    InterventionError,
    Part,
    Site,
    check_choice,
    check_count,
    check_heads,
    number,
    single,
)

AblationMethod = Literal["zero", "zero_folded", "mean", "resample", "template_mean"]
# Those that sweeps of single heads compare; all are possible of any set of heads.
METHODS: tuple[str, ...] = ("zero", "zero_folded", "mean", "resample")
MOST_NAMED = 32  # heads in a label: the circuit of Wang et al. has 26
# What the senders of a path are replaced by; a resampled path would need a donor of its own.
PathMethod = Literal["zero", "zero_folded", "mean"]
Donor = Literal["pair", "self", "other"]
Positions = Literal["all", "last", "subject"]


@dataclass(frozen=True)
class AblateHeads(HeadChange):
    """Replace the output z_h of attention heads (before the output projection) at all positions.

    heads: (layer, head) pairs, sorted and distinct, so that equal interventions compare equal.
    method: what z_h becomes.
      zero         zero, z_h = 0;
      zero_folded  what the head always adds because of biases: the z_h of a constant value input,
                   the bias of the layer's first norm. This is what zeroing means once LayerNorm is
                   folded into the weights. Equal to zero in a model without biases;
      mean         the mean of z_h over the real tokens of the reference prompts;
      resample     the z_h of one other reference prompt (the donor), drawn by the seed;
      template_mean  position by position, the mean of z_h over reference prompts of the example's
                   own wording and number of tokens, such as those with other names (Wang et al.
                   2022, arXiv:2211.00593, section 2.1: "mean ablation", over p_ABC).
    """

    method: AblationMethod = "zero"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("ablation method", self.method, get_args(AblationMethod))

    @property
    def label(self) -> str:
        """Name in tables, such as "zero:0.2+0.4" (layer.head), of many heads "zero:36-bf1c93d2"."""
        return f"{self.method}:{_short(self.heads)}"

    @property
    def columns(self) -> Columns:
        return Columns(self.method, "head", self.heads, *single(self.heads))

    @property
    def source(self) -> ActivationSource:
        lent = self.method in ("resample", "template_mean")
        return ActivationSource(self.method) if lent else ActivationSource()


@dataclass(frozen=True)
class KeepHeads(AblateHeads):
    """AblateHeads of every head but `kept`: what these heads do alone, such as a circuit.

    heads: all others (batteries.all_but). kept: sorted and distinct, none of them in heads.
    """

    kept: tuple[Head, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        check_heads(self.kept)
        if both := set(self.kept) & set(self.heads):
            raise InterventionError(f"heads both kept and ablated: {heads_label(sorted(both))}")

    @property
    def label(self) -> str:
        """Name in tables, such as "template_mean:all-but:0.2+0.4" (layer.head)."""
        return f"{self.method}:all-but:{_short(self.kept)}"


@dataclass(frozen=True)
class ScaleHeads(HeadChange):
    """Multiply the output z_h of attention heads by `scale`; 1.0 is the identity, 0.0 is zero."""

    scale: float

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "scale", number("scale", self.scale))

    @property
    def label(self) -> str:
        """Name in tables, such as "scale0.5:1.3" (layer.head)."""
        return f"scale{self.scale!r}:{heads_label(self.heads)}"

    @property
    def columns(self) -> Columns:
        return Columns("scale", "head", self.heads, *single(self.heads), scale=self.scale)

    def plain(self, n_layers: int) -> "Intervention | None":
        """A scale of 1.0 does nothing (z * 1.0 is z to the bit); 0.0 is zero ablation."""
        if self.scale == 1.0:
            return None
        return AblateHeads(self.heads) if self.scale == 0.0 else self


@dataclass(frozen=True)
class PatchHeads(HeadChange):
    """Replace the output z_h of attention heads by the donor's at the given positions.

    The donor of an example is the other prompt of its pair ("pair"), the prompt itself ("self", a
    sham that must change nothing), or the pair prompt of an example of another cluster ("other").
    positions: all, the last token, or the tokens of the subject.
    """

    positions: Positions = "all"
    donor: Donor = "pair"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_donor(self.positions, self.donor)

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
            *single(self.heads),
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
class _PatchLayers(Change):
    """Activations of layers [layer - window, layer + window] replaced by a donor's.

    The window is clipped to the model's layers; positions and donor as in PatchHeads.
    """

    layer: int
    window: int = 0
    positions: Positions = "last"
    donor: Donor = "pair"

    kind: ClassVar[str]
    part: ClassVar[Part]

    def __post_init__(self) -> None:
        check_count("layer", self.layer)
        check_count("window", self.window)
        _check_donor(self.positions, self.donor)

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
        """The layers of the window, clipped to those of the model."""
        return range(max(0, self.layer - self.window), min(n_layers, self.layer + self.window + 1))

    def sites(self, n_layers: int) -> tuple[Site, ...]:
        return tuple(Site(layer, self.part) for layer in self.layers(n_layers))

    def _centre(self, n_layers: int) -> tuple[int, int]:
        # The canonical (layer, window) of all windows that are equal once clipped.
        layers = self.layers(n_layers)
        if layers.start == 0:
            return 0, layers.stop - 1
        if layers.stop == n_layers:
            return n_layers - 1, n_layers - 1 - layers.start
        return self.layer, self.window


@dataclass(frozen=True)
class PatchResidual(_PatchLayers):
    """Replace the residual stream entering each layer of a window by the donor's.

    The window is [layer - window, layer + window], clipped to the model's layers; positions and
    donor as in PatchHeads.
    """

    kind = "residual"
    part = Part.STREAM

    def plain(self, n_layers: int) -> "Intervention | None":
        """A window equals its topmost layer alone, except at subject positions.

        No other position reads the last position's stream, and a stream that is replaced at all
        positions no longer depends on earlier layers. Later tokens do read a subject's stream.
        """
        if self.positions == "subject":
            layer, window = self._centre(n_layers)
        else:
            layer, window = self.layers(n_layers)[-1], 0
        return PatchResidual(layer, window, self.positions, self.donor)


@dataclass(frozen=True)
class PatchMLP(_PatchLayers):
    """Replace the outputs of the MLPs of a window of layers by the donor's.

    The window is [layer - window, layer + window], clipped to the model's layers; positions and
    donor as in PatchHeads.
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
class PatchPath(HeadChange):
    """Path patching: change what heads of one layer write directly into a later layer's stream.

    The stream entering `layer` becomes the clean one + sum_h (z'_h - z_h) W_O[h], where z'_h is z_h
    ablated by `method`; everything between the heads and that stream, including the MLP of their
    own layer, keeps its clean output. From `layer` on the model runs normally. layer = n_layers is
    the stream that enters the final norm: the direct path to the logits.
    """

    layer: int
    method: PathMethod = "zero"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("layer", self.layer)
        check_choice("path method", self.method, get_args(PathMethod))
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
        # No head, since it would look like a head of the receiving layer.
        return Columns("path", "path", self.heads, layer=self.layer)

    def sites(self, n_layers: int) -> tuple[Site, ...]:
        return (Site(self.layer, Part.STREAM),)


@dataclass(frozen=True)
class Steer(Change):
    """Add scale * direction to the attention output of a layer, at all positions, BOS too.

    direction: the name by which Engine.measure is given the vector. A scale of 0.0 is the identity.
    """

    layer: int
    direction: str
    scale: float

    def __post_init__(self) -> None:
        check_count("layer", self.layer)
        if not isinstance(self.direction, str) or not re.fullmatch(
            r"[A-Za-z0-9][A-Za-z0-9._-]*", self.direction
        ):
            raise InterventionError(
                f"{self.direction!r} cannot name a direction; use letters, digits, '.', '_', '-'"
            )
        object.__setattr__(self, "scale", number("scale", self.scale))

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


Intervention = (
    AblateHeads
    | ScaleHeads
    | PatchResidual
    | PatchHeads
    | PatchMLP
    | PatchPath
    | Steer
    | AddNoise
    | KeepCopySuppression
)


def _short(heads: tuple[Head, ...]) -> str:
    """The heads; of more than MOST_NAMED their number and a hash, and the table has them all."""
    if len(heads) <= MOST_NAMED:
        return heads_label(heads)
    return f"{len(heads)}-{digest(heads)[:8]}"


def _check_donor(positions: object, donor: object) -> None:
    check_choice("positions", positions, get_args(Positions))
    check_choice("donor", donor, get_args(Donor))
