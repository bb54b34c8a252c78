"""The command `report`: one page of several sessions, and its files.

Run: pytest tests/cli/test_report.py
"""

import json

import pytest

from tests.fake_sessions import opened
from tests.sessions.test_drift import cell, session
from tinyablation.__main__ import main
from tinyablation.records.records import write_records
from tinyablation.report.page import write_report
from tinyablation.sessions.reading import read_session


def put(folder, *records, **changes):
    write_records(session(*records, **changes), folder)
    return folder


def run_directory(folder, name):
    (folder / name / "metrics").mkdir(parents=True)
    files = ["config.json", "metrics/per_example.parquet", "metrics/summary.json"]
    manifest = {"layout": 1, "files": {file: {"size": 0, "sha256": ""} for file in files}}
    (folder / name / "manifest.json").write_text(json.dumps(manifest))


@pytest.fixture
def two(tmp_path):
    """Reports of two machines: one cell each of its own, one alike, one in conflict."""
    alike, mine = cell("alike"), cell("disputed")
    theirs = cell("disputed", effect=2.0, high=2.1)
    one = put(tmp_path / "a", alike, mine, cell("a", runs=["a-zero-facts_0a"]))
    run_directory(one / "runs", "a-zero-facts_0a")
    other = put(
        tmp_path / "b", alike, theirs, cell("b"), started="2025-03-02T01:00:00+00:00", device="cpu"
    )
    return one, other


def test_two_reports_become_one_page_in_any_order(two, tmp_path, capsys):
    pages = []
    for name, order in (("ab.html", two), ("ba.html", two[::-1])):
        assert main(["report", *map(str, order), "-o", str(tmp_path / name)]) == 0
        pages.append((tmp_path / name).read_text(encoding="utf-8"))
    assert pages[0] == pages[1]
    assert "merged from 2 sessions, 1 test case in conflict" in capsys.readouterr().out
    found = read_session(tmp_path / "ab.html")
    assert sorted(record.model for record in found.records) == [
        *("a", "alike", "b", "disputed", "disputed")
    ]
    assert "1 test case in conflict" in pages[0]


def test_pages_can_be_merged_without_their_records(two, tmp_path):
    for folder in two:
        write_report(read_session(folder), folder / "claims.html")
    arguments = [str(folder / "claims.html") for folder in two]
    assert main(["report", *arguments, "-o", str(tmp_path / "pages.html")]) == 0
    assert main(["report", *map(str, two), "-o", str(tmp_path / "folders.html")]) == 0
    made = [(tmp_path / f"{name}.html").read_text() for name in ("pages", "folders")]
    assert made[0] == made[1]


def test_tables_of_runs_are_linked_from_where_the_page_is(two, tmp_path):
    assert main(["report", *map(str, two), "-o", str(tmp_path / "out" / "all.html")]) == 0
    page = opened((tmp_path / "out" / "all.html").read_text(encoding="utf-8"))
    for name in ("", "config.json", "metrics/per_example.parquet"):
        assert f'href="../a/runs/a-zero-facts_0a/{name}"' in page
    assert "summary.json" not in page.split("a-zero-facts_0a/", 1)[1][:2000]


def test_a_baseline_shows_what_changed(two, tmp_path, capsys):
    before = put(tmp_path / "before", cell("a", verdict="refuted"), cell("gone"))
    arguments = ["report", str(two[0]), "-o", str(tmp_path / "c.html"), "--baseline", str(before)]
    assert main(arguments) == 0
    assert "1 of 1 test case changed its verdict" in capsys.readouterr().out
    page = opened((tmp_path / "c.html").read_text(encoding="utf-8"))
    for words in (
        "What changed since",
        "1 of 1 test case changed its verdict",
        "New test cases",
        "Test cases that are gone",
        "was refuted",
        'data-x="flipped',
        'data-x="new',
    ):
        assert words in page, words


def test_cells_in_conflict_have_no_one_state_to_compare(two, tmp_path, capsys):
    before = put(tmp_path / "before", cell("disputed"), cell("a"))
    arguments = [
        "report",
        *map(str, two),
        "-o",
        str(tmp_path / "c.html"),
        "--baseline",
        str(before),
    ]
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert "None of 1 test case changed its verdict" in said and "gone" not in said
    assert "Left out: 1 test case on which" in (tmp_path / "c.html").read_text(encoding="utf-8")


def test_sessions_of_both_protocols_are_compared(tmp_path):
    corrected = put(tmp_path / "c", cell(verdict="refuted"))
    published = put(tmp_path / "p", cell(protocol="published"), protocol="published")
    for order in ((corrected, published), (published, corrected)):
        arguments = ["report", *map(str, order), "-o", str(tmp_path / "both.html"), "--force"]
        assert main(arguments) == 0
        page = (tmp_path / "both.html").read_text(encoding="utf-8")
        assert "Protocols compared" in page and "<b>Corrected protocol:</b>" in page
    assert main(["report", str(published), "-o", str(tmp_path / "one.html")]) == 0
    assert "<b>Published protocol:</b>" in (tmp_path / "one.html").read_text()


def test_an_export_has_the_files(two, tmp_path, capsys):
    arguments = ["report", str(two[0]), "-o", str(tmp_path / "c.html")]
    assert main([*arguments, "--export", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "cells.csv").read_text().count("\n") == 4
    assert list((tmp_path / "out" / "figures").glob("*_effects.svg"))
    assert str(tmp_path / "out") in capsys.readouterr().out


def test_nothing_is_written_over(two, tmp_path, capsys):
    page, folder = tmp_path / "c.html", tmp_path / "out"
    arguments = ["report", str(two[0]), "-o", str(page)]
    page.write_text("mine")
    assert main(arguments) == 2
    assert "c.html exists; give --force to write over it" in capsys.readouterr().err
    assert page.read_text() == "mine"
    folder.mkdir()
    (folder / "mine").touch()
    page.unlink()
    assert main([*arguments, "--export", str(folder)]) == 2
    assert "out is not empty" in capsys.readouterr().err
    assert not page.exists()
    assert main([*arguments, "--export", str(folder), "--force"]) == 0


@pytest.mark.parametrize(
    ("session_path", "said"),
    [("nowhere", "nowhere: cannot be read"), ("x.html", "x.html: cannot be read")],
)
def test_what_cannot_be_read_is_said_in_one_line(tmp_path, capsys, session_path, said):
    assert main(["report", str(tmp_path / session_path), "-o", str(tmp_path / "c.html")]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert not (tmp_path / "c.html").exists()


def test_a_baseline_of_the_other_protocol_is_refused_before_anything_is_written(tmp_path, capsys):
    one = put(tmp_path / "c", cell())
    other = put(tmp_path / "p", cell(protocol="published"), protocol="published")
    page = tmp_path / "c.html"
    assert main(["report", str(one), "-o", str(page), "--baseline", str(other)]) == 2
    assert "published protocol" in capsys.readouterr().err and not page.exists()
