"""Activation functions that a model computes in several passes, replaced by a single pass.

transformers computes GPT-2's GELU in eight passes over the widest activations of a layer. On a CPU
this takes a third of the time of the two matrix products around it, and six times as long as
PyTorch's own GELU.
"""

import contextlib
from collections.abc import Callable, Iterator
from functools import partial

from torch import Tensor, nn

from tinyablation.engine.offload import replaced

_gelu: Callable[[Tensor], Tensor] = partial(nn.functional.gelu, approximate="tanh")


@contextlib.contextmanager
def in_one_pass(model: nn.Module) -> Iterator[None]:
    """Context in which such functions of the model are computed in one pass.

    Modules with a user-defined forward are left alone. Accelerate's forward is replaced, because it
    only moves values to the device of the module's weights, and these modules have none.
    """
    from transformers.activations import NewGELUActivation

    with contextlib.ExitStack() as stack:
        for module in set(model.modules()):
            own = "forward" not in module.__dict__ or hasattr(module, "_hf_hook")
            if type(module) is NewGELUActivation and own:
                stack.enter_context(replaced(module, _gelu))
        yield
