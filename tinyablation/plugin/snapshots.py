"""Figures unchanged: one reviewable JSON file a cell, compared with a named tolerance.

A snapshot says "unchanged", never "true": no verdict looks at it. Files are
claims/__snapshots__/<module>/<test>[<cell>].json. A missing one fails until `make accept` writes it
(`--snapshot-update-new-only`, which never touches an existing file). `--snapshot-update` rewrites
figures that left the tolerance, and only those, so a baseline cannot creep. No run of claims
deletes a file: a cell that crashed, was deselected or blocked before it was judged also leaves its
file unused. Remove the file of a claim that is gone with `git rm`.

Snapshots are figures of the CPU in float32, of every head. A run on another device, in another
dtype, or of a screened sweep is not compared with them and writes none; its records say so. Models
of the hub come without snapshots: there, a missing one is no failure, and one that exists is
compared. Whoever has the weights makes theirs as above, for models that fixtures/models.toml lists.
"""

import json
import math
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from syrupy.assertion import SnapshotAssertion
from syrupy.data import SnapshotCollections
from syrupy.extensions.json import JSONSnapshotExtension
from syrupy.location import PyTestLocation

from tinyablation.models.devices import kind_of
from tinyablation.plugin.options import is_claims_run, protocol, runs_every_claim
from tinyablation.plugin.session_models import model_in_nodeid, registry
from tinyablation.sessions.differences import differences

REFERENCE = ("cpu", "float32")  # device and dtype that snapshots are of
_UNCOMPARED = "tinyablation_uncompared"
_uncompared_key = pytest.StashKey[bool]()
DIGITS = 6  # significant digits in a file: a hundredfold finer than RELATIVE, and readable


def rounded(value: Any) -> Any:
    """The same data with floats at DIGITS significant digits; NaN and infinity are refused."""
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"a snapshot holds finite figures only, not {value}")
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, dict):
        return {key: rounded(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(entry) for entry in value]
    return value


class FiguresExtension(JSONSnapshotExtension):
    """syrupy's one-file-a-test JSON, with tolerance and a diff by key."""

    def serialize(self, data: Any, **filters: Any) -> str:
        return str(super().serialize(rounded(data), **filters))

    def matches(self, *, serialized_data: Any, snapshot_data: Any) -> bool:
        return not differences(json.loads(snapshot_data), json.loads(serialized_data))

    def diff_lines(self, serialized_data: Any, snapshot_data: Any) -> Iterator[str]:
        if snapshot_data:
            yield from differences(json.loads(snapshot_data), json.loads(serialized_data))

    def discover_snapshots(
        self, *, test_location: PyTestLocation, ignore_extensions: list[str] | None = None
    ) -> SnapshotCollections:
        """All files beside a test, but for those of models that must be named: in most sessions
        their cells do not exist, which leaves no file unused.
        """
        kept = SnapshotCollections()
        found = super().discover_snapshots(
            test_location=test_location, ignore_extensions=ignore_extensions
        )
        models = registry(test_location.item.config)
        for collection in found:
            model = model_in_nodeid(Path(collection.location).stem, models.ids)
            if model is None or not models[model].is_named_only:
                kept.add(collection)
        return kept


def uncompared(
    config: pytest.Config,
    *,
    device: str | None = "cpu",
    dtype: str | None = "float32",
    screened: bool = False,
    **_: object,
) -> str | None:
    """Why figures measured so are not compared with their snapshot; None if they are."""
    kind = kind_of(device or "cpu")
    if (kind, dtype) == REFERENCE and not screened:
        return None
    config.stash[_uncompared_key] = True
    if screened:
        return "the sweep was screened; snapshots are of sweeps of every head"
    return f"measured on {kind} in {dtype}; snapshots are of {' in '.join(REFERENCE)}"


def compare(snapshot: SnapshotAssertion, figures: dict[str, Any], *, needed: bool) -> str | None:
    """Compare one cell's figures with its file, writing it where the options say so.

    needed: whether a missing file is a fault. Returns None when unchanged or accepted, else what
    drifted, one line per figure.
    """
    figures_snapshot = snapshot.use_extension(FiguresExtension)
    if not needed and not _writes(snapshot) and not _file(figures_snapshot).exists():
        return None
    if figures_snapshot == figures:
        return None
    result = figures_snapshot.executions[0]
    if result.exception is not None:
        return f"its snapshot {result.snapshot_location} cannot be compared: {result.exception}"
    if result.recalled_data is None:
        return "no snapshot of this cell yet: review its figures, then run `make accept`"
    old, new = json.loads(str(result.recalled_data)), json.loads(str(result.asserted_data))
    return "\n".join(differences(old, new))


def _writes(snapshot: SnapshotAssertion) -> bool:
    option = snapshot.session.pytest_session.config.option
    return bool(option.update_snapshots or option.update_new_snapshots_only)


def _file(snapshot: SnapshotAssertion) -> Path:
    return Path(
        FiguresExtension.get_location(test_location=snapshot.test_location, index=snapshot.index)
    )


@pytest.hookimpl(wrapper=True)  # before syrupy looks for unused files
def pytest_sessionfinish(session: pytest.Session) -> Generator[None, object, object]:
    """Where cells were not compared, their files are not unused: none is looked for."""
    config = session.config
    if config.stash.get(_uncompared_key, False):
        config.option.disable_unused_snapshots = True
        getattr(config, "workeroutput", {})[_UNCOMPARED] = True
    return (yield)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    if getattr(node, "workeroutput", {}).get(_UNCOMPARED):
        node.config.option.disable_unused_snapshots = True


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    if is_claims_run(config):
        # See the module docstring: unused files are reported, not deleted.
        config.option.no_cleanup = True
        # A selection cannot tell which files are unused, and syrupy compares each with each test
        # that ran: 7 % of a warm session of 64 cells.
        if not runs_every_claim(config):
            config.option.disable_unused_snapshots = True
    if config.option.collectonly or protocol(config) == "published":
        # Nothing is compared, so every file would be called unused, and the exit status be 1.
        config.option.disable_unused_snapshots = True
