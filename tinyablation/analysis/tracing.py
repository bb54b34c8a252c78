"""Causal tracing: what noise on a subject takes away, and what each clean state brings back.

Meng et al. 2022 (arXiv:2202.05262), section 2.1, of the target's probability: the total effect is
that of the clean run minus that of the corrupted one; a state's indirect effect is that with the
state put back minus that of the corrupted run. Both are means over the draws of the noise first,
then over examples. Any other column of the table can be read instead, such as logit_diff.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tinyablation.analysis.effects import Effects, Floats
from tinyablation.corpora.examples import CONFIRMATION, DISCOVERY
from tinyablation.interventions.restoration import AddNoise, RestoredPart, RestoredToken
from tinyablation.interventions.tracing import Tracing
from tinyablation.statistics.intervals import Estimate, generator
from tinyablation.statistics.ratios import ratio_interval

PROBABILITY = "target_probability"
_DEFAULT = Tracing()


@dataclass(frozen=True)
class Trace(Effects):
    """The run of a Tracing, for one model and condition."""

    tracing: Tracing = _DEFAULT
    n_layers: int = 0

    def clean(self, split: str = CONFIRMATION, *, column: str = PROBABILITY) -> Floats:
        """[n_examples] a column of the unhooked model."""
        return self.baseline(split)[column].to_numpy(dtype=float)

    def corrupted(self, split: str = CONFIRMATION, *, column: str = PROBABILITY) -> Floats:
        """[n_examples] a column of the corrupted run, the mean over draws of the noise."""
        return self._mean(self.tracing.noises(), split, column)

    def total(self, *, split: str = CONFIRMATION, column: str = PROBABILITY) -> Estimate:
        """The average total effect: clean minus corrupted, in the column's unit."""
        lost = self.clean(split, column=column) - self.corrupted(split, column=column)
        return self.interval(lost, split, f"{self.tracing.name} total {column}")

    def restored(
        self,
        part: RestoredPart,
        layer: int,
        token: RestoredToken,
        *,
        split: str = CONFIRMATION,
        column: str = PROBABILITY,
    ) -> Floats:
        """[n_examples] what a state put back restores, the mean over draws of the noise."""
        states = self.tracing.restored(part, layer, token)
        return self._mean(states, split, column) - self.corrupted(split, column=column)

    def indirect(
        self,
        part: RestoredPart,
        layer: int,
        token: RestoredToken,
        *,
        split: str = CONFIRMATION,
        column: str = PROBABILITY,
    ) -> Estimate:
        """The average indirect effect of a state, in the column's unit."""
        values = self.restored(part, layer, token, split=split, column=column)
        purpose = f"{self.tracing.name} {part} {layer} {token} {column}"
        return self.interval(values, split, purpose)

    def recovered(
        self,
        part: RestoredPart,
        layer: int,
        token: RestoredToken,
        *,
        split: str = CONFIRMATION,
        column: str = PROBABILITY,
    ) -> Estimate:
        """The indirect effect of a state as a share of the total one.

        Raises ratios.RatioUndefined if the total effect is not above 0 and the noise.
        """
        lost = self.clean(split, column=column) - self.corrupted(split, column=column)
        values = self.restored(part, layer, token, split=split, column=column)
        place = f"{split} {self.tracing.name} {part} {layer} {token} {column} share"
        rng = generator(self.seed, f"{self.model} {self.condition} {place}")
        return ratio_interval(values, lost, self.clusters(split), rng, noise=self.noise(column))

    def profile(
        self,
        part: RestoredPart,
        token: RestoredToken,
        *,
        split: str = CONFIRMATION,
        column: str = PROBABILITY,
    ) -> list[float]:
        """The average indirect effect by layer, without intervals."""
        return [
            float(self.restored(part, layer, token, split=split, column=column).mean())
            for layer in range(self.n_layers)
        ]

    def peak(self, part: RestoredPart, token: RestoredToken, *, column: str = PROBABILITY) -> int:
        """The layer that restores most, chosen on the discovery split."""
        return int(np.argmax(self.profile(part, token, split=DISCOVERY, column=column)))

    def _mean(self, interventions: Sequence[AddNoise], split: str, column: str) -> Floats:
        values = [self.values(each.label, split, column) for each in interventions]
        mean: Floats = np.mean(values, axis=0)
        return mean
