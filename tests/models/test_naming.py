"""What models that no registry lists are called.

Run: pytest tests/models/test_naming.py
"""

import json
import shutil
from pathlib import Path

import pytest

from tests.gguf_writing import write_gguf
from tinyablation.models.naming import name_of

LLAMA = Path(__file__).parents[2] / "fixtures" / "organisms" / "tiny-llama"


@pytest.mark.parametrize(
    ("folder", "config", "title"),
    [
        ("Mine-7B", {}, "Mine-7B"),
        ("Mine-7B", {"_name_or_path": "other/Theirs"}, "Mine-7B"),
        ("hf", {"_name_or_path": "other/Theirs-1B"}, "Theirs-1B"),
        ("hf", {"_name_or_path": "/data/Theirs-1B/checkpoint/"}, "Theirs-1B"),
        ("hf", {"_model_name_or_path": "Of A Gguf"}, "Of A Gguf"),
        ("Mine-7B/final", {}, "Mine-7B"),
        ("Mine-7B/model/weights", {"_name_or_path": "./output"}, "Mine-7B"),
        ("models--o--Theirs-1B/snapshots/0123456789abcdef0123", {}, "Theirs-1B"),
        ("models--gpt2/snapshots/0123456789abcdef0123", {"_name_or_path": "/x/step-5"}, "gpt2"),
    ],
)
def test_folders_are_called_by_what_says_something(
    tmp_path: Path, folder: str, config: dict, title: str
) -> None:
    path = tmp_path / folder
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps({"model_type": "llama", **config}))
    assert name_of(path) == (title, "llama")
    (path / "config.json").write_text("not JSON")
    assert name_of(path).kind == ""


def test_files_are_called_so_too(tmp_path: Path) -> None:
    tiny_gguf = write_gguf(LLAMA, tmp_path / "tiny-llama.F16.gguf")
    assert name_of(tiny_gguf) == ("tiny-llama.F16", "llama")
    for name in ("model.gguf", "ggml-model-q4_0.gguf", "hf/ggml-model-f16.gguf"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        shutil.copy(tiny_gguf, path)
        assert name_of(path) == ("A Tiny Llama", "llama")
