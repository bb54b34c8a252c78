"""The CUDA device, seconds of work on it, and the rate of its matrix products."""

import time
from collections.abc import Callable
from typing import Any

from benchmarks.record import BenchmarkError
from tinyablation.models.devices import DeviceError, choose_device


def cuda_device() -> str:
    """The CUDA device; BenchmarkError where there is none."""
    try:
        return choose_device("cuda")
    except DeviceError as error:
        raise BenchmarkError(f"no CUDA device: {error}") from None


def mm_rate(device: str, dtype: Any, size: int) -> float:
    """Operations a second of torch.mm on square matrices; the best of ten."""
    import torch

    one, other = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    out = torch.empty(size, size, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(10):
        _, seconds = timed(device, lambda: torch.mm(one, other, out=out))
        best = min(best, seconds)
    return 2 * size**3 / best


def timed(device: str, work: Callable[[], Any]) -> tuple[Any, float]:
    """What the work gave, and its seconds by the clock until the device had done it."""
    synchronize(device)
    begin = time.perf_counter()
    found = work()
    synchronize(device)
    return found, time.perf_counter() - begin


def synchronize(device: str) -> None:
    """Wait for the device, if it is one that runs on beside the CPU."""
    import torch

    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
