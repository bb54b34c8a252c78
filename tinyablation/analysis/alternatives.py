"""The tables of a model and condition under alternative analyses.

An analysis is one choice for each of four factors: how heads are ablated (method), what is read
from the output (metric), which wordings of the prompts count (template), and which fact clusters
select heads and which confirm (split). The choices are applied to the table itself, so that code
for a sweep or coalitions works for any analysis: only rows of the method and wordings remain, the
splits are the drawn ones, and the metric's column replaces `logit_diff`, so that "Delta > 0" keeps
its meaning: the target gains.

Under KL the meaning differs, because KL has no sign: "the head changes the output by more than the
floor", "it changes it more than its rival does", in either direction. A head whose ablation lowers
LD can then count as a suppressor. So agreement under KL shows whether a verdict rests on the
direction of the change or on its size.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tinyablation.analysis.coalitions import Coalitions
from tinyablation.analysis.effects import Effects, EffectsError, Floats
from tinyablation.analysis.sweeps import Sweep
from tinyablation.corpora.examples import SPLITS
from tinyablation.errors import TinyAblationError
from tinyablation.statistics.intervals import Estimate, generator
from tinyablation.verdicts.floors import Noise
from tinyablation.verdicts.verdicts import CONFIDENCE

if TYPE_CHECKING:
    import pandas

    from tinyablation.corpora.examples import Example

# Fewest clusters in either split. The coverage of cluster_interval was measured from 8 clusters on
# (.89 to .96, see there); with 3 it falls to .84. And 2^8 sign flips can still give a p of 1/256.
LEAST_CLUSTERS = 8
REDRAWN = 2  # new splits besides the registered one: the fewest that can disagree with each other

ALL, REGISTERED = "all", "registered"
PATCHED = "patched"  # the method of patches and paths, which are not ablations
# Columns that identify an example. Not its number, which depends on the splits of the run.
EXAMPLE = ("clean", "target", "foil")
FACTORS = ("method", "metric", "template", "split")


class MultiverseError(TinyAblationError):
    """The analysis redone is not that of the judged claim, so it says nothing about its verdict."""


class TooFewClusters(EffectsError):
    """An analysis leaves too few clusters in a split for an interval."""


class Metric(NamedTuple):
    """A replacement of the logit difference, and the change of it that counts.

    sign * column is the figure, so that larger is better for the target (KL: farther from the clean
    output). Where a claim requires more than a share of the clean LD, it now requires more than
    that share of the clean mean of `whole`, plus `least`, in the metric's unit. verified: whether a
    run's verification measures the numerical noise of the column.
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
    # The clean KL is 0. KL is in nats like the entropy of the clean output, so it must exceed 5 %
    # of the clean entropy, as in claims about the entropy itself (G.1).
    "KL": Metric("kl", 1, "entropy"),
}


class Analysis(NamedTuple):
    """One choice for each factor."""

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
    """Effects of a table in which a metric replaces LD, shared by several claims."""

    metric: str = LD

    def whole(self, split: str, column: str = "logit_diff") -> Floats:
        """As Effects.whole; for the metric, of its whole (see Metric), in its unit."""
        if column != "logit_diff":
            return super().whole(split, column)
        metric = METRICS[self.metric]
        values = self.baseline(split)[metric.whole].to_numpy(dtype=float)
        signed: Floats = metric.least + (values if values.mean() >= 0 else -values)
        return signed

    def interval(
        self, values: Floats, split: str, purpose: str, confidence: float = CONFIDENCE
    ) -> Estimate:
        """As Effects.interval, but cached: with one purpose the draws would be the same."""
        key = ("interval", split, purpose, confidence)
        if key not in self._cache:
            self._cache[key] = super().interval(values, split, purpose, confidence)
        found: Estimate = self._cache[key]
        return found


@dataclass(frozen=True)
class AnalysedSweep(_ByMetric, Sweep):
    """A sweep under one analysis."""

    @property
    def single(self) -> "pandas.DataFrame":
        # Not cached: 144 copies of a table of 384 heads (36 MB) would take 5 GB.
        return self.table[self.table["head"] >= 0]


