"""OV readings whose answer is known: logits made up by cluster, no model behind them."""

from collections.abc import Mapping

import numpy as np

from tinyablation.analysis.head_vocabulary import HeadVocabulary
from tinyablation.corpora.lexicons import (
    PERMUTATIONS,
    Usable,
    describe_words,
    enrichment,
    lexicon_scores,
    log_odds,
    standardise,
)
from tinyablation.engine.document import Computed

LAYERS, HEADS, VOCAB, CLUSTERS = 2, 8, 300, 16
NAMED = (0, 2)
TOP_K = 20
WORDS = {
    "hedges": Usable(tuple(f"h{n}" for n in range(6)), np.arange(6), ("conceivably",)),
    "boosters": Usable(tuple(f"b{n}" for n in range(6)), np.arange(6, 12), ()),
}
NONE = Usable(("perhaps",), np.array([0]), ("maybe",))
CANDIDATES = np.arange(VOCAB)
COUNTS = np.tile([3, 5], CLUSTERS // 2)


def own_vector(seed: int) -> np.ndarray:
    """[vocab] something for a head to write."""
    return np.random.default_rng(seed).normal(size=VOCAB)


def make_head_vocabulary(
    hedging: Mapping[tuple[int, int], float] | None = None,
    *,
    model: str = "made-up",
    writes: Mapping[tuple[int, int], np.ndarray] | None = None,
    spread: float = 0.2,
    hedging_spread: float = 0.0,
    chance: float = 0.0,
    axis: float = 3.0,
    tokenizer: str = "t" * 64,
    words: Mapping[str, Usable] = WORDS,
    texts: str = " w",
    seed: int = 0,
) -> HeadVocabulary:
    """Sixteen heads that write noise, an axis in common (by chance towards or away), and hedges.

    hedging: by head, how far the hedges' logits are raised, in standard deviations of its own;
    hedging_spread: how far that varies between clusters; writes: whole vectors by head; chance: how
    far random directions raise or lower the hedges together, as those of trained models do.
    """
    rng = np.random.default_rng(seed)
    heads = [(layer, head) for layer in range(LAYERS) for head in range(HEADS)]
    common = own_vector(12345)
    common[: len(WORDS["hedges"].ids) + len(WORDS["boosters"].ids)] = 0.0
    logits = np.empty((CLUSTERS, len(heads), VOCAB))
    for place, head in enumerate(heads):
        own = (writes or {}).get(head, rng.normal(size=VOCAB))
        # Words lie where the average token does, but for what is planted.
        own = own + axis * rng.choice([-1.0, 1.0]) * common
        for usable in words.values():
            own[usable.ids] += own.mean() - own[usable.ids].mean()
        each = own + spread * rng.normal(size=(CLUSTERS, VOCAB))
        raised = (hedging or {}).get(head, 0.0) + hedging_spread * rng.normal(size=CLUSTERS)
        each[:, words["hedges"].ids] += (raised * own.std())[:, None]
        logits[:, place] = each
    return HeadVocabulary(
        _computed(logits, heads, model, tokenizer, words, texts, seed, chance), (f"{model}-ov",)
    )


def _computed(logits, heads, model, tokenizer, words, texts, seed, chance) -> Computed:
    said = [f"{texts}{id}" for id in range(VOCAB)]
    for usable in words.values():
        for word, id in zip(usable.words, usable.ids, strict=True):
            said[id] = f" {word}"
    rng = np.random.default_rng(seed + 1)
    mean = np.einsum("c,chv->hv", COUNTS / COUNTS.sum(), logits)
    order = [np.argsort(-row)[:TOP_K] for row in mean]
    rows = [
        {
            "layer": layer,
            "head": head,
            "vector_norm": 1.0,
            "tokens": _ends(row, said),
            "static": {"singular_value": 1.0, "copying": 0.5, "tokens": _ends(row, said)},
            "lexicons": dict.fromkeys(words),
        }
        for (layer, head), row in zip(heads, mean, strict=True)
    ]
    tensors = {f"logits.{n}": mean.reshape(LAYERS, HEADS, VOCAB)[n] for n in range(LAYERS)}
    tensors[f"clusters.logits.{NAMED[0]}.{NAMED[1]}"] = logits[:, heads.index(NAMED)]
    centred = logits - logits.mean(axis=2, keepdims=True)
    tensors["clusters.spread"] = np.einsum("chv,dhv->hcd", centred, centred) / VOCAB
    standardised = standardise(mean, CANDIDATES)
    drawn = rng.normal(size=(PERMUTATIONS, VOCAB))
    together = np.random.default_rng(seed + 2).normal(size=(PERMUTATIONS, 1))
    drawn[:, words["hedges"].ids] += chance * together
    directions = standardise(drawn, CANDIDATES)
    for name, usable in words.items():
        if usable.blocked is not None:
            continue
        tensors[f"clusters.{name}"] = centred[:, :, usable.ids].mean(axis=2).T
        scores = lexicon_scores(directions, CANDIDATES, usable)
        found = enrichment(standardised, CANDIDATES, usable, scores, rng)
        odds = log_odds(order, usable.ids)
        for place, row in enumerate(rows):
            figures = {key: values[place].item() for key, values in found._asdict().items()}
            row["lexicons"][name] = figures | {"log_odds": odds[place].item()}
    document = {
        "model": model,
        "condition": "facts",
        "split": "confirmation",
        "n_examples": int(COUNTS.sum()),
        "tokenizer_hash": tokenizer,
        "seed": 0,
        "heads": rows,
        "lexicons": describe_words(words),
        "clusters": {
            "ids": [f"fact{n:02d}" for n in range(CLUSTERS)],
            "n_examples": COUNTS.tolist(),
        },
    }
    return Computed(document, tensors)


def _ends(row: np.ndarray, texts: list[str]) -> dict[str, list[dict[str, object]]]:
    return {
        end: [
            {"token_id": int(id), "token": texts[id], "logit": float(row[id])}
            for id in np.argsort(-sign * row)[:TOP_K]
        ]
        for end, sign in (("top", 1), ("bottom", -1))
    }
