"""The battery of causal tracing: noise on the subject, and each clean state put back alone."""

from dataclasses import dataclass, replace
from typing import Literal

from tinyablation.files.hashes import digest
from tinyablation.interventions.batteries import (
    BASELINE,
    PATCHED,
    Sample,
    Shard,
    Side,
    cut,
    single_heads,
)
from tinyablation.interventions.restoration import (
    NOISE_SCALE,
    PARTS,
    TOKENS,
    AddNoise,
    RestoredPart,
    RestoredToken,
    RestoreState,
)

# The paper takes 10 draws; the mean over examples varies more with the examples than with these.
DRAWS = 3
# Half-width of the window of MLPs and attentions: 5 layers (the paper: 10 of GPT-2 XL's 48).
WINDOW = 2


@dataclass(frozen=True)
class Tracing:
    """Every state of these parts and tokens restored by layer, in each draw of the noise.

    Streams are restored one at a time, MLP and attention outputs in windows (Meng et al. 2022,
    arXiv:2202.05262, section 2.1). donor: the side that shows which tokens are the subject, those
    where the two prompts of a pair differ; nothing is taken from it, and only aligned pairs are
    measured.
    """

    parts: tuple[RestoredPart, ...] = PARTS
    tokens: tuple[RestoredToken, ...] = TOKENS
    window: int = WINDOW
    draws: int = DRAWS
    scale: float = NOISE_SCALE
    side: Side = "clean"
    donor: Side | Literal[""] = "corrupt"
    # A draw of the noise is a pass, and a state put back half a pass.
    sample: Sample = PATCHED

    @property
    def name(self) -> str:
        asked = digest([self.parts, self.tokens, self.window, self.draws, float(self.scale)])[:8]
        pairs = "" if self.sample.pairs == "own" else f"-{self.sample.pairs}"
        return f"trace-{asked}{pairs}"

    def noises(self) -> list[AddNoise]:
        """The draws of the noise: the corrupted runs."""
        return [AddNoise(draw, self.scale) for draw in range(self.draws)]

    def restored(self, part: RestoredPart, layer: int, token: RestoredToken) -> list[RestoreState]:
        """A state put back, in each draw."""
        state = RestoreState(0, self.scale, part, layer, 0 if part == "stream" else self.window)
        return [replace(state, draw=draw, where=token) for draw in range(self.draws)]

    def shards(self, n_layers: int, n_heads: int) -> list[Shard]:
        """The baseline, the noise, then ranges of layers."""
        single_heads(n_layers, n_heads)
        states = [
            state
            for layer in range(n_layers)
            for part in self.parts
            for token in self.tokens
            for state in self.restored(part, layer, token)
        ]
        return [Shard(BASELINE, ()), Shard("noise", tuple(self.noises())), *cut("states", states)]
