"""Links to run directories: found where they lie, and right from every folder of a page."""

import json

import pytest

from tests.fake_sessions import Page, fake_session, one_record, opened
from tinyablation.report.page import ReportError, copy_report, write_report
from tinyablation.report.run_links import RunPlace, body_tag, moved, run_places, seen_from

FILES = ["config.json", "heat.svg", "metrics/effects.parquet", "verify.json"]


@pytest.fixture
def folders(tmp_path):
    """Two folders of runs: both hold `both`, the second alone holds `late`."""
    made = [tmp_path / "one" / "runs", tmp_path / "two" / "runs"]
    for folder, names in zip(made, (["both"], ["both", "late"]), strict=True):
        for name in names:
            (folder / name).mkdir(parents=True)
            (folder / name / "manifest.json").write_text(json.dumps({"files": FILES}))
    return made


def test_a_run_is_linked_in_the_first_folder_that_has_it_with_what_a_reader_may_want(folders):
    files = ["config.json", "metrics/effects.parquet", "verify.json"]
    places = run_places(["late", "both", "nowhere", "late"], folders)
    assert places == {"both": RunPlace(0, files), "late": RunPlace(1, files)}


@pytest.mark.parametrize("manifest", [None, "{", "[]", '{"files": 3}', "{}"])
def test_a_run_without_a_manifest_that_can_be_read_is_left_out(folders, manifest):
    path = folders[0] / "both" / "manifest.json"
    path.unlink() if manifest is None else path.write_text(manifest)
    assert run_places(["both"], folders)["both"].folder == 1
    assert run_places(["both"], folders[:1]) == {}


def test_folders_are_seen_from_the_page(tmp_path, folders):
    page = tmp_path / "one" / "full" / "claims.html"
    assert seen_from(page, folders) == ["../runs", "../../two/runs"]


def test_only_the_body_tag_of_a_moved_page_is_another():
    name = 'a "b" <c>'
    page = f"<p>&lt;body data-runs=x&gt;</p>{body_tag(['runs'])}<p>runs/</p>".encode()
    assert moved(page, [name]) == page.replace(
        body_tag(["runs"]).encode(), body_tag([name]).encode()
    )
    assert '"b"' not in body_tag([name]) and "<c>" not in body_tag([name])
    again = moved(moved(page, [name]), ["runs"])
    assert again == page


def session(**changes):
    return fake_session().model_copy(update={"records": [one_record(**changes)]})


def test_a_copied_page_links_the_same_directories(tmp_path, folders):
    page = write_report(
        session(runs=["both", "late"]), tmp_path / "one" / "claims.html", runs=folders
    )
    (tmp_path / "one" / "full").mkdir()
    copy = copy_report(page, tmp_path / "one" / "full" / "claims.html", folders)
    linked = []
    for written in (page, copy):
        links = [link for _, link in Page(opened(written.read_text())).links if "runs/" in link]
        linked.append({(written.parent / link).resolve() for link in links})
    want = {folder / name for folder, name in zip(folders, ("both", "late"), strict=True)}
    kept = ("config.json", "metrics/effects.parquet", "verify.json")
    assert linked[0] == linked[1] == want | {run / file for run in want for file in kept}


def test_a_copy_that_cannot_be_written_is_said(tmp_path, folders):
    page = write_report(session(), tmp_path / "claims.html", runs=folders)
    with pytest.raises(ReportError, match="the report cannot be written"):
        copy_report(page, page / "claims.html", folders)
