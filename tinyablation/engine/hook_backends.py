"""What an intervention changes, measured without this project's engine: two plain ways to hook.

Every kind of intervention is written down here once more, one prompt alone, every layer computed
anew, as edits of activations at named places; a backend knows how to hook those places. Of the
engine nothing is used but its model's weights: no batch, no clean start, no algebra over W_O, no
constants. Which prompt lends is data of the plan (donors.py); what it lends is computed here.
"""

import contextlib
import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor, nn

from tinyablation.errors import TinyAblationError
from tinyablation.models.loading import LoadedModel

BRIDGE = "TransformerBridge hooks"
PLAIN = "Hugging Face hooks"
BACKENDS = (BRIDGE, PLAIN)

Ids = tuple[int, ...]
# What an activation becomes, [rows, positions, ...]; it may change what it is given.
Edit = Callable[[Tensor], Tensor]


class BackendError(TinyAblationError):
    """A backend cannot measure this model, or this kind of intervention in it; it says why."""


class Place(NamedTuple):
    """Where an activation is.

    z: the heads' outputs before the output projection, [rows, positions, heads, d_head]; attention,
    mlp: what each puts out, stream: what enters the layer, [rows, positions, d_model]. The stream
    of layer n_layers is what enters the final norm; embedding, of layer 0: those of the tokens,
    before anything is added for their positions. Bridges alone see pattern, the attention weights,
    [rows, heads, destinations, sources], and v, the values, [rows, positions, key-value heads,
    d_head].
    """

    part: Literal["embedding", "z", "attention", "mlp", "stream", "pattern", "v"]
    layer: int


class Case(NamedTuple):
    """One prompt with all that its interventions borrow.

    ids with BOS where the model's policy says so; lenders: donors' ids by ActivationSource.donor
    ("pair", "self", "other", "resample"); subject: positions in ids; template: the ids of the
    prompts of its wording and length that template_mean averages over.
    """

    ids: Ids
    target: int
    foil: int
    lenders: Mapping[str, Ids]
    subject: tuple[int, ...] = ()
    template: tuple[Ids, ...] = ()


class Backend(ABC):
    """A way to hook one model."""

    name: str

    def __init__(self, loaded: LoadedModel) -> None:
        self.device = loaded.device
        self.n_layers = loaded.facts.n_layers
        self.n_heads = loaded.facts.n_heads

    def run(
        self,
        ids: Int[Tensor, "rows positions"],
        edits: Mapping[Place, Edit] | None = None,
        kept: Collection[Place] = (),
        *,
        up_to: int | None = None,
    ) -> tuple[Float64[Tensor, "rows vocab"], dict[Place, Tensor]]:
        """One forward pass: the last token's logits, and activations as they are after edits.

        up_to: no layer from this one on is needed, and logits neither (they are empty). Raises
        BackendError for a place that the model does not have.
        """
        edits = edits or {}
        found: dict[Place, Tensor] = {}

        def hook_of(place: Place) -> Edit:
            def hook(value: Tensor) -> Tensor:
                if place in edits:
                    value = edits[place](value.clone())
                if place in kept:
                    found[place] = value
                return value

            return hook

        hooks = {place: hook_of(place) for place in sorted({*edits, *kept})}
        whole = up_to is None or up_to >= self.n_layers
        with torch.no_grad():
            logits = self._pass(ids, hooks, None if whole else up_to)
        if not whole:
            return torch.empty(0, dtype=torch.float64), found
        return plain_exact(logits[:, -1]), found

    @abstractmethod
    def _pass(
        self, ids: Int[Tensor, "rows positions"], hooks: Mapping[Place, Edit], up_to: int | None
    ) -> Any:
        """The logits of every position, each activation put through the hook of its place.

        up_to: stops before this layer, and what is returned says nothing.
        """

    def output_matrix(self, layer: int, head: int) -> Float64[Tensor, "d_head d_model"]:
        """W_O of a head; BackendError if this backend does not know it."""
        raise BackendError(f"{self.name} know no head's output matrix")

    def read_directions(self, tokens: Ids) -> Float64[Tensor, "tokens d_model"]:
        """The tokens' unembedding, centred, seen through the linear part of the final norm.

        Raises BackendError if this backend does not know it.
        """
        raise BackendError(f"{self.name} know no direction of the unembedding")

    @abstractmethod
    def folded(self, layer: int) -> Float[Tensor, "heads d_head"]:
        """The z of a layer whose value input is the bias of its first norm, whatever the prompt."""


