"""What a tokenizer is, as a hash: of the files it is read from and, beyond them, of its state.

transformers reads more files than the usual ones (vocab.txt of a BERT, the names that
tokenizer_config.json lists as `fast_tokenizer_files`). So wherever other files could be read, the
tokenizer is loaded twice, from the folder and from the usual files alone: if they do not come to
the same state, the state is part of the hash. A tokenizer that the usual files determine has the
hash of those files, so its runs keep their addresses.
"""

import contextlib
import hashlib
import json
import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyablation.errors import LoadingError, ModelChanged
from tinyablation.files.contents import parse_json, read_bytes
from tinyablation.files.hashes import digest, text_sha256
from tinyablation.installed import versions
from tinyablation.models.checkpoint import (
    CONFIG,
    GGUF,
    PICKLED,
    TOKENIZER_FILES,
    WEIGHTS_INDEX,
    tokenizer_files,
)
from tinyablation.models.file_hashes import Watch, file_hash, files_hash

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LAYOUT = 1  # incremented when the same tokenizer gets another state
TOKENIZER = "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
# The field of tokenizer_config.json that names files to take in place of tokenizer.json.
VERSIONED = "fast_tokenizer_files"

# Classes that use tokenizer.json unchanged, and the model types that do not override this.
AS_SAVED = ("TokenizersBackend", "PreTrainedTokenizerFast")
MODEL_TYPES = ("gpt2", "gpt_neox", "llama", "mistral")
# Files beside a tokenizer's that no tokenizer reads.
_UNREAD = (CONFIG, WEIGHTS_INDEX, "generation_config.json")
_UNREAD_SUFFIXES = (".safetensors", GGUF, *PICKLED, ".h5", ".msgpack", ".onnx", ".jinja", ".md")
# Arguments of a tokenizer that say where it was read, or how chats are written.
_INCIDENTAL = ("chat_template", "is_local", "local_files_only", "name_or_path", VERSIONED)


def load_tokenizer(folder: Path) -> "PreTrainedTokenizerBase":
    """The tokenizer of a model's folder; raises whatever transformers and tokenizers raise."""
    from transformers import AutoTokenizer

    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
        str(folder), local_files_only=True, trust_remote_code=False
    )
    return tokenizer


def tokenizer_hash(
    folder: Path, name: str, tokenizer: "PreTrainedTokenizerBase | None" = None
) -> str:
    """The hash of the tokenizer in `folder`.

    It is files_hash of the usual files; if the loaded tokenizer has another state than these files
    alone come to, it covers the state too. tokenizer: the one that was loaded, if there is one.
    name: the model's name in messages. Raises LoadingError if there is no tokenizer, if it cannot
    be loaded, or if its config names files of another folder.
    """
    usual = files_hash(tokenizer_files(folder, name), text=True)
    if not other_inputs(folder, name):
        return usual
    watch = Watch.over(name, inputs(folder, name))
    note = note_of(folder, "tokenizers", LAYOUT)
    known = _noted(note)
    if known is not None and tokenizer is None:
        return _combined(usual, *known)
    state = _loaded_state(folder, name, tokenizer)
    implied = _state_of_usual(folder) if known is None else known[1]
    if tokenizer is None:  # a given one may have been read when the files were others
        keep_note(note, watch, {"state": state, "usual": implied})
    return _combined(usual, state, implied)


def state_now(folder: Path, name: str) -> str:
    """state_of the tokenizer in `folder`, as the installed versions read its files.

    It is loaded once for the same files and versions. Raises LoadingError as tokenizer_hash does.
    """
    watch, note = Watch.over(name, inputs(folder, name)), note_of(folder, "tokenizers", LAYOUT)
    known = _noted(note)
    if known is not None:
        return known[0]
    state = _loaded_state(folder, name)
    implied = _state_of_usual(folder) if other_inputs(folder, name) else state
    keep_note(note, watch, {"state": state, "usual": implied})
    return state


def _loaded_state(
    folder: Path, name: str, tokenizer: "PreTrainedTokenizerBase | None" = None
) -> str:
    try:
        return state_of(load_tokenizer(folder) if tokenizer is None else tokenizer)
    except Exception as error:  # foreign files: tokenizers raises bare Exception on bad JSON
        said = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise LoadingError(
            f"model {name!r}: no tokenizer can be loaded from {folder}: {said}"
        ) from error


