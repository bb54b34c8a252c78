"""Placement: how much memory a model needs, and which device or devices it goes to.

`plan` decides from given figures; `place` obtains them from the machine. Importing this module does
not load torch.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tinyablation.errors import TooLarge
from tinyablation.models.devices import Memory, gigabytes, kind_of, look, memory_of
from tinyablation.models.weight_copies import DTYPE_BYTES, read_layout

# Upper bounds on what measuring takes beside the weights, for any model: the engine limits batches
# by the named numbers. They are repeated here, without loading the engine and torch; a test keeps
# them equal.
RECORD_NUMBERS = 2**26  # clean.RECORD_NUMBERS: a record of clean passes, streams and distributions
BATCH_NUMBERS = 2**21  # engine.BATCH_NUMBERS: rows x positions x d_model
LOGIT_NUMBERS = 2**24  # engine.LOGIT_NUMBERS: rows x vocabulary
MARGIN = (
    # 805 MB: 4 bytes per number in float32, and twice that for distributions during computation.
    RECORD_NUMBERS * 12
    # 268 MB: 32 streams of 4 bytes alive in one layer: input, norm, q, k, v, scores and softmax (as
    # wide as the stream times positions / d_head), and three of an MLP as wide as 4 streams.
    + BATCH_NUMBERS * 4 * 32
    # 805 MB: logits 4 bytes, then float64: widened, shifted, exponentials, clean probabilities
    # (32), and 12 for the rows read again for ranks.
    + LOGIT_NUMBERS * 48
)
# A small model does not reach those bounds. Measured beyond the weights in a sweep of one layer on
# a CPU: 193 MB for 2.9 MB of weights and 400 prompts, 739 MB for 271 MB of weights and a vocabulary
# of 50,257.
SMALL_MARGIN = 384 * 2**20
MARGIN_PER_WEIGHT = 8


class Need(NamedTuple):
    """A model's need for memory in bytes: weights, margin for measuring, largest block."""

    weights: int
    margin: int
    block: int  # the largest of its layers and embeddings
    dtype: str

    @property
    def total(self) -> int:
        """Bytes that one process takes on one device."""
        return self.weights + self.margin

    def __str__(self) -> str:
        return (
            f"{gigabytes(self.total)} in {self.dtype} ({gigabytes(self.weights)} of weights, "
            f"{gigabytes(self.margin)} to measure in)"
        )


@dataclass(frozen=True)
class Placement:
    """The device or devices that a model goes to.

    device: where its inputs go. max_memory: None for one device, else the most bytes of weights per
    device as accelerate writes them (GPU index or "cpu"), for device_map="auto". offload: whether
    weights may stay outside the accelerators and be sent there layer by layer (slow). disk: whether
    they may even stay on disk. reserved: bytes by device to take a turn for; empty on a CPU.
    """

    device: str
    max_memory: Mapping[int | str, int] | None = None
    offload: bool = False
    disk: bool = False
    reserved: Mapping[str, int] = field(default_factory=dict)


def weight_numbers(paths: Sequence[Path]) -> int:
    """The number of floating-point elements in safetensors files, from their headers alone.

    Tied weights are one tensor in a file and count once.
    """
    layout = read_layout(paths)
    return sum(tensor.numbers for tensor in layout.values() if tensor.dtype in DTYPE_BYTES)


