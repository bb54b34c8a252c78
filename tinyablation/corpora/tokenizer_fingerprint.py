"""A tokenizer's behaviour as one hash: how it splits and numbers text, independent of its files.

Two tokenizers with the same fingerprint give the same ids for every text; key order, the spelling
of merges, chat templates, padding and post-processors are not part of it (prompts are encoded
without special tokens, and their BOS is a model's policy).

The fingerprint is that of the tokenizer a measurement uses, AutoTokenizer's, which may differ from
tokenizer.json: transformers 5 takes vocabulary and merges from the file and rebuilds the rest by
the class that tokenizer_config.json or the model type names. If it is known to use the file
unchanged, only the file is read (.2 s for 50,000 tokens); otherwise the tokenizer is loaded (4 s,
most of it the import), and the result is cached beside the hub's cache.
"""

import contextlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyablation.corpora.tokenisation import TokenisationError, encode
from tinyablation.errors import LoadingError
from tinyablation.files.contents import parse_json, read_bytes
from tinyablation.files.hashes import text_sha256
from tinyablation.models.checkpoint import TOKENIZER_FILES
from tinyablation.models.file_hashes import Watch
from tinyablation.models.tokenizer_state import (
    AS_SAVED,
    MODEL_TYPES,
    TOKENIZER,
    TOKENIZER_CONFIG,
    inputs,
    keep_note,
    load_tokenizer,
    note_of,
)

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

LAYOUT = 1  # incremented when the same tokenizer gets another fingerprint
# Fields of tokenizer_config.json that change no id. With any other field the tokenizer is loaded.
_HARMLESS = frozenset(
    {
        "add_bos_token",  # post-processing, like the next
        "add_eos_token",
        "added_tokens_decoder",  # compared with the file
        "backend",
        "chat_template",
        "clean_up_tokenization_spaces",  # decoding
        "is_local",
        "local_files_only",
        "model_max_length",
        "name_or_path",
        "padding_side",
        "tokenizer_class",
        "truncation_side",
    }
)
_NAMED_TOKENS = frozenset(
    f"{name}_token" for name in ("bos", "cls", "eos", "mask", "pad", "sep", "unk")
)
_EMPTY: tuple[Any, ...] = (None, [], {})  # values of a field that has no effect
# transformers rewrites the pre-tokenizer of some larger ones (its patch of Mistral's).
_PATCHED_FROM = 100_000
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized")
# Texts that identify a tokenizer without a backend, besides its vocabulary.
_PROBES = (
    "The capital of France is Paris.",
    " Two  spaces,\ttabs\nand lines\r\n\r\nin 1234567 pieces; don't SHOUT, it's naïve.",
    "e\u0301 \u00e9 ﬁ ½ — “quotes” 東京 🦙 \u200d\u00a0 <s> </s> <|endoftext|> ▁Ġx",
    "",
)


def fingerprint(folder: Path) -> str:
    """The fingerprint (sha256, 64 hex digits) of the tokenizer in `folder`.

    It equals `fingerprint_of` the loaded tokenizer. Neither torch nor transformers is imported for
    a tokenizer.json that is used unchanged. Raises TokenisationError if there is no tokenizer or it
    cannot be loaded.
    """
    if not folder.is_dir() or not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise TokenisationError(f"{folder}: no tokenizer is in it; save one there")
    core = _as_saved(folder)
    if core is not None:
        return _digest(_content(core))
    try:
        watch = Watch.over(folder.name, inputs(folder, folder.name))
        note = note_of(folder, "fingerprints", LAYOUT)
    except LoadingError as error:
        raise TokenisationError(str(error)) from error
    if note is not None:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            kept = parse_json(read_bytes(note))["fingerprint"]
            if re.fullmatch(r"[0-9a-f]{64}", kept):
                return str(kept)
    found = fingerprint_of(load_as_measured(folder))
    keep_note(note, watch, {"fingerprint": found})
    return found


def fingerprint_of(tokenizer: "PreTrainedTokenizerBase") -> str:
    """The fingerprint of a loaded tokenizer."""
    core = getattr(tokenizer, "backend_tokenizer", None)
    if core is not None:
        return _digest(_content(core))
    added = {
        index: {"content": token.content} | {flag: getattr(token, flag) for flag in _FLAGS}
        for index, token in tokenizer.added_tokens_decoder.items()
    }
    return _digest(
        {
            "type": type(tokenizer).__name__,
            "vocabulary": tokenizer.get_vocab(),
            "added": [[index, added[index]] for index in sorted(added)],
            "probes": [encode(tokenizer, text) for text in _PROBES],
        }
    )


