"""Run: pytest tests/runs/test_store.py

Real damage in miniature: processes killed, files cut, tables edited, two workers at once.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pandas as pd
import pytest

from tests import synthetic_runs as synthetic
from tests.synthetic_runs import (
    KEYS,
    SHARDS,
    Counting,
    make_config,
    make_examples,
    obtain,
    without_picture,
)
from tinyablation.errors import RunError
from tinyablation.files.manifests import Damaged, write_manifest
from tinyablation.runs import store as runs
from tinyablation.runs.derived import Circumstances
from tinyablation.runs.store import (
    FILES,
    NotVerified,
    RunStore,
)

PATIENCE = 60  # seconds a subprocess may need to import pandas on a loaded machine


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A complete run. Tests that damage one take `copied`."""
    return obtain(tmp_path_factory.mktemp("finished"))


@pytest.fixture
def copied(finished, tmp_path):
    """The same run, moved: nothing in it knows where it lies."""
    shutil.copytree(finished.path, tmp_path / finished.name)
    return RunStore(tmp_path).open(finished.name)


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch):
    without_picture(monkeypatch)


def files_under(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def start(root: Path, log: Path, seconds: float) -> subprocess.Popen:
    script = Path(synthetic.__file__)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), str(root), str(log), str(seconds)]
    return subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_complete_run_has_exactly_the_files_of_its_manifest(finished):
    assert files_under(finished.path) == {*FILES, "manifest.json"}
    manifest = json.loads((finished.path / "manifest.json").read_text())
    assert set(manifest["files"]) == set(FILES)


def test_the_table_is_every_row_once_in_plan_order(finished):
    table = finished.table()
    labels = [
        "baseline",
        *(each.label for shard in SHARDS for each in shard.interventions),
    ]
    assert list(table["intervention"].unique()) == labels
    assert len(table) == len(labels) * synthetic.N_EXAMPLES
    assert not table.duplicated(["intervention", "example"]).any()
    pd.testing.assert_series_equal(
        table["clean"],
        make_examples()["clean"].loc[table["example"]].reset_index(drop=True),
    )


def test_a_complete_run_is_reused_without_computing(tmp_path, copied):
    first = copied
    before = {name: (first.path / name).read_bytes() for name in files_under(first.path)}
    counting = Counting()
    assert obtain(tmp_path, with_=counting) == first
    assert counting.keys == []
    assert before == {name: (first.path / name).read_bytes() for name in files_under(first.path)}
    assert RunStore(tmp_path).open(first.name) == first


def test_the_same_run_elsewhere_has_the_same_tables_to_the_byte(finished, tmp_path):
    other = obtain(tmp_path / "some where" / "é")
    assert other.name == finished.name
    for name in runs.TABLES:
        assert (other.path / name).read_bytes() == (finished.path / name).read_bytes()


def test_a_battery_without_heads_makes_a_whole_run(tmp_path):
    config = make_config(battery="baseline")
    run = RunStore(tmp_path).obtain(
        config, SHARDS[:1], synthetic.compute, make_examples(), verify=synthetic.verify
    )
    assert run.head_impact().empty
    assert len(run.table()) == synthetic.N_EXAMPLES
    assert files_under(run.path) == {*FILES, "manifest.json"}


# --- cut short -----------------------------------------------------------------------------------


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
def test_after_kill_9_finished_shards_are_kept_and_the_rest_is_computed(tmp_path):
    root, log = tmp_path / "runs", tmp_path / "log"
    partial = root / make_config().name / "partial_summary.json"
    process = start(root, log, 0.3)
    deadline = time.monotonic() + PATIENCE
    while not (partial.exists() and len(json.loads(partial.read_text())["done"]) >= 2):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    said = json.loads(partial.read_text())
    folder = partial.parent
    assert said["complete"] is False and said["done"] == KEYS[: len(said["done"])]
    assert said["done"] + said["missing"] == KEYS
    assert not (folder / "metrics").exists() and not (folder / "manifest.json").exists()
    assert RunStore(root).status(make_config()) == "partial"
    with pytest.raises(RunError, match=r"no complete run.*partial_summary"):
        RunStore(root).open(folder.name)
    (folder / "shards" / ".L01.parquet.1.aa.tmp").write_bytes(b"half")

    sidecars = {path.stem for path in (folder / "shards").glob("*.json")}
    counting = Counting()
    run = obtain(root, with_=counting)
    assert counting.keys == [key for key in KEYS if key not in sidecars]
    assert files_under(run.path) == {*FILES, "manifest.json"}
    whole = obtain(tmp_path / "whole")
    pd.testing.assert_frame_equal(run.table(), whole.table())
    profile = json.loads((run.path / "profile.json").read_text())
    assert profile["continued_from_an_earlier_attempt"] == [k for k in KEYS if k in sidecars]
    assert list(profile["seconds_by_shard"]) == KEYS


