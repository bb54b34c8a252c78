"""A model that is in memory already: a copy of it in a folder, which is loaded as any other.

So its weights have a hash and its measurements an address, and the object is neither changed nor
kept. The copy is compared with it once, by its logits: what is not in the weights (hooks, a changed
forward pass) would be lost, and is refused instead.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyablation.errors import LoadingError

if TYPE_CHECKING:
    from torch import Tensor

    from tinyablation.models.loading import LoadedModel

PROBE = 8  # tokens of the text by which both are compared
# Largest difference of their logits, as a share of the logits' standard deviation. In float32 sums
# in another order differ by 1e-5 of it; half precision rounds figures to 2^-8 of themselves.
SAME, SAME_HALF = 1e-3, 0.1


def is_model(given: Any) -> bool:
    """Whether it is a model object of transformers, without importing it."""
    return any(base.__name__ == "PreTrainedModel" for base in type(given).__mro__)


def name_of(model: Any) -> str:
    """What the object was loaded as, else its type, such as "gpt2"."""
    given = str(getattr(model, "name_or_path", "") or "").rstrip("/\\")
    return given.replace("\\", "/").rsplit("/", 1)[-1] or str(model.config.model_type)


def save(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write model and tokenizer into a new folder.

    Raises LoadingError without a tokenizer, for a model with hooks, and if it cannot be saved.
    """
    name = name_of(model)
    if tokenizer is None:
        raise LoadingError(f"model {name!r} is in memory: give its tokenizer, too (tokenizer=...)")
    for place, module in model.named_modules():
        if module._forward_hooks or module._forward_pre_hooks:
            raise LoadingError(
                f"model {name!r}: {place or 'the model'} has forward hooks, which its weights do "
                "not hold; remove them"
            )
    try:
        model.save_pretrained(folder, safe_serialization=True)
        tokenizer.save_pretrained(folder)
    except Exception as error:  # of foreign code: quantised weights, full disks, custom tokenizers
        said = " ".join(str(error).split()) or type(error).__name__
        raise LoadingError(f"model {name!r} cannot be copied into a folder: {said}") from error


def require_same(model: Any, tokenizer: Any, loaded: LoadedModel) -> None:
    """Raise LoadingError unless the copy gives the logits of the object, and splits text alike."""
    import torch

    from tinyablation.corpora.tokenizer_fingerprint import fingerprint_of

    if fingerprint_of(tokenizer) != fingerprint_of(loaded.tokenizer):
        raise LoadingError(
            f"model {loaded.entry.id!r}: its tokenizer, saved and loaded again, splits text in "
            "another way; give the model as a folder"
        )
    facts = loaded.facts
    length = min(PROBE, facts.context)
    ids = torch.linspace(0, facts.vocab_size - 1, length).round().long()[None]
    was_training = model.training
    try:
        model.eval()
        own, copied = _logits(model, ids), _logits(loaded.model, ids)
    finally:
        model.train(was_training)
    both = {next(model.parameters()).dtype, loaded.dtype}
    allowed = (SAME if both == {torch.float32} else SAME_HALF) * float(own.std())
    apart = float((own - copied).abs().max())
    if not apart <= allowed:
        raise LoadingError(
            f"model {loaded.entry.id!r}: a copy made of its weights has logits that differ by "
            f"{apart:.3g}: something of it is not in its weights, and would not be measured"
        )


def _logits(model: Any, ids: Tensor) -> Tensor:
    import torch

    with torch.no_grad():
        found = model(ids.to(next(model.parameters()).device), use_cache=False).logits
    return found[0].detach().cpu().double()