def needed_bytes(
    weight_numbers: int, dtype_name: str, *, layers: int, embedding_numbers: int = 0
) -> Need:
    """The memory a model needs in a run's dtype ("float32", "bfloat16", "float16").

    layers: the number of equal parts it can be divided into; embedding_numbers: the size of its
    largest embedding (vocabulary x d_model), which cannot be divided.
    """
    size = DTYPE_BYTES[dtype_name]
    weights = weight_numbers * size
    block = max(-(-weight_numbers // layers), embedding_numbers) * size
    return Need(weights, _margin(weights), block, dtype_name)


def _margin(weights: int) -> int:
    return min(MARGIN, SMALL_MARGIN + MARGIN_PER_WEIGHT * weights)


def place(
    need: Need,
    device: str,
    *,
    name: str,
    memory: Callable[[str], Memory] = memory_of,
    spread: bool = True,
    disk: bool = False,
    workers: int = 1,
    shared: bool = False,
) -> Placement:
    """Where a model goes on this machine: `plan` with the memory of its devices.

    memory: memory_of, or the memory this session can get of a device (device_queue.Turns.capacity),
    so that a device does not look too small because other workers hold some of it now.
    """
    machine = {device: memory(device)}
    if kind_of(device) == "cuda" and machine[device].room < need.total:
        gpus = [f"cuda:{n}" for n in range(look().gpus)] if spread else []
        machine |= {other: memory(other) for other in (*gpus, "cpu") if other != device}
    elif kind_of(device) != "cpu":
        machine["cpu"] = memory("cpu")
    return plan(
        need, device, machine, name=name, spread=spread, disk=disk, workers=workers, shared=shared
    )


def plan(
    need: Need,
    device: str,
    machine: Mapping[str, Memory],
    *,
    name: str,
    spread: bool = True,
    disk: bool = False,
    workers: int = 1,
    shared: bool = False,
) -> Placement:
    """Where a model goes on a machine with this memory.

    On the device if it fits there; else, for a GPU, on another, then over all GPUs of the machine
    (both only with spread), then over GPUs and CPU. disk: whether weights may stay on disk if even
    that is too little. workers: how many processes load it on this CPU; shared: whether they share
    one mapped copy of the weights. name: the model's name in messages. Raises TooLarge with the
    figures.
    """
    kind, room = kind_of(device), machine[device].room
    if kind == "cpu":
        margins = need.margin * workers
        if need.weights * (1 if shared else workers) + margins <= room:
            return Placement("cpu")
        if disk and room - margins >= 2 * need.block:
            share = (room - margins) // (1 if shared else workers)
            return Placement("cpu", {"cpu": share}, offload=True, disk=True)
    elif need.total <= room:
        return Placement(device, reserved={device: need.total})
    elif kind == "cuda":
        found = _divided(need, device, machine, spread, disk)
        if found is not None:
            return found
    raise TooLarge(_refusal(need, device, machine, name, workers, shared))


def _divided(
    need: Need, device: str, machine: Mapping[str, Memory], spread: bool, disk: bool
) -> Placement | None:
    gpus = [other for other in machine if kind_of(other) == "cuda" and (spread or other == device)]
    for gpu in sorted(gpus, key=_index):
        if need.total <= machine[gpu].room:  # the requested GPU is too small or in use
            return Placement(gpu, reserved={gpu: need.total})
    rooms = {gpu: machine[gpu].room - need.margin for gpu in gpus}
    # A GPU that cannot hold two blocks may end up with no block.
    rooms = {gpu: rooms[gpu] for gpu in sorted(gpus, key=_index) if rooms[gpu] >= 2 * need.block}
    if not rooms:
        return None
    most: dict[int | str, int] = {_index(gpu): size for gpu, size in rooms.items()}
    reserved = {gpu: size + need.margin for gpu, size in rooms.items()}
    first = next(iter(rooms))
    # Filled block by block, every device may have less than one block left unused.
    held = sum(rooms.values()) - len(rooms) * need.block
    if need.weights <= held:
        return Placement(first, most, reserved=reserved)
    host = max(0, machine["cpu"].room - need.margin) if "cpu" in machine else 0
    # One more block of the first GPU stays free for blocks that are sent there temporarily.
    if need.weights <= held - need.block + max(0, host - need.block) or disk:
        return Placement(first, {**most, "cpu": host}, offload=True, disk=disk, reserved=reserved)
    return None


def _index(gpu: str) -> int:
    return int(gpu.partition(":")[2])


def _refusal(
    need: Need,
    device: str,
    machine: Mapping[str, Memory],
    name: str,
    workers: int,
    shared: bool,
) -> str:
    have = ", ".join(
        f"{other} has {gigabytes(found.room)} to spare of {gigabytes(found.total)}"
        for other, found in machine.items()
    )
    what = []
    several = ""
    if kind_of(device) == "cpu" and workers > 1:
        several = f" in each of {workers} workers"
        several += ", weights shared" if shared else ""
        what.append("fewer workers")
    if DTYPE_BYTES[need.dtype] == 4:
        weights = need.weights // 2
        what.append(f"--dtype bfloat16 ({gigabytes(weights + _margin(weights))})")
    if kind_of(device) != "cpu" and "cpu" in machine and need.total <= machine["cpu"].room:
        what.append("--device cpu")
    return f"model {name!r} does not fit: it needs {need}{several}, and {have}; try " + " or ".join(
        [*what, "a smaller model"]
    )
