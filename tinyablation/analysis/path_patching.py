"""Path patching: how much of a head's effect goes directly into a later layer's residual stream.

Only the head's direct contribution is removed from the stream that enters the receiver layer;
everything between is frozen at its clean values, and everything after is recomputed (Wang et al.
2022, "Interpretability in the Wild", section 3.1). The layers between carry the rest of the head's
effect. Every figure depends on the receiver; for the layer after the head's own, only the MLP of
the head's layer lies between.
"""

from dataclasses import dataclass

from tinyablation.analysis.effects import (
    Effects,
    Floats,
)
from tinyablation.corpora.examples import CONFIRMATION
from tinyablation.heads import Head, head_name
from tinyablation.interventions.interventions import (
    AblateHeads,
    PatchPath,
)
from tinyablation.statistics.intervals import Estimate, generator
from tinyablation.statistics.ratios import ratio_interval
from tinyablation.verdicts.floors import Floor

_FIRST = Head(0, 0)


@dataclass(frozen=True)
class PathEffects(Effects):
    """The paths of one head of a model under one condition."""

    head: Head = _FIRST
    n_layers: int = 0

    @property
    def receivers(self) -> range:
        """The layers a path can lead to; the last one is the stream before the final norm."""
        return range(self.head[0] + 1, self.n_layers + 1)

    def total(self, split: str = CONFIRMATION) -> Floats:
        """[n_examples] Delta LD of zeroing the head, all paths together."""
        return self.change(AblateHeads((self.head,)).label, split)

    def through(self, layer: int, split: str = CONFIRMATION) -> Floats:
        """[n_examples] Delta LD if only the direct path into `layer` is removed."""
        return self.change(PatchPath((self.head,), layer).label, split)

    def mediated(self, layer: int, *, split: str = CONFIRMATION) -> Estimate:
        """The share of the head's Delta that the direct path into `layer` carries.

        Raises ratios.RatioUndefined if the interval of the head's Delta is not wholly above 0 and
        the numerical noise.
        """
        rng = generator(
            self.seed,
            f"{self.model} {self.condition} {split} path {head_name(self.head)} to {layer}",
        )
        whole = self.total(split)
        part, clusters = self.through(layer, split), self.clusters(split)
        return ratio_interval(part, whole, clusters, rng, noise=self.noise())

    def share(self, bound: float, *, split: str = CONFIRMATION) -> Floor:
        """A share of the head's Delta with its noise, as the bound for `mediated`."""
        return self.share_of(bound, float(self.total(split).mean()))

    def profile(self, split: str = CONFIRMATION) -> dict[int, float]:
        """The share by receiver, without intervals."""
        whole = float(self.total(split).sum())
        return {layer: float(self.through(layer, split).sum()) / whole for layer in self.receivers}
