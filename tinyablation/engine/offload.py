"""Where a model's weights are: on one device, on several, or away until they are needed.

A model that is too large for one device is placed by accelerate: layers on several devices, and
some offloaded, so that their parameters are on "meta" except while their module runs. Every module
that has weights then moves what it is given to its device, and nothing else does: what is computed
between modules must be brought to one.
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
    """While this lasts, the module's own parameters are where it computes, also if offloaded.

    What was read stays valid afterwards. EngineError for weights that are nowhere.
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
    """A module's `weight`, where it computes."""
    with at_hand(module):
        weight: Any = module.weight
        return weight


def home(*modules: nn.Module) -> torch.device:
    """The device on which the first of these modules that has parameters computes."""
    for module in modules:
        with at_hand(module):
            for parameter in module.parameters(recurse=False):
                return parameter.device
    raise EngineError("a layer without any weights has no device")


def picked(values: Tensor, rows: Int[Tensor, " rows"]) -> Tensor:
    """values[rows], where the values are, wherever the index is."""
    return values[rows.to(values.device)]


def desk_of(device: torch.device) -> torch.device:
    """Where sums in float64 are made of what is on this device: there, but MPS has no float64."""
    return torch.device("cpu") if device.type == "mps" else device


def exact(values: Tensor) -> Tensor:
    """In float64, on the desk of its device."""
    return values.to(desk_of(values.device)).double()


@contextlib.contextmanager
def replaced(module: nn.Module, forward: Any) -> Iterator[None]:
    """Let the module compute this instead, without moving or loading anything."""
    before = module.__dict__.get("forward")  # accelerate's own stands here, too
    module.__dict__["forward"] = forward
    try:
        yield
    finally:
        if before is None:
            del module.__dict__["forward"]
        else:
            module.__dict__["forward"] = before
