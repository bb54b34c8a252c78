"""Word lists, and how strongly a head's output is enriched in them. Pure: no torch.

A head's logits [vocab] are compared over candidate tokens: one space followed by letters only, if
the tokenizer encodes that text as the same token. (A stem such as " acknow" is a candidate too: no
dictionary is used.) The background is always formed by ALL heads of the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tinyablation.corpora.tokenisation import TokenisationError, answer_id, encode
from tinyablation.errors import TinyAblationError
from tinyablation.files.hashes import digest
from tinyablation.files.toml import read_toml
from tinyablation.statistics.intervals import ROUNDING, exceedance

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from tinyablation.heads import Head

Floats = NDArray[np.float64]
Ids = NDArray[np.int64]

# The context in which words are tokenised; any text that ends in a word would do.
ANCHOR = "It is"
# With fewer words, a single one could decide the result.
FEWEST_WORDS = 3
PERMUTATIONS = 2000
# Haldane (1956), Anscombe (1956): half a count is added to every cell, so that none is empty.
HALDANE = 0.5
# Part of a reading's address: incremented whenever a figure of measure_ov could change.
OV_VERSION = 1
# Figures in memory at once while token sets are drawn: 2^22 are 32 MiB.
_BLOCK = 1 << 22


class LexiconError(TinyAblationError):
    """A lexicon cannot be used; the message names the file and the word, or the figures."""


class _Words(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    words: list[Annotated[str, Field(pattern=r"^[a-z]+$")]] = Field(min_length=FEWEST_WORDS)


class Usable(NamedTuple):
    """The words of a lexicon that are one token, their ids [n], and the words left out."""

    words: tuple[str, ...]
    ids: Ids
    left_out: tuple[str, ...]

    @property
    def blocked(self) -> str | None:
        """Why these words cannot be used; None if they can."""
        if len(self.words) >= FEWEST_WORDS:
            return None
        had = ", ".join(self.words) or "none"
        return (
            f"{len(self.words)} of {len(self.words) + len(self.left_out)} words are one token "
            f"({had}); at least {FEWEST_WORDS} are needed"
        )


class Enrichment(NamedTuple):
    """Enrichment of a lexicon, one figure per head, each [n_heads].

    score: s(h), the mean over the lexicon of the head's logits standardised over the candidates;
    excess: s(h) minus the mean of s over all other heads; rank: rank of the excess among all heads,
    1 the largest, ties counted against the head. p_tokens: how often random token sets of the same
    size have as large an excess; p_directions: how often random directions of the stream have as
    large a score; both (k + 1) / (n + 1). p: the larger of the two.

    p_tokens alone is not enough. It treats the words as a random set of tokens, but in a trained
    model the words of a lexicon are similar, so any direction has high or low logits for all of
    them: of random directions through the unembeddings of the four embedded models 27 to 32 % had
    p_tokens <= .05 with hedges, 12 to 17 % with boosters (320 directions each). p_directions is
    uniform for random directions by construction.
    """

    score: Floats
    excess: Floats
    p: Floats
    p_tokens: Floats
    p_directions: Floats
    rank: NDArray[np.int64]


def load_lexicons(path: Path) -> dict[str, tuple[str, ...]]:
    """Words by lexicon, in file order; LexiconError names the file, the line and the word.

    A lexicon is a table with at least 3 lower-case `words`; no word occurs twice in the file.
    """
    text, document = read_toml(path, LexiconError)
    if not document:
        raise LexiconError(f"{path}: holds no lexicon; add a table such as [hedges] with words")
    lexicons: dict[str, tuple[str, ...]] = {}
    owners: dict[str, str] = {}
    for name, table in document.items():
        try:
            words = _Words.model_validate(table).words
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join([name, *map(str, first["loc"])])
            given = first["input"]
            place = _place(path, text, given if isinstance(given, str) else f"[{name}]", 1)
            said = f" ({given!r})" if isinstance(given, str) else ""
            raise LexiconError(f"{place}: {field}{said}: {first['msg']}") from None
        for word in words:
            if word in owners:
                place = _place(path, text, word, 2)
                raise LexiconError(
                    f"{place}: {name}: {word!r} is already in {owners[word]!r}; keep it once"
                )
            owners[word] = name
        lexicons[name] = tuple(words)
    return lexicons


def _place(path: Path, text: str, what: str, occurrence: int) -> str:
    """The file and, if found, the line of the n-th occurrence of a word or header."""
    wanted = what if what.startswith("[") else f'"{what}"'
    lines = [
        number
        for number, line in enumerate(text.splitlines(), 1)
        for _ in range(line.split("#")[0].count(wanted))
    ]
    return f"{path}:{lines[occurrence - 1]}" if len(lines) >= occurrence else str(path)


def ov_battery(
    split: str,
    lexicons: Mapping[str, Sequence[str]],
    top_k: int,
    layers: Sequence[int],
    cluster_heads: Sequence[Head] = (),
) -> str:
    """The battery's name in the address of the results of head_outputs.measure_ov.

    "ov-<split>-<8 hex digits>", a hash of the lexicons' words, the length of the token lists, the
    layers whose logit vectors are kept, the heads whose logits are kept by cluster, and the number
    of draws of the null distributions.
    """
    words = {name: list(lexicon) for name, lexicon in lexicons.items()}
    kept = {"lexicons": words, "top_k": top_k, "layers": sorted(layers)}
    kept |= {"cluster_heads": sorted(cluster_heads)}
    kept |= {"permutations": PERMUTATIONS, "version": OV_VERSION}
    return f"ov-{split}-{digest(kept)[:8]}"


def find_words(tokenizer: PreTrainedTokenizerBase, words: Sequence[str]) -> Usable:
    """The words that are ONE token after a space, tokenised in context (see tokenisation.py)."""
    found: dict[str, int] = {}
    for word in words:
        try:
            found[word] = answer_id(tokenizer, ANCHOR, f" {word}")
        except TokenisationError:
            continue
    left_out = tuple(word for word in words if word not in found)
    return Usable(tuple(found), np.array(list(found.values()), dtype=np.int64), left_out)


def token_texts(tokenizer: PreTrainedTokenizerBase, vocab_size: int) -> list[str]:
    """The text of every token of the model's vocabulary (texts_of)."""
    return texts_of(tokenizer, range(vocab_size))