@dataclass(frozen=True)
class AnalysedCoalitions(_ByMetric, Coalitions):
    """Head sets under one analysis."""


@dataclass(frozen=True)
class Source:
    """The tables from which a measurement that a claim rests on is redone.

    own: the measurement as given to the claim. by_method: by ablation method, the same
    interventions measured on both splits (one table may hold several methods). tolerance: how far
    two measurements of one LD may differ, as a share of the largest, or of 1 if that is larger
    (precision.TOLERANCES). fixed: the table is used as it is and no method is chosen in it, because
    it compares methods, or contains no ablations.
    """

    own: Effects
    by_method: Mapping[str, Effects]
    tolerance: float
    fixed: bool = False

    @classmethod
    def patched(cls, own: Effects, tolerance: float) -> "Source":
        """The source of a measurement for which no ablation method can be chosen."""
        return cls(own, {PATCHED: own}, tolerance, fixed=True)

    @property
    def method(self) -> str:
        """The registered ablation method."""
        return self.own.method if isinstance(self.own, Sweep | Coalitions) else PATCHED

    def rows(self, method: str) -> "pandas.DataFrame":
        """The rows of one ablation method and of the unhooked model, on both splits."""
        table = self.by_method[method].table
        return table if self.fixed else table[table["method"].isin((method, "none"))]

    @cached_property
    def doubles(self) -> dict[str, str]:
        """Method -> the earlier one that it equals: zero_folded is zero in a model without biases.

        Compared by head set and example, within the tolerance.
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
        """Raise MultiverseError if the remeasurement differs from what the claim was given."""
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
        """Whether LD agrees on all common rows; MultiverseError if there are none."""
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
    """The first measurement, restricted to the examples of the second."""
    from pandas import MultiIndex

    own, kept = (MultiIndex.from_frame(e.table[[*EXAMPLE]]) for e in (effects, wanted))
    return replace(effects, table=effects.table[own.isin(kept)], _cache={})


def family(template_id: str) -> str:
    """The family of a wording "prefix.frame": its frame, which is how it asks.

    A prefix only opens the sentence ("In short,"), and those of the corpora are neutral.
    """
    return template_id.partition(".")[2] or template_id


def redrawn_splits(
    examples: Sequence["Example"], seed: int, condition: str
) -> dict[str, dict[str, str]]:
    """REDRAWN new splits: option -> cluster_id -> discovery or confirmation.

    Drawn like those of the corpora (pairs.assign): half and half within each relation (the first
    part of a cluster's id) and each wording. Clusters that share a fact or a prompt stay together.
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

    # Strata of one wording are neighbours: `assign` continues its alternation across strata.
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
    """The tables of one model under each analysis, shared by its claims.

    splits: by condition, the result of redrawn_splits. Tables are made on demand and cached,
    together with intervals and corrected p that several claims use.
    """

    def __init__(self, splits: Mapping[str, Mapping[str, Mapping[str, str]]]) -> None:
        self.splits = splits
        self._rows: dict[Hashable, pandas.DataFrame] = {}
        self._made: dict[Hashable, Effects] = {}

    @property
    def redrawn(self) -> tuple[str, ...]:
        """The names of the redrawn splits."""
        return tuple(next(iter(self.splits.values()), {}))

    def of(self, name: str, source: Source, analysis: Analysis) -> Effects:
        """The measurement of that name under one analysis; may raise TooFewClusters."""
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
        table = table.assign(logit_diff=metric.sign * table[metric.column])
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
    """The noise of a table in which the metric replaces LD, in the metric's unit."""
    noise = effects.noise(metric.column)
    # A rank is an integer: in float32 rounding moves it only if two logits are within 1e-5 of each
    # other, and in other dtypes the analysis is not made (see plugin/multiverse.py).
    own = float(noise) if metric.verified else 0.0
    return Noise(own, noise.where, {**noise.columns, "logit_diff": own})
