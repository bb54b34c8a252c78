"""A dask scheduler and its workers as processes of this machine, on loopback. Not tests."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).parent.parent
PATIENCE = 120.0  # seconds a process may need to import torch and dask on a loaded machine
ENVIRONMENT = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def until(what: str, holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, f"no {what} within {PATIENCE} s"
        time.sleep(0.02)


class Processes:
    """Processes that are ended at the end, and what they said. stores: of the workers."""

    def __init__(self, folder: Path, stores: Path) -> None:
        self.folder = folder
        self.environment = ENVIRONMENT | {"TINYABLATION_STORES": str(stores)}
        self.begun: list[subprocess.Popen[bytes]] = []

    def start(self, *command: str, more: Mapping[str, str] = {}) -> "subprocess.Popen[bytes]":
        """Start `dask` with a command; more: of its environment."""
        log = self.folder / f"{len(self.begun)}.log"
        with log.open("wb") as stream:
            self.begun.append(
                subprocess.Popen(
                    [sys.executable, "-m", "dask", *command],
                    env={**os.environ, **self.environment, **more},
                    stdout=stream,
                    stderr=subprocess.STDOUT,
                    cwd=self.folder,
                )
            )
        return self.begun[-1]

    def said(self, number: int) -> str:
        return (self.folder / f"{number}.log").read_text(errors="replace")

    def cluster(self, workers: int, *preload: str) -> str:
        """Start a scheduler (with a module that it loads first) and workers; its address."""
        where = self.folder / "scheduler.json"
        local = ("--host", "127.0.0.1", "--no-dashboard", "--dashboard-address", "127.0.0.1:0")
        loaded = [word for module in preload for word in ("--preload", module)]
        file = ("--scheduler-file", str(where))
        self.start("scheduler", *local, "--port", "0", *file, *loaded)
        until("scheduler", where.exists)
        until("address", lambda: bool(where.read_text().strip()))
        address: str = json.loads(where.read_text())["address"]
        for number in range(workers):
            self.start(
                *("worker", address, *local, "--no-nanny", "--nthreads", "1"),
                *("--death-timeout", "20", "--name", f"worker-{number}"),
                *("--local-directory", str(self.folder / f"worker-{number}")),
            )
        return address.partition("://")[2]

    def end(self) -> None:
        for process in self.begun:
            if process.poll() is None:
                process.kill()
            process.wait(PATIENCE)
