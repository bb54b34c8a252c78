"""The plain way, which the engine is compared with: a hooked forward pass of TransformerBridge."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from benchmarks.shapes import Head

if TYPE_CHECKING:
    from tinyablation.corpora.tokenisation import Prompt


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
