"""What tests of the engine look at within it."""

from typing import Any

import pytest


@pytest.fixture
def computed_rows(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many changed prompts each pass of any engine computes, filled as it measures."""
    from tinyablation.engine.engine import Engine

    rows: list[int] = []
    run = Engine._run

    def counting(self: Engine, chunk: Any, start: Any, segments: Any) -> Any:
        rows.append(segments[-1].rows.stop)
        return run(self, chunk, start, segments)

    monkeypatch.setattr(Engine, "_run", counting)
    return rows
