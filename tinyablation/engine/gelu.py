"""Activation functions that a model spells out in several passes, computed in one.

transformers computes GPT-2's GELU in eight passes over the widest activations of a layer: on a CPU
a third of the time of the two matrices around it, and six times what PyTorch's own takes.
"""

import contextlib
from collections.abc import Callable, Iterator
from functools import partial

from torch import Tensor, nn

from tinyablation.engine.offload import replaced

_gelu: Callable[[Tensor], Tensor] = partial(nn.functional.gelu, approximate="tanh")


@contextlib.contextmanager
def in_one_pass(model: nn.Module) -> Iterator[None]:
    """While this lasts, such functions of the model are computed in one pass.

    What somebody gave another forward is left alone. Accelerate's only brings values to where the
    module's weights are, and these have none.
    """
    from transformers.activations import NewGELUActivation

    with contextlib.ExitStack() as stack:
        for module in set(model.modules()):
            own = "forward" not in module.__dict__ or hasattr(module, "_hf_hook")
            if type(module) is NewGELUActivation and own:
                stack.enter_context(replaced(module, _gelu))
        yield
