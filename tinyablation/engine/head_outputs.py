"""What heads write at the last token: their mean output, its top tokens and word enrichment.

ov_circuits.py explains how directions become token logits. An output projection's bias belongs to
no head and is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from tinyablation.corpora.lexicons import (
    PERMUTATIONS,
    Usable,
    candidate_ids,
    describe_words,
    enrichment,
    find_words,
    lexicon_scores,
    log_odds,
    standardise,
    token_texts,
)
from tinyablation.engine.architecture import Kept
from tinyablation.engine.document import Computed
from tinyablation.engine.offload import exact
from tinyablation.engine.ov_circuits import head_columns, ov_circuits
from tinyablation.engine.prompt_checks import EngineError, check_prompts
from tinyablation.engine.readout import Readout
from tinyablation.models.bounds import RECORD_NUMBERS
from tinyablation.statistics.intervals import generator

if TYPE_CHECKING:
    from tinyablation.corpora.tokenisation import Prompt
    from tinyablation.engine.engine import Engine
    from tinyablation.heads import Head

# Random directions read at once: 256 x 50,000 tokens are 51 MB in float32.
_DIRECTIONS = 256


@torch.no_grad()
def head_outputs(
    engine: Engine, prompts: Sequence[Prompt]
) -> Float64[Tensor, "n_layers n_heads d_model"]:
    """The mean over prompts of what each head adds to the stream at the prompt's last token.

    It is z_h W_O[h] of the unhooked model; duplicate prompts count twice. Batched by length,
    without padding. Raises EngineError for prompts that the model cannot process.
    """
    return _written(engine, _mean_z(engine, prompts, [0] * len(prompts))[0])


def _mean_z(
    engine: Engine, prompts: Sequence[Prompt], groups: Sequence[int]
) -> Float64[Tensor, "n_groups n_layers width"]:
    """The mean over each group's prompts of the output projections' inputs at the last token."""
    arch = engine.architecture
    examples = check_prompts(engine.loaded, prompts, "prompt")
    n_groups = max(groups) + 1
    weights = np.zeros((n_groups, len(examples.distinct)))
    np.add.at(weights, (np.asarray(groups), np.asarray(examples.which)), 1.0)
    n_layers, width = len(arch.layers), arch.n_heads * arch.d_head
    z = torch.zeros(n_groups, n_layers, width, dtype=torch.float64, device=arch.desk)
    buckets: dict[int, list[int]] = {}
    for index, ids in enumerate(examples.distinct):
        buckets.setdefault(len(ids), []).append(index)
    kept = Kept(z=frozenset(range(n_layers)))

    def add(part: Sequence[int]) -> Float64[Tensor, "n_groups n_layers width"]:
        rows = [examples.distinct[index] for index in part]
        ids = torch.tensor(rows, device=engine.loaded.device)
        clean = arch.clean(ids, kept, logits=False)
        weight = torch.tensor(weights[:, part], dtype=torch.float64, device=arch.desk)
        sums = [weight @ exact(clean.z[layer][:, -1]).to(arch.desk) for layer in range(n_layers)]
        return torch.stack(sums, dim=1)

    for length, bucket in sorted(buckets.items()):
        costs = [length * n_layers * width] * len(bucket)
        what = f"prompts of {length} tokens with the z of all heads"
        for _, sums in engine.room.parts(bucket, costs, RECORD_NUMBERS, what, add):
            z += sums
    counts = torch.tensor(weights.sum(axis=1), dtype=torch.float64, device=arch.desk)
    z /= counts[:, None, None]
    return z


def _written(
    engine: Engine, z: Float64[Tensor, "n_layers width"]
) -> Float64[Tensor, "n_layers n_heads d_model"]:
    """z_h W_O[h] of the mean z, which equals the mean of the products."""
    arch = engine.architecture
    found = torch.stack(
        [
            torch.stack(
                [
                    z[layer, own] @ exact(arch.output_matrix(layer, own)).to(z.device)
                    for own in head_columns(arch, layer)
                ]
            )
            for layer in range(len(arch.layers))
        ]
    )
    if not torch.isfinite(found).all():
        raise EngineError(
            f"model {engine.name!r}: a head's output is not finite; check the weights"
        )
    return found


@torch.no_grad()
def measure_ov(
    engine: Engine,
    prompts: Sequence[Prompt],
    *,
    condition: str,
    split: str,
    lexicons: Mapping[str, Sequence[str]],
    top_k: int = 150,
    layers_with_vectors: Sequence[int] = (0,),
    clusters: Sequence[str] = (),
    cluster_heads: Sequence[Head] = (),
    seed: int = 0,
) -> Computed:
    """What every head of the model writes at the last token of these prompts, as a document.

    condition, split: of the prompts, for the document. lexicons: words by name. top_k: the length
    of the token lists. clusters: one per prompt, for intervals over clusters (head_vocabulary.py);
    cluster_heads: the heads whose logits by cluster are kept. seed: of the permutations.

    The document: model, condition, split, n_examples, tokenizer_hash, top_k, seed; heads, by layer
    and head: vector_norm (of the mean output, in units of the stream), tokens.top and tokens.bottom
    of it, `static` (singular_value, copying, and the tokens of the leading direction, its sign
    being that of the mean output), and by lexicon the figures of lexicons.Enrichment and log_odds,
    or null where the lexicon is blocked; lexicons: which words were used, and why one is blocked;
    background: what heads are compared with. Tensors "logits.<layer>", float32 [n_heads, vocab]:
    the logits of the mean outputs of layers_with_vectors. With clusters also: their ids and
    n_examples; what _by_cluster finds; and "clusters.logits.<layer>.<head>", float32 [n_clusters,
    vocab], of each of cluster_heads.

    Raises EngineError for unusable prompts, a top_k, layer or head that the model does not have, a
    head that writes nothing, or different numbers of clusters and prompts.
    """
    facts = engine.loaded.facts
    if not 0 < top_k <= facts.vocab_size:
        raise EngineError(f"top_k is {top_k}; model {engine.name!r} has {facts.vocab_size} tokens")
    for layer in layers_with_vectors:
        if not 0 <= layer < engine.n_layers:
            raise EngineError(
                f"model {engine.name!r} has no layer {layer}; it has {engine.n_layers}"
            )
    if clusters and len(clusters) != len(prompts):
        raise EngineError(f"{len(clusters)} clusters are given for {len(prompts)} prompts")
    arch, readout = engine.architecture, Readout(engine.architecture)
    for layer, head in cluster_heads:
        if not (clusters and 0 <= layer < engine.n_layers and 0 <= head < arch.n_heads):
            raise EngineError(
                f"model {engine.name!r}: no logits by cluster of head {layer}:{head}; it has "
                f"{engine.n_layers} layers of {arch.n_heads} heads, and {len(clusters)} clusters"
            )
    ids = sorted(set(clusters)) or [""]
    places = {name: place for place, name in enumerate(ids)}
    groups = [places[name] for name in clusters] or [0] * len(prompts)
    by_group = _mean_z(engine, prompts, groups)
    counts = np.bincount(groups, minlength=len(ids))
    shares = torch.tensor(counts / len(prompts), device=by_group.device)
    outputs = _written(engine, torch.einsum("g,glw->lw", shares, by_group))
    circuits = ov_circuits(engine)
    texts = token_texts(engine.loaded.tokenizer, facts.vocab_size)
    candidates = candidate_ids(engine.loaded.tokenizer, texts)
    logits = readout(outputs.flatten(0, 1)).cpu().numpy()
    directions = torch.cat([layer.direction for layer in circuits])
    agreeing = torch.where((directions * outputs.flatten(0, 1)).sum(dim=1) < 0, -1.0, 1.0)
    static = readout(directions * agreeing[:, None]).cpu().numpy()
    norms = outputs.norm(dim=-1).flatten().tolist()
    values = torch.cat([layer.singular_value for layer in circuits]).tolist()
    copying = torch.cat([layer.copying for layer in circuits]).tolist()
    tops = [_ranked(row, top_k) for row in logits]
    words = {name: find_words(engine.loaded.tokenizer, each) for name, each in lexicons.items()}
    usable = {name: each for name, each in words.items() if each.blocked is None}
    scores = _random_scores(readout, candidates, usable, seed) if usable else {}
    by_head: list[dict[str, Any]] = [dict.fromkeys(words) for _ in logits]
    standardised = standardise(logits, candidates) if usable else np.empty(0)
    for name, each in usable.items():
        rng = generator(seed, f"ov:{name}")
        figures = enrichment(standardised, candidates, each, scores[name], rng)
        odds = log_odds(tops, each.ids)
        for index, row in enumerate(by_head):
            row[name] = {
                field: values[index].item() for field, values in figures._asdict().items()
            } | {"log_odds": odds[index].item()}
    heads = [
        {
            "layer": index // arch.n_heads,
            "head": index % arch.n_heads,
            "vector_norm": norms[index],
            "tokens": _tokens(logits[index], top_k, texts),
            "static": {
                "singular_value": values[index],
                "copying": copying[index],
                "tokens": _tokens(static[index], top_k, texts),
            },
            "lexicons": by_head[index],
        }
        for index in range(len(logits))
    ]
    document = {
        "model": engine.name,
        "condition": condition,
        "n_examples": len(prompts),
        "split": split,
        "tokenizer_hash": facts.tokenizer_hash,
        "top_k": top_k,
        "seed": seed,
        "heads": heads,
        "lexicons": describe_words(words),
        "background": {
            "heads": "all heads of the model",
            "n_heads": len(logits),
            "candidates": "tokens of letters only behind one space",
            "n_candidates": len(candidates),
            "permutations": PERMUTATIONS,
        },
    }
    layered = logits.reshape(engine.n_layers, arch.n_heads, -1)
    tensors = {f"logits.{layer}": layered[layer] for layer in sorted({*layers_with_vectors})}
    if clusters:
        document["clusters"] = {"ids": ids, "n_examples": counts.tolist()}
        tensors |= _by_cluster(engine, readout, by_group, candidates, usable)
        for layer, head in sorted({*cluster_heads}):
            own = head_columns(arch, layer)[head]
            matrix = exact(arch.output_matrix(layer, own)).to(by_group.device)
            rows = by_group[:, layer, own] @ matrix
            tensors[f"clusters.logits.{layer}.{head}"] = readout(rows).cpu().numpy()
    return Computed(document, tensors)


def _by_cluster(
    engine: Engine,
    readout: Readout,
    z: Float64[Tensor, "n_clusters n_layers width"],
    candidates: np.ndarray,
    words: Mapping[str, Usable],
) -> dict[str, np.ndarray]:
    """The sums that scores are computed from, by cluster; float64, heads layer by layer.

    "clusters.<lexicon>" [n_heads, n_clusters]: the words' mean logit minus the candidates', of each
    cluster's mean output; "clusters.spread" [n_heads, n_clusters, n_clusters]: the covariance of
    two clusters' logits over the candidates. Logits are linear in the output, so for any weights w
    of the clusters (summing to 1) the score is w . words / sqrt(w . spread . w).
    """
    arch = engine.architecture
    unembed = readout.unembed.double()
    chosen = unembed[:, candidates]
    centre = chosen.mean(dim=1)
    covariance = torch.cov(chosen, correction=0)
    found: dict[str, list[Tensor]] = {name: [] for name in (*words, "spread")} if words else {}
    for layer in range(engine.n_layers if words else 0):
        for own in head_columns(arch, layer):
            matrix = exact(arch.output_matrix(layer, own)).to(z.device)
            rows = readout.final(z[:, layer, own] @ matrix)
            found["spread"].append(rows @ covariance @ rows.T)
            for name, each in words.items():
                found[name].append(rows @ (unembed[:, each.ids].mean(dim=1) - centre))
    return {f"clusters.{name}": torch.stack(parts).cpu().numpy() for name, parts in found.items()}


def _ranked(logits: np.ndarray, top_k: int) -> np.ndarray:
    """The ids of the k largest, largest first; ties in order of id."""
    return np.argsort(-logits, kind="stable")[:top_k]


def _tokens(logits: np.ndarray, top_k: int, texts: Sequence[str]) -> dict[str, Any]:
    return {
        name: [
            {"token_id": int(id), "token": texts[id], "logit": float(logits[id])}
            for id in _ranked(sign * logits, top_k)
        ]
        for name, sign in (("top", 1), ("bottom", -1))
    }


def _random_scores(
    readout: Readout, candidates: np.ndarray, words: Mapping[str, Usable], seed: int
) -> dict[str, np.ndarray]:
    """By lexicon, the scores of isotropic random directions of the stream."""
    rng = generator(seed, "ov:directions")
    device = readout.unembed.device
    found: dict[str, list[np.ndarray]] = {name: [] for name in words}
    for start in range(0, PERMUTATIONS, _DIRECTIONS):
        count = min(_DIRECTIONS, PERMUTATIONS - start)
        drawn = rng.standard_normal((count, len(readout.unembed)))
        logits = readout(torch.tensor(drawn, device=device)).cpu().numpy()
        standardised = standardise(logits, candidates)
        for name, usable in words.items():
            found[name].append(lexicon_scores(standardised, candidates, usable))
    return {name: np.concatenate(parts) for name, parts in found.items()}
