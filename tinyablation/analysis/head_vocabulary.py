"""What the heads of one model write under one condition, with intervals over fact clusters.

Made from the result of head_outputs.measure_ov with clusters; needs no model and no torch. The
clusters of the prompts are resampled, for all heads at once: a head's mean output is that of the
drawn clusters, and its logits are linear in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tinyablation.analysis.head_similarity import ENDS, compare
from tinyablation.analysis.readings import ReadingFigures
from tinyablation.errors import TinyAblationError
from tinyablation.heads import Head
from tinyablation.memo import Memo
from tinyablation.statistics.intervals import (
    DegenerateInterval,
    Estimate,
    cluster_statistic_interval,
    exceedance,
    generator,
)

if TYPE_CHECKING:
    from tinyablation.statistics.intervals import Floats, Indices

_ROW = ("model", "layer", "head")


class HeadVocabularyError(TinyAblationError):
    """An OV reading does not contain what was requested."""


class Likeness(NamedTuple):
    """Cosine of two heads' logits, its p among n other heads, and `raw`: with the common axis."""

    estimate: Estimate
    p: float
    n: int
    raw: float


class Shared(NamedTuple):
    """Jaccard index of two heads' top tokens, by text, and its p among n other heads."""

    estimate: Estimate
    p: float
    n: int


