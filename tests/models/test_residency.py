"""How a model gets into memory: its place, its turn, a copy that maps.

Run: pytest tests/models/test_residency.py
"""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tinyablation.errors import LoadingError, TooLarge
from tinyablation.models import devices
from tinyablation.models import residency as residency
from tinyablation.models import weight_copies as copies
from tinyablation.models.devices import Memory
from tinyablation.models.loading import LoadedModel, describe, load_model
from tinyablation.models.residency import Sharing, acquire_residency

GIGABYTE = 10**9


class Turns:
    """One device of a made-up size, and what was taken of it."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.happened: list[str] = []

    def capacity(self, device: str) -> Memory:
        return Memory(self.size, self.size)

    def take(self, wanted: Mapping[str, int], **said: Any) -> Any:
        assert set(wanted) == {"cuda:0"} and sum(wanted.values()) <= self.size
        self.happened.append(f"{said['owner']} took cuda:0 for {said['purpose']}")
        said["yield_device"]()
        return SimpleNamespace(release=lambda: self.happened.append("released"))


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """Record how models are loaded, and load them on the CPU."""
    found: list[dict[str, Any]] = []

    def record(entry: Any, **given: Any) -> LoadedModel:
        found.append(given)
        given = {key: value for key, value in given.items() if key != "placement"}
        return load_model(entry, **given)

    monkeypatch.setattr(residency, "load_model", record)
    yield found


def test_a_model_alone_on_a_cpu_takes_no_turn(tiny_entry: Any) -> None:
    entry = tiny_entry("llama")
    found = acquire_residency(entry, describe(entry), device="cpu", dtype="float32")
    assert (found.turn, found.devices) == (None, ())
    assert str(found.loaded.device) == "cpu" and not hasattr(found.loaded.model, "hf_device_map")


def test_a_model_that_fits_nowhere_is_refused_with_figures(
    tiny_entry: Any, monkeypatch: pytest.MonkeyPatch, loads: list[Any]
) -> None:
    monkeypatch.setattr(devices, "memory_of", lambda device: Memory(10**6, 10**6))
    entry = tiny_entry("gpt2")
    with pytest.raises(TooLarge, match="'random-gpt2' does not fit: it needs .* MB in float32"):
        acquire_residency(entry, describe(entry), device="cpu", dtype="float32")
    assert loads == []


def test_a_turn_is_taken_before_the_accelerator_is_used(
    tiny_entry: Any, loads: list[dict[str, Any]]
) -> None:
    turns = Turns(GIGABYTE)
    entry = tiny_entry("neox")
    sharing = Sharing(turns, workers=4, owner="gw1")  # type: ignore[arg-type]
    ways: list[str] = []
    found = acquire_residency(
        entry,
        describe(entry),
        device="cuda:0",
        dtype="bfloat16",
        sharing=sharing,
        yield_device=lambda: ways.append("given"),
    )
    assert turns.happened == ["gw1 took cuda:0 for random-neox"] and ways == ["given"]
    assert loads[0]["placement"].device == "cuda:0" and found.devices == ("cuda:0",)
    assert found.turn is not None
    found.turn.release()
    assert turns.happened[-1] == "released"


def test_a_turn_is_given_back_when_loading_fails(
    tiny_entry: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: Any, **given: Any) -> None:
        raise LoadingError("torn")

    monkeypatch.setattr(residency, "load_model", broken)
    turns = Turns(GIGABYTE)
    entry = tiny_entry("neox")
    with pytest.raises(LoadingError, match="torn"):
        acquire_residency(
            entry,
            describe(entry),
            device="cuda:0",
            dtype="float32",
            sharing=Sharing(turns),  # type: ignore[arg-type]
            yield_device=lambda: None,
        )
    assert turns.happened[-1] == "released"


@pytest.fixture
def in_half(tiny_entry: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The entry of a model whose file is in float16, with copies worth making from byte one."""
    entry = tiny_entry("mistral")
    folder = Path(shutil.copytree(entry.source, tmp_path / "half"))
    load_model(entry).model.half().save_pretrained(folder)
    monkeypatch.setattr(copies, "WORTH_BYTES", 1)
    monkeypatch.setattr("huggingface_hub.constants.HF_ASSETS_CACHE", str(tmp_path / "assets"))
    return tiny_entry("mistral", source=folder)


def test_workers_of_a_cpu_map_one_copy_in_the_dtype_of_the_run(
    in_half: Any, loads: list[dict[str, Any]]
) -> None:
    facts = describe(in_half)
    said: list[str] = []
    sharing = Sharing(workers=2, say=said.append)
    found = acquire_residency(in_half, facts, device="cpu", dtype="float32", sharing=sharing)
    copy = loads[0]["folder"]
    assert copy != facts.folder and copies.file_dtype([copy / "model.safetensors"]) == "float32"
    assert found.loaded.facts == facts and found.loaded.facts.folder == facts.folder
    alone = load_model(in_half).model.state_dict()
    shared = found.loaded.model.state_dict()
    assert all(bool((shared[name] == value).all()) for name, value in alone.items())
    acquire_residency(in_half, facts, device="cpu", dtype="float32", sharing=Sharing(workers=1))
    assert loads[1]["folder"] == facts.folder


def test_without_room_for_a_copy_each_worker_holds_its_own(
    in_half: Any, loads: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*args: Any, **given: Any) -> None:
        raise copies.CopyError("the disk has no room")

    monkeypatch.setattr(copies, "converted", no_room)
    facts = describe(in_half)
    said: list[str] = []
    sharing = Sharing(workers=2, say=said.append)
    acquire_residency(in_half, facts, device="cpu", dtype="float32", sharing=sharing)
    assert loads[0]["folder"] == facts.folder and said == ["the disk has no room"]
