"""What an intervention changes, measured without this project's engine: two plain ways to hook.

Every kind of intervention is written down here once more, one prompt alone, every layer computed
anew, as edits of activations at named places; a backend knows how to hook those places. Of the
engine nothing is used but its model's weights: no batch, no clean start, no algebra over W_O, no
constants. Which prompt lends is data of the plan (donors.py); what it lends is computed here.
"""

import contextlib
import copy
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor, nn

from tinyablation.errors import TinyAblationError
from tinyablation.interventions.interventions import (
    AblateHeads,
    Intervention,
    PatchHeads,
    PatchMLP,
    PatchPath,
    PatchResidual,
    ScaleHeads,
    Steer,
)
from tinyablation.models.loading import LoadedModel

BRIDGE = "TransformerBridge hooks"
PLAIN = "Hugging Face hooks"
BACKENDS = (BRIDGE, PLAIN)

Ids = tuple[int, ...]
# What an activation becomes, [rows, positions, ...]; it may change what it is given.
Edit = Callable[[Tensor], Tensor]
# Reference prompts in one pass of a mean: 128 of 10 tokens take 5 ms in an embedded model, and
# 21 MB a layer in one with d_model 4096.
MEAN_ROWS = 128


class BackendError(TinyAblationError):
    """A backend cannot measure this model, or this kind of intervention in it; it says why."""


class Place(NamedTuple):
    """Where an activation is.

    z: the heads' outputs before the output projection, [rows, positions, heads, d_head]; attention,
    mlp: what each puts out, stream: what enters the layer, [rows, positions, d_model]. The stream
    of layer n_layers is what enters the final norm.
    """

    part: Literal["z", "attention", "mlp", "stream"]
    layer: int


class Case(NamedTuple):
    """One prompt with all that its interventions borrow.

    ids with BOS where the model's policy says so; lenders: the ids of the donor by Loan.donor
    ("pair", "self", "other", "resample"); subject: positions in ids.
    """

    ids: Ids
    target: int
    foil: int
    lenders: Mapping[str, Ids]
    subject: tuple[int, ...] = ()


class Backend(Protocol):
    """A way to hook one model."""

    name: str
    n_layers: int
    device: torch.device

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

    def folded(self, layer: int) -> Float[Tensor, "heads d_head"]:
        """The z of a layer whose value input is the bias of its first norm, whatever the prompt."""


class PlainHooks:
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

        self.model = loaded.model
        self.device = loaded.device
        self.n_layers = loaded.facts.n_layers
        self.n_heads = loaded.facts.n_heads
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

    def run(
        self,
        ids: Int[Tensor, "rows positions"],
        edits: Mapping[Place, Edit] | None = None,
        kept: Collection[Place] = (),
        *,
        up_to: int | None = None,
    ) -> tuple[Float64[Tensor, "rows vocab"], dict[Place, Tensor]]:
        edits = edits or {}
        found: dict[Place, Tensor] = {}
        with contextlib.ExitStack() as stack, torch.no_grad():
            for place in sorted({*edits, *kept}):
                handle = self._hook(place, edits.get(place), found if place in kept else None)
                stack.callback(handle.remove)
            if up_to is not None and up_to < self.n_layers:
                stop = self._module("block", up_to).register_forward_pre_hook(_stop)
                stack.callback(stop.remove)
            try:
                logits = self.model(ids, use_cache=False).logits[:, -1]
            except _Stopped:
                return torch.empty(0, dtype=torch.float64), found
        return _exact(logits), found

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

    def _hook(self, place: Place, edit: Edit | None, into: dict[Place, Tensor] | None) -> Any:
        """The hook, registered, that edits what is at the place and then keeps it."""

        def changed(value: Tensor) -> Tensor:
            if edit is not None:
                value = edit(value.clone())
            if into is not None:
                into[place] = value
            return value

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
        if part == "z":
            return self._module("attn.o", layer).register_forward_pre_hook(on_z)
        if part == "attention":
            return self._module("attn", layer).register_forward_hook(on_output)
        if part == "mlp":
            return self._module("mlp", layer).register_forward_hook(on_output)
        last = layer == self.n_layers
        entered = self._component("ln_final") if last else self._module("block", layer)
        return entered.register_forward_pre_hook(on_input, with_kwargs=True)


