"""The files of a Hugging Face model folder (config, tokenizer, weights) and their hashes.

Nothing heavy is imported: a model can be described from its files alone.
"""

import contextlib
import hashlib
import json
import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tinyablation.errors import LoadingError, PickledWeights, WeightsMissing
from tinyablation.files.contents import (
    MOST_BYTES,
    open_regular,
    parse_json,
    read_bytes,
    read_text,
    special_kind,
)
from tinyablation.files.hashes import text_sha256
from tinyablation.models.limits import check_limits

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"
GGUF = ".gguf"
# Files that a tokenizer may consist of; those that exist are hashed.
TOKENIZER_FILES = (
    "added_tokens.json",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
)
# Files of a folder that are read as a whole, by transformers or here.
_WHOLE = frozenset((CONFIG, WEIGHTS_INDEX, "generation_config.json", "vocab.txt", *TOKENIZER_FILES))
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
# Fields of config.json about a model's origin or storage, not about what it computes; the dtype of
# a run is part of its address anyway.
_INCIDENTAL = ("_name_or_path", "transformers_version", "dtype", "torch_dtype")
# The hashes of files of at least this size are cached: 14 GB take some 10 s to read.
REMEMBERED_BYTES = 2**26


def weight_files(folder: Path, name: str) -> list[Path]:
    """The safetensors that transformers reads: the single file, else the shards of the index.

    name: the model's name in messages. Raises WeightsMissing, which names the missing files, and
    PickledWeights, with the command that converts them, if there are only pickled weights.
    """
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    index = folder / WEIGHTS_INDEX
    if index.is_file():
        names = shard_names(index, name)
        missing = [shard for shard in names if not (folder / shard).is_file()]
        if missing:
            raise WeightsMissing(
                f"model {name!r}: {index} lists {', '.join(missing)}, but {folder} has no such "
                "file; copy what is missing there"
            )
        return [folder / shard for shard in names]
    if any(path.suffix in PICKLED for path in folder.iterdir()):
        target = folder.with_name(f"{folder.name}-safetensors")
        raise PickledWeights(
            f"model {name!r}: {folder} has pickled weights only, which are never read (loading a "
            "pickle can run code); convert once with: "
            + conversion_command(str(folder), None, target)
        )
    raise WeightsMissing(f"model {name!r}: no {WEIGHTS} in {folder}; put the weights there")


def gguf_in(source: Path, name: str) -> Path | None:
    """The GGUF file that a model is read from; None if there is none.

    It is source itself, or the only GGUF file in a folder without safetensors. Raises LoadingError
    if there are several.
    """
    if source.is_file():
        return source
    if (source / WEIGHTS).is_file() or (source / WEIGHTS_INDEX).is_file() or not source.is_dir():
        return None
    found = sorted(path for path in source.iterdir() if path.suffix.lower() == GGUF)
    if len(found) > 1:
        raise LoadingError(
            f"model {name!r}: {source} has {len(found)} GGUF files "
            f"({', '.join(path.name for path in found)}); name one of them"
        )
    return found[0] if found else None


def shard_names(index: Path, name: str) -> list[str]:
    """The files that an index of shards lists, sorted; LoadingError if it cannot be used."""
    weight_map = read_object(index, name).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise LoadingError(f"model {name!r}: {index} has no 'weight_map'; save the model again")
    names = sorted({str(value) for value in weight_map.values()})
    for shard in names:
        if Path(shard).name != shard or not shard.endswith(".safetensors"):
            raise LoadingError(
                f"model {name!r}: {index} lists {shard!r}, which is not a safetensors file of its "
                "folder"
            )
    return names


def tokenizer_files(folder: Path, name: str) -> list[Path]:
    """The files of the tokenizer; LoadingError if there are none."""
    found = [folder / file for file in TOKENIZER_FILES if (folder / file).is_file()]
    if not found:
        raise LoadingError(f"model {name!r}: no tokenizer in {folder}; save one there")
    return found


def read_config(folder: Path, name: str) -> dict[str, Any]:
    """config.json; WeightsMissing if there is none, LoadingError if it is not a JSON object."""
    path = folder / CONFIG
    if not path.is_file():
        raise WeightsMissing(f"model {name!r}: no {CONFIG} in {folder}; put the model's there")
    config = read_object(path, name)
    if "transformers_weights" in config:  # it names a file loaded instead of those we hash
        raise LoadingError(
            f"model {name!r}: {path} names its weight file in 'transformers_weights'; remove that "
            f"field and call the file {WEIGHTS}"
        )
    check_limits(config, path, name)
    return config