@dataclass(frozen=True)
class HeadVocabulary(ReadingFigures):
    """An OV reading with clusters (head_outputs.measure_ov), as used by claims.

    runs: the names of the run directories it comes from.
    """

    @property
    def condition(self) -> str:
        return str(self.document["condition"])

    @cached_property
    def heads(self) -> tuple[Head, ...]:
        """(layer, head) in the order of the tensors."""
        return tuple(Head(row["layer"], row["head"]) for row in self.document["heads"])

    def place(self, head: Head) -> int:
        """The index of a head in `heads`."""
        if tuple(head) not in self.heads:
            raise HeadVocabularyError(f"{self.model} has no head {head[0]}:{head[1]}")
        return self.heads.index((head[0], head[1]))

    def row(self, head: Head) -> Mapping[str, Any]:
        """The entry of one head in the document."""
        found: Mapping[str, Any] = self.document["heads"][self.place(head)]
        return found

    def blocked(self, lexicon: str) -> str | None:
        """Why a lexicon cannot be used for this model; None if it can."""
        if lexicon not in self.document["lexicons"]:
            raise HeadVocabularyError(
                f"{self.model}, {self.condition}: no lexicon {lexicon!r} was read"
            )
        found: str | None = self.document["lexicons"][lexicon]["blocked"]
        return found

    def figures(self, head: Head, lexicon: str) -> Mapping[str, Any]:
        """One head's figures with one lexicon (lexicons.Enrichment, log_odds)."""
        reason = self.blocked(lexicon)
        if reason is not None:
            raise HeadVocabularyError(f"{self.model}, {self.condition}, {lexicon}: {reason}")
        found: Mapping[str, Any] = self.row(head)["lexicons"][lexicon]
        return found

    def score(self, head: Head, lexicon: str) -> Estimate:
        """The head's own mean of the words, whatever other heads write, with an interval.

        In standard deviations of its logits over the candidates; the estimate is the document's
        (lexicons.Enrichment.score). The interval has zero width for a head that attends only to
        what all prompts have in common, and so writes the same in each.
        """
        place = self.place(head)

        def own(rows: Indices) -> Floats:
            return self._scores(lexicon, rows, slice(place, place + 1))[:, 0]

        found = _or_a_point(
            lambda: self._interval(own, f"{lexicon} score", head), [len(self.clusters)]
        )
        return found._replace(n=int(self.document["n_examples"]))

    def excess(self, head: Head, lexicon: str) -> Estimate:
        """The head's enrichment in the words beyond the mean of all other heads.

        In standard deviations of a head's logits over the candidates, with an interval over
        clusters; the estimate is the document's.
        """
        place = self.place(head)
        return self._interval(lambda rows: self._excess(lexicon, rows)[:, place], lexicon, head)

    def lead(self, head: Head, lexicon: str) -> Estimate:
        """Its excess minus the largest excess of the layer's other heads, per resample."""
        place = self.place(head)
        others = [n for n, other in enumerate(self.heads) if other[0] == head[0] and n != place]
        if not others:
            raise HeadVocabularyError(
                f"{self.model}: layer {head[0]} has one head, which leads nobody"
            )

        def ahead(rows: Indices) -> Floats:
            excess = self._excess(lexicon, rows)
            return np.asarray(excess[:, place] - excess[:, others].max(axis=1))

        return self._interval(ahead, f"{lexicon} lead", head)

    def layer_rank(self, head: Head, lexicon: str) -> int:
        """The head's rank in its layer; 1: the most enriched in the words."""
        own = self.figures(head, lexicon)["excess"]
        rest = [other for other in self.heads if other[0] == head[0] and other != head]
        return 1 + sum(self.figures(other, lexicon)["excess"] >= own for other in rest)

    def tokens(self, head: Head, count: int) -> dict[str, list[dict[str, Any]]]:
        """By end ("top", "bottom"): the first tokens with their logits (panels.Token)."""
        return {
            end: [
                {"token": token["token"], "logit": token["logit"]}
                for token in self.row(head)["tokens"][end][:count]
            ]
            for end in ENDS
        }

    def listed(self, head: Head, lexicon: str) -> tuple[str, ...]:
        """The words of the lexicon in the head's list of the tokens that it writes most."""
        words = {f" {word}" for word in self.document["lexicons"][lexicon]["used"]}
        written = (token["token"] for token in self.row(head)["tokens"]["top"])
        return tuple(text.strip() for text in written if text in words)

    # --- clusters --------------------------------------------------------------------------------

    @cached_property
    def clusters(self) -> tuple[str, ...]:
        if "clusters" not in self.document:
            raise HeadVocabularyError(
                f"{self.model}, {self.condition}: the reading has no clusters; measure it with them"
            )
        return tuple(self.document["clusters"]["ids"])

    @cached_property
    def _counts(self) -> Floats:
        return np.asarray(self.document["clusters"]["n_examples"], dtype=np.float64)

    def weights(self, rows: Indices) -> Floats:
        """[n, n_clusters] shares of the examples; rows [n, drawn]: clusters with repetition."""
        size = (len(rows), len(self._counts))
        cells = rows + size[1] * np.arange(size[0])[:, None]
        times = np.bincount(cells.ravel(), minlength=size[0] * size[1]).reshape(size)
        drawn = times * self._counts
        return np.asarray(drawn / drawn.sum(axis=1, keepdims=True))

    def logits(self, head: Head) -> Floats:
        """[n_clusters, vocab] of one head, each minus its mean over the vocabulary."""
        name = f"clusters.logits.{head[0]}.{head[1]}"
        if name not in self.tensors:
            raise HeadVocabularyError(
                f"{self.model}, {self.condition}: the reading has no logits by cluster of head "
                f"{head[0]}:{head[1]}"
            )
        found = self.tensors[name].astype(np.float64)
        return np.asarray(found - found.mean(axis=1, keepdims=True))

    def _scores(self, lexicon: str, rows: Indices, places: slice = slice(None)) -> Floats:
        """[n, n_heads] score by draw of clusters [n, drawn] (lexicons.Enrichment)."""
        weights = self.weights(rows)
        words = weights @ self.tensors[f"clusters.{lexicon}"][places].T
        # Head by head: all at once would need heads x draws x clusters, 300 MB for GPT-2 medium.
        spreads = self.tensors["clusters.spread"][places]
        variances = [_forms(weights, spread) for spread in spreads]
        return np.asarray(words / np.sqrt(np.stack(variances, axis=1)))

    def _excess(self, lexicon: str, rows: Indices) -> Floats:
        """[n, n_heads] excess by draw of clusters [n, drawn] (lexicons.Enrichment)."""
        score = self._scores(lexicon, rows)
        n_heads = score.shape[1]
        return np.asarray((score - score.mean(axis=1, keepdims=True)) * (n_heads / (n_heads - 1)))

    def _interval(self, statistic: Callable[[Indices], Floats], what: str, head: Head) -> Estimate:
        split = self.document["split"]
        purpose = f"{self.model} {self.condition} {split} {what} {tuple(head)}"
        found = cluster_statistic_interval(
            lambda drawn: statistic(drawn[0]),
            [self.clusters],
            generator(int(self.document["seed"]), purpose),
            vectorized=True,
        )
        return found._replace(n=int(self.document["n_examples"]))


def _or_a_point(interval: Callable[[], Estimate], n_clusters: Sequence[int]) -> Estimate:
    """The interval; of zero width where every draw of clusters gives the same figure.

    So it is of a head that writes the same in every prompt, and of two that write the same.
    """
    try:
        return interval()
    except DegenerateInterval as same:
        return Estimate(same.value, same.value, same.value, min(n_clusters), min(n_clusters))


