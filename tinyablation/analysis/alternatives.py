"""The tables of a model and condition as one analysis of them sees them.

An analysis is one choice of each of four factors: how heads are ablated (method), what is read off
the output (metric), which wordings of the prompts count (template), and which fact clusters choose
heads and which confirm (split). The choices are made in the table itself, so that whatever asks a
sweep or coalitions can ask of any analysis: only rows of the method and of the wordings are left,
the splits are the drawn ones, and the metric's column stands in the place of `logit_diff`, so that
"Delta > 0" keeps its meaning: the target gains.

Under KL it has another meaning, because KL has no sign: "the head changes the output by more than
the floor", "it changes it more than its rival does", whichever way. A head whose ablation lowers LD
can then count as a suppressor. That is what an agreement under KL, or its lack, tells: whether a
verdict rests on the direction of the change or on its size.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tinyablation.analysis.coalitions import Coalitions
from tinyablation.analysis.effects import Effects, EffectsError, Floats
from tinyablation.analysis.sweeps import Sweep
from tinyablation.corpora.examples import CONFIRMATION, SPLITS
from tinyablation.errors import TinyAblationError
from tinyablation.statistics.intervals import Estimate, generator
from tinyablation.verdicts.verdicts import EFFECT_SHARE, Floor, Noise, effect_floor

if TYPE_CHECKING:
    import pandas

    from tinyablation.corpora.examples import Example

# Fewest clusters in either split. The coverage of cluster_interval is measured from 8 on (.89 to
# .96, see there); with 3 it falls to .84. And 2^8 sign flips can still give a p of 1/256.
LEAST_CLUSTERS = 8
REDRAWN = 2  # splits drawn anew, beside the registered one: the least that can disagree among them

ALL, REGISTERED = "all", "registered"
PATCHED = "patched"  # the method of what is no ablation: patches of activations, and paths
# What tells an example. Not its number: runs of other splits number their examples otherwise.
EXAMPLE = ("clean", "target", "foil")
FACTORS = ("method", "metric", "template", "split")


class MultiverseError(TinyAblationError):
    """What was redone is not the claim that was judged, so that nothing follows for it."""


class TooFewClusters(EffectsError):
    """An analysis leaves too few clusters in a split for an interval."""


class Metric(NamedTuple):
    """What takes the place of the logit difference, and which change of it counts.

    sign * column is the figure, so that a larger one is better for the target (KL: farther from the
    clean output). Where a claim asks for more than a share of the clean LD, it asks for more than
    that share of the clean mean of `whole`, plus `least`, in the metric's unit. verified: whether a
    run's verification tells how far arithmetic moves the column.
    """

    column: str
    sign: int
    whole: str
    least: float = 0.0
    verified: bool = True


LD = "LD"
METRICS: Mapping[str, Metric] = {
    LD: Metric("logit_diff", 1, "logit_diff"),
    "probability": Metric("target_probability", 1, "target_probability"),
    # Places counted from 1: 5 % of the mean place. A target that is mostly on top, whose mean rank
    # is near 0, must then move by a place on one prompt in twenty.
    "rank": Metric("target_rank", -1, "target_rank", 1.0, verified=False),
    # The clean KL is 0. KL is in nats and so is the entropy of the output that it is taken from:
    # 5 % of the clean entropy, as claims about the entropy itself ask for (G.1).
    "KL": Metric("kl", 1, "entropy"),
}


class Analysis(NamedTuple):
    """One choice of each factor."""

    method: str
    metric: str
    template: str
    split: str

    @property
    def name(self) -> str:
        return " · ".join(self)


# --- tables in which the choices are made ---------------------------------------------------------


@dataclass(frozen=True)
class _ByMetric(Effects):
    """Effects of a table that has a metric in the place of LD, asked by several claims."""

    metric: str = LD

    def floor(
        self,
        split: str = CONFIRMATION,
        *,
        column: str = "logit_diff",
        share: float = EFFECT_SHARE,
    ) -> Floor:
        """As Effects.floor; of the metric, the share of its whole (see Metric), in its unit."""
        if column != "logit_diff":
            return super().floor(split, column=column, share=share)
        metric = METRICS[self.metric]
        whole = metric.least + abs(float(self.baseline(split)[metric.whole].mean()))
        return effect_floor(whole, self.noise(), share)

    def interval(self, values: Floats, split: str, purpose: str) -> Estimate:
        """As Effects.interval, once per purpose: the same draws would come again."""
        key = ("interval", split, purpose)
        if key not in self._cache:
            self._cache[key] = super().interval(values, split, purpose)
        found: Estimate = self._cache[key]
        return found


@dataclass(frozen=True)
class AnalysedSweep(_ByMetric, Sweep):
    """A sweep as one analysis sees it."""

    @property
    def single(self) -> "pandas.DataFrame":
        # Not kept: 144 copies of a table of 384 heads (36 MB) would be 5 GB.
        return self.table[self.table["head"] >= 0]


@dataclass(frozen=True)
class AnalysedCoalitions(_ByMetric, Coalitions):
    """Head sets as one analysis sees them."""


@dataclass(frozen=True)
class Source:
    """What one measurement that a claim rests on is made from anew.

    own: as the claim was given it. by_method: by ablation method, the same interventions measured
    on both splits (one table may hold several methods). tolerance: how far two measurements of one
    LD may lie apart, as a share of the largest and of 1 at least (measurement.TOLERANCES). fixed:
    the table is taken as it is, so that no method is chosen in it: it shows methods beside one
    another, or what is no ablation.
    """

    own: Effects
    by_method: Mapping[str, Effects]
    tolerance: float
    fixed: bool = False

    @classmethod
    def patched(cls, own: Effects, tolerance: float) -> "Source":
        """Of what no ablation method can be chosen for."""
        return cls(own, {PATCHED: own}, tolerance, fixed=True)

    @property
    def method(self) -> str:
        """The ablation method as registered."""
        return self.own.method if isinstance(self.own, Sweep | Coalitions) else PATCHED

    def rows(self, method: str) -> "pandas.DataFrame":
        """The rows of one ablation method on both splits, and the unhooked model's beside them."""
        table = self.by_method[method].table
        return table if self.fixed else table[table["method"].isin((method, "none"))]

    @cached_property
    def doubles(self) -> dict[str, str]:
        """Method -> the earlier one that it equals: zero_folded is zero in a model without biases.

        Compared head set by head set and example by example, within the tolerance.
        """
        found: dict[str, str] = {}
        for method in self.by_method:
            for other in self.by_method:
                if other == method:
                    break
                if other not in found and self._agree(self._ablated(other), self._ablated(method)):
                    found[method] = other
                    break
        return found

    def require_same(self, what: str) -> None:
        """MultiverseError if what was measured for this differs from what the claim was given."""
        again = self.by_method[self.method]
        if again is self.own:
            return
        for method in ("none", self.method):
            own = self.own.table[self.own.table["method"] == method]
            if not self._agree(own, self._ablated(self.method, method)):
                raise MultiverseError(
                    f"{self.own.model}, {self.own.condition}: {what} of "
                    f"{', '.join(self.own.runs)} differs by more than {self.tolerance:g} of the "
                    f"largest LD from {', '.join(again.runs)}, which "
                    "measured the same: remove both runs and measure again"
                )

    def _ablated(self, of: str, method: str = "") -> "pandas.DataFrame":
        table = self.by_method[of].table
        return table[table["method"] == (method or of)]

    def _agree(self, first: "pandas.DataFrame", second: "pandas.DataFrame") -> bool:
        """Whether LD is the same wherever both have it; MultiverseError where they never do."""
        key = ["heads", *EXAMPLE]
        one, other = (
            rows.drop_duplicates(key).set_index(key)["logit_diff"] for rows in (first, second)
        )
        shared = one.index.intersection(other.index)
        if shared.empty:
            raise MultiverseError(
                f"{self.own.model}, {self.own.condition}: two measurements of one thing share no "
                "heads and example"
            )
        a, b = one.loc[shared].to_numpy(dtype=float), other.loc[shared].to_numpy(dtype=float)
        return bool(np.abs(a - b).max() <= self.tolerance * max(1.0, float(np.abs(a).max())))