def refuse_special(folder: Path, name: str) -> None:
    """Raise LoadingError for a file in the folder that transformers would wait for or never end.

    It opens files by itself: of any kind, and texts of any size.
    """
    try:
        found = [(path, path.stat()) for path in sorted(folder.iterdir()) if path.exists()]
    except OSError as error:
        raise LoadingError(
            f"model {name!r}: {folder} cannot be read ({error.strerror}); check the folder"
        ) from error
    for path, status in found:
        kind = special_kind(status.st_mode)
        if kind is not None:
            raise LoadingError(
                f"model {name!r}: {path} is {kind}, not a regular file; put the model's there"
            )
        if path.name in _WHOLE and status.st_size > MOST_BYTES:
            raise LoadingError(
                f"model {name!r}: {path} has {status.st_size:,} bytes, at most {MOST_BYTES:,} are "
                "read"
            )


def read_object(path: Path, name: str) -> dict[str, Any]:
    """The JSON object in a file of the model `name`; LoadingError if there is none."""
    try:
        found = parse_json(read_text(path))
    except OSError as error:
        raise LoadingError(
            f"model {name!r}: {path} cannot be read ({error.strerror}); check the file"
        ) from error
    except ValueError as error:
        raise LoadingError(f"model {name!r}: {path} is not valid JSON: {error}") from error
    if not isinstance(found, dict):
        raise LoadingError(f"model {name!r}: {path} does not hold a JSON object")
    return found


def conversion_command(source: str, revision: str | None, folder: Path) -> str:
    """The command line that converts a checkpoint's pickled weights to safetensors.

    source: a repository or a local folder; folder: where the copy goes. transformers reads the
    pickle in a separate process, with weights_only (none of its code is run).
    """
    at = f", revision={revision!r}" if revision else ""
    program = (
        "from transformers import AutoModelForCausalLM as M, AutoTokenizer as T; "
        f"M.from_pretrained({source!r}{at}, dtype='auto').save_pretrained({folder.as_posix()!r}); "
        f"T.from_pretrained({source!r}{at}).save_pretrained({folder.as_posix()!r})"
    )
    # Double quotes work in every shell, provided that they contain nothing a shell would expand.
    plain = re.search(r'["$`\\!%]', program) is None
    return f'python -c "{program}"' if plain else f"python -c {shlex.quote(program)}"


def config_hash(config: dict[str, Any]) -> str:
    """sha256 of the fields of config.json that affect what the model computes."""
    kept = {key: value for key, value in config.items() if key not in _INCIDENTAL}
    text = json.dumps(kept, sort_keys=True, separators=(",", ":"))
    return text_sha256(text)


def weights_hash(paths: Sequence[Path]) -> str:
    """The hash of a model's weights: that of the one file, or files_hash of several."""
    return file_hash(paths[0]) if len(paths) == 1 else files_hash(paths)


def files_hash(paths: Iterable[Path], *, text: bool = False) -> str:
    """sha256 of the names and hashes of some files; text: after converting newlines to LF."""
    lines = [f"{path.name} {file_hash(path, text=text)}\n" for path in paths]
    return text_sha256("".join(lines))


def file_hash(path: Path, *, text: bool = False) -> str:
    """sha256 of a file, as sha256sum prints it; text: of its content with LF newlines.

    The hash of a large file is cached beside the hub's cache and reused as long as the file's size
    and modification time (to the nanosecond) are unchanged.
    """
    if text:  # a checkout with CRLF line ends holds the same tokenizer
        return hashlib.sha256(read_bytes(path).replace(b"\r\n", b"\n")).hexdigest()
    status = path.stat()
    if status.st_size < REMEMBERED_BYTES:
        return _digest(path)
    seen = {"size": status.st_size, "mtime_ns": status.st_mtime_ns}
    note = _note_of(path)
    known = _noted(note, seen)
    if known is not None:
        return known
    found = _digest(path)
    from tinyablation.files.manifests import write_json

    with contextlib.suppress(OSError):  # without the cache, hashing only takes longer
        write_json(note, {**seen, "sha256": found})
    return found


def _noted(note: Path, seen: dict[str, int]) -> str | None:
    """The cached hash of a file in this state; None if there is no readable note of it."""
    try:
        kept = json.loads(note.read_text(encoding="utf-8"))
        return str(kept["sha256"]) if {key: kept[key] for key in seen} == seen else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _note_of(path: Path) -> Path:
    from huggingface_hub import cached_assets_path

    folder = cached_assets_path("tinyablation", namespace="hashes")
    return folder / f"{text_sha256(str(path.resolve()))[:32]}.json"


def _digest(path: Path) -> str:
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
