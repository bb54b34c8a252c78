"""pytest.html, the view by test beside the page: its columns, its texts, and links to the page."""

import html
import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tinyablation.plugin.judge import PROPERTY
from tinyablation.spelling import counted

_COLUMNS = {"claim": "Claim", "verdict": "Verdict", "effect": "Effect", "interval": "Interval"}
_FIRST_COLUMN = 2  # after pytest-html's own Result and Test
# As the terminal counts them, in its order.
_COUNTED = ("failed", "passed", "skipped", "xfailed", "xpassed", "error")


class HtmlView:
    """Hooks of pytest-html. page: the session's claims.html."""

    def __init__(self, config: pytest.Config, page: Path) -> None:
        self.config = config
        folder = Path(config.option.htmlpath).resolve().parent
        self.page = html.escape(quote(Path(os.path.relpath(page, folder)).as_posix()))
        # What stands before a path of the project, or of the user, is nobody else's concern.
        self.folders = [(html.escape(f"{config.rootpath}{os.sep}"), "")]
        home = Path(os.path.expanduser("~"))  # "~" for a user whom the system does not know
        if home.is_absolute() and home != Path(home.anchor):
            self.folders.append((html.escape(f"{home}{os.sep}"), f"~{os.sep}"))

    def pytest_html_report_title(self, report: Any) -> None:
        report.title = "Claims, test by test"

    def pytest_html_results_summary(self, prefix: list[str]) -> None:
        reporter: Any = self.config.pluginmanager.get_plugin("terminalreporter")
        stats = reporter.stats
        counts = {name: len(stats[name]) for name in _COUNTED if stats.get(name)}
        prefix.append(
            f"<p>{counted(sum(counts.values()), 'test case')}: "
            f"{', '.join(f'{count} {name}' for name, count in counts.items())}. A row without an "
            "unexpected failure is folded; a click on its result unfolds it. Claims, verdicts and "
            f'figures: <a href="{self.page}">claims.html</a></p>'
        )

    def pytest_html_results_table_header(self, cells: list[str]) -> None:
        cells[_FIRST_COLUMN:_FIRST_COLUMN] = [
            f'<th class="sortable" data-column-type="{name}">{title}</th>'
            for name, title in _COLUMNS.items()
        ]

    def pytest_html_results_table_row(self, report: Any, cells: list[str]) -> None:
        properties = dict(getattr(report, "user_properties", []))
        record = json.loads(properties[PROPERTY]) if PROPERTY in properties else {}
        # pytest-html puts node ids on the page unescaped.
        cells[1] = f'<td class="col-testId">{html.escape(str(report.nodeid))}</td>'
        cells[_FIRST_COLUMN:_FIRST_COLUMN] = [
            f'<td class="col-{name}">{html.escape(text)}</td>'
            for name, text in _columns(record).items()
        ]
        if record:
            from tinyablation.report.sections import cell_anchor  # imports pydantic

            at = cell_anchor(*(record[name] for name in ("claim", "name", "model", "condition")))
            cells[-1] = f'<td class="col-links"><a href="{self.page}#{at}">on the page</a></td>'

    def pytest_html_results_table_html(self, report: Any, data: list[str]) -> None:
        """The log of a row: the reason where its outcome was expected, else what pytest says."""
        if hasattr(report, "wasxfail"):
            data[:] = [html.escape(str(report.wasxfail))]
        elif report.skipped and isinstance(report.longrepr, tuple):
            data[:] = [html.escape(report.longrepr[2])]
        for folder, instead in self.folders:
            data[:] = [text.replace(folder, instead) for text in data]


def _columns(record: dict[str, Any]) -> dict[str, str]:
    columns = dict.fromkeys(_COLUMNS, "")
    columns |= {name: str(record.get(name) or "") for name in ("claim", "verdict")}
    if record.get("effect") is not None:
        columns["effect"] = f"{record['effect']:+.3f}"
    if record.get("low") is not None and record.get("high") is not None:
        columns["interval"] = f"{record['low']:+.3f} to {record['high']:+.3f}"
    return columns
