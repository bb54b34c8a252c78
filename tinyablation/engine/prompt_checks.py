"""The prompts of a measurement, checked against the model and deduplicated."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tinyablation.errors import TinyAblationError
from tinyablation.models.loading import LoadedModel

if TYPE_CHECKING:
    from torch import Tensor

    from tinyablation.corpora.tokenisation import Prompt

Ids = tuple[int, ...]


class EngineError(TinyAblationError):
    """A measurement is impossible as requested; the message names the model and the example."""


@dataclass(frozen=True)
class Examples:
    """The distinct token sequences of the prompts, and which one each example has."""

    distinct: tuple[Ids, ...]
    which: np.ndarray  # [examples]: index into distinct
    targets: np.ndarray
    foils: np.ndarray


def check_prompts(loaded: LoadedModel, prompts: Sequence["Prompt"], what: str) -> Examples:
    """The prompts, deduplicated; EngineError names the first that this model cannot process.

    what: the name of a prompt in messages, such as "reference prompt".
    """
    if not len(prompts):
        raise EngineError(f"model {loaded.entry.id!r}: no {what}s to measure")
    for index, prompt in enumerate(prompts):
        place = f"model {loaded.entry.id!r}: {what} {index}"
        check_length(loaded, len(prompt.ids), place)
        check_vocabulary(loaded, (*prompt.ids, prompt.target, prompt.foil), place)
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


def check_length(loaded: LoadedModel, length: int, place: str) -> None:
    """Raise EngineError, which begins with `place`, for a number of tokens beyond the model's."""
    facts = loaded.facts
    if not length:
        raise EngineError(f"{place} is empty")
    if length > facts.context:
        raise EngineError(f"{place} has {length} tokens, more than the context of {facts.context}")
    if facts.sliding_window is not None and length > facts.sliding_window:
        raise EngineError(
            f"{place} has {length} tokens, more than the sliding window of "
            f"{facts.sliding_window}; shorten it"
        )


def check_vocabulary(loaded: LoadedModel, ids: Iterable[int], place: str) -> None:
    """Raise EngineError, which begins with `place`, for an id that the model does not have."""
    size = loaded.facts.vocab_size
    for token in ids:
        if not 0 <= token < size:
            raise EngineError(
                f"{place}: token id {token} is outside the vocabulary of {size}; was it made by "
                "this model's tokenizer?"
            )


def check_reference(
    loaded: LoadedModel, reference: Sequence["Prompt"] | None, needed_by: set[str]
) -> list[Ids]:
    """The reference prompts' ids; EngineError if methods need them and none are given."""
    if reference is None:
        if needed_by:
            raise EngineError(
                f"{' and '.join(sorted(needed_by))}: reference prompts are needed; give reference="
            )
        return []
    if needed_by:
        check_prompts(loaded, reference, "reference prompt")
    return [tuple(prompt.ids) for prompt in reference]


def check_donors(
    loaded: LoadedModel, donors: Sequence[Ids], prompts: Sequence["Prompt"]
) -> list[Ids]:
    """The given resample donors, one per prompt; EngineError names the first that is too short."""
    if len(donors) != len(prompts):
        raise EngineError(f"donors has {len(donors)} entries for {len(prompts)} prompts")
    given = [prompt._replace(ids=tuple(ids)) for prompt, ids in zip(prompts, donors, strict=True)]
    check_prompts(loaded, given, "donor")
    for example, (donor, prompt) in enumerate(zip(given, prompts, strict=True)):
        if len(donor.ids) < len(prompt.ids):
            raise EngineError(
                f"example {example} has {len(prompt.ids)} tokens and its donor {len(donor.ids)}; "
                "a donor must be at least as long"
            )
    return [donor.ids for donor in given]


