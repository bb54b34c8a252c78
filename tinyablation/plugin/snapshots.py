"""Figures unchanged: one reviewable JSON file a model, compared with a named tolerance.

A snapshot says "unchanged", never "true": no claim looks at it, but its verdict, the one last
accepted, decides whether a test passes (judge.py). A model's snapshots are its baseline,
__snapshots__/<model>.json beside the claims; the keys are claim, test and condition, as in
"H1.1 test_top_suppressor_is_in_layer_zero facts" (tinyablation/sessions/baselines.py has the form
of a file). A figure that left the tolerance fails its test, and all of them stand in one table at
the session's end (snapshot_summary.py).

A test case without a snapshot is a notice there. Where the environment says CI it fails, for what
is pushed should be complete. `--snapshot-update-new-only` (`make accept`) writes what is missing
and never touches a figure that is there. `--snapshot-update` rewrites figures that left the
tolerance, and only those, so a baseline cannot creep. No run of claims removes an entry: one that
no test case has any more is named by a session of every claim, and is removed by hand.

Snapshots are figures of the CPU in float32, of every head. A run on another device, in another
dtype, or of a screened sweep is not compared with them and writes none; its records say so. Models
of the hub come without snapshots: there, a missing one is no notice either, and one that exists is
compared. Whoever has the weights makes theirs as above, for models that fixtures/models.toml lists.
"""

import json
import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from syrupy.assertion import SnapshotAssertion
from syrupy.data import Snapshot, SnapshotCollection, SnapshotCollections
from syrupy.extensions.base import AbstractSyrupyExtension
from syrupy.location import PyTestLocation
from syrupy.types import SnapshotIndex

from tinyablation.errors import TinyAblationError
from tinyablation.models.devices import kind_of
from tinyablation.plugin.command_line import command
from tinyablation.plugin.options import (
    claims_folder,
    is_claim,
    is_claims_run,
    keeps_snapshots,
    protocol,
)
from tinyablation.plugin.selection import cell_of, claim_id, refuse
from tinyablation.sessions.baselines import (
    WITHOUT_MODEL,
    BaselineError,
    Case,
    Figures,
    add_to_baseline,
    checked,
    read_baseline,
    rounded,
)
from tinyablation.sessions.differences import differences

REFERENCE = ("cpu", "float32")  # device and dtype that snapshots are of
FOUND = "snapshot"  # the attribute of a test's report that says what came of the comparison
_found_key = pytest.StashKey[dict[str, Any]]()


def case_of(item: pytest.Item) -> Case:
    """The key of a claim's test case in the baseline of its model."""
    model, condition = cell_of(item)
    test, bracket, parameters = item.nodeid.split("::", 1)[1].partition("[")
    parameters = parameters.removesuffix("]").removeprefix(model).removeprefix("-")
    further = parameters.removeprefix(condition).removeprefix("-")
    if bracket and further:  # whatever else a claim is parametrized with
        test += f"[{further}]"
    return Case(claim_id(item), test.replace("::", "."), condition)


def baseline_of(item: pytest.Item) -> Path:
    """The file of a claim's model."""
    name = f"{cell_of(item)[0] or WITHOUT_MODEL}.json"
    return item.path.parent / command(item.config).snapshot_dirname / name


def baselines(config: pytest.Config) -> list[Path]:
    """All files of the claims."""
    return sorted(claims_folder(config).rglob(f"{command(config).snapshot_dirname}/*.json"))


# --- syrupy's extension --------------------------------------------------------------------------


class FiguresExtension(AbstractSyrupyExtension):
    """Many figures to a file, as syrupy's own format has it; with a tolerance."""

    file_extension = "json"
    write_immediately = True  # a session that is killed keeps what it had accepted
    replaces = True  # whether what is written replaces figures that are there

    def __init__(self) -> None:
        self._read: dict[Path, dict[Case, Figures]] = {}  # one test's: files change meanwhile

    def entries(self, path: Path) -> dict[Case, Figures]:
        """What a file held when this test first asked; BaselineError where it is broken."""
        if path not in self._read:
            self._read[path] = read_baseline(path)
        return self._read[path]

    def serialize(self, data: Any, **_: Any) -> str:
        return json.dumps(checked(rounded(data)), sort_keys=True)

    def matches(self, *, serialized_data: Any, snapshot_data: Any) -> bool:
        return not differences(json.loads(snapshot_data), json.loads(serialized_data))

    @classmethod
    def get_location(cls, *, test_location: PyTestLocation, index: SnapshotIndex) -> str:
        return str(baseline_of(test_location.item))

    @classmethod
    def get_snapshot_name(cls, *, test_location: PyTestLocation, index: SnapshotIndex = 0) -> str:
        return _name_of(case_of(test_location.item))

    @classmethod
    def matches_test_location(
        cls, *, test_location: PyTestLocation, snapshot_location: str
    ) -> bool:
        return Path(snapshot_location) == baseline_of(test_location.item)

    def read_snapshot_data_from_location(
        self, *, snapshot_location: str, snapshot_name: str, session_id: str
    ) -> str | None:
        figures = self.entries(Path(snapshot_location)).get(_case_named(snapshot_name))
        return None if figures is None else json.dumps(figures)

    @classmethod
    def write_snapshot_collection(
        cls, *, snapshot_collection: SnapshotCollection, name_order: dict[str, int] | None = None
    ) -> None:
        add_to_baseline(
            Path(snapshot_collection.location),
            {_case_named(one.name): json.loads(str(one.data)) for one in snapshot_collection},
            replace=cls.replaces,
        )

    def read_snapshot_collection(self, *, snapshot_location: str) -> SnapshotCollection:
        found = SnapshotCollection(location=snapshot_location)
        for case in self.entries(Path(snapshot_location)):
            found.add(Snapshot(name=_name_of(case)))
        return found

    def discover_snapshots(
        self, *, test_location: PyTestLocation, ignore_extensions: list[str] | None = None
    ) -> SnapshotCollections:
        """None: what syrupy discovers and no test used, it calls unused, and would delete.

        A test that crashed or was not compared has not used its snapshot either; snapshot_summary
        asks which test cases there are.
        """
        return SnapshotCollections()

    def delete_snapshots(self, *, snapshot_location: str, snapshot_names: set[str]) -> None:
        raise BaselineError(f"{snapshot_location}: no run removes entries of a baseline")


