"""What models need, and where they go, on machines that are made up.

Run: pytest tests/models/test_placement.py
"""

from pathlib import Path
from typing import Any

import pytest

from tinyablation.errors import TooLarge, Unavailable
from tinyablation.models import placement
from tinyablation.models.bounds import SMALLEST, bounds_of
from tinyablation.models.checkpoint import weight_files
from tinyablation.models.devices import Hardware, Memory
from tinyablation.models.placement import (
    SMALL_MARGIN,
    Need,
    Placement,
    needed_bytes,
    place,
    plan,
    weight_numbers,
)

GB = 10**9
MARGIN = SMALLEST.margin
# Mistral-7B: 7.24e9 numbers in 32 layers, and two embeddings of 32,000 x 4,096.
MISTRAL = needed_bytes(7_241_732_096, "bfloat16", layers=32, embedding_numbers=32_000 * 4_096)
MISTRAL_FP32 = needed_bytes(7_241_732_096, "float32", layers=32, embedding_numbers=32_000 * 4_096)


def gpus(*free: float, total: float = 0, cpu: float = 0) -> dict[str, Memory]:
    """A machine with so many GB free on each GPU, of so many in all, and so many for the CPU."""
    machine = {
        f"cuda:{n}": Memory(int(size * GB), int((total or size) * GB))
        for n, size in enumerate(free)
    }
    return machine | {"cpu": Memory(int(cpu * GB), int(cpu * GB))}


def test_what_is_reserved_of_a_gpu_is_what_its_batches_take() -> None:
    small = needed_bytes(600_000, "float32", layers=4)
    for size in (8, 24, 80, 200):
        memory = Memory(size * GB, size * GB)
        bounds = bounds_of("cuda", memory.total)
        assert MISTRAL.on("cuda:0", memory).margin == bounds.margin
        if size > 16:
            found = plan(MISTRAL, "cuda:0", {"cuda:0": memory}, name="m")
            assert found.reserved == {"cuda:0": MISTRAL.weights + bounds.margin}
        # A small model has its own margin, and what the device's batches have more.
        more = small.on("cuda:0", memory).margin - small.margin
        assert more == bounds.margin - MARGIN and (more > 0) == (size > 16)
        for other in ("cpu", "mps"):
            assert MISTRAL.on(other, memory) == MISTRAL


def test_a_model_that_fits_beside_smaller_batches_only_gets_all_there_is() -> None:
    # 84 GB: 2 % spared, batches of 2^26 numbers, 10.2 GB; the least margin is 1.9 GB.
    memory = Memory(84 * GB, 84 * GB)
    large = needed_bytes(39 * GB, "bfloat16", layers=80)
    assert large.total < memory.room < large.on("cuda:0", memory).total
    found = plan(large, "cuda:0", {"cuda:0": memory}, name="m")
    assert found.max_memory is None and found.reserved == {"cuda:0": memory.room}
    # The same over two: nothing has to leave them.
    two = gpus(84, 84, cpu=200)
    both = needed_bytes(78 * GB, "bfloat16", layers=80)
    found = plan(both, "cuda:0", two, name="m")
    assert not found.offload and set(found.reserved.values()) == {memory.room}


def test_gpus_of_different_sizes_each_reserve_their_own_margin() -> None:
    found = plan(MISTRAL_FP32, "cuda:0", gpus(16, 26), name="m")
    assert found.max_memory is not None and list(found.max_memory) == [0, 1]
    for gpu, index in (("cuda:0", 0), ("cuda:1", 1)):
        margin = bounds_of("cuda", (16 * GB, 26 * GB)[index]).margin
        assert found.reserved[gpu] == found.max_memory[index] + margin


