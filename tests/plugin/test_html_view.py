"""Run: pytest tests/plugin/test_html_view.py"""

import html
import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.fake_sessions import opened
from tinyablation.plugin.html_view import HtmlView

pytest_plugins = ["pytester"]


def test_a_user_whom_the_system_does_not_know_has_no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container whose user is a number."""
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    option = SimpleNamespace(htmlpath="/x/reports/pytest.html")
    config = SimpleNamespace(option=option, rootpath=Path("/x"))
    view = HtmlView(config, Path("/x/reports/claims.html"))
    assert view.folders == [("/x/", "")] and view.page == "claims.html"


@pytest.mark.slow  # two sessions
def test_expected_outcomes_are_reasons_failures_tracebacks_and_rows_lead_to_the_page(suite):
    suite.models("tiny-gpt2")
    suite.claims(
        "test_heads",
        suite.claim("H1.1", "test_holds"),
        suite.claim("H1.2", "test_does_not", "judge(verdict(status='refuted', reason='<b>no'))"),
        suite.claim("H1.3", "test_is_blocked", "judge(verdict(status='blocked', reason='<i>'))"),
        suite.claim("H1.4", "test_breaks", "assert False, '<u>'"),
    )
    suite.accept("-k", "facts")
    suite.run("claims", "-k", "facts", "--html", "sub/mine.html").assert_outcomes(
        passed=1, skipped=1, xfailed=1, failed=1, deselected=12
    )
    page = (suite.root / "sub" / "mine.html").read_text()
    assert "4 test cases: 1 failed, 1 passed, 1 skipped, 1 xfailed." in page
    assert 'href="../reports/claims.html"' in page
    data = json.loads(html.unescape(re.search('data-jsonblob="(.*?)"', page).group(1)))
    rows = {key.split("::")[1].split("[")[0]: row[-1] for key, row in data["tests"].items()}
    assert rows.keys() == {"test_holds", "test_does_not", "test_is_blocked", "test_breaks"}

    logs = {name: row["log"] for name, row in rows.items()}
    refuted = logs["test_does_not"]
    assert "def test_does_not" not in refuted and "&lt;b&gt;no" in refuted
    assert logs["test_is_blocked"].startswith("Skipped: blocked: &lt;i&gt;")
    assert "assert False" in logs["test_breaks"] and "<u>" not in logs["test_breaks"]
    assert f"{suite.root}/" not in "".join(logs.values())

    cases = opened((suite.root / "reports" / "claims.html").read_text())
    for row in rows.values():
        link = re.search('href="(.*?)"', row["resultsTableRow"][-1]).group(1)
        where, anchor = link.split("#")
        assert where == "../reports/claims.html" and f'"{anchor}"' in html.unescape(cases)
