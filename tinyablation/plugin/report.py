"""The reports of a run of claims: records.json, records.parquet, claims.html, pytest.html.

Only runs of claims write reports, and not with --collect-only or --setup-plan. The controller
gathers the record that every claim's report has as a property, so it does not matter which worker
judged a cell, and writes at the end of the session, also after Ctrl-C (the session is then marked
incomplete).

A page shows one session only: mixing cells measured with different weights or code would show a
state that never existed. So `pytest claims -k mistral` writes a page of the Mistral cells, with its
command line. The page states the one exception: if the records of the other protocol are present,
both are compared, for models with the same weights. A selection must not destroy the last full
result: a session that ran everything also copies its files to <reports>/full/, and a session that
ran a selection does not touch that folder. Reports of `--protocol published` go to
<reports>/published/; measurements are shared, in <reports>/runs/.
"""

import json
import os
import platform
import shlex
import tempfile
from collections.abc import Callable, Generator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from tinyablation.characters import printable
from tinyablation.errors import TinyAblationError
from tinyablation.files.commits import committed
from tinyablation.files.manifests import write_together
from tinyablation.installed import versions
from tinyablation.measurement.noise import noise_rows
from tinyablation.plugin.backend_checks import verifications
from tinyablation.plugin.command_line import command
from tinyablation.plugin.html_view import HtmlView
from tinyablation.plugin.judge import MEASURED, PROPERTY
from tinyablation.plugin.model_cards import model_cards
from tinyablation.plugin.options import (
    AUTO,
    given_path,
    is_claims_run,
    is_guest,
    keeps_snapshots,
    lists_results,
    protocol,
    reports_base,
    runs_every_claim,
)
from tinyablation.plugin.predictions import predictions
from tinyablation.plugin.report_guard import LEDGER
from tinyablation.records.error_rates import ErrorRateError, ErrorRates, read_error_rates
from tinyablation.records.plain import RecordError
from tinyablation.records.records import (
    Record,
    RecordFile,
    Session,
    read_records,
    write_records,
)
from tinyablation.records.trust import NoiseRow
from tinyablation.sessions.drift import compare_sessions, summary, within
from tinyablation.sessions.false_discovery import multiplicity
from tinyablation.shipped import ERROR_RATES, here_or_shipped

REPORTER = "tinyablation-report"
# What figures depend on.
_VERSIONS = (
    *("python", "tinyablation", "torch", "transformers", "transformer-lens"),
    *("numpy", "scipy", "pandas", "pytest"),
)
_FULL_FILES = ("records.json", "records.parquet")
PUBLISHED = "published"  # folder of the reports of that protocol
PAGE = "claims.html"
LOST = "the worker was lost after the verdict, before the test ended"
# Address space kept for the reports of a session that ran out of it. It is never written to, so it
# takes no memory; the writers of Parquet and HTML map so much.
RESERVE = 2**28


def reports_folder(config: pytest.Config) -> Path:
    """The folder of this session's reports (--reports, else reports/ beside pytest.ini).

    For the published protocol it is the subfolder published/.
    """
    return (
        reports_base(config) / PUBLISHED
        if protocol(config) == "published"
        else reports_base(config)
    )


def runs_folder(config: pytest.Config) -> Path:
    """The folder of the measurements of both protocols."""
    return reports_base(config) / "runs"


def other_folder(config: pytest.Config) -> Path:
    """The folder of the reports of the other protocol, if there are any."""
    return (
        reports_base(config)
        if protocol(config) == "published"
        else reports_base(config) / PUBLISHED
    )


