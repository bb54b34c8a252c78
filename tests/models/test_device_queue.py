"""Processes that share a device take turns. Memory figures are made up: no GPU is needed.

Run: pytest tests/models/test_device_queue.py
"""

import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tinyablation.errors import LoadingError, TooLarge
from tinyablation.models import device_queue as module
from tinyablation.models.device_queue import Turns, default_folder
from tinyablation.models.devices import Memory

pytestmark = pytest.mark.slow  # sessions, servers or processes of their own: make slow

GB = 10**9
# How long a test waits for what must happen, before it says that it did not.
LONGEST_SECONDS = 30.0

# A worker: takes a turn of 1 GB-units, notes when it had it, and for how long it "computes".
WORKER = """
import sys, time
from pathlib import Path
from tinyablation.models import device_queue as turns
from tinyablation.models.devices import Memory
turns.POLL_SECONDS = 0.02
folder, owner, needed, total, seconds = sys.argv[1:]
them = turns.Turns(
    Path(folder),
    lambda line: print("said", line, flush=True),
    memory=lambda device: Memory(int(total), int(total)),
    identity=str,
)
with them.take({"cuda:0": int(needed)}, owner=owner, purpose="m"):
    print("began", time.monotonic(), flush=True)
    time.sleep(float(seconds))
    print("ended", time.monotonic(), flush=True)
"""


def worker(
    folder: Path, owner: str, *, needed: int, total: int, seconds: float
) -> "subprocess.Popen[str]":
    arguments = [str(folder), owner, str(needed), str(total), str(seconds)]
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, *arguments], stdout=subprocess.PIPE, text=True
    )


def intervals(
    folder: Path, count: int, *, needed: int, total: int, seconds: float
) -> list[tuple[float, float]]:
    """When each of some workers, started together, had its turn."""
    workers = [
        worker(folder, f"gw{n}", needed=needed, total=total, seconds=seconds) for n in range(count)
    ]
    found = []
    for one in workers:
        out, _ = one.communicate(timeout=LONGEST_SECONDS)
        assert one.returncode == 0
        words = dict(line.split(maxsplit=1) for line in out.splitlines())
        found.append((float(words["began"]), float(words["ended"])))
    return found


def most_at_once(found: list[tuple[float, float]]) -> int:
    return max(sum(begin <= moment < end for begin, end in found) for moment, _ in found)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_SECONDS", 0.01)


class Device:
    """A made-up device, and what is said by those who want it."""

    def __init__(self, folder: Path, total: int = 100 * GB) -> None:
        self.folder = folder
        self.total = total
        self.foreign = 0
        self.identity: Callable[[str], str] = str
        self.said: list[str] = []

    def turns(self) -> Turns:
        return Turns(
            self.folder,
            self.said.append,
            memory=lambda device: Memory(self.total - self.foreign, self.total),
            identity=self.identity,
        )

    def tickets(self) -> list[str]:
        return sorted(path.name for path in self.folder.glob("*.json"))


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path / "turns")


