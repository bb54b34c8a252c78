"""Readings of what heads attend to: on tokens drawn from the vocabulary, and on given texts.

None uses a corpus: the address has the model, its tokenizer, the seed, and in its name the sizes
and a digest of given texts (Bench.reading_without_corpus). Each has tensors by score, float32
[n_sequences, n_layers, n_heads], and a document with the sequences' token ids.
"""

from __future__ import annotations

import re
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
class RepeatedWords:
    """Scores on unrelated words of several tokens, written twice: induction, concept, and others.

    From the token before a word of the second copy: induction to the first token of the word's
    first copy, which comes next; concept to its last token, the end of the word (next-token and
    last-token matching of Feucht et al. 2025, arXiv 2504.03022). Words are those of corpora/text
    that this tokenizer cuts into two tokens or more, up to most_tokens, beyond which they are
    rather strings of letters to it; n_words of them make one copy.
    """

    n_sequences: int = N_SEQUENCES
    n_words: int = 8
    most_tokens: int = 4

    def name(self, bench: Measures) -> str:
        words = digest(_long_words(bench))[:HASH_DIGITS]
        sizes = f"{self.n_words}-{self.most_tokens}-{words}-x{self.n_sequences}"
        return f"attention-words-{sizes}-v{SCORES_VERSION}"

    def compute(self, bench: Measures) -> Computed:
        from tinyablation.corpora.token_sequences import repeated_words
        from tinyablation.engine.attention_scores import position_pairs, word_pairs

        model = bench.model
        drawn = repeated_words(
            model.tokenizer,
            _long_words(bench),
            count=self.n_sequences,
            n_words=self.n_words,
            most_tokens=self.most_tokens,
            seed=bench.seed,
        )
        start = () if model.bos_id is None else (model.bos_id,)
        sequences = [(*start, *(id for word in 2 * words for id in word)) for words in drawn]
        pairs = [
            position_pairs(len(ids)) | word_pairs([len(word) for word in words], len(start))
            for ids, words in zip(sequences, drawn, strict=True)
        ]
        return _scored(bench, sequences, pairs, {"inputs": "repeated words"})


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


def _long_words(bench: Measures) -> list[str]:
    """The words of the passages that a vocabulary may well cut into pieces, in order."""
    from tinyablation.corpora.passages import load_passages

    texts = (passage.text for passage in load_passages(bench.setup.corpora))
    return sorted({word for text in texts for word in re.findall(r"\b[a-z]{6,}\b", text)})


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
