"""The gallery of the documentation. Run: pytest tests/test_gallery.py; `make docs` builds it."""

import re
from types import SimpleNamespace

import pytest
from PIL import Image

from docs import gallery
from tests.test_structure import ROOT

MARKDOWN = (ROOT / "docs" / "gallery.md").read_text(encoding="utf-8")
PAGE = SimpleNamespace(file=SimpleNamespace(src_uri="gallery.md"))


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout in which `make claims` has not run."""
    monkeypatch.setattr(gallery, "ROOT", tmp_path)
    committed = tmp_path / gallery.REPORTS["smollm2-135m"]
    committed.parent.mkdir(parents=True)
    committed.write_text("the page of a pretrained model")
    return tmp_path


def built():
    """What a build copies, and where the gallery then leads."""
    plugins = SimpleNamespace(_current_plugin=None)  # which mkdocs asks who made a file
    config = SimpleNamespace(site_dir="site", use_directory_urls=False, plugins=plugins)
    copied = [file.src_uri for file in gallery.on_files([], config)]
    links = re.findall(r"\]\((\S+\.html)\)", gallery.on_page_markdown(MARKDOWN, PAGE))
    return copied, links


def test_the_gallery_leads_to_the_reports_that_it_copies(checkout):
    assert built() == (["gallery/smollm2-135m.html"],) * 2
    said = gallery.on_page_markdown(MARKDOWN, PAGE)
    assert "The report (not in this build), made by `make claims`" in said
    (checkout / gallery.REPORTS["embedded"]).write_text("the page of the embedded models")
    assert built() == (["gallery/smollm2-135m.html", "gallery/embedded.html"],) * 2


def test_other_pages_are_left_as_they_are(checkout):
    other = SimpleNamespace(file=SimpleNamespace(src_uri="report.md"))
    assert gallery.on_page_markdown(MARKDOWN, other) == MARKDOWN


def test_the_committed_report_is_there():
    assert (ROOT / gallery.REPORTS["smollm2-135m"]).is_file()


@pytest.mark.parametrize("name", gallery.REPORTS)
def test_a_screenshot_of_each_report_is_small_and_of_one_screen(name):
    path = gallery.screenshot(name)
    assert f"(assets/{path.name})" in MARKDOWN
    assert path.stat().st_size < 150_000
    with Image.open(path) as image:
        assert (image.format, image.size) == ("PNG", gallery.WINDOW)
