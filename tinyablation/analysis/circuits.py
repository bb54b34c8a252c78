"""A circuit: what its heads do alone, and what is lost without them.

Wang et al. 2022 (arXiv:2211.00593): a circuit C is faithful if the model M, with every other head
ablated, keeps its LD (87 % in their section 4), and complete if for every set K of its heads C
without K is as M without K.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tinyablation.analysis.effects import Effects, Floats
from tinyablation.corpora.examples import CONFIRMATION
from tinyablation.heads import Head, heads_label
from tinyablation.interventions.head_sets import Circuit
from tinyablation.statistics.intervals import Estimate, generator
from tinyablation.statistics.ratios import ratio_interval

Heads = Sequence[Head]
_NONE = Circuit(())


@dataclass(frozen=True)
class CircuitEffects(Effects):
    """The run of a Circuit, for one model and condition."""

    circuit: Circuit = _NONE
    n_layers: int = 0
    n_heads: int = 0

    def alone(self, split: str = CONFIRMATION, *, without: Heads = ()) -> Floats:
        """[n_examples] LD of the circuit alone, or of it without some of its heads."""
        intervention = self.circuit.alone(self.n_layers, self.n_heads, tuple(without))
        return self.values(intervention.label, split)

    def knockout(self, split: str = CONFIRMATION, *, of: Heads = ()) -> Floats:
        """[n_examples] Delta LD of ablating these heads of the circuit (default: all of them)."""
        return self.change(self.circuit.without(tuple(of)).label, split)

    def faithfulness(self, *, split: str = CONFIRMATION) -> Estimate:
        """LD of the circuit alone as a share of the whole model's; 1: it does all of it.

        Raises ratios.RatioUndefined if the whole model's LD is not above 0 and the noise.
        """
        rng = generator(self.seed, f"{self.model} {self.condition} {split} {self.circuit.name}")
        clean = self.baseline(split)["logit_diff"].to_numpy(dtype=float)
        return ratio_interval(
            self.alone(split), clean, self.clusters(split), rng, noise=self.noise()
        )

    def incompleteness(self, part: Heads, *, split: str = CONFIRMATION) -> Estimate:
        """LD of the model without these heads minus that of the circuit without them, in logits.

        The circuit is complete if it is near 0 for every part of it.
        """
        model = self.values(self.circuit.without(tuple(part)).label, split)
        difference = model - self.alone(split, without=part)
        return self.interval(difference, split, f"{self.circuit.name} {heads_label(part)}")
