"""Choosing devices, and what they say of themselves. CUDA's and Metal's answers are made up here.

Run: pytest tests/models/test_devices.py
"""

import json
import subprocess
import sys
import warnings
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from tinyablation.models import devices
from tinyablation.models.devices import (
    SPARE,
    DeviceError,
    Hardware,
    Memory,
    cgroup_memory,
    choose_device,
    describe_device,
    empty_cache,
    identity_of,
    kind_of,
    look,
    memory_of,
    peak_bytes,
    pick,
    reset_peak,
)

GB = 10**9
FOUR_GPUS = Hardware(4, False, "2.13.0+cu128")
ONE_GPU = Hardware(1, False, "2.13.0+cu128")
APPLE = Hardware(0, True, "2.13.0")
NOTHING = Hardware(0, False, "2.13.0+cpu")

CPU_BUILD = version("torch").endswith("+cpu") and sys.platform != "darwin"


@pytest.mark.parametrize(
    ("wanted", "worker", "hardware", "expected"),
    [
        ("auto", 0, FOUR_GPUS, "cuda:0"),
        ("auto", 6, FOUR_GPUS, "cuda:2"),
        ("cuda", 3, FOUR_GPUS, "cuda:3"),
        ("cuda", 3, ONE_GPU, "cuda:0"),
        ("cuda:1", 3, FOUR_GPUS, "cuda:1"),
        ("auto", 2, APPLE, "mps"),
        ("mps", 0, APPLE, "mps"),
        ("auto", 2, NOTHING, "cpu"),
        ("cpu", 0, FOUR_GPUS, "cpu"),
    ],
)
def test_workers_spread_over_what_there_is(
    wanted: str, worker: int, hardware: Hardware, expected: str
) -> None:
    assert pick(wanted, worker, hardware) == expected


@pytest.mark.parametrize(
    ("wanted", "hardware", "message"),
    [
        ("cuda", NOTHING, r"'cuda' is not there.* has cpu \(torch 2.13.0\+cpu is built without"),
        ("cuda", APPLE, "has mps, cpu .*; install a driver"),
        ("cuda:4", FOUR_GPUS, "has cuda:0, cuda:1, cuda:2, cuda:3, cpu .*; use one of those"),
        ("mps", ONE_GPU, "'mps' is not there: this machine has cuda:0, cpu .*--device auto"),
        ("cuda", Hardware(0, False, "2.13.0", "driver too old"), "2.13.0; driver too old"),
    ],
)
def test_a_device_that_is_not_there_is_refused(
    wanted: str, hardware: Hardware, message: str
) -> None:
    with pytest.raises(DeviceError, match=message):
        pick(wanted, 0, hardware)


@pytest.mark.parametrize(
    "wanted", ["gpu", "", "CPU", "cuda:", "cuda:-1", "cuda:x", "cuda:03", "mps:0"]
)
def test_other_names_are_refused_with_those_accepted(wanted: str) -> None:
    with pytest.raises(DeviceError, match="accepted are auto, cpu, cuda, cuda:N"):
        choose_device(wanted)


