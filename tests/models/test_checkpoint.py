"""What a model folder holds, and hashes of it.

Run: pytest tests/models/test_checkpoint.py
"""

import json
from pathlib import Path

import pytest

from tinyablation.errors import LoadingError, PickledWeights, WeightsMissing
from tinyablation.models import checkpoint as folders


def index(folder: Path, *shards: str) -> None:
    weight_map = {f"w{number}": shard for number, shard in enumerate(shards)}
    (folder / folders.WEIGHTS_INDEX).write_text(json.dumps({"weight_map": weight_map}))


def test_the_index_says_which_files_are_read(tmp_path: Path) -> None:
    for name in ("model.safetensors", "a.safetensors", "b.safetensors", "consolidated.safetensors"):
        (tmp_path / name).touch()
    index(tmp_path, "b.safetensors", "a.safetensors", "b.safetensors")
    # transformers takes the single file where there are both.
    assert folders.weight_files(tmp_path, "m") == [tmp_path / "model.safetensors"]
    (tmp_path / "model.safetensors").unlink()
    found = folders.weight_files(tmp_path, "m")
    assert found == [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").touch()
    index(tmp_path, "a.safetensors", "b.safetensors")
    with pytest.raises(WeightsMissing, match="model 'm'.*lists b.safetensors, but"):
        folders.weight_files(tmp_path, "m")


@pytest.mark.parametrize("shard", ["../a.safetensors", "x/a.safetensors", "model.bin", "/etc/x"])
def test_an_index_cannot_lead_out_of_its_folder(tmp_path: Path, shard: str) -> None:
    index(tmp_path, shard)
    with pytest.raises(LoadingError, match="not a safetensors file of its folder"):
        folders.weight_files(tmp_path, "m")


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"weight_map": []}', '{"weight_map": {}}'])
def test_an_index_that_cannot_be_used_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / folders.WEIGHTS_INDEX).write_text(text)
    with pytest.raises(LoadingError, match=r"model 'm': .*index.json (is|has|does) no"):
        folders.weight_files(tmp_path, "m")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.ckpt"])
def test_pickled_weights_are_refused_with_the_command_that_converts(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_bytes(b"not even read")
    with pytest.raises(PickledWeights, match="never read.*convert once with: .*python") as refusal:
        folders.weight_files(tmp_path, "m")
    assert str(tmp_path) in str(refusal.value)


def test_no_weights_at_all(tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing, match="no model.safetensors in"):
        folders.weight_files(tmp_path, "m")


def test_a_config_is_hashed_by_what_it_computes() -> None:
    config = {"n_layer": 2, "architectures": ["X"]}
    same = {"architectures": ["X"], "n_layer": 2, "_name_or_path": "/x", "torch_dtype": "float16"}
    assert folders.config_hash(config) == folders.config_hash(same)
    assert folders.config_hash(config) != folders.config_hash(config | {"n_layer": 3})


def test_a_config_cannot_name_another_weight_file(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"transformers_weights": "../other.safetensors"}')
    with pytest.raises(LoadingError, match="'transformers_weights'; remove that field"):
        folders.read_config(tmp_path, "m")
