"""Copies of weights in a run's dtype: what they hold, made once, shared between processes.

Run: pytest tests/models/test_weight_copies.py
"""

import hashlib
import json
import re
import shutil
import subprocess
import sys
import weakref
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tinyablation.errors import LoadingError, ModelChanged
from tinyablation.models import weight_copies as copies
from tinyablation.models.checkpoint import WEIGHTS_INDEX, tokenizer_files, weight_files
from tinyablation.models.file_hashes import files_hash
from tinyablation.models.weight_copies import (
    WORTH_BYTES,
    CopyError,
    Layout,
    converted,
    file_dtype,
    read_layout,
    worth_converting,
    write_tensors,
)

pytestmark = pytest.mark.slow  # sessions, servers or processes of their own: make slow

LONGEST_SECONDS = 60.0


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache of this test, and of processes that it starts."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    assets = tmp_path / "home" / "assets"
    monkeypatch.setattr("huggingface_hub.utils._cache_assets.HF_ASSETS_CACHE", str(assets))
    return assets / "tinyablation" / "weights"


@pytest.fixture
def half(tiny_models: dict[str, Any], tiny_folders: dict[str, Path], tmp_path: Path) -> Any:
    """Save a family's tiny model in float16, whole or in shards of at most so many bytes."""

    def save(family: str = "llama", shard: str | None = None) -> Path:
        from transformers import AutoModelForCausalLM

        folder = Path(shutil.copytree(tiny_folders[family], tmp_path / f"{family}-half"))
        (folder / "model.safetensors").unlink()
        model: Any = AutoModelForCausalLM.from_pretrained(
            tiny_folders[family], dtype=torch.float16, local_files_only=True
        )
        model.save_pretrained(folder, **({"max_shard_size": shard} if shard else {}))
        return folder

    return save


def hash_of(folder: Path) -> str:
    files = weight_files(folder, "m")
    if len(files) == 1:
        return hashlib.sha256(files[0].read_bytes()).hexdigest()
    return files_hash(files)


def convert(folder: Path, dtype: str = "float32", **others: Any) -> Path:
    return converted(folder, hash_of(folder), dtype, name="m", **others)


def load(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, local_files_only=True)


# --- what a copy holds ---------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["gpt2", "mistral", "llama", "neox"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_copy_loads_as_the_original_does(family: str, dtype: str, half: Any) -> None:
    folder = half(family)
    made = convert(folder, dtype)
    assert file_dtype(weight_files(folder, "m")) == "float16"
    assert file_dtype(weight_files(made, "m")) == dtype
    assert json.loads((made / "config.json").read_text())["dtype"] == dtype
    own, theirs = (load(each, getattr(torch, dtype)).state_dict() for each in (made, folder))
    assert own.keys() == theirs.keys()
    for name, tensor in own.items():
        assert tensor.dtype == theirs[name].dtype and torch.equal(tensor, theirs[name]), name
    assert files_hash(tokenizer_files(made, "m")) == files_hash(tokenizer_files(folder, "m"))


def test_shards_stay_shards(half: Any) -> None:
    folder = half(shard="20KB")
    names = [path.name for path in weight_files(folder, "m")]
    assert len(names) > 3
    made = convert(folder)
    assert [path.name for path in weight_files(made, "m")] == names
    before, after = (
        json.loads((each / WEIGHTS_INDEX).read_text(encoding="utf-8")) for each in (folder, made)
    )
    assert after["weight_map"] == before["weight_map"]
    assert after["metadata"]["total_size"] == 2 * before["metadata"]["total_size"]
    assert torch.equal(load(made).lm_head.weight, load(folder).lm_head.weight)


