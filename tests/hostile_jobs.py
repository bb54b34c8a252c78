"""Jobs of a worker that somebody has changed, and a process that leaves what is no receipt.

Not tests. What they send does something when it is loaded as a pickle, by any process but the one
that made it: it makes a folder.

As a worker of batch jobs: python -m tests.hostile_jobs KIND FUNCTION RECEIPT
"""

import copyreg
import json
import os
import pickle
import sys
from pathlib import Path
from typing import Any


def spring(folder: str, maker: int) -> Exception:
    """What a pickle calls as it is loaded. dask tries exceptions out, so this returns one."""
    if os.getpid() != maker:
        os.mkdir(folder)
    return ValueError(folder)


class Trap:
    """Its pickle makes a folder when it is loaded."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return spring, (self.folder, os.getpid())


class Trapped(Exception):
    """An exception whose pickle makes a folder."""

    def __reduce__(self) -> tuple[Any, ...]:
        return spring, (self.args[0], os.getpid())


def returning(folder: str) -> object:
    return Trap(folder)


def returning_in_a_list(folder: str) -> object:
    return ["text", Trap(folder)]


def returning_no_text(folder: str) -> object:
    return {"run": 1}


def raising(folder: str) -> str:
    raise Trapped(folder)


def of_a_type(folder: str) -> object:
    """A result whose type is sent as a pickle, which dask shows to the client by itself."""

    class Meta(type):
        pass

    copyreg.pickle(Meta, lambda kind: (spring, (folder, os.getpid())))
    return Meta("Kind", (str,), {})("text")


def warning(folder: str) -> str:
    """A warning for all clients, which dask sends as a pickle."""
    from distributed import get_worker

    trap = pickle.dumps(Trap(folder))
    get_worker().log_event("warn", {"message": trap, "category": trap})
    get_worker().log_event("print", {"args": ("\x1b[2J",)})
    return "text"


def text(folder: str) -> str:
    return "text"


def leave(kind: str, receipt: Path, folder: str) -> None:
    """Leave in a receipt's place what somebody who can write there might."""
    if kind == "pickle":
        receipt.write_bytes(pickle.dumps(Trap(folder)))
    elif kind == "fifo":
        os.mkfifo(receipt)
    elif kind == "device":
        receipt.symlink_to("/dev/zero")
    elif kind == "folder":
        receipt.mkdir()
    elif kind == "large":
        receipt.write_text(" " * 2**22)
    elif kind == "other":
        receipt.write_text("[" * 100_000)
    elif kind == "error":
        error = {"kind": "os:mkdir", "message": folder, "trace": "\x1b[2J"}
        receipt.write_text(json.dumps({"run": "?", "worker": "w", "error": error}))


if __name__ == "__main__":
    sys.stdin.read()
    leave(sys.argv[1], Path(sys.argv[3]), os.environ["TRAP"])
