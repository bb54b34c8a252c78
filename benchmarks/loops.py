"""Plain ways to zero heads, which the engine is compared with.

`hooked_loop` is a hooked TransformerBridge over padded batches. The others pass prompts of one
length together, so that nothing is padded, and compute the logits of the last token alone.
"""

import copy
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from benchmarks.shapes import Head

if TYPE_CHECKING:
    from tinyablation.corpora.tokenisation import Prompt

# Logits of the last token [rows, vocabulary] of prompts of one length [rows, positions], with a
# head's z at zero (None: no head's).
Pass = Callable[[Head | None, Any], Any]
LAST_ONLY = {"logits_to_keep": 1}


def loop_by_length(
    run: Pass, prompts: "Sequence[Prompt]", heads: Sequence[Head | None], size: int
) -> Any:
    """LD [heads, prompts] in float64: `run` for each head and at most `size` prompts of a length.

    On the CPU. heads: None for the model as it is.
    """
    import numpy as np
    import torch

    found = np.empty((len(heads), len(prompts)))
    by_length: dict[int, list[int]] = {}
    for place, prompt in enumerate(prompts):
        by_length.setdefault(len(prompt.ids), []).append(place)
    batches = [
        places[begin : begin + size]
        for places in by_length.values()
        for begin in range(0, len(places), size)
    ]
    with torch.no_grad():
        for number, head in enumerate(heads):
            for places in batches:
                logits = run(head, torch.tensor([prompts[place].ids for place in places])).double()
                target, foil = (
                    logits.gather(1, torch.tensor(tokens)[:, None])[:, 0]
                    for tokens in (
                        [prompts[place].target for place in places],
                        [prompts[place].foil for place in places],
                    )
                )
                found[number, places] = (target - foil).numpy()
    return found


def twin(model: Any) -> Any:
    """A second tree of modules over the same weights, for what wraps or changes a model."""
    shared = [*model.parameters(), *model.buffers()]
    return copy.deepcopy(model, {id(tensor): tensor for tensor in shared})


def hugging_face_pass(model: Any, outputs: Sequence[str], d_head: int) -> Pass:
    """A forward-pre-hook on the layer's output projection zeroes the columns of the head.

    outputs: the names of the layers' output projections.
    """

    def run(head: Head | None, ids: Any) -> Any:
        if head is None:
            return model(ids, use_cache=False, **LAST_ONLY).logits[:, -1]
        layer, number = head

        def zero(_: Any, args: tuple[Any, ...]) -> None:
            args[0][..., number * d_head : (number + 1) * d_head] = 0

        handle = model.get_submodule(outputs[layer]).register_forward_pre_hook(zero)
        try:
            return model(ids, use_cache=False, **LAST_ONLY).logits[:, -1]
        finally:
            handle.remove()

    return run


def bridge_pass(bridge: Any) -> Pass:
    """run_with_hooks of a TransformerBridge, a hook on the layer's hook_z."""

    def run(head: Head | None, ids: Any) -> Any:
        hooks = []
        if head is not None:
            layer, number = head

            def zero(z: Any, hook: Any) -> Any:
                z[:, :, number] = 0
                return z

            hooks = [(f"blocks.{layer}.attn.hook_z", zero)]
        return bridge.run_with_hooks(
            ids, fwd_hooks=hooks, prepend_bos=False, return_type="logits", **LAST_ONLY
        )[:, -1]

    return run


def nnsight_pass(model: Any, outputs: Sequence[str], d_head: int) -> Pass:
    """A trace of nnsight in which the head's columns of the output projection's input are zeroed.

    Arguments as of hugging_face_pass. ImportError where nnsight is not installed.
    """
    from nnsight import NNsight

    sight = NNsight(model)

    def run(head: Head | None, ids: Any) -> Any:
        # What stands in a trace is run by nnsight within the forward pass.
        with sight.trace(input_ids=ids, use_cache=False, **LAST_ONLY):
            if head is not None:
                begin = head[1] * d_head
                sight.get(outputs[head[0]]).input[:, :, begin : begin + d_head] = 0
            logits = sight.output.logits[:, -1].save()
        return logits

    return run


def hooked_loop(
    bridge: Any,
    prompts: "Sequence[Prompt]",
    heads: Sequence[Head | None],
    size: int,
    device: str = "cpu",
) -> Any:
    """LD [heads, prompts]: a bridge run for each head (None: unhooked) and `size` prompts.

    Prompts are padded on the right to the longest of their batch, and read at their own last token.
    """
    import torch
    from tqdm import tqdm

    found = []
    with torch.no_grad():
        for head in tqdm(heads, desc="hooked loop", unit="head"):
            hooks = []
            if head is not None:

                def zero(z: Any, hook: Any, index: int = head[1]) -> Any:
                    z[:, :, index] = 0
                    return z

                hooks = [(f"blocks.{head[0]}.attn.hook_z", zero)]
            for begin in range(0, len(prompts), size):
                batch = prompts[begin : begin + size]
                longest = max(len(prompt.ids) for prompt in batch)
                padded = [prompt.ids + (0,) * (longest - len(prompt.ids)) for prompt in batch]
                last, targets, foils = (
                    torch.tensor(values, device=device)
                    for values in (
                        [len(prompt.ids) - 1 for prompt in batch],
                        [prompt.target for prompt in batch],
                        [prompt.foil for prompt in batch],
                    )
                )
                row = torch.arange(len(batch), device=device)
                logits = bridge.run_with_hooks(
                    torch.tensor(padded, device=device),
                    fwd_hooks=hooks,
                    prepend_bos=False,
                    return_type="logits",
                )[row, last].float()
                found.append(logits[row, targets] - logits[row, foils])
    # Fetched once, in the end: a loop that waited for each figure would be the slower.
    return torch.cat(found).double().cpu().numpy().reshape(len(heads), len(prompts))