def texts_of(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> list[str]:
    """The texts of tokens, with the leading space of those that have one.

    Tokens are decoded after a word, because SentencePiece drops a space at the start of a text. A
    part of a character has no text and is given as the tokenizer's piece, such as "âĢ" or "<0xE2>".
    Ids that the tokenizer does not know (models pad their vocabulary) are given as "<id>".
    """
    before = list(encode(tokenizer, ANCHOR))
    plain: dict[str, Any] = {"clean_up_tokenization_spaces": False, "skip_special_tokens": False}
    skipped = len(tokenizer.decode(before, **plain))
    known = [id for id in ids if id < len(tokenizer)]
    texts = tokenizer.batch_decode([[*before, token] for token in known], **plain)
    found = {id: text[skipped:] for id, text in zip(known, texts, strict=True)}
    for id, text in found.items():
        if not text or "\N{REPLACEMENT CHARACTER}" in text:
            found[id] = str(tokenizer.convert_ids_to_tokens(id))
    return [found.get(id, f"<{id}>") for id in ids]


def candidate_ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> Ids:
    """The ids of the candidate tokens: " " and letters only, and encoded back to the same id."""
    before = encode(tokenizer, ANCHOR)
    likely = [id for id, text in enumerate(texts) if text[:1] == " " and text[1:].isalpha()]
    if not likely:
        return np.array([], dtype=np.int64)
    encoded = tokenizer([ANCHOR + texts[id] for id in likely], add_special_tokens=False)
    return np.array(
        [
            id
            for id, ids in zip(likely, encoded["input_ids"], strict=True)
            if tuple(ids) == (*before, id)
        ],
        dtype=np.int64,
    )


def standardise(logits: ArrayLike, candidates: Ids) -> Floats:
    """Candidate logits of [n_heads, vocab], standardised per head to mean 0 and variance 1."""
    if not len(candidates):
        raise LexiconError("no candidate token: the vocabulary has no words behind a space")
    chosen = np.asarray(logits)[:, candidates].astype(np.float64)
    if not np.isfinite(chosen).all():
        raise LexiconError("a logit is not finite; check the weights")
    spread = chosen.std(axis=1, keepdims=True)
    if not spread.all():
        head = int(np.flatnonzero(spread[:, 0] == 0)[0])
        raise LexiconError(
            f"head number {head} of {len(chosen)} writes nothing: all its logits are the same"
        )
    return (chosen - chosen.mean(axis=1, keepdims=True)) / spread


def lexicon_scores(standardised: Floats, candidates: Ids, words: Usable) -> Floats:
    """The mean over the words for each row of standardised [n_rows, n_candidates]: [n_rows].

    Raises LexiconError for blocked words, or a word that is not a candidate.
    """
    return np.asarray(standardised[:, _columns(candidates, words)].mean(axis=1))


def _columns(candidates: Ids, words: Usable) -> Ids:
    if words.blocked is not None:
        raise LexiconError(words.blocked)
    place = {int(id): column for column, id in enumerate(candidates)}
    for word, id in zip(words.words, words.ids, strict=True):
        if int(id) not in place:
            raise LexiconError(f"{word!r} is not a candidate token; candidates have letters only")
    return np.array([place[int(id)] for id in words.ids], dtype=np.int64)


def enrichment(
    standardised: Floats,
    candidates: Ids,
    words: Usable,
    random_scores: Floats,
    rng: np.random.Generator,
    *,
    permutations: int = PERMUTATIONS,
) -> Enrichment:
    """How strongly each head is enriched in the words, against other heads, words and directions.

    standardised [n_heads, n_candidates]: of all heads of the model, from `standardise`;
    random_scores [n_directions]: lexicon_scores of random directions of the stream, standardised in
    the same way. One-sided: towards the words.

    Raises LexiconError for blocked words, a word that is not a candidate, fewer than two heads, or
    fewer than 2,000 permutations or directions.
    """
    columns = _columns(candidates, words)
    if len(standardised) < 2:
        raise LexiconError("one head has no background; give those of the whole model")
    for what, count in (("permutations", permutations), ("directions", len(random_scores))):
        if count < PERMUTATIONS:
            raise LexiconError(f"{count} {what} are too few; give {PERMUTATIONS} or more")
    n_heads, size = len(standardised), len(columns)
    score = lexicon_scores(standardised, candidates, words)
    # z_h minus the mean over the others is (z_h minus the mean over all) * H / (H - 1).
    deviation = (standardised - standardised.mean(axis=0)) * (n_heads / (n_heads - 1))
    excess = deviation[:, columns].mean(axis=1)
    reached = np.zeros(n_heads)
    block = max(1, _BLOCK // (n_heads * size))
    for start in range(0, permutations, block):
        count = min(block, permutations - start)
        sets = np.stack(
            [rng.choice(len(candidates), size, replace=False, shuffle=False) for _ in range(count)]
        )
        drawn = deviation[:, sets].mean(axis=2)
        reached += (drawn >= excess[:, None] - ROUNDING).sum(axis=1)
    p_tokens = (reached + 1) / (permutations + 1)
    # The other heads' mean is subtracted from a head's score, and from that of a direction instead.
    p_directions = np.array([exceedance(value, random_scores) for value in score])
    rank = (excess[None, :] >= excess[:, None]).sum(axis=1)
    larger = np.maximum(p_tokens, p_directions)
    return Enrichment(score, excess, larger, p_tokens, p_directions, rank.astype(np.int64))


def log_odds(tops: Sequence[ArrayLike], ids: Ids) -> Floats:
    """Log-odds ratio [n_heads], in nats, of lexicon tokens in each head's top-k list.

    tops: token ids by head. A head's list is compared with the pooled lists of all heads, including
    its own, with Haldane's correction, so a head without any such token has a finite, negative
    figure.
    """
    lists = [np.asarray(top) for top in tops]
    hits = np.array([np.isin(top, ids).sum() for top in lists], dtype=np.float64)
    others = np.array([len(top) for top in lists], dtype=np.float64) - hits

    def odds(hit: Any, other: Any) -> Any:
        return np.log((hit + HALDANE) / (other + HALDANE))

    return np.asarray(odds(hits, others) - odds(hits.sum(), others.sum()))


def describe_words(words: Mapping[str, Usable]) -> dict[str, Any]:
    """By lexicon, as plain JSON: n, the words used, those left out, and why blocked or null."""
    return {
        name: {
            "n": len(usable.words),
            "used": list(usable.words),
            "not_one_token": list(usable.left_out),
            "blocked": usable.blocked,
        }
        for name, usable in words.items()
    }
