"""Activation patching in both directions, and the figures read from it.

Denoising puts activations of the clean prompt into the run on the corrupt one: what restores the
answer is sufficient for it. Noising puts those of the corrupt prompt into the run on the clean one:
what destroys the answer is necessary for it (Heimersheim and Nanda 2024, arXiv 2404.15255). Both
are normalised by the same fixed baselines, the unhooked LD of the two prompts of each pair:

    denoising = (LD patched - LD corrupt) / (LD clean - LD corrupt)
    noising   = (LD clean - LD patched)   / (LD clean - LD corrupt)

so that in both directions 0 is no effect and 1 the full effect, and the two can be compared.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from tinyablation.analysis.effects import Effects, EffectsError, Floats, same_examples
from tinyablation.corpora.examples import CONFIRMATION, DISCOVERY
from tinyablation.interventions.interventions import Intervention, PatchResidual, Positions
from tinyablation.statistics.intervals import (
    DegenerateInterval,
    Estimate,
    generator,
    max_t_sign_flip,
)
from tinyablation.statistics.ratios import above_zero, ratio_interval
from tinyablation.verdicts.floors import Floor, Noise

Direction = Literal["denoising", "noising"]
DIRECTIONS: tuple[Direction, ...] = ("denoising", "noising")

# Profiles that vary less over layers count as flat: a fifth of the smallest asymmetry that counts.
# Streams replaced as a whole give the donor's own logits at every layer, up to 1e-5, and windows
# that hold all of the answer do nearly; other profiles vary over layers by tenths.
FLAT = 0.01
# What counts as an asymmetry, as a share of LD clean - LD corrupt: as for effects.
ASYMMETRY_FLOOR = 0.05
# How far patching a prompt with its own activations may move LD, in logits: fp32 sums in another
# order move it by some 1e-6, a patch in a wrong place by tenths.
SHAM_TOLERANCE = 1e-4
# The same in coarser arithmetic, as a multiple of the run's numerical noise: at most 1.05 was
# measured on the embedded models in bfloat16 and float16 (most shams there change exactly nothing).
SHAM_NOISES = 4


@dataclass(frozen=True)
class Patches:
    """Both directions of patching for one model and condition, on the same aligned pairs.

    Raises EffectsError if the pairs differ, and if the sham patch has an effect.
    """

    denoising: Effects  # its baseline rows are the corrupt prompts
    noising: Effects  # its baseline rows are the clean prompts
    n_layers: int
    n_heads: int
    pairs: str = "of the corpus"  # what the corrupt prompts are, for a reader
    _cache: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        for split in (DISCOVERY, CONFIRMATION):
            same_examples(self.denoising, self.noising, split)
        allowed = self.resolution()
        if self.sham() > allowed:
            raise EffectsError(
                f"{self.model}, {self.condition}: a prompt's own activations, put back, move LD by "
                f"{self.sham():.3g} logits, where {allowed:.3g} are allowed: the engine patches at "
                "a wrong place. Measure in float32; if it stays, report it as a defect."
            )

    @property
    def model(self) -> str:
        return self.denoising.model

    @property
    def condition(self) -> str:
        return self.denoising.condition

    @property
    def runs(self) -> tuple[str, ...]:
        return (*self.denoising.runs, *self.noising.runs)

    def gap(self, split: str) -> Floats:
        """[n_examples] LD clean - LD corrupt, unhooked, which normalises both directions."""
        clean = self.noising.baseline(split)["logit_diff"].to_numpy(dtype=float)
        corrupt = self.denoising.baseline(split)["logit_diff"].to_numpy(dtype=float)
        difference: Floats = clean - corrupt
        return difference

    def whole(self, split: str) -> float:
        """The sum over examples of LD clean - LD corrupt, which every recovery is a share of.

        Raises ratios.RatioUndefined if its mean is not distinguishable from 0 and the noise.
        """
        key = ("whole", split)
        if key not in self._cache:
            rng = generator(self.denoising.seed, f"{self.model} {self.condition} {split} whole")
            gap = self.gap(split)
            above_zero(gap, self.denoising.clusters(split), rng, noise=self.noise())
            self._cache[key] = float(gap.sum())
        return float(self._cache[key])

    def noise(self) -> Noise:
        """The numerical noise of a change of LD in the noisier direction, in logits."""
        return max(self.denoising.noise(), self.noising.noise())

    def resolution(self) -> float:
        """How far a patch without effect may move LD in this arithmetic, in logits."""
        return max(SHAM_TOLERANCE, SHAM_NOISES * self.noise())

    def bound(self, share: float, *, split: str = CONFIRMATION) -> Floor:
        """A share of LD clean - LD corrupt with its noise: the smallest asymmetry that counts."""
        noisier = max(self.denoising, self.noising, key=Effects.noise)
        bound = noisier.share_of(share, float(self.gap(split).mean()))
        return Floor(bound, Noise(bound.noise, bound.where), minimum=True)

    def moved(self, direction: Direction, patch: Intervention, split: str) -> Floats:
        """[n_examples] how far the patch moves LD towards its donor, in logits."""
        if direction == "denoising":
            return self.denoising.change(patch.label, split)
        return -self.noising.change(patch.label, split)

    def share(self, direction: Direction, patch: Intervention, split: str = CONFIRMATION) -> float:
        """The normalised recovery, without an interval; ratios.RatioUndefined as `whole`."""
        return float(self.moved(direction, patch, split).sum() / self.whole(split))

    def recovery(
        self, direction: Direction, patch: Intervention, *, split: str = CONFIRMATION
    ) -> Estimate:
        """The normalised recovery, a share, with its interval over clusters.

        Raises ratios.RatioUndefined if LD clean - LD corrupt is not above 0.
        """
        moved = self.moved(direction, patch, split)
        return self._ratio(moved, split, f"{direction} recovery {patch.label}")

    def asymmetry(self, patch: Intervention, *, split: str = CONFIRMATION) -> Estimate:
        """Noising minus denoising, a share, with its interval over clusters."""
        return self._ratio(self.difference(patch, split), split, f"asymmetry {patch.label}")

    def mean_asymmetry(self, patch: Intervention, split: str = CONFIRMATION) -> float:
        """Noising minus denoising, without an interval; RatioUndefined as `whole`."""
        return float(self.difference(patch, split).sum() / self.whole(split))

    def profile(
        self, direction: Direction, patch_of: Callable[[int], Intervention], split: str
    ) -> list[float]:
        """The normalised recovery by layer."""
        return [self.share(direction, patch_of(layer), split) for layer in range(self.n_layers)]

    def most_asymmetric(self, candidates: Sequence[Intervention]) -> Intervention:
        """The patch by which noising exceeds denoising most, on discovery."""
        scores = [self.mean_asymmetry(patch, DISCOVERY) for patch in candidates]
        return candidates[int(np.argmax(scores))]

    def p_asymmetry(self, patch: Intervention) -> float:
        """p of noising that exceeds denoising, under exchange of the two directions, by cluster.

        Permutation null: if both directions have the same effect, the sign of each cluster's
        noising - denoising is arbitrary. On confirmation; a patch chosen on discovery is one test.
        """
        key = ("p", patch.label)
        if key not in self._cache:
            rng = generator(
                self.denoising.seed, f"asymmetry {self.model} {self.condition} {patch.label}"
            )
            values = self.difference(patch)[:, None]
            (self._cache[key],) = max_t_sign_flip(
                values, self.denoising.clusters(CONFIRMATION), rng
            )
        return float(self._cache[key])

    def share_alike(self, one: Intervention, other: Intervention) -> float:
        """The share of confirmation examples in which two patches do the same, in both directions.

        The same: to within the resolution.
        """
        apart = [
            self.moved(direction, one, CONFIRMATION) - self.moved(direction, other, CONFIRMATION)
            for direction in DIRECTIONS
        ]
        return float((np.abs(apart).max(axis=0) <= self.resolution()).mean())

    def has(self, patch: Intervention) -> bool:
        """Whether it was measured: on crossed corpora no whole stream is, and no wrong donor."""
        return bool((self.noising.table["intervention"] == patch.label).any())

    def sham(self) -> float:
        """The largest |change of LD| by patches of a prompt's own activations, in logits."""
        largest = 0.0
        for effects in (self.denoising, self.noising):
            rows = effects.table[effects.table["donor"] == "self"]
            if rows.empty:
                raise EffectsError(f"{self.model}, {self.condition}: no sham patch was measured")
            clean = effects.table[effects.table["method"] == "none"].set_index("example")
            change = rows["logit_diff"].to_numpy() - clean.loc[rows["example"], "logit_diff"]
            largest = max(largest, float(np.abs(change).max()))
        return largest

    def difference(self, patch: Intervention, split: str = CONFIRMATION) -> Floats:
        """[n_examples] how much farther noising moves LD than denoising, in logits."""
        denoising, noising = (self.moved(direction, patch, split) for direction in DIRECTIONS)
        difference: Floats = noising - denoising
        # If both directions must be equal (the last stream at the last token), they differ only by
        # the order of sums. Tests divide by the spread and would turn this rounding into an effect
        # as large as any other.
        difference[np.abs(difference) <= self.resolution()] = 0.0
        return difference

    def _ratio(self, values: Floats, split: str, purpose: str) -> Estimate:
        rng = generator(self.denoising.seed, f"{self.model} {self.condition} {split} {purpose}")
        clusters = self.denoising.clusters(split)
        try:
            return ratio_interval(values, self.gap(split), clusters, rng, noise=self.noise())
        except DegenerateInterval as same:
            # The last stream, replaced at the last token, gives the donor's logits: always 1.
            return Estimate(same.value, same.value, same.value, len(values), len(set(clusters)))


def residual_patches(
    n_layers: int, positions: Sequence[Positions] = ("last", "subject"), window: int = 0
) -> list[PatchResidual]:
    """Patches of the residual stream at every layer and these positions."""
    return [
        PatchResidual(layer, window=window, positions=where)
        for where in positions
        for layer in range(n_layers)
    ]


def is_flat(profile: Sequence[float]) -> bool:
    """Whether an effect is the same at every layer, which indicates an artefact.

    If the figure cannot depend on the layer (whole streams replaced, all of the answer in what is
    patched, or another position read than the one patched), it is no evidence about a layer (P3).
    """
    if len(profile) < 2:
        raise EffectsError("a profile over fewer than two layers is neither flat nor not")
    return bool(np.ptp(profile) <= FLAT)