@pytest.mark.slow
def test_two_processes_compute_each_shard_once_in_all(tmp_path):
    root, log = tmp_path / "runs", tmp_path / "log"
    both = [start(root, log, 0.2) for _ in range(2)]
    for process in both:
        out, error = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, error
        assert out.strip() == make_config().name
    assert sorted(log.read_text().split()) == sorted(KEYS)
    RunStore(root).open(make_config().name)


def fail_at(key: str, reason: BaseException):
    def compute(shard):
        if shard.key == key:
            raise reason
        return synthetic.compute(shard)

    return compute


@pytest.mark.parametrize(
    ("reason", "state"),
    [(KeyboardInterrupt(), "interrupted"), (ValueError("no"), "failed")],
)
def test_an_exception_leaves_a_summary_that_says_what_is_missing(tmp_path, reason, state):
    with pytest.raises(type(reason)):
        obtain(tmp_path, with_=fail_at(KEYS[2], reason))
    folder = tmp_path / make_config().name
    said = json.loads((folder / "partial_summary.json").read_text())
    assert (said["state"], said["done"], said["missing"]) == (state, KEYS[:2], KEYS[2:])
    assert type(reason).__name__ in said["reason"]
    counting = Counting()
    obtain(tmp_path, with_=counting)
    assert counting.keys == KEYS[2:]


def test_a_run_killed_just_before_its_manifest_only_writes_the_manifest(tmp_path, monkeypatch):
    def cut(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(runs, "write_manifest", cut)
        with pytest.raises(KeyboardInterrupt):
            obtain(tmp_path)
    folder = tmp_path / make_config().name
    assert json.loads((folder / "partial_summary.json").read_text())["missing"] == []
    with pytest.raises(RunError, match="no complete run"):
        RunStore(tmp_path).open(folder.name)
    counting = Counting()
    run = obtain(tmp_path, with_=counting)
    assert counting.keys == [] and files_under(run.path) == {*FILES, "manifest.json"}


def test_a_run_killed_just_after_its_manifest_is_complete(tmp_path, monkeypatch):
    def cut(folder, names, facts):
        write_manifest(folder, names, facts)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(runs, "write_manifest", cut)
        with pytest.raises(KeyboardInterrupt):
            obtain(tmp_path)
    counting = Counting()
    run = obtain(tmp_path, with_=counting)
    assert counting.keys == [] and files_under(run.path) == {*FILES, "manifest.json"}


def cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_one_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("damage", [cut_in_half, flip_one_byte, Path.unlink])
def test_a_damaged_shard_of_a_partial_run_is_computed_again(tmp_path, damage, caplog):
    with pytest.raises(ValueError):
        obtain(tmp_path, with_=fail_at(KEYS[3], ValueError()))
    damage(tmp_path / make_config().name / "shards" / f"{KEYS[1]}.parquet")
    counting = Counting()
    run = obtain(tmp_path, with_=counting)
    assert counting.keys == [KEYS[1], *KEYS[3:]]
    assert KEYS[1] in caplog.text
    assert list(run.table()["intervention"].unique()[:2]) == ["baseline", "zero:0.0"]


# --- what must never be reused, nor overwritten --------------------------------------------------


def edit(path: Path) -> None:
    if path.suffix != ".parquet":  # of the same size
        data = path.read_bytes()
        at = next(n for n in range(len(data)) if data[n : n + 1].isalnum())
        path.write_bytes(data[:at] + (b"1" if data[at : at + 1] != b"1" else b"2") + data[at + 1 :])
        return
    table = pd.read_parquet(path)
    if table.empty:  # as layer_impact of a run without patches
        table.rename(columns={"value": "values"}).to_parquet(path)
        return
    number = "value" if "value" in table else "logit_diff"
    table.loc[0, number] += 1
    table.to_parquet(path)


@pytest.mark.parametrize("damage", [edit, cut_in_half, flip_one_byte, Path.unlink])
@pytest.mark.parametrize("name", FILES)
def test_a_changed_file_is_refused_by_name_and_left_alone(tmp_path, copied, name, damage):
    run = copied
    damage(run.path / name)
    left = files_under(run.path)
    counting = Counting()
    with pytest.raises(RunError, match=rf"{Path(name).name}.*Run again with --remeasure"):
        obtain(tmp_path, with_=counting)
    with pytest.raises(RunError, match=Path(name).name):
        RunStore(tmp_path).open(run.name)
    assert counting.keys == [] and files_under(run.path) == left


@pytest.mark.parametrize("name", ["verify.json", "metrics/summary.json", "profile.json"])
def test_a_manifest_that_lacks_a_file_is_refused(tmp_path, copied, name):
    path = copied.path / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["files"][name]
    path.write_text(json.dumps(manifest))
    with pytest.raises(Damaged, match=f"manifest.json: does not list {name}. .*--remeasure"):
        obtain(tmp_path)
    with pytest.raises(Damaged, match=f"does not list {name}"):
        RunStore(tmp_path).open(copied.name)
    obtain(tmp_path, remeasure=True)


@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
def test_what_was_changed_is_measured_again_where_that_is_asked_for(
    tmp_path, finished, copied, name, caplog
):
    kept = files_under(copied.path)
    flip_one_byte(copied.path / name)
    damaged = (copied.path / name).read_bytes()
    counting = Counting()
    again = obtain(tmp_path, with_=counting, remeasure=True)
    assert counting.keys == list(KEYS) and again.table().equals(finished.table())
    (aside,) = (tmp_path / ".set-aside").iterdir()
    assert aside.name.startswith(f"{copied.name}.") and files_under(aside) == kept
    assert (aside / name).read_bytes() == damaged
    assert f"moved to {aside}, and measured anew" in caplog.text
    obtain(tmp_path, with_=counting, remeasure=True)
    assert counting.keys == list(KEYS)  # a sound run stays


@pytest.mark.parametrize("complete", [True, False])
def test_a_directory_with_another_config_is_refused(tmp_path, finished, complete):
    if complete:
        shutil.copytree(finished.path, tmp_path / finished.name)
    else:
        with pytest.raises(ValueError):
            obtain(tmp_path, with_=fail_at(KEYS[1], ValueError()))
    path = tmp_path / make_config().name / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "seed": 7}))
    with pytest.raises(RunError, match=r"config\.json.*seed"):
        obtain(tmp_path)