class BridgeHooks:
    """run_with_hooks of a TransformerBridge around a second tree of modules over the same weights.

    A bridge rebuilds the model that it is put around, so it gets modules of its own; parameters are
    shared, and take no memory twice (but for joint query-key-value matrices, which it splits).
    """

    name = BRIDGE

    def __init__(self, loaded: LoadedModel) -> None:
        """Raises BackendError for a model spread over devices, or one it cannot be built for."""
        from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module

        self.device = loaded.device
        self.n_layers = loaded.facts.n_layers
        self.n_heads = loaded.facts.n_heads
        if is_spread(loaded):
            raise BackendError("the model is spread over several devices by accelerate")
        twin = _twin(loaded.model)
        try:
            self.bridge: Any = build_bridge_from_module(
                twin, type(loaded.model).__name__, hf_config=twin.config
            )
        except (ValueError, TypeError, AttributeError, KeyError, RuntimeError) as error:
            raise BackendError(f"no TransformerBridge can be put around it: {error}") from error

    def run(
        self,
        ids: Int[Tensor, "rows positions"],
        edits: Mapping[Place, Edit] | None = None,
        kept: Collection[Place] = (),
        *,
        up_to: int | None = None,
    ) -> tuple[Float64[Tensor, "rows vocab"], dict[Place, Tensor]]:
        edits = edits or {}
        found: dict[Place, Tensor] = {}

        def hook_of(place: Place) -> Callable[..., Tensor]:
            def hook(value: Tensor, hook: object = None) -> Tensor:
                if place in edits:
                    value = edits[place](value.clone())
                if place in kept:
                    found[place] = value
                return value

            return hook

        hooks = [(self._hook_name(place), hook_of(place)) for place in sorted({*edits, *kept})]
        whole = up_to is None or up_to >= self.n_layers
        with torch.no_grad():
            out = self.bridge.run_with_hooks(
                ids,
                fwd_hooks=hooks,
                return_type="logits",
                **({} if whole else {"stop_at_layer": up_to}),
            )
        return _exact(out[:, -1]) if whole else torch.empty(0, dtype=torch.float64), found

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

    def _hook_name(self, place: Place) -> str:
        part, layer = place
        if part == "stream" and layer == self.n_layers:
            return f"blocks.{layer - 1}.hook_resid_post"
        of = {"z": "attn.hook_z", "attention": "hook_attn_out", "mlp": "hook_mlp_out"}
        name = f"blocks.{layer}.{of.get(part, 'hook_resid_pre')}"
        if name not in self.bridge.hook_dict:
            raise BackendError(f"the bridge has no {name}")
        return name