class PlainHooks(Backend):
    """Forward hooks and forward pre-hooks on a Hugging Face model's own modules.

    The modules are those that TransformerLens's adapter for the architecture names. Hooks are gone
    after every pass, so the model may be the engine's.
    """

    name = PLAIN

    def __init__(self, loaded: LoadedModel) -> None:
        """Raises BackendError for a model whose modules the adapter does not find."""
        from transformer_lens.factories.architecture_adapter_factory import (
            ArchitectureAdapterFactory,
        )
        from transformer_lens.model_bridge.sources._bridge_builder import (
            build_bridge_config_from_hf,
        )

        super().__init__(loaded)
        self.model = loaded.model
        kind = type(self.model).__name__
        try:
            config = build_bridge_config_from_hf(
                self.model.config, kind, loaded.entry.id, loaded.dtype
            )
            adapter = ArchitectureAdapterFactory.select_architecture_adapter(config)
            self._component = lambda path: adapter.get_component(self.model, path)
            for layer in range(self.n_layers):
                self._component(f"blocks.{layer}.attn.o")
        except (ValueError, AttributeError, IndexError) as error:
            raise BackendError(f"TransformerLens cannot resolve {kind}: {error}") from error

    def _pass(
        self, ids: Int[Tensor, "rows positions"], hooks: Mapping[Place, Edit], up_to: int | None
    ) -> Any:
        with contextlib.ExitStack() as stack:
            for place, hook in hooks.items():
                stack.callback(self._hook(place, hook).remove)
            if up_to is not None:
                stop = self._module("block", up_to).register_forward_pre_hook(_stop)
                stack.callback(stop.remove)
            try:
                return self.model(ids, use_cache=False).logits
            except _Stopped:
                return None

    def folded(self, layer: int) -> Float[Tensor, "heads d_head"]:
        """Found by a forward pass over any two tokens, the norm made to put out its bias.

        Attention weights sum to 1, so that every position has the same z.
        """
        norm = self._module("ln1", layer)
        bias = getattr(norm, "bias", None)

        def constant(_: nn.Module, args: Any, out: Tensor) -> Tensor:
            return torch.zeros_like(out) if bias is None else bias.to(out).expand_as(out)

        handle = norm.register_forward_hook(constant)
        try:
            ids = torch.tensor([[0, 1]], device=self.device)
            _, found = self.run(ids, kept=[Place("z", layer)], up_to=layer + 1)
        finally:
            handle.remove()
        return found[Place("z", layer)][0, -1]

    def _module(self, part: str, layer: int) -> nn.Module:
        path = f"blocks.{layer}" + ("" if part == "block" else f".{part}")
        try:
            module: nn.Module = self._component(path)
        except (ValueError, AttributeError, IndexError) as error:
            raise BackendError(f"the model has no {path}: {error}") from error
        if part == "mlp" and module is self._component(f"blocks.{layer}"):
            raise BackendError(f"the model has no {path} that is a module of its own")
        return module

    def _hook(self, place: Place, changed: Edit) -> Any:
        """The hook, registered, that puts what is at the place through `changed`."""

        def on_input(_: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
            # Families pass the stream to their blocks by position or by this name.
            if args:
                return (changed(args[0]), *args[1:]), kwargs
            return args, kwargs | {"hidden_states": changed(kwargs["hidden_states"])}

        def on_z(_: nn.Module, args: Any) -> Any:
            z = args[0]
            return (changed(z.unflatten(-1, (self.n_heads, -1))).flatten(-2), *args[1:])

        def on_output(_: nn.Module, args: Any, out: Any) -> Any:
            return (changed(out[0]), *out[1:]) if isinstance(out, tuple) else changed(out)

        part, layer = place
        if part in ("pattern", "v"):
            raise BackendError("attention weights and values are inside a module of the model")
        if part == "embedding":
            return self.model.get_input_embeddings().register_forward_hook(on_output)
        if part == "z":
            return self._module("attn.o", layer).register_forward_pre_hook(on_z)
        if part == "attention":
            return self._module("attn", layer).register_forward_hook(on_output)
        if part == "mlp":
            return self._module("mlp", layer).register_forward_hook(on_output)
        last = layer == self.n_layers
        entered = self._component("ln_final") if last else self._module("block", layer)
        return entered.register_forward_pre_hook(on_input, with_kwargs=True)


class BridgeHooks(Backend):
    """run_with_hooks of a TransformerBridge around a second tree of modules over the same weights.

    A bridge rebuilds the model that it is put around, so it gets modules of its own; parameters are
    shared, and take no memory twice (but for joint query-key-value matrices, which it splits).
    """

    name = BRIDGE

    def __init__(self, loaded: LoadedModel) -> None:
        """Raises BackendError for a model spread over devices, or one it cannot be built for."""
        from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module

        super().__init__(loaded)
        if is_spread(loaded):
            raise BackendError("the model is spread over several devices by accelerate")
        twin = _twin(loaded.model)
        try:
            self.bridge: Any = build_bridge_from_module(
                twin, type(loaded.model).__name__, hf_config=twin.config
            )
        except (ValueError, TypeError, AttributeError, KeyError, RuntimeError) as error:
            raise BackendError(f"no TransformerBridge can be put around it: {error}") from error

    def _pass(
        self, ids: Int[Tensor, "rows positions"], hooks: Mapping[Place, Edit], up_to: int | None
    ) -> Any:
        return self.bridge.run_with_hooks(
            ids,
            fwd_hooks=[(self._hook_name(place), _named(hook)) for place, hook in hooks.items()],
            return_type="logits",
            **({} if up_to is None else {"stop_at_layer": up_to}),
        )

    def folded(self, layer: int) -> Float[Tensor, "heads d_head"]:
        """b_V + b_norm W_V, as folding LayerNorm into the weights leaves it; 0 without biases."""
        block = self.bridge.blocks[layer]
        matrix = block.attn.W_V  # [key-value heads, d_model, d_head]
        own = getattr(block.attn, "b_V", None)
        norm = getattr(block.ln1.original_component, "bias", None)
        z = torch.zeros_like(matrix[:, 0]) if own is None else own.clone()
        if norm is not None:
            z = z + norm @ matrix
        return z.repeat_interleave(self.n_heads // len(z), dim=0)

    def output_matrix(self, layer: int, head: int) -> Float64[Tensor, "d_head d_model"]:
        return plain_exact(self.bridge.blocks[layer].attn.W_O[head])

    def read_directions(self, tokens: Ids) -> Float64[Tensor, "tokens d_model"]:
        """An RMSNorm leaves a stream of ones as its gain; a LayerNorm has it as its weight."""
        matrix, norm = plain_exact(self.bridge.W_U), self.bridge.ln_final.original_component
        columns = (matrix - matrix.mean(dim=1, keepdim=True))[:, list(tokens)].T
        if isinstance(norm, nn.LayerNorm):
            columns = columns * plain_exact(norm.weight)
            return columns - columns.mean(dim=1, keepdim=True)
        return columns * plain_exact(norm(torch.full_like(norm.weight, 1e3)))

    def _hook_name(self, place: Place) -> str:
        part, layer = place
        if part == "stream" and layer == self.n_layers:
            return f"blocks.{layer - 1}.hook_resid_post"
        of = {"z": "attn.hook_z", "attention": "hook_attn_out", "mlp": "hook_mlp_out"}
        of |= {"pattern": "attn.hook_pattern", "v": "attn.hook_v"}
        name = f"blocks.{layer}.{of.get(part, 'hook_resid_pre')}"
        if part == "embedding":
            name = "hook_embed"
        if name not in self.bridge.hook_dict:
            raise BackendError(f"the bridge has no {name}")
        return name


def is_spread(loaded: LoadedModel) -> bool:
    """Whether accelerate placed the model over several devices, or offloaded some of it."""
    return len(set(getattr(loaded.model, "hf_device_map", {}).values())) > 1


def _named(edit: Edit) -> Callable[..., Tensor]:
    """An edit as a bridge calls its hooks, which are told their place as `hook`."""
    return lambda value, hook=None: edit(value)


def _twin(model: nn.Module) -> Any:
    """A second tree of modules over the same parameters and buffers."""
    shared = [*model.parameters(), *model.buffers()]
    return copy.deepcopy(model, {id(tensor): tensor for tensor in shared})


class _Stopped(Exception):
    """Ends a forward pass whose later layers are not needed; never leaves this module."""


def _stop(*_: Any) -> None:
    raise _Stopped


def plain_exact(values: Tensor) -> Tensor:
    """Values in float64 on the CPU, whatever they were computed in."""
    return values.detach().cpu().double()  # MPS has no float64