def _forms(rows: Floats, form: Floats, others: Floats | None = None) -> Floats:
    """[n] row @ form @ other for each row [n, k] and its other, by default the row itself."""
    return np.asarray(((rows @ form) * (rows if others is None else others)).sum(axis=1))


# --- heads of two models -------------------------------------------------------------------------


def one_vocabulary(one: HeadVocabulary, other: HeadVocabulary) -> bool:
    """Whether the two have the same vocabulary, so that logit vectors can be compared."""
    return bool(one.document["tokenizer_hash"] == other.document["tokenizer_hash"])


def likeness(one: HeadVocabulary, head: Head, other: HeadVocabulary, other_head: Head) -> Likeness:
    """The similarity of two heads' logits over one vocabulary, without the axis all heads share.

    From each logit vector its mean over the vocabulary is subtracted (a softmax is invariant to
    it), then its component along the leading singular vector of all heads of both models, each
    normalised. Most of what any head writes lies on that one axis, which separates frequent from
    rare tokens (Mu and Viswanath 2018, "All-but-the-Top"): between heads of two embedded models the
    median |cosine| was .8 to .9 with it and .1 to .3 without (discovery split), so with it all
    heads look alike.

    Clusters of the same corpus are drawn together for both models, with the axis fixed. The null:
    every other head of each model against the named head of the other one, one-sided.
    """
    ours, theirs = _vectors(one), _vectors(other)
    if ours.shape[1] != theirs.shape[1]:
        raise HeadVocabularyError(f"{one.model} and {other.model} have different vocabularies")
    places = one.place(head), other.place(other_head)
    raw = float(ours[places[0]] @ theirs[places[1]])
    axis = _leading(np.concatenate([ours, theirs]))
    ours, theirs = _without(ours, axis), _without(theirs, axis)
    ours /= np.linalg.norm(ours, axis=1, keepdims=True)
    theirs /= np.linalg.norm(theirs, axis=1, keepdims=True)
    there, back = theirs @ ours[places[0]], ours @ theirs[places[1]]
    null = np.concatenate([np.delete(there, places[1]), np.delete(back, places[0])])
    first, second = (
        _without(each.logits(own), axis) for each, own in ((one, head), (other, other_head))
    )
    products = (first @ first.T, first @ second.T, second @ second.T)

    def cosine(drawn: Sequence[Indices]) -> Floats:
        a, b = one.weights(drawn[0]), other.weights(drawn[1])
        lengths = _forms(a, products[0]) * _forms(b, products[2])
        return np.asarray(_forms(a, products[1], b) / np.sqrt(lengths))

    heads = f"{one.model} {tuple(head)} {other.model} {tuple(other_head)}"
    purpose = f"{heads} {one.condition} likeness"
    drawn = _or_a_point(
        lambda: cluster_statistic_interval(
            cosine,
            [one.clusters, other.clusters],
            generator(int(one.document["seed"]), purpose),
            paired=one.clusters == other.clusters,
            vectorized=True,
            bounds=(-1.0, 1.0),
        ),
        [len(one.clusters), len(other.clusters)],
    )
    found = drawn._replace(n=int(one.document["n_examples"]))
    return Likeness(found, exceedance(found.estimate, null), len(null), raw)


def _vectors(of: HeadVocabulary) -> Floats:
    """[n_heads, vocab] of length 1, each minus its mean over the vocabulary."""
    layers = sorted({layer for layer, _ in of.heads})
    missing = [layer for layer in layers if f"logits.{layer}" not in of.tensors]
    if missing:
        raise HeadVocabularyError(
            f"{of.model}, {of.condition}: the reading has no logits of layer {missing[0]}"
        )
    found = np.concatenate([of.tensors[f"logits.{layer}"] for layer in layers]).astype(np.float64)
    found -= found.mean(axis=1, keepdims=True)
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True))


def _leading(rows: Floats) -> Floats:
    """[vocab] the leading right singular vector of rows [n_heads, vocab], from their products."""
    _, vectors = np.linalg.eigh(rows @ rows.T)
    axis = vectors[:, -1] @ rows
    return np.asarray(axis / np.linalg.norm(axis))


def _without(rows: Floats, axis: Floats) -> Floats:
    return np.asarray(rows - np.outer(rows @ axis, axis))


