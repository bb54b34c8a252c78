"""Whether a cell's prediction was changed after its measurement existed.

This is detected in two ways. The prediction itself says so: its reason begins with "changed after".
Or the cell was judged on the same runs before, with another prediction: the prediction at the first
judging of runs is stored under <reports>/predictions/ and never overwritten. Run names are
addresses of everything a measurement depends on, so a new measurement may get a new prediction.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tinyablation.errors import TinyAblationError
from tinyablation.files.contents import read_text
from tinyablation.files.hashes import text_sha256
from tinyablation.files.manifests import write_atomic
from tinyablation.plugin.command_line import command
from tinyablation.plugin.options import protocol, reports_base
from tinyablation.plugin.predictions import predicted
from tinyablation.records.plain import Plain, RecordError
from tinyablation.report.text import slug


class LedgerError(TinyAblationError):
    """The stored first prediction cannot be read; the message names the file."""


class Registered(Plain):
    """The prediction for a cell when its runs were first judged; None if there was none."""

    prediction: str | None
    date: str
    runs: list[str]


def prediction_changed(item: pytest.Item, record: Mapping[str, Any]) -> str | None:
    """How the prediction of a judged cell was changed after its measurement; None if it was not.

    The first judging of these runs stores the prediction. Cells without runs, the published
    protocol and heads named by --heads are not checked. Raises LedgerError for an unreadable file,
    because a change would otherwise go unnoticed.
    """
    by_hand = command(item.config).heads is not None  # predictions are about the declared heads
    if protocol(item.config) != "corrected" or not record["runs"] or by_hand:
        return None
    now = record["prediction"]
    path = _place(item.config, record)
    first = _read(path)
    if first is None:
        today = datetime.now(UTC).date().isoformat()
        first = Registered(prediction=now, date=today, runs=list(record["runs"]))
        _write(path, first)
    said = []
    prediction = predicted(item)
    if prediction is not None and prediction.is_changed:
        said.append(prediction.reason)
    if first.prediction != now:
        said.append(
            f"{first.prediction or 'nothing'} was registered when these runs were first judged "
            f"({first.date}), {now or 'nothing'} is registered now"
        )
    return "; ".join(said) or None


def _place(config: pytest.Config, record: Mapping[str, Any]) -> Path:
    rests_on = json.dumps([record["test"], sorted(set(record["runs"]))])
    key = text_sha256(rests_on)[:16]
    name = slug(record["claim"], record["name"], record["model"], record["condition"])
    return reports_base(config) / "predictions" / f"{name}-{key}.json"


def _read(path: Path) -> Registered | None:
    try:
        return Registered.model_validate_json(read_text(path))
    except FileNotFoundError:
        return None
    except (OSError, ValidationError, RecordError, UnicodeDecodeError) as error:
        said = str(error).splitlines()[0]
        raise LedgerError(
            f"{path}: what was registered when its runs were first judged cannot be read ({said}); "
            "remove it, and what is registered now counts as the first"
        ) from error


def _write(path: Path, first: Registered) -> None:
    write_atomic(path, lambda stream: stream.write(first.model_dump_json().encode()))