class Changes:
    """Changes of the logit difference by one backend, for the prompts and vectors of one run.

    reference: the ids of the prompts that means are made of; bos_id: the token that no mean counts
    where it stands first; directions: name -> [d_model].
    """

    def __init__(
        self,
        backend: Backend,
        *,
        reference: Sequence[Ids] = (),
        bos_id: int | None = None,
        directions: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.backend = backend
        self.reference = reference
        self.bos_id = bos_id
        self.directions = directions or {}
        self._lent: dict[tuple[Ids, Place], Tensor] = {}
        self._constants: dict[tuple[str, int], Tensor] = {}

    def clean(self, case: Case) -> float:
        """LD of the unhooked model, in logits."""
        return _difference(self.backend.run(self._tensor([case.ids]))[0], case)

    def changed(self, case: Case, intervention: Intervention) -> float:
        """LD under the intervention, in logits. BackendError where it cannot be done here."""
        if isinstance(intervention, PatchPath):
            edits = self._path(case, intervention)
        else:
            edits = self._edits(case, intervention)
        return _difference(self.backend.run(self._tensor([case.ids]), edits)[0], case)

    def _edits(self, case: Case, intervention: Intervention) -> dict[Place, Edit]:
        if isinstance(intervention, Steer):
            push = intervention.scale * self.directions[intervention.direction]
            return {Place("attention", intervention.layer): lambda value: value + push.to(value)}
        if isinstance(intervention, AblateHeads | ScaleHeads | PatchHeads | PatchPath):
            layers = sorted({layer for layer, _ in intervention.heads})
            return {Place("z", at): self._of_heads(case, intervention, at) for at in layers}
        part: Literal["stream", "mlp"] = "mlp" if isinstance(intervention, PatchMLP) else "stream"
        assert isinstance(intervention, PatchMLP | PatchResidual)
        donor = case.lenders[intervention.donor]
        where = _positions(case, intervention.positions)

        def put(lent: Tensor) -> Edit:
            def edit(value: Tensor) -> Tensor:
                value[:, where] = lent[:, where]
                return value

            return edit

        places = [Place(part, layer) for layer in intervention.layers(self.backend.n_layers)]
        lent = self._lend(donor, places)
        return {place: put(lent[place]) for place in places}

    def _of_heads(
        self, case: Case, intervention: AblateHeads | ScaleHeads | PatchHeads | PatchPath, at: int
    ) -> Edit:
        """What becomes of the z of a layer."""
        heads = [head for layer, head in intervention.heads if layer == at]
        place = Place("z", at)
        if isinstance(intervention, ScaleHeads):
            scale = intervention.scale

            def scaled(z: Tensor) -> Tensor:
                z[:, :, heads] *= scale
                return z

            return scaled
        where: slice | list[int] = slice(None)
        if isinstance(intervention, PatchHeads):
            where = _positions(case, intervention.positions)
            values = self._lend(case.lenders[intervention.donor], [place])[place]
        elif intervention.method == "resample":
            values = self._lend(case.lenders["resample"], [place])[place][:, -len(case.ids) :]
        else:
            values = self._constant(intervention.method, at)

        def put(z: Tensor) -> Tensor:
            for head in heads:
                own = z[:, :, head]  # a view
                own[:, where] = values[:, :, head].to(z).expand_as(own)[:, where]
            return z

        return put

    def _path(self, case: Case, intervention: PatchPath) -> dict[Place, Edit]:
        """The stream that the receiver gets when nothing but the senders' direct path changed.

        Path patching by forward passes (Wang et al. 2022, section 3.1): one clean, which records
        what lies between; one with the senders ablated and everything between them and the receiver
        held at that; the receiver's stream of the second is what the third is given.
        """
        first, receiver = intervention.heads[0][0], Place("stream", intervention.layer)
        between = [Place("mlp", first)]
        for layer in range(first + 1, intervention.layer):
            between += [Place("attention", layer), Place("mlp", layer)]
        ids = self._tensor([case.ids])
        _, clean = self.backend.run(ids, kept=between)

        def held(place: Place) -> Edit:
            return lambda value: clean[place]

        edits = {place: held(place) for place in between} | self._edits(case, intervention)
        _, found = self.backend.run(ids, edits, [receiver])
        return {receiver: lambda value: found[receiver]}

    def _constant(self, method: str, layer: int) -> Tensor:
        """What a method puts in for z whatever the prompt, [1, 1, heads, d_head]."""
        if (method, layer) not in self._constants:
            if method == "mean":
                value = self._mean(layer)
            else:
                value = self.backend.folded(layer)
                value = torch.zeros_like(value) if method == "zero" else value
            self._constants[method, layer] = value[None, None]
        return self._constants[method, layer]

    def _mean(self, layer: int) -> Float64[Tensor, "heads d_head"]:
        """The mean of z over all tokens of the reference but BOS; a prompt twice weighs twice."""
        place, by_length = Place("z", layer), dict[int, list[Ids]]()
        for ids in self.reference:
            by_length.setdefault(len(ids), []).append(ids)
        sums, n = [], 0
        for same in by_length.values():
            for begin in range(0, len(same), MEAN_ROWS):
                rows = self._tensor(same[begin : begin + MEAN_ROWS])
                _, found = self.backend.run(rows, kept=[place], up_to=layer + 1)
                counted = torch.ones_like(rows, dtype=torch.bool)
                if self.bos_id is not None:
                    counted[:, 0] = rows[:, 0] != self.bos_id
                z = found[place][counted.to(found[place].device)]
                sums.append(_exact(z).sum(dim=0))
                n += len(z)
        if not n:
            raise BackendError("the reference prompts hold no token but BOS")
        return torch.stack(sums).sum(dim=0) / n

    def _lend(self, donor: Ids, places: Sequence[Place]) -> dict[Place, Tensor]:
        """Activations of a clean pass over a donor alone, [1, positions, ...] each."""
        missing = [place for place in places if (donor, place) not in self._lent]
        if missing:
            _, found = self.backend.run(self._tensor([donor]), kept=missing)
            self._lent |= {(donor, place): value for place, value in found.items()}
        return {place: self._lent[donor, place] for place in places}

    def _tensor(self, ids: Sequence[Ids]) -> Int[Tensor, "rows positions"]:
        return torch.tensor(ids, dtype=torch.long, device=self.backend.device)


def is_spread(loaded: LoadedModel) -> bool:
    """Whether accelerate placed the model over several devices, or offloaded some of it."""
    return len(set(getattr(loaded.model, "hf_device_map", {}).values())) > 1


def _twin(model: nn.Module) -> Any:
    """A second tree of modules over the same parameters and buffers."""
    shared = [*model.parameters(), *model.buffers()]
    return copy.deepcopy(model, {id(tensor): tensor for tensor in shared})


class _Stopped(Exception):
    """Ends a forward pass whose later layers are not needed; never leaves this module."""


def _stop(*_: Any) -> None:
    raise _Stopped


def _exact(values: Tensor) -> Tensor:
    return values.detach().cpu().double()  # MPS has no float64


def _difference(logits: Float64[Tensor, "1 vocab"], case: Case) -> float:
    return float(logits[0, case.target] - logits[0, case.foil])


def _positions(case: Case, positions: str) -> slice | list[int]:
    if positions == "all":
        return slice(None)
    return [len(case.ids) - 1] if positions == "last" else list(case.subject)
