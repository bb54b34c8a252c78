"""Model folders damaged for real: each is refused by a line of file and cause, and left as it is.

Run: pytest tests/test_broken_models.py
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tinyablation.models.loading import LoadingError, describe, load_model

ROOT = Path(__file__).parent.parent
WEIGHTS = "model.safetensors"
EMBEDDED = ROOT / "fixtures" / "organisms" / "tiny-llama"


def contents(folder: Path) -> dict[str, str]:
    """Every file under a folder, with its hash."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# --- damages -------------------------------------------------------------------------------------


def cut(size: float) -> Callable[[Path], None]:
    """The first so many bytes of the weights, or that share of them."""

    def damage(folder: Path) -> None:
        data = (folder / WEIGHTS).read_bytes()
        kept = int(len(data) * size) if isinstance(size, float) else size
        (folder / WEIGHTS).write_bytes(data[:kept])

    return damage


def flipped(at: int, bit: int = 1) -> Callable[[Path], None]:
    """One bit of the weights' file turned round."""

    def damage(folder: Path) -> None:
        data = bytearray((folder / WEIGHTS).read_bytes())
        data[at] ^= bit
        (folder / WEIGHTS).write_bytes(bytes(data))

    return damage


def with_weights(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        from safetensors.torch import load_file, save_file

        tensors = {name: tensor.clone() for name, tensor in load_file(folder / WEIGHTS).items()}
        change(tensors)
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})

    return damage


def holding(part: str, value: float) -> Callable[[Path], None]:
    def change(tensors: dict[str, Any]) -> None:
        next(tensor for name, tensor in tensors.items() if part in name).view(-1)[3] = value

    return with_weights(change)


def lacking(part: str) -> Callable[[Path], None]:
    def change(tensors: dict[str, Any]) -> None:
        for name in [name for name in tensors if part in name]:
            del tensors[name]

    return with_weights(change)


def narrower(tensors: dict[str, Any]) -> None:
    name = next(name for name in tensors if "q_proj" in name)
    tensors[name] = tensors[name][:-4].clone()


def configured(**fields: Any) -> Callable[[Path], None]:
    """Fields of config.json replaced, or taken out where they are None."""

    def damage(folder: Path) -> None:
        path = folder / "config.json"
        config = {**json.loads(path.read_text()), **fields}
        path.write_text(json.dumps({k: v for k, v in config.items() if v is not None}))

    return damage


def not_found(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes(b"<html>404</html>")


def of_text(name: str, change: Callable[[str], bytes]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / name).write_bytes(change((folder / name).read_text()))

    return damage


def other_vocabulary(text: str) -> bytes:
    found = json.loads(text)
    words = found["model"]["vocab"]
    found["model"]["vocab"] = {word: at + (500 if at > 200 else 0) for word, at in words.items()}
    return json.dumps(found).encode()


def with_adapter(folder: Path) -> None:
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 4}')


