"""Readings of what OV circuits do with words that follow each other: weights alone, no corpus."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tinyablation.corpora.ordinals import SEQUENCES, ordinal_ids
from tinyablation.engine.document import Computed
from tinyablation.files.hashes import HASH_DIGITS, digest
from tinyablation.heads import Head

if TYPE_CHECKING:
    from tinyablation.engine.weight_diagonals import Embedding
    from tinyablation.measurement.interface import Measures

SUCCESSORS_VERSION = 1  # part of the address: incremented whenever a figure could change


@dataclass(frozen=True)
class OrdinalCircuits:
    """The full OV circuits of all heads between the words of corpora/ordinals.py.

    embedding: what a word is at a head's input (engine/weight_diagonals.py); the default is that of
    Gould et al. 2023 (arXiv 2312.09230). Of block 0, which makes it, there are no heads then.

    Tensors: written, float32 [n_heads, n_words, n_words]: what the head adds to the logit of the
    word of a column if it attends to the word of a row. None if there are no two words. The
    document names the words that are one token for this tokenizer.
    """

    embedding: Embedding = "mlp0"

    def name(self, bench: Measures) -> str:
        words = digest(SEQUENCES)[:HASH_DIGITS]
        return f"ordinals-{self.embedding}-{words}-v{SUCCESSORS_VERSION}"

    def compute(self, bench: Measures) -> Computed:
        import numpy as np

        from tinyablation.engine.weight_diagonals import ov_entries

        facts, ids = bench.facts, ordinal_ids(bench.model.tokenizer)
        heads = [
            Head(layer, head)
            for layer in range(self.embedding != "token", facts.n_layers)
            for head in range(facts.n_heads)
        ]
        document = {
            "model": bench.entry.id,
            "heads": [{"layer": head.layer, "head": head.head} for head in heads],
            "embedding": self.embedding,
            "words": list(ids),
            "ids": list(ids.values()),
            "tokenizer_hash": facts.tokenizer_hash,
        }
        if len(ids) < 2:
            return Computed(document, {})
        tokens = np.array(list(ids.values()))
        return Computed(
            document, {"written": ov_entries(bench.engine, heads, tokens, tokens, self.embedding)}
        )
