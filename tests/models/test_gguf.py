"""Models in GGUF files: dequantised once, exactly, and refused in one line where they cannot be.

Run: pytest tests/models/test_gguf.py
"""

import json
import shutil
from pathlib import Path

import gguf
import pytest
import torch
from gguf import GGMLQuantizationType as Kind

from tests.gguf_writing import write_gguf
from tinyablation.corpora.tokenizer_fingerprint import fingerprint
from tinyablation.errors import LoadingError, ModelChanged, Unavailable
from tinyablation.models import gguf as gguf_files
from tinyablation.models.gguf import ORIGIN, architectures, dequantised, read_header
from tinyablation.models.loading import describe, load_model
from tinyablation.models.registry import Registry

LLAMA = Path(__file__).parents[2] / "fixtures" / "organisms" / "tiny-llama"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test's own."""
    import huggingface_hub.utils._cache_assets as assets

    monkeypatch.setattr(assets, "HF_ASSETS_CACHE", tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tiny-llama, whose weights are float16 already, in F16."""
    return write_gguf(LLAMA, tmp_path_factory.mktemp("gguf") / "tiny-llama.F16.gguf")


def entry_of(path: Path):
    return Registry(Path("none.toml"), {}).named(str(path))


def logits(entry):
    tokens = torch.tensor([[256, 300, 400, 500, 600]])
    with torch.inference_mode():
        return load_model(entry).model(tokens).logits


def test_a_file_of_half_floats_is_the_same_model_to_the_bit(tiny_gguf: Path) -> None:
    entry, own = entry_of(tiny_gguf), entry_of(LLAMA)
    assert (entry.id, entry.title, entry.family) == ("tiny-llama.f16", "tiny-llama.F16", "llama")
    facts, wanted = describe(entry), describe(own)
    for field in ("architecture", "n_layers", "n_heads", "d_model", "vocab_size", "context"):
        assert getattr(facts, field) == getattr(wanted, field)
    assert facts.derived == "converted from F16 of tiny-llama.F16.gguf" and not wanted.derived
    assert torch.equal(logits(entry), logits(own))


def test_blocks_are_dequantised_and_say_so(tmp_path: Path) -> None:
    path = write_gguf(
        LLAMA, tmp_path / "m.gguf", Kind.Q8_0, file_type=gguf.LlamaFileType.MOSTLY_Q8_0
    )
    entry = entry_of(path)
    facts = describe(entry)
    assert facts.derived == "dequantised from Q8_0 of m.gguf"
    own = logits(entry_of(LLAMA))
    difference = (logits(entry) - own).abs().max()
    assert 0 < difference < 0.1 * own.abs().max()
    # Without the field it is the type that most numbers have.
    bare = write_gguf(LLAMA, tmp_path / "n.gguf", Kind.Q4_0, file_type=None)
    assert read_header(bare, "n").quantisation == "Q4_0"


def test_a_file_is_dequantised_once_and_to_the_same_bytes(
    tiny_gguf: Path, tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = dequantised(tiny_gguf, "m")
    first = describe(entry_of(tiny_gguf))
    monkeypatch.setattr(gguf_files, "_convert", lambda *_: pytest.fail("made again"))
    # The same content by another name, in a folder with a config that is not its own.
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(tiny_gguf, other / "model.gguf")
    (other / "config.json").write_text('{"model_type": "gpt2"}')
    assert dequantised(other / "model.gguf", "m") == folder == describe(entry_of(other)).folder
    monkeypatch.undo()
    import huggingface_hub.utils._cache_assets as assets

    monkeypatch.setattr(assets, "HF_ASSETS_CACHE", tmp_path / "elsewhere")
    again = describe(entry_of(tiny_gguf))
    assert again.folder != folder and again == first  # hashes of weights, config and tokenizer
    assert fingerprint(again.folder) == fingerprint(folder)
    kept = json.loads((folder / ORIGIN).read_text())
    assert (kept["weight_hash"], kept["quantisation"]) == (first.weight_hash, "F16")


def test_what_was_cut_short_or_changed_is_made_again(
    tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = dequantised(tiny_gguf, "m")
    left = folder.parent / "making-of-a-killed-one"
    left.mkdir()
    with (folder / "model.safetensors").open("ab") as file:
        file.write(b"more")
    assert dequantised(tiny_gguf, "m") == folder and not left.exists()
    assert describe(entry_of(tiny_gguf)).derived
    shutil.rmtree(folder)
    monkeypatch.setattr(gguf_files, "_save", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        dequantised(tiny_gguf, "m")
    assert [path.name for path in folder.parent.iterdir()] == ["lock"]


def test_a_file_that_changes_while_it_is_dequantised_is_not_kept(
    tiny_gguf: Path, tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, save = Path(shutil.copy(tiny_gguf, tmp_path)), gguf_files._save
    data = path.read_bytes()

    def save_another(*given: object) -> None:
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        save(*given)
        path.write_bytes(data)

    monkeypatch.setattr(gguf_files, "_save", save_another)
    with pytest.raises(ModelChanged, match=f"{path.name} was changed while it was in use"):
        dequantised(path, "m")
    assert not list(own_cache.rglob("*.safetensors"))


def test_weights_that_were_changed_are_not_said_to_be_the_files(tiny_gguf: Path) -> None:
    folder = dequantised(tiny_gguf, "m")
    origin = json.loads((folder / ORIGIN).read_text())
    (folder / ORIGIN).write_text(json.dumps({**origin, "weight_hash": "0" * 64}))
    assert describe(entry_of(folder)).derived == ""


def test_a_folder_is_read_from_its_one_file_unless_it_has_safetensors(
    tiny_gguf: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    shutil.copy(tiny_gguf, folder)
    assert entry_of(folder).id == "mine" and describe(entry_of(folder)).derived
    shutil.copy(tiny_gguf, folder / "second.gguf")
    both = r"2 GGUF files \(second.gguf, tiny-llama.F16.gguf\); name one of them"
    with pytest.raises(LoadingError, match=both):
        describe(entry_of(folder))
    for path in LLAMA.iterdir():
        if path.is_file():
            shutil.copy(path, folder)
    assert describe(entry_of(folder)) == describe(entry_of(LLAMA))


@pytest.mark.parametrize("part", [0, 3, 30, 2000, 0.5, 0.99])
def test_a_file_that_was_cut_short_is_said_in_one_line(
    tiny_gguf: Path, tmp_path: Path, own_cache: Path, part: float
) -> None:
    data = tiny_gguf.read_bytes()
    path = tmp_path / "cut.gguf"
    path.write_bytes(data[: int(part * len(data)) if 0 < part < 1 else int(part)])
    with pytest.raises(LoadingError, match="get the file again|is not a GGUF file") as caught:
        describe(entry_of(path))
    assert str(caught.value).startswith("model 'cut': ") and "\n" not in str(caught.value)
    assert not list(own_cache.rglob("making-*"))


def test_heads_of_garbage_are_refused(tiny_gguf: Path, tmp_path: Path) -> None:
    data = tiny_gguf.read_bytes()
    path = tmp_path / "m.gguf"
    for at in range(4, 200):
        path.write_bytes(data[:at] + b"\xff\xff\xff\xff" + data[at + 4 : 4000])
        with pytest.raises(LoadingError):
            read_header(path, "m")


def test_what_is_not_read_is_refused_with_what_is(tmp_path: Path) -> None:
    assert {"llama", "mistral", "gpt2", "qwen2"} <= set(architectures())
    path = write_gguf(LLAMA, tmp_path / "m.gguf", architecture="rwkv7")
    with pytest.raises(
        LoadingError, match="architecture 'rwkv7'.* supported are .*gpt2.*, llama, "
    ):
        dequantised(path, "m")
    with pytest.raises(LoadingError, match="is not supported in GGUF files"):
        gguf_files.check(path, "m")
    path = write_gguf(LLAMA, tmp_path / "n.gguf", without="blk.1.attn_q.weight")
    with pytest.raises(LoadingError, match="no weights for .*layers.1.self_attn.q_proj.weight"):
        dequantised(path, "n")


def test_what_this_machine_lacks_is_said(
    tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch, own_cache: Path
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(gguf_files, "find_spec", lambda _: None)
        with pytest.raises(Unavailable, match="not installed: pip install gguf"):
            dequantised(tiny_gguf, "m")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 0))
        with pytest.raises(Unavailable, match="whose disk has 0 MB free; make room, or set"):
            dequantised(tiny_gguf, "m")
    with monkeypatch.context() as patch:

        def full(*_):
            raise OSError(28, "No space left on device")

        patch.setattr(gguf_files, "_save", full)
        with pytest.raises(Unavailable, match=r"cannot be kept in the cache \(No space left"):
            dequantised(tiny_gguf, "m")
    assert not list(own_cache.rglob("making-*"))
