"""What a session says of its snapshots at its end: figures that drifted, old beside new, in one
table; how many test cases have none; and entries that no test case has any more.
"""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tinyablation.plugin.command_line import command
from tinyablation.plugin.options import (
    is_claim,
    is_claims_run,
    keeps_snapshots,
    protocol,
    runs_every_claim,
)
from tinyablation.plugin.session_models import registry
from tinyablation.plugin.snapshots import FOUND, baseline_of, baselines, case_of
from tinyablation.sessions.baselines import Case, read_baseline
from tinyablation.spelling import counted

_SUMMARY = "tinyablation-snapshots"
_UNUSED = "tinyablation_unused"
_HEADER = ("test case", "figure", "baseline", "now", "difference")
_MOST_NAMES = 20  # of entries that are named, of each file; the count is always given


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput") and is_claims_run(config) and keeps_snapshots(config):
        config.pluginmanager.register(SnapshotSummary(config), _SUMMARY)


# --- entries that no test case has ---------------------------------------------------------------


@pytest.hookimpl(tryfirst=True)  # before any test is deselected
def pytest_collection_modifyitems(
    session: pytest.Session, config: pytest.Config, items: list[pytest.Item]
) -> None:
    option = command(config)
    if (
        session.testsfailed  # a module that cannot be imported has its test cases all the same
        or option.collectonly
        or option.disable_unused_snapshots
        or protocol(config) == "published"
        or not keeps_snapshots(config)
        or not runs_every_claim(config)
    ):
        return
    unused = _unused(config, [item for item in items if is_claim(item)])
    output = getattr(config, "workeroutput", None)  # a worker's
    if output is not None:
        output[_UNUSED] = unused
    else:
        summary: Any = config.pluginmanager.get_plugin(_SUMMARY)
        summary.unused = unused


def _unused(config: pytest.Config, items: Sequence[pytest.Item]) -> dict[str, list[str]]:
    """By file, the entries of no test case; models that run only when they are named are left out,
    for in most sessions they have none.
    """
    cases: dict[Path, set[Case]] = {}
    for item in items:
        cases.setdefault(baseline_of(item), set()).add(case_of(item))
    models = registry(config)
    found: dict[str, list[str]] = {}
    for path in baselines(config):
        if path.stem not in models or not models[path.stem].is_named_only:
            left = read_baseline(path).keys() - cases.get(path, set())
            if left:
                found[str(path.relative_to(config.rootpath))] = sorted(map(str, left))
    return found


# --- the end of a session ------------------------------------------------------------------------


class SnapshotSummary:
    """Gathers on the controller what tests found, and says it once."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.drifted: list[tuple[str, ...]] = []
        self.rewritten: list[tuple[str, ...]] = []
        self.missing = 0
        self.unused: dict[str, list[str]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        found: Mapping[str, Any] = getattr(report, FOUND, {})
        self.missing += found.get("missing", False)
        for kind, rows in (("drifted", self.drifted), ("rewritten", self.rewritten)):
            rows += [(found["case"], *figures) for figures in found.get(kind, ())]

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        self.unused |= getattr(node, "workeroutput", {}).get(_UNUSED, {})

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        option = command(self.config)
        tolerated = option.update_snapshots or option.warn_unused_snapshots
        if self.unused and not tolerated and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        blocks = [
            _table(title, rows)
            for title, rows in (
                ("drifted from the baseline", self.drifted),
                ("rewritten by --snapshot-update", self.rewritten),
            )
            if rows
        ]
        if self.missing:
            blocks.append(
                f"{counted(self.missing, 'test case')} without a snapshot: review the figures, "
                f"then write them: {self._command()}"
            )
        blocks += [_left_over(path, names) for path, names in self.unused.items()]
        if blocks:
            terminalreporter.write_sep("-", "snapshots")
            for block in blocks:
                terminalreporter.write_line(block)

    def _command(self) -> str:
        given = map(str, self.config.invocation_params.args)
        return shlex.join(["pytest", *given, "--snapshot-update-new-only"])


def _table(title: str, rows: Sequence[Sequence[str]]) -> str:
    from tinyablation.report.drift_tables import MOST_ROWS, as_columns, shortened

    shown = [[shortened(text) for text in row] for row in rows[:MOST_ROWS]]
    lines = [f"{counted(len(rows), 'figure')} {title}:", as_columns([_HEADER, *shown])]
    if len(rows) > MOST_ROWS:
        lines.append(f"  and {len(rows) - MOST_ROWS} more; each test's failure lists its own")
    return "\n".join(lines)


def _left_over(path: str, names: Sequence[str]) -> str:
    from tinyablation.report.markdown import one_line

    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return one_line(
        f"{path}: {counted(len(names), 'snapshot')} of no test case; no run removes any, so do it "
        f"by hand: {', '.join(names[:_MOST_NAMES])}{more}"
    )