def test_needs() -> None:
    assert MISTRAL.weights == 2 * 7_241_732_096 and MISTRAL.margin == MARGIN
    assert MISTRAL.block == 2 * 7_241_732_096 // 32 + (7_241_732_096 % 32 > 0) * 2
    assert MISTRAL_FP32.weights == 2 * MISTRAL.weights and MISTRAL_FP32.margin == MARGIN
    # Llama-3's vocabulary makes its embedding larger than a layer.
    assert needed_bytes(8 * GB, "float16", layers=32, embedding_numbers=525 * 10**6).block == (
        2 * 525 * 10**6
    )
    # 2 MB of weights must not be refused where 1 GB is free.
    embedded = needed_bytes(600_000, "float32", layers=4)
    assert SMALL_MARGIN < embedded.margin < GB // 2
    assert str(embedded) == "424 MB in float32 (2 MB of weights, 422 MB to measure in)"


def test_the_margin_of_a_small_model_covers_what_it_was_seen_to_take() -> None:
    # The figures beside SMALL_MARGIN, in bytes.
    assert needed_bytes(731_232, "float32", layers=4).margin > 193 * 10**6
    assert needed_bytes(67_736_832, "float32", layers=4).margin > 739 * 10**6


def test_weights_are_counted_from_headers(tiny_folders: dict[str, Path], tiny_models: Any) -> None:
    for family, loaded in tiny_models.items():
        # parameters() counts tied weights once, as a file does.
        numbers = sum(parameter.numel() for parameter in loaded.model.parameters())
        assert weight_numbers(weight_files(tiny_folders[family], family)) == numbers


def test_one_device_where_it_fits() -> None:
    assert plan(MISTRAL, "cuda:1", gpus(40, 40), name="m") == Placement(
        "cuda:1", reserved={"cuda:1": MISTRAL.on("cuda:1", Memory(40 * GB, 40 * GB)).total}
    )
    assert plan(MISTRAL, "cpu", gpus(cpu=40), name="m") == Placement("cpu")
    assert plan(MISTRAL, "mps", {"mps": Memory(20 * GB, 24 * GB)}, name="m").device == "mps"
    # Exactly the margin decides: 14.5 GB of weights, 16.4 GB in all, and 2 % spared.
    assert plan(MISTRAL, "cuda:0", gpus(16.8), name="m").max_memory is None
    with pytest.raises(TooLarge):
        plan(MISTRAL, "cuda:0", gpus(16.6), name="m")


def test_another_gpu_where_the_one_asked_for_is_in_use() -> None:
    machine = gpus(5, 5, 40, total=40)
    assert plan(MISTRAL, "cuda:0", machine, name="m").device == "cuda:2"
    with pytest.raises(TooLarge):
        plan(MISTRAL, "cuda:0", machine, name="m", spread=False)


def test_four_small_gpus_hold_it_together() -> None:
    found = plan(MISTRAL, "cuda:2", gpus(8, 8, 8, 8, cpu=4), name="m")
    assert found.device == "cuda:0" and not found.offload and not found.disk
    assert found.max_memory is not None and list(found.max_memory) == [0, 1, 2, 3]
    # Weights and margins stay within what is free, and the weights fit though each GPU may waste
    # most of a block.
    assert all(size + MARGIN <= 0.98 * 8 * GB for size in found.max_memory.values())
    assert sum(found.max_memory.values()) - 4 * MISTRAL.block >= MISTRAL.weights
    assert found.reserved == {
        f"cuda:{n}": size + MISTRAL.margin for n, size in found.max_memory.items()
    }


def test_a_gpu_with_no_room_is_left_out() -> None:
    found = plan(MISTRAL, "cuda:0", gpus(2, 12, 12, total=12), name="m")
    assert found.device == "cuda:1" and found.max_memory is not None
    assert list(found.max_memory) == [1, 2]


def test_the_cpu_helps_out_one_small_gpu() -> None:
    found = plan(MISTRAL, "cuda:0", gpus(8, cpu=24), name="m")
    assert found.offload and not found.disk and found.device == "cuda:0"
    assert found.max_memory is not None and list(found.max_memory) == [0, "cpu"]
    assert list(found.reserved) == ["cuda:0"]
    with pytest.raises(TooLarge):
        plan(MISTRAL, "cuda:0", gpus(8, cpu=8), name="m")
    assert plan(MISTRAL, "cuda:0", gpus(8, cpu=8), name="m", disk=True).disk


