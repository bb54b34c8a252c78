"""Loading models and describing them without loading.

Run: pytest tests/models/test_loading.py
"""

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import FAMILIES, N_HEADS, N_LAYERS, VOCABULARY
from tinyablation.errors import TooLarge
from tinyablation.models import loading
from tinyablation.models.loading import LoadingError, WeightsMissing, describe, load_model
from tinyablation.models.placement import Placement


@pytest.fixture
def copied(tiny_folders: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    return lambda family: Path(shutil.copytree(tiny_folders[family], tmp_path / family))


@pytest.mark.parametrize("family", FAMILIES)
def test_facts_are_the_models(family: str, tiny_entry: Any, tiny_folders: Any) -> None:
    facts = describe(tiny_entry(family))
    assert (facts.n_layers, facts.n_heads, facts.vocab_size) == (
        N_LAYERS,
        N_HEADS,
        VOCABULARY,
    )
    assert (facts.d_model, facts.context) == (32, 64)
    assert facts.sliding_window == (32 if family == "mistral" else None)
    weights = (tiny_folders[family] / "model.safetensors").read_bytes()
    assert facts.weight_hash == hashlib.sha256(weights).hexdigest()


def test_the_hashes_follow_content_and_not_newlines(copied: Any, tiny_entry: Any) -> None:
    folder = copied("llama")
    entry = tiny_entry("llama", source=folder)
    before = describe(entry)
    path = folder / "tokenizer.json"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert describe(entry) == before == describe(tiny_entry("llama"))
    path.write_text(path.read_text().replace("w17", "w_17"))
    changed = describe(entry)
    assert changed.tokenizer_hash != before.tokenizer_hash
    assert changed.weight_hash == before.weight_hash
    shutil.copy(folder / "model.safetensors", folder / "model-2.safetensors")
    assert describe(entry).weight_hash == before.weight_hash  # nothing reads that file
    load_model(entry).model.save_pretrained(folder, max_shard_size="20KB")
    (folder / "model.safetensors").unlink()
    sharded = describe(entry)
    assert sharded.weight_hash != before.weight_hash and sharded.config_hash == before.config_hash


def test_a_loaded_model_is_ready_to_measure(tiny_models: Any, tiny_entry: Any) -> None:
    for family, loaded in tiny_models.items():
        assert not loaded.model.training and loaded.facts == describe(tiny_entry(family))
        assert not any(p.requires_grad for p in loaded.model.parameters())
        assert loaded.model.config._attn_implementation == "eager"
        assert (loaded.dtype, loaded.bos_id) == (torch.float32, 0)
        assert loaded.tokenizer("w3 w5")["input_ids"] == [3, 5]
    assert load_model(tiny_entry("gpt2", bos=False)).bos_id is None


def test_weights_in_half_precision_are_widened(copied: Any, tiny_entry: Any) -> None:
    folder = copied("neox")
    entry = tiny_entry("neox", source=folder)
    load_model(entry).model.half().save_pretrained(folder)
    loaded = load_model(entry)
    assert {p.dtype for p in loaded.model.parameters()} == {torch.float32}
    assert load_model(entry, dtype=torch.bfloat16).dtype == torch.bfloat16


def test_missing_weights_are_told_apart(copied: Any, tiny_entry: Any, tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing, match="'random-gpt2': no folder"):
        load_model(tiny_entry("gpt2", source=tmp_path / "nowhere"))
    folder = copied("gpt2")
    entry = tiny_entry("gpt2", source=folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(WeightsMissing, match="no model.safetensors"):
        load_model(entry)


def test_unusable_folders_are_refused(copied: Any, tiny_entry: Any) -> None:
    folder = copied("gpt2")
    entry = tiny_entry("gpt2", source=folder)
    with pytest.raises(LoadingError, match="not a floating-point dtype"):
        load_model(entry, dtype="int8")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "n_layer": None}))
    with pytest.raises(LoadingError, match="config.json has no 'num_hidden_layers'"):
        describe(entry)
    (folder / "config.json").write_text("{")
    with pytest.raises(LoadingError, match="not valid JSON"):
        describe(entry)
    (folder / "config.json").unlink()
    with pytest.raises(WeightsMissing, match="no config.json"):
        describe(entry)
    for path in folder.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(LoadingError, match="no tokenizer"):
        describe(entry)


