"""Models whose weights are on several devices, or offloaded until they are needed.

accelerate places a model that is too large for one device: layers on several devices, and some
offloaded, so that their parameters are on "meta" except while their module runs. Modules with
weights then move their inputs to their device, but nothing else does: values computed between
modules must be moved explicitly.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from tinyablation.engine.prompt_checks import EngineError


@contextlib.contextmanager
def at_hand(module: nn.Module) -> Iterator[None]:
    """Context in which the module's own parameters are on its device, even if offloaded.

    Tensors read inside stay valid afterwards. Raises EngineError if no hook loads the weights.
    """
    own = list(module.parameters(recurse=False))
    if not any(parameter.is_meta for parameter in own):
        yield
        return
    from accelerate.utils import align_module_device

    with align_module_device(module):
        if any(parameter.is_meta for parameter in module.parameters(recurse=False)):
            raise EngineError(
                f"the weights of a {type(module).__name__} are on the meta device, and no hook of "
                "accelerate brings them; load the model with from_pretrained"
            )
        yield


def weight_of(module: nn.Module) -> Tensor:
    """A module's `weight`, on the device where it computes."""
    with at_hand(module):
        weight: Any = module.weight
        return weight


def bias_of(module: nn.Module) -> Tensor | None:
    """A module's `bias`, on the device where it computes; None if it has none."""
    with at_hand(module):
        bias: Tensor | None = getattr(module, "bias", None)
        return bias


def home(*modules: nn.Module) -> torch.device:
    """The device on which the first of these modules that has parameters computes."""
    for module in modules:
        with at_hand(module):
            for parameter in module.parameters(recurse=False):
                return parameter.device
    raise EngineError("a layer without any weights has no device")


def picked(values: Tensor, rows: Int[Tensor, " rows"]) -> Tensor:
    """values[rows], on the values' device; the index may be on any device."""
    return values[rows.to(values.device)]


def desk_of(device: torch.device) -> torch.device:
    """The device for float64 sums of values on this device: the CPU for MPS, else itself."""
    return torch.device("cpu") if device.type == "mps" else device


def exact(values: Tensor) -> Tensor:
    """The values in float64, on desk_of their device."""
    return values.to(desk_of(values.device)).double()


@contextlib.contextmanager
def replaced(module: nn.Module, forward: Any) -> Iterator[None]:
    """Context in which the module computes `forward` instead, without moving its weights."""
    before = module.__dict__.get("forward")  # accelerate stores its own here, too
    module.__dict__["forward"] = forward
    try:
        yield
    finally:
        if before is None:
            del module.__dict__["forward"]
        else:
            module.__dict__["forward"] = before
