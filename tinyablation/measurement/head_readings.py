"""Readings of heads or a corpus, as plain values: what they write, a direction, its prompts.

Any bench can compute them, on this machine or another (cluster/messages.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tinyablation.corpora.examples import DISCOVERY
from tinyablation.engine.document import Computed
from tinyablation.heads import Head
from tinyablation.interventions.batteries import EVERYTHING, ONE_WORDING, UNHOOKED, Sample

if TYPE_CHECKING:
    from torch import Tensor

    from tinyablation.measurement.interface import Measures

TOP_K = 50  # tokens listed at either end, shown on the page and counted by cluster
# Part of the address, likewise: of the choice of words. (What is measured on them is at an address
# made from the prompts themselves, so that other tables of words leave nothing stale.)
UNKNOWN_VERSION = 1
DIRECTION_VERSION = 1  # part of the address: incremented whenever a steering direction could change
DIRECT_EFFECTS_VERSION = 1  # likewise, whenever a contribution could


@dataclass(frozen=True)
class Written:
    """What every head of the model writes under a condition, for the named head also by cluster.

    The logit vectors of all layers are kept, because a head is compared with all others: 77 MB for
    GPT-2 medium (384 heads x 50,257 tokens in float32), .2 MB for an embedded model.
    """

    head: Head
    split: str
    top_k: int = TOP_K
    sample: Sample = EVERYTHING

    def name(self, bench: Measures) -> str:
        from tinyablation.corpora.lexicons import ov_battery

        layers = range(bench.facts.n_layers)
        return ov_battery(self.split, _lexicons(bench), self.top_k, layers, [self.head])

    def compute(self, bench: Measures, condition: str) -> Computed:
        from tinyablation.engine.head_outputs import measure_ov

        return measure_ov(
            bench.engine,
            bench.prompts(condition, self.split),
            condition=condition,
            split=self.split,
            lexicons=_lexicons(bench),
            top_k=self.top_k,
            layers_with_vectors=range(bench.facts.n_layers),
            clusters=[example.cluster_id for example in bench.examples(condition, self.split)],
            cluster_heads=[self.head],
            seed=bench.seed,
        )


@dataclass(frozen=True)
class Lengths:
    """The number of tokens of the clean prompt of each row of a condition's corpus.

    Stored as a measurement, so that evidence bundles without a tokenizer contain it.
    """

    sample: Sample = UNHOOKED

    def name(self, bench: Measures) -> str:
        return "prompt-lengths"

    def compute(self, bench: Measures, condition: str) -> Computed:
        from tinyablation.corpora.tokenisation import encode

        corpus, _ = bench.corpus(condition)
        tokenizer = bench.encoder
        return Computed({"lengths": [len(encode(tokenizer, row.clean)) for row in corpus.examples]})


@dataclass(frozen=True)
class UnknownPrompts:
    """For each row of a condition's corpus, a corrupt prompt about unknown things, or None.

    Stored as a measurement, so that evidence bundles without a tokenizer contain it.
    """

    sample: Sample = UNHOOKED

    def name(self, bench: Measures) -> str:
        return f"unknown-words-v{UNKNOWN_VERSION}"

    def compute(self, bench: Measures, condition: str) -> Computed:
        from tinyablation.corpora.tokenizer_fingerprint import load_as_measured
        from tinyablation.corpora.unknown_words import UnknownWords
        from tinyablation.models.file_hashes import changed
        from tinyablation.models.tokenizer_state import tokenizer_hash

        corpus, _ = bench.corpus(condition)
        folder, name = bench.facts.folder, bench.entry.id
        tokenizer = load_as_measured(folder)
        if tokenizer_hash(folder, name, tokenizer) != bench.facts.tokenizer_hash:
            raise changed(name, folder)
        words = UnknownWords(tokenizer, bench.library.knowledge, bench.seed)
        made = [words.corrupted(example) for example in corpus.examples]
        return Computed({"corrupt": [None if each is None else each.corrupt for each in made]})


@dataclass(frozen=True)
class Direction:
    """The head's mean output at the last token of the discovery prompts, [d_model]."""

    head: Head
    sample: Sample = EVERYTHING

    def name(self, bench: Measures) -> str:
        return f"direction-{self.head[0]}.{self.head[1]}-{DISCOVERY}-v{DIRECTION_VERSION}"

    def compute(self, bench: Measures, condition: str) -> Computed:
        import numpy as np

        from tinyablation.engine.head_outputs import head_outputs

        prompts = bench.prompts(condition, DISCOVERY)
        vector = head_outputs(bench.engine, prompts)[self.head].cpu().numpy()
        norm = float(np.linalg.norm(vector))
        document = {"model": bench.entry.id, "layer": self.head[0], "head": self.head[1]}
        document |= {"condition": condition, "split": DISCOVERY, "n_examples": len(prompts)}
        return Computed(document | {"vector_norm": norm}, {"direction": vector})


@dataclass(frozen=True)
class HeadContributions:
    """What every part of the model writes into LD directly, by example (direct_effects.py).

    On the examples of a sweep of every head; of answers of several tokens LD is the first tokens',
    as in the sweep's tables. The tensors are the fields of Contributions, in float64; the document
    has the rows of the corpus, in the tensors' order.
    """

    sample: Sample = ONE_WORDING

    def name(self, bench: Measures) -> str:
        return f"direct-effects-v{DIRECT_EFFECTS_VERSION}"

    def compute(self, bench: Measures, condition: str) -> Computed:
        from tinyablation.corpora.answers import encode_spans
        from tinyablation.corpora.tokenisation import Prompt
        from tinyablation.engine.direct_effects import contributions

        rows = bench.rows(condition, self.sample)
        examples = bench.chosen(condition, self.sample, rows)
        spans = encode_spans(bench.encoder, examples, bench.model.bos_id)
        prompts = [Prompt(span.ids, span.target[0], span.foil[0]) for span in spans]
        found = contributions(bench.engine, prompts)
        document = {"model": bench.entry.id, "condition": condition, "rows": list(rows)}
        return Computed(document, found._asdict())


@dataclass(frozen=True)
class SteeringDirections:
    """The head's direction under the condition `source`, and controls of the same norm."""

    head: Head
    source: str

    def __call__(self, bench: Measures) -> Mapping[str, Tensor]:
        import torch

        from tinyablation.interventions.directions import OV, control_directions

        found = bench.reading(self.source, Direction(self.head)).tensors()
        vector = found["direction"].astype("float64")
        purpose = f"steering {bench.entry.id} {self.head[0]}:{self.head[1]}"
        vectors = {OV: vector, **control_directions(vector, bench.seed, purpose)}
        return {name: torch.from_numpy(each) for name, each in vectors.items()}


def _lexicons(bench: Measures) -> dict[str, tuple[str, ...]]:
    from tinyablation.corpora.lexicons import load_lexicons

    return load_lexicons(bench.setup.corpora / "knowledge" / "lexicons.toml")
