"""Copies of weights in a run's dtype, so that workers on one CPU share them.

A loader maps safetensors into memory, and all processes share the pages of the file, but only if
the file has the dtype of the run. Otherwise every process casts the weights into its own memory; a
converted copy, made once beside the hub's cache, makes them shared again.

<cache>/tinyablation/weights/<weight hash>-<dtype>/
    lock  model/{config.json, tokenizer files, *.safetensors, copy.json}
    and, during the conversion or after it was killed: making-*/
"""

import json
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tinyablation.errors import LoadingError
from tinyablation.models.checkpoint import (
    CONFIG,
    WEIGHTS_INDEX,
    read_config,
    read_object,
    weight_files,
)
from tinyablation.models.file_hashes import Watch, changed, file_hash, weights_hash

if TYPE_CHECKING:
    from torch import Tensor

# Bytes per number, by torch's dtype name.
DTYPE_BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
# Weights of at least this size are worth a copy: smaller ones take less memory per worker than
# torch itself (some 270 MB). The embedded models have 2 MB.
WORTH_BYTES = 64 * 2**20
# Bytes that a copy leaves free on its disk for other files.
SPARE_DISK = 256 * 2**20

MANIFEST = "copy.json"
LAYOUT = 2  # incremented when a copy's files change their meaning
_MAKING = "making-"
# Files copied besides config and weights: tokenizers and settings, never code.
_SUFFIXES = (".json", ".txt", ".model", ".jinja", ".tiktoken")
_NAMES = {"F64": "float64", "F32": "float32", "BF16": "bfloat16", "F16": "float16"}
_CODES = {name: code for code, name in _NAMES.items()}


class CopyError(LoadingError):
    """A converted copy cannot be made here; the model can still be loaded without one."""


class Layout(NamedTuple):
    """One tensor in a safetensors header.

    dtype: torch's name, or the file's own (such as "I64") for a tensor that is never converted.
    """

    dtype: str
    shape: tuple[int, ...]

    @property
    def numbers(self) -> int:
        count = 1
        for size in self.shape:
            count *= size
        return count


