"""A tokenizer's hash covers whatever it was read from, and nothing else.

Run: pytest tests/models/test_tokenizer_state.py
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.benches import REGISTRY
from tests.small_tokenizers import byte_level, sentencepiece_like
from tinyablation.errors import LoadingError
from tinyablation.models import tokenizer_state
from tinyablation.models.checkpoint import tokenizer_files
from tinyablation.models.file_hashes import files_hash
from tinyablation.models.tokenizer_state import load_tokenizer, state_of, tokenizer_hash

WORDS = ["the", "cat", "sat"]


@pytest.fixture(autouse=True)
def assets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test's own."""
    found = tmp_path / "assets"
    monkeypatch.setattr("huggingface_hub.constants.HF_ASSETS_CACHE", str(found))
    monkeypatch.setattr(
        "huggingface_hub.utils._cache_assets.HF_ASSETS_CACHE", str(found), raising=False
    )
    return found


def bert(folder: Path, words: list[str] = WORDS) -> Path:
    """A BertTokenizer of a vocab.txt, without tokenizer.json."""
    folder.mkdir()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    (folder / "vocab.txt").write_text("\n".join(special + words) + "\n")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    (folder / "config.json").write_text('{"model_type": "bert"}')
    return folder


def versioned(folder: Path, words: list[str] = WORDS) -> Path:
    """A folder whose config names tokenizer.4.0.json as the file to take."""
    byte_level(["cat", "the", "sat"]).save_pretrained(folder)
    byte_level(words).save_pretrained(folder / "newer")
    (folder / "newer" / "tokenizer.json").rename(folder / "tokenizer.4.0.json")
    shutil.rmtree(folder / "newer")
    change(folder / "tokenizer_config.json", fast_tokenizer_files=["tokenizer.4.0.json"])
    (folder / "config.json").write_text('{"model_type": "gpt2"}')
    return folder


