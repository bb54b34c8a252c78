"""What the removal of each layer does to a model's loss on text. Figures only, no model.

The loss of a passage is the mean negative log-likelihood of its tokens in nats, the logarithm of
its perplexity. Change = without the layer - whole, paired by passage: above 0 where the layer is
needed, below 0 where the model is better without it. exp(change) is the factor by which perplexity
grows. Passages are the clusters of every interval, and count alike.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tinyablation.analysis.effects import EffectsError, Floats
from tinyablation.statistics.intervals import (
    Alternative,
    DegenerateInterval,
    Estimate,
    cluster_interval,
    generator,
    max_t_sign_flip,
)
from tinyablation.verdicts.floors import ABSOLUTE_FLOOR, Floor, Noise
from tinyablation.verdicts.verdicts import ALPHA, CONFIDENCE

NATS = "nats per token"


@dataclass(frozen=True)
class LayerRemoval:
    """Losses by passage in nats per token, of the whole model and without each of its layers.

    whole [n_passages], removed [n_passages, n_layers]; passages: their ids; noise: how far a change
    moves with the batch, device and dtype; runs: the run directories these figures come from.
    """

    model: str
    whole: Floats = field(repr=False)
    removed: Floats = field(repr=False)
    passages: tuple[str, ...] = field(repr=False)
    noise: float = 0.0
    seed: int = 0
    runs: tuple[str, ...] = ()
    _cache: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def n_layers(self) -> int:
        """Layers of the model."""
        return self.removed.shape[1]

    @property
    def perplexity(self) -> float:
        """Of the whole model: exp of its mean loss over passages."""
        return float(np.exp(self.whole.mean()))

    def changes(self) -> Floats:
        """[n_passages, n_layers] the change of the loss, in nats per token."""
        return self.removed - self.whole[:, None]

    def change(self, layer: int, *, confidence: float = CONFIDENCE) -> Estimate:
        """The mean change of a layer that was named beforehand, with its interval over passages.

        A removal that changes nothing at all has the interval [0, 0].
        """
        values = self.changes()[:, self._require(layer)]
        rng = generator(self.seed, f"{self.model} removal of layer {layer}")
        try:
            return cluster_interval(values, self.passages, rng, confidence=confidence)
        except DegenerateInterval as same:
            if same.value != 0:
                raise
            return Estimate(0.0, 0.0, 0.0, len(values), len(values))

    def factor(self, layer: int) -> Estimate:
        """The factor by which perplexity grows without a layer; 1: it does not change."""
        found = self.change(layer)
        estimate, low, high = np.exp(found[:3]).tolist()
        return Estimate(estimate, low, high, found.n, found.n_clusters)

    def floor(self) -> Floor:
        """The smallest change that counts: .01 nats, 1 % of perplexity, or the numerical noise."""
        noise = Noise(self.noise)
        return Floor(max(ABSOLUTE_FLOOR, noise), noise, counts=ABSOLUTE_FLOOR, minimum=True)

    def p_corrected(
        self, layer: int, *, bound: float = 0.0, alternative: Alternative = "two-sided"
    ) -> float:
        """p of the layer's mean change beyond a bound, corrected over all layers (max-T)."""
        key = (bound, alternative)
        if key not in self._cache:
            rng = generator(self.seed, f"{self.model} removal of layers {bound:g} {alternative}")
            self._cache[key] = max_t_sign_flip(
                self.changes() - bound, self.passages, rng, alternative=alternative
            )
        return float(self._cache[key][self._require(layer)])

    def beyond(self, bound: float, *, alternative: Alternative = "greater") -> tuple[int, ...]:
        """All layers, none of them named, whose removal changes the loss beyond a bound.

        Their whole interval lies above it ("greater": the loss grows by more than the bound) or
        below it ("less"; the bound of layers better left out is -floor), with p <= .05 corrected
        over all layers.
        """
        found = []
        for layer in range(self.n_layers):
            change = self.change(layer)
            clear = change.low > bound if alternative == "greater" else change.high < bound
            if clear and self.p_corrected(layer, bound=bound, alternative=alternative) <= ALPHA:
                found.append(layer)
        return tuple(found)

    def ranked(self) -> tuple[int, ...]:
        """The layers by mean change, the one that is needed most first."""
        return tuple(np.argsort(-self.changes().mean(axis=0), kind="stable").tolist())

    def _require(self, layer: int) -> int:
        if not 0 <= layer < self.n_layers:
            raise EffectsError(f"{self.model} has no layer {layer}; it has {self.n_layers}")
        return layer
