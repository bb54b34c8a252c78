"""pytest.html, the view by test beside the page: its columns, and a link to the page."""

import html
import json
from pathlib import Path
from typing import Any

import pytest

from tinyablation.plugin.judge import PROPERTY

_COLUMNS = {"claim": "Claim", "verdict": "Verdict", "effect": "Effect", "interval": "Interval"}
_FIRST_COLUMN = 2  # after pytest-html's own Result and Test


class HtmlView:
    """Hooks of pytest-html. page: the session's claims.html."""

    def __init__(self, config: pytest.Config, page: Path) -> None:
        self.config = config
        self.page = page

    def pytest_html_report_title(self, report: Any) -> None:
        report.title = "Claims, test by test"

    def pytest_html_results_summary(self, prefix: list[str]) -> None:
        html_path = Path(self.config.option.htmlpath).resolve().parent
        target = self.page.name if self.page.parent == html_path else self.page.as_uri()
        prefix.append(
            f'<p>This is the view by test. Claims, verdicts and figures: <a href="'
            f'{html.escape(target)}">claims.html</a></p>'
        )

    def pytest_html_results_table_header(self, cells: list[str]) -> None:
        cells[_FIRST_COLUMN:_FIRST_COLUMN] = [
            f'<th class="sortable" data-column-type="{name}">{title}</th>'
            for name, title in _COLUMNS.items()
        ]

    def pytest_html_results_table_row(self, report: Any, cells: list[str]) -> None:
        # pytest-html puts node ids on the page unescaped.
        cells[1] = f'<td class="col-testId">{html.escape(str(report.nodeid))}</td>'
        cells[_FIRST_COLUMN:_FIRST_COLUMN] = [
            f'<td class="col-{name}">{html.escape(text)}</td>'
            for name, text in _columns(dict(getattr(report, "user_properties", []))).items()
        ]


def _columns(properties: dict[str, Any]) -> dict[str, str]:
    record = json.loads(properties[PROPERTY]) if PROPERTY in properties else {}
    columns = dict.fromkeys(_COLUMNS, "")
    columns |= {name: str(record.get(name) or "") for name in ("claim", "verdict")}
    if record.get("effect") is not None:
        columns["effect"] = f"{record['effect']:+.3f}"
    if record.get("low") is not None and record.get("high") is not None:
        columns["interval"] = f"{record['low']:+.3f} to {record['high']:+.3f}"
    return columns
