"""What claims read about one model: its runs as sweeps, coalitions, patches, paths and effects."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from tinyablation.corpora.examples import CONFIRMATION, SPLITS
from tinyablation.errors import TinyAblationError
from tinyablation.heads import Head
from tinyablation.interventions.batteries import (
    PATCHED,
    PATCHED_UNKNOWN,
    AnyBattery,
    Patching,
    Paths,
    Sample,
    one_head,
)
from tinyablation.interventions.head_sets import (
    Circuit,
    CopySuppressors,
    HeadSets,
    Subsets,
    TrioZeroed,
)
from tinyablation.interventions.listed import chosen_sets
from tinyablation.interventions.tracing import Tracing
from tinyablation.measurement.protocols import PUBLISHED, baseline_of_heads
from tinyablation.measurement.text_readings import N_PASSAGES
from tinyablation.memo import Memo
from tinyablation.records.conditions import CONDITIONS

if TYPE_CHECKING:
    import pandas

    from tinyablation.analysis.attention import Attention
    from tinyablation.analysis.circuits import CircuitEffects
    from tinyablation.analysis.coalitions import Coalitions
    from tinyablation.analysis.copy_suppression import Suppression
    from tinyablation.analysis.direct_effects import DirectEffects
    from tinyablation.analysis.effects import Effects
    from tinyablation.analysis.knockouts import Knockouts
    from tinyablation.analysis.layer_removal import LayerRemoval
    from tinyablation.analysis.patching import Patches
    from tinyablation.analysis.path_patching import PathEffects
    from tinyablation.analysis.successors import SuccessorScores
    from tinyablation.analysis.sweeps import Sweep
    from tinyablation.analysis.tracing import Trace
    from tinyablation.analysis.weight_diagonals import DiagonalShares
    from tinyablation.measurement.bench import Bench
    from tinyablation.measurement.diagonal_readings import WeightDiagonals
    from tinyablation.measurement.interface import CorpusFree, Directions
    from tinyablation.measurement.screening import Screening
    from tinyablation.runs.store import Run


FEWEST_CLUSTERS = 2  # of either split, for an interval
# Sample.pairs -> what the corrupt prompts are.
CORRUPT_PROMPTS = {"own": "of the corpus", "unknown": "about unknown things"}


class MirroredPairs(TinyAblationError):
    """Every corrupt prompt is the clean one of another pair: the two directions cannot differ."""


class Findings:
    """Requests runs from a bench and caches the objects that claims read."""

    def __init__(self, bench: "Bench") -> None:
        self.bench = bench
        self._memo = Memo()

    def clear(self) -> None:
        """Clear the cache."""
        self._memo.clear()

    def sweep(self, condition: str) -> "Sweep":
        """All single heads under one condition, or those that a screening chooses."""
        from tinyablation.analysis.sweeps import Sweep

        def make() -> Sweep:
            if self.bench.screening is not None:
                return self._screened(condition, self.bench.screening)
            run = self.bench.run(condition, self.bench.battery)
            return Sweep(*self.measured(condition, run), method=self.bench.method)

        return self._memo(("sweep", condition), make)

    def _screened(self, condition: str, screening: "Screening") -> "Sweep":
        from tinyablation.analysis.screened_sweeps import ScreenedSweep
        from tinyablation.measurement.screening import ScreenedHeads, obtain_plan

        plan = obtain_plan(self.bench, condition, screening)
        run = self.bench.run(condition, ScreenedHeads(plan.measured, plan.name))
        made = ScreenedSweep(*self.measured(condition, run), method=self.bench.method, plan=plan)
        return replace(made, runs=(*made.runs, plan.reading))

    def methods(self, condition: str) -> "Sweep":
        """The heads of layer 0 under every ablation method, on a subset of the examples."""
        from tinyablation.analysis.sweeps import Sweep

        def make() -> Sweep:
            return Sweep(*self.measured(condition, self.bench.run(condition, "methods")))

        return self._memo(("methods", condition), make)

    def coalitions(self, condition: str, trio: tuple[Head, ...]) -> "Coalitions":
        """Pairs and triples of the trio's layer under one condition."""
        from tinyablation.analysis.coalitions import Coalitions

        def make() -> Coalitions:
            bench = self.bench
            sets = HeadSets(trio[0][0], trio, bench.facts.n_heads, bench.method, bench.seed)
            run = bench.run(condition, sets)
            return Coalitions(*self.measured(condition, run), method=bench.method)

        return self._memo(("coalitions", condition, trio), make)

    def subsets(self, condition: str, heads: tuple[Head, ...]) -> "Coalitions":
        """Every subset of a few named heads under one condition, on every example."""
        from tinyablation.analysis.coalitions import Coalitions

        def make() -> Coalitions:
            run = self.bench.run(condition, Subsets(heads, self.bench.method))
            return Coalitions(*self.measured(condition, run), method=self.bench.method)

        return self._memo(("subsets", condition, heads), make)

    def patches(self, condition: str) -> "Patches":
        """Activation patching in both directions under one condition, on aligned pairs.

        The corrupt prompts of the project's conditions ask about unknown things; those of a user's
        own are the file's, unless they are mirrored. Raises MirroredPairs if there are no others.
        """
        from tinyablation.analysis.effects import Effects
        from tinyablation.analysis.patching import Patches

        def make() -> Patches:
            sample = self._patched_pairs(condition)
            crossed = self.bench.corpus(condition)[0].is_crossed
            parts: Literal["all", "streams"] = "streams" if crossed else "all"
            both = Patching("forward", sample, parts), Patching("reverse", sample, parts)
            self.bench.ahead(condition, *both)
            denoising, noising = (
                Effects(*self.measured(condition, self.bench.run(condition, each))) for each in both
            )
            facts = self.bench.facts
            pairs = CORRUPT_PROMPTS[sample.pairs]
            return Patches(denoising, noising, facts.n_layers, facts.n_heads, pairs)

        return self._memo(("patches", condition), make)

    def _patched_pairs(self, condition: str) -> Sample:
        """The sample of pairs to patch: none of them mirrored."""
        bench = self.bench
        mirrored = bench.sampling.mirrored(condition, PATCHED)
        if condition not in CONDITIONS and not mirrored:
            return PATCHED
        unknown = bench.rows(condition, PATCHED_UNKNOWN, aligned=True)
        corpus, _ = bench.corpus(condition)
        clusters = {(split, corpus.examples[row].cluster_id) for row, split in unknown.items()}
        halves = Counter(split for split, _ in clusters)
        if all(halves[split] >= FEWEST_CLUSTERS for split in SPLITS):
            return PATCHED_UNKNOWN
        if not mirrored:
            return PATCHED
        raise MirroredPairs(
            f"{condition}: {mirrored:.0%} of the pairs have their mirror in the corpus, so that "
            "denoising one is noising the other, and no words of as many tokens make prompts about "
            "unknown things; give pairs whose corrupt prompt is not the clean one of another"
        )

    def paths(self, condition: str, head: Head) -> "PathEffects":
        """One head's direct paths into every later layer under one condition."""
        from tinyablation.analysis.path_patching import PathEffects

        def make() -> PathEffects:
            run = self.bench.run(condition, Paths(head))
            return PathEffects(
                *self.measured(condition, run), head=head, n_layers=self.bench.facts.n_layers
            )

        return self._memo(("paths", condition, head), make)

    def direct_effects(self, condition: str) -> "DirectEffects":
        """What every head writes into LD directly, beside the total effects of the two leaders."""
        from tinyablation.analysis.direct_effects import DirectEffects, leaders
        from tinyablation.analysis.sweeps import Sweep
        from tinyablation.interventions.interventions import AblateHeads
        from tinyablation.interventions.listed import Listed
        from tinyablation.measurement.head_readings import HeadContributions

        def make() -> DirectEffects:
            wanted = HeadContributions()
            reading = self.bench.reading(condition, wanted)
            tensors = reading.tensors()
            splits = list(self.bench.rows(condition, wanted.sample).values())
            zeroed = [AblateHeads((head,)) for head in leaders(tensors["heads"], splits)]
            run = self.bench.run(condition, Listed("leaders", tuple(zeroed), sample=wanted.sample))
            total = Sweep(*self.measured(condition, run))
            return DirectEffects(total, tensors["heads"], tensors["recomputed"], (reading.name,))

        return self._memo(("direct effects", condition), make)

    def layer_removal(self, n_passages: int = N_PASSAGES) -> "LayerRemoval":
        """What the removal of each layer does to the loss on text, whatever the condition."""
        from tinyablation.analysis.layer_removal import LayerRemoval
        from tinyablation.measurement.text_readings import LayerLosses

        def make() -> LayerRemoval:
            reading = self.bench.reading_without_corpus(LayerLosses(n_passages))
            document, tensors = reading.document(), reading.tensors()
            return LayerRemoval(
                document["model"],
                tensors["whole"],
                tensors["removed"],
                tuple(document["passages"]),
                document["noise"],
                self.bench.seed,
                (reading.name,),
            )

        return self._memo(("layer removal", n_passages), make)

    def knockouts(self, condition: str, *sets: "Sequence[Head]") -> "Knockouts":
        """Sets of heads, of any layers, zeroed together on confirmation prompts."""
        from tinyablation.analysis.knockouts import Knockouts

        chosen = chosen_sets(sets, sample=Sample(CONFIRMATION))

        def make() -> Knockouts:
            return Knockouts(*self.measured(condition, self.bench.run(condition, chosen)))

        return self._memo(("knockouts", condition, chosen.name), make)

    def circuit(self, condition: str, circuit: Circuit) -> "CircuitEffects":
        """A set of heads knocked out, and alone, under one condition."""
        from tinyablation.analysis.circuits import CircuitEffects

        def make() -> CircuitEffects:
            facts = self.bench.facts
            return CircuitEffects(
                *self.measured(condition, self.bench.run(condition, circuit)),
                circuit=circuit,
                n_layers=facts.n_layers,
                n_heads=facts.n_heads,
            )

        return self._memo(("circuit", condition, circuit), make)

    def copy_suppression(self, condition: str, battery: CopySuppressors) -> "Suppression":
        """Heads ablated as a whole, and but for their copy suppression, under one condition."""
        from tinyablation.analysis.copy_suppression import Suppression

        def make() -> Suppression:
            run = self.bench.run(condition, battery)
            n_layers = self.bench.facts.n_layers
            return Suppression(*self.measured(condition, run), battery=battery, n_layers=n_layers)

        return self._memo(("copy suppression", condition, battery), make)

    def trace(self, condition: str, tracing: Tracing) -> "Trace":
        """Noise on the subjects, and clean states restored after it, under one condition."""
        from tinyablation.analysis.tracing import Trace

        def make() -> Trace:
            run = self.bench.run(condition, tracing)
            n_layers = self.bench.facts.n_layers
            return Trace(*self.measured(condition, run), tracing=tracing, n_layers=n_layers)

        return self._memo(("trace", condition, tracing), make)

    def effects(
        self, condition: str, wanted: str | AnyBattery, *, directions: "Directions | None" = None
    ) -> "Effects":
        """The run of any battery, as effects by intervention label."""
        from tinyablation.analysis.effects import Effects

        name = wanted if isinstance(wanted, str) else wanted.name

        def make() -> Effects:
            run = self.bench.run(condition, wanted, directions=directions)
            return Effects(*self.measured(condition, run))

        sample = None if isinstance(wanted, str) else wanted.sample
        return self._memo(("effects", condition, name, sample), make)

    def attention(self, wanted: "CorpusFree") -> "Attention":
        """A reading of attention scores (measurement/attention_readings.py)."""
        from tinyablation.analysis.attention import Attention

        def make() -> Attention:
            reading = self.bench.reading_without_corpus(wanted)
            return Attention(reading, (reading.name,))

        return self._memo(("attention", wanted), make)

    def diagonals(self, wanted: "WeightDiagonals") -> "DiagonalShares":
        """Where tokens stand in their own rows of heads' OV and QK circuits."""
        from tinyablation.analysis.weight_diagonals import DiagonalShares

        def make() -> DiagonalShares:
            reading = self.bench.reading_without_corpus(wanted)
            return DiagonalShares(reading, (reading.name,))

        return self._memo(("diagonals", wanted), make)

    def successors(self) -> "SuccessorScores":
        """What heads' OV circuits write for words that follow each other."""
        from tinyablation.analysis.successors import SuccessorScores
        from tinyablation.measurement.successor_readings import OrdinalCircuits

        def make() -> SuccessorScores:
            reading = self.bench.reading_without_corpus(OrdinalCircuits())
            return SuccessorScores(reading, (reading.name,))

        return self._memo(("successors",), make)

    def unfiltered(self, condition: str, heads: tuple[Head, ...]) -> "Effects":
        """These heads zeroed together on confirmation prompts of facts known and unknown."""
        chosen = one_head(heads[0]) if len(heads) == 1 else TrioZeroed(heads)
        # As many as a sweep measures.
        most = self.bench.sampling.per_cluster(condition, Sample(CONFIRMATION))
        sample = Sample(CONFIRMATION, most, among="counting")
        return self.effects(condition, replace(chosen, sample=sample))

    def measured(
        self, condition: str, run: "Run"
    ) -> tuple[str, str, "pandas.DataFrame", float, int, tuple[str, ...]]:
        """The arguments of Effects for a run."""
        table = run.table()
        if self.bench.protocol == PUBLISHED:
            table = baseline_of_heads(table)
        noise = run.noise_floor()
        return self.bench.entry.id, condition, table, noise, self.bench.seed, (run.name,)