def test_only_floats_are_converted(half: Any) -> None:
    folder = half()
    path = folder / "model.safetensors"
    extra = {
        "mask": torch.tensor([[True, False, True]]),
        "steps": torch.tensor(2**40 + 1),
        "wide": torch.tensor([1.0, 1e-300], dtype=torch.float64),
        "narrow": torch.tensor([1.0, 2.0**100], dtype=torch.bfloat16),
        "bytes": torch.arange(5, dtype=torch.uint8),
        "none": torch.empty(0, 4, dtype=torch.float16),
    }
    save_file({**load_file(path), **extra}, path, metadata={"format": "pt", "note": "kept"})
    made = convert(folder) / "model.safetensors"
    before, after = load_file(path), load_file(made)
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        expected = tensor.float() if tensor.is_floating_point() else tensor
        assert after[name].dtype == expected.dtype and torch.equal(after[name], expected), name
    layout = read_layout([made])
    assert (layout["steps"], layout["mask"].dtype) == (Layout("I64", ()), "BOOL")
    header = json.loads(made.read_bytes()[8 : 8 + int.from_bytes(made.read_bytes()[:8], "little")])
    assert header["__metadata__"] == {"format": "pt", "note": "kept"}
    # Every tensor at a multiple of its number's size, for readers that map the file.
    assert header["steps"]["data_offsets"][0] % 8 == 0
    for name, tensor in after.items():
        assert header[name]["data_offsets"][0] % tensor.element_size() == 0, name


def test_only_what_belongs_to_the_model_is_copied(half: Any) -> None:
    folder = half()
    (folder / "modeling_m.py").write_text("raise SystemExit")
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    (folder / "pytorch_model.bin.index.json").write_text("{}")
    (folder / "chat_template.jinja").write_text("{{ x }}")
    config = json.loads((folder / "config.json").read_text())
    config.pop("dtype")
    (folder / "config.json").write_text(json.dumps({**config, "torch_dtype": "float16"}))
    made = convert(folder)
    names = {path.name for path in made.iterdir()}
    assert {"config.json", "tokenizer.json", "chat_template.jinja", "copy.json"} <= names
    assert not {name for name in names if name.endswith((".py", ".bin", ".index.json"))}
    found = json.loads((made / "config.json").read_text())
    assert found["dtype"] == "float32" and "torch_dtype" not in found
    manifest = json.loads((made / "copy.json").read_text())
    assert manifest["made_from"] == {"model.safetensors": hash_of(folder)}
    assert manifest["files"].keys() == names - {"copy.json"}


def test_a_file_is_written_as_it_was_laid_out(tmp_path: Path) -> None:
    layout = {"a": Layout("float32", (2, 3))}
    with pytest.raises(ValueError, match="tensor 'a' has 12 bytes, not as laid out"):
        write_tensors(tmp_path / "w.safetensors", layout, lambda name: torch.zeros(3), {})
    with pytest.raises(ValueError, match="dtype 'F4' cannot be copied"):
        write_tensors(tmp_path / "v", {"a": Layout("F4", (8,))}, lambda name: torch.zeros(1), {})


# --- reading headers -----------------------------------------------------------------------------


def test_the_dtype_of_most_numbers(tmp_path: Path) -> None:
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    save_file({"a": torch.zeros(10), "ids": torch.zeros(99, dtype=torch.int64)}, one)
    save_file({"b": torch.zeros(11, dtype=torch.float16)}, two)
    assert [file_dtype(paths) for paths in ([one], [two], [one, two])] == [
        "float32",
        "float16",
        "float16",
    ]
    save_file({"ids": torch.zeros(3, dtype=torch.int64)}, one)
    assert file_dtype([one]) is None


def test_a_file_cut_short_is_refused(half: Any) -> None:
    path = half() / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(LoadingError, match=r"model\.safetensors: cannot be read.*get the file"):
        read_layout([path])
    with pytest.raises(LoadingError, match="cannot be read"):
        read_layout([path.with_name("none.safetensors")])


def test_what_a_copy_is_worth(monkeypatch: pytest.MonkeyPatch) -> None:
    big = WORTH_BYTES
    assert worth_converting(big, "float16", "float32", "cpu", workers=2)
    assert not worth_converting(big - 1, "float16", "float32", "cpu", workers=2)
    assert not worth_converting(big, "float32", "float32", "cpu", workers=2)
    assert not worth_converting(big, "float16", "float32", "cuda:0", workers=2)
    assert not worth_converting(big, "float16", "float32", "cpu", workers=1)
    assert not worth_converting(big, None, "float32", "cpu", workers=2)
    monkeypatch.setattr(sys, "platform", "win32")
    assert not worth_converting(big, "float16", "float32", "cpu", workers=2)


