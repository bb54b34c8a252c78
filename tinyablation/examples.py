"""The prompts of a measurement: checked against the model, and each token sequence once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tinyablation.errors import TinyAblationError
from tinyablation.loading import LoadedModel

if TYPE_CHECKING:
    from tinyablation.tokenisation import Prompt

Ids = tuple[int, ...]


class EngineError(TinyAblationError):
    """Something cannot be measured as asked; the message names the model and the example."""


@dataclass(frozen=True)
class Examples:
    """The prompts, each distinct token sequence once."""

    distinct: tuple[Ids, ...]
    which: np.ndarray  # [examples]: index into distinct
    targets: np.ndarray
    foils: np.ndarray


def check_prompts(loaded: LoadedModel, prompts: Sequence["Prompt"], what: str) -> Examples:
    """The prompts, made distinct; EngineError naming the first that this model cannot be given.

    what: how a message calls one of them, such as "reference prompt".
    """
    if not len(prompts):
        raise EngineError(f"model {loaded.entry.id!r}: no {what}s to measure")
    facts = loaded.facts
    for index, prompt in enumerate(prompts):
        place = f"model {loaded.entry.id!r}: {what} {index}"
        length = len(prompt.ids)
        if not length:
            raise EngineError(f"{place} is empty")
        if length > facts.context:
            raise EngineError(
                f"{place} has {length} tokens, more than the context of {facts.context}"
            )
        if facts.sliding_window is not None and length > facts.sliding_window:
            raise EngineError(
                f"{place} has {length} tokens, more than the sliding window of "
                f"{facts.sliding_window}; shorten it"
            )
        for token in (*prompt.ids, prompt.target, prompt.foil):
            if not 0 <= token < facts.vocab_size:
                raise EngineError(
                    f"{place}: token id {token} is outside the vocabulary of "
                    f"{facts.vocab_size}; was it made by this model's tokenizer?"
                )
        if prompt.target == prompt.foil:
            raise EngineError(f"{place}: target and foil are both token {prompt.target}")
    distinct: dict[Ids, int] = {}
    which = [distinct.setdefault(tuple(p.ids), len(distinct)) for p in prompts]
    return Examples(
        tuple(distinct),
        np.array(which),
        np.array([prompt.target for prompt in prompts]),
        np.array([prompt.foil for prompt in prompts]),
    )


def check_reference(
    loaded: LoadedModel, reference: Sequence["Prompt"] | None, needed_by: set[str]
) -> list[Ids]:
    """The reference prompts' ids; EngineError if methods need some and there are none."""
    if reference is None:
        if needed_by:
            raise EngineError(
                f"{' and '.join(sorted(needed_by))} ablation needs reference prompts; give "
                "reference="
            )
        return []
    if needed_by:
        check_prompts(loaded, reference, "reference prompt")
    return [tuple(prompt.ids) for prompt in reference]