def of_examples(effects: Effects, wanted: Effects) -> Effects:
    """The first measurement, of the examples that the second has."""
    from pandas import MultiIndex

    own, kept = (MultiIndex.from_frame(e.table[[*EXAMPLE]]) for e in (effects, wanted))
    return replace(effects, table=effects.table[own.isin(kept)], _cache={})


def family(template_id: str) -> str:
    """The family of a wording "prefix.frame": its frame, how it asks.

    A prefix only opens the sentence ("In short,"), and the corpora use neutral ones.
    """
    return template_id.partition(".")[2] or template_id


def redrawn_splits(
    examples: Sequence["Example"], seed: int, condition: str
) -> dict[str, dict[str, str]]:
    """REDRAWN splits drawn anew: option -> cluster_id -> discovery or confirmation.

    As the corpora draw theirs (pairing.assign): half and half, within each relation, which a
    cluster's id begins with, and each wording. Clusters that share a fact or a prompt stay
    together.
    """
    import networkx

    from tinyablation.corpora.pairs import assign

    graph = networkx.Graph()
    wordings: dict[str, set[str]] = {}
    for example in examples:
        cluster = ("cluster", example.cluster_id)
        graph.add_edge(cluster, ("fact", example.fact_id))
        graph.add_edge(cluster, ("prompt", example.clean))
        wordings.setdefault(example.cluster_id, set()).add(example.template_id)
    # In the order of the examples, so that the draw is the same in every process.
    units = [
        tuple(name for name in wordings if ("cluster", name) in members)
        for members in networkx.connected_components(graph)
    ]

    def wording(unit: tuple[str, ...]) -> str:
        return " ".join(sorted({text for cluster in unit for text in wordings[cluster]}))

    def stratum(unit: tuple[str, ...]) -> str:
        return f"{wording(unit)} / {unit[0].partition('/')[0]}"

    # Strata of one wording stand together: `assign` takes the splits in turn from one to the next.
    ordered = sorted(units, key=lambda unit: (stratum(unit), unit))
    return {
        f"redrawn {number}": {
            cluster: split
            for unit, split in assign(
                ordered, stratum, generator(seed, f"split {number} of {condition}")
            )
            for cluster in unit
        }
        for number in range(1, REDRAWN + 1)
    }