def test_a_bos_policy_needs_a_bos(copied: Any, tiny_entry: Any) -> None:
    folder = copied("llama")
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text())
    config.pop("bos_token")
    path.write_text(json.dumps(config))
    with pytest.raises(LoadingError, match="begin with a BOS, but its tokenizer has no BOS"):
        load_model(tiny_entry("llama", source=folder))


def test_a_device_that_is_not_there_is_said(tiny_entry: Any) -> None:
    with pytest.raises(LoadingError, match="'random-gpt2': it cannot be loaded to 'cuda:7'"):
        load_model(tiny_entry("gpt2"), device="cuda:7")


def test_memory_that_ends_while_loading_is_too_little(
    tiny_entry: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForCausalLM

    def full(*args: Any, **kwargs: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", full)
    with pytest.raises(TooLarge, match="ran out of memory while it was loaded.*smaller --dtype"):
        load_model(tiny_entry("gpt2"))


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_may_stay_on_disk_where_that_is_asked_for(family: str, tiny_entry: Any) -> None:
    entry = tiny_entry(family)
    # Room for the embeddings (300 x 32 numbers, in GPT-2 tied) and little else.
    room = {"cpu": 100_000}
    placement = Placement("cpu", room, offload=True, disk=True)
    there = load_model(entry, placement=placement)
    assert "disk" in there.model.hf_device_map.values()
    ids = torch.tensor([[0, 3, 5, 7]])
    with torch.no_grad():
        expected = load_model(entry).model(ids).logits
        assert torch.equal(there.model(ids).logits, expected)


def test_weights_never_end_where_the_placement_has_none(tiny_entry: Any) -> None:
    model = load_model(tiny_entry("llama")).model
    for place in ("cpu", "disk"):
        model.hf_device_map = {"model": 0, "lm_head": place}
        with pytest.raises(TooLarge, match=f"left some on the {place}"):
            loading._check_placed("m", model, Placement("cuda:0", {0: 1}))
        loading._check_placed("m", model, Placement("cuda:0", {0: 1}, offload=True, disk=True))


def test_a_changed_config_is_another_model(copied: Any, tiny_entry: Any) -> None:
    folder = copied("neox")
    entry = tiny_entry("neox", source=folder)
    before = describe(entry)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"transformers_version": "0", "dtype": "float64"}))
    assert describe(entry) == before
    path.write_text(json.dumps(config | {"use_parallel_residual": False}))
    after = describe(entry)
    assert after.config_hash != before.config_hash and after.weight_hash == before.weight_hash


def test_an_architecture_that_is_not_supported_is_refused_with_those_that_are(
    copied: Any, tiny_entry: Any
) -> None:
    folder = copied("gpt2")
    entry = tiny_entry("gpt2", source=folder)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    for named, message in (
        (["NoSuchForCausalLM"], "NoSuchForCausalLM is not supported. Tested are GPT2LMHeadModel"),
        (["T5ForConditionalGeneration"], "is not supported.*MistralForCausalLM.*Qwen2ForCausalLM"),
        (None, "has no 'architectures'"),
        ("GPT2LMHeadModel", "has no 'architectures'"),
    ):
        path.write_text(json.dumps(config | {"architectures": named}))
        with pytest.raises(LoadingError, match=f"model 'random-gpt2'.*{message}"):
            describe(entry)


def test_the_bos_policy_of_an_unlisted_model_is_transformer_lens_own(tiny_entry: Any) -> None:
    found = {family: describe(tiny_entry(family, bos=None)).bos for family in FAMILIES}
    assert found == {"gpt2": True, "mistral": True, "llama": True, "neox": False}
    assert load_model(tiny_entry("neox", bos=None)).bos_id is None
    assert load_model(tiny_entry("llama", bos=None)).bos_id == 0


def test_describing_loads_no_torch(tiny_folders: dict[str, Path]) -> None:
    code = f"""
import sys
from tinyablation.models.loading import describe
from tinyablation.models.registry import ModelEntry
describe(ModelEntry(id="m", title="M", source={str(tiny_folders["gpt2"])!r}, family="gpt2",
                    variant="plain", bos=True))
print({{"torch", "transformers"}} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
