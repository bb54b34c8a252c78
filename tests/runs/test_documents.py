"""Run: pytest tests/runs/test_documents.py"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.synthetic_runs import make_config
from tinyablation.engine.document import Computed
from tinyablation.errors import RunError
from tinyablation.files.manifests import write_manifest
from tinyablation.records.plain import RecordError
from tinyablation.runs import documents as readings
from tinyablation.runs.derived import Circumstances
from tinyablation.runs.documents import (
    Reading,
    obtain_reading,
)
from tinyablation.runs.store import RunStore

ROOT = Path(__file__).parents[2]
DOCUMENT = {"heads": [{"layer": 0, "token": " é"}], "n": 3, "share": 0.25, "blocked": None}
TENSORS = {
    "logits.0": np.arange(12, dtype=np.float32).reshape(3, 4),
    "turned": np.arange(6, dtype=np.float64).reshape(2, 3).T,  # not contiguous
}


class Counting:
    """A computation that knows how often it was asked."""

    def __init__(self, computed: Computed | None = None) -> None:
        self.calls = 0
        self.computed = computed or Computed(DOCUMENT, TENSORS)

    def __call__(self) -> Computed:
        self.calls += 1
        return self.computed


def obtain(root: Path, compute=None, **changes) -> Reading:
    config = make_config(battery="ov", **changes)
    return obtain_reading(RunStore(root), config, compute or Counting())


def never() -> Computed:
    raise AssertionError("computed, although nothing was to be")


def files_under(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_what_was_computed_is_read_back(tmp_path):
    reading = obtain(tmp_path)
    assert reading.path == tmp_path / make_config(battery="ov").name
    assert reading.config == make_config(battery="ov") and reading.name == reading.path.name
    assert reading.document() == DOCUMENT
    found = reading.tensors()
    assert set(found) == set(TENSORS)
    for name, tensor in TENSORS.items():
        assert found[name].dtype == tensor.dtype and np.array_equal(found[name], tensor)
    manifest = json.loads((reading.path / "manifest.json").read_text())
    assert set(manifest["files"]) == set(readings.FILES)
    assert set(files_under(reading.path)) == {*readings.FILES, "manifest.json"}
    provenance = json.loads((reading.path / "provenance.json").read_text())
    assert provenance["run"] == reading.name and provenance["weight_hash"] == "a" * 64


def test_a_reading_says_what_it_was_computed_with(tmp_path):
    found = Circumstances(({"kind": "mps"},), {"attention": "eager"}, {"batch_halvings": 2})
    config = make_config(battery="ov")
    reading = obtain_reading(RunStore(tmp_path), config, Counting(), lambda: found)
    provenance = json.loads((reading.path / "provenance.json").read_text())
    assert provenance["devices"] == [{"kind": "mps"}] and provenance["attention"] == "eager"
    profile = json.loads((reading.path / "profile.json").read_text())
    assert profile["batch_halvings"] == 2 and profile["seconds_total"] >= 0


def test_a_reading_without_tensors_has_no_tensor_file(tmp_path):
    reading = obtain(tmp_path, Counting(Computed(DOCUMENT)))
    assert reading.tensors() == {}
    assert set(files_under(reading.path)) == {
        "config.json",
        "reading.json",
        "provenance.json",
        "profile.json",
        "manifest.json",
    }


def test_a_complete_reading_is_reused_and_not_touched(tmp_path):
    first = obtain(tmp_path)
    before = files_under(first.path)
    assert obtain(tmp_path, never) == first
    assert files_under(first.path) == before


def test_the_same_reading_elsewhere_is_the_same_to_the_byte(tmp_path):
    first, other = obtain(tmp_path / "a"), obtain(tmp_path / "some where" / "é")
    for name in ("reading.json", "tensors.safetensors", "config.json"):
        assert (first.path / name).read_bytes() == (other.path / name).read_bytes()


def test_other_configs_lie_beside_each_other(tmp_path):
    assert len({obtain(tmp_path, seed=seed).path for seed in (0, 1)}) == 2


def test_reuse_imports_no_torch(tmp_path):
    reading = obtain(tmp_path)
    code = (
        "import json, sys; from pathlib import Path; "
        "from tinyablation.runs.address import RunConfig; "
        "from tinyablation.runs.store import RunStore; "
        "from tinyablation.runs.documents import obtain_reading; "
        "path = Path(sys.argv[1]); "
        "config = RunConfig(**json.loads((path / 'config.json').read_text())); "
        "reading = obtain_reading(RunStore(path.parent), config, None); "
        "assert reading.document() and reading.tensors(); assert 'torch' not in sys.modules"
    )
    command = [sys.executable, "-c", code, str(reading.path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", [*readings.FILES])
@pytest.mark.parametrize("damage", ["edit", "cut", "remove"])
def test_a_changed_file_is_refused_and_left_alone(tmp_path, name, damage):
    reading = obtain(tmp_path)
    path = reading.path / name
    data = bytearray(path.read_bytes())
    if damage == "remove":
        path.unlink()
    else:
        data[len(data) // 2] ^= 1
        path.write_bytes(bytes(data) if damage == "edit" else bytes(data[:-2]))
    left = files_under(reading.path)
    with pytest.raises(RunError, match=rf"{name}"):
        obtain(tmp_path, never)
    assert files_under(reading.path) == left


@pytest.mark.parametrize("name", [*readings.FILES, "manifest.json"])
def test_a_changed_reading_is_computed_again_where_that_is_asked_for(tmp_path, name):
    reading = obtain(tmp_path)
    path = reading.path / name
    path.write_bytes(path.read_bytes()[:-2])
    left = files_under(reading.path)
    store = RunStore(tmp_path, remeasure=True)
    counting = Counting()
    for _ in range(2):
        again = obtain_reading(store, make_config(battery="ov"), counting)
    assert counting.calls == 1 and again.document() == DOCUMENT
    (aside,) = (tmp_path / ".set-aside").iterdir()
    assert files_under(aside) == left


@pytest.mark.parametrize("name", ["reading.json", "profile.json", "provenance.json"])
def test_a_reading_whose_manifest_lacks_a_file_is_refused(tmp_path, name):
    path = obtain(tmp_path).path / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["files"][name]
    path.write_text(json.dumps(manifest))
    with pytest.raises(RunError, match=f"does not list {name}. Run again with --remeasure"):
        obtain(tmp_path, never)


def test_a_tensor_file_slipped_in_is_refused(tmp_path):
    reading = obtain(tmp_path, Counting(Computed(DOCUMENT)))
    (reading.path / "tensors.safetensors").write_bytes(b"from elsewhere")
    with pytest.raises(RunError, match=r"tensors\.safetensors: is not in manifest"):
        obtain(tmp_path, never)


def test_a_directory_of_another_config_is_refused(tmp_path):
    reading = obtain(tmp_path)
    config = make_config(battery="ov", seed=3)
    shutil.move(reading.path, tmp_path / config.name)
    with pytest.raises(RunError, match=r"config\.json.*seed"):
        obtain(tmp_path, never, seed=3)


def test_a_directory_of_something_else_is_refused(tmp_path):
    folder = tmp_path / make_config(battery="ov").name
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match=r"notes\.txt.*not an unfinished reading.*[Mm]ove"):
        obtain(tmp_path, never)
    assert files_under(folder) == {"notes.txt": b"mine"}


def test_a_complete_run_under_the_address_is_no_reading(tmp_path):
    reading = obtain(tmp_path)
    write_manifest(reading.path, ["config.json"], {})
    with pytest.raises(RunError, match=r"does not list reading\.json"):
        obtain(tmp_path, never)


@pytest.mark.parametrize("stop", ["before the document", "before the manifest"])
def test_an_unfinished_reading_is_begun_again(tmp_path, monkeypatch, stop):
    def cut(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        if stop == "before the manifest":
            patched.setattr(readings, "write_manifest", cut)
        with pytest.raises(KeyboardInterrupt):
            obtain(tmp_path, cut if stop == "before the document" else None)
    folder = tmp_path / make_config(battery="ov").name
    assert (folder / "config.json").is_file() and not (folder / "manifest.json").exists()
    (folder / ".reading.json.1.aa.tmp").write_bytes(b"half")
    counting = Counting(Computed({"n": 1}))  # this time without tensors
    reading = obtain(tmp_path, counting)
    assert counting.calls == 1 and reading.document() == {"n": 1} and reading.tensors() == {}
    assert set(files_under(folder)) == {
        "config.json",
        "reading.json",
        "provenance.json",
        "profile.json",
        "manifest.json",
    }


def test_figures_that_are_not_finite_are_not_written(tmp_path):
    with pytest.raises(RecordError, match=r"document\.p is nan"):
        obtain(tmp_path, Counting(Computed({"p": float("nan")})))
    broken = {"logits.0": np.array([1.0, np.inf], dtype=np.float32)}
    with pytest.raises(RunError, match=r"'logits\.0' holds a number that is not finite"):
        obtain(tmp_path, Counting(Computed(DOCUMENT, broken)))
    folder = tmp_path / make_config(battery="ov").name
    assert set(files_under(folder)) == {"config.json"}


def test_one_process_computes_while_another_waits(tmp_path):
    """The second finds it complete when it has the lock: it asks again after waiting."""
    store = RunStore(tmp_path, lock_timeout=0)
    config = make_config(battery="ov")

    def meanwhile() -> Computed:
        with pytest.raises(RunError, match="held by another process"):
            obtain_reading(store, config, never)
        return Computed(DOCUMENT)

    assert obtain_reading(store, config, meanwhile).document() == DOCUMENT
