"""The modules of a Hugging Face model, resolved by TransformerLens's adapters."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tinyablation.engine.offload import at_hand, desk_of, home, replaced, weight_of
from tinyablation.engine.prompt_checks import EngineError
from tinyablation.engine.unembedding import Unembedding
from tinyablation.heads import Head
from tinyablation.models.loading import LoadedModel

# Maps an activation to its replacement.
Edit = Callable[[Tensor], Tensor]

# Keyword of a module's first input; model families pass it by position or by this name.
HIDDEN = "hidden_states"


@dataclass(frozen=True)
class Layer:
    """The modules of one layer: block, attention, its output projection, its first norm, its MLP.

    mlp is None if the MLP is not a module of its own (OPT's is two projections in the block).
    """

    block: nn.Module
    attention: nn.Module
    output: nn.Module
    norm: nn.Module
    mlp: nn.Module | None


class Call(NamedTuple):
    """A recorded call of a module: arguments without hidden states, and the type it returned."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    n_returned: int  # 0: a bare tensor, else the length of the tuple

    def into(self, module: nn.Module, hidden: Tensor) -> Tensor:
        """Call the module the same way on other hidden states; its first return value."""
        return _first(module(hidden, *self.args, **self.kwargs))

    def returning(self, value: Tensor) -> Any:
        """`value` in the form in which the module returned it in this call."""
        return (value, *(None,) * (self.n_returned - 1)) if self.n_returned else value


class Calls(NamedTuple):
    """The calls of every layer's block, attention and MLP, from a pass over a single prompt."""

    blocks: tuple[Call, ...]
    attentions: tuple[Call, ...]
    mlps: tuple[Call, ...]  # empty if a layer has no MLP module


class Layout(NamedTuple):
    """How prompts are laid out in the rows of a pass: one per row (default), or many packed ones.

    ends: the positions of their last tokens in a row, as an index; inputs: the model's inputs for a
    row besides its tokens, such as the attention mask (see prefix_trie.py).
    """

    ends: slice | Int[Tensor, " prompts"] = slice(-1, None)
    inputs: Mapping[str, Tensor] = MappingProxyType({})


ALONE = Layout()


class Kept(NamedTuple):
    """For each kind of activation, the layers in which a pass keeps it."""

    residual: frozenset[int] = frozenset()
    z: frozenset[int] = frozenset()
    attention: frozenset[int] = frozenset()
    mlp: frozenset[int] = frozenset()


class _Enough(Exception):
    """Ends a forward pass early, when the rest is not needed; never leaves this package."""


class Architecture:
    """The resolved modules of one model, and the ways to run them one layer at a time."""

    def __init__(self, loaded: LoadedModel) -> None:
        """Raises EngineError for a model without adapter, or with an unexpected structure."""
        from transformer_lens.factories.architecture_adapter_factory import (
            ArchitectureAdapterFactory,
        )
        from transformer_lens.model_bridge.sources._bridge_builder import (
            build_bridge_config_from_hf,
        )

        self.name = name = loaded.entry.id
        self.model = loaded.model
        self.device = loaded.device
        self.desk = desk_of(loaded.device)
        if self.model.training:
            raise EngineError(f"model {name!r} is in training mode; call .eval()")
        kind = type(self.model).__name__
        try:
            config = build_bridge_config_from_hf(self.model.config, kind, name, loaded.dtype)
            adapter = ArchitectureAdapterFactory.select_architecture_adapter(config)

            def component(path: str) -> nn.Module:
                return adapter.get_component(self.model, path)

            def mlp(layer: int) -> nn.Module | None:
                # Without an MLP module, the adapter either raises or returns the whole block.
                block = component(f"blocks.{layer}")
                try:
                    found = component(f"blocks.{layer}.mlp")
                except (ValueError, AttributeError):
                    return None
                return found if found in set(block.modules()) - {block} else None

            self.layers = tuple(
                Layer(
                    component(f"blocks.{layer}"),
                    component(f"blocks.{layer}.attn"),
                    component(f"blocks.{layer}.attn.o"),
                    component(f"blocks.{layer}.ln1"),
                    mlp(layer),
                )
                for layer in range(loaded.facts.n_layers)
            )
            self.embedding: nn.Module = self.model.get_input_embeddings()
            self.final_norm = component("ln_final")
            self.unembed = component("unembed")
            self.unembedding = Unembedding(self.final_norm, self.unembed)
            # The device of each layer and of the final norm; inputs are moved there.
            homes = [home(layer.norm, layer.output) for layer in self.layers]
            self.homes = (*homes, home(self.final_norm, self.unembed))
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
        """The columns of these heads of this layer in the output projection's input."""
        size = self.d_head
        return [slice(head * size, (head + 1) * size) for own, head in heads if own == layer]

    def output_matrix(self, layer: int, columns: slice) -> Float[Tensor, "d_head d_model"]:
        """W_O of the heads in these columns, on the layer's device."""
        return _input_major(self.layers[layer].output)[columns]

    def logits(self, hidden: Float[Tensor, "rows d_model"]) -> Float[Tensor, "rows vocab"]:
        """Final norm and unembedding of the last token's residual stream (see unembedding.py)."""
        return self.unembedding(hidden)

    def own(self, ids: Int[Tensor, "1 positions"]) -> Float[Tensor, "1 vocab"]:
        """The last token's logits of one prompt, of the model itself without any hook."""
        logits: Tensor = self.model(ids, use_cache=False).logits[:, -1]
        return logits

    def record(self, ids: Int[Tensor, "1 positions"]) -> tuple[Calls, Float[Tensor, "1 vocab"]]:
        """Run the model on one prompt; the calls of every layer, and the last token's logits.

        One prompt, so that masks and position embeddings have batch size 1 and broadcast.
        """
        with self._recording() as kept:
            logits = self.model(ids, use_cache=False).logits[:, -1]
        return self._calls(kept), logits

    def recorded(
        self, ids: Int[Tensor, "1 positions"], kept: Kept, layout: Layout
    ) -> tuple[Calls, "Clean"]:
        """A clean pass over one row, and the calls of every layer in it."""
        with self._recording() as calls:
            clean = self.clean(ids, kept, layout=layout)
        return self._calls(calls), clean

    @contextlib.contextmanager
    def _recording(self) -> Iterator[tuple[list[Call], list[Call], list[Call]]]:
        """Record the calls of blocks, attentions and MLPs, in order, while this context is open."""
        found: tuple[list[Call], list[Call], list[Call]] = ([], [], [])

        def keeper(into: list[Call]) -> Callable[..., None]:
            def keep(_: nn.Module, args: Any, kwargs: dict[str, Any], out: Any) -> None:
                rest = {key: value for key, value in kwargs.items() if key != HIDDEN}
                into.append(Call(args[1:], rest, len(out) if isinstance(out, tuple) else 0))

            return keep

        handles = [
            module.register_forward_hook(keeper(into), with_kwargs=True)
            for layer in self.layers
            for module, into in zip((layer.block, layer.attention, layer.mlp), found, strict=True)
            if module is not None
        ]
        with hooked(*handles):
            yield found

    def _calls(self, found: tuple[list[Call], list[Call], list[Call]]) -> Calls:
        blocks, attentions, mlps = found
        if not len(blocks) == len(attentions) == len(self.layers):
            raise EngineError(
                f"model {self.name!r}: a layer was called more or less than once per forward pass"
            )
        whole = len(mlps) == len(self.layers)
        return Calls(tuple(blocks), tuple(attentions), tuple(mlps) if whole else ())

    def after_attention(
        self,
        calls: Calls,
        layer: int,
        hidden: Float[Tensor, "rows positions d_model"],
        attention: Float[Tensor, "rows positions d_model"],
        edit_mlp: Edit | None = None,
    ) -> Float[Tensor, "rows positions d_model"]:
        """The layer's output, given its attention's output (attention is not run)."""
        modules = self.layers[layer]
        value = calls.attentions[layer].returning(attention.to(self.homes[layer]))
        with stubbed(modules.attention, value), hooked(*editing(modules.mlp, edit_mlp)):
            return calls.blocks[layer].into(modules.block, hidden)

    def after_mlp(
        self,
        calls: Calls,
        layer: int,
        hidden: Float[Tensor, "rows positions d_model"],
        attention: Float[Tensor, "rows positions d_model"],
        mlp: Float[Tensor, "rows positions d_model"],
    ) -> Float[Tensor, "rows positions d_model"]:
        """The layer's output, given the outputs of its attention and its MLP (neither is run)."""
        module = self.layers[layer].mlp
        assert module is not None
        with stubbed(module, calls.mlps[layer].returning(mlp.to(self.homes[layer]))):
            return self.after_attention(calls, layer, hidden, attention)

    def through(
        self,
        calls: Calls,
        layer: int,
        hidden: Float[Tensor, "rows positions d_model"],
        edit_z: Edit | None = None,
        edit_mlp: Edit | None = None,
        ends: slice | Int[Tensor, " prompts"] = ALONE.ends,
    ) -> Float[Tensor, "rows positions d_model"]:
        """The layer's output.

        edit_z edits the output projection's input, edit_mlp the MLP's output. The last layer is
        computed only at the ends of prompts, [rows, ends, d_model]: its keys and values need all
        positions, its output projection and MLP do not.
        """
        modules = self.layers[layer]
        last = layer == len(self.layers) - 1
        kept: list[Tensor] = []

        def change(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            z = args[0][:, ends] if last else args[0]
            return (edit_z(z) if edit_z is not None else z, *args[1:])

        def stop(_: nn.Module, args: Any, out: Any) -> None:
            kept.append(_first(out))
            raise _Enough

        if not last:
            handles = [modules.output.register_forward_pre_hook(change)] if edit_z else []
            with hooked(*handles, *editing(modules.mlp, edit_mlp)):
                return calls.blocks[layer].into(modules.block, hidden)
        with (
            hooked(
                modules.output.register_forward_pre_hook(change),
                modules.attention.register_forward_hook(stop),
            ),
            contextlib.suppress(_Enough),
        ):
            calls.blocks[layer].into(modules.block, hidden)
        return self.after_attention(calls, layer, hidden[:, ends], kept[0], edit_mlp)

    def clean(
        self,
        ids: Int[Tensor, "rows positions"],
        kept: Kept,
        *,
        logits: bool = True,
        layout: Layout = ALONE,
    ) -> "Clean":
        """One unhooked pass over rows of one length, recording the activations in `kept`.

        Each record is on its layer's device. logits: whether to compute them; else they are empty.
        """
        found = Clean({}, {}, {}, {}, torch.empty(0))
        handles = []

        def into(record: dict[int, Tensor], layer: int) -> Callable[..., None]:
            def keep(_: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
                # Until the layer's own hooks move it, its input is on the previous layer's device.
                record[layer] = (args[0] if args else kwargs[HIDDEN]).to(self.homes[layer])

            return keep

        def out_of(record: dict[int, Tensor], layer: int) -> Callable[..., None]:
            def keep(_: nn.Module, args: Any, out: Any) -> None:
                record[layer] = _first(out).to(self.homes[layer])

            return keep

        def stop(_: nn.Module, args: Any, out: Any) -> None:
            found.residual[len(self.layers)] = _first(out)[:, layout.ends]
            raise _Enough

        for index, modules in enumerate(self.layers):
            for wanted, module, record in (
                (kept.residual, modules.block, found.residual),
                (kept.z, modules.output, found.z),
            ):
                if index in wanted:
                    keep = into(record, index)
                    handles.append(module.register_forward_pre_hook(keep, with_kwargs=True))
            if index in kept.attention:
                keep = out_of(found.attention, index)
                handles.append(modules.attention.register_forward_hook(keep))
            if index in kept.mlp:
                assert modules.mlp is not None
                handles.append(modules.mlp.register_forward_hook(out_of(found.mlp, index)))
        handles.append(self.layers[-1].block.register_forward_hook(stop))
        with hooked(*handles), contextlib.suppress(_Enough):
            self.model(ids, use_cache=False, **layout.inputs)
        if not logits:
            return found
        return found._replace(logits=self.logits(found.residual[len(self.layers)].flatten(0, 1)))

    def folded_z(self, calls: Calls, positions: int) -> Float[Tensor, "layers width"]:
        """z if the value input is only the bias of the layer's first norm.

        Attention weights sum to 1, so z is then the same at every position, however the
        architecture computes values. Raises EngineError if it is not the same.
        """
        rows = []
        for index, modules in enumerate(self.layers):
            kept: list[Tensor] = []

            def stop(_: nn.Module, args: Any, kept: list[Tensor] = kept) -> None:
                kept.append(args[0])
                raise _Enough

            with at_hand(modules.norm):
                weight: Any = modules.norm.weight
                bias: Any = getattr(modules.norm, "bias", None)
            if bias is None:
                bias = torch.zeros_like(weight)
            hidden = bias.expand(1, positions, -1)
            call = calls.attentions[index]
            # Some attention modules take it by position, others only by name.
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
            rows.append(z[0].to(self.device))
        return torch.stack(rows)


class Clean(NamedTuple):
    """A clean pass: by layer, its input, its projection input z, its attention's and MLP's outputs.

    residual[n_layers], the input of the final norm, always exists, at the ends of prompts only;
    logits are those of the prompts, row by row.
    """

    residual: dict[int, Float[Tensor, "rows positions d_model"]]
    z: dict[int, Float[Tensor, "rows positions width"]]
    attention: dict[int, Float[Tensor, "rows positions d_model"]]
    mlp: dict[int, Float[Tensor, "rows positions d_model"]]
    logits: Float[Tensor, "prompts vocab"]


@contextlib.contextmanager
def hooked(*handles: Any) -> Iterator[None]:
    """Remove these hooks on exit, even after an error."""
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def stubbed(module: nn.Module, value: Any) -> contextlib.AbstractContextManager[None]:
    """Make the module return this value without running it."""
    return replaced(module, lambda *args, **kwargs: value)


def _first(out: Any) -> Tensor:
    # Modules return their hidden states as a tensor, or first in a tuple.
    return out[0] if isinstance(out, tuple) else out


def editing(module: nn.Module | None, edit: Edit | None) -> list[Any]:
    """The hook, if any, that edits what the module returns."""
    if edit is None:
        return []
    assert module is not None

    def change(_: nn.Module, args: Any, out: Any) -> Any:
        changed = edit(_first(out))
        return (changed, *out[1:]) if isinstance(out, tuple) else changed

    return [module.register_forward_hook(change)]


def _input_major(projection: nn.Module) -> Float[Tensor, "width d_model"]:
    # The one architecture branch: GPT-2's Conv1D keeps its matrix as [in, out], Linear [out, in].
    weight = weight_of(projection)
    return weight.T if isinstance(projection, nn.Linear) else weight