@pytest.mark.skipif(not CPU_BUILD, reason="this torch may have a GPU")
def test_a_cpu_build_is_recognised_without_torch() -> None:
    code = """
import sys
from tinyablation.models.devices import DeviceError, choose_device, describe_device, memory_of
print(choose_device("auto", 3), choose_device("cpu"))
try:
    choose_device("cuda:1")
except DeviceError:
    print("refused")
print(memory_of("cpu").total > 0, describe_device("cpu")["threads"])
import tinyablation.models.weight_copies, tinyablation.models.placement
import tinyablation.models.device_queue
print({"torch", "transformers", "huggingface_hub"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n") == ["cpu cpu", "refused", "True None", "set()", ""]


def test_kinds() -> None:
    assert [kind_of(device) for device in ("cuda:1", "mps", "cpu")] == ["cuda", "mps", "cpu"]


# --- memory --------------------------------------------------------------------------------------


def test_a_share_of_all_memory_is_spared() -> None:
    assert Memory(80 * GB, 80 * GB).room == 80 * GB - int(80 * GB * SPARE)
    assert Memory(10 * GB, 80 * GB).room == 10 * GB - int(80 * GB * SPARE)
    assert Memory(GB, 80 * GB).room == 0


def test_memory_of_the_cpu_is_the_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    found, host = memory_of("cpu"), psutil.virtual_memory()
    assert 0 < found.free <= found.total <= host.total
    # Other processes come and go in between: within a tenth of the machine.
    assert found.free <= host.available + host.total // 10
    # Made up: what this process takes may come from pages that the kernel has not called free.
    told = SimpleNamespace(available=2**20, total=host.total)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: told)
    assert memory_of("cpu").free == 2**20
    assert peak_bytes("cpu") is None


def test_limits_of_control_groups(tmp_path: Path) -> None:
    def write(path: str, text: str) -> None:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)

    assert cgroup_memory(tmp_path) is None
    write("proc/self/cgroup", "0::/job/step\n")
    top = "sys/fs/cgroup"
    write(f"{top}/job/memory.max", "8000\n")
    write(f"{top}/job/memory.current", "7000\n")
    write(f"{top}/job/memory.stat", "anon 2000\nactive_file 1500\ninactive_file 2500\nshmem 500\n")
    write(f"{top}/job/step/memory.max", "max\n")
    write(f"{top}/job/step/memory.current", "10\n")
    write(f"{top}/job/step/memory.stat", "active_file 0\n")
    # Of the 7000 used, 4000 are file pages that are given back: 8000 - 7000 + 4000.
    assert cgroup_memory(tmp_path) == Memory(5000, 8000)
    # v1, in a container: the path is the host's, the limit stands at the top.
    write("proc/self/cgroup", "4:cpu,cpuacct:/\n3:memory:/docker/abc\n")
    write(f"{top}/memory/memory.limit_in_bytes", "6000\n")
    write(f"{top}/memory/memory.usage_in_bytes", "5500\n")
    write(f"{top}/memory/memory.stat", "active_file 1\ntotal_active_file 300\n")
    assert cgroup_memory(tmp_path) == Memory(800, 6000)
    write(f"{top}/memory/memory.limit_in_bytes", "9223372036854771712\n")
    assert cgroup_memory(tmp_path) is None


def test_a_limit_counts_where_it_is_below_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "cgroup_memory", lambda root: Memory(1000, 2000))
    monkeypatch.setattr(sys, "platform", "linux")
    assert memory_of("cpu") == Memory(1000, 2000)


# --- accelerators --------------------------------------------------------------------------------


class FakeCuda:
    """What devices.py asks of torch.cuda, with answers of a made-up machine of two GPUs."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any]] = []

    def is_available(self) -> bool:
        warnings.warn("the driver is\nold", UserWarning, stacklevel=1)
        return True

    def device_count(self) -> int:
        return 2

    def mem_get_info(self, device: str) -> tuple[int, int]:
        self.asked.append(("memory", device))
        return 30 * GB, 80 * GB

    def get_device_properties(self, device: str) -> Any:
        return SimpleNamespace(
            name="Made-up 80", total_memory=80 * GB, major=9, minor=0, uuid=f"{device}-uuid"
        )

    def reset_peak_memory_stats(self, device: str) -> None:
        self.asked.append(("reset", device))

    def max_memory_allocated(self, device: str) -> int:
        self.asked.append(("peak", device))
        return 7 * GB


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    import torch

    cuda = FakeCuda()
    for name in (n for n in vars(FakeCuda) if not n.startswith("_")):
        assert hasattr(torch.cuda, name), f"torch.cuda.{name} is no more"
    fake = SimpleNamespace(
        cuda=cuda,
        version=SimpleNamespace(cuda="12.8"),
        backends=SimpleNamespace(mps=SimpleNamespace(is_available=lambda: False)),
    )
    monkeypatch.setitem(sys.modules, "torch", fake)
    monkeypatch.setattr(devices, "version", lambda name: "2.13.0+cu128")
    return cuda


def test_what_a_gpu_says(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert look() == Hardware(2, False, "2.13.0+cu128", "the driver is old")
    assert choose_device("auto", 3) == "cuda:1"
    assert memory_of("cuda:1") == Memory(30 * GB, 80 * GB)
    reset_peak("cuda:1")
    assert peak_bytes("cuda:1") == 7 * GB
    assert cuda.asked == [("memory", "cuda:1"), ("reset", "cuda:1"), ("peak", "cuda:1")]
    assert identity_of("cuda:1") == "cuda-cuda:1-uuid" != identity_of("cuda:0")

    monkeypatch.setenv("PATH", str(tmp_path))
    facts = describe_device("cuda:0")
    assert facts == {
        "kind": "cuda",
        "name": "Made-up 80",
        "driver": None,  # no nvidia-smi on the path
        "total_memory": 80 * GB,
        "compute_capability": "9.0",
        "runtime": "12.8",
    }
    program = tmp_path / "nvidia-smi"
    program.write_text('#!/bin/sh\necho "$@" >&2\necho 570.124.06\necho 570.124.06\n')
    program.chmod(0o755)
    assert describe_device("cuda:0")["driver"] == "570.124.06"
    program.write_text("#!/bin/sh\necho broken\nexit 9\n")
    assert describe_device("cuda:0")["driver"] is None


def test_what_metal_says(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    mps = SimpleNamespace(
        recommended_max_memory=lambda: 2 * GB,
        driver_allocated_memory=lambda: GB // 2,
        empty_cache=lambda: None,
    )
    assert all(hasattr(torch.mps, name) for name in vars(mps))
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(mps=mps))
    found = memory_of("mps")
    assert found.total == 2 * GB
    assert found.free == min(2 * GB - GB // 2, memory_of("cpu").free)
    assert peak_bytes("mps") == GB // 2
    assert identity_of("mps") == "mps"


def test_what_the_processor_says() -> None:
    import torch

    facts = describe_device("cpu")
    assert json.loads(json.dumps(facts)) == facts
    assert facts["kind"] == "cpu" and facts["driver"] is None
    assert facts["name"] and "\n" not in facts["name"]
    assert facts["total_memory"] == memory_of("cpu").total
    assert facts["usable_cores"] >= 1 and facts["threads"] == torch.get_num_threads()
    for nothing in (empty_cache, reset_peak):
        nothing("cpu")