@pytest.hookimpl(tryfirst=True)  # before pytest-html reads its options
def pytest_configure(config: pytest.Config) -> None:
    judges_nothing = config.option.collectonly or config.option.setuponly  # or --setup-plan
    if hasattr(config, "workerinput") or judges_nothing or not is_claims_run(config):
        return
    _require_writable(reports_base(config))
    has_view = config.pluginmanager.has_plugin("html")  # else switched off: -p no:html
    if has_view and config.option.htmlpath is None and not is_guest(config):
        config.option.htmlpath = str(reports_folder(config) / "pytest.html")
        config.option.self_contained_html = True
    # Read before anything is measured: this session may overwrite it, and an incomparable baseline
    # should be reported now, not after an hour.
    config.pluginmanager.register(Reporter(config, _baseline(config)), REPORTER)
    if has_view and config.option.htmlpath is not None:
        config.pluginmanager.register(HtmlView(config, reports_folder(config) / PAGE))


def _baseline(config: pytest.Config) -> RecordFile | None:
    """The session that --baseline names; UsageError if it cannot be read or compared."""
    chosen: str | None = command(config).baseline
    if chosen is None:
        return None
    from tinyablation.sessions.reading import read_session

    path = given_path(config, chosen).resolve()
    try:
        baseline = read_session(path)
    except TinyAblationError as error:
        raise pytest.UsageError(f"--baseline: {error}") from error
    if baseline.session.protocol != protocol(config):
        raise pytest.UsageError(
            f"--baseline: {path} has the {baseline.session.protocol} protocol, this session the "
            f"{protocol(config)} one: their figures are different quantities"
        )
    return baseline


def _require_writable(folder: Path) -> None:
    """Raise UsageError before anything is measured if reports cannot be written."""
    there = next(path for path in (folder, *folder.resolve().parents) if os.path.exists(path))
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise pytest.UsageError(
            f"--reports {folder}: cannot be written ({there} is "
            f"{'read-only' if there.is_dir() else 'not a folder'}); name another folder"
        )
    try:  # permissions do not reveal file systems that accept no files, or a full disk
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise pytest.UsageError(
            f"--reports {folder}: cannot be written ({error.strerror}); name another folder"
        ) from error


class _Cell:
    """The reports of one test so far: its record and its phases."""

    def __init__(self) -> None:
        self.payload: str | None = None
        self.properties: dict[str, str] = {}
        self.outcome = "error"
        self.lost = False
        self.duration = 0.0

    def hear(self, report: pytest.TestReport) -> None:
        self.duration += getattr(report, "duration", 0.0)
        for name, value in report.user_properties:
            if name == PROPERTY:
                self.payload = str(value)
            elif name in MEASURED:
                self.properties[name] = str(value)
        if report.when == "setup":
            # Until its call has reported, a test counts as an error: its worker may have crashed.
            self.outcome = "skipped" if report.skipped else "error"
        elif report.when == "call":
            if hasattr(report, "wasxfail") and report.skipped:
                self.outcome = "xfailed"
            else:
                self.outcome = report.outcome
        elif report.failed:  # teardown, which has its own record, or xdist's "???" of a lost worker
            self.outcome = "error"
            self.lost = report.when != "teardown"


