"""The files of a Hugging Face model folder (config, tokenizer, weights).

Nothing heavy is imported: a model can be described from its files alone.
"""

import json
import re
import shlex
from pathlib import Path
from typing import Any

from tinyablation.errors import LoadingError, PickledWeights, WeightsMissing
from tinyablation.files.contents import (
    MOST_BYTES,
    parse_json,
    read_text,
    special_kind,
)
from tinyablation.files.hashes import text_sha256
from tinyablation.models.limits import check_limits

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"
GGUF = ".gguf"
ADAPTER = "adapter_config.json"
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


def refuse_adapter(folder: Path, name: str) -> None:
    """Raise LoadingError if transformers would apply an adapter to the weights in the folder.

    It does so wherever peft is installed, and the adapter's weights are not among those hashed.
    """
    if (folder / ADAPTER).exists():
        raise LoadingError(
            f"model {name!r}: {folder / ADAPTER} has an adapter applied to the weights beside it, "
            "which alone are hashed; merge it into them (peft: merge_and_unload, then "
            "save_pretrained) and name that folder, or remove the file to measure the base"
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
