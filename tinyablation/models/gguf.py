"""Models in GGUF files: dequantised once into a Hugging Face folder, which is then measured.

<cache>/tinyablation/gguf/<sha256 of the file>-<of what converts it>/
    lock  model/{config.json, tokenizer files, model.safetensors, dequantised.json}
    and, during the conversion or after it was killed: making-*/

transformers reads the file in float32, with its own loader, for the architectures that it knows;
the folder holds the result as for any other model. Only the file determines the result; files
beside it are ignored. A model of 135 million parameters takes some 20 s.
"""

import json
import mmap
import os
import re
import shutil
import struct
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from tinyablation.errors import LoadingError, Unavailable
from tinyablation.files.contents import open_regular, parse_json, read_text
from tinyablation.files.hashes import text_sha256
from tinyablation.installed import versions
from tinyablation.models.checkpoint import CONFIG, weight_files
from tinyablation.models.devices import gigabytes
from tinyablation.models.file_hashes import Watch, changed, file_hash, weights_hash
from tinyablation.models.limits import check_limits

ORIGIN = "dequantised.json"
CONVERTER = 1  # incremented when the same file is converted differently
# The other versions that the result depends on.
_READERS = ("gguf", "tokenizers", "transformers")
_MAKING = "making-"
_SPARE_DISK = 2**28
_NOT_MODELS = ("general", "tokenizer")  # keys of transformers' table that are not architectures
_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
# struct codes of the value types of fixed size; the two other types are strings and arrays.
_FIXED = dict(zip(range(8), "BbHhIif?", strict=True)) | {10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
# Errors raised by reading a damaged header.
_GARBLED = (struct.error, UnicodeDecodeError, LookupError, OverflowError, RecursionError)
# What config.json calls the figures of a file's architecture ("llama.block_count").
_FIGURES = {
    "block_count": "num_hidden_layers",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "context_length": "max_position_embeddings",
    "expert_count": "num_experts",
    "vocab_size": "vocab_size",
}
_PLAIN = ("F64", "F32", "F16", "BF16")  # types that are not quantised


class Header(NamedTuple):
    """The header of a GGUF file; tensors: (type, number of elements) of each tensor."""

    architecture: str
    title: str
    file_type: int | None
    tensors: tuple[tuple[int, int], ...]

    @property
    def numbers(self) -> int:
        """The number of parameters."""
        return sum(count for _, count in self.tensors)

    @property
    def quantisation(self) -> str:
        """The quantisation the file declares, such as "Q4_1"; else the type of most numbers."""
        from gguf import GGMLQuantizationType, LlamaFileType

        named = {kind.value: kind.name for kind in LlamaFileType if kind is not kind.GUESSED}
        if self.file_type in named:
            return named[self.file_type].removeprefix("MOSTLY_").removeprefix("ALL_")
        counts: Counter[int] = Counter()
        for tensor, numbers in self.tensors:
            counts[tensor] += numbers
        return GGMLQuantizationType(counts.most_common(1)[0][0]).name


# --- the head of a file --------------------------------------------------------------------------


def read_header(path: Path, name: str) -> Header:
    """The header of a GGUF file; LoadingError if it is damaged or not a GGUF file."""
    with open_regular(path) as file:
        start = file.read(len(_MAGIC))
        if start != _MAGIC:
            raise LoadingError(f"model {name!r}: {path} is not a GGUF file; name one, or a folder")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                return _header(_Cursor(data, len(_MAGIC)), path, name)
            except _GARBLED as error:
                raise _damaged(path, name) from error


def _header(cursor: "_Cursor", path: Path, name: str) -> Header:
    version = cursor.number("I")
    if version not in _VERSIONS:
        raise LoadingError(
            f"model {name!r}: {path} is GGUF of version {version}; "
            f"{' and '.join(map(str, _VERSIONS))} are read"
        )
    n_tensors, n_fields = cursor.number("Q"), cursor.number("Q")
    fields: dict[str, Any] = {}
    for _ in range(n_fields):
        key = cursor.text()
        value = cursor.value(cursor.number("I"))
        if key.startswith("general."):
            fields[key] = value
        elif (spelt := _FIGURES.get(key.partition(".")[2])) is not None:
            check_limits({spelt: value}, path, name)
    tensors = []
    for _ in range(n_tensors):
        cursor.text()
        count = 1
        for _ in range(cursor.number("I")):
            count *= cursor.number("Q")
        tensors.append((cursor.number("I"), count))
        cursor.number("Q")
    kind = fields.get("general.file_type")
    return Header(
        str(fields["general.architecture"]),
        str(fields.get("general.name", "")).strip(),
        kind if isinstance(kind, int) else None,
        tuple(tensors),
    )


class _Cursor:
    """Reads one value after another, little-endian."""

    def __init__(self, data: mmap.mmap, at: int) -> None:
        self.data, self.at = data, at

    def number(self, code: str) -> Any:
        (found,) = struct.unpack_from(f"<{code}", self.data, self.at)
        self.at += struct.calcsize(f"<{code}")
        return found

    def text(self) -> str:
        length = self.number("Q")
        found = self.data[self.at : self.at + length]
        if len(found) != length:
            raise IndexError(length)
        self.at += length
        return found.decode("utf-8")

    def value(self, kind: int) -> Any:
        """Read a value of a type; arrays are skipped."""
        if kind == _STRING:
            return self.text()
        if kind != _ARRAY:
            return self.number(_FIXED[kind])
        element, length = self.number("I"), self.number("Q")
        if element in _FIXED:
            self.at += length * struct.calcsize(f"<{_FIXED[element]}")
            return None
        for _ in range(length):
            self.value(element)
        return None


def _damaged(path: Path, name: str) -> LoadingError:
    return LoadingError(f"model {name!r}: {path} is damaged or cut short; get the file again")


# --- the folder made of it -----------------------------------------------------------------------


def dequantised(path: Path, name: str) -> Path:
    """The Hugging Face folder of a GGUF file's model: from the cache, or converted now.

    One process converts while others wait; an incomplete folder is never used. name: the model's
    name in messages. Raises LoadingError if the file is damaged or its architecture unsupported,
    and Unavailable if the gguf package is missing or the cache's disk is full.
    """
    return made_of(file_hash(path), name) or _make(path, name)


def check(path: Path, name: str) -> None:
    """Raise as `dequantised` would for a file that cannot be read, without reading its weights."""
    if made_of(file_hash(path), name) is None:
        _readable(path, name)


def made_of(sha256: str, name: str) -> Path | None:
    """The folder converted from the file with this hash; None if there is none."""
    with _explained(name):
        made = _place(sha256, name) / "model"
        return made if _is_whole(made, sha256) else None


def origin_of(folder: Path, weight_hash: str) -> str:
    """The origin of a folder's weights as text: "dequantised from Q4_1 of FILE".

    "" if they were not converted, or were changed afterwards.
    """
    try:
        kept = parse_json(read_text(folder / ORIGIN))
        if kept["weight_hash"] != weight_hash:
            return ""
        kind, file = str(kept["quantisation"])[:40], str(kept["file"])[:200]
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return f"{'converted' if kind in _PLAIN else 'dequantised'} from {kind} of {file}"


def _place(sha256: str, name: str) -> Path:
    from huggingface_hub import cached_assets_path

    if find_spec("gguf") is None:
        raise Unavailable(
            f"model {name!r}: GGUF files are read with the package gguf, which is not installed: "
            "pip install gguf"
        )
    read_with = (f"{package} {version}" for package, version in versions(*_READERS).items())
    key = f"{sha256[:16]}-{text_sha256(' '.join((str(CONVERTER), *read_with)))[:8]}"
    return cached_assets_path("tinyablation", namespace="gguf", subfolder=key)


def _is_whole(made: Path, sha256: str) -> bool:
    # Compares sizes only: the weights are hashed when the model is described.
    try:
        kept = json.loads((made / ORIGIN).read_text(encoding="utf-8"))
        files: dict[str, int] = kept["files"]
        return kept["sha256"] == sha256 and all(
            (made / file).stat().st_size == size for file, size in files.items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _make(path: Path, name: str) -> Path:
    from filelock import FileLock

    sha256 = file_hash(path)
    base = _place(sha256, name)
    made = base / "model"
    watch = Watch.over(name, [path])
    with _explained(name), FileLock(base / "lock"):
        if _is_whole(made, sha256):
            return made
        for left in base.glob(f"{_MAKING}*"):  # of a killed process: we hold its lock
            shutil.rmtree(left)
        if made.exists():  # a folder that was changed
            shutil.rmtree(made)
        making = Path(tempfile.mkdtemp(prefix=_MAKING, dir=base))
        try:
            _convert(path, sha256, making, name)
            if file_hash(path, fresh=True) != sha256:  # what was just converted
                raise changed(name, path)
            watch.require_unchanged()
            os.replace(making, made)
        except BaseException:
            shutil.rmtree(making, ignore_errors=True)
            raise
    return made


def _convert(path: Path, sha256: str, making: Path, name: str) -> None:
    """Write every file of the folder; the note of its origin comes last."""
    from tinyablation.files.manifests import write_json

    header = _readable(path, name)
    needed, free = 4 * header.numbers, shutil.disk_usage(making).free
    if needed + _SPARE_DISK > free:
        raise Unavailable(
            f"model {name!r}: dequantised it takes {gigabytes(needed)} in {making.parent}, whose "
            f"disk has {gigabytes(free)} free; make room, or set HF_HOME to a folder on a larger "
            "disk"
        )
    print(
        f"{name}: dequantising {path.name} from {header.quantisation}, once "
        f"({gigabytes(needed)} in {making.parent})",
        file=sys.stderr,
        flush=True,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("default")  # where they are errors, as in a test session
        _save(path, making, header, name)
    weights = weight_files(making, name)
    files = {file.name: file.stat().st_size for file in sorted(making.iterdir())}
    write_json(
        making / ORIGIN,
        {
            "file": path.name,
            "sha256": sha256,
            "title": header.title,
            "quantisation": header.quantisation,
            "converter": CONVERTER,
            "versions": versions(*_READERS),
            "weight_hash": weights_hash(weights),
            "files": files,
        },
    )


def _save(path: Path, making: Path, header: Header, name: str) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.quantization_config import GgufConfig

    with _alone(path) as folder:
        given: dict[str, Any] = {
            "gguf_file": path.name,
            "local_files_only": True,
            "trust_remote_code": False,
        }
        try:
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype="float32",
                quantization_config=GgufConfig(dequantize=True),
                output_loading_info=True,
                **given,
            )
            tokenizer: Any = AutoTokenizer.from_pretrained(folder, **given)
        except Exception as error:  # readers of foreign files raise many kinds of errors
            said = " ".join(str(error).split())[:200] or type(error).__name__
            raise LoadingError(
                f"model {name!r}: {path} cannot be read ({said}); if it is damaged or cut short, "
                "get the file again"
            ) from error
    model, info = loaded
    missing = sorted(info["missing_keys"])
    if missing:
        raise LoadingError(
            f"model {name!r}: {path} has no weights for {missing[0]}"
            f"{f' and {len(missing) - 1} more' if len(missing) > 1 else ''}; get the file again"
        )
    _bare(model).save_pretrained(making)
    tokenizer.save_pretrained(making)
    _write_name(making / CONFIG, header.title)


def _bare(model: Any) -> Any:
    """The model without its traces of quantisation, sharing the same weights.

    transformers refuses to save a quantised model.
    """
    import torch

    kept = {
        key: value
        for key, value in model.config.to_dict().items()
        if key not in ("quantization_config", "_model_name_or_path")
    }
    with torch.device("meta"):
        bare = type(model)(type(model.config)(**kept))
    bare.load_state_dict(model.state_dict(), assign=True)
    bare.tie_weights()
    return bare


def _write_name(config: Path, title: str) -> None:
    """Write the file's own name into config.json, where naming.py looks for it."""
    from tinyablation.files.manifests import write_json

    content = json.loads(config.read_text(encoding="utf-8"))
    write_json(config, {**content, "_name_or_path": title})


def _readable(path: Path, name: str) -> Header:
    """The header of a file; LoadingError if its architecture is not supported."""
    header = read_header(path, name)
    known = architectures()
    if _spelt(header.architecture) not in map(_spelt, known) and "t5" not in header.architecture:
        raise LoadingError(
            f"model {name!r}: {path} has architecture {header.architecture!r}, which is not "
            f"supported in GGUF files; supported are {', '.join(known)}"
        )
    return header


def _spelt(architecture: str) -> str:
    # Some have two spellings: "qwen2moe" in files, "qwen2_moe" in transformers.
    return re.sub("[-_]", "", architecture)


def architectures() -> tuple[str, ...]:
    """The architectures that transformers reads from GGUF, by name."""
    from transformers.integrations.gguf.gguf_config_mapping import GGUF_CONFIG_ARCHS
    from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES

    return tuple(
        sorted({*GGUF_SUPPORTED_ARCHITECTURES, *GGUF_CONFIG_ARCHS}.difference(_NOT_MODELS))
    )


@contextmanager
def _alone(path: Path) -> Iterator[str]:
    """A folder that contains only the file: transformers would read a config beside it."""
    with tempfile.TemporaryDirectory(prefix="tinyablation-") as folder:
        link = Path(folder, path.name)
        try:
            link.symlink_to(path.resolve())
        except OSError:  # Windows may refuse links
            shutil.copyfile(path, link)
        yield folder


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Say in one line that the cache cannot be written."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, SafetensorError) as error:
        said = (getattr(error, "strerror", None) or str(error)).splitlines()[0]
        raise Unavailable(
            f"model {name!r}: what it is dequantised to cannot be kept in the cache ({said}); make "
            "room, or set HF_HOME to a folder that can be written"
        ) from error