def check_pairs(
    loaded: LoadedModel,
    pairs: Sequence["Prompt"] | None,
    prompts: Sequence["Prompt"],
    needed_by: list[str],
) -> list[Ids]:
    """The ids of the examples' donor prompts, one each and of the example's own length.

    needed_by: labels of the interventions that use them. Raises EngineError, which names the
    example, if a donor prompt is missing or has another length.
    """
    if pairs is None:
        if needed_by:
            raise EngineError(
                f"{needed_by[0]} takes activations from the other prompt of a pair; give pairs=, "
                "one prompt per example with as many tokens as the example's own"
            )
        return []
    if len(pairs) != len(prompts):
        raise EngineError(
            f"pairs has {len(pairs)} prompts for {len(prompts)} examples; give one each"
        )
    if needed_by:
        check_prompts(loaded, pairs, "pair prompt")
        for example, (pair, prompt) in enumerate(zip(pairs, prompts, strict=True)):
            if len(pair.ids) != len(prompt.ids):
                raise EngineError(
                    f"example {example} has {len(prompt.ids)} tokens and its pair prompt "
                    f"{len(pair.ids)}; {needed_by[0]} needs aligned pairs, so leave it out"
                )
    return [tuple(pair.ids) for pair in pairs]


def check_templates(
    loaded: LoadedModel, templates: Sequence[Sequence[Ids]] | None, prompts: Sequence["Prompt"]
) -> list[tuple[Ids, ...]]:
    """The ids of the prompts that means by template are taken over, some for each prompt.

    Raises EngineError, which names the example, if it has none, or one of another length.
    """
    if templates is None:
        raise EngineError(
            "template_mean ablation needs templates=, per example the ids of the prompts of its "
            "wording and length that the mean is taken over"
        )
    if len(templates) != len(prompts):
        raise EngineError(f"templates has {len(templates)} entries for {len(prompts)} examples")
    for example, (group, prompt) in enumerate(zip(templates, prompts, strict=True)):
        if not group or any(len(ids) != len(prompt.ids) for ids in group):
            raise EngineError(
                f"example {example} has {len(prompt.ids)} tokens, and the prompts of its template "
                f"have {sorted({len(ids) for ids in group}) or 'none: there are no such prompts'}; "
                "give some of its own length, or leave it out"
            )
    members = dict.fromkeys(tuple(ids) for group in templates for ids in group)
    check_prompts(loaded, [prompts[0]._replace(ids=ids) for ids in members], "template prompt")
    return [tuple(map(tuple, group)) for group in templates]


def check_subjects(
    subjects: Sequence[tuple[int, ...]] | None,
    prompts: Sequence["Prompt"],
    needed_by: list[str],
) -> list[tuple[int, ...]]:
    """The examples' subject positions, in order; EngineError names an example without usable ones.

    needed_by: labels of the interventions at subject positions.
    """
    if subjects is None:
        if needed_by:
            raise EngineError(
                f"{needed_by[0]} acts on the subject's tokens; give subjects=, per example their "
                "positions in its ids (BOS counts)"
            )
        return []
    if len(subjects) != len(prompts):
        raise EngineError(f"subjects has {len(subjects)} entries for {len(prompts)} examples")
    if needed_by:
        for example, (places, prompt) in enumerate(zip(subjects, prompts, strict=True)):
            if not places:
                raise EngineError(f"example {example} has no subject positions; leave it out")
            if not all(0 <= place < len(prompt.ids) for place in places):
                raise EngineError(
                    f"example {example}: subject positions {places} are not all within its "
                    f"{len(prompt.ids)} tokens"
                )
    return [tuple(sorted(set(places))) for places in subjects]


def check_directions(
    loaded: LoadedModel, directions: Mapping[str, "Tensor"] | None, needed_by: Mapping[str, str]
) -> dict[str, "Tensor"]:
    """The directions that are needed, [d_model] each, in the model's dtype and on its device.

    needed_by: direction -> label of an intervention along it. Raises EngineError if one is missing
    or not a vector of finite numbers.
    """
    found = {}
    for name, label in needed_by.items():
        if directions is None or name not in directions:
            raise EngineError(
                f"{label} needs the direction {name!r}; give it in directions=, a tensor of "
                f"{loaded.facts.d_model} numbers"
            )
        vector = directions[name].to(loaded.device, loaded.dtype)
        if vector.shape != (loaded.facts.d_model,) or not vector.isfinite().all():
            raise EngineError(
                f"direction {name!r}, of shape {list(vector.shape)}, must be "
                f"{loaded.facts.d_model} finite numbers"
            )
        found[name] = vector
    return found
