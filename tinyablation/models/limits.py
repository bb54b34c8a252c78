"""Limits of an architecture: what no model has is refused before anything is made of it.

A config.json of a kilobyte can ask for 20 million layers; reading it with transformers alone takes
gigabytes. Each limit is some times the largest that a published model has.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tinyablation.errors import LoadingError

# By the spellings of config.json; the largest known stands behind.
MOST: dict[str, int] = {
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers"), 1_000),  # 126
    **dict.fromkeys(("decoder_layers", "encoder_layers"), 1_000),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), 1_024),  # 128
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads"), 1_024),
    **dict.fromkeys(("head_dim", "d_head", "d_kv"), 8_192),  # 512
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "embed_dim"), 131_072),  # 18,432
    **dict.fromkeys(("intermediate_size", "n_inner", "ffn_dim", "d_ff"), 1_048_576),  # 73,728
    "vocab_size": 4_194_304,  # 262,400
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx"), 134_217_728),  # 10,485,760
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 8_192),  # 512
}
# A model has at least a square of its width in each layer, and at most two numbers in a byte of its
# files. The rest is for what architectures share between layers.
MOST_PER_BYTE = 32
SMALL = 2**26  # parameters that may always be asked for: weights cut short are said to be that


def check_limits(config: Mapping[str, Any], path: Path, name: str) -> None:
    """Raise LoadingError for a figure of config.json, at any depth, that no model has.

    path: of the file, and name: of the model, for the message.
    """
    for field, value in _fields(config):
        most = MOST.get(field)
        if most is not None and isinstance(value, int | float) and value > most:
            raise LoadingError(
                f"model {name!r}: {path}: {field!r} is {_said(value)}, more than any model has "
                f"(at most {most:,} are loaded)"
            )


def check_size(
    config: Mapping[str, Any], figures: Mapping[str, int], weight_bytes: int, path: Path, name: str
) -> None:
    """Raise LoadingError if config.json asks for far more than its files of weights hold.

    figures: n_layers, d_model and vocab_size. transformers would make the rest, at random.
    """
    width, layers = figures["d_model"], figures["n_layers"]
    inner = config.get("intermediate_size") or config.get("n_inner") or 0
    rows = figures["vocab_size"] + layers * (width + (inner if isinstance(inner, int) else 0))
    positions = config.get("n_positions")  # learned ones, a row of weights each
    rows += positions if isinstance(positions, int) else 0
    numbers = rows * width
    if numbers > max(SMALL, MOST_PER_BYTE * weight_bytes):
        raise LoadingError(
            f"model {name!r}: {path} describes a model of {numbers:,} parameters or more, but its "
            f"weights have {weight_bytes:,} bytes; put the config and the weights of one model "
            "there"
        )


def _fields(value: Any) -> Iterator[tuple[str, Any]]:
    """Every field with its value; read_object lets only so many levels through."""
    if isinstance(value, Mapping):
        for field, held in value.items():
            yield str(field), held
            yield from _fields(held)
    elif isinstance(value, list):
        for held in value:
            yield from _fields(held)


def _said(value: float) -> str:
    return f"{value:,}" if value < 10**15 else f"{float(min(value, 10**300)):.0e}"
