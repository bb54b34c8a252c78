"""Changes a dask scheduler that preloads it: all it says to clients comes with pickles. Not tests.

TRAP: the folder that a pickle makes when it is loaded. TRAP.sent is written when one was sent.
"""

import os
import pickle
from pathlib import Path
from typing import Any

from distributed import Scheduler
from distributed.protocol import Serialize
from distributed.protocol.serialize import ToPickle

from tests.hostile_jobs import Trap


def _note(kind: str) -> None:
    with Path(f"{os.environ['TRAP']}.sent").open("a") as log:
        log.write(f"{kind}\n")


def dask_setup(scheduler: Scheduler) -> None:
    own = scheduler.send_all
    trap = Trap(os.environ["TRAP"])
    pickled = pickle.dumps(trap)
    kind = os.environ["KIND"]

    def changed(msg: dict[str, Any]) -> dict[str, Any]:
        _note(kind)
        erred = {"key": msg["key"], "exception": pickled, "traceback": pickled}
        warned = (0, {"message": pickled, "category": pickled})
        return {
            "type": {**msg, "type": pickled},
            "erred": {**erred, "op": "task-erred"},
            "in the message": {**msg, "workers": ToPickle(trap)},
            "in a part of it": {**msg, "workers": Serialize(trap)},
            "an error": {"status": "error", "exception": pickled, "traceback": pickled},
            "a warning": {"op": "event", "topic": "warn", "event": warned},
        }[kind]

    def send_all(client_msgs: dict[str, list[dict[str, Any]]], worker_msgs: Any) -> None:
        more = {
            client: [changed(msg) for msg in msgs if msg.get("op") == "key-in-memory"]
            for client, msgs in client_msgs.items()
        }
        own({client: more[client] + msgs for client, msgs in client_msgs.items()}, worker_msgs)

    scheduler.send_all = send_all  # type: ignore[method-assign]
