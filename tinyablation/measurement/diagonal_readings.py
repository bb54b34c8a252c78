"""Readings of the diagonals of OV and QK circuits: weights and vocabulary alone, no corpus."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tinyablation.engine.document import Computed
from tinyablation.files.hashes import HASH_DIGITS, digest
from tinyablation.heads import Head, heads_label

if TYPE_CHECKING:
    from tinyablation.engine.weight_diagonals import Embedding, Query
    from tinyablation.measurement.interface import Measures

DIAGONALS_VERSION = 1  # part of the address: incremented whenever a figure or a draw could change
MOST_NAMED = 3  # heads written out in the name; of more it has a digest


@dataclass(frozen=True)
class WeightDiagonals:
    """Where each token stands in its own row of the full OV and QK circuits of heads.

    heads: (): all that read the embedding, which block 0 does not where it makes it. n_tokens: rows
    drawn from the vocabulary; all of it for 0, and where it has no more. Columns are always the
    whole vocabulary. embedding, query: see engine/weight_diagonals.py; the defaults are those of
    McDougall et al. 2023 (arXiv 2310.04625).

    Tensors: tokens [n_tokens], their ids; ov.above, ov.below, qk.above, qk.below, int32 [n_heads,
    n_tokens]: how many tokens have a higher figure than the row's own, and a lower one.
    """

    heads: tuple[Head, ...] = ()
    n_tokens: int = 0
    embedding: Embedding = "mlp0"
    query: Query = "unembedding"

    def name(self, bench: Measures) -> str:
        named = len(self.heads) <= MOST_NAMED
        label = (
            heads_label(self.heads).replace("+", "_") if named else digest(self.heads)[:HASH_DIGITS]
        )
        which = label or "all"
        rows = f"x{self.n_tokens}" if self.n_tokens else "whole"
        kinds = f"{self.embedding}-{self.query}"
        return f"diagonals-{kinds}-{which}-{rows}-v{DIAGONALS_VERSION}"

    def compute(self, bench: Measures) -> Computed:
        import numpy as np

        from tinyablation.engine.weight_diagonals import ov_diagonals, qk_diagonals
        from tinyablation.statistics.intervals import generator

        facts = bench.facts
        heads = [Head(*head) for head in self.heads] or [
            Head(layer, head)
            for layer in range(self.embedding != "token", facts.n_layers)
            for head in range(facts.n_heads)
        ]
        tokens = np.arange(facts.vocab_size)
        if 0 < self.n_tokens < len(tokens):
            rng = generator(bench.seed, f"rows of diagonals {self.n_tokens}")
            tokens = np.sort(rng.choice(tokens, self.n_tokens, replace=False))
        ov = ov_diagonals(bench.engine, heads, tokens, self.embedding)
        qk = qk_diagonals(bench.engine, heads, tokens, self.embedding, self.query)
        document = {
            "model": bench.entry.id,
            "heads": [{"layer": head.layer, "head": head.head} for head in heads],
            "embedding": self.embedding,
            "query": self.query,
            "vocab_size": facts.vocab_size,
            "n_tokens": len(tokens),
            "seed": bench.seed,
            "tokenizer_hash": facts.tokenizer_hash,
        }
        places = {"ov.above": ov.above, "ov.below": ov.below}
        places |= {"qk.above": qk.above, "qk.below": qk.below}
        return Computed(document, {"tokens": tokens, **places})
