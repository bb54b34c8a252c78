"""From a model and a corpus to its run: the one place where prompts, engine and store meet.

A `Bench` holds one model. It is loaded only when something has to be measured: a run found complete
in the store is read without touching torch.

What runs on an accelerator, or in less than float32, is verified by a second bench of the same
model on the CPU in float32 (`Bench.reference`).
"""

import sys
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from tinyablation.addresses import ALL_SPLITS, ENGINE_VERSION, RunConfig, digest
from tinyablation.batteries import (
    EVERYTHING,
    PER_RELATION,
    AnyBattery,
    Patching,
    Paths,
    Sample,
    Side,
    one_head,
)
from tinyablation.corpora import CONFIRMATION
from tinyablation.gate import RELATIONS, Gate
from tinyablation.head_sets import HeadSets, Subsets, TrioZeroed
from tinyablation.heads import Head
from tinyablation.holding import HeldModel
from tinyablation.interventions import AblationMethod
from tinyablation.library import Library
from tinyablation.lodging import ALONE, Sharing
from tinyablation.measurement import TRUSTED_DEVICE, TRUSTED_DTYPE
from tinyablation.protocols import CORRECTED, PUBLISHED, baseline_of_heads, pad_right
from tinyablation.registry import ModelEntry
from tinyablation.run_plans import RunPlan, plan_run
from tinyablation.runs import Run, RunStore
from tinyablation.samples import thin, thin_pairs

if TYPE_CHECKING:
    import pandas
    from torch import Tensor

    from tinyablation.coalitions import Coalitions
    from tinyablation.corpora import Corpus, Example, Split
    from tinyablation.dispatch import Dispatch
    from tinyablation.effects import Effects
    from tinyablation.own_conditions import OwnCondition
    from tinyablation.patches import Patches
    from tinyablation.paths import PathEffects
    from tinyablation.readings import AnyReading, Reading
    from tinyablation.screening import Screening
    from tinyablation.selection import Selection
    from tinyablation.sweeps import Sweep
    from tinyablation.tokenisation import Prompt
    from tinyablation.validity import Tables
    from tinyablation.verdicts import Verdict

T = TypeVar("T")
Directions = Callable[["Bench"], Mapping[str, "Tensor"]]


