"""From a model and a corpus to its run: the one place where prompts, engine and store meet.

A `Bench` holds one model. It is loaded only when something has to be measured: a run found complete
in the store is read without touching torch.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from tinyablation.addresses import ENGINE_VERSION, RunConfig
from tinyablation.batteries import Battery, Shard, battery
from tinyablation.corpora import CorpusError, load_corpus, load_split
from tinyablation.loading import ModelFacts, describe
from tinyablation.registry import ModelEntry
from tinyablation.runs import Run, RunStore

if TYPE_CHECKING:
    import pandas

    from tinyablation.corpora import Corpus, Split
    from tinyablation.engine import Engine
    from tinyablation.loading import LoadedModel
    from tinyablation.sweeps import Sweep
    from tinyablation.tokenisation import Prompt
    from tinyablation.validity import Tables

# The noise sample: every figure is one number at fp32 or float64, so a few dozen show its grain.
NOISE_EXAMPLES = 8
NOISE_HEADS = 4


class Bench:
    """Measures one model on the corpora of its tokenizer, into a store.

    corpora: the folder with <tokenizer>/<condition>.jsonl; battery: that of `sweep`; device: a
    torch device name; threads: for torch on the CPU, its own choice when None.
    """

    def __init__(
        self,
        entry: ModelEntry,
        *,
        corpora: Path,
        store: RunStore,
        battery: str = "h1",
        seed: int = 0,
        device: str = "cpu",
        threads: int | None = None,
        progress: bool = False,
    ) -> None:
        self.entry = entry
        self.battery = battery
        self.threads = threads
        self.store = store
        self.seed = seed
        self.device = device
        self.progress = progress
        self._corpora = corpora / entry.tokenizer
        self._read: dict[str, tuple[Corpus, Split]] = {}
        self._sweeps: dict[str, Sweep] = {}
        self._unhooked: dict[str, Tables] = {}

    @cached_property
    def facts(self) -> ModelFacts:
        """What the model's files say; raises WeightsMissing where there are none."""
        return describe(self.entry)

    @cached_property
    def model(self) -> "LoadedModel":
        import torch

        from tinyablation.loading import load_model

        if self.threads is not None:
            torch.set_num_threads(self.threads)
        return load_model(self.entry, device=self.device)

    @cached_property
    def engine(self) -> "Engine":
        from tinyablation.engine import Engine

        return Engine(self.model)

    def release(self) -> None:
        """Forget the model and all tables."""
        for name in ("model", "engine"):
            self.__dict__.pop(name, None)
        self._sweeps.clear()
        self._unhooked.clear()

    def corpus(self, condition: str) -> tuple["Corpus", "Split"]:
        if condition not in self._read:
            path = self._corpora / f"{condition}.jsonl"
            corpus = load_corpus(path, condition=condition, tokenizer=self.entry.tokenizer)
            split = load_split(path.with_suffix(".split.json"), corpus)
            self._read[condition] = corpus, split
        return self._read[condition]

    def run(self, condition: str, battery_name: str) -> Run:
        """The run of one battery under one condition: reused, continued or measured now."""
        wanted = battery(battery_name)
        corpus, split = self.corpus(condition)
        config = RunConfig(
            model=self.entry.id,
            battery=wanted.name,
            condition=condition,
            weight_hash=self.facts.weight_hash,
            tokenizer_hash=self.facts.tokenizer_hash,
            corpus_hash=corpus.content_hash,
            split_hash=split.content_hash,
            engine_version=ENGINE_VERSION,
            dtype=self.entry.dtype,
            device=self.device,
            seed=self.seed,
            bos=self.entry.bos,
        )
        rows = sorted(split.of_row())
        shards = wanted.shards(self.facts.n_layers, self.facts.n_heads)
        measure = _Measure(self, wanted, corpus, rows)
        noise = {}
        if wanted.methods and self.store.status(config) != "complete":
            noise["noise_floor"] = measure.noise(shards)
        return self.store.obtain(
            config,
            shards,
            measure,
            _examples_frame(corpus, split, rows, wanted.side),
            progress=self.progress,
            provenance=noise,
        )

    def sweep(self, condition: str) -> "Sweep":
        """All single heads under one condition."""
        from tinyablation.sweeps import Sweep

        if condition not in self._sweeps:
            run = self.run(condition, self.battery)
            noise = float(run.provenance()["extra"]["noise_floor"])
            self._sweeps[condition] = Sweep(
                self.entry.id, condition, run.table(), noise, self.seed, (run.name,)
            )
        return self._sweeps[condition]

    def unhooked(self, condition: str) -> "Tables":
        """The model without interventions on the clean, corrupt and null prompts of a condition."""
        from tinyablation.validity import Tables

        if condition not in self._unhooked:
            corpus, _ = self.corpus(condition)
            has_null = all(example.null for example in corpus.examples)
            self._unhooked[condition] = Tables(
                self.sweep(condition).baseline(),
                self.run(condition, "corrupt").table(),
                self.run(condition, "null").table() if has_null else None,
            )
        return self._unhooked[condition]


