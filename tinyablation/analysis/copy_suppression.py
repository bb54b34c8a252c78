"""How much of a head's effect its copy suppression explains.

McDougall et al. 2023 (arXiv:2310.04625), section 3.3: with D the mean KL divergence from the
unhooked model, 1 - D(all but its copy suppression ablated) / D(the whole head ablated): 76.9 % of
GPT-2 small's head 10.7.
"""

from dataclasses import dataclass

from tinyablation.analysis.effects import Effects
from tinyablation.corpora.examples import CONFIRMATION
from tinyablation.heads import Head, head_name
from tinyablation.interventions.head_sets import CopySuppressors
from tinyablation.statistics.intervals import Estimate, generator
from tinyablation.statistics.ratios import ratio_interval

_NONE = CopySuppressors(())


@dataclass(frozen=True)
class Suppression(Effects):
    """The run of CopySuppressors, for one model and condition."""

    battery: CopySuppressors = _NONE
    n_layers: int = 0

    def explained(self, head: Head, *, direct: bool = False, split: str = CONFIRMATION) -> Estimate:
        """The share of the head's effect on the output, in KL, that its copy suppression makes.

        direct: of its direct effect alone. Raises ratios.RatioUndefined if the ablation of the
        head as a whole changes nothing beyond the noise.
        """
        whole = self.battery.ablated(head, self.n_layers, direct=direct).label
        rest = self.battery.kept(head, direct=direct).label
        lost, left = (self.values(label, split, "kl") for label in (whole, rest))
        place = f"{self.battery.name} {head_name(head)} direct {direct}"
        rng = generator(self.seed, f"{self.model} {self.condition} {split} {place}")
        clusters = self.clusters(split)
        return ratio_interval(lost - left, lost, clusters, rng, noise=self.noise("kl"))
