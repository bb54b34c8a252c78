"""Placement: how much memory a model needs, and which device or devices it goes to.

`plan` decides from given figures; `place` obtains them from the machine. Importing this module does
not load torch.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import NamedTuple

from tinyablation.errors import TooLarge
from tinyablation.models.bounds import SMALLEST, bounds_of
from tinyablation.models.devices import Memory, gigabytes, kind_of, look, memory_of
from tinyablation.models.weight_copies import DTYPE_BYTES, read_layout

# A small model does not reach the bounds of a CPU. Measured beyond the weights in a sweep of one
# layer there: 193 MB for 2.9 MB of weights and 400 prompts, 739 MB for 271 MB of weights and a
# vocabulary of 50,257.
SMALL_MARGIN = 384 * 2**20
MARGIN_PER_WEIGHT = 8


class Need(NamedTuple):
    """A model's need for memory in bytes: weights, margin for measuring, largest block.

    margin: with the bounds of a CPU, the smallest; a GPU's own are larger (see `on`).
    """

    weights: int
    margin: int
    block: int  # the largest of its layers and embeddings
    dtype: str

    @property
    def total(self) -> int:
        """Bytes that one process takes on one device."""
        return self.weights + self.margin

    def on(self, device: str, memory: Memory) -> "Need":
        """The need on a device of this memory, whose bounds may make batches larger."""
        more = bounds_of(kind_of(device), memory.total).margin - SMALLEST.margin
        return self._replace(margin=self.margin + more)

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
    return min(SMALLEST.margin, SMALL_MARGIN + MARGIN_PER_WEIGHT * weights)


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

    What is reserved of a GPU is what batches of its bounds take. A model that only fits beside the
    margin of smaller batches goes there too, and gets all there is: memory runs out in the largest
    batches, which are halved (engine.memory.Room).
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
        return Placement(device, reserved={device: _reserved(need, device, machine)})
    elif kind == "cuda":
        found = _divided(need, device, machine, spread, disk)
        if found is not None:
            return found
    raise TooLarge(_refusal(need, device, machine, name, workers, shared))


def _reserved(need: Need, device: str, machine: Mapping[str, Memory]) -> int:
    return min(need.on(device, machine[device]).total, machine[device].room)


def _divided(
    need: Need, device: str, machine: Mapping[str, Memory], spread: bool, disk: bool
) -> Placement | None:
    gpus = [other for other in machine if kind_of(other) == "cuda" and (spread or other == device)]
    gpus.sort(key=_index)
    for gpu in gpus:
        if need.total <= machine[gpu].room:  # the requested GPU is too small or in use
            return Placement(gpu, reserved={gpu: _reserved(need, gpu, machine)})
    host = max(0, machine["cpu"].room - need.margin) if "cpu" in machine else 0
    # Beside the margin of the GPU's own batches, else of smaller ones.
    own = {gpu: need.on(gpu, machine[gpu]).margin for gpu in gpus}
    choices = [own, dict.fromkeys(gpus, need.margin)]
    for offload, margins in product((False, True), choices):
        rooms = {gpu: machine[gpu].room - margins[gpu] for gpu in gpus}
        # A GPU that cannot hold two blocks may end up with no block.
        rooms = {gpu: room for gpu, room in rooms.items() if room >= 2 * need.block}
        if not rooms:
            continue
        most: dict[int | str, int] = {_index(gpu): size for gpu, size in rooms.items()}
        reserved = {gpu: size + margins[gpu] for gpu, size in rooms.items()}
        first = next(iter(rooms))
        # Filled block by block, every device may have less than one block left unused.
        held = sum(rooms.values()) - len(rooms) * need.block
        if not offload:
            if need.weights <= held:
                return Placement(first, most, reserved=reserved)
        # One more block of the first GPU stays free for blocks that are sent there temporarily.
        elif need.weights <= held - need.block + max(0, host - need.block) or disk:
            most["cpu"] = host
            return Placement(first, most, offload=True, disk=disk, reserved=reserved)
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
