"""Comparison of what heads of several models write: by logit vectors, or by the texts of tokens.

Logit vectors can be compared only over the same vocabulary. The texts of the top and bottom tokens
are always compared, also between tokenizers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tinyablation.engine.document import Computed
from tinyablation.errors import TinyAblationError
from tinyablation.heads import Head
from tinyablation.runs.documents import Reading

if TYPE_CHECKING:
    import pandas as pd

    # A stored reading, a computed one, or the document of an OV report without logit vectors.
    Source = Reading | Computed | Mapping[str, Any]

ENDS = ("top", "bottom")


class ComparisonError(TinyAblationError):
    """Reports cannot be compared; the message names the model, condition and head."""


class _Written(NamedTuple):
    """What one head writes: token lists and, if available, logits."""

    model: str
    condition: str
    layer: int
    head: int
    texts: dict[str, list[str]]  # by end of the list, as it is ordered
    logits: np.ndarray | None  # [vocab]
    vocabulary: str | None  # the tokenizer's hash


def compare(
    reports: Sequence[Source], *, heads: Mapping[str, Collection[Head]] | None = None
) -> pd.DataFrame:
    """One row per pair of (model, condition, head) over all reports, each pair once.

    heads: which ones, by model; None: all. Columns: model_a, condition_a, layer_a, head_a, the same
    for b; comparison, "cosine" or "tokens"; cosine of the two logit vectors, each minus its mean
    over the vocabulary (to which a softmax is invariant), if both exist over the same vocabulary,
    else <NA> (a nullable Float64); shared_top and shared_bottom, the Jaccard index of the sets of
    token texts, from lists cut to the length of the shortest.

    Raises ComparisonError for a (model, condition) given twice, and for fewer than two heads.
    """
    import pandas as pd

    written = _written(reports, heads)
    if len(written) < 2:
        raise ComparisonError(f"{len(written)} head(s) given; a comparison needs two")
    first, second = np.triu_indices(len(written), k=1)
    columns: dict[str, Any] = {
        f"{name}_{side}": [getattr(written[index], name) for index in chosen]
        for side, chosen in (("a", first), ("b", second))
        for name in ("model", "condition", "layer", "head")
    }
    cosines = _cosines(written)[first, second]
    known = ~np.isnan(cosines)
    columns["comparison"] = np.where(known, "cosine", "tokens")
    columns["cosine"] = pd.arrays.FloatingArray(np.where(known, cosines, 0.0), ~known)
    for end in ENDS:
        columns[f"shared_{end}"] = _jaccard([each.texts[end] for each in written])[first, second]
    return pd.DataFrame(columns)


def cluster_tokens(
    reports: Sequence[Source],
    *,
    limit: int = 100,
    top_n: int = 50,
    heads: Mapping[str, Collection[Head]] | None = None,
) -> dict[str, Any]:
    """How often each token text occurs in the lists of all heads, and in which, as plain JSON.

    top_n: number of tokens read from each head's lists; limit: number of texts kept at either end,
    the most frequent first, ties by text. Every entry of `top` and `bottom`: token, count, and
    heads as (model, condition, layer, head).
    """
    for name, value in (("limit", limit), ("top_n", top_n)):
        if value < 1:
            raise ComparisonError(f"{name} is {value}; give 1 or more")
    written = _written(reports, heads)
    if not written:
        raise ComparisonError("no head given: there is nothing to count")
    short = next((each for each in written if len(each.texts["top"]) < top_n), None)
    if short is not None:
        raise ComparisonError(
            f"{_name(short)} has lists of {len(short.texts['top'])} tokens, fewer than "
            f"top_n = {top_n}; make the report with a larger top_k"
        )
    found: dict[str, Any] = {"limit": limit, "top_n": top_n, "n_heads": len(written)}
    for end in ENDS:
        owners: dict[str, list[dict[str, Any]]] = {}
        for each in written:
            place = dict(zip(_Written._fields[:4], each[:4], strict=True))
            for text in dict.fromkeys(each.texts[end][:top_n]):
                owners.setdefault(text, []).append(place)
        ordered = sorted(owners, key=lambda text: (-len(owners[text]), text))
        found[end] = [
            {"token": text, "count": len(owners[text]), "heads": owners[text]}
            for text in ordered[:limit]
        ]
    return found


def _parts(source: Source) -> tuple[Mapping[str, Any], Mapping[str, np.ndarray]]:
    if isinstance(source, Reading):
        return source.document(), source.tensors()
    if isinstance(source, Computed):
        return source.document, source.tensors
    return source, {}


def check_report(source: Source) -> None:
    """Raise ComparisonError if this is not an OV report."""
    _heads_of(source)


def _heads_of(source: Source) -> dict[Head, _Written]:
    document, tensors = _parts(source)
    try:
        return {
            Head(row["layer"], row["head"]): _Written(
                document["model"],
                document["condition"],
                row["layer"],
                row["head"],
                {end: [token["token"] for token in row["tokens"][end]] for end in ENDS},
                tensors[f"logits.{row['layer']}"][row["head"]]
                if f"logits.{row['layer']}" in tensors
                else None,
                document.get("tokenizer_hash"),
            )
            for row in document["heads"]
        }
    except (KeyError, TypeError) as error:
        raise ComparisonError(f"not an OV report: {error!r} is missing or misplaced") from None


def _written(
    reports: Sequence[Source], heads: Mapping[str, Collection[Head]] | None
) -> list[_Written]:
    found: list[_Written] = []
    for report in reports:
        own = _heads_of(report)
        if heads is not None:
            models = {each.model for each in own.values()}
            chosen = {head for model in models for head in heads.get(model, ())}
            missing = sorted(chosen - set(own))
            if missing:
                layer, head = missing[0]
                raise ComparisonError(f"the report on {models.pop()} has no head {layer}:{head}")
            own = {head: each for head, each in own.items() if head in chosen}
        found += own.values()
    counts = Counter(each[:4] for each in found)
    twice = next((each for each in found if counts[each[:4]] > 1), None)
    if twice is not None:
        raise ComparisonError(f"{_name(twice)} is given twice; give one report of each condition")
    return found


def _name(each: _Written) -> str:
    return f"{each.model}, {each.condition}, head {each.layer}:{each.head}"


def _cosines(written: Sequence[_Written]) -> np.ndarray:
    """[n, n]; NaN, within this module only, if two heads have no logits over one vocabulary."""
    cosines = np.full((len(written), len(written)), np.nan)
    groups: dict[str, list[int]] = {}
    for index, each in enumerate(written):
        if each.logits is not None and each.vocabulary is not None:
            groups.setdefault(each.vocabulary, []).append(index)
    for group in groups.values():
        vectors = np.stack([np.asarray(written[index].logits, dtype=np.float64) for index in group])
        vectors -= vectors.mean(axis=1, keepdims=True)
        sizes = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not (sizes > 0).all():
            dead = written[group[int(np.argmin(sizes[:, 0]))]]
            raise ComparisonError(f"{_name(dead)} writes nothing: its logits are all the same")
        vectors /= sizes
        cosines[np.ix_(group, group)] = vectors @ vectors.T
    return cosines


def _jaccard(lists: Sequence[Sequence[str]]) -> np.ndarray:
    """[n, n] Jaccard index: size of the intersection over size of the union of the texts."""
    length = min(map(len, lists))
    if length == 0:
        raise ComparisonError("a head's list of tokens is empty")
    place: dict[str, int] = {}
    for texts in lists:
        for text in texts[:length]:
            place.setdefault(text, len(place))
    held = np.zeros((len(lists), len(place)), dtype=np.float32)
    for row, texts in enumerate(lists):
        held[row, [place[text] for text in texts[:length]]] = 1.0
    common = held @ held.T
    sizes = held.sum(axis=1)
    return np.asarray(common / (sizes[:, None] + sizes[None, :] - common), dtype=np.float64)
