"""Devices that a machine does not have: CPU tensors that say they are elsewhere, and do not mix.

A Placed tensor reports a device of its own and computes on the CPU. As on real devices, operands
must be on one (but numbers, and indices on the CPU), moving between two must be asked for, numpy
takes what is on the CPU, and MPS has no float64. All of it holds while `pretending()` lasts.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

# These ask where a tensor is, or are asked of the CPU alone.
WHERE = {torch.Tensor.device.__get__, torch.Tensor.is_meta.__get__}
ITEMS = {torch.Tensor.__getitem__, torch.Tensor.__setitem__}
PRETENDED = ("cuda", "mps")


class Placed(torch.Tensor):
    """A CPU tensor that says it is on another device."""

    held: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: torch.Tensor, device: torch.device) -> "Placed":
        if device.type == "mps" and held.dtype == torch.float64:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype")
        made = torch.Tensor._make_wrapper_subclass(
            cls, held.shape, strides=held.stride(), dtype=held.dtype, device=device
        )
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{func} of a pretended device, outside pretending()")


class _Pretending(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in WHERE:
            return func(*args, **kwargs)
        if func in (torch.Tensor.to, torch.Tensor.cpu):
            return _moved(func, args, kwargs)
        device = _device_of(func, args, kwargs)
        if kwargs.get("device") is not None:
            device = torch.device(kwargs["device"])
            if device.type in PRETENDED:
                kwargs["device"] = "cpu"
        if func is torch.Tensor.numpy and device.type != "cpu":
            raise TypeError(f"can't convert {device} device type tensor to numpy")
        out = func(*tree_map(_held, args), **tree_map(_held, kwargs))
        if args and isinstance(args[0], Placed) and out is args[0].held:
            return args[0]  # in place
        if device.type not in PRETENDED:
            return out
        return tree_map(lambda x: Placed(x, device) if isinstance(x, torch.Tensor) else x, out)


def _held(value: Any) -> Any:
    return value.held if isinstance(value, Placed) else value


def _device_of(func: Any, args: Any, kwargs: Any) -> torch.device:
    """The one device of the operands; RuntimeError where there are several."""
    operands = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
    if func in ITEMS:
        index = {id(x) for x in tree_leaves(args[1]) if isinstance(x, torch.Tensor)}
        operands = [x for x in operands if id(x) not in index or x.device.type != "cpu"]
    found = {x.device for x in operands if x.ndim} or {x.device for x in operands}
    if len(found) > 1 and func is not torch.Tensor.copy_:
        raise RuntimeError(
            "Expected all tensors to be on the same device, but found at least two devices, "
            f"{' and '.join(sorted(map(str, found)))}, in {func}"
        )
    return operands[0].device if operands else torch.device("cpu")


def _moved(func: Any, args: Any, kwargs: Any) -> torch.Tensor:
    source, *rest = args
    asked = "cpu" if func is torch.Tensor.cpu else kwargs.pop("device", None)
    for value in rest:
        if isinstance(value, str | torch.device):
            asked = value
    rest = [value for value in rest if not isinstance(value, str | torch.device | None)]
    device = source.device if asked is None else torch.device(asked)
    out = torch.Tensor.to(_held(source), *rest, **kwargs)
    if device == source.device:
        if out is _held(source):
            return source
    else:
        out = out.clone()
    return Placed(out, device) if device.type in PRETENDED else out


@contextmanager
def pretending() -> Iterator[None]:
    """While this lasts, cuda:N and mps:N exist, with 8 GB each."""
    with _Pretending(), patch("tinyablation.models.bounds.total_memory", lambda device: 8 * 10**9):
        yield


def place(model: torch.nn.Module, devices: dict[str, str]) -> None:
    """Put modules on pretended devices, by the longest of these prefixes of their names ("" all).

    accelerate's own hooks bring every module its inputs, and the model its outputs back.
    """
    from accelerate.hooks import AlignDevicesHook, add_hook_to_module

    with pretending():
        for name, module in model.named_modules():
            fitting = [p for p in devices if not p or f"{name}.".startswith(f"{p}.")]
            device = torch.device(devices[max(fitting, key=len)])
            for own, parameter in list(module.named_parameters(recurse=False)):
                placed = parameter.detach().to(device)
                setattr(module, own, torch.nn.Parameter(placed, requires_grad=False))
            for own, buffer in list(module.named_buffers(recurse=False)):
                setattr(module, own, buffer.to(device))
            # It is told its device afterwards: it would move the weights, which are there.
            hook = AlignDevicesHook(io_same_device=not name)
            add_hook_to_module(module, hook)
            hook.execution_device = device