def state_of(tokenizer: "PreTrainedTokenizerBase") -> str:
    """sha256 of a loaded tokenizer's whole state; chat templates and its folder are no part of it.

    The state: its class, vocabulary, merges, normaliser, pre-tokeniser, post-processor (template of
    special tokens), decoder, added tokens, special tokens with their ids, and its settings.
    """
    core = getattr(tokenizer, "backend_tokenizer", None)
    added = tokenizer.added_tokens_decoder
    settings = {
        key: repr(value)
        for key, value in sorted(tokenizer.init_kwargs.items())
        if key not in _INCIDENTAL and not key.endswith(("_file", "_object"))
    }
    return digest(
        {
            "type": type(tokenizer).__name__,
            "core": _saved(tokenizer) if core is None else json.loads(core.to_str()),
            "added": [[index, repr(added[index])] for index in sorted(added)],
            "special": {key: str(value) for key, value in tokenizer.special_tokens_map.items()},
            "ids": {
                name: getattr(tokenizer, f"{name}_token_id", None)
                for name in ("bos", "cls", "eos", "mask", "pad", "sep", "unk")
            },
            "settings": settings,
        }
    )


def other_inputs(folder: Path, name: str) -> list[Path]:
    """The files of a folder, apart from the usual ones, that its tokenizer may be read from.

    Raises LoadingError if tokenizer_config.json names a file outside the folder.
    """
    config = _object(folder / TOKENIZER_CONFIG)
    named = config.get(VERSIONED)
    listed = [str(each) for each in named] if isinstance(named, list) else []
    if any(Path(each).name != each or "\\" in each for each in listed):
        raise LoadingError(
            f"model {name!r}: {folder / TOKENIZER_CONFIG}: {VERSIONED!r} names files outside its "
            "folder; remove that field"
        )
    model_type = _object(folder / CONFIG).get("model_type", MODEL_TYPES[0])
    if (
        config.get("tokenizer_class") in AS_SAVED
        and model_type in MODEL_TYPES
        and VERSIONED not in config
        and (folder / TOKENIZER).is_file()
    ):
        return []
    return [
        path
        for path in sorted(folder.iterdir())
        if path.is_file()
        and not path.name.startswith(".")
        and path.name not in (*TOKENIZER_FILES, *_UNREAD)
        and path.suffix.lower() not in _UNREAD_SUFFIXES
    ]


def inputs(folder: Path, name: str) -> list[Path]:
    """Every file that the tokenizer of a folder may be read from, config.json included."""
    config = [folder / CONFIG] if (folder / CONFIG).is_file() else []
    return config + tokenizer_files(folder, name) + other_inputs(folder, name)


def note_of(folder: Path, namespace: str, layout: int) -> Path | None:
    """The cache file for what these files come to with these versions; None if there can be none.

    Raises LoadingError as `inputs` does.
    """
    from huggingface_hub import cached_assets_path

    lines = [" ".join((str(layout), *versions("transformers", "tokenizers").values()))]
    try:
        lines += [f"{path.name} {file_hash(path)}" for path in inputs(folder, folder.name)]
        notes = cached_assets_path("tinyablation", namespace=namespace)
    except (OSError, ValueError):  # ValueError: a file exists in place of the cache
        return None
    key = text_sha256("\n".join(lines))
    return notes / f"{key[:32]}.json"


def keep_note(note: Path | None, watch: Watch, document: dict[str, str]) -> None:
    """Cache what was found, unless the files it was read from changed meanwhile."""
    from tinyablation.files.manifests import write_json

    # Without the cache, it only takes longer.
    with contextlib.suppress(OSError, ModelChanged):
        watch.require_unchanged()
        if note is not None:
            write_json(note, document)


def _combined(usual: str, state: str, implied: str) -> str:
    return usual if state == implied else digest({"files": usual, "state": state})


def _noted(note: Path | None) -> tuple[str, str] | None:
    """The cached states: of the tokenizer, and of what the usual files come to ("": nothing)."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        kept = parse_json(read_bytes(note)) if note is not None else {}
        state, implied = str(kept["state"]), str(kept["usual"])
        if re.fullmatch(r"[0-9a-f]{64}", state) and re.fullmatch(r"([0-9a-f]{64})?", implied):
            return state, implied
    return None


def _state_of_usual(folder: Path) -> str:
    """The state that config.json and the usual files alone come to; "" if they make none."""
    with tempfile.TemporaryDirectory(prefix="tinyablation-") as made:
        for file in (CONFIG, *TOKENIZER_FILES):
            if (folder / file).is_file():
                shutil.copyfile(folder / file, Path(made, file))
        try:
            return state_of(load_tokenizer(Path(made)))
        except Exception:  # many kinds: then the other files are needed
            return ""


def _saved(tokenizer: "PreTrainedTokenizerBase") -> dict[str, Any]:
    """The state of a tokenizer without a backend: its vocabulary, and the files it writes."""
    with tempfile.TemporaryDirectory(prefix="tinyablation-") as made:
        try:
            written = [Path(path) for path in tokenizer.save_vocabulary(made) or () if path]
        except NotImplementedError:
            written = []
        files = {path.name: hashlib.sha256(read_bytes(path)).hexdigest() for path in written}
    return {"vocabulary": dict(sorted(tokenizer.get_vocab().items())), "files": files}


def _object(path: Path) -> dict[str, Any]:
    try:
        found = parse_json(read_bytes(path))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
