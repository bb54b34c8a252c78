"""Devices: which one a worker computes on, what it is, and how much memory it has.

`look` inspects the machine; `pick` decides from what `look` returns. Importing this module does not
load torch, and a CPU-only build of torch is recognised without loading it.
"""

import os
import platform
import re
import shutil
import subprocess
import sys
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from tinyablation.errors import LoadingError

ACCEPTED = "auto, cpu, cuda, cuda:N (N counts from 0), mps"
# This share of every device's memory is never used: drivers' tables, fragmentation.
SPARE = 0.02
NO_LIMIT = 2**62  # cgroup v1 reports "no limit" as the largest page multiple below 2^63

# nvidia-smi takes 1 to 2 s where no process keeps the driver loaded, and hangs with a lost GPU.
SYSTEM_PROGRAM_SECONDS = 20


class DeviceError(LoadingError):
    """The requested device is absent, or its name is unknown."""


class Hardware(NamedTuple):
    """What torch finds: number of GPUs, whether there is an Apple GPU, torch version, warning."""

    gpus: int
    mps: bool
    torch: str
    warning: str = ""

    def __str__(self) -> str:
        found = [*(f"cuda:{n}" for n in range(self.gpus)), *(["mps"] if self.mps else []), "cpu"]
        built = f"torch {self.torch}" + (
            " is built without CUDA" if self.torch.endswith("+cpu") else ""
        )
        return f"this machine has {', '.join(found)} ({built}{self.warning and '; '}{self.warning})"


class Memory(NamedTuple):
    """A device's memory in bytes."""

    free: int
    total: int

    @property
    def room(self) -> int:
        """Usable bytes: the free memory less the share that is never used."""
        return max(0, min(self.free, self.total) - int(self.total * SPARE))


def choose_device(wanted: str, worker: int = 0) -> str:
    """The device of a worker: "cpu", "mps" or "cuda:N".

    wanted: one of ACCEPTED. auto is cuda, else mps, else cpu. With several GPUs worker n gets
    cuda:(n % count), unless one is named. Raises DeviceError if the device is absent.
    """
    if not re.fullmatch(r"auto|cpu|mps|cuda(:(0|[1-9][0-9]*))?", wanted):
        raise DeviceError(f"no device is called {wanted!r}; accepted are {ACCEPTED}")
    return "cpu" if wanted == "cpu" else pick(wanted, worker, look())


def look() -> Hardware:
    """The hardware of this machine as torch sees it."""
    built = version("torch")
    # torch takes 2 s to import, and a session whose measurements all exist does not need it.
    if built.endswith("+cpu") and sys.platform != "darwin":
        return Hardware(0, False, built)
    import torch

    # torch warns of a driver that is too old; that must not become an error here.
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    warned = " ".join(str(caught[0].message).split())[:200] if caught else ""
    return Hardware(gpus, torch.backends.mps.is_available(), built, warned)


def pick(wanted: str, worker: int, hardware: Hardware) -> str:
    """choose_device for the given hardware."""
    if wanted == "auto":
        wanted = "cuda" if hardware.gpus else "mps" if hardware.mps else "cpu"
    kind, _, index = wanted.partition(":")
    if kind == "cuda" and int(index or 0) >= hardware.gpus:
        what = (
            "use one of those, or --device auto"
            if hardware.gpus
            else "install a driver and a torch with CUDA, or use --device auto"
        )
        raise DeviceError(f"device {wanted!r} is not there: {hardware}; {what}")
    if kind == "mps" and not hardware.mps:
        raise DeviceError(f"device 'mps' is not there: {hardware}; use --device auto")
    return f"cuda:{index or worker % hardware.gpus}" if kind == "cuda" else kind


def kind_of(device: str) -> str:
    """The kind of a device: "cuda" for "cuda:1"."""
    return device.partition(":")[0]


def gigabytes(count: int) -> str:
    """Bytes as text: "14.5 GB", or below one GB "193 MB"."""
    return f"{count / 1e9:.1f} GB" if count >= 10**9 else f"{count / 1e6:.0f} MB"


# --- memory --------------------------------------------------------------------------------------


def memory_of(device: str) -> Memory:
    """A device's memory now, in bytes.

    cuda: that of the whole GPU, including other users' (asking creates this process's CUDA context,
    some 0.5 GB, which therefore never counts as free). mps: what Metal recommends to use. cpu: what
    is available without swapping, within the limits of the process's cgroup.
    """
    kind = kind_of(device)
    if kind == "cuda":
        import torch

        return Memory(*(int(figure) for figure in torch.cuda.mem_get_info(device)))
    import psutil

    host = psutil.virtual_memory()
    found = Memory(int(host.available), int(host.total))
    limits = cgroup_memory(Path("/")) if sys.platform == "linux" else None
    if limits is not None:
        found = Memory(min(found.free, limits.free), min(found.total, limits.total))
    if kind == "mps":
        import torch

        total = int(torch.mps.recommended_max_memory())
        # Metal reports what this process holds; what others hold shows in the shared memory.
        free = min(total - int(torch.mps.driver_allocated_memory()), found.free)
        return Memory(max(0, free), total)
    return found


