"""Settings of the engine, each timed on one sweep: bounds, attention, compiled modules."""

import argparse
import contextlib
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.device import timed
from benchmarks.record import BenchmarkError, Recording
from benchmarks.shapes import Head
from tinyablation.models.bounds import Bounds
from tinyablation.models.devices import empty_cache, peak_bytes, reset_peak

if TYPE_CHECKING:
    from torch import nn

    from tinyablation.corpora.tokenisation import Prompt
    from tinyablation.engine.engine import Engine
    from tinyablation.models.loading import LoadedModel

# Logits, in float32, between the engine and others: sums in other orders, over 12 layers.
AGREEMENT = 1e-3


class Setting(NamedTuple):
    """What a sweep is timed with: bounds, an attention of transformers, and compiled modules."""

    bounds: Bounds
    attention: str = "eager"
    compiled: bool = False

    def __str__(self) -> str:
        batch, nodes = self.bounds.batch.bit_length() - 1, self.bounds.pack_nodes
        also = ", compiled" if self.compiled else ""
        return f"2^{batch} numbers, packs of {nodes}, {self.attention} attention{also}"


def settings_named(text: str) -> tuple[Setting, ...]:
    """The settings of an option, "21:128,25:1024:sdpa:compiled"."""
    found = []
    for each in text.split(","):
        match = re.fullmatch(r"(\d+):(\d+)(?::(eager|sdpa))?(:compiled)?", each)
        if match is None:
            raise argparse.ArgumentTypeError(
                f"{each!r}: give powers of two and nodes of packs, as 21:128,25:1024:sdpa:compiled"
            )
        power, nodes = int(match[1]), int(match[2])
        if not 0 < power < 40 or nodes < 1:
            raise argparse.ArgumentTypeError(f"{each!r}: powers are 1 to 39, and nodes at least 1")
        bounds = Bounds(2**power, nodes)
        found.append(Setting(bounds, match[3] or "eager", match[4] is not None))
    return tuple(found)


@contextlib.contextmanager
def compiled(engine: "Engine", backend: str = "inductor") -> Iterator[None]:
    """Context in which torch.compile computes the engine's RMS norms and MLPs, fused.

    transformers computes an RMS norm in six kernels or so, and a gated activation in two. Hooks lie
    around what is compiled, so that the engine reads and edits what it always does. All layers
    share a graph for each rank of an input, of any size (one of size 1 has its own).
    """
    import torch

    from tinyablation.engine.offload import replaced

    modules = [layer.mlp for layer in engine.architecture.layers if layer.mlp is not None]
    modules += [each for each in engine.architecture.model.modules() if is_rms_norm(each)]
    with contextlib.ExitStack() as stack:
        for module in modules:
            fused = torch.compile(module.forward, dynamic=True, backend=backend)
            stack.enter_context(replaced(module, fused))
        yield


def require_compiler(device: str) -> None:
    """Raise BenchmarkError where torch.compile does not work, before anything is timed."""
    import torch

    try:
        torch.compile(lambda values: values * values + 1)(torch.ones(8, device=device))
    except Exception as error:  # a compiler that is missing, or of the wrong version: many kinds
        line = str(error).strip().partition("\n")[0]
        raise BenchmarkError(
            f"torch.compile does not work on {device} ({line}): install a C compiler, or leave out "
            ":compiled"
        ) from error


def is_rms_norm(module: "nn.Module") -> bool:
    return type(module).__name__.endswith("RMSNorm")


def sweep(
    recording: Recording,
    loaded: "LoadedModel",
    prompts: "Sequence[Prompt]",
    heads: Sequence[Head],
    every: Sequence[Setting],
) -> list[dict[str, Any]]:
    """The engine's seconds with each of these settings, against the first of them.

    BenchmarkError where figures differ by more than sums in other orders: AGREEMENT in float32, the
    tolerance of their dtype in others, as a share of the largest LD and of 1 at least.
    """
    import numpy as np

    from tinyablation.engine.engine import Engine
    from tinyablation.interventions.interventions import AblateHeads
    from tinyablation.measurement.precision import TOLERANCES

    device = str(loaded.device)
    dtype = str(loaded.dtype).removeprefix("torch.")
    agreement = AGREEMENT if dtype == "float32" else TOLERANCES[dtype]
    if any(setting.compiled for setting in every):
        require_compiler(device)
    interventions = [AblateHeads((head,)) for head in heads]
    found: list[dict[str, Any]] = []
    first: Any = None
    for setting in every:
        loaded.model.set_attn_implementation(setting.attention)
        engine = Engine(loaded)
        engine.bounds = setting.bounds
        with compiled(engine) if setting.compiled else contextlib.nullcontext():
            # For nothing: torch.compile makes a graph of one row, and another of more.
            for few in (interventions[:1], interventions[:2]):
                engine.measure(prompts, few)
            empty_cache(device)
            reset_peak(device)
            frame, seconds = timed(
                device, lambda engine=engine: engine.measure(prompts, interventions)
            )
        values = frame.logit_diff.to_numpy()
        first = values if first is None else first
        off = float(np.abs(values - first).max())
        if not off <= agreement * max(1.0, float(np.abs(first).max())):
            raise BenchmarkError(f"with {setting} figures differ by {off:.2g} logits")
        found.append(
            setting.bounds._asdict()
            | {
                "attention": setting.attention,
                "compiled": setting.compiled,
                "engine_s": round(seconds, 3),
                "peak_bytes": peak_bytes(device),
                "batch_halvings": engine.room.halvings,
                "largest_difference": off,
            }
        )
        name = f"{loaded.entry.id}, {dtype}, zero {len(heads)} heads, {len(prompts)} prompts"
        peer = () if len(found) == 1 else ("the first bounds", found[0]["engine_s"])
        recording.add(f"{name}, {setting}", seconds, "s", *peer, faster=True)
    return found
