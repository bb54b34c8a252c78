"""Loading a model into memory: placement, a turn on the device, a memory-mapped copy.

In this order: compute the memory it needs, choose the device or devices, wait for a turn there,
and, for several workers on one CPU, make one copy of the weights in the run's dtype that all of
them map into memory.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tinyablation.models.loading import LoadedModel, ModelFacts, load_model
from tinyablation.models.registry import ModelEntry

if TYPE_CHECKING:
    from tinyablation.models.device_queue import Turn, Turns


def _silent(line: str) -> None:
    """Discard a message."""


@dataclass(frozen=True)
class Sharing:
    """How this process shares the machine with its siblings.

    turns: the queue for accelerators, None if it is alone; workers: how many of them may hold the
    same model; owner: this process's name; spread: whether a model may go to GPUs other than the
    requested one; say: called with a line of text on what is waited for or made.
    """

    turns: "Turns | None" = None
    workers: int = 1
    owner: str = "main"
    spread: bool = True
    say: Callable[[str], None] = _silent


ALONE = Sharing()


@dataclass
class Residency:
    """A model in memory, and the turn it holds on its devices until `release`."""

    loaded: LoadedModel
    turn: "Turn | None"
    devices: tuple[str, ...]  # accelerators whose memory it uses


def acquire_residency(
    entry: ModelEntry,
    facts: ModelFacts,
    *,
    device: str,
    dtype: str,
    sharing: Sharing = ALONE,
    yield_device: Callable[[], None] | None = None,
) -> Residency:
    """Load a model where it fits on this machine, waiting for a turn if necessary.

    dtype: "float32", "bfloat16" or "float16"; yield_device: called before the first wait, to free
    what this process itself holds. Raises TooLarge if it does not fit, LoadingError as load_model
    does.
    """
    from tinyablation.models.checkpoint import weight_files
    from tinyablation.models.devices import memory_of
    from tinyablation.models.placement import needed_bytes, place, weight_numbers
    from tinyablation.models.weight_copies import file_dtype, worth_converting

    files = weight_files(facts.folder, entry.id)
    held = file_dtype(files)
    copying = worth_converting(facts.weight_bytes, held, dtype, device, workers=sharing.workers)
    need = needed_bytes(
        weight_numbers(files),
        dtype,
        layers=facts.n_layers,
        embedding_numbers=facts.vocab_size * facts.d_model,
    )
    turns = sharing.turns
    placement = place(
        need,
        device,
        name=entry.id,
        memory=memory_of if turns is None else turns.capacity,
        spread=sharing.spread,
        workers=sharing.workers,
        shared=copying or held == dtype,
    )
    devices = tuple(placement.reserved)
    turn = None
    if turns is not None and devices:
        turn = turns.take(
            placement.reserved, owner=sharing.owner, purpose=entry.id, yield_device=yield_device
        )
    try:
        folder = _mapped_copy(entry, facts, dtype, sharing) if copying else facts.folder
        loaded = load_model(entry, dtype=dtype, facts=facts, folder=folder, placement=placement)
    except BaseException:
        if turn is not None:
            turn.release()
        raise
    return Residency(loaded, turn, devices)


def _mapped_copy(entry: ModelEntry, facts: ModelFacts, dtype: str, sharing: Sharing) -> Path:
    from tinyablation.models.weight_copies import CopyError, converted

    try:
        return converted(facts.folder, facts.weight_hash, dtype, name=entry.id, say=sharing.say)
    except CopyError as error:
        # Each worker then holds its own weights, which only costs memory.
        sharing.say(str(error))
        return facts.folder
