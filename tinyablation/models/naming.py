"""Names for models that no registry lists, from their path or their files.

Nothing heavy is imported here.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tinyablation.errors import LoadingError
from tinyablation.files.contents import parse_json, read_text
from tinyablation.models.checkpoint import CONFIG, gguf_in

# Generic names that do not identify a model: "hf", "model", "final", a commit in the hub's cache.
_SAYS_NOTHING = re.compile(
    r"(ggml-)?(hf|models?|weights?|checkpoints?|ckpts?|snapshots?|main|latest|last|best|final|out"
    r"|outputs?|converted|dequantised|dequantized|gguf|ggml|safetensors|pytorch|tmp|temp"
    r"|[0-9a-f]{6,}|\d+)?([-_.](i?q\d\w*|bf16|f16|f32|fp16|fp32))?",
    re.IGNORECASE,
)
_HUB_CACHE = re.compile(r"models--(?:.+--)?(.+)")  # folder of a repository in the hub's cache
# Fields of config.json that name the model; the second is written by our GGUF conversion.
_NAME_FIELDS = ("_name_or_path", "_model_name_or_path")


class Named(NamedTuple):
    """A title, and the model type given in the files, such as "llama"; "" if not given."""

    title: str
    kind: str


def name_of(path: Path) -> Named:
    """The name of the model in a folder or GGUF file.

    The repository's name in the hub's cache; else that of the folder or file; if that is generic
    ("hf"), the name inside config.json or the GGUF file, or that of an enclosing folder.
    """
    within, kind = _within(path)
    own = path.stem if path.is_file() else path.name
    cached = next((found[1] for part in path.parents if (found := _cached(part))), None)
    titles = (cached, own, within, *(part.name for part in path.parents[:3]))
    says = (title for title in titles if title and not _SAYS_NOTHING.fullmatch(title))
    return Named(next(says, own or "model"), kind)


def _cached(folder: Path) -> re.Match[str] | None:
    return _HUB_CACHE.fullmatch(folder.name)


def _within(path: Path) -> tuple[str, str]:
    """The model's name and type according to its files.

    Broken files are ignored here; they raise when they are loaded.
    """
    try:
        gguf = gguf_in(path, path.name)
        if gguf is not None:
            from tinyablation.models.gguf import read_header

            header = read_header(gguf, path.name)
            return header.title, header.architecture
    except (OSError, LoadingError):
        return "", ""
    try:
        config: dict[str, Any] = parse_json(read_text(path / CONFIG))
        name = next((str(config[field]) for field in _NAME_FIELDS if config.get(field)), "")
        return next(_parts(name), ""), str(config.get("model_type", ""))
    except (OSError, ValueError, AttributeError):
        return "", ""


def _parts(name: str) -> Iterator[str]:
    """The parts of a path or repository name that are not generic, the last first."""
    parts = (part for part in reversed(re.split(r"[/\\]", name)) if part.strip("."))
    return (part for part in parts if not _SAYS_NOTHING.fullmatch(part))