class Bench(HeldModel):
    """Measures one model on the corpora of its tokenizer, into a store.

    corpora: the folder with a folder of corpora per tokenizer; battery: that of `sweep`; device: a
    torch device name ("cuda:1"); dtype: the run's, the entry's when None; threads: for torch on the
    CPU, its own choice when None (a narrow model gets one of them, see holding); protocol:
    "corrected", or "published" to measure the way the study did (see protocols); share: of the fact
    clusters of each split, drawn by the seed; per_relation: of a crossed corpus, the examples of
    each relation that are swept; sharing: how this process shares the machine with
    others; screening: how sweeps choose the heads they measure, None for all; elsewhere: who
    measures what is missing, so that this process loads no model; None: this process does; own:
    conditions from files, by name.
    """

    def __init__(
        self,
        entry: ModelEntry,
        *,
        corpora: Path,
        store: RunStore,
        battery: str = "zero",
        seed: int = 0,
        device: str = TRUSTED_DEVICE,
        dtype: str | None = None,
        threads: int | None = None,
        progress: bool = False,
        protocol: str = CORRECTED,
        share: float = 1.0,
        per_relation: int = PER_RELATION,
        sharing: Sharing = ALONE,
        screening: "Screening | None" = None,
        elsewhere: "Dispatch | None" = None,
        own: "Mapping[str, OwnCondition] | None" = None,
    ) -> None:
        super().__init__(entry, device=device, dtype=dtype, threads=threads, sharing=sharing)
        self.screening = screening
        self.protocol = protocol
        self.battery = "folded" if protocol == PUBLISHED else battery
        self.method: AblationMethod = "zero_folded" if protocol == PUBLISHED else "zero"
        # Whoever waits for another process's run gives its accelerator up first.
        self.store = replace(store, before_waiting=self.make_way)
        self.seed = seed
        self.share = share
        self.per_relation = per_relation
        self.progress = progress
        self.elsewhere = elsewhere
        self.corpora = corpora
        self.library = Library(corpora, say=_say if progress else None, own=own, seed=seed)
        self.gate = Gate(self)
        self._benches: weakref.WeakSet[Bench] = weakref.WeakSet([self])  # those made by `like`, too
        self._read: dict[str, tuple[Corpus, Split]] = {}
        self._kept: dict[tuple[object, ...], object] = {}

    def make_way(self) -> None:
        """Give up what this bench, and all made from it or it from, hold of accelerators.

        Tables are kept. Models on the CPU stay, since nobody waits for their memory.
        """
        for bench in list(self._benches):
            if bench.holds_turn:
                bench.drop_model()

    def release(self) -> None:
        """Forget the model, the one that verifies it, and all tables."""
        self.drop_model()
        reference = self.__dict__.pop("reference", None)
        if reference is not None:
            reference.release()
        self._kept.clear()

    def like(self, entry: ModelEntry) -> "Bench":
        """The same bench for another model: same corpora, store, device, seed and protocol.

        The dtype is the same if one was asked for, else the other model's own.
        """
        return self._made(entry, self.device, self._asked_dtype)

    @cached_property
    def reference(self) -> "Bench":
        """This model on the CPU in float32, which verifies what others measure; itself, if it is.

        It holds nothing of an accelerator, so it takes no turns and makes way for nobody.
        """
        if self.is_trusted:
            return self
        made = self._made(self.entry, TRUSTED_DEVICE, TRUSTED_DTYPE)
        made._read = self._read
        made.__dict__["facts"] = self.facts
        self._benches.discard(made)
        return made

    def _made(self, entry: ModelEntry, device: str, dtype: str | None) -> "Bench":
        made = Bench(
            entry,
            corpora=self.corpora,
            store=self.store,
            battery=self.battery,
            seed=self.seed,
            device=device,
            dtype=dtype,
            threads=self.threads,
            progress=self.progress,
            protocol=self.protocol,
            share=self.share,
            per_relation=self.per_relation,
            sharing=self.sharing,
            screening=self.screening,
            elsewhere=self.elsewhere,
        )
        made.library = self.library
        made.described_by = self.described_by
        made._benches = self._benches
        self._benches.add(made)
        return made

    # --- what is measured ------------------------------------------------------------------------

    def corpus(self, condition: str) -> tuple["Corpus", "Split"]:
        """The examples of a condition and their split, for the model's tokenizer (see library)."""
        if condition not in self._read:
            folder = self.facts.folder
            self._read[condition] = self.library.corpus(folder, condition, self.entry.id)
        return self._read[condition]

    def per_cluster(self, condition: str, sample: Sample) -> int:
        """The most examples of a cluster that a sample holds; 0: all.

        Clusters of a crossed corpus are relations of many examples each. Where sweeps run, on known
        facts, all of them stand for `per_relation`, two for half of that (a pair of mirrors at
        least), and one for a fourth.
        """
        if not self.corpus(condition)[0].is_crossed or sample.among != "known":
            return sample.per_cluster
        if sample.per_cluster == 1:
            return max(1, self.per_relation // 4)
        # A pair of mirrors at least, so that each answer is target as often as foil.
        return max(2, self.per_relation // (2 if sample.per_cluster else 1))

    def rows(
        self, condition: str, sample: Sample = EVERYTHING, *, aligned: bool = False
    ) -> dict[int, str]:
        """Corpus row -> split of what a sample measures, in row order.

        aligned: only pairs whose two prompts have equally many tokens.
        """
        corpus, _ = self.corpus(condition)
        found = self.counting(condition, sample, aligned=aligned)
        most = self.per_cluster(condition, sample)
        if most:
            rows = list(found)
            chosen = [corpus.examples[row] for row in rows]
            if corpus.is_crossed:
                gating = RELATIONS if sample.among == "all" else 0
                kept_rows = thin_pairs(chosen, most, self.seed, clusters_by_family=gating)
            else:
                kept_rows = thin(chosen, most, self.seed)
            found = {rows[index]: found[rows[index]] for index in kept_rows}
        if corpus.is_crossed and sample.relations:
            found = self._of_some(corpus, found, sample.relations)
        if self.share == 1.0:
            return found
        from tinyablation.seeds import draw_clusters

        kept: dict[int, str] = {}
        for name in sorted(set(found.values())):
            rows = [row for row in found if found[row] == name]
            drawn = draw_clusters(
                [corpus.examples[row].cluster_id for row in rows], self.share, self.seed
            )
            kept |= {rows[int(index)]: name for index in drawn.nonzero()[0]}
        return dict(sorted(kept.items()))

    def _of_some(self, corpus: "Corpus", rows: dict[int, str], most: int) -> dict[int, str]:
        """The rows of at most so many relations of each split, drawn."""
        from tinyablation.statistics import generator

        kept: set[str] = set()
        for split in sorted(set(rows.values())):
            names = sorted({corpus.examples[row].cluster_id for row in rows if rows[row] == split})
            order = generator(self.seed, f"relations patched {split}").permutation(len(names))
            kept |= {names[int(index)] for index in order[:most]}
        return {
            row: split for row, split in rows.items() if corpus.examples[row].cluster_id in kept
        }

    def counting(self, condition: str, sample: Sample, *, aligned: bool = False) -> dict[int, str]:
        """Corpus row -> split of all that a sample may be drawn from, in row order."""
        corpus, halves = self.corpus(condition)
        selection = self._selection_for(condition, sample)
        families = self.gate.families(condition) if sample.among == "counting" else ()
        found = {
            row: name
            for row, name in sorted(halves.of_row().items())
            if sample.split in (None, name)
            and (corpus.examples[row].aligned or not aligned)
            and (selection is None or row in selection.rows)
            and (not families or corpus.examples[row].family in families)
        }
        return self._with_lenders(condition, found) if sample.lent and corpus.is_crossed else found

    def _with_lenders(self, condition: str, rows: dict[int, str]) -> dict[int, str]:
        """The rows for which a prompt of another relation, on either side, is as long."""
        lengths = self.prompt_lengths(condition)
        corpus, _ = self.corpus(condition)
        relations: dict[int, set[str]] = {}
        for row in self.counting(condition, EVERYTHING, aligned=True):
            relations.setdefault(lengths[row], set()).add(corpus.examples[row].cluster_id)
        return {
            row: name
            for row, name in rows.items()
            if relations.get(lengths[row], set()) - {corpus.examples[row].cluster_id}
        }

    def prompt_lengths(self, condition: str) -> list[int]:
        """By row of the corpus, how many tokens its clean prompt has."""
        from tinyablation.head_readings import Lengths

        def make() -> list[int]:
            found: list[int] = self.reading(condition, Lengths()).document()["lengths"]
            return found

        return self._keep(("lengths", condition), make)

    def _selection_for(self, condition: str, sample: Sample) -> "Selection | None":
        return self.selection(condition) if sample.among == "known" else None

    def pool(self, condition: str, among: str = "known") -> list["Example"]:
        """All examples that a measurement of the condition may take means and donors from."""
        corpus, _ = self.corpus(condition)
        sample = Sample(among=among)  # type: ignore[arg-type]
        if self.share != 1.0:
            return [corpus.examples[row] for row in self.rows(condition, sample)]
        return [corpus.examples[row] for row in self.counting(condition, sample)]

    def examples(self, condition: str, split: str | None = None) -> list["Example"]:
        """The examples that a sweep of the condition measures, in row order."""
        corpus, _ = self.corpus(condition)
        return [corpus.examples[row] for row in self.rows(condition, Sample(split))]

    def prompts(
        self, condition: str, split: str | None = None, side: Side = "clean"
    ) -> list["Prompt"]:
        """The prompts of one side as the engine takes them, in row order."""
        return self.encode(self.examples(condition, split), side)

    def encode(self, examples: list["Example"], side: Side) -> list["Prompt"]:
        """Prompts as this bench's protocol measures them."""
        from tinyablation.tokenisation import encode_examples

        model = self.model
        prompts = list(encode_examples(model.tokenizer, examples, model.bos_id, side=side))
        return pad_right(prompts, model) if self.protocol == PUBLISHED else prompts

    def config(self, condition: str, battery_name: str, sample: Sample = EVERYTHING) -> RunConfig:
        """The address of a measurement of this model under one condition."""
        corpus, split = self.corpus(condition)
        selection = self._selection_for(condition, sample)
        token = None if selection is None else selection.token
        if corpus.is_crossed and sample.among == "counting":
            token = "-".join(self.gate.families(condition))
        if corpus.is_crossed and sample.relations:
            token = f"{token or 'all'}-{sample.relations}"
        if corpus.is_crossed and sample.lent:
            every = self.counting(condition, replace(sample, lent=False))
            own = self.counting(condition, sample)
            # Where nothing is left out it is the same measurement.
            token = token if own == every else f"{token or 'all'}-{digest(sorted(own))[:6]}"
        return RunConfig(
            model=self.entry.id,
            battery=battery_name,
            condition=condition,
            weight_hash=self.facts.weight_hash,
            config_hash=self.facts.config_hash,
            tokenizer_hash=self.facts.tokenizer_hash,
            corpus_hash=corpus.content_hash,
            split_hash=split.content_hash,
            engine_version=ENGINE_VERSION,
            dtype=self.dtype,
            device=self.device,
            seed=self.seed,
            bos=self.facts.bos,
            protocol=self.protocol,
            share=self.share,
            split=sample.split or ALL_SPLITS,
            per_cluster=self.per_cluster(condition, sample),
            selection=token,
        )

    def run(
        self, condition: str, wanted: str | AnyBattery, *, directions: Directions | None = None
    ) -> Run:
        """The run of one battery under one condition: reused, continued or measured now.

        directions: makes the vectors that the battery steers along; called only when measuring.
        """
        plan = plan_run(self, condition, wanted, directions)
        if self.elsewhere is not None and self._begin(plan):
            self.elsewhere.complete(self, plan.config)
        return self.store.obtain(
            plan.config,
            plan.shards,
            plan.measure,
            plan.examples,
            progress=self.progress,
            verify=plan.verify,
            circumstances=self.circumstances,
        )

    def ahead(self, condition: str, *wanted: str | AnyBattery) -> None:
        """Where others measure, have these batteries measured at the same time, before each is
        asked for and waited for. Nothing where this process measures."""
        if self.elsewhere is not None:
            for each in wanted:
                self._begin(plan_run(self, condition, each))

    def advance(
        self,
        condition: str,
        wanted: AnyBattery,
        shards: Sequence[str],
        *,
        directions: Directions | None = None,
    ) -> dict[str, float]:
        """Compute the shards of these keys only, and finish the run if they were the last.

        Returns the seconds of each that was computed here (see RunStore.advance).
        """
        plan = plan_run(self, condition, wanted, directions)
        return self.store.advance(
            plan.config,
            plan.shards,
            shards,
            plan.measure,
            plan.examples,
            verify=plan.verify,
            circumstances=self.circumstances,
        )

    def _begin(self, plan: RunPlan) -> bool:
        """Send what is missing of a run; whether there is something to wait for."""
        assert self.elsewhere is not None
        under_way = self.elsewhere.is_under_way(plan.config)
        if self.store.status(plan.config) == "complete" and not under_way:
            return False
        return self.elsewhere.begin(
            self,
            "run",
            plan.config,
            what=plan.battery,
            directions=plan.directions,
            missing=self.store.missing(plan.config, plan.shards),
        )

    def reading(self, condition: str, wanted: "AnyReading") -> "Reading":
        """A measurement that is a document, at its address: reused, or computed now."""
        from tinyablation.readings import obtain_reading

        config = self.config(condition, wanted.name(self), wanted.sample)
        missing = self.store.status(config) != "complete"
        if (
            missing
            and self.elsewhere is not None
            and self.elsewhere.begin(self, "reading", config, what=wanted)
        ):
            self.elsewhere.complete(self, config)
        return obtain_reading(
            self.store, config, lambda: wanted.compute(self, condition), self.circumstances
        )

    # --- measured, as claims ask for it ----------------------------------------------------------

    def sweep(self, condition: str) -> "Sweep":
        """All single heads under one condition, or those that a screening chooses."""
        from tinyablation.sweeps import Sweep

        def make() -> Sweep:
            if self.screening is not None:
                return self._screened(condition, self.screening)
            run = self.run(condition, self.battery)
            return Sweep(*self._measured(condition, run), method=self.method)

        return self._keep(("sweep", condition), make)

    def _screened(self, condition: str, screening: "Screening") -> "Sweep":
        from tinyablation.screened_sweeps import ScreenedSweep
        from tinyablation.screening import ScreenedHeads, obtain_plan

        plan = obtain_plan(self, condition, screening)
        run = self.run(condition, ScreenedHeads(plan.measured, plan.name))
        made = ScreenedSweep(*self._measured(condition, run), method=self.method, plan=plan)
        return replace(made, runs=(*made.runs, plan.reading))

    def methods(self, condition: str) -> "Sweep":
        """The heads of layer 0 under every ablation method, on a part of the examples."""
        from tinyablation.sweeps import Sweep

        def make() -> Sweep:
            return Sweep(*self._measured(condition, self.run(condition, "methods")))

        return self._keep(("methods", condition), make)

    def coalitions(self, condition: str, trio: tuple[Head, ...]) -> "Coalitions":
        """Pairs and triples of the trio's layer under one condition."""
        from tinyablation.coalitions import Coalitions

        def make() -> Coalitions:
            sets = HeadSets(trio[0][0], trio, self.facts.n_heads, self.method, self.seed)
            run = self.run(condition, sets)
            return Coalitions(*self._measured(condition, run), method=self.method)

        return self._keep(("coalitions", condition, trio), make)

    def subsets(self, condition: str, heads: tuple[Head, ...]) -> "Coalitions":
        """Every subset of a few named heads under one condition, on every example."""
        from tinyablation.coalitions import Coalitions

        def make() -> Coalitions:
            run = self.run(condition, Subsets(heads, self.method))
            return Coalitions(*self._measured(condition, run), method=self.method)

        return self._keep(("subsets", condition, heads), make)

    def patches(self, condition: str) -> "Patches":
        """Activation patching in both directions under one condition, on aligned pairs."""
        from tinyablation.effects import Effects
        from tinyablation.patches import Patches

        def make() -> Patches:
            self.ahead(condition, Patching("forward"), Patching("reverse"))
            forward, reverse = (
                Effects(*self._measured(condition, self.run(condition, Patching(direction))))
                for direction in ("forward", "reverse")
            )
            return Patches(forward, reverse, self.facts.n_layers, self.facts.n_heads)

        return self._keep(("patches", condition), make)

    def paths(self, condition: str, head: Head) -> "PathEffects":
        """One head's direct paths into every later layer under one condition."""
        from tinyablation.paths import PathEffects

        def make() -> PathEffects:
            run = self.run(condition, Paths(head))
            return PathEffects(
                *self._measured(condition, run), head=head, n_layers=self.facts.n_layers
            )

        return self._keep(("paths", condition, head), make)

    def effects(
        self, condition: str, wanted: str | AnyBattery, *, directions: Directions | None = None
    ) -> "Effects":
        """Any battery's run, as effects by intervention label."""
        from tinyablation.effects import Effects

        name = wanted if isinstance(wanted, str) else wanted.name

        def make() -> Effects:
            run = self.run(condition, wanted, directions=directions)
            return Effects(*self._measured(condition, run))

        sample = None if isinstance(wanted, str) else wanted.sample
        return self._keep(("effects", condition, name, sample), make)

    # --- what the unhooked model knows: measured before anything else (gate.py) -------------------

    def unhooked(self, condition: str) -> "Tables":
        """The model without interventions on the clean, corrupt and null prompts of a condition."""
        return self._keep(("unhooked", condition), lambda: self.gate.unhooked(condition))

    def validities(self, condition: str) -> "dict[str, Verdict]":
        """By family of the condition, whether it is valid for the model ("" where it has none)."""
        return self._keep(("families", condition), lambda: self.gate.validities(condition))

    def validity(self, condition: str) -> "Verdict | None":
        """Whether the condition says anything about the model; None: the protocol has no gate."""
        return self._keep(("validity", condition), lambda: self.gate.validity(condition))

    def selection(self, condition: str) -> "Selection | None":
        """The examples of a crossed corpus that count for the model (see Gate.selection)."""
        return self._keep(("selection", condition), lambda: self.gate.selection(condition))

    def unfiltered(self, condition: str, heads: tuple[Head, ...]) -> "Effects":
        """These heads zeroed together on confirmation prompts of facts known and unknown."""
        chosen = one_head(heads[0]) if len(heads) == 1 else TrioZeroed(heads)
        most = self.per_cluster(condition, Sample(CONFIRMATION))  # as many as a sweep measures
        sample = Sample(CONFIRMATION, most, among="counting")
        return self.effects(condition, replace(chosen, sample=sample))

    def _measured(
        self, condition: str, run: Run
    ) -> tuple[str, str, "pandas.DataFrame", float, int, tuple[str, ...]]:
        """What Effects are made of."""
        table = run.table()
        if self.protocol == PUBLISHED:
            table = baseline_of_heads(table)
        noise = run.noise_floor()
        return self.entry.id, condition, table, noise, self.seed, (run.name,)

    def _keep(self, key: tuple[object, ...], make: Callable[[], T]) -> T:
        if key not in self._kept:
            self._kept[key] = make()
        found: T = self._kept[key]  # type: ignore[assignment]
        return found


def _say(line: str) -> None:
    print(line, file=sys.stderr)
