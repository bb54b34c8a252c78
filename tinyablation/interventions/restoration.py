"""Noise on a subject's embeddings, and clean states restored after it (causal tracing).

Meng et al. 2022, "Locating and editing factual associations in GPT", arXiv:2202.05262, section 2.1.
"""

from dataclasses import dataclass
from typing import Literal, get_args

from tinyablation.interventions.sites import (
    ActivationSource,
    Change,
    Columns,
    InterventionError,
    Part,
    Site,
    check_choice,
    check_count,
    number,
)

# Multiples of the standard deviation of token embeddings; the paper takes 3 (appendix B.1).
NOISE_SCALE = 3.0
RestoredPart = Literal["stream", "attention", "mlp"]
# Which token: the subject's first or last, the one after it (the prompt's last, if the subject ends
# it), or the prompt's last.
RestoredToken = Literal["subject-first", "subject-last", "after-subject", "last"]
PARTS: tuple[RestoredPart, ...] = get_args(RestoredPart)
TOKENS: tuple[RestoredToken, ...] = get_args(RestoredToken)
_SITES = {"stream": Part.STREAM, "attention": Part.ATTENTION, "mlp": Part.MLP}


def token_of(where: RestoredToken, subject: tuple[int, ...], length: int) -> int:
    """The position of that token in a prompt of `length` tokens; subject: its positions in it."""
    return {
        "subject-first": min(subject),
        "subject-last": max(subject),
        "after-subject": min(max(subject) + 1, length - 1),
        "last": length - 1,
    }[where]


@dataclass(frozen=True)
class AddNoise(Change):
    """Add Gaussian noise to the embeddings of the subject's tokens: the corrupted run.

    Its standard deviation is scale * sigma, with sigma that of all components of the embeddings of
    the reference prompts' tokens. draw: which of several draws for a prompt; the same in every
    intervention of one scale, so that what is restored is compared with the run it is restored in.
    """

    draw: int = 0
    scale: float = NOISE_SCALE

    def __post_init__(self) -> None:
        check_count("draw", self.draw)
        object.__setattr__(self, "scale", number("scale", self.scale))
        if self.scale <= 0:
            raise InterventionError(f"the noise's scale must be above 0, got {self.scale}")

    @property
    def noise(self) -> "AddNoise":
        """Itself: the noise in which nothing is restored."""
        return AddNoise(self.draw, self.scale)

    @property
    def label(self) -> str:
        """Name in tables, such as "noise3.0:0"."""
        return f"noise{self.scale!r}:{self.draw}"

    @property
    def columns(self) -> Columns:
        return Columns("noise", "embedding", scale=self.scale, positions="subject")

    @property
    def source(self) -> ActivationSource:
        return ActivationSource("noise", "subject")

    def sites(self, n_layers: int) -> tuple[Site, ...]:
        """Before the first layer, whatever its parts."""
        return (Site(0, Part.STREAM),)


@dataclass(frozen=True)
class RestoreState(AddNoise):
    """AddNoise with one token's clean state put back, at a layer or a window of layers.

    part: the stream that enters the layer (the paper's hidden state of the layer before), or the
    output of its attention or MLP. The window is [layer - window, layer + window], clipped to the
    model's layers. where: the token (RestoredToken).
    """

    part: RestoredPart = "stream"
    layer: int = 0
    window: int = 0
    where: RestoredToken = "subject-last"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("part", self.part, PARTS)
        check_count("layer", self.layer)
        check_count("window", self.window)
        check_choice("token", self.where, TOKENS)

    @property
    def label(self) -> str:
        """Name in tables, such as "restore-mlp:L03w2:subject-last:noise3.0:0"."""
        place = f"L{self.layer:02d}w{self.window}:{self.where}"
        return f"restore-{self.part}:{place}:{self.noise.label}"

    @property
    def columns(self) -> Columns:
        return Columns(
            f"restore_{self.part}",
            "residual" if self.part == "stream" else self.part,
            layer=self.layer,
            scale=self.scale,
            window=self.window,
            positions=self.where,
            donor="self",
        )

    def layers(self, n_layers: int) -> range:
        """The layers of the window, clipped to those of the model."""
        return range(max(0, self.layer - self.window), min(n_layers, self.layer + self.window + 1))

    def sites(self, n_layers: int) -> tuple[Site, ...]:
        return tuple(Site(layer, _SITES[self.part]) for layer in self.layers(n_layers))
