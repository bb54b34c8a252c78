"""Architectures that no model has are refused from a kilobyte of config, before anything is made.

Run: pytest tests/models/test_limits.py
"""

import json
import os
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.gguf_writing import write_gguf
from tinyablation.models.gguf import check
from tinyablation.models.limits import MOST
from tinyablation.models.loading import LoadingError, describe
from tinyablation.models.registry import Registry, load_registry

ROOT = Path(__file__).parents[2]
EMBEDDED = ROOT / "fixtures" / "organisms"
SECONDS = 2.0  # the machine may be busy; the copies take 30 ms, and a FIFO would be waited for


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(EMBEDDED / "tiny-gpt2", tmp_path / "model"))


def described(folder: Path) -> Any:
    return describe(Registry(Path("none.toml"), {}).named(str(folder)))


def configured(folder: Path, **fields: Any) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
    return folder


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("n_layer", 20_000_000, "'n_layer' is 20,000,000, more than any model has"),
        ("n_head", 10**9, "'n_head' is 1,000,000,000"),
        ("n_embd", 10**12, "'n_embd'"),
        ("vocab_size", 10**400, r"'vocab_size' is 1e\+300"),
        ("n_positions", 1e30, r"'n_positions' is 1e\+30"),
        ("n_inner", 2**40, "'n_inner'"),
    ],
)
def test_a_figure_that_no_model_has_is_refused_at_once(
    folder: Path, field: str, value: Any, said: str
) -> None:
    configured(folder, **{field: value})
    begun = time.monotonic()
    with pytest.raises(LoadingError, match=said) as caught:
        described(folder)
    assert time.monotonic() - begun < SECONDS
    assert f"{folder}/config.json" in str(caught.value) and "\n" not in str(caught.value)


def test_a_figure_within_another_object_is_refused_too(folder: Path) -> None:
    configured(folder, text_config={"more": [{"num_hidden_layers": 20_000_000}]})
    with pytest.raises(LoadingError, match="'num_hidden_layers' is 20,000,000"):
        described(folder)


@pytest.mark.parametrize(
    "fields", [{"n_layer": 900, "n_embd": 65_536}, {"n_positions": 100_000_000}]
)
def test_a_config_of_far_more_than_the_weights_is_refused(folder: Path, fields: Any) -> None:
    """Each figure is within its limit; transformers would draw the rest of the weights."""
    with pytest.raises(LoadingError, match=r"describes a model of [\d,]+ parameters or more, but"):
        described(configured(folder, **fields))


@pytest.mark.parametrize("name", load_registry(ROOT / "fixtures" / "models.toml").local_ids)
def test_the_embedded_models_are_far_from_every_limit(name: str) -> None:
    entry = load_registry(ROOT / "fixtures" / "models.toml")[name]
    assert entry.source is not None
    config = json.loads((entry.source / "config.json").read_text())
    assert any(field in MOST for field in config)
    assert all(
        config[field] is None or config[field] * 30 < MOST[field]
        for field in MOST.keys() & config.keys()
    )
    assert describe(entry).n_layers == 4


def test_a_gguf_file_of_20_million_layers_is_refused(tmp_path: Path) -> None:
    import gguf

    path = tmp_path / "deep.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(20_000_000)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(LoadingError, match="'num_hidden_layers' is 20,000,000"):
        check(path, "deep")
    check(write_gguf(EMBEDDED / "tiny-llama", tmp_path / "tiny.gguf"), "tiny")


# --- files of another kind -----------------------------------------------------------------------


def a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.path.relpath(path))  # a name of at most 108 bytes


SPECIAL: dict[str, tuple[Callable[[Path], object], str]] = {
    "a FIFO": (os.mkfifo, "is a FIFO, not a regular file"),
    "a link to an endless device": (
        lambda path: path.symlink_to("/dev/zero"),
        "is a device, not a regular file",
    ),
    "a socket": (a_socket, "is a socket, not a regular file"),
    "four gigabytes of nothing": (
        lambda path: (path.touch(), os.truncate(path, 2**32)),
        "has 4,294,967,296 bytes, at most 67,108,864 are read",
    ),
}


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "generation_config.json"])
@pytest.mark.parametrize("what", SPECIAL)
def test_a_special_file_is_neither_waited_for_nor_read(
    folder: Path, what: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    make, said = SPECIAL[what]
    (folder / name).unlink(missing_ok=True)
    make(folder / name)
    begun = time.monotonic()
    with pytest.raises(LoadingError, match=f"{folder}/{name} {said}"):
        described(folder)
    assert time.monotonic() - begun < SECONDS


def test_a_fifo_called_gguf_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.gguf")
    with pytest.raises(LoadingError, match=r"model.gguf is a FIFO, not a regular file"):
        described(tmp_path)