# --- made once, whole or not at all --------------------------------------------------------------


def test_a_copy_is_made_once(half: Any, cache: Path) -> None:
    folder, said = half(), list[str]()
    made = convert(folder, say=said.append)
    assert made.is_relative_to(cache)
    assert len(said) == 1 and said[0].startswith("m: making a float32 copy of its weights, once (")
    times = {path: path.stat().st_mtime_ns for path in made.iterdir()}
    assert convert(folder, say=said.append) == made and len(said) == 1
    assert {path: path.stat().st_mtime_ns for path in made.iterdir()} == times
    assert convert(folder, "bfloat16", say=said.append) != made and len(said) == 2


@pytest.mark.parametrize("harm", ["cut", "byte", "gone", "manifest", "layout"])
def test_a_copy_that_was_changed_is_made_again(harm: str, half: Any) -> None:
    folder, said = half(), list[str]()
    made = convert(folder, say=said.append)
    if harm == "cut":
        (made / "model.safetensors").write_bytes(b"short")
    elif harm == "byte":
        data = (made / "model.safetensors").read_bytes()
        (made / "model.safetensors").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    elif harm == "gone":
        (made / "tokenizer.json").unlink()
    elif harm == "manifest":
        (made / "copy.json").write_text("[")
    else:
        manifest = json.loads((made / "copy.json").read_text())
        (made / "copy.json").write_text(json.dumps({**manifest, "layout": 0}))
    assert convert(folder, say=said.append) == made and len(said) == 2
    assert torch.equal(load(made).lm_head.weight, load(folder).lm_head.weight)


SCRIPT = """
import sys
from pathlib import Path
from tinyablation.models import weight_copies as copies
folder, weight_hash, stop = sys.argv[1:]
convert = copies._convert
def halfway(source, target, layout):
    convert(source, target, layout)
    print("halfway", flush=True)
    if stop == "stop":
        sys.stdin.read()
copies._convert = halfway
made = copies.converted(Path(folder), weight_hash, "float32", name="m", say=print)
print(made, flush=True)
"""


def converter(folder: Path, stop: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(folder), hash_of(folder), stop],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_what_a_killed_process_left_is_not_used(half: Any, cache: Path) -> None:
    folder = half()
    process = converter(folder, "stop")
    assert process.stdout is not None and process.stdin is not None
    while (line := process.stdout.readline()) != "halfway\n":
        assert line
    left = list(cache.glob("*/making-*/model.safetensors"))
    assert len(left) == 1 and not list(cache.glob("*/model"))
    process.kill()
    process.wait(LONGEST_SECONDS)
    process.stdin.close()
    process.stdout.close()
    made = convert(folder)
    assert torch.equal(load(made).lm_head.weight, load(folder).lm_head.weight)
    assert not list(cache.glob("*/making-*"))