def shared_tokens(
    one: HeadVocabulary, head: Head, other: HeadVocabulary, other_head: Head
) -> Shared:
    """The Jaccard index of the top tokens' texts, for any two vocabularies.

    Its interval draws clusters, together where both models have the same, and makes the lists anew.
    A reading has the texts of the tokens in some list of some head; one without a text counts as
    shared by nobody for the lower end, and as shared for the upper one. p: (k + 1) / (n + 1) over
    every other head of each model against the other's named head.
    """
    table = compare([one.document, other.document])
    named = [
        np.logical_and.reduce(
            [
                table[f"{name}_{side}"] == value
                for name, value in zip(_ROW, (each.model, *own), strict=True)
            ]
        )
        for side, each, own in (("a", one, head), ("b", other, other_head))
    ]
    across = (table["model_a"] == one.model) & (table["model_b"] == other.model)
    shared = table["shared_top"].to_numpy(dtype=float)
    value = float(shared[across & named[0] & named[1]][0])
    rest = shared[across & (named[0] ^ named[1])]
    apart, agreeing = _shared_again(one, head, other, other_head)
    n, n_clusters = int(one.document["n_examples"]), apart.n_clusters
    estimate = Estimate(value, min(value, apart.low), max(value, agreeing.high), n, n_clusters)
    return Shared(estimate, exceedance(value, rest), len(rest))


def _shared_again(
    one: HeadVocabulary, head: Head, other: HeadVocabulary, other_head: Head
) -> tuple[Estimate, Estimate]:
    """The Jaccard index of lists of drawn clusters: texts not known apart, and all agreeing."""
    sides = ((one, head), (other, other_head))
    length = min(len(row["tokens"]["top"]) for each, _ in sides for row in each.document["heads"])
    texts: dict[str, int] = {}
    codes = [_codes(each, texts, each.logits(own).shape[1]) for each, own in sides]
    logits = [each.logits(own) for each, own in sides]

    def tally(drawn: Sequence[Indices]) -> Indices:
        """[n, 2] by draw: texts that both lists have, and places whose text is not known."""
        found = np.empty((len(drawn[0]), 2), dtype=np.intp)
        weights = [each.weights(rows) for (each, _), rows in zip(sides, drawn, strict=True)]
        for draw in range(len(found)):  # all at once would need draws x vocabulary, 800 MB
            lists = [
                own[_top(weight[draw] @ values, length)]
                for own, weight, values in zip(codes, weights, logits, strict=True)
            ]
            # Sets of some ten numbers, which np.intersect1d would sort.
            known = [set(own[own >= 0].tolist()) for own in lists]
            found[draw] = (
                len(known[0] & known[1]),
                sum(int(np.count_nonzero(own < 0)) for own in lists),
            )
        return found

    tallies = Memo()  # both intervals are of the same draws

    def index(drawn: Sequence[Indices], agreeing: bool) -> Floats:
        key = tuple(rows.tobytes() for rows in drawn)
        common, unknown = tallies(key, lambda: tally(drawn)).T
        shared = np.minimum(length, common + unknown) if agreeing else common
        return np.asarray(shared / (2 * length - shared))

    heads = f"{one.model} {tuple(head)} {other.model} {tuple(other_head)}"

    def interval(agreeing: bool) -> Estimate:
        return _or_a_point(
            lambda: cluster_statistic_interval(
                lambda drawn: index(drawn, agreeing),
                [one.clusters, other.clusters],
                generator(int(one.document["seed"]), f"{heads} {one.condition} shared tokens"),
                paired=one.clusters == other.clusters,
                vectorized=True,
                bounds=(0.0, 1.0),
            ),
            [len(one.clusters), len(other.clusters)],
        )

    return interval(False), interval(True)


def _top(values: Floats, length: int) -> Indices:
    """The places of the largest values, in no order; of equal ones the first."""
    least = np.partition(values, -length)[-length]
    above = np.flatnonzero(values > least)
    return np.concatenate([above, np.flatnonzero(values == least)[: length - len(above)]])


def _codes(of: HeadVocabulary, texts: dict[str, int], size: int) -> Indices:
    """[size] a number for the text of every token id, the same for both models; -1: not known."""
    found = np.full(size, -1, dtype=np.intp)
    for row in of.document["heads"]:
        for lists in (row["tokens"], row["static"]["tokens"]):
            for end in ENDS:
                for token in lists[end]:
                    code = texts.setdefault(token["token"], len(texts))
                    found[int(token["token_id"])] = code
    return found