def cgroup_memory(root: Path) -> Memory | None:
    """The tightest memory limit of this process's control groups (v1 and v2); None: no limit.

    root: the root of the file system, "/". File pages count as free because they are reclaimed on
    demand: a group that has read a checkpoint is "full" of its pages.
    """
    found: list[Memory] = []
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            base, limit, usage, prefix = "sys/fs/cgroup", "memory.max", "memory.current", ""
        elif "memory" in controllers.split(","):
            base, prefix = "sys/fs/cgroup/memory", "total_"
            limit, usage = "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        top = root / base
        group = top / path.lstrip("/")
        # Inside a container the path may be the host's, which is not mounted: use the top.
        for folder in [group, *group.parents]:
            if not folder.is_relative_to(top):
                break
            try:
                most = int((folder / limit).read_text())  # v2 writes "max" for no limit
                used = int((folder / usage).read_text())
                stat = dict(
                    entry.split() for entry in (folder / "memory.stat").read_text().splitlines()
                )
            except (OSError, ValueError):
                continue
            files = sum(int(stat.get(f"{prefix}{kind}_file", 0)) for kind in ("active", "inactive"))
            if most < NO_LIMIT:
                found.append(Memory(max(0, min(most, most - used + files)), most))
    if not found:
        return None
    return Memory(min(one.free for one in found), min(one.total for one in found))


def empty_cache(device: str) -> None:
    """Return torch's cached but unused memory to the device."""
    kind = kind_of(device)
    if kind in ("cuda", "mps"):
        import torch

        if kind == "cuda":
            with torch.cuda.device(device):
                torch.cuda.empty_cache()
        else:
            torch.mps.empty_cache()


def reset_peak(device: str) -> None:
    """Restart the count of peak_bytes."""
    if kind_of(device) == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats(device)


def peak_bytes(device: str) -> int | None:
    """The peak memory of this process's tensors on an accelerator, in bytes; None on a CPU.

    Metal records no peak: on mps it is what the process holds now, including torch's cache, which
    equals the peak since empty_cache.
    """
    kind = kind_of(device)
    if kind == "cpu":
        return None
    import torch

    if kind == "mps":
        return int(torch.mps.driver_allocated_memory())
    return int(torch.cuda.max_memory_allocated(device))


# --- what a device is ----------------------------------------------------------------------------


def identity_of(device: str) -> str:
    """A device's name on this machine, independent of CUDA_VISIBLE_DEVICES."""
    if kind_of(device) != "cuda":
        return device
    import torch

    uuid = getattr(torch.cuda.get_device_properties(device), "uuid", None)  # ROCm may have none
    return device if uuid is None else f"cuda-{uuid}"


def describe_device(device: str) -> dict[str, Any]:
    """A device's description for a run's provenance, as plain values; None: unknown.

    Always: kind, name, driver, total_memory in bytes. cuda: also compute_capability and runtime
    (CUDA's or ROCm's). cpu: also cores (physical), usable_cores (for this process) and threads
    (torch's, if it is loaded).
    """
    kind = kind_of(device)
    facts: dict[str, Any] = {"kind": kind, "name": None, "driver": None}
    if kind == "cuda":
        import torch

        found = torch.cuda.get_device_properties(device)
        runtime = torch.version.cuda or getattr(torch.version, "hip", None)
        return facts | {
            "name": str(found.name),
            "driver": _nvidia_driver(),
            "total_memory": int(found.total_memory),
            "compute_capability": f"{found.major}.{found.minor}",
            "runtime": None if runtime is None else str(runtime),
        }
    facts |= {"name": _processor(), "total_memory": memory_of(device).total}
    if kind == "mps":  # Metal's driver is the system's
        return facts | {"driver": platform.mac_ver()[0] or None}
    import psutil

    torch_loaded = sys.modules.get("torch")
    return facts | {
        "cores": psutil.cpu_count(logical=False),
        "usable_cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "threads": None if torch_loaded is None else int(torch_loaded.get_num_threads()),
    }


def _nvidia_driver() -> str | None:
    lines = _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    return lines.splitlines()[0].strip() if lines else None  # one driver for all GPUs


def _processor() -> str | None:
    if sys.platform == "linux":
        try:
            found = re.search(
                r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE
            )
        except OSError:
            found = None
        if found:
            return found[1].strip()
    if sys.platform == "darwin":
        return _output("sysctl", "-n", "machdep.cpu.brand_string") or None
    return platform.processor() or platform.machine() or None


def _output(program: str, *arguments: str) -> str:
    # The output of a system program; "" if it is absent, fails or hangs.
    path = shutil.which(program)
    if path is None:
        return ""
    try:
        done = subprocess.run(
            [path, *arguments],
            capture_output=True,
            text=True,
            timeout=SYSTEM_PROGRAM_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
