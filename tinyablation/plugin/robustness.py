"""Robustness of a verdict: alternative analyses, and prompts on which the claim fails.

Both take minutes over all cells, so they are made only with --robustness, and stored under
<reports>/robustness/ by what they rest on: a later session with the same figures shows them.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError

from tinyablation.files.contents import read_text
from tinyablation.files.hashes import text_sha256
from tinyablation.files.manifests import write_atomic
from tinyablation.plugin.boundary import boundary_of
from tinyablation.plugin.command_line import command
from tinyablation.plugin.multiverse import multiverse_of
from tinyablation.plugin.options import protocol, reports_base
from tinyablation.records.plain import Plain, RecordError, plain
from tinyablation.records.records import JUDGED
from tinyablation.records.trust import Boundary, Multiverse
from tinyablation.report.text import slug

if TYPE_CHECKING:
    from tinyablation.verdicts.verdicts import Verdict

# Part of the address of stored results: increment it when either examination changes.
EXAMINATION_VERSION = 2
_RESTS_ON = ("test", "verdict", "subject", "effect", "low", "high", "floor", "p_corrected", "runs")


class Examination(Plain):
    """The results for one cell; None if a claim of its kind has no such examination."""

    multiverse: Multiverse | None = None
    boundary: Boundary | None = None


def examine(item: pytest.Item, verdict: "Verdict", record: Mapping[str, Any]) -> dict[str, Any]:
    """The fields `multiverse` and `boundary` of a record that has its verdict.

    With --robustness they are computed, unless an earlier session did so for the same figures;
    without it they are only looked up. Empty for blocked cells and the published protocol.
    """
    if protocol(item.config) != "corrected" or record["verdict"] not in JUDGED:
        return {}
    path = _place(item.config, record)
    found = _read(path)
    if found is None:
        if not command(item.config).robustness:
            return {}
        found = Examination(
            multiverse=multiverse_of(item, verdict), boundary=boundary_of(item, verdict, record)
        )
        _write(path, found)
    return {"multiverse": found.multiverse, "boundary": found.boundary}


def _place(config: pytest.Config, record: Mapping[str, Any]) -> Path:
    rests_on = {name: record[name] for name in _RESTS_ON} | {"version": EXAMINATION_VERSION}
    text = json.dumps(rests_on, sort_keys=True, allow_nan=False)
    key = text_sha256(text)[:16]
    name = slug(record["claim"], record["name"], record["model"], record["condition"])
    return reports_base(config) / "robustness" / f"{name}-{key}.json"


def _read(path: Path) -> Examination | None:
    """The stored results; None if there are none, or they cannot be used."""
    try:
        return Examination.model_validate_json(read_text(path))
    except (OSError, ValidationError, RecordError):
        return None


def _write(path: Path, found: Examination) -> None:
    text = json.dumps(plain(found, "examination"), allow_nan=False)
    write_atomic(path, lambda stream: stream.write(text.encode()))
