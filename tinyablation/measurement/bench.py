"""From a model and a corpus to a run: the one place that combines prompts, engine and store.

A `Bench` holds one model, which is loaded only when something has to be measured: a complete run in
the store is read without loading torch.
"""

import sys
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyablation.corpora.library import Library
from tinyablation.files.manifests import Damaged, read_json, renewal
from tinyablation.installed import versions
from tinyablation.interventions.batteries import (
    EVERYTHING,
    AnyBattery,
    Sample,
    Side,
)
from tinyablation.interventions.interventions import AblationMethod
from tinyablation.measurement.gate import Gate
from tinyablation.measurement.interface import Directions, Elsewhere, Measures
from tinyablation.measurement.plan import RunPlan, plan_run
from tinyablation.measurement.protocols import PUBLISHED, encode
from tinyablation.measurement.sampling import Sampling
from tinyablation.measurement.setup import Setup
from tinyablation.models.registry import ModelEntry
from tinyablation.models.residency import ALONE, Sharing
from tinyablation.runs.address import ALL_SPLITS, ENGINE_VERSION, NO_CORPUS, RunConfig
from tinyablation.runs.store import PROVENANCE, Run, RunStore

if TYPE_CHECKING:
    from tinyablation.corpora.examples import Corpus, Example, Split
    from tinyablation.corpora.own_conditions import OwnCondition
    from tinyablation.corpora.tokenisation import Prompt
    from tinyablation.engine.document import Computed
    from tinyablation.measurement.interface import AnyReading, CorpusFree
    from tinyablation.measurement.screening import Screening
    from tinyablation.runs.documents import Reading


