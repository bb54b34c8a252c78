"""One prompt alone through a TransformerBridge: what the engine's figures are compared with."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from tests.conftest import VOCABULARY
from tinyablation.corpora.tokenisation import Prompt


def make_prompts(lengths: list[int], seed: int = 0) -> list[Prompt]:
    """Random prompts beginning with BOS (0), which occurs nowhere else."""
    rng = np.random.default_rng(seed)
    prompts = []
    for length in lengths:
        ids = (0, *(int(token) for token in rng.integers(1, VOCABULARY, length - 1)))
        target, foil = (int(token) for token in rng.choice(VOCABULARY, 2, replace=False))
        prompts.append(Prompt(ids, target, foil))
    return prompts


def bridge_of(loaded: Any) -> Any:
    """A bridge around a loaded model's own modules, which it rebuilds."""
    from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module

    return build_bridge_from_module(
        loaded.model,
        type(loaded.model).__name__,
        hf_config=loaded.model.config,
        tokenizer=loaded.tokenizer,
    )


def run_hooked(
    bridge: Any,
    ids: tuple[int, ...],
    changes: Mapping[str, Callable[[torch.Tensor], torch.Tensor]],
) -> torch.Tensor:
    """Last-token logits, [vocab] in float64; hook name -> what its activation becomes."""

    def hook_of(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[..., torch.Tensor]:
        return lambda value, hook=None: change(value.clone())

    with torch.no_grad():
        logits = bridge.run_with_hooks(
            torch.tensor([ids]),
            fwd_hooks=[(name, hook_of(change)) for name, change in changes.items()],
            prepend_bos=False,
            return_type="logits",
        )
    return logits[0, -1].double()


def run_cached(bridge: Any, ids: tuple[int, ...]) -> Any:
    """The activations of an unhooked pass, by hook name, [1, positions, ...]."""
    with torch.no_grad():
        return bridge.run_with_cache(torch.tensor([ids]), prepend_bos=False)[1]