def change(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def usual(folder: Path) -> str:
    return files_hash(tokenizer_files(folder, "m"), text=True)


@pytest.mark.parametrize("make", [bert, versioned])
def test_two_tokenizers_of_the_same_usual_files_are_two(
    make: Callable[..., Path], tmp_path: Path
) -> None:
    one, same = make(tmp_path / "one"), make(tmp_path / "same")
    two = make(tmp_path / "two", ["sat", "the", "cat"])
    assert usual(one) == usual(two)
    assert load_tokenizer(one)("the cat").input_ids != load_tokenizer(two)("the cat").input_ids
    found = tokenizer_hash(one, "m")
    assert found == tokenizer_hash(same, "m") == tokenizer_hash(one, "m", load_tokenizer(one))
    assert found != tokenizer_hash(two, "m") and found != usual(one)
    # Cached for these files only.
    for path in two.iterdir():
        shutil.copyfile(path, one / path.name)
    assert tokenizer_hash(one, "m") == tokenizer_hash(two, "m") != found


def test_a_loaded_tokenizer_that_is_not_the_files_has_another_hash(tmp_path: Path) -> None:
    one, two = bert(tmp_path / "one"), bert(tmp_path / "two", ["sat", "the", "cat"])
    assert tokenizer_hash(one, "m", load_tokenizer(two)) != tokenizer_hash(one, "m")


@pytest.mark.parametrize("make", [byte_level, sentencepiece_like])
def test_the_usual_files_are_enough_where_nothing_else_is_read(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "m"
    make(WORDS).save_pretrained(folder)
    (folder / "config.json").write_text('{"model_type": "gpt2"}')
    (folder / "vocab.txt").write_text("not read by this class")
    monkeypatch.setattr(tokenizer_state, "load_tokenizer", None)  # not even loaded
    assert tokenizer_hash(folder, "m") == usual(folder)


def test_a_file_that_changes_nothing_leaves_the_hash_as_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    byte_level(WORDS).save_pretrained(folder)
    (folder / "config.json").write_text('{"model_type": "qwen2"}')
    change(folder / "tokenizer_config.json", tokenizer_class="GPT2Tokenizer")
    for name in ("vocab.txt", "notes.json", "LICENSE", "spiece.model"):
        (folder / name).write_text("{}")
    assert [path.name for path in tokenizer_state.other_inputs(folder, "m")] == sorted(
        ["vocab.txt", "notes.json", "LICENSE", "spiece.model"]
    )
    assert tokenizer_hash(folder, "m") == usual(folder)


def test_the_embedded_models_have_the_hash_they_had() -> None:
    for model in REGISTRY.local_ids:
        folder = Path(REGISTRY[model].source or "")
        assert tokenizer_hash(folder, model) == usual(folder)


CHANGES: dict[str, Callable[[Any], Any]] = {
    "vocabulary": lambda core: core.add_tokens(["word"]),
    "normaliser": lambda core: setattr(core, "normalizer", normalizers().Lowercase()),
    "pre-tokeniser": lambda core: setattr(core, "pre_tokenizer", pre_tokenizers().Whitespace()),
    "decoder": lambda core: setattr(core, "decoder", decoders().Fuse()),
    "template of special tokens": lambda core: setattr(
        core,
        "post_processor",
        processors().TemplateProcessing(
            "<|endoftext|> $A", special_tokens=[("<|endoftext|>", 256)]
        ),
    ),
}


def normalizers() -> Any:
    from tokenizers import normalizers

    return normalizers


def pre_tokenizers() -> Any:
    from tokenizers import pre_tokenizers

    return pre_tokenizers


def decoders() -> Any:
    from tokenizers import decoders

    return decoders


def processors() -> Any:
    from tokenizers import processors

    return processors


@pytest.mark.parametrize("part", CHANGES)
def test_every_part_of_the_state_counts(part: str) -> None:
    before, after = byte_level(WORDS), byte_level(WORDS)
    assert state_of(before) == state_of(after)
    CHANGES[part](after.backend_tokenizer)
    assert state_of(before) != state_of(after)


def test_special_tokens_and_settings_count() -> None:
    before, after = byte_level(WORDS), byte_level(WORDS)
    after.pad_token = "<|endoftext|>"
    assert state_of(before) != state_of(after)
    after = byte_level(WORDS)
    after.init_kwargs["add_bos_token"] = True
    assert state_of(before) != state_of(after)
    after = byte_level(WORDS)
    after.chat_template = "{{ messages }}"
    after.init_kwargs["name_or_path"] = "/elsewhere"
    assert state_of(before) == state_of(after)


@pytest.mark.parametrize("name", ["../tokenizer.4.0.json", "/tmp/tokenizer.4.0.json", "a\\b.json"])
def test_a_file_outside_the_folder_is_refused(name: str, tmp_path: Path) -> None:
    folder = versioned(tmp_path / "m")
    change(folder / "tokenizer_config.json", fast_tokenizer_files=[name])
    with pytest.raises(LoadingError, match="'fast_tokenizer_files' names files outside its folder"):
        tokenizer_hash(folder, "m")


def test_a_tokenizer_that_cannot_be_loaded_is_said_in_one_line(tmp_path: Path) -> None:
    folder = bert(tmp_path / "m")
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(LoadingError, match=r"^model 'm': no tokenizer can be loaded from [^\n]*$"):
        tokenizer_hash(folder, "m")


def test_what_was_loaded_is_not_loaded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = bert(tmp_path / "m")
    found = tokenizer_hash(folder, "m")
    monkeypatch.setattr(tokenizer_state, "load_tokenizer", None)
    assert tokenizer_hash(folder, "m") == found


def test_nothing_is_cached_for_files_that_change_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, other = bert(tmp_path / "m"), bert(tmp_path / "other", ["sat", "the", "cat"])
    right = tokenizer_hash(bert(tmp_path / "same"), "m")
    for note in (tmp_path / "assets").rglob("*.json"):
        note.unlink()

    def load(place: Path) -> Any:
        shutil.copyfile(other / "vocab.txt", folder / "vocab.txt")
        made = load_tokenizer(place)
        shutil.copyfile(tmp_path / "same" / "vocab.txt", folder / "vocab.txt")
        return made

    with monkeypatch.context() as patch:
        patch.setattr(tokenizer_state, "load_tokenizer", load)
        assert tokenizer_hash(folder, "m") != right
    assert tokenizer_hash(folder, "m") == right


def test_neither_torch_nor_transformers_is_imported_for_the_usual_files() -> None:
    program = (
        "import sys; from pathlib import Path; "
        "from tinyablation.models.tokenizer_state import tokenizer_hash; "
        f"tokenizer_hash(Path({str(REGISTRY['tiny-gpt2'].source)!r}), 'm'); "
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