def read_layout(paths: Sequence[Path]) -> dict[str, Layout]:
    """All tensors of some safetensors files by name, from the headers alone.

    Raises LoadingError if a file is truncated or not a safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    found: dict[str, Layout] = {}
    for path in paths:
        try:
            with safe_open(path, framework="np") as file:  # "np": no torch is loaded for it
                for name in file.keys():  # noqa: SIM118 (no mapping: it has no __iter__)
                    tensor = file.get_slice(name)
                    code = tensor.get_dtype()
                    found[name] = Layout(_NAMES.get(code, code), tuple(tensor.get_shape()))
        except (SafetensorError, OSError) as error:
            raise LoadingError(
                f"{path}: cannot be read as safetensors ({error}); get the file again"
            ) from error
    return found


def file_dtype(paths: Sequence[Path]) -> str | None:
    """The dtype of most numbers in these files, such as "float16"; None if none is a float."""
    counts: Counter[str] = Counter()
    for tensor in read_layout(paths).values():
        if tensor.dtype in DTYPE_BYTES:
            counts[tensor.dtype] += tensor.numbers
    return counts.most_common(1)[0][0] if counts else None


def worth_converting(
    weight_bytes: int, held: str | None, dtype: str, device: str, *, workers: int
) -> bool:
    """Whether a copy of these weights saves memory.

    weight_bytes: the size of the files; held: their file_dtype; dtype, device: those of the run;
    workers: how many processes load the model. False on Windows, where files are not mapped.
    """
    return (
        workers > 1
        and device == "cpu"
        and sys.platform != "win32"
        and held in DTYPE_BYTES
        and held != dtype
        and weight_bytes >= WORTH_BYTES
    )


def converted(
    folder: Path,
    weight_hash: str,
    dtype: str,
    *,
    name: str,
    say: Callable[[str], None] | None = None,
) -> Path:
    """A folder with the same model and its weights in `dtype`, made in the cache if necessary.

    weight_hash: that of the folder's weights, as in ModelFacts; name: the model's name in messages;
    say: called with one line before a copy is made. Config and tokenizer files are copied, with
    dtype set in config.json; shards keep their names; non-float tensors are copied unchanged. Every
    number equals the result of the loader's own cast. Only one tensor at a time is in memory. One
    process makes a copy while others wait; an incomplete copy is never used.

    Raises CopyError if the cache cannot be written or its disk is too full, ModelChanged if the
    weights no longer match weight_hash, not even while they were converted.
    """
    from filelock import FileLock
    from huggingface_hub import cached_assets_path

    if dtype not in DTYPE_BYTES:
        raise LoadingError(f"model {name!r}: no copy in {dtype!r}; one of {', '.join(DTYPE_BYTES)}")
    try:
        base = cached_assets_path(
            "tinyablation", namespace="weights", subfolder=f"{weight_hash[:16]}-{dtype}"
        )
        made = base / "model"
        if _is_whole(made, weight_hash, dtype):
            return made
        with FileLock(base / "lock"):
            if _is_whole(made, weight_hash, dtype):
                return made
            for left in base.glob(f"{_MAKING}*"):  # of a killed process: we hold its lock
                shutil.rmtree(left)
            if made.exists():  # a copy that was changed, or of another layout
                shutil.rmtree(made)
            making = Path(tempfile.mkdtemp(prefix=_MAKING, dir=base))
            try:
                _make(folder, weight_hash, dtype, making, name, say)
                os.replace(making, made)
            except BaseException:
                shutil.rmtree(making, ignore_errors=True)
                raise
            return made
    except (OSError, ValueError) as error:
        raise CopyError(
            f"model {name!r}: no {dtype} copy of its weights can be made ({error}); set HF_HOME to "
            "a folder that can be written, or use one worker"
        ) from error


def copied_hash(made: Path) -> str:
    """The hash of a copy's own weights when it was made; "" if its note cannot be read."""
    try:
        return str(json.loads((made / MANIFEST).read_text(encoding="utf-8"))["copied_hash"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _is_whole(made: Path, weight_hash: str, dtype: str) -> bool:
    try:
        manifest = json.loads((made / MANIFEST).read_text(encoding="utf-8"))
        if (manifest["layout"], manifest["weight_hash"], manifest["dtype"]) != (
            LAYOUT,
            weight_hash,
            dtype,
        ):
            return False
        files: dict[str, str] = manifest["files"]
        # The hashes of large files are cached, so this reads little.
        return all(file_hash(made / file) == found for file, found in files.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _make(
    folder: Path,
    weight_hash: str,
    dtype: str,
    making: Path,
    name: str,
    say: Callable[[str], None] | None,
) -> None:
    """Write every file of the copy into `making`, its manifest last."""
    from tinyablation.files.manifests import write_json

    sources = weight_files(folder, name)
    watch = Watch.over(name, sources)
    if weights_hash(sources) != weight_hash:
        raise changed(name, sources[0] if len(sources) == 1 else folder)
    layouts = {path: _in_dtype(read_layout([path]), dtype) for path in sources}
    total = sum(_size(tensor) for layout in layouts.values() for tensor in layout.values())
    free = shutil.disk_usage(making).free
    if free < total + SPARE_DISK:
        raise CopyError(
            f"model {name!r}: a {dtype} copy of its weights takes {total / 1e9:.1f} GB, and "
            f"{making.parent} has {free / 1e9:.1f} GB left; make room (some {SPARE_DISK / 1e9:.1f} "
            "GB more than that), set HF_HOME to a larger disk, or use one worker"
        )
    if say is not None:
        say(
            f"{name}: making a {dtype} copy of its weights, once ({total / 1e9:.1f} GB in "
            f"{making.parent}), so that workers share them"
        )
    for path, layout in layouts.items():
        _convert(path, making / path.name, layout)
    if weights_hash(sources, fresh=True) != weight_hash:  # what was just converted
        raise changed(name, sources[0] if len(sources) == 1 else folder)
    watch.require_unchanged()
    for path in sorted(folder.iterdir()):
        # An index of pickled weights would name files that are not copied.
        if path.suffix in _SUFFIXES and path.is_file() and not path.name.endswith(".index.json"):
            shutil.copyfile(path, making / path.name)
    config = read_config(folder, name)
    config.pop("torch_dtype", None)  # its name before transformers 5
    write_json(making / CONFIG, {**config, "dtype": dtype})
    if (folder / WEIGHTS_INDEX).is_file():
        index = read_object(folder / WEIGHTS_INDEX, name)
        metadata = index.get("metadata")
        sizes = {**(metadata if isinstance(metadata, dict) else {}), "total_size": total}
        write_json(making / WEIGHTS_INDEX, {**index, "metadata": sizes})
    write_json(
        making / MANIFEST,
        {
            "layout": LAYOUT,
            "dtype": dtype,
            "weight_hash": weight_hash,
            "made_from": {path.name: file_hash(path) for path in sources},
            "copied_hash": weights_hash(weight_files(making, name)),
            "files": {path.name: file_hash(path) for path in sorted(making.iterdir())},
        },
    )


def _in_dtype(layout: Mapping[str, Layout], dtype: str) -> dict[str, Layout]:
    return {
        name: tensor._replace(dtype=dtype) if tensor.dtype in DTYPE_BYTES else tensor
        for name, tensor in layout.items()
    }


def _convert(source: Path, target: Path, layout: Mapping[str, Layout]) -> None:
    import torch
    from safetensors import safe_open

    with safe_open(source, framework="pt") as file:

        def tensor(name: str) -> "Tensor":
            found = file.get_tensor(name)
            dtype = layout[name].dtype
            return found.to(getattr(torch, dtype)) if dtype in DTYPE_BYTES else found

        # transformers 4 refuses files without a format, and other readers may.
        write_tensors(target, layout, tensor, {**(file.metadata() or {}), "format": "pt"})


def write_tensors(
    path: Path,
    layout: Mapping[str, Layout],
    make: Callable[[str], "Tensor"],
    metadata: Mapping[str, str],
) -> None:
    """Write a safetensors file one tensor at a time, requesting each by name when it is written.

    safetensors' own writers need all tensors at once, which for a shard of 10 GB in another dtype
    takes 20 GB of memory. The format: 8 bytes of header length, little-endian; the header, JSON
    padded with spaces to a multiple of 8 bytes; then the numbers without gaps. Wide dtypes come
    first, as in safetensors' own files, so that every tensor is aligned to its element size. Raises
    ValueError if the size of a tensor differs from the layout.
    """
    import torch

    order = sorted(layout, key=lambda name: (-_width(layout[name]), name))
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    begin = 0
    for name in order:
        dtype, shape = layout[name]
        end = begin + _size(layout[name])
        header[name] = {
            "dtype": _CODES.get(dtype, dtype),
            "shape": list(shape),
            "data_offsets": [begin, end],
        }
        begin = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("xb") as out:
        out.write(len(text).to_bytes(8, "little"))
        out.write(text)
        for name in order:
            # As raw bytes, because numpy has no bfloat16.
            flat = make(name).contiguous().reshape(-1).view(torch.uint8).numpy()
            if flat.nbytes != _size(layout[name]):
                raise ValueError(
                    f"{path}: tensor {name!r} has {flat.nbytes} bytes, not as laid out"
                )
            out.write(flat.data)
        out.flush()
        os.fsync(out.fileno())


def _size(tensor: Layout) -> int:
    return tensor.numbers * _width(tensor)


def _width(tensor: Layout) -> int:
    # Bytes per number; other dtypes contain it in their code, such as "I64" and "F8_E4M3".
    if tensor.dtype in DTYPE_BYTES:
        return DTYPE_BYTES[tensor.dtype]
    if tensor.dtype == "BOOL":
        return 1
    digits = "".join(takewhile(str.isdigit, tensor.dtype.lstrip("IUFCB")))
    if not digits or int(digits) % 8:
        raise ValueError(f"a tensor of dtype {tensor.dtype!r} cannot be copied")
    return int(digits) // 8