class NewFiguresExtension(FiguresExtension):
    """For --snapshot-update-new-only: what another process wrote meanwhile stays as well."""

    replaces = False


def _name_of(case: Case) -> str:
    # syrupy wants the name of a snapshot to begin with that of its test.
    return f"{case.test} {case.condition} {case.claim}"


def _case_named(snapshot_name: str) -> Case:
    test, condition, claim = snapshot_name.rsplit(" ", 2)
    return Case(claim, test, condition)


# --- one test case -------------------------------------------------------------------------------


def uncompared(
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
    if screened:
        return "the sweep was screened; snapshots are of sweeps of every head"
    return f"measured on {kind} in {dtype}; snapshots are of {' in '.join(REFERENCE)}"


def accepted(item: pytest.Item) -> str | None:
    """The verdict last accepted for a test case; None if its baseline has none.

    So also for a baseline that is broken, which `compare` says, and pytest before anything runs.
    """
    try:
        found = read_baseline(baseline_of(item)).get(case_of(item), {})
    except BaselineError:
        return None
    verdict: str | None = found.get("verdict")
    return verdict


def compare(snapshot: SnapshotAssertion, figures: Figures, *, needed: bool) -> str | None:
    """Compare a test case's figures with its snapshot, writing it where the options say so.

    needed: whether a missing one is worth a notice, and a fault in CI. Returns None when unchanged,
    accepted or missing, else what drifted, one line per figure.
    """
    item = snapshot.test_location.item
    option = command(item.config)
    new_only = option.update_new_snapshots_only and not option.update_snapshots
    kept = snapshot.use_extension(NewFiguresExtension if new_only else FiguresExtension)
    path = baseline_of(item)
    try:
        known = case_of(item) in kept.extension.entries(path)  # type: ignore[attr-defined]
    except BaselineError as error:
        return str(error)
    if not (known or option.update_snapshots or option.update_new_snapshots_only):
        return _missing(item) if needed else None
    unchanged = kept == figures
    result = kept.executions[0]
    if result.exception is not None:
        return f"its snapshot in {path} cannot be kept: {result.exception}"
    if not known or (unchanged and not result.updated):
        return None
    old, new = json.loads(str(result.recalled_data)), json.loads(str(result.asserted_data))
    found = differences(old, new)
    item.stash[_found_key] = {
        "case": f"{claim_id(item)} {item.name}",
        "rewritten" if result.updated else "drifted": [list(each) for each in found],
    }
    return None if unchanged else "\n".join(map(str, found))


def _missing(item: pytest.Item) -> str | None:
    """Said of the session and not in the record, which is the same in a checkout without any."""
    item.stash[_found_key] = {"case": f"{claim_id(item)} {item.name}", "missing": True}
    if not os.environ.get("CI"):  # as pytest itself asks
        return None
    return "no snapshot of this test case yet: review its figures, then run `make accept`"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What was found travels on the report, which says it even if the worker is lost later."""
    report = yield
    if call.when == "call" and _found_key in item.stash:
        setattr(report, FOUND, item.stash[_found_key])
    return report


# --- before anything runs ------------------------------------------------------------------------


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    if not (is_claims_run(config) and keeps_snapshots(config)):
        return
    config.option.no_cleanup = True  # see the module docstring
    # syrupy's default takes any file in the folder that is not of its format for a leftover.
    if config.option.default_extension is None:
        config.option.default_extension = f"{__name__}.{FiguresExtension.__name__}"
    if hasattr(config, "workerinput") or command(config).collectonly:
        return
    if protocol(config) == "corrected":
        try:
            for path in baselines(config):
                read_baseline(path)
        except TinyAblationError as error:
            raise pytest.UsageError(str(error)) from error


@pytest.hookimpl(tryfirst=True)  # before any test is deselected
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # Records are told apart as snapshots are, so this also holds where none are kept.
    seen: dict[tuple[str, Case], pytest.Item] = {}
    for item in items:
        if is_claim(item):
            other = seen.setdefault((cell_of(item)[0], case_of(item)), item)
            if other is not item:
                refuse(
                    config,
                    items,
                    f"{item.nodeid} and {other.nodeid} have the same claim and name, so that their "
                    "figures would be taken for one another's; rename one of them",
                )
                return