class Reporter:
    """Gathers the records on the controller and writes the reports at the end."""

    def __init__(self, config: pytest.Config, baseline: RecordFile | None = None) -> None:
        self.config = config
        self.baseline = baseline
        self.started = _now()
        self.cells: dict[str, _Cell] = {}
        self.lines: list[str] = []
        self.page = ""  # where it is
        self.reserve = bytearray(RESERVE)

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        if isinstance(excinfo.value, pytest.Session.Interrupted) and not self.cells:
            return  # modules that cannot be collected end it before anything is measured
        self.lines.append(
            f"interrupted: measurements so far are kept in {runs_folder(self.config)}; the same "
            "command continues there"
        )

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.cells.setdefault(report.nodeid, _Cell()).hear(report)

    def records(self) -> list[Record]:
        """One record per claim that reported, with its outcome and duration filled in."""
        found = []
        for cell in self.cells.values():
            if cell.payload is not None:
                record = json.loads(cell.payload)
                record |= {"outcome": cell.outcome, "duration_s": round(cell.duration, 3)}
                if cell.lost and record["verdict"] != "error":
                    record |= {"verdict": "error", "reason": LOST}
                found.append(Record.model_validate(record))
        return found

    def devices(self) -> str:
        """The devices used, such as "cpu (float32)"; --device if nothing was measured."""
        found = {
            f"{cell.properties['device']} ({cell.properties['dtype']})"
            for cell in self.cells.values()
            if cell.payload is not None and {"device", "dtype"} <= cell.properties.keys()
        }
        asked: str = command(self.config).device
        return ", ".join(sorted(found)) or ("cpu" if asked == AUTO else asked)

    def measured(self, records: list[Record]) -> dict[str, dict[str, str]]:
        """By model with records, what its tests were measured with."""
        found: dict[str, dict[str, str]] = {}
        for record in records:
            found.setdefault(record.model, {}).update(self.cells[record.test].properties)
        return found

    # Innermost: after every other plugin, and before the terminal prints the summary.
    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None, object, object]:
        result: object = None
        self.reserve = bytearray()
        try:
            result = yield
        except (OSError, MemoryError) as error:  # pytest-html writes into the same folder
            self._not_written(session, error)
        file = self._judged()
        if file is not None:
            try:
                self._finish(file, reports_folder(self.config))
            except (TinyAblationError, OSError, MemoryError) as error:
                self._not_written(session, error)
                self._finish_elsewhere(file)
            self._say(file)
        return result

    def _say(self, file: RecordFile) -> None:
        from tinyablation.report.terminal import closing, counts  # imports what draws the page

        compared = file.session.protocol == "corrected" and keeps_snapshots(self.config)
        said: list[str] = []
        if lists_results(self.config):
            try:
                said = closing(file)
            except (TinyAblationError, MemoryError):  # which the page has said, and is not there
                said = []
        self.lines[:0] = [*said, counts(file, accepted=compared)]

    def _not_written(self, session: pytest.Session, error: Exception) -> None:
        self.lines.append(f"the reports are incomplete: {str(error) or 'out of memory'}")
        session.exitstatus = pytest.ExitCode.INTERNAL_ERROR

    def _finish_elsewhere(self, file: RecordFile) -> None:
        """Keep what was judged in a folder for temporary files, if that can be written."""
        try:
            folder = Path(tempfile.mkdtemp(prefix="tinyablation-reports-"))
            write_records(file, folder)
            self._write(file, folder / PAGE, None)
        except (TinyAblationError, OSError, MemoryError) as error:
            self.lines.append(f"what was judged is not kept either: {error}")
        else:
            self.lines.append(f"what was judged is kept in {folder} instead")

    def _judged(self) -> RecordFile | None:
        """The session and its records; None if nothing was judged, to keep an earlier report."""
        records = self.records()
        if not records:
            return None
        together, adjusted = multiplicity(records)
        records = [
            record.model_copy(update={"p_adjusted": adjusted.get(record.test)})
            for record in records
        ]
        ledger: Any = self.config.pluginmanager.get_plugin(LEDGER)
        # A test whose worker was lost during set-up has reported but has no record.
        heard = {nodeid for nodeid, cell in self.cells.items() if cell.payload is not None}
        # Of several packs those whose claims were judged: what others predict is no part of it.
        judged = {record.claim for record in records}
        every = predictions(self.config)
        registered = [file for file in every if judged & file.claims.keys()] or every
        commits = dict.fromkeys(committed(file.path) for file in registered)
        complete = ledger is None or (ledger.complete and ledger.crashed <= heard)
        return RecordFile(
            session=Session(
                started=self.started,
                finished=_now(),
                command=shlex.join(["pytest", *map(str, self.config.invocation_params.args)]),
                versions=versions(*_VERSIONS),
                platform=platform.platform(),
                device=self.devices(),
                predictions_hash=", ".join(file.content_hash for file in registered),
                predictions_commit=", ".join(map(str, commits)) if all(commits) else None,
                complete=complete,
                protocol=protocol(self.config),
                models=model_cards(self.config, self.measured(records)),  # type: ignore[arg-type]
                multiplicity=together,
                error_rates=self.error_rates(),
                noise=self.noise(records),
            ),
            records=records,
        )

    def _finish(self, file: RecordFile, folder: Path) -> None:
        """Write the reports of a session, and those that are shown beside it."""
        page, complete = folder / PAGE, file.session.complete
        write_records(file, folder)
        other = self._other()
        self._write(file, page, other)
        self.page = f"report: {page}" + ("" if complete else " (incomplete)")
        self._say_drift(file)
        if complete and runs_every_claim(self.config):
            from tinyablation.report.page import copy_report  # as in _write

            # In place of the old ones, which a kill or a full disk would leave half written.
            write_together({folder / "full" / name: _copy(folder / name) for name in _FULL_FILES})
            copy_report(page, folder / "full" / page.name, [runs_folder(self.config)])
        elif (folder / "full").is_dir():
            self.lines.append(f"last full report: {folder / 'full' / page.name}")
        if other is not None:  # its page compares the protocols too, and should do so with these
            beside = other_folder(self.config) / page.name
            self._write(other, beside, file)
            self.lines.append(f"protocols compared, here and in: {beside}")

    def error_rates(self) -> ErrorRates | None:
        """The table that ships with the project; None if it is missing or broken."""
        path = here_or_shipped(self.config.rootpath, ERROR_RATES)
        if not path.exists():
            return None
        try:
            return read_error_rates(path)
        except ErrorRateError as error:
            self.lines.append(f"error rates are not shown: {error}")
            return None

    def noise(self, records: list[Record]) -> list[NoiseRow]:
        """The numerical noise of the session's runs, by device and dtype."""
        try:
            names = (name for record in records for name in record.runs)
            return noise_rows(document for _, document in verifications(self.config, names))
        except TinyAblationError as error:
            self.lines.append(f"noise is not shown: {error}")
            return []

    def baseline_of(self, file: RecordFile) -> RecordFile | None:
        """The baseline of a page of this session's protocol.

        If a selection was run, only its own cells are compared: the others were not removed.
        """
        if self.baseline is None or file.session.protocol != self.baseline.session.protocol:
            return None
        if runs_every_claim(self.config):
            return self.baseline
        return within(self.baseline, file)

    def _other(self) -> RecordFile | None:
        """The last session of the other protocol, if there is one that can be compared."""
        path = other_folder(self.config) / "records.json"
        if not path.exists():
            return None
        try:
            other = read_records(path)
        except RecordError as error:
            self.lines.append(f"protocols are not compared: {error}")
            return None
        if other.session.protocol == protocol(self.config):
            self.lines.append(f"protocols are not compared: {path} is of the same protocol")
            return None
        return other

    def _write(self, file: RecordFile, page: Path, other: RecordFile | None) -> None:
        from tinyablation.report.page import (
            write_report,  # imports jinja2, needed only if there is a page to write
        )

        write_report(
            file, page, other, baseline=self.baseline_of(file), runs=[runs_folder(self.config)]
        )

    def _say_drift(self, file: RecordFile) -> None:
        baseline = self.baseline_of(file)
        if baseline is not None:
            drift = compare_sessions(baseline, file)
            self.lines.append(f"since {baseline.session.started}: {summary(drift)}")

    # Outermost: after the failures and their short summary, where a reader looks first.
    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_terminal_summary(self, terminalreporter: Any) -> Generator[None, object, object]:
        result = yield
        if self.lines:
            terminalreporter.write_sep("-", "claims")
            for line in filter(None, (*self.lines, self.page)):
                terminalreporter.write_line(printable(line))
        return result


def _copy(path: Path) -> Callable[[BinaryIO], object]:
    return lambda stream: stream.write(path.read_bytes())


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
