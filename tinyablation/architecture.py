"""Where things are in a Hugging Face model, by TransformerLens's adapters: no names of our own."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tinyablation.examples import EngineError
from tinyablation.interventions import Head
from tinyablation.loading import LoadedModel

# Where a module's first input may stand: the families pass it by position or by this name.
HIDDEN = "hidden_states"


@dataclass(frozen=True)
class Layer:
    """The modules of one layer: block, attention, its output projection, its first norm."""

    block: nn.Module
    attention: nn.Module
    output: nn.Module
    norm: nn.Module


class Call(NamedTuple):
    """How a module was called, without its hidden states, and what kind of value it returned."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    n_returned: int  # 0: a bare tensor, else the length of the tuple

    def into(self, module: nn.Module, hidden: Tensor) -> Tensor:
        """Call the module the same way on other hidden states; the first thing it returns."""
        result = module(hidden, *self.args, **self.kwargs)
        return result[0] if self.n_returned else result


class Calls(NamedTuple):
    """The calls of every layer's block and attention, from a pass over a single prompt."""

    blocks: tuple[Call, ...]
    attentions: tuple[Call, ...]


class _Enough(Exception):
    """Ends a forward pass whose interesting part is over; never leaves this package."""


class Architecture:
    """The resolved modules of one model, and the ways to run them one layer at a time."""

    def __init__(self, loaded: LoadedModel) -> None:
        """Raises EngineError for a model without adapter, or one not in the expected shape."""
        from transformer_lens.factories.architecture_adapter_factory import (
            ArchitectureAdapterFactory,
        )
        from transformer_lens.model_bridge.sources._bridge_builder import (
            build_bridge_config_from_hf,
        )

        self.name = name = loaded.entry.id
        self.model = loaded.model
        self.device = loaded.device
        if self.model.training:
            raise EngineError(f"model {name!r} is in training mode; call .eval()")
        kind = type(self.model).__name__
        try:
            config = build_bridge_config_from_hf(self.model.config, kind, name, loaded.dtype)
            adapter = ArchitectureAdapterFactory.select_architecture_adapter(config)

            def component(path: str) -> nn.Module:
                return adapter.get_component(self.model, path)

            self.layers = tuple(
                Layer(
                    component(f"blocks.{layer}"),
                    component(f"blocks.{layer}.attn"),
                    component(f"blocks.{layer}.attn.o"),
                    component(f"blocks.{layer}.ln1"),
                )
                for layer in range(loaded.facts.n_layers)
            )
            self.final_norm = component("ln_final")
            self.unembed = component("unembed")
        except (ValueError, AttributeError, IndexError) as error:
            raise EngineError(
                f"model {name!r}: TransformerLens cannot resolve {kind}: {error}"
            ) from error
        self.n_heads = loaded.facts.n_heads
        width = _input_major(self.layers[0].output).shape[0]
        if width % self.n_heads:
            raise EngineError(
                f"model {name!r}: an output projection of {width} inputs does not divide into "
                f"{self.n_heads} heads"
            )
        self.d_head = width // self.n_heads

    def columns(self, layer: int, heads: tuple[Head, ...]) -> list[slice]:
        """Where these heads of this layer stand in the output projection's input."""
        size = self.d_head
        return [slice(head * size, (head + 1) * size) for own, head in heads if own == layer]

    def output_matrix(self, layer: int, columns: slice) -> Float[Tensor, "d_head d_model"]:
        """W_O of the heads in these columns."""
        return _input_major(self.layers[layer].output)[columns]

    def logits(self, hidden: Float[Tensor, "rows d_model"]) -> Float[Tensor, "rows vocab"]:
        """Final norm and unembedding of the last token's residual stream."""
        return self.unembed(self.final_norm(hidden))

    def record(self, ids: Int[Tensor, "1 positions"]) -> tuple[Calls, Float[Tensor, "1 vocab"]]:
        """Run the whole model on one prompt; how each layer was called, and its last logits.

        One prompt, so that masks and position embeddings have batch size 1 and broadcast.
        """
        blocks: list[Call] = []
        attentions: list[Call] = []

        def keeper(into: list[Call]) -> Callable[..., None]:
            def keep(_: nn.Module, args: Any, kwargs: dict[str, Any], out: Any) -> None:
                rest = {key: value for key, value in kwargs.items() if key != HIDDEN}
                into.append(Call(args[1:], rest, len(out) if isinstance(out, tuple) else 0))

            return keep

        with hooked(
            *(
                handle
                for layer in self.layers
                for handle in (
                    layer.block.register_forward_hook(keeper(blocks), with_kwargs=True),
                    layer.attention.register_forward_hook(keeper(attentions), with_kwargs=True),
                )
            )
        ):
            logits = self.model(ids, use_cache=False).logits[:, -1]
        if not len(blocks) == len(attentions) == len(self.layers):
            raise EngineError(
                f"model {self.name!r}: a layer was called more or less than once per forward pass"
            )
        return Calls(tuple(blocks), tuple(attentions)), logits

    def after_attention(
        self,
        calls: Calls,
        layer: int,
        hidden: Float[Tensor, "rows positions d_model"],
        attention: Float[Tensor, "rows positions d_model"],
    ) -> Float[Tensor, "rows positions d_model"]:
        """The layer's output, given what its attention puts out (attention is not run)."""
        module = self.layers[layer].attention
        returned = calls.attentions[layer].n_returned
        value = (attention, *(None,) * (returned - 1)) if returned else attention
        with stubbed(module, value):
            return calls.blocks[layer].into(self.layers[layer].block, hidden)

    def through(
        self,
        calls: Calls,
        layer: int,
        hidden: Float[Tensor, "rows positions d_model"],
        edit: Callable[[Tensor], Tensor] | None = None,
    ) -> Float[Tensor, "rows positions d_model"]:
        """The layer's output; `edit` maps the output projection's input to what it becomes.

        The last layer is computed at the last position only, [rows, 1, d_model]: its keys and
        values need all positions, its output projection and MLP do not.
        """
        modules = self.layers[layer]
        last = layer == len(self.layers) - 1
        kept: list[Tensor] = []

        def change(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            z = args[0][:, -1:] if last else args[0]
            return (edit(z) if edit is not None else z, *args[1:])

        def stop(_: nn.Module, args: Any, out: Any) -> None:
            kept.append(out[0] if isinstance(out, tuple) else out)
            raise _Enough

        if not last:
            handles = [modules.output.register_forward_pre_hook(change)] if edit else []
            with hooked(*handles):
                return calls.blocks[layer].into(modules.block, hidden)
        with (
            hooked(
                modules.output.register_forward_pre_hook(change),
                modules.attention.register_forward_hook(stop),
            ),
            contextlib.suppress(_Enough),
        ):
            calls.blocks[layer].into(modules.block, hidden)
        return self.after_attention(calls, layer, hidden[:, -1:], kept[0])

    def clean(self, ids: Int[Tensor, "rows positions"], layers: frozenset[int]) -> "Clean":
        """One unhooked pass over prompts of one length, recording what these layers saw and did."""
        found = Clean({}, {}, {}, torch.empty(0))
        handles = []

        def residual(layer: int) -> Callable[..., None]:
            def keep(_: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
                found.residual[layer] = args[0] if args else kwargs[HIDDEN]

            return keep

        def z(layer: int) -> Callable[..., None]:
            def keep(_: nn.Module, args: Any) -> None:
                found.z[layer] = args[0]

            return keep

        def attention(layer: int) -> Callable[..., None]:
            def keep(_: nn.Module, args: Any, out: Any) -> None:
                found.attention[layer] = out[0] if isinstance(out, tuple) else out

            return keep

        final: list[Tensor] = []

        def stop(_: nn.Module, args: Any, out: Any) -> None:
            final.append((out[0] if isinstance(out, tuple) else out)[:, -1])
            raise _Enough

        for index in sorted(layers):
            modules = self.layers[index]
            handles += [
                modules.block.register_forward_pre_hook(residual(index), with_kwargs=True),
                modules.output.register_forward_pre_hook(z(index)),
                modules.attention.register_forward_hook(attention(index)),
            ]
        handles.append(self.layers[-1].block.register_forward_hook(stop))
        with hooked(*handles), contextlib.suppress(_Enough):
            self.model(ids, use_cache=False)
        return found._replace(logits=self.logits(final[0]))

    def folded_z(self, calls: Calls, positions: int) -> Float[Tensor, "layers width"]:
        """What z is when the value input is only the bias of the layer's first norm.

        Attention weights sum to 1, so z is then the same at every position and needs no knowledge
        of how the architecture makes values. Raises EngineError if it is not the same.
        """
        rows = []
        for index, modules in enumerate(self.layers):
            kept: list[Tensor] = []

            def stop(_: nn.Module, args: Any, kept: list[Tensor] = kept) -> None:
                kept.append(args[0])
                raise _Enough

            weight: Any = modules.norm.weight
            bias: Any = getattr(modules.norm, "bias", None)
            if bias is None:
                bias = torch.zeros_like(weight)
            hidden = bias.expand(1, positions, -1)
            call = calls.attentions[index]
            # Attention modules of one family take it by position, of others by name only.
            with (
                hooked(modules.output.register_forward_pre_hook(stop)),
                contextlib.suppress(_Enough),
            ):
                modules.attention(*call.args, **{HIDDEN: hidden, **call.kwargs})
            z = kept[0][0]
            scale = z.abs().max().item() + 1e-6
            if (z - z[:1]).abs().max().item() > 0.02 * scale:  # bf16 rounds at 0.004
                raise EngineError(
                    f"model {self.name!r}, layer {index}: attention weights do not sum to 1, so "
                    "zero_folded has no meaning here; use zero"
                )
            rows.append(z[0])
        return torch.stack(rows)


class Clean(NamedTuple):
    """A clean pass: by layer, its input, its projection input z and its attention's output."""

    residual: dict[int, Float[Tensor, "rows positions d_model"]]
    z: dict[int, Float[Tensor, "rows positions width"]]
    attention: dict[int, Float[Tensor, "rows positions d_model"]]
    logits: Float[Tensor, "rows vocab"]


@contextlib.contextmanager
def hooked(*handles: Any) -> Iterator[None]:
    """Remove these hooks on the way out, whatever happened."""
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextlib.contextmanager
def stubbed(module: nn.Module, value: Any) -> Iterator[None]:
    """Let the module return this value, without running it."""
    before = module.__dict__.get("forward")
    module.__dict__["forward"] = lambda *args, **kwargs: value
    try:
        yield
    finally:
        if before is None:
            del module.__dict__["forward"]
        else:
            module.__dict__["forward"] = before


def _input_major(projection: nn.Module) -> Float[Tensor, "width d_model"]:
    # The one architecture branch: GPT-2's Conv1D keeps its matrix as [in, out], Linear [out, in].
    weight: Any = projection.weight
    return weight.T if isinstance(projection, nn.Linear) else weight