def load_as_measured(folder: Path) -> "PreTrainedTokenizerBase":
    """The tokenizer of a model's folder, as loading.load_model loads it; or TokenisationError."""
    try:
        return load_tokenizer(folder)
    except Exception as error:  # foreign files: tokenizers raises bare Exception on bad JSON
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise TokenisationError(f"{folder}: no tokenizer can be loaded: {reason}") from error


# What counts -------------------------------------------------------------------------------------


def _content(core: "Tokenizer") -> dict[str, Any]:
    """Everything in a tokenizer that affects ids, in the library's canonical spelling."""
    data = json.loads(core.to_str())
    model = dict(data["model"])
    vocabulary, merges = model.pop("vocab"), model.pop("merges", [])
    split_special = core.encode_special_tokens
    return {
        "type": model.pop("type"),
        "vocabulary": vocabulary,
        "merges": [merge.split(" ") if isinstance(merge, str) else merge for merge in merges],
        "flags": _flags(model),
        "normalizer": _steps(data["normalizer"], "normalizers"),
        "pre_tokenizer": _steps(data["pre_tokenizer"], "pretokenizers"),
        "added": sorted(
            # Whether a token is special matters only if special tokens are split like any text.
            [
                token["id"],
                token["content"],
                *(token[flag] for flag in _FLAGS),
                token["special"] and split_special,
            ]
            for token in data["added_tokens"]
        ),
    }


def _flags(model: dict[str, Any]) -> dict[str, Any]:
    """The model's settings that have an effect; "", None and False mean the same."""
    flags = {key: value for key, value in model.items() if value not in (None, "")}
    flags = {key: value for key, value in flags.items() if value is not False}
    if not flags.get("dropout"):
        flags.pop("dropout", None)
    if "unk_token" not in flags:  # nothing to fuse: unknown text is left out
        flags.pop("fuse_unk", None)
    return flags


def _steps(part: dict[str, Any] | None, inner: str) -> list[dict[str, Any]]:
    """The steps of a normalizer or pre-tokenizer, sequences flattened."""
    if part is None:
        return []
    if part["type"] == "Sequence":
        return [step for one in part[inner] for step in _steps(one, inner)]
    # Offsets are positions in the text; ids do not depend on them.
    return [{key: value for key, value in part.items() if key != "trim_offsets"}]


def _digest(content: dict[str, Any]) -> str:
    text = json.dumps({"layout": LAYOUT, **content}, sort_keys=True, separators=(",", ":"))
    return text_sha256(text)


# Without transformers ----------------------------------------------------------------------------


def _as_saved(folder: Path) -> "Tokenizer | None":
    """The tokenizer of tokenizer.json, if AutoTokenizer is known to use it unchanged; else None."""
    config = _object(folder / TOKENIZER_CONFIG)
    model_config = _object(folder / "config.json") if (folder / "config.json").exists() else {}
    if (
        config is None
        or model_config is None
        or config.get("tokenizer_class") not in AS_SAVED
        or model_config.get("model_type", MODEL_TYPES[0]) not in MODEL_TYPES
        or any(config[key] not in _EMPTY for key in set(config) - _HARMLESS - _NAMED_TOKENS)
        or (folder / "added_tokens.json").exists()
        or not (folder / TOKENIZER).is_file()
    ):
        return None
    named = [config[key] for key in _NAMED_TOKENS & set(config)]
    if (folder / "special_tokens_map.json").exists():
        also = _object(folder / "special_tokens_map.json")
        if also is None or not set(also) <= _NAMED_TOKENS:
            return None
        named += also.values()
    from tokenizers import Tokenizer

    try:
        core = Tokenizer.from_file(str(folder / TOKENIZER))
    except Exception:  # it raises bare Exception; the user sees AutoTokenizer's message instead
        return None
    added = core.get_added_tokens_decoder()
    known = {token.content for token in added.values()}
    if core.get_vocab_size() > _PATCHED_FROM or not all(_is_known(one, known) for one in named):
        return None
    listed = config.get("added_tokens_decoder")
    flags = {
        str(index): {"content": token.content, "special": token.special}
        | {flag: getattr(token, flag) for flag in _FLAGS}
        for index, token in added.items()
    }
    return core if listed is None or listed == flags else None


def _is_known(token: Any, known: set[str]) -> bool:
    content = token.get("content") if isinstance(token, dict) else token
    return content is None or content in known


def _object(path: Path) -> dict[str, Any] | None:
    try:
        found = parse_json(read_bytes(path))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
