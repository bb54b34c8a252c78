"""Effects: paired changes by example, with intervals over clusters.

Delta = changed - unhooked, of any column of the table, paired by example.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tinyablation.corpora.examples import BOTH, CONFIRMATION
from tinyablation.errors import TinyAblationError
from tinyablation.statistics.intervals import (
    DegenerateInterval,
    Estimate,
    cluster_interval,
    generator,
)
from tinyablation.statistics.ratios import ratio_interval
from tinyablation.verdicts.floors import EFFECT_SHARE, Floor, Noise, effect_floor
from tinyablation.verdicts.verdicts import CONFIDENCE

if TYPE_CHECKING:
    import pandas

    from tinyablation.interventions.interventions import AblateHeads

Floats = NDArray[np.float64]
EXTREMES = 5  # prompts shown with the largest effects, in each direction


class EffectsError(TinyAblationError):
    """A measurement's table does not contain what was requested."""


@dataclass(frozen=True)
class Effects:
    """A run's per-example table (tables.PER_EXAMPLE_COLUMNS), for one model and condition.

    noise_floor: in logits, a Noise if it was measured; runs: the names of the run directories it
    comes from.
    """

    model: str
    condition: str
    table: "pandas.DataFrame" = field(repr=False)
    noise_floor: float
    seed: int = 0
    runs: tuple[str, ...] = ()
    _cache: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)

    def of_split(self, rows: "pandas.DataFrame", split: str) -> "pandas.DataFrame":
        """The rows whose examples are of a split; BOTH: all rows."""
        return rows if split == BOTH else rows[rows["split"] == split]

    def baseline(self, split: str = BOTH) -> "pandas.DataFrame":
        """Rows of the unhooked model, examples in order."""
        key = ("baseline", split)
        if key not in self._cache:
            rows = self.of_split(self.table[self.table["method"] == "none"], split)
            self._cache[key] = rows.sort_values("example").reset_index(drop=True)
        found: pandas.DataFrame = self._cache[key]
        return found

    def clusters(self, split: str) -> tuple[str, ...]:
        """The cluster of every example of the split, in order."""
        return self._labels("cluster_id", split)

    def halves(self, split: str) -> tuple[str, ...]:
        """The half of every example of the split, in order: one name, but for BOTH."""
        return self._labels("split", split)

    def _labels(self, column: str, split: str) -> tuple[str, ...]:
        key = ("labels", column, split)
        if key not in self._cache:
            self._cache[key] = tuple(map(str, self.baseline(split)[column].tolist()))
        found: tuple[str, ...] = self._cache[key]
        return found

    def strata(self, split: str) -> tuple[str, ...]:
        """The wording and cell of every example of the split, in order: fixed by the corpus."""
        key = ("strata", split)
        if key not in self._cache:
            clean = self.baseline(split)
            pairs = zip(clean["template_id"], clean["cell"], strict=True)
            self._cache[key] = tuple(f"{wording} {cell}" for wording, cell in pairs)
        found: tuple[str, ...] = self._cache[key]
        return found

    def values(self, label: str, split: str, column: str = "logit_diff") -> Floats:
        """[n_examples] one column under one intervention, given by its label, in example order."""
        key = ("wide", split, column)
        if key not in self._cache:
            rows = self.of_split(self.table, split)
            wide = rows.pivot(index="intervention", columns="example", values=column)
            wide = wide.sort_index(axis=1)
            self._cache[key] = (
                {name: row for row, name in enumerate(wide.index)},
                wide.to_numpy(dtype=float),
            )
        place, numbers = self._cache[key]
        if label not in place:
            raise EffectsError(f"{self.model}, {self.condition}: {label!r} was not measured")
        found: Floats = numbers[place[label]]
        return found

    def change(self, label: str, split: str, column: str = "logit_diff") -> Floats:
        """[n_examples] changed - unhooked of one column under one intervention."""
        key = ("clean", split, column)
        if key not in self._cache:
            self._cache[key] = self.baseline(split)[column].to_numpy(dtype=float)
        difference: Floats = self.values(label, split, column) - self._cache[key]
        return difference

    def floor(
        self,
        split: str = CONFIRMATION,
        *,
        column: str = "logit_diff",
        share: float = EFFECT_SHARE,
    ) -> Floor:
        """The smallest effect that counts: 5 % of the clean LD, .01 logits, or the numerical noise.

        The largest of the three. For another column likewise, in its unit.
        """
        return effect_floor(float(self.whole(split, column).mean()), self.noise(column), share)

    def whole(self, split: str, column: str = "logit_diff") -> Floats:
        """[n_examples] the clean figures that a share is taken of, signed to have a mean >= 0."""
        clean = self.baseline(split)[column].to_numpy(dtype=float)
        signed: Floats = clean if clean.mean() >= 0 else -clean
        return signed

    def margin(
        self,
        values: Floats,
        split: str,
        purpose: str,
        *,
        column: str = "logit_diff",
        share: float = EFFECT_SHARE,
        confidence: float = CONFIDENCE,
    ) -> Estimate:
        """The mean of values [n_examples] minus a share of each example's own clean figure.

        Above 0 exactly if the mean lies above floor(split), where the floor is the share; but the
        clean figures are a sample like the values, and this interval allows for that. share may be
        negative: for values that are to lie below -5 %.
        """
        beyond = values - share * self.whole(split, column)
        try:
            return self.interval(beyond, split, f"{purpose} beyond {share:g}", confidence)
        except DegenerateInterval as same:
            if values.any():
                raise
            # Nothing is changed, and the clean figures are all alike.
            clusters = len(set(self.clusters(split)))
            return Estimate(same.value, same.value, same.value, len(values), clusters)

    def of_clean(
        self,
        values: Floats,
        split: str,
        purpose: str,
        *,
        column: str = "logit_diff",
        confidence: float = CONFIDENCE,
    ) -> Estimate:
        """The mean of values [n_examples] as a share of the mean clean figure of the column.

        For margins that are shares of it (judge_equivalent), of which the interval allows for the
        clean figures' being a sample too. Raises ratios.RatioUndefined if their mean is not above 0
        and the numerical noise: where the model prefers the wrong answer, there is none to lose.
        """
        rng = generator(self.seed, f"{self.model} {self.condition} {split} {purpose} of clean")
        whole = self.baseline(split)[column].to_numpy(dtype=float)
        noise = self.noise(column)
        return self.ratio(values, whole, split, rng, noise=noise, confidence=confidence)

    def ratio(
        self,
        above: Floats,
        below: Floats,
        split: str,
        rng: np.random.Generator,
        *,
        noise: float,
        confidence: float = CONFIDENCE,
    ) -> Estimate:
        """The ratio of two means of [n_examples] with its interval over clusters.

        The interval has no width where the ratio is the same in every cluster. noise: in the
        denominator. Raises ratios.RatioUndefined as ratio_interval does.
        """
        clusters, strata = self.clusters(split), self.strata(split)
        try:
            return ratio_interval(
                above, below, clusters, rng, strata=strata, confidence=confidence, noise=noise
            )
        except DegenerateInterval as same:
            return Estimate(same.value, same.value, same.value, len(above), len(set(clusters)))

    def noise(self, column: str = "logit_diff") -> Noise:
        """The numerical noise in a change of a column, in its unit."""
        own = self.noise_floor
        return (own if isinstance(own, Noise) else Noise(own)).of(column)

    def zero(self, column: str = "logit_diff") -> Floor:
        """A bound of 0 for a change or a lead, with the column's noise."""
        return Floor(0.0, self.noise(column))

    def share_of(self, bound: float, whole: float) -> Floor:
        """A share of a whole (in logits) with its noise, as the bound for a ratio."""
        noise = self.noise()
        return Floor(bound, Noise(noise / abs(whole), noise.where) if whole else Noise(0.0))

    def interval(
        self, values: Floats, split: str, purpose: str, confidence: float = CONFIDENCE
    ) -> Estimate:
        """The mean of values [n_examples] with its interval over clusters.

        If nothing changes at all, the interval is [0, 0].
        """
        clusters = self.clusters(split)
        rng = generator(self.seed, f"{self.model} {self.condition} {split} {purpose}")
        try:
            return cluster_interval(
                values, clusters, rng, strata=self.strata(split), confidence=confidence
            )
        except DegenerateInterval as same:
            if same.value != 0:
                raise
            return Estimate(0.0, 0.0, 0.0, len(values), len(set(clusters)))

    def largest(
        self,
        deltas: Floats,
        split: str,
        n: int,
        done: "Callable[[int], AblateHeads] | None" = None,
    ) -> list[dict[str, object]]:
        """The n prompts with the largest Delta LD in each direction (prompts.Extreme).

        done: what was ablated, by the place of an example in the split, where it was heads. Then
        each has also "corpus" and "ablation", so that its next tokens can be measured
        (plugin/next_tokens.py).
        """
        clean = self.baseline(split)

        def asked(row: int) -> dict[str, object]:
            return {} if done is None else {"corpus": self.condition, "ablation": done(row)}

        order = np.argsort(-deltas, kind="stable")
        n = min(n, len(order) // 2)
        return [
            {
                "prompt": clean["clean"][row],
                "target": clean["target"][row],
                "foil": clean["foil"][row],
                "clean_ld": float(clean["logit_diff"][row]),
                "delta": float(deltas[row]),
                "split": split,
                **asked(row),
            }
            for row in [*order[:n].tolist(), *order[len(order) - n :].tolist()]
        ]


def same_examples(first: Effects, second: Effects, split: str) -> Sequence[str]:
    """The clusters of two measurements; EffectsError if their examples differ."""
    one, other = first.baseline(split), second.baseline(split)
    columns = ["fact_id", "cluster_id", "template_id", "target", "foil"]
    if not one[columns].equals(other[columns]):
        raise EffectsError(
            f"{first.model} and {second.model}, {first.condition} and {second.condition}: not the "
            "same examples, so that nothing can be paired"
        )
    return first.clusters(split)