class _Measure:
    """Computes the shards of one run; prompts are tokenised when the first shard is asked for."""

    def __init__(
        self, bench: Bench, wanted: Battery, corpus: "Corpus", rows: Sequence[int]
    ) -> None:
        self.bench = bench
        self.battery = wanted
        self.examples = [corpus.examples[row] for row in rows]
        if any(not getattr(example, wanted.side) for example in self.examples):
            raise CorpusError(
                f"{corpus.tokenizer}/{corpus.condition}: its examples have no {wanted.side} prompts"
            )

    @cached_property
    def prompts(self) -> Sequence["Prompt"]:
        from tinyablation.tokenisation import encode_examples

        model = self.bench.model
        return encode_examples(model.tokenizer, self.examples, model.bos_id, side=self.battery.side)

    def __call__(self, shard: Shard) -> "pandas.DataFrame":
        table = self.bench.engine.measure(
            self.prompts,
            shard.interventions,
            reference=self.prompts,
            clusters=[example.cluster_id for example in self.examples],
            seed=self.bench.seed,
        )
        if shard.interventions:
            return table[table["method"] != "none"].reset_index(drop=True)
        return table

    def noise(self, shards: Sequence[Shard]) -> float:
        """The largest |difference in Delta LD|, in logits, between a batch and each prompt alone.

        The figures are the same by arithmetic; what differs is the order of sums. An effect that
        is not larger than this cannot be told from it.
        """
        import numpy as np

        zeroed = [item for shard in shards for item in shard.interventions]
        zeroed = [item for item in zeroed if getattr(item, "method", "") == "zero"]
        some = zeroed[:: max(1, len(zeroed) // NOISE_HEADS)]
        prompts = self.prompts[:: max(1, len(self.prompts) // NOISE_EXAMPLES)]

        def delta(of: Sequence["Prompt"]) -> "np.ndarray":
            table = self.bench.engine.measure(of, some)
            ld = table["logit_diff"].to_numpy().reshape(len(some) + 1, len(of))
            return np.asarray(ld[1:] - ld[0])

        together = delta(prompts)
        alone = np.concatenate([delta([prompt]) for prompt in prompts], axis=1)
        return float(np.abs(together - alone).max())


def _examples_frame(
    corpus: "Corpus", split: "Split", rows: Sequence[int], side: str
) -> "pandas.DataFrame":
    """The examples of a run as its tables carry them; "clean" holds the measured prompt."""
    import pandas

    names = split.of_row()
    return pandas.DataFrame(
        {
            "split": names[row],
            "fact_id": example.fact_id,
            "cluster_id": example.cluster_id,
            "template_id": example.template_id,
            "cell": example.cell,
            "clean": getattr(example, side),
            "target": example.target,
            "foil": example.foil,
        }
        for row, example in ((row, corpus.examples[row]) for row in rows)
    )