def test_of_several_processes_one_makes_it(half: Any) -> None:
    folder = half()
    processes = [converter(folder, "go") for _ in range(3)]
    printed = [process.communicate(timeout=LONGEST_SECONDS)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert sum("halfway" in text for text in printed) == 1
    assert len({text.splitlines()[-1] for text in printed}) == 1


def test_a_failure_leaves_nothing(half: Any, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = half()
    monkeypatch.setattr(copies, "_convert", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        convert(folder)
    assert [path.name for path in cache.glob("*/*")] == ["lock"]


# --- refusals ------------------------------------------------------------------------------------


def test_a_full_disk_is_refused_beforehand(
    half: Any, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 0, 2 * 10**8))
    with pytest.raises(CopyError, match=r"'m': a float32 copy.*takes 0.0 GB, and .*0.2 GB left"):
        convert(half())
    assert not list(cache.glob("*/m*"))


def test_a_disk_that_fills_up_meanwhile(half: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(copies, "_convert", full)
    with pytest.raises(CopyError, match="No space left on device.*; set HF_HOME"):
        convert(half())


def test_a_cache_that_cannot_be_written(half: Any, cache: Path) -> None:
    folder = half()
    cache.parent.mkdir(parents=True)
    cache.write_text("a file, where a folder should be")
    with pytest.raises(CopyError, match="set HF_HOME"):
        convert(folder)


def test_weights_that_changed_meanwhile_are_refused(half: Any) -> None:
    folder = half()
    before = hash_of(folder)
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(LoadingError, match="was changed while"):
        converted(folder, before, "float32", name="m")
    with pytest.raises(LoadingError, match="no copy in 'int8'; one of float64, float32"):
        converted(folder, before, "int8", name="m")


@pytest.mark.parametrize("put_back", [False, True], ids=["left", "put back"])
def test_weights_that_change_while_they_are_converted_make_no_copy(
    put_back: bool, half: Any, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tinyablation.models import weight_copies

    folder = half()
    path, convert_file = folder / "model.safetensors", weight_copies._convert
    data = path.read_bytes()

    def convert_another(source: Path, target: Path, layout: Any) -> None:
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        convert_file(source, target, layout)
        if put_back:
            path.write_bytes(data)

    monkeypatch.setattr(weight_copies, "_convert", convert_another)
    with pytest.raises(ModelChanged, match="model 'm': .*was changed while"):
        convert(folder)
    assert not list(cache.rglob("*.safetensors"))


# --- what it is for ------------------------------------------------------------------------------

PROBE = """
import re, sys
import torch
from transformers import AutoModelForCausalLM
def anonymous():
    text = open("/proc/self/smaps_rollup").read()
    return int(re.search(r"^Anonymous:\\s+(\\d+)", text, re.M)[1]) * 1024
torch.set_num_threads(1)
def load(folder):
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, local_files_only=True, use_safetensors=True)
    with torch.no_grad():
        model.to("cpu").eval().requires_grad_(False)(torch.arange(8)[None])
    return model
warm = load(sys.argv[1])  # the first load of a process brings threads and modules along
before = anonymous()
model = load(sys.argv[2])
print(anonymous() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_copy_takes_no_memory_of_a_processs_own(
    tiny_folders: dict[str, Path], tmp_path: Path
) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=1000,
        hidden_size=768,
        intermediate_size=2048,
        num_hidden_layers=3,
        num_attention_heads=8,
        max_position_embeddings=64,
    )
    folder = tmp_path / "half"
    LlamaForCausalLM(config).half().save_pretrained(folder)
    weights = 2 * weight_files(folder, "m")[0].stat().st_size  # in float32: some 90 MB
    assert weights > WORTH_BYTES

    def own(path: Path) -> int:
        done = subprocess.run(
            [sys.executable, "-c", PROBE, str(tiny_folders["llama"]), str(path)],
            capture_output=True,
            text=True,
            check=True,
        )
        return int(re.findall(r"-?\d+", done.stdout)[-1])

    assert own(folder) > 0.9 * weights  # a cast of its own
    assert own(convert(folder)) < 0.1 * weights  # pages of the file


def test_one_tensor_at_a_time_is_alive(tmp_path: Path) -> None:
    made: list[weakref.ref[torch.Tensor]] = []

    def make(name: str) -> torch.Tensor:
        # The one before may still be in the writer's hands.
        assert [reference() for reference in made[:-1]] == [None] * len(made[:-1])
        tensor = torch.full((2**10,), float(name))
        made.append(weakref.ref(tensor))
        return tensor

    layout = {str(n): Layout("float32", (2**10,)) for n in range(24)}
    write_tensors(tmp_path / "w.safetensors", layout, make, {"format": "pt"})
    assert len(made) == 24
    assert load_file(tmp_path / "w.safetensors")["17"].unique().tolist() == [17.0]
