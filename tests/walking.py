"""A pytest plugin that writes down in which order the functions named by WALK are first called.

Not tests: test_walk.py loads it with -p into a session of its own.
"""

import json
import os
import sys
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

ROOT = Path(__file__).parent.parent


def pytest_configure(config: Any) -> None:
    wanted = [tuple(stop) for stop in json.loads(os.environ["WALK"])]
    places: dict[CodeType, tuple[str, str]] = {}
    order: list[tuple[str, str]] = []

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event != "call":
            return
        code = frame.f_code
        if code not in places:
            places[code] = (code.co_filename.removeprefix(f"{ROOT}/"), code.co_qualname)
        stop = places[code]
        # What is called before the first of them is the gate's, which measures as well.
        if stop in wanted and stop not in order and (order or stop == wanted[0]):
            order.append(stop)

    def written() -> None:
        sys.setprofile(None)
        Path(os.environ["WALKED"]).write_text(json.dumps(order))

    sys.setprofile(note)
    config.add_cleanup(written)
