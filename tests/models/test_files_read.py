"""What is loaded is what was hashed: a change at any moment is seen, and nothing is stored.

Run: pytest tests/models/test_files_read.py
"""

import json
import mmap
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.benches import REGISTRY
from tests.small_corpora import put_corpora
from tinyablation.errors import LoadingError, ModelChanged
from tinyablation.measurement.bench import Bench
from tinyablation.measurement.setup import Setup
from tinyablation.models import loading
from tinyablation.models.file_hashes import Stamp
from tinyablation.models.hub import Fetched
from tinyablation.models.loading import describe, load_model
from tinyablation.runs.store import NotVerified, RunStore

Change = Callable[[Path, Path], None]


def copied(model: str, folder: Path) -> Path:
    """A copy of an embedded model's files."""
    folder.mkdir(parents=True)
    for path in (Path(REGISTRY[model].source or "")).iterdir():
        if path.is_file():
            shutil.copyfile(path, folder / path.name)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return copied("tiny-gpt2", tmp_path / "model")


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """Another model of the same shapes."""
    return copied("tiny-gpt2-plain", tmp_path / "other")


def entry_of(folder: Path) -> Any:
    return REGISTRY["tiny-gpt2"].model_copy(update={"source": folder, "twin": None})


def in_place(path: Path, other: Path) -> None:
    """Written over, with size and modification time as they were."""
    before = path.stat()
    data = other.read_bytes()
    assert len(data) == before.st_size
    with path.open("r+b") as file:
        file.write(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def renamed(path: Path, other: Path) -> None:
    path.rename(path.with_name("was.bak"))
    shutil.copyfile(other, path)


def replaced(path: Path, other: Path) -> None:
    """Another file takes its place, with the same modification time."""
    before = path.stat()
    made = path.with_name("made.bak")
    shutil.copyfile(other, made)
    os.utime(made, ns=(before.st_atime_ns, before.st_mtime_ns))
    os.replace(made, path)


def linked(path: Path, other: Path) -> None:
    path.unlink()
    path.symlink_to(other)


CHANGES = [in_place, renamed, replaced, linked]


@pytest.mark.parametrize("change", CHANGES)
def test_weights_changed_between_hashing_and_loading(
    change: Change, folder: Path, other: Path
) -> None:
    entry = entry_of(folder)
    facts = describe(entry)
    change(folder / "model.safetensors", other / "model.safetensors")
    with pytest.raises(ModelChanged, match="model 'tiny-gpt2': .*model.safetensors was changed"):
        load_model(entry, facts=facts)
    assert describe(entry).weight_hash == describe(entry_of(other)).weight_hash


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("put_back", [False, True], ids=["left", "put back"])
def test_weights_changed_while_they_are_loaded(
    change: Change, put_back: bool, folder: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Put back: when the bytes are hashed again, they are the right ones again."""
    from transformers import AutoModelForCausalLM

    path, kept = folder / "model.safetensors", folder / "kept.bak"
    shutil.copyfile(path, kept)
    loads = AutoModelForCausalLM.from_pretrained

    def load(*given: Any, **named: Any) -> Any:
        change(path, other / "model.safetensors")
        made = loads(*given, **named)
        if put_back:
            change(path, kept)
        return made

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", load)
    with pytest.raises(ModelChanged, match="model.safetensors was changed"):
        load_model(entry_of(folder))


def test_shards_and_their_list(folder: Path, other: Path) -> None:
    for each in (folder, other):
        load_model(entry_of(each)).model.save_pretrained(each, max_shard_size="600KB")
        (each / "model.safetensors").unlink()
    entry = entry_of(folder)
    facts = describe(entry)
    load_model(entry, facts=facts)
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 2
    # The models differ in some tensors only.
    one = next(path for path in shards if path.read_bytes() != (other / path.name).read_bytes())
    renamed(one, other / one.name)
    with pytest.raises(ModelChanged, match="was changed while it was in use"):
        load_model(entry, facts=facts)
    shutil.copyfile(folder / "was.bak", one)
    load_model(entry, facts=facts)
    shutil.copyfile(
        REGISTRY["tiny-gpt2-plain"].source / "model.safetensors", folder / "model.safetensors"
    )
    with pytest.raises(ModelChanged):  # transformers reads the single file first
        load_model(entry, facts=facts)


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "tokenizer_config.json"])
def test_the_other_files_that_count(file: str, folder: Path) -> None:
    entry = entry_of(folder)
    facts = describe(entry)
    path = folder / file
    document = json.loads(path.read_text())
    if file == "config.json":
        document["layer_norm_epsilon"] = 0.1
    elif file == "tokenizer.json":
        vocabulary = document["model"]["vocab"]
        first, second = list(vocabulary)[10:12]
        vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    else:
        document["bos_token"] = "a"
    path.write_text(json.dumps(document))
    with pytest.raises(ModelChanged, match="model 'tiny-gpt2': "):
        load_model(entry, facts=facts)
    (folder / "README.md").write_text("does not count")
    load_model(entry)


@pytest.mark.parametrize("place", ["a folder", "the cache of the hub"])
def test_an_adapter_beside_the_weights_is_refused_before_anything_is_loaded(
    place: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where peft is installed, transformers would measure other weights than are hashed."""
    entry = entry_of(folder)
    if place != "a folder":
        monkeypatch.setattr("tinyablation.models.hub.fetch", lambda *_, **__: Fetched(folder, "c"))
        entry = entry.model_copy(update={"source": None, "repo": "a/b"})
    describe(entry)
    (folder / "adapter_config.json").touch()
    with pytest.raises(
        LoadingError,
        match=r"^model 'tiny-gpt2': .*adapter_config.json has an adapter applied .* merge it into "
        r"them \(peft: merge_and_unload, then save_pretrained\) and name that folder[^\n]*$",
    ):
        describe(entry)


@pytest.mark.parametrize("taken_away", [False, True])
def test_an_adapter_put_there_while_weights_are_loaded(
    taken_away: bool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForCausalLM

    loads, adapter = AutoModelForCausalLM.from_pretrained, folder / "adapter_config.json"

    def load(*given: Any, **named: Any) -> Any:
        model, info = loads(*given, **named)
        if taken_away:
            model._hf_peft_config_loaded = True  # as transformers notes that it applied one
        else:
            adapter.touch()
        return model, info

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", load)
    with pytest.raises(LoadingError, match="adapter_config.json (was changed|has an adapter)"):
        load_model(entry_of(folder))


def test_a_copy_in_another_dtype_is_checked_too(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tinyablation.models.weight_copies import converted

    monkeypatch.setattr("huggingface_hub.constants.HF_ASSETS_CACHE", str(tmp_path / "assets"))
    monkeypatch.setattr(
        "huggingface_hub.utils._cache_assets.HF_ASSETS_CACHE",
        str(tmp_path / "assets"),
        raising=False,
    )
    entry = entry_of(folder)
    facts = describe(entry)
    copy = converted(folder, facts.weight_hash, "float16", name=entry.id)
    load_model(entry, dtype="float16", facts=facts, folder=copy)
    weights = copy / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1000:] = bytes(1000)
    weights.write_bytes(data)
    with pytest.raises(ModelChanged, match="was changed"):
        load_model(entry, dtype="float16", facts=facts, folder=copy)
    assert converted(folder, facts.weight_hash, "float16", name=entry.id) == copy  # made again
    load_model(entry, dtype="float16", facts=facts, folder=copy)


# --- runs ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return put_corpora(tmp_path_factory.mktemp("corpora"))


def bench(folder: Path, store: Path, corpora: Path) -> Bench:
    return Bench(Setup(entry=entry_of(folder), corpora=corpora), RunStore(store), threads=1)


def stored(store: Path) -> list[Path]:
    """Complete runs, and shards of others that a later attempt would continue from."""
    return [*store.glob("*/manifest.json"), *store.glob("*/shards/*.json")]


@pytest.mark.parametrize("change", CHANGES)
def test_no_figure_of_another_model_is_stored_under_a_hash(
    change: Change, folder: Path, other: Path, tmp_path: Path, corpora: Path
) -> None:
    made = bench(folder, tmp_path / "store", corpora)
    assert made.config("facts", "baseline").weight_hash == made.facts.weight_hash
    change(folder / "model.safetensors", other / "model.safetensors")
    with pytest.raises(ModelChanged, match=r"^model 'tiny-gpt2': [^\n]*$"):
        made.run("facts", "baseline")
    assert stored(tmp_path / "store") == []


def test_a_change_while_measuring_ends_the_run_at_its_shard(
    folder: Path, other: Path, tmp_path: Path, corpora: Path
) -> None:
    made = bench(folder, tmp_path / "store", corpora)
    made.engine  # noqa: B018 - loads the model
    in_place(folder / "model.safetensors", other / "model.safetensors")
    with pytest.raises(ModelChanged, match="model.safetensors was changed while it was in use"):
        made.run("facts", "baseline")
    assert stored(tmp_path / "store") == []
    # A bench that describes the model now measures what is there now, at its own address.
    again = bench(folder, tmp_path / "store", corpora)
    assert (
        again.run("facts", "baseline").config.weight_hash == describe(entry_of(other)).weight_hash
    )


def test_a_change_that_no_stamp_shows_is_seen_when_the_run_is_finished(
    folder: Path, tmp_path: Path, corpora: Path
) -> None:
    """tmpfs notes no time of writes through a mapping."""
    if not Path("/dev/shm").is_dir():
        pytest.skip("no tmpfs at /dev/shm")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as memory:
        place = Path(shutil.copytree(folder, Path(memory, "model")))
        made = bench(place, tmp_path / "store", corpora)
        path = place / "model.safetensors"
        with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
            assert sum(mapped[:]) > 0  # a page that was read is written without a fault
            made.engine  # noqa: B018 - loads the model
            before = Stamp.of(path.stat())
            mapped[-4000:] = bytes(4000)
            if Stamp.of(path.stat()) != before:
                pytest.skip("this file system notes the time")
            with pytest.raises(NotVerified, match="run tiny-gpt2-baseline-facts_.*was changed"):
                made.run("facts", "baseline")
    assert stored(tmp_path / "store") == []


def test_the_tokenizer_is_the_one_that_was_hashed(folder: Path, monkeypatch: Any) -> None:
    """Also if its files are as they were again by then."""
    entry = entry_of(folder)
    path = folder / "tokenizer.json"
    loads = loading.load_tokenizer

    def load(place: Path) -> Any:
        kept = path.read_bytes()
        path.write_text(path.read_text().replace('"Ġthe"', '"Ġhte"'))
        made = loads(place)
        path.write_bytes(kept)
        return made

    monkeypatch.setattr(loading, "load_tokenizer", load)
    with pytest.raises(LoadingError, match="tokenizer.json was changed"):
        load_model(entry)
