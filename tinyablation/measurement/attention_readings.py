"""Readings of what heads attend to: on tokens drawn from the vocabulary, and on given texts.

None uses a corpus: the address has the model, its tokenizer, the seed, and in its name the sizes
and a digest of given texts (Bench.reading_without_corpus). Each has tensors by score, float32
[n_sequences, n_layers, n_heads], and a document with the sequences' token ids.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from tinyablation.engine.document import Computed
from tinyablation.files.hashes import HASH_DIGITS, digest

if TYPE_CHECKING:
    from tinyablation.engine.attention_scores import Pairs
    from tinyablation.engine.prompt_checks import Ids
    from tinyablation.measurement.interface import Measures

SCORES_VERSION = 1  # part of the address: incremented whenever a score or a draw could change
N_SEQUENCES = 100
SINK_TOKENS = 64  # T of Gu et al. 2024, arXiv 2410.10781, who take 100 sequences


@dataclass(frozen=True)
class RepeatedTokens:
    """Scores on random tokens written twice: induction, duplicate_token, previous_token, sink.

    length: tokens of one copy, all different; BOS comes first where the model has one.
    """

    n_sequences: int = N_SEQUENCES
    length: int = 25

    def name(self, bench: Measures) -> str:
        return f"attention-repeated-{self.length}-x{self.n_sequences}-v{SCORES_VERSION}"

    def compute(self, bench: Measures) -> Computed:
        from tinyablation.corpora.token_sequences import random_sequences
        from tinyablation.engine.attention_scores import position_pairs, repeat_pairs

        bos_id = bench.model.bos_id
        sequences = random_sequences(
            _ordinary(bench),
            count=self.n_sequences,
            length=self.length,
            copies=2,
            bos_id=bos_id,
            seed=bench.seed,
        )
        begin = 0 if bos_id is None else 1
        pairs = position_pairs(begin + 2 * self.length) | repeat_pairs(self.length, begin)
        return _scored(bench, sequences, [pairs] * len(sequences), {"inputs": "repeated tokens"})


@dataclass(frozen=True)
class RandomTokens:
    """Scores on random tokens, all different: previous_token and sink.

    length: tokens of a sequence, with BOS where the model has one.
    """

    n_sequences: int = N_SEQUENCES
    length: int = SINK_TOKENS

    def name(self, bench: Measures) -> str:
        return f"attention-random-{self.length}-x{self.n_sequences}-v{SCORES_VERSION}"

    def compute(self, bench: Measures) -> Computed:
        from tinyablation.corpora.token_sequences import random_sequences
        from tinyablation.engine.attention_scores import position_pairs

        bos_id = bench.model.bos_id
        sequences = random_sequences(
            _ordinary(bench),
            count=self.n_sequences,
            length=self.length - (bos_id is not None),
            copies=1,
            bos_id=bos_id,
            seed=bench.seed,
        )
        pairs = [position_pairs(self.length)] * len(sequences)
        return _scored(bench, sequences, pairs, {"inputs": "random tokens"})


@dataclass(frozen=True)
class OneToken:
    """Scores on one random token written `length` times, without BOS: previous_token and sink.

    A sink is a first position that differs from the rest; under rotary embeddings none does here,
    and sinks vanish (Gu et al. 2024, arXiv 2410.10781).
    """

    n_sequences: int = N_SEQUENCES
    length: int = SINK_TOKENS

    def name(self, bench: Measures) -> str:
        return f"attention-one-token-{self.length}-x{self.n_sequences}-v{SCORES_VERSION}"

    def compute(self, bench: Measures) -> Computed:
        from tinyablation.corpora.token_sequences import one_token_sequences
        from tinyablation.engine.attention_scores import position_pairs

        sequences = one_token_sequences(
            _ordinary(bench), count=self.n_sequences, length=self.length, seed=bench.seed
        )
        pairs = [position_pairs(self.length)] * len(sequences)
        return _scored(bench, sequences, pairs, {"inputs": "one token repeated"})


@dataclass(frozen=True)
class MarkedText:
    """A text and the (query, key) positions in its tokens, BOS counted, that a score is read at."""

    text: str
    pairs: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class GivenTexts:
    """A score at the marked positions of given texts, with previous_token and sink of each text.

    score: what the marked positions mean, such as "induction" for natural repeats.
    """

    texts: tuple[MarkedText, ...]
    score: str

    def name(self, bench: Measures) -> str:
        inputs = digest(asdict(self))[:HASH_DIGITS]
        return f"attention-texts-{inputs}-v{SCORES_VERSION}"

    def compute(self, bench: Measures) -> Computed:
        import numpy as np

        from tinyablation.corpora.tokenisation import encode
        from tinyablation.engine.attention_scores import position_pairs

        model = bench.model
        start = () if model.bos_id is None else (model.bos_id,)
        sequences = [(*start, *encode(model.tokenizer, each.text)) for each in self.texts]
        pairs = [
            position_pairs(len(ids)) | {self.score: np.array(each.pairs, dtype=int).reshape(-1, 2)}
            for ids, each in zip(sequences, self.texts, strict=True)
        ]
        texts = [each.text for each in self.texts]
        return _scored(bench, sequences, pairs, {"inputs": "given texts", "texts": texts})


def _ordinary(bench: Measures) -> Any:
    from tinyablation.corpora.token_sequences import ordinary_ids

    return ordinary_ids(bench.model.tokenizer, bench.facts.vocab_size)


def _scored(
    bench: Measures,
    sequences: Sequence[Ids],
    pairs: Sequence[Mapping[str, Pairs]],
    facts: Mapping[str, Any],
) -> Computed:
    from tinyablation.engine.attention_scores import attention_scores

    found = attention_scores(bench.engine, sequences, pairs)
    document = {
        "model": bench.entry.id,
        **facts,
        "scores": sorted(found),
        "n_sequences": len(sequences),
        "ids": [list(ids) for ids in sequences],
        "seed": bench.seed,
        "tokenizer_hash": bench.facts.tokenizer_hash,
    }
    return Computed(document, found)
