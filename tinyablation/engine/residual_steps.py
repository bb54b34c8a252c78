"""Geometry of the residual stream: steps along a prompt, and the spread between prompts.

What the study calls curvature is called the step norm here: the Euclidean distance between the
residual streams of neighbouring tokens. The pure part uses numpy and scikit-learn; only the
measurement needs torch.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tinyablation.statistics.clusters import StatisticsError, cluster_index
from tinyablation.statistics.intervals import (
    ROUNDING,
    DegenerateInterval,
    Estimate,
    Floats,
    check_draws,
    checked_figures,
)
from tinyablation.statistics.student_t import student_quantile

if TYPE_CHECKING:
    import pandas

    from tinyablation.corpora.tokenisation import Prompt
    from tinyablation.engine.engine import Engine
    from tinyablation.heads import Head

EARLY = 5  # steps that count as early, as in the published claim (G.2)
ROWS_NUMBERS = 2**21  # rows x positions x d_model at a time: 8 MB a residual stream


class Geometry(NamedTuple):
    """Measurements at the output of one layer.

    table: one row per (set, example), the clean model first. Columns: heads (text, as
    interventions.heads_label writes them; "" for the clean model), layer, example, steps (how many
    steps the prompt has), step_norm and step_norm_early (mean over all of them, over the first 5;
    in the residual stream's own unit). vectors: by the same heads, the last token's residual
    stream of every example, [n_examples, d_model].
    """

    table: "pandas.DataFrame"
    vectors: dict[str, Floats]


def step_norms(residual: ArrayLike, *, length: int | None = None, from_bos: bool = False) -> Floats:
    """Euclidean norms of successive differences: [..., positions, d] -> [..., steps].

    length: the number of positions with real tokens; later ones are padding and never counted.
    from_bos: the first position is a BOS, and the step from it is left out. BOS has the same state
    in every prompt, and in large trained models the norm of its residual stream is far above that
    of other tokens (massive activations, Sun et al. 2024), so the step from it would dominate the
    mean. In the embedded models it is .6 to 1.5 times the other steps.

    Raises StatisticsError if no step is left, and for figures that are not finite.
    """
    data = np.asarray(residual, dtype=np.float64)
    if data.ndim < 2:
        raise StatisticsError(f"residual has shape {data.shape}; [positions, d] is needed")
    real = data.shape[-2] if length is None else length
    if not 0 < real <= data.shape[-2]:
        raise StatisticsError(f"length {real} of a residual of {data.shape[-2]} positions")
    # Cut before anything is computed: a padded position may hold anything, NaN included.
    data = checked_figures(data[..., from_bos:real, :], "residual", ndim=data.ndim)
    if data.shape[-2] < 2:
        raise StatisticsError(
            f"{real} token(s){', the first a BOS,' if from_bos else ''} make no step; need 2"
        )
    return np.asarray(np.linalg.norm(np.diff(data, axis=-2), axis=-1), dtype=np.float64)


def activation_spread(vectors: ArrayLike) -> float:
    """.5 * log det of the Ledoit-Wolf covariance of vectors [n, d], in nats.

    It is the entropy of a Gaussian with that covariance, without the constant d/2 log(2 pi e),
    which cancels in differences; alone it has no meaning, because it depends on the unit. Shrinkage
    (Ledoit and Wolf 2004) makes it finite for n < d. It also depends on n: compare only equal n.
    """
    from sklearn.covariance import LedoitWolf

    data = checked_figures(vectors, "vectors", ndim=2)
    if len(data) < 2 or not np.ptp(data, axis=0).any():
        raise StatisticsError(f"{len(data)} vectors, none different from another: no spread")
    covariance = LedoitWolf(store_precision=False).fit(data).covariance_
    sign, log_determinant = np.linalg.slogdet(covariance)
    if sign <= 0 or not np.isfinite(log_determinant):
        raise StatisticsError(
            f"the covariance of {len(data)} vectors of {data.shape[1]} is singular: the spread is "
            "minus infinity; give more vectors"
        )
    return float(0.5 * log_determinant)


def spread_difference(
    clean: ArrayLike,
    ablated: ArrayLike,
    clusters: Sequence[object],
    *,
    confidence: float = 0.95,
) -> Estimate:
    """activation_spread of the ablated vectors minus that of the clean ones, in nats.

    clean and ablated [n_examples, d] have the same order of examples. The interval is that of the
    jackknife over clusters, each left out of both sides at once, with Student's t on
    n_clusters - 1 (Efron and Tibshirani 1993, ch. 11). It uses no random draws.

    Coverage of the nominal 95 % for the expected difference at this n, over 150 simulated data sets
    each (standard error .02) of 3 examples a cluster: .95 to .99 with 16 or 32 clusters in 32
    dimensions and with 32 or 60 in 128, but .91 and .94 in 128 where the ablation shrinks the first
    4 dimensions to .3. Not used: the bootstrap over clusters, whose repeated rows lower the rank,
    .72 (percentile) and .62 (BCa) there, of 60 sets.

    That expectation is not the difference of the populations, -4.8 nats in that case: with fewer
    examples than dimensions shrinkage contributes much of the spread. It is -5.0 and -4.3 in 32
    dimensions (16 and 32 clusters), but +3.4 and +5.4 in 128 (32 and 60). Trust a sign only with
    several examples per dimension; otherwise project both sides to fewer dimensions first.

    Raises DegenerateInterval if leaving out any cluster changes nothing (the sides differ at most
    by a factor), StatisticsError as activation_spread does and for fewer than two clusters.
    """
    before = checked_figures(clean, "clean vectors", ndim=2)
    after = checked_figures(ablated, "ablated vectors", ndim=2)
    if before.shape != after.shape:
        raise StatisticsError(f"clean vectors {before.shape}, ablated {after.shape}; pair them")
    index, k = cluster_index(clusters, len(before))
    check_draws(confidence)

    def spreads(rows: NDArray[np.bool_]) -> tuple[float, float]:
        return activation_spread(after[rows]), activation_spread(before[rows])

    difference = float(np.subtract(*spreads(np.ones(len(before), dtype=bool))))
    without = np.array([spreads(index != cluster) for cluster in range(k)])
    partial = without[:, 0] - without[:, 1]
    if np.ptp(partial) <= ROUNDING * before.shape[1] * np.abs(without).max():
        raise DegenerateInterval(
            f"the spread changes by {difference:.3g} whichever cluster is left out, so the interval"
            " has zero width: the ablation multiplies every vector by the same factor",
            value=difference,
        )
    error = float(np.sqrt((k - 1) * partial.var()))
    half = student_quantile((1 + confidence) / 2, k - 1) * error
    return Estimate(difference, difference - half, difference + half, len(before), k)


def measure_geometry(
    engine: "Engine",
    prompts: Sequence["Prompt"],
    sets: Sequence[tuple["Head", ...]],
    layer: int,
    *,
    lengths: Sequence[int] | None = None,
    vectors_of: Sequence[tuple["Head", ...]] = (),
) -> Geometry:
    """Step norms at a layer's output (resid_post), clean and with each set of its heads zeroed.

    sets: heads of this layer, sorted and distinct, zeroed together at all positions. lengths: how
    many of each prompt's ids are real (default: all); the others are right padding and never reach
    the model. The step from BOS is left out if a prompt begins with it (see step_norms).
    vectors_of: the sets, () for the clean model, whose last-token vectors are kept.

    Prompts are grouped by length, with no padding; the layer's attention is not run again: its
    output is the clean one minus sum_h z_h W_O[h], which is exact.

    Raises EngineError for prompts that the engine cannot measure, for heads of another layer and
    for figures that are not finite; StatisticsError for a prompt that is too short for a step.
    """
    import pandas as pd

    from tinyablation.engine.prompt_checks import check_prompts
    from tinyablation.heads import heads_label

    _check_sets(engine, sets, layer, vectors_of)
    real = _without_pads(prompts, lengths)
    examples = check_prompts(engine.loaded, real, "prompt")
    chosen: list[tuple[Head, ...]] = [(), *sets]
    bos = engine.loaded.bos_id
    figures = np.empty((len(chosen), 3, len(examples.distinct)))
    last = {
        heads: np.empty((len(examples.distinct), engine.loaded.facts.d_model))
        for heads in vectors_of
    }
    for place, which, streams in _streams(engine, examples.distinct, chosen, layer):
        for index, stream in zip(which, streams, strict=True):
            first = examples.distinct[index][0]
            norms = step_norms(stream, from_bos=bos is not None and first == bos)
            figures[place, :, index] = len(norms), norms.mean(), norms[:EARLY].mean()
        if chosen[place] in last:
            last[chosen[place]][which] = streams[:, -1]
    n = len(examples.which)
    found = figures[:, :, examples.which]
    table = pd.DataFrame(
        {
            "heads": np.repeat([heads_label(heads) for heads in chosen], n),
            "layer": layer,
            "example": np.tile(np.arange(n), len(chosen)),
            "steps": found[:, 0].ravel().astype(np.int64),
            "step_norm": found[:, 1].ravel(),
            "step_norm_early": found[:, 2].ravel(),
        }
    )
    return Geometry(
        table, {heads_label(heads): rows[examples.which] for heads, rows in last.items()}
    )


def _streams(
    engine: "Engine",
    prompts: Sequence[tuple[int, ...]],
    sets: Sequence[tuple["Head", ...]],
    layer: int,
) -> Iterator[tuple[int, list[int], Floats]]:
    """Yield (number of a set, numbers of prompts of one length, [rows, positions, d_model])."""
    import torch

    from tinyablation.engine.architecture import Kept
    from tinyablation.engine.prompt_checks import EngineError
    from tinyablation.heads import heads_label

    arch = engine.architecture
    here = frozenset([layer])
    buckets: dict[int, list[int]] = {}
    for index, prompt in enumerate(prompts):
        buckets.setdefault(len(prompt), []).append(index)
    for length, bucket in sorted(buckets.items()):
        size = max(1, ROWS_NUMBERS // (length * engine.loaded.facts.d_model))
        with torch.no_grad():
            calls = engine.passes.verify([prompts[index] for index in bucket])
        for begin in range(0, len(bucket), size):
            part = bucket[begin : begin + size]
            rows = torch.tensor([prompts[index] for index in part], device=engine.loaded.device)
            with torch.no_grad():
                clean = arch.clean(rows, Kept(residual=here, z=here, attention=here))
            for place, heads in enumerate(sets):
                with torch.no_grad():
                    attention = clean.attention[layer].clone()
                    for columns in arch.columns(layer, heads):
                        z = clean.z[layer][..., columns]
                        attention -= z @ arch.output_matrix(layer, columns)
                    hidden = arch.after_attention(calls, layer, clean.residual[layer], attention)
                if not torch.isfinite(hidden).all():
                    raise EngineError(
                        f"model {engine.name!r}: the residual stream after layer {layer} is not "
                        f"finite with {heads_label(heads) or 'nothing'} zero-ablated; "
                        "measure in float32"
                    )
                yield place, part, hidden.cpu().double().numpy()


def _check_sets(
    engine: "Engine",
    sets: Sequence[tuple["Head", ...]],
    layer: int,
    vectors_of: Sequence[tuple["Head", ...]],
) -> None:
    from tinyablation.engine.prompt_checks import EngineError
    from tinyablation.heads import heads_label
    from tinyablation.interventions.interventions import AblateHeads

    n_heads = engine.architecture.n_heads
    if not 0 <= layer < engine.n_layers:
        raise EngineError(f"model {engine.name!r} has no layer {layer}; it has {engine.n_layers}")
    for heads in sets:
        for own, head in AblateHeads(heads).heads:
            if own != layer or head >= n_heads:
                raise EngineError(
                    f"model {engine.name!r}: {own}:{head} is not a head of layer {layer} "
                    f"({n_heads} heads), where the geometry is measured"
                )
    if len(set(sets)) < len(sets):
        raise EngineError("a set of heads is given twice; rows could not be told apart")
    for heads in vectors_of:
        if heads and heads not in sets:
            raise EngineError(f"vectors of {heads_label(heads)} asked for, but it is in no set")


def _without_pads(prompts: Sequence["Prompt"], lengths: Sequence[int] | None) -> Sequence["Prompt"]:
    from tinyablation.engine.prompt_checks import EngineError

    if lengths is None:
        return prompts
    if len(lengths) != len(prompts):
        raise EngineError(f"{len(lengths)} lengths for {len(prompts)} prompts; give one each")
    for index, (prompt, length) in enumerate(zip(prompts, lengths, strict=True)):
        if not 0 < length <= len(prompt.ids):
            raise EngineError(
                f"prompt {index}: length {length}, but it has {len(prompt.ids)} ids, pads included"
            )
    return [
        prompt._replace(ids=tuple(prompt.ids[:length]))
        for prompt, length in zip(prompts, lengths, strict=True)
    ]