class Analyses:
    """The tables of one model as each analysis sees them, shared by its claims.

    splits: by condition, what redrawn_splits gives. Made when asked for, and kept: they hold what
    claims ask again, such as intervals and corrected p.
    """

    def __init__(self, splits: Mapping[str, Mapping[str, Mapping[str, str]]]) -> None:
        self.splits = splits
        self._rows: dict[Hashable, pandas.DataFrame] = {}
        self._made: dict[Hashable, Effects] = {}

    @property
    def redrawn(self) -> tuple[str, ...]:
        """The names of the splits that were drawn anew."""
        return tuple(next(iter(self.splits.values()), {}))

    def of(self, name: str, source: Source, analysis: Analysis) -> Effects:
        """What the measurement of that name holds under one analysis; TooFewClusters."""
        analysis = analysis._replace(method=source.method if source.fixed else analysis.method)
        key = (name, source.own.runs, analysis)
        if key not in self._made:
            self._made[key] = self._make(name, source, analysis)
        return self._made[key]

    def _make(self, name: str, source: Source, analysis: Analysis) -> Effects:
        metric = METRICS[analysis.metric]
        effects = source.by_method[analysis.method]
        table = self._chosen(name, source, analysis)
        # pandas copies on write: only the two columns are new.
        table = table.assign(logit_diff=metric.sign * table[metric.column].astype(float))
        if analysis.split != REGISTERED:
            drawn = self.splits[source.own.condition][analysis.split]
            table = table.assign(split=table["cluster_id"].map(drawn))
        for split in SPLITS:
            count = table.loc[table["split"] == split, "cluster_id"].nunique()
            if count < LEAST_CLUSTERS:
                raise TooFewClusters(f"{count} clusters in {split}, {LEAST_CLUSTERS} are wanted")
        noise = _noise_of(effects, metric)
        plain = (effects.model, effects.condition, table, noise, effects.seed, effects.runs)
        if isinstance(source.own, Sweep):
            return AnalysedSweep(*plain, method=_method(analysis), metric=analysis.metric)
        if isinstance(source.own, Coalitions):
            return AnalysedCoalitions(*plain, method=_method(analysis), metric=analysis.metric)
        return replace(effects, table=table, noise_floor=noise, _cache={})

    def _chosen(self, name: str, source: Source, analysis: Analysis) -> "pandas.DataFrame":
        """The rows of a method and template family, shared by metrics and splits."""
        key = (name, source.own.runs, analysis.method, analysis.template)
        if key not in self._rows:
            rows = source.rows(analysis.method)
            if analysis.template != ALL:
                rows = rows[rows["template_id"].map(family) == analysis.template]
            self._rows[key] = rows
        return self._rows[key]


def _method(analysis: Analysis) -> Any:
    return analysis.method  # one of METHODS: a Source is made of them


def _noise_of(effects: Effects, metric: Metric) -> Noise:
    """The noise of a table that has the metric in the place of LD, in the metric's unit."""
    noise = effects.noise(metric.column)
    # A rank is a whole number: in float32 two logits must lie within 1e-5 of one another for
    # arithmetic to move it, and in other dtypes the analysis is not made (see fixtures/).
    own = float(noise) if metric.verified else 0.0
    return Noise(own, noise.where, {**noise.columns, "logit_diff": own})