class Bench(Measures):
    """Measures one model on the corpora of its tokenizer, into a store.

    own: the user's conditions from files, by name; threads: for torch on the CPU, None: torch's own
    choice (a narrow model gets one, see held_model.py); sharing: how this process shares the
    machine with others; screening: how sweeps choose their heads, None: all heads; elsewhere:
    measures what is missing, so that this process loads no model, None: this process measures.
    """

    def __init__(
        self,
        setup: Setup,
        store: RunStore,
        *,
        own: "Mapping[str, OwnCondition] | None" = None,
        threads: int | None = None,
        progress: bool = False,
        sharing: Sharing = ALONE,
        screening: "Screening | None" = None,
        elsewhere: "Elsewhere | None" = None,
    ) -> None:
        super().__init__(
            setup.entry, device=setup.device, dtype=setup.dtype, threads=threads, sharing=sharing
        )
        self.setup = setup
        self.screening = screening
        published = setup.protocol == PUBLISHED
        self.battery = "folded" if published else setup.battery
        self.method: AblationMethod = "zero_folded" if published else "zero"
        # A process that waits for another one's run gives up its accelerator first.
        self.store = replace(
            store, before_waiting=self.yield_device, also=self._require_same_tokenizer
        )
        self.progress = progress
        self.elsewhere = elsewhere
        self.library = Library(
            setup.corpora, say=_say if progress else None, own=own, seed=setup.seed
        )
        self.gate = Gate(self)
        self.sampling = Sampling(self, self.gate)
        self._benches: weakref.WeakSet[Bench] = weakref.WeakSet([self])  # those made by `like`, too
        self._read: dict[str, tuple[Corpus, Split]] = {}

    def yield_device(self) -> None:
        """Release the accelerators held by this bench and all benches related to it by `like`.

        Tables are kept. Models on the CPU stay loaded, because no process waits for their memory.
        """
        for bench in list(self._benches):
            if bench.holds_turn:
                bench.drop_model()

    def release(self) -> None:
        """Drop the model, the one that verifies it, and all tables."""
        self.drop_model()
        self.drop_reference()
        self.gate.clear()
        self.sampling.clear()
        self.encoders.clear()

    def like(self, entry: ModelEntry) -> "Bench":
        """The same bench for another model: same corpora, store, device, seed and protocol.

        The dtype is the same if one was requested, else the other model's default.
        """
        made = Bench(
            self.setup.of(entry),
            self.store,
            threads=self.threads,
            progress=self.progress,
            sharing=self.sharing,
            screening=self.screening,
            elsewhere=self.elsewhere,
        )
        made.library, made.encoders = self.library, self.encoders
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

    def rows(
        self, condition: str, sample: Sample = EVERYTHING, *, aligned: bool = False
    ) -> dict[int, str]:
        return self.sampling.rows(condition, sample, aligned=aligned)

    def counting(self, condition: str, sample: Sample, *, aligned: bool = False) -> dict[int, str]:
        return self.sampling.counting(condition, sample, aligned=aligned)

    def pool(self, condition: str, sample: Sample = EVERYTHING) -> list["Example"]:
        rows = self.sampling.pool(condition, sample)
        return self.sampling.examples(condition, sample, rows)

    def chosen(self, condition: str, sample: Sample, rows: Iterable[int]) -> list["Example"]:
        return self.sampling.examples(condition, sample, rows)

    def examples(self, condition: str, split: str | None = None) -> list["Example"]:
        corpus, _ = self.corpus(condition)
        return [corpus.examples[row] for row in self.rows(condition, Sample(split))]

    def prompts(
        self, condition: str, split: str | None = None, side: Side = "clean"
    ) -> list["Prompt"]:
        """The prompts of one side as the engine takes them, in row order."""
        return self.encode(self.examples(condition, split), side)

    def encode(self, examples: list["Example"], side: Side) -> list["Prompt"]:
        """Prompts as this bench's protocol measures them."""
        return encode(self.model, self.encoder, examples, side, self.protocol)

    def config(self, condition: str, battery_name: str, sample: Sample = EVERYTHING) -> RunConfig:
        """The address of a measurement of this model under one condition."""
        corpus, split = self.corpus(condition)
        return RunConfig(
            **self._addressed,
            battery=battery_name,
            condition=condition,
            corpus_hash=corpus.content_hash,
            split_hash=split.content_hash,
            protocol=self.protocol,
            share=self.share,
            split=sample.split or ALL_SPLITS,
            per_cluster=self.sampling.per_cluster(condition, sample),
            selection=self.sampling.token(condition, sample),
            wordings=self.sampling.wordings(condition, sample),
        )

    def config_without_corpus(self, name: str) -> RunConfig:
        """The address of a reading of this name that uses no corpus.

        Neither the protocol, which says how prompts are padded, nor the share of the examples is
        part of it.
        """
        return RunConfig(**self._addressed, battery=name, condition=NO_CORPUS)

    @property
    def _addressed(self) -> dict[str, Any]:
        """What every address has of the model, and of how it is measured."""
        return {
            "model": self.entry.id,
            "weight_hash": self.facts.weight_hash,
            "config_hash": self.facts.config_hash,
            "tokenizer_hash": self.facts.tokenizer_hash,
            "engine_version": ENGINE_VERSION,
            "dtype": self.dtype,
            "device": self.device,
            "seed": self.seed,
            "bos": self.facts.bos,
        }

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

    def _require_same_tokenizer(self, run: Path) -> None:
        """Raise Damaged if other versions of its packages read the tokenizer's files otherwise.

        The address has the hash of the files. What they come to is recorded, and must be the same
        now; with the same versions it is, so that nothing is loaded to look.
        """
        provenance = read_json(run / PROVENANCE)
        recorded, then = provenance.get("tokenizer_state"), provenance.get("versions")
        now = self._tokenizer_versions
        if recorded is None or not isinstance(then, dict):
            return  # an older run, which does not say
        changed = [
            f"{name} {then.get(name)} then and {now[name]} now"
            for name in now
            if then.get(name) != now[name]
        ]
        if not changed:
            return
        from tinyablation.models.tokenizer_state import state_now

        if state_now(self.facts.folder, self.entry.id) != recorded:
            raise Damaged(
                f"{run}: the tokenizer of {self.entry.id!r} is another than it was, though its "
                f"files are the same ({', '.join(changed)}). {renewal(run)}"
            )

    @cached_property
    def _tokenizer_versions(self) -> dict[str, str]:
        return versions("transformers", "tokenizers")

    def ahead(self, condition: str, *wanted: str | AnyBattery) -> None:
        """Start measuring these batteries in parallel, before each is requested and waited for.

        Does nothing if this process measures itself.
        """
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
        """Compute only the shards of these keys, and finish the run if they were the last.

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
        """Submit the missing shards of a run; returns whether there is something to wait for."""
        assert self.elsewhere is not None
        self.store.renew(plan.config)
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
        """A measurement whose result is a document, at its address: reused, or computed now."""
        config = self.config(condition, wanted.name(self), wanted.sample)
        return self._obtain(config, wanted, lambda: wanted.compute(self, condition))

    def reading_without_corpus(self, wanted: "CorpusFree") -> "Reading":
        """The same of a reading that uses no corpus."""
        config = self.config_without_corpus(wanted.name(self))
        return self._obtain(config, wanted, lambda: wanted.compute(self))

    def _obtain(
        self,
        config: RunConfig,
        wanted: "AnyReading | CorpusFree",
        computed: "Callable[[], Computed]",
    ) -> "Reading":
        from tinyablation.runs.documents import LISTED, obtain_reading

        self.store.renew(config, LISTED)
        missing = self.store.status(config) != "complete"
        if (
            missing
            and self.elsewhere is not None
            and self.elsewhere.begin(self, "reading", config, what=wanted)
        ):
            self.elsewhere.complete(self, config)

        def compute() -> "Computed":
            found = computed()
            self.require_unchanged(fresh=True)
            return found

        return obtain_reading(self.store, config, compute, self.circumstances)


def _say(line: str) -> None:
    print(line, file=sys.stderr)
