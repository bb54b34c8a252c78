"""Where a session can be read from. Run: pytest tests/sessions/test_reading.py"""

import pytest

from tests.fake_sessions import fake_session
from tinyablation.errors import TinyAblationError
from tinyablation.records.records import write_records
from tinyablation.report.page import write_report
from tinyablation.sessions.reading import read_session


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reports")
    write_records(fake_session(), folder)
    write_report(fake_session(), folder / "claims.html")
    (folder / "runs").mkdir()
    return folder


@pytest.mark.parametrize("name", ["", "records.json", "records.parquet", "claims.html", "runs"])
def test_every_form_of_a_report_holds_the_session(reports, name):
    found = read_session(reports / name)
    assert found.session == fake_session().session
    assert found.records == fake_session().records


def test_what_holds_none_is_said_by_name(tmp_path):
    page = tmp_path / "old.html"
    page.write_text("<!doctype html><p>A page of another time")
    with pytest.raises(TinyAblationError, match=r"old\.html: holds no records: .* records\.json"):
        read_session(page)
    with pytest.raises(TinyAblationError, match=r"gone\.html: cannot be read"):
        read_session(tmp_path / "gone.html")
    page.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TinyAblationError, match=r"old\.html: cannot be read"):
        read_session(page)


def test_a_page_edited_by_hand_is_said_by_name(reports, tmp_path):
    text = (reports / "claims.html").read_text(encoding="utf-8")
    start = text.index('id="pack-records.json">') + len('id="pack-records.json">')
    page = tmp_path / "edited.html"
    page.write_text(f"{text[:start]}AAAA{text[start + 4 :]}", encoding="utf-8")
    with pytest.raises(TinyAblationError, match=r"edited\.html: cannot be opened"):
        read_session(page)
