"""Several processes fill one run: each shard once, and the same tables to the byte.

Run: pytest tests/runs/test_filling.py
"""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import synthetic_runs as synthetic
from tests.synthetic_runs import (
    KEYS,
    SHARDS,
    Counting,
    compute,
    make_config,
    make_examples,
    obtain,
    tables,
    without_picture,
)
from tinyablation.errors import RunError
from tinyablation.runs import store as runs
from tinyablation.runs.locks import RunLocks
from tinyablation.runs.store import RunStore

PATIENCE = 60  # seconds a subprocess may need to import pandas on a loaded machine


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    without_picture(monkeypatch)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The tables of a run that one process made, by name."""
    return tables(obtain(tmp_path_factory.mktemp("alone")).path)


def locks(root: Path, **options: object) -> RunLocks:
    return RunLocks(root, make_config().name, **options)  # type: ignore[arg-type]


@pytest.fixture
def start() -> Iterator[object]:
    """Start processes that work on a run; what is left of them at the end is killed."""
    begun: list[subprocess.Popen[str]] = []

    def start(root: Path, log: Path, seconds: float, *keys: str) -> subprocess.Popen[str]:
        command = [sys.executable, synthetic.__file__, str(root), str(log), str(seconds), *keys]
        begun.append(
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
        return begun[-1]

    yield start
    for process in begun:
        if process.poll() is None:
            process.kill()
        process.communicate()


def finished(process: subprocess.Popen[str]) -> None:
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, said


def until(path: Path, lines: int) -> list[str]:
    """The first lines of a growing file, once it has so many."""
    deadline = time.monotonic() + PATIENCE
    while not path.exists() or len(path.read_text().split()) < lines:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return path.read_text().split()


# --- processes -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_any_number_of_processes_makes_the_same_tables(tmp_path, alone, start, workers):
    root, log = tmp_path / "runs", tmp_path / "log"
    for process in [start(root, log, 0.2) for _ in range(workers)]:
        finished(process)
    assert sorted(log.read_text().split()) == sorted(KEYS)
    assert tables(root / make_config().name) == alone
    assert not list((root / ".locks").glob("*.L0*.lock"))  # claims of a complete run are gone


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_any_order_makes_the_same_tables(tmp_path, alone, start, seed):
    """Each process is given shards of its own, the baseline among the last."""
    order = KEYS[1:]
    random.Random(seed).shuffle(order)
    order.append(KEYS[0])
    root, log = tmp_path / "runs", tmp_path / "log"
    for keys in (order[:2], order[2:4], order[4:]):
        finished(start(root, log, 0, *keys))
    assert log.read_text().split() != KEYS and set(log.read_text().split()) == set(KEYS)
    assert len(log.read_text().split()) == len(KEYS)
    assert tables(root / make_config().name) == alone


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
def test_the_shard_of_a_killed_process_is_taken_over(tmp_path, alone, start):
    root, log, others = tmp_path / "runs", tmp_path / "first", tmp_path / "others"
    first = start(root, log, 3600)
    (at,) = until(log, 1)
    rest = [start(root, others, 0.1) for _ in range(2)]
    until(others, len(KEYS) - 1)
    assert at not in others.read_text().split()  # claimed, so nobody else took it
    first.send_signal(signal.SIGKILL)
    for process in rest:
        finished(process)
    assert sorted(others.read_text().split()) == sorted(KEYS)
    assert tables(root / make_config().name) == alone


# --- within one process ---------------------------------------------------------------------------


def test_who_finds_shards_claimed_computes_the_others_first(tmp_path):
    ways: list[list[str]] = []
    counting = Counting()
    store = RunStore(tmp_path, before_waiting=lambda: ways.append(list(counting.keys)))
    own = locks(tmp_path)
    done: list[runs.Run] = []

    def work() -> None:
        done.append(
            store.obtain(make_config(), SHARDS, counting, make_examples(), verify=synthetic.verify)
        )

    with own.claim(KEYS[1]) as claimed:
        assert claimed
        other = threading.Thread(target=work)
        other.start()
        deadline = time.monotonic() + PATIENCE
        while not ways:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        others = [key for key in KEYS if key != KEYS[1]]
        assert counting.keys == others and ways == [others]
        said = json.loads((tmp_path / make_config().name / "partial_summary.json").read_text())
        assert said["done"] == others[: len(said["done"])] and KEYS[1] in said["missing"]
    other.join(PATIENCE)
    assert counting.keys == [*others, KEYS[1]] and done[0].name == make_config().name


def test_a_claim_that_is_not_had_in_time_is_refused(tmp_path):
    store = RunStore(tmp_path, lock_timeout=0.1)
    outcome: list[BaseException] = []

    def work() -> None:
        try:
            store.obtain(make_config(), SHARDS, compute, make_examples(), verify=synthetic.verify)
        except RunError as error:
            outcome.append(error)

    with locks(tmp_path).claim(KEYS[2]):
        other = threading.Thread(target=work)
        other.start()
        other.join(PATIENCE)
    assert f"{KEYS[2]}.lock: held by another process for over 0.1 s" in str(outcome[0])


def test_the_summary_tells_of_all_processes(tmp_path):
    """Two at once: what is done is what is there, and each is at its own shard."""
    seen: list[dict[str, object]] = []
    folder = tmp_path / make_config().name

    def watching(shard):
        if shard.key == KEYS[3]:  # meanwhile another computes the next one
            RunStore(tmp_path).advance(
                make_config(), SHARDS, [KEYS[4]], compute, make_examples(), verify=synthetic.verify
            )
            seen.append(json.loads((folder / "partial_summary.json").read_text()))
        return compute(shard)

    counting = Counting()
    obtain(tmp_path, with_=watching)
    obtain(tmp_path, with_=counting)
    (said,) = seen
    assert said["done"] == KEYS[:3] and said["missing"] == KEYS[3:]
    assert said["process"] == os.getpid() and counting.keys == []
    assert set(said["computing"]) == {KEYS[4]}  # one process is at one shard at a time


def test_a_baseline_computed_last_is_compared_with_all(tmp_path):
    """Shards whose own baseline came before the baseline shard are checked when they are merged."""
    store, config, examples = RunStore(tmp_path), make_config(), make_examples()

    def moved(shard):
        rows = compute(shard)
        own = rows["intervention"] == "baseline"
        return (
            rows.assign(logit_diff=rows["logit_diff"] + own * 1e-3) if shard.key != "L02" else rows
        )

    verify = synthetic.verify
    store.advance(config, SHARDS, KEYS[1:], moved, examples, verify=verify)
    with pytest.raises(RunError, match=r"shard L00: its baseline differs .* by 0\.001 logits"):
        store.advance(config, SHARDS, KEYS[:1], compute, examples, verify=verify)
    assert store.status(config) == "partial"


def test_the_last_shard_finishes_the_run(tmp_path, alone):
    store, config, examples = RunStore(tmp_path), make_config(), make_examples()
    verify = synthetic.verify
    for number, key in enumerate(reversed(KEYS), 1):
        assert store.missing(config, SHARDS) == KEYS[: len(KEYS) - number + 1]
        assert store.status(config) != "complete"
        seconds = store.advance(config, SHARDS, [key], compute, examples, verify=verify)
        assert set(seconds) == {key}
    assert store.status(config) == "complete" and store.missing(config, SHARDS) == []
    assert tables(store.path(config)) == alone
    assert store.advance(config, SHARDS, KEYS, compute, examples, verify=verify) == {}


def test_a_shard_of_another_address_is_computed_again(tmp_path, caplog):
    """As when its file was copied from a run with another seed."""
    store, examples = RunStore(tmp_path), make_examples()
    configs = [make_config(seed=seed) for seed in (0, 1)]
    for config in configs:
        store.advance(config, SHARDS, KEYS[:2], compute, examples, verify=synthetic.verify)
    source, target = (store.path(config) / "shards" for config in configs)
    for name in (f"{KEYS[1]}.parquet", f"{KEYS[1]}.json"):
        (target / name).write_bytes((source / name).read_bytes())
    counting = Counting()
    obtain(tmp_path, configs[1], counting)
    assert counting.keys == KEYS[1:] and "address differs" in caplog.text