def test_too_large_says_what_there_is_and_what_to_do() -> None:
    with pytest.raises(TooLarge) as caught:
        plan(MISTRAL_FP32, "cuda:0", gpus(8, total=16, cpu=10), name="mistral-7b")
    assert isinstance(caught.value, Unavailable)
    assert str(caught.value) == (
        "model 'mistral-7b' does not fit: it needs 30.8 GB in float32 (29.0 GB of weights, 1.9 GB "
        "to measure in), and cuda:0 has 7.7 GB to spare of 16.0 GB, cpu has 9.8 GB to spare of "
        "10.0 GB; try --dtype bfloat16 (16.4 GB) or a smaller model"
    )
    with pytest.raises(TooLarge, match="; try --device cpu or a smaller model$"):
        plan(MISTRAL, "cuda:0", gpus(2, cpu=40), name="m")
    with pytest.raises(TooLarge, match="try --dtype bfloat16.* or --device cpu or a smaller"):
        plan(MISTRAL_FP32, "mps", {"mps": Memory(GB, GB), **gpus(cpu=40)}, name="m")


def test_workers_on_a_cpu_share_weights_or_do_not() -> None:
    machine = gpus(cpu=24)
    assert plan(MISTRAL, "cpu", machine, name="m", workers=4, shared=True).device == "cpu"
    with pytest.raises(TooLarge, match="in each of 4 workers, and cpu has .*; try fewer workers"):
        plan(MISTRAL, "cpu", machine, name="m", workers=4)
    with pytest.raises(TooLarge, match="4 workers, weights shared, and cpu has 19.6 GB"):
        plan(MISTRAL, "cpu", gpus(cpu=20), name="m", workers=4, shared=True)


def test_placing_asks_for_no_more_than_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "look", lambda: Hardware(3, False, "2.13.0"))
    asked: list[str] = []
    machine = gpus(8, 8, 8, cpu=4)

    def memory(device: str) -> Memory:
        asked.append(device)
        return machine[device]

    small = needed_bytes(10**9, "bfloat16", layers=10)
    assert place(small, "cuda:1", name="m", memory=memory).device == "cuda:1"
    assert "cuda:0" not in asked and "cuda:2" not in asked
    found = place(MISTRAL, "cuda:1", name="m", memory=memory)
    assert found.max_memory is not None and set(found.max_memory) == {0, 1, 2}
    asked.clear()
    with pytest.raises(TooLarge):
        place(MISTRAL, "cuda:1", name="m", memory=memory, spread=False)
    assert asked == ["cuda:1", "cpu"]


def test_this_machine_has_room_for_an_embedded_model() -> None:
    assert place(needed_bytes(600_000, "float32", layers=4), "cpu", name="tiny").device == "cpu"


def test_a_plan_with_a_disk_is_one_that_loads(tiny_folders: dict[str, Path]) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    folder = str(tiny_folders["llama"])
    whole: Any = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    numbers = weight_numbers(weight_files(tiny_folders["llama"], "llama"))
    # Without a margin, on a CPU with room for 60 % of the weights.
    need = needed_bytes(numbers, "float32", layers=3)._replace(margin=0, block=numbers * 4 // 4)
    room = int(need.weights * 0.6)
    found = plan(need, "cpu", {"cpu": Memory(room, room)}, name="m", disk=True)
    assert found.disk and found.max_memory is not None
    placed: Any = AutoModelForCausalLM.from_pretrained(
        folder, local_files_only=True, device_map="auto", max_memory=dict(found.max_memory)
    )
    assert set(placed.hf_device_map.values()) == {"cpu", "disk"}
    ids = torch.tensor([[0, 5, 7, 11]])
    assert torch.equal(placed(ids).logits, whole(ids).logits)


def test_needs_are_plain_figures() -> None:
    need = Need(10 * GB, 2 * GB, GB, "float16")
    assert need.total == 12 * GB
    assert str(need) == "12.0 GB in float16 (10.0 GB of weights, 2.0 GB to measure in)"