class Waiter(threading.Thread):
    """Takes a turn in a thread of its own; what went wrong there is raised by `join`."""

    def __init__(
        self,
        device: Device,
        needed: dict[str, int],
        owner: str,
        yield_device: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(daemon=True)
        self.device, self.needed, self.owner, self.yield_device = (
            device,
            needed,
            owner,
            yield_device,
        )
        self.has = threading.Event()
        self.may_end = threading.Event()
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            with self.device.turns().take(
                self.needed, owner=self.owner, purpose="m", yield_device=self.yield_device
            ):
                self.has.set()
                self.may_end.wait(LONGEST_SECONDS)
        except BaseException as error:
            self.error = error

    def end(self) -> None:
        self.may_end.set()
        self.join(LONGEST_SECONDS)
        assert not self.is_alive() and self.error is None


def until(true: Callable[[], bool]) -> None:
    limit = time.monotonic() + LONGEST_SECONDS
    while not true():
        assert time.monotonic() < limit, "it never came to be"
        time.sleep(0.005)


# --- processes -----------------------------------------------------------------------------------


def test_with_room_for_one_four_workers_go_one_by_one(tmp_path: Path) -> None:
    found = intervals(tmp_path, 4, needed=60, total=100, seconds=0.2)
    assert len(found) == 4 and most_at_once(found) == 1


def test_with_room_for_two_they_go_two_by_two(tmp_path: Path) -> None:
    # Long enough for all four to have started.
    found = intervals(tmp_path, 4, needed=45, total=100, seconds=1.5)
    assert len(found) == 4 and most_at_once(found) == 2


def test_the_turn_of_a_killed_process_is_free(device: Device) -> None:
    holder = worker(device.folder, "gw1", needed=60 * GB, total=100 * GB, seconds=600)
    assert holder.stdout is not None and holder.stdout.readline().startswith("began")
    waiter = Waiter(device, {"cuda:0": 60 * GB}, "gw2")
    until(lambda: bool(device.said))
    assert device.said == ["waiting for 60.0 GB on cuda:0: gw1 holds 60.0 GB for m"]
    time.sleep(0.1)  # ten looks
    assert not waiter.has.is_set() and len(device.tickets()) == 2
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait(LONGEST_SECONDS)
    assert waiter.has.wait(LONGEST_SECONDS) and len(device.tickets()) == 1
    waiter.end()
    assert device.tickets() == [] and not list(device.folder.glob("[0-9]*"))
    holder.stdout.close()


def test_a_killed_waiter_holds_up_nobody(device: Device) -> None:
    first = device.turns().take({"cuda:0": 60 * GB}, owner="gw0", purpose="m")
    killed = worker(device.folder, "gw1", needed=90 * GB, total=100 * GB, seconds=600)
    assert killed.stdout is not None and killed.stdout.readline().startswith("said waiting")
    waiter = Waiter(device, {"cuda:0": 20 * GB}, "gw2")
    until(lambda: bool(device.said))
    assert device.said == [
        "waiting for 20.0 GB on cuda:0: gw0 holds 60.0 GB for m, "
        "gw1 waits for 90.0 GB for m and came first"
    ]
    killed.kill()
    killed.wait(LONGEST_SECONDS)
    assert waiter.has.wait(LONGEST_SECONDS)
    waiter.end()
    first.release()
    killed.stdout.close()


# --- order ---------------------------------------------------------------------------------------


def test_small_models_do_not_starve_a_large_one(device: Device) -> None:
    holder = device.turns().take({"cuda:0": 50 * GB}, owner="gw0", purpose="m")
    large = Waiter(device, {"cuda:0": 90 * GB}, "gw1")
    until(lambda: len(device.said) == 1)
    small = [Waiter(device, {"cuda:0": 10 * GB}, f"gw{n}") for n in (2, 3)]
    until(lambda: len(device.said) >= 3)
    time.sleep(0.1)
    # 50 GB are free, and 10 GB would fit.
    assert not any(one.has.is_set() for one in (large, *small))
    holder.release()
    assert large.has.wait(LONGEST_SECONDS)
    time.sleep(0.1)
    assert not any(one.has.is_set() for one in small)
    large.end()
    assert all(one.has.wait(LONGEST_SECONDS) for one in small)
    for one in small:
        one.end()


def test_devices_are_taken_all_at_once_or_not_at_all(device: Device) -> None:
    first = device.turns().take({"cuda:1": 60 * GB}, owner="gw0", purpose="m")
    both = Waiter(device, {"cuda:0": 60 * GB, "cuda:1": 60 * GB}, "gw1")
    until(lambda: bool(device.said))
    assert device.said == ["waiting for 60.0 GB on cuda:1: gw0 holds 60.0 GB for m"]
    # Nothing of cuda:0 is reserved yet; but who comes now waits behind the one who wants both.
    assert device.turns().capacity("cuda:0") == Memory(100 * GB, 100 * GB)
    other = device.turns().take({"cuda:2": 90 * GB}, owner="gw2", purpose="m")
    behind = Waiter(device, {"cuda:0": 30 * GB}, "gw3")
    until(lambda: len(device.said) == 2)
    assert "gw1 waits for 60.0 GB for m and came first" in device.said[1]
    first.release()
    assert both.has.wait(LONGEST_SECONDS)
    # Beside the 60 GB there is room for 30.
    assert behind.has.wait(LONGEST_SECONDS)
    for one in (both, behind):
        one.end()
    other.release()
    assert device.tickets() == []


def test_one_gpu_under_two_names_is_one(device: Device) -> None:
    # As two sessions see it that were started with different CUDA_VISIBLE_DEVICES.
    device.identity = {"cuda:0": "uuid-7"}.__getitem__
    held = device.turns().take({"cuda:0": 60 * GB}, owner="a", purpose="m")
    device.identity = {"cuda:0": "uuid-2", "cuda:3": "uuid-7"}.__getitem__
    device.turns().take({"cuda:0": 60 * GB}, owner="b", purpose="m").release()
    waiter = Waiter(device, {"cuda:3": 60 * GB}, "b")
    until(lambda: bool(device.said))
    assert device.said == ["waiting for 60.0 GB on cuda:3: a holds 60.0 GB for m"]
    held.release()
    assert waiter.has.wait(LONGEST_SECONDS)
    waiter.end()


# --- giving way ----------------------------------------------------------------------------------


def test_a_process_gives_way_before_it_waits(device: Device) -> None:
    them = device.turns()
    own = them.take({"cuda:0": 40 * GB}, owner="gw0", purpose="first")
    ways: list[str] = []

    def yield_device() -> None:
        ways.append("given")
        own.release()

    # It fits beside what it has: nothing is given up.
    second = them.take(
        {"cuda:0": 40 * GB}, owner="gw0", purpose="second", yield_device=yield_device
    )
    assert ways == []
    other = Waiter(device, {"cuda:0": 10 * GB}, "gw1")
    assert other.has.wait(LONGEST_SECONDS)

    def give_both() -> None:
        yield_device()
        second.release()

    # Giving way is enough, so nothing is said: nobody waits.
    third = Waiter(device, {"cuda:0": 80 * GB}, "gw0", give_both)
    assert third.has.wait(LONGEST_SECONDS)
    assert ways == ["given"] and device.said == []
    third.end()
    other.end()


def test_two_who_want_each_others_memory_both_get_it(device: Device) -> None:
    ends = []

    def one(name: str) -> None:
        them = device.turns()
        turn = them.take({"cuda:0": 45 * GB}, owner=name, purpose="first")
        barrier.wait(LONGEST_SECONDS)  # both hold 45 of 98, and now both want 90
        with them.take({"cuda:0": 90 * GB}, owner=name, purpose="b", yield_device=turn.release):
            ends.append(name)

    barrier = threading.Barrier(2)
    threads = [threading.Thread(target=one, args=(name,), daemon=True) for name in ("gw0", "gw1")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONGEST_SECONDS)
    assert sorted(ends) == ["gw0", "gw1"]


# --- what is said, and refused -------------------------------------------------------------------


def test_waiting_is_said_once_per_change(device: Device) -> None:
    first, second = (
        device.turns().take({"cuda:0": 45 * GB}, owner=f"gw{n}", purpose=f"model-{n}")
        for n in (0, 1)
    )
    waiter = Waiter(device, {"cuda:0": 90 * GB}, "gw2")
    until(lambda: bool(device.said))
    time.sleep(0.1)
    first.release()
    until(lambda: len(device.said) == 2)
    second.release()
    assert waiter.has.wait(LONGEST_SECONDS)
    waiter.end()
    assert device.said == [
        "waiting for 90.0 GB on cuda:0: gw0 holds 45.0 GB for model-0, "
        "gw1 holds 45.0 GB for model-1",
        "waiting for 90.0 GB on cuda:0: gw1 holds 45.0 GB for model-1",
        "took 90.0 GB on cuda:0 for m after 0 s",
    ]


def test_what_never_fits_is_refused_at_once(device: Device) -> None:
    with pytest.raises(
        TooLarge,
        match="mistral-7b needs 99.0 GB of cuda:0, which has 100.0 GB in all; try --dtype bfloat16",
    ):
        device.turns().take({"cuda:0": 99 * GB}, owner="gw0", purpose="mistral-7b")
    assert device.tickets() == [] and device.said == []


def test_other_programs_are_waited_for_only_so_long(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.05)
    device.foreign = 70 * GB
    with pytest.raises(TooLarge, match="other programs hold 70.0 GB of 100.0 GB, and still do"):
        device.turns().take({"cuda:0": 40 * GB}, owner="gw0", purpose="m")
    assert device.said == ["waiting for 40.0 GB on cuda:0: other programs hold 70.0 GB of 100.0 GB"]
    assert device.tickets() == []
    # Within the time they may end.
    monkeypatch.setattr(module, "PATIENCE_SECONDS", LONGEST_SECONDS)
    waiter = Waiter(device, {"cuda:0": 40 * GB}, "gw0")
    until(lambda: len(device.said) == 2)
    device.foreign = 50 * GB
    assert waiter.has.wait(LONGEST_SECONDS)
    waiter.end()


def test_other_workers_are_waited_for_however_long(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.0)
    holder = device.turns().take({"cuda:0": 60 * GB}, owner="gw0", purpose="m")
    waiter = Waiter(device, {"cuda:0": 60 * GB}, "gw1")
    until(lambda: bool(device.said))
    time.sleep(0.1)
    assert waiter.is_alive()
    holder.release()
    assert waiter.has.wait(LONGEST_SECONDS)
    waiter.end()


def test_capacity_is_what_models_could_have_together(device: Device) -> None:
    them = device.turns()
    device.foreign = 30 * GB
    assert them.capacity("cuda:0") == Memory(70 * GB, 100 * GB)
    with them.take({"cuda:0": 50 * GB}, owner="gw0", purpose="m"):
        device.foreign = 30 * GB + 50 * GB  # the holder has loaded its model
        assert them.capacity("cuda:0") == Memory(70 * GB, 100 * GB)
        with them.take({"cuda:0": 18 * GB}, owner="gw1", purpose="m"):
            pass
        ways: list[int] = []

        def stop() -> None:
            ways.append(1)
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):  # 2 of the 20 GB are spared
            them.take({"cuda:0": 19 * GB}, owner="gw1", purpose="m", yield_device=stop)
    # An interrupted wait leaves no ticket in anybody's way.
    assert ways == [1] and device.tickets() == []


def test_a_turn_is_released_once_and_nothing_needs_none(device: Device) -> None:
    them = device.turns()
    turn = them.take({"cuda:0": 60 * GB}, owner="gw0", purpose="m")
    assert json.loads((device.folder / "1.json").read_text())["pid"] == os.getpid()
    turn.release()
    after = them.take({"cuda:0": 60 * GB}, owner="gw1", purpose="m")
    turn.release()
    assert device.tickets() == ["2.json"]
    with them.take({}, owner="gw0", purpose="a model on the CPU"):
        assert device.tickets() == ["2.json"]
    after.release()


def test_the_folder_is_the_users_own(
    device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device.turns().take({"cuda:0": GB}, owner="gw0", purpose="m").release()
    assert stat.S_IMODE(device.folder.stat().st_mode) == 0o700
    (tmp_path / "link").symlink_to(device.folder)
    with pytest.raises(LoadingError, match="does not belong to this user"):
        Device(tmp_path / "link").turns().capacity("cuda:0")
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000)
    with pytest.raises(LoadingError, match="set TMPDIR"):
        device.turns().capacity("cuda:0")
    assert default_folder().name == "tinyablation-turns-4000000"
