"""From a registry entry to a model in memory. Importing this, or `describe`, loads no torch."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyablation.errors import TinyAblationError
from tinyablation.registry import ModelEntry

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# What a tokenizer may consist of; those that exist are hashed.
TOKENIZER_FILES = (
    "added_tokens.json",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
)


class LoadingError(TinyAblationError):
    """A model folder is there, but not usable as it stands."""


class WeightsMissing(LoadingError):
    """The model's folder or its weights do not exist on this machine."""


@dataclass(frozen=True)
class ModelFacts:
    """What a model's files say about it.

    context and sliding_window count tokens. weight_hash is the sha256 of the weight file (what
    sha256sum prints) or, of several shards, of their names and hashes. tokenizer_hash is that of
    the tokenizer files' names and hashes, with newlines made LF first.
    """

    n_layers: int
    n_heads: int
    d_model: int
    vocab_size: int
    context: int
    sliding_window: int | None
    weight_hash: str
    tokenizer_hash: str


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to be measured: eval mode, eager attention, no gradients."""

    entry: ModelEntry
    facts: ModelFacts
    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    bos_id: int | None
    device: "torch.device"
    dtype: "torch.dtype"


def describe(entry: ModelEntry) -> ModelFacts:
    """The facts of a model, from its files alone.

    Raises WeightsMissing when the folder, config.json or safetensors are not there, LoadingError
    when config.json lacks a figure or there is no tokenizer.
    """
    folder = _folder(entry)
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise WeightsMissing(f"model {entry.id!r}: no *.safetensors in {folder}")
    tokenizer = [folder / name for name in TOKENIZER_FILES if (folder / name).is_file()]
    if not tokenizer:
        raise LoadingError(
            f"model {entry.id!r}: no tokenizer in {folder}; save one with save_pretrained"
        )
    config = _config(entry, folder)

    def figure(*names: str) -> int:
        for name in names:
            if isinstance(config.get(name), int):
                return int(config[name])
        raise LoadingError(f"model {entry.id!r}: {folder / 'config.json'} has no {names[0]!r}")

    window = config.get("sliding_window")
    if config.get("use_sliding_window") is False:
        window = None
    return ModelFacts(
        n_layers=figure("num_hidden_layers", "n_layer"),
        n_heads=figure("num_attention_heads", "n_head"),
        d_model=figure("hidden_size", "n_embd"),
        vocab_size=figure("vocab_size"),
        context=figure("max_position_embeddings", "n_positions"),
        sliding_window=None if window is None else int(window),
        weight_hash=_file_hash(weights[0]) if len(weights) == 1 else _files_hash(weights),
        tokenizer_hash=_files_hash(tokenizer, text=True),
    )


def load_model(
    entry: ModelEntry, *, device: str = "cpu", dtype: "torch.dtype | str | None" = None
) -> LoadedModel:
    """Load a model and its tokenizer from the entry's folder, without any network.

    dtype defaults to the entry's (weights stored in fp16 are widened while loading). Raises
    WeightsMissing or LoadingError as `describe` does, and LoadingError when the entry asks for a
    BOS that the tokenizer does not have.
    """
    facts = describe(entry)

    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    wanted = entry.dtype if dtype is None else dtype
    resolved = getattr(torch, wanted) if isinstance(wanted, str) else wanted
    if not isinstance(resolved, torch.dtype) or not resolved.is_floating_point:
        raise LoadingError(f"model {entry.id!r}: {wanted!r} is no floating-point dtype")
    folder = str(entry.source)
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=resolved,
            # The engine replays attention with the recorded mask, which eager always gets.
            attn_implementation="eager",
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
        )
        tokenizer: Any = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError) as error:
        raise LoadingError(f"model {entry.id!r}: {folder} does not load: {error}") from error
    bos_id: int | None = None
    if entry.bos:
        if not isinstance(tokenizer.bos_token_id, int):
            raise LoadingError(
                f"model {entry.id!r}: bos = true, but its tokenizer has no BOS token; "
                "set bos = false or name one in tokenizer_config.json"
            )
        bos_id = tokenizer.bos_token_id
    try:
        model = model.to(device).eval().requires_grad_(False)
    except (RuntimeError, AssertionError) as error:  # torch raises either, by build and device
        raise LoadingError(
            f"model {entry.id!r}: device {device!r} cannot be used: {error}"
        ) from error
    return LoadedModel(entry, facts, model, tokenizer, bos_id, torch.device(device), resolved)


def _folder(entry: ModelEntry) -> Path:
    # Checked first: given a path that does not exist, transformers asks the hub for up to 46 s.
    if not entry.source.is_dir():
        raise WeightsMissing(f"model {entry.id!r}: no folder {entry.source}; put the model there")
    return entry.source


def _config(entry: ModelEntry, folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise WeightsMissing(f"model {entry.id!r}: no config.json in {folder}") from error
    except ValueError as error:
        raise LoadingError(f"model {entry.id!r}: {path} is not valid JSON: {error}") from error
    if not isinstance(config, dict):
        raise LoadingError(f"model {entry.id!r}: {path} holds no JSON object")
    return config


def _file_hash(path: Path, *, text: bool = False) -> str:
    if text:  # a checkout with CRLF line ends is the same tokenizer
        return hashlib.sha256(path.read_bytes().replace(b"\r\n", b"\n")).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _files_hash(paths: Iterable[Path], *, text: bool = False) -> str:
    lines = [f"{path.name} {_file_hash(path, text=text)}\n" for path in paths]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