CONFIG = "config.json"
TOKENIZER = "tokenizer.json"
DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "weights of no byte": (cut(0), "header too small"),
    "weights cut in their header": (cut(100), "header"),
    "weights cut in half": (cut(0.5), "incomplete metadata"),
    "a page of HTML for weights": (not_found, "header"),
    "a bit of the header's length": (flipped(7, 64), "header too large"),
    "a bit of the header": (flipped(8), "header"),
    "NaN": (holding("q_proj", float("nan")), r"model.safetensors: tensor \S*q_proj\S* holds NaN"),
    "infinity": (holding("down_proj", float("inf")), r"tensor \S*down_proj\S* holds NaN or inf"),
    "NaN in the embedding": (holding("embed", float("nan")), r"tensor \S*embed\S* holds NaN"),
    "a tensor is missing": (lacking("1.mlp.up_proj"), r"no weights for \S*layers.1.mlp.up_proj"),
    "a tensor of another shape": (
        with_weights(narrower),
        r"q_proj\S* in .* has shape \[28, 32\], but",
    ),
    "more layers than weights": (configured(num_hidden_layers=5), r"no weights for .* and \d+ mor"),
    "fewer layers than weights": (configured(num_hidden_layers=2), "weights of more layers .*s.2."),
    "another width": (configured(intermediate_size=65), r"config.json there requires \[32, 65\]"),
    "a small vocabulary": (configured(vocab_size=10), r"has shape \[300, 32\], but config.json"),
    "no vocabulary size": (configured(vocab_size=None), "config.json has no 'vocab_size'"),
    "no heads": (configured(num_attention_heads=None), "has no 'num_attention_heads'"),
    "no width": (configured(hidden_size=None), "config.json has no 'hidden_size'"),
    "no context": (configured(max_position_embeddings=None), "no 'max_position_embeddings'"),
    "no architecture": (configured(architectures=None), "config.json has no 'architectures'"),
    "no type": (configured(model_type=None), "model_type"),
    "an unknown type": (configured(model_type="odd"), "odd"),
    "an unknown activation": (configured(hidden_act="odd"), "does not load: KeyError: 'odd'"),
    "zero heads": (configured(num_attention_heads=0), "'num_attention_heads' is 0, not a whole"),
    "seven heads": (configured(num_attention_heads=7), "not a multiple"),
    "heads as text": (configured(num_attention_heads="4"), "'num_attention_heads' is '4'"),
    "layers below zero": (configured(num_hidden_layers=-1), "'num_hidden_layers' is -1"),
    "a window in words": (configured(sliding_window="wide"), "'sliding_window' is 'wide'"),
    "a config that is a list": (of_text(CONFIG, lambda text: b"[]"), "does not hold a JSON object"),
    "a config cut": (of_text(CONFIG, lambda text: text[:40].encode()), "is not valid JSON"),
    "a config in UTF-16": (of_text(CONFIG, lambda text: text.encode("utf-16")), "not valid JSON"),
    "a config without end": (of_text(CONFIG, lambda text: b"[" * 100_000), "is not valid JSON"),
    "an adapter": (with_adapter, r"adapter_config.json has an adapter .*; merge it into them \("),
    "another's tokenizer": (of_text(TOKENIZER, other_vocabulary), "up to 799, but the model embed"),
    "a tokenizer of nothing": (of_text(TOKENIZER, lambda text: b"{}"), "does not load"),
    "a tokenizer cut": (of_text(TOKENIZER, lambda text: text[:500].encode()), "does not load"),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_a_damaged_model_is_refused_by_name_and_left_alone(
    what: str, tiny_folders: dict[str, Path], tiny_entry: Any, tmp_path: Path
) -> None:
    damage, message = DAMAGES[what]
    folder = Path(shutil.copytree(tiny_folders["llama"], tmp_path / "llama"))
    damage(folder)
    before = contents(folder)
    with pytest.raises(LoadingError, match=message) as caught:
        load_model(tiny_entry("llama", source=folder))
    assert str(folder) in str(caught.value) and "'random-llama'" in str(caught.value)
    assert contents(folder) == before


def test_a_bit_of_the_weights_makes_another_model(
    tiny_folders: dict[str, Path], tiny_entry: Any, tmp_path: Path
) -> None:
    """It can be measured, so nothing refuses it; but nothing takes it for the same model either."""
    folder = Path(shutil.copytree(tiny_folders["llama"], tmp_path / "llama"))
    before = describe(tiny_entry("llama"))
    flipped(-1000)(folder)
    after = load_model(tiny_entry("llama", source=folder)).facts
    assert after.weight_hash != before.weight_hash and after.config_hash == before.config_hash


def test_weights_beyond_the_range_of_the_dtype_are_said(
    tiny_folders: dict[str, Path], tiny_entry: Any, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_folders["llama"], tmp_path / "llama"))
    holding("q_proj", 1e6)(folder)
    load_model(tiny_entry("llama", source=folder))
    with pytest.raises(LoadingError, match=r"NaN or infinity in torch.float16.*wider range"):
        load_model(tiny_entry("llama", source=folder), dtype="float16")


@pytest.mark.slow
def test_a_session_ends_in_lines_and_not_in_tracebacks(tmp_path: Path) -> None:
    """What the user of `pytest claims --model PATH` sees of a few of them."""
    damages = {
        "with-nan": holding("q_proj", float("nan")),
        "cut-in-half": cut(0.5),
        "no-heads": configured(num_attention_heads=0),
        "cut-tokenizer": of_text(TOKENIZER, lambda text: text[:500].encode()),
        "too-few-weights": lacking("1.mlp.up_proj"),
    }
    options = []
    for name, damage in damages.items():
        damage(Path(shutil.copytree(EMBEDDED, tmp_path / name)))
        options += ["--model", str(tmp_path / name)]
    before = contents(tmp_path)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "claims", "-p", "no:cacheprovider", *options),
            *("--claim", "H1.1", "-k", "zero and facts", "--reports", str(tmp_path / "reports")),
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout
    for name in damages:
        assert str(tmp_path / name) in done.stdout
    for trace in ("Traceback", "loading.py:", "fixtures/", "site-packages"):
        assert trace not in done.stdout + done.stderr
    records = json.loads((tmp_path / "reports" / "records.json").read_text())["records"]
    assert {record["model"] for record in records} == set(damages)
    assert {record["verdict"] for record in records} == {"error"}
    assert all(str(tmp_path / record["model"]) in record["reason"] for record in records)
    after = contents(tmp_path)
    assert {name: after[name] for name in before} == before