def test_a_directory_of_unknown_origin_is_refused(tmp_path):
    folder = tmp_path / make_config().name
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match=r"notes\.txt.*no config"):
        obtain(tmp_path)
    assert (folder / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("complete", [True, False])
@pytest.mark.parametrize("changed", ["examples", "shards"])
def test_other_examples_or_shards_under_the_same_address_are_refused(
    tmp_path, finished, complete, changed
):
    if complete:
        shutil.copytree(finished.path, tmp_path / finished.name)
    else:
        with pytest.raises(ValueError):
            obtain(tmp_path, with_=fail_at(KEYS[2], ValueError()))
    examples = make_examples()
    if changed == "examples":
        examples.loc[3, "clean"] = "Another prompt"
    shards = SHARDS[:-1] if changed == "shards" else SHARDS
    with pytest.raises(RunError, match=f"other {changed}"):
        RunStore(tmp_path).obtain(
            make_config(), shards, synthetic.compute, examples, verify=synthetic.verify
        )


def test_runs_of_other_devices_and_seeds_lie_beside_each_other(tmp_path):
    names = {
        obtain(tmp_path, make_config(**changes)).name
        for changes in ({}, {"device": "cuda"}, {"seed": 1})
    }
    assert len(names) == 3 == len([path for path in tmp_path.iterdir() if path.name != ".locks"])


WAIT_BRIEFLY = """
import sys
from pathlib import Path
from tinyablation.runs.store import RunStore
with RunStore(Path(sys.argv[1]), lock_timeout=0.1).lock(sys.argv[2]):
    pass
"""


def test_waiting_for_a_lock_can_be_limited(tmp_path):
    command = [sys.executable, "-c", WAIT_BRIEFLY, str(tmp_path), make_config().name]
    with RunStore(tmp_path).lock(make_config().name):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0 and "held by another process" in done.stderr


def test_the_bar_counts_shards(tmp_path, capsys):
    obtain(tmp_path, progress=True)
    assert f"{len(KEYS)}/{len(KEYS)}" in capsys.readouterr().err


# --- waiting for another process, and what a run was computed with --------------------------------


def test_only_who_must_wait_makes_way(tmp_path):
    ways = []
    store = RunStore(tmp_path, lock_timeout=0.1, before_waiting=lambda: ways.append(1))
    assert store == RunStore(tmp_path, lock_timeout=0.1)  # what it does is no part of what it is
    with store.lock("a-run"):
        assert not ways
        with pytest.raises(RunError, match="held by another process"), store.lock("a-run"):
            pass
        assert ways == [1]
    with store.lock("a-run"):
        assert ways == [1]


def test_two_workers_that_want_what_the_other_has_both_finish(tmp_path):
    """One holds the accelerator and wants the run, the other the run and wants the accelerator."""
    accelerator = threading.Lock()
    has_run, done = threading.Event(), []

    def holds_the_run():
        with RunStore(tmp_path).lock("a-run"):
            has_run.set()
            done.append(accelerator.acquire(timeout=PATIENCE))
            accelerator.release()

    accelerator.acquire()
    other = threading.Thread(target=holds_the_run)
    other.start()
    assert has_run.wait(PATIENCE)
    store = RunStore(tmp_path, lock_timeout=PATIENCE, before_waiting=accelerator.release)
    with store.lock("a-run"):
        other.join(PATIENCE)
    assert done == [True]


def on(name: str):
    """Circumstances of a device of that name."""
    return lambda: Circumstances(
        ({"kind": "cuda", "name": name},), {"commit": "c0ffee"}, {"peak_device_bytes": 5}
    )


def test_a_run_says_which_devices_computed_it(tmp_path):
    """The kind is in the address; a run that was continued on another card of it names both."""
    config = make_config(device="cuda:1")
    with pytest.raises(ValueError):
        obtain(tmp_path, config, fail_at(KEYS[3], ValueError()), circumstances=on("one card"))
    run = obtain(tmp_path, config, circumstances=on("another"))
    provenance = run.provenance()
    assert provenance["device"] == "cuda"
    assert [device["name"] for device in provenance["devices"]] == ["one card", "another"]
    assert provenance["commit"] == "c0ffee" and provenance["config_hash"] == "e" * 64
    profile = json.loads((run.path / "profile.json").read_text())
    assert profile["peak_device_bytes"] == 5 and profile["rows"] == len(run.table())
    alone = obtain(tmp_path / "alone", config, circumstances=on("another")).provenance()
    assert [device["name"] for device in alone["devices"]] == ["another"]


def test_a_sample_that_is_not_verified_leaves_no_run_and_no_trust(tmp_path):
    def refuse(table):
        assert set(table["intervention"]) >= {"baseline", "zero:3.2"}  # the whole table
        raise NotVerified("the device computes nonsense")

    with pytest.raises(NotVerified, match="nonsense"):
        obtain(tmp_path, verify=refuse)
    folder = tmp_path / make_config().name
    said = json.loads((folder / "partial_summary.json").read_text())
    assert said["state"] == "failed" and said["missing"] == KEYS and "nonsense" in said["reason"]
    assert not (folder / "metrics").exists()
    assert len(list((folder / "shards").glob("*.parquet"))) == len(KEYS)  # to be looked at
    counting = Counting()
    run = obtain(tmp_path, with_=counting)
    assert counting.keys == KEYS and files_under(run.path) == {*FILES, "manifest.json"}


def test_a_check_that_cannot_be_made_now_leaves_the_shards(tmp_path):
    with pytest.raises(MemoryError):
        obtain(tmp_path, verify=lambda table: (_ for _ in ()).throw(MemoryError()))
    counting = Counting()
    obtain(tmp_path, with_=counting)
    assert counting.keys == []


def test_the_noise_floor_knows_where_it_was_seen(tmp_path):
    found = {"noise_floor": 0.1, "entropy": {"noise": 0.02}, "verified": "somehow"}
    run = obtain(tmp_path, make_config(device="cuda", dtype="bfloat16"), verify=lambda _: found)
    noise = run.noise_floor()
    assert noise == 0.1 and noise.of("entropy") == 0.02 and noise.of("kl") == 0.1
    assert noise.where == "cuda in bfloat16"
