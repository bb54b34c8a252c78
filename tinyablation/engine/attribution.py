"""Attribution patching: the first-order effect on LD of changing a head, for all heads at once.

Nanda (2023), "Attribution patching: activation patching at industrial scale"; Syed, Rager and Conmy
(2023), "Attribution patching outperforms automated circuit discovery", arXiv:2310.10348. A head's
output z_h, the input of its layer's output projection, becomes z'_h; then

    Delta LD = LD(z') - LD(z)  ~  sum over positions of (z'_h - z_h) . dLD/dz_h

with everything after the head recomputed. One backward pass gives the gradient at every head, so
all scores of a batch cost one forward and one backward pass, and one more forward pass if z' comes
from another prompt. They are exact only where LD is linear in z: a score ranks heads for
measurement (screening.py), and no verdict rests on it.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor, nn

from tinyablation.engine.architecture import Kept, hooked
from tinyablation.engine.offload import exact
from tinyablation.engine.prompt_checks import Ids, check_pairs, check_prompts
from tinyablation.errors import TinyAblationError

if TYPE_CHECKING:
    from tinyablation.corpora.tokenisation import Prompt
    from tinyablation.engine.engine import Engine

# Bound on what a backward pass keeps, in numbers: 1 GB in float32; Engine.room gives the share
# that fits.
GRAPH_NUMBERS = 2**28
# What autograd keeps per layer and position with frozen weights, in multiples of d_model; measured:
# 11 (GPT-NeoX), 17 (Llama, Mistral) and 22 (GPT-2).
LAYER_NUMBERS = 24


class AttributionError(TinyAblationError):
    """Heads cannot be scored: no gradient reaches them, or it is not finite."""


@torch.enable_grad()
def head_scores(
    engine: "Engine",
    prompts: Sequence["Prompt"],
    *,
    replacement: Float[Tensor, "layers width"] | None = None,
    pairs: Sequence["Prompt"] | None = None,
) -> Float64[np.ndarray, "prompts layers heads"]:
    """The first-order Delta LD (changed - clean, in logits) of every head alone, by prompt.

    z' is 0, as in zero ablation; or `replacement`, the constant of zero_folded or mean, by layer
    (heads side by side); or the z of `pairs`, one prompt each with equally many tokens. All
    positions count, including BOS, as in ablation. Prompts of one length are scored together,
    without padding. Weights stay frozen and the model is unchanged; gradients are in its dtype,
    sums in float64.

    Raises EngineError for prompts that the model cannot process; AttributionError if both a
    replacement and pairs are given, for an offloaded model, and for scores that are not finite;
    OutOfMemory if a single prompt's backward pass does not fit.
    """
    arch, name = engine.architecture, engine.name
    if replacement is not None and pairs is not None:
        raise AttributionError("give either a replacement or pairs, not both")
    if any(parameter.is_meta for parameter in arch.model.parameters()):
        raise AttributionError(
            f"model {name!r} is offloaded: a backward pass would hold all its weights on the device"
            " at once. Measure every head instead, without screening"
        )
    check_prompts(engine.loaded, prompts, "prompt")
    lenders = check_pairs(engine.loaded, pairs, prompts, ["patching"] if pairs else [])
    engine.room.begin()
    by_length: dict[int, list[int]] = {}
    for index, prompt in enumerate(prompts):
        by_length.setdefault(len(prompt.ids), []).append(index)
    found = np.empty((len(prompts), len(arch.layers), arch.n_heads))
    for length, rows in sorted(by_length.items()):

        def score(part: Sequence[int]) -> Tensor:
            asked = [prompts[row] for row in part]
            lent = [lenders[row] for row in part] if lenders else None
            return _scored(engine, asked, replacement, lent)

        each = len(arch.layers) * length * LAYER_NUMBERS * engine.loaded.facts.d_model
        what = f"a backward pass over prompts of {length} tokens"
        for part, scores in engine.room.parts(rows, [each] * len(rows), GRAPH_NUMBERS, what, score):
            found[list(part)] = scores.numpy()
    if not np.isfinite(found).all():
        row, layer, head = (int(place) for place in np.argwhere(~np.isfinite(found))[0])
        raise AttributionError(
            f"model {name!r}: the score of head {layer}:{head} on prompt {row} is not finite, in "
            f"{str(engine.loaded.dtype).removeprefix('torch.')}; score in float32"
        )
    return found


def _scored(
    engine: "Engine",
    prompts: Sequence["Prompt"],
    replacement: Float[Tensor, "layers width"] | None,
    lenders: Sequence[Ids] | None,
) -> Float64[Tensor, "prompts layers heads"]:
    """The scores on prompts of one length, on the CPU."""
    arch = engine.architecture
    layers = range(len(arch.layers))
    every = Kept(z=frozenset(layers))
    lent = {}
    if lenders is not None:
        with torch.no_grad():
            lent = arch.clean(_tensor(engine, lenders), every, logits=False).z
    # Weights are frozen, so gradients start at the first layer's z, which all later ones depend on.
    with hooked(arch.layers[0].output.register_forward_pre_hook(_begin)):
        ids = _tensor(engine, [prompt.ids for prompt in prompts])
        clean = arch.clean(ids, every, logits=False)
    logits = arch.unembedding.own(clean.residual[len(layers)][:, -1])
    rows = torch.arange(len(prompts), device=logits.device)
    target, foil = (
        torch.tensor([prompt[which] for prompt in prompts], device=logits.device)
        for which in (1, 2)
    )
    differences = logits[rows, target] - logits[rows, foil]
    # Rows are independent, so the gradient of their sum contains each row's own gradient.
    z = [clean.z[layer] for layer in layers]
    gradients = torch.autograd.grad(differences.sum(), z)
    scores = []
    for layer in layers:
        change = -exact(z[layer].detach())
        if lenders is not None:
            change += exact(lent[layer])
        elif replacement is not None:
            change += exact(replacement[layer].to(change.device))
        products = change * exact(gradients[layer])
        scores.append(products.unflatten(-1, (arch.n_heads, arch.d_head)).sum(dim=(1, 3)).cpu())
    return torch.stack(scores, dim=1)


def _begin(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (args[0].detach().requires_grad_(), *args[1:])


def _tensor(engine: "Engine", ids: Sequence[Ids]) -> Int[Tensor, "rows positions"]:
    return torch.tensor(ids, dtype=torch.long, device=engine.loaded.device)
