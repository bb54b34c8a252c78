"""The report page in headless Chromium: what a reader clicks, types, links to, prints and takes.

Run: pytest tests/test_page_in_browser.py

Needs Debian's chromium and chromium-driver, or Chrome with its driver; without them the tests are
skipped, but in CI (where the environment says CI=true) they fail. The browser resolves no name, and
every request that a page makes is heard.
"""

import csv
import json
import os
import re
import shutil
import time
import xml.etree.ElementTree
from pathlib import Path

import pytest

from tests.browsing import Browser
from tests.fake_sessions import CONDITIONS, HOSTILE, fake_session, large_session
from tinyablation.records.records import VERDICTS, RecordFile
from tinyablation.report.page import write_report
from tinyablation.sessions.merging import merge

pytestmark = pytest.mark.slow

CELL = "H1.1.test_top_suppressor_is_in_layer_zero.tiny-gpt2.facts"
OTHER = "H1.1.test_top_suppressor_is_in_layer_zero.tiny-gpt2.negation"
READABLE = 4.5  # the contrast of small text that WCAG 2.1 asks for, level AA
PHONE = (390, 844)
PATIENCE = 240  # s for axe, which takes 6 s on an idle machine
MOST_BYTES = 5_000_000


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    names = ("chromium", "chromium-browser", "google-chrome")
    chromium = next(filter(None, map(shutil.which, names)), None)
    driver = shutil.which("chromedriver")
    if not (chromium and driver):
        reason = "no chromium and chromedriver here: apt-get install chromium chromium-driver"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    with Browser(chromium, driver, tmp_path_factory.mktemp("browser")) as started:
        yield started


def panelled():
    """A session whose first cells have panels of every kind, with text that means harm."""
    content = fake_session().model_dump()
    panels = [
        {
            "kind": "tokens",
            "title": f"writes {HOSTILE}",
            "columns": {"top": [{"token": f" aardvark{HOSTILE}", "logit": 0.5}], "bottom": []},
        },
        {
            "kind": "curve",
            "title": f"Dose {HOSTILE}",
            "x": "dose",
            "y": "Δ",
            "series": [{"name": HOSTILE, "x": [0, 1], "y": [1, 2]}],
        },
        {
            "kind": "forest",
            "title": f"Recovery {HOSTILE}",
            "unit": "share",
            "rows": [{"name": HOSTILE, "value": 0.5, "low": 0.25, "high": 0.75}],
        },
        {
            "kind": "grid",
            "title": f"Layers {HOSTILE}",
            "x": "position",
            "y": "layer",
            "columns": ["last", HOSTILE],
            "rows": ["0"],
            "values": [[0.5, None]],
        },
    ]
    for record in content["records"]:
        if record["name"] == "test_top_suppressor_is_in_layer_zero":
            record["panels"] = panels
    return RecordFile.model_validate(content)


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    path = write_report(panelled(), tmp_path_factory.mktemp("page") / "claims.html")
    return path.as_uri()


@pytest.fixture
def page(browser, address):
    """The page as it opens, in a window of its own size; nothing it did may have gone wrong."""
    browser.window(1400, 1000)
    browser.open(address)
    yield browser
    assert browser.complaints() == []
    left = [url for url in browser.requests() if not url.startswith(("file:", "data:", "blob:"))]
    assert left == [], "no request leaves the page"


def pick(page, cell):
    """Click a test case in the matrix, where its model's conditions are unfolded for it."""
    link = f'.matrix a[href="#cell={cell}"]'
    if not page.visible(link):
        page.run(f"document.querySelector('{link}').closest('details').id = 'fold'")
        page.click("#fold > summary")
        page.run("document.getElementById('fold').removeAttribute('id')")
    page.click(link)


def test_it_opens_whole_and_says_how_much_it_shows(page):
    total = len(fake_session().records)
    assert page.text("#shown") == f"all {total} test cases shown"
    assert page.count(".matrix td a") == total
    assert page.attribute("#shown", "role") in (None, "status")  # an <output> is one
    assert page.roles("output") == {"status"}


def test_filters_narrow_rows_and_matrix_and_stand_in_the_address(page):
    page.choose("m", "tiny-gpt2")
    page.choose("c", "facts")
    page.choose("v", "supported")
    want = [
        record
        for record in fake_session().records
        if (record.model, record.condition, record.verdict) == ("tiny-gpt2", "facts", "supported")
    ]
    assert page.text("#shown").startswith(f"{len(want)} of ")
    assert page.count("details[data-k]:not([hidden])") == len(want)
    assert page.count(".matrix td a:not(.off)") == len(want)
    assert "m=tiny-gpt2" in page.hash and "c=facts" in page.hash
    page.click("button[type=reset]")
    page.wait_for("#shown", "all")


def test_a_family_is_filtered_as_one(page):
    page.choose("k", "H1")
    want = sum(record.family == "H1" for record in fake_session().records)
    assert page.text("#shown").startswith(f"{want} of ")


def test_search_reads_what_cells_would_open(page):
    page.type("[name=q]", "aardvark")
    want = sum(r.name == "test_top_suppressor_is_in_layer_zero" for r in fake_session().records)
    page.wait_for("#shown", f"{want} of ")
    page.type("[name=q]", " <img")
    page.wait_for("#shown", f"{want} of ")
    page.type("[name=q]", " nowhere")
    page.wait_for("#shown", "0 of ")
    assert page.count("section.claim:not([hidden])") == 0


def test_a_cell_opens_its_evidence(page):
    pick(page, CELL)
    page.wait_until(f'document.getElementById("cell={CELL}").open')
    body = f'[id="cell={CELL}"] .body'
    page.wait_until(f"document.querySelector('{body}').children.length > 3")
    said = page.text(body)
    for words in (
        "One head of layer 0 suppresses the target",
        "Prompts with the largest effects",
        "by layer and head",
        "Run this test case again",
        "aardvark",
        "Recovery",
        "Layers",
    ):
        assert words in said, words
    assert page.count(f"{body} figure.all svg g.here") == 1
    assert page.count(f"{body} figure.all svg g") >= 8 * len(CONDITIONS)
    runs = page.run(
        f"return [...document.querySelectorAll('{body} a[data-run]')].map((a) => a.href)"
    )
    assert len(runs) == 1 and runs[0].startswith("file:") and runs[0].count("/runs/tiny-") == 1
    assert page.hash == f"#cell={CELL}"
    assert page.focused().startswith("summary")


def test_links_restore_filters_and_cells_and_back_goes_back(page, address):
    page.open(f"{address}#cell={CELL}&m=tiny-gpt2")
    page.wait_until(f'document.getElementById("cell={CELL}").open')
    assert page.value("[name=m]") == "tiny-gpt2"
    assert page.visible(f'[id="cell={CELL}"] .body')
    pick(page, OTHER)
    page.wait_until(f'document.getElementById("cell={OTHER}").open')
    assert f"cell={OTHER}" in page.hash and "m=tiny-gpt2" in page.hash
    page.back()
    page.wait_until(f'!document.getElementById("cell={OTHER}").open')
    page.wait_until(f'document.getElementById("cell={CELL}").open')
    page.forward()
    page.wait_until(f'document.getElementById("cell={OTHER}").open')


def test_links_to_what_is_not_here_or_hidden_are_followed_as_far_as_they_go(page, address):
    page.open(f"{address}#cell=H9.9.gone&m=nobody&v=refuted")
    page.wait_for("#shown", "the test case that was linked is not here")
    assert page.value("[name=m]") == "" and page.value("[name=v]") == "refuted"
    page.open(f"{address}#cell={CELL}&m=tiny-llama")
    page.wait_until(f'document.getElementById("cell={CELL}").open')
    assert page.visible(f'[id="cell={CELL}"] summary'), "the link wins over the filter"


def test_a_link_to_a_section_shows_it_even_if_it_was_filtered_away(page, address):
    page.open(f"{address}#models")
    assert page.text("#shown").startswith("all ")
    page.choose("k", "V.1")
    section = page.run("return document.querySelector('section.claim[hidden]').id")
    page.run("location.hash = arguments[0]", section)
    page.wait_until(f"!document.getElementById('{section}').hidden")
    page.wait_for("#shown", "all ")


def test_everything_works_by_keyboard_alone(page):
    page.keys("TAB")
    assert page.focused() == "a.skip"
    assert page.visible("a.skip")
    page.focus(".matrix td summary")
    assert page.count(".matrix td [tabindex='0']") == 1, "one stop of the tab key"
    page.keys("ENTER")  # unfolds the first model's conditions
    page.keys("ARROW_RIGHT", "ARROW_RIGHT")
    assert page.run("return document.activeElement.hash") == f"#cell={OTHER}"
    page.keys("ARROW_DOWN", "ARROW_UP", "ARROW_RIGHT", "ARROW_RIGHT")
    assert page.run("return document.activeElement.hash") == f"#cell={OTHER}"
    assert page.outline() > 0, "the focus is seen"
    page.keys("ENTER")
    page.wait_until(f'document.getElementById("cell={OTHER}").open')
    page.wait_until("document.activeElement.tagName === 'SUMMARY'")
    page.keys("ENTER")
    page.wait_until(f'!document.getElementById("cell={OTHER}").open')
    page.wait_until("!location.hash.includes('cell=')")


def test_what_can_be_used_has_a_name(page):
    pick(page, CELL)
    page.wait_until(f'document.getElementById("cell={CELL}").open')
    page.wait_until("document.querySelectorAll('.body .offer button').length > 4")
    nameless = [node for node in page.accessible() if not node["name"].strip()]
    assert nameless == []
    assert page.count("main h1, header h1") == 1
    assert page.count("th:not([scope])") == 0 or page.run(
        "return [...document.querySelectorAll('th:not([scope])')].every(th => !th.textContent"
        ".trim() || th.closest('.heat'))"
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_themes_can_be_read(page, address, scheme):
    page.prefer(scheme)
    page.open(address)
    dark = page.luminance("body") < 0.2
    assert dark == (scheme == "dark")
    for word in VERDICTS:
        assert page.contrast(f".legend th.v-{word}") >= READABLE, word
    for words in (".muted, .note", "main p", "nav a"):
        assert page.contrast(words) >= READABLE, words


def test_the_button_overrides_the_systems_theme_and_is_remembered(page, address):
    page.prefer("light")
    page.open(address)
    page.click("#theme")
    page.click("#theme")
    assert page.text("#theme") == "Theme: dark"
    assert page.luminance("body") < 0.2
    page.open(address)
    assert page.luminance("body") < 0.2
    page.click("#theme")
    assert page.text("#theme") == "Theme: as the system"
    assert page.luminance("body") > 0.8


def test_on_a_phone_nothing_is_cut(page, address):
    page.window(*PHONE)
    page.open(f"{address}#cell={CELL}")
    page.wait_until(f'document.getElementById("cell={CELL}").open')
    page.wait_until("document.querySelectorAll('.body .offer button').length > 4")
    assert page.run("return document.scrollingElement.scrollWidth") <= PHONE[0]
    small = page.run(
        "return [...document.querySelectorAll('.matrix td :is(summary, .wide a)')].filter("
        "link => link.getBoundingClientRect().height < 24).length"
    )
    assert small == 0, "a finger finds every cell"


PAGES = re.compile(rb"/Type\s*/Page\b")


def test_printing_is_a_summary(page):
    page.choose("m", "tiny-gpt2")
    pdf = page.print()
    assert pdf.startswith(b"%PDF") and 1 <= len(PAGES.findall(pdf)) <= 3
    assert page.hash == "#m=tiny-gpt2"
    assert page.count("details[open]") == 0, "what was unfolded to be printed is folded again"


def test_everything_that_is_shown_can_be_printed_with_all_evidence(page):
    page.choose("m", "tiny-gpt2")
    page.wait_until("document.body.dataset.unpacked")  # it is done when there is time
    page.run(
        "addEventListener('beforeprint', () => { window.printed = "
        "[...document.querySelectorAll('details[data-k]:not([hidden])')].map("
        "cell => cell.open && cell.querySelector('.body').textContent.length > 200); })"
    )
    page.run("document.body.classList.add('everything')")  # as its button does, before the dialogue
    pdf = page.print()
    assert len(PAGES.findall(pdf)) > 10
    printed = page.run("return window.printed")
    assert printed and all(printed)
    page.wait_until("!document.querySelector('details[data-k][open]')")
    assert page.count(".body > *") == 0
    assert page.hash == "#m=tiny-gpt2"


def test_findings_lead_to_what_they_count(page):
    assert page.count(".findings tbody tr") == len(
        {(record.claim, record.name) for record in fake_session().records}
    )
    page.click('.findings td a[href="#k=H1.1&t=plain"]')
    page.wait_for("#shown", "32 of ")
    assert (page.value("[name=k]"), page.value("[name=t]")) == ("H1.1", "plain")
    assert page.count(".matrix thead .model:not([hidden])") == 4
    assert page.count(".matrix tbody:not([hidden])") == 1
    left = page.run(
        "return [...document.querySelectorAll('.sums')].filter(s => s.checkVisibility())"
        ".map(s => s.textContent).join()"
    )
    assert " of " in left, "tallies say how much of a claim is shown"


def test_a_claims_short_address_goes_to_it(page, address):
    page.open(f"{address}#H1.8")
    page.wait_until("document.getElementById('H1.8').getBoundingClientRect().top < innerHeight")
    assert "H1.8" in page.run("return document.getElementById('H1.8').parentElement.textContent")
    assert page.count("a.perma[href='#H1.8']") == 1
    assert page.count(".findings a.perma") == page.count(".findings tbody tr")


def test_search_finds_heads_as_people_write_them(page):
    page.type("[name=q]", "L0H2")
    want = sum(record.subject == "0:2" for record in fake_session().records)
    page.wait_for("#shown", " of ")
    many = int(page.text("#shown").split(" of ")[0].replace(",", ""))
    assert many >= want > 0
    page.run("document.querySelector('[name=q]').value = ''")
    page.type("[name=q]", "0:2")
    page.wait_for("#shown", f"{many} of ")


def test_slash_searches_and_escape_closes_then_clears(page):
    page.keys("/")
    assert page.focused().startswith("input")
    page.type("[name=q]", "aardvark")
    page.wait_for("#shown", " of ")
    page.keys("ESCAPE")
    page.wait_for("#shown", "all ")
    pick(page, CELL)
    page.wait_until(f'document.getElementById("cell={CELL}").open')
    page.wait_until("document.activeElement.tagName === 'SUMMARY'")
    page.keys("ESCAPE")
    page.wait_until(f'!document.getElementById("cell={CELL}").open')
    assert page.run("return document.activeElement.hash") == f"#cell={CELL}", "back in the matrix"


def test_hostile_text_runs_nothing_once_all_cells_are_open(page):
    page.wait_until("document.body.dataset.unpacked")
    page.run("document.body.classList.add('everything')")
    page.run("dispatchEvent(new Event('beforeprint'))")  # opens all without a step each to go back
    page.wait_until(
        "![...document.querySelectorAll('details .body')].some(b => !b.children.length)"
    )
    assert page.count("img, iframe, object, embed, script[src]") == 0
    assert page.count("[onerror], [onload], [onmouseover], [onclick]") == 0
    assert page.alert() is None
    assert HOSTILE in page.text(f'[id="cell={CELL}"] .body')


AXE = """
const done = arguments[arguments.length - 1];
axe.run(document, { resultTypes: ["violations"] }).then(
  (found) => done(found.violations.filter((one) => ["serious", "critical"].includes(one.impact))
    .flatMap((one) => one.nodes.map((node) => `${one.id}: ${node.html.slice(0, 120)}`))),
  (error) => done([String(error)]));
"""


@pytest.mark.parametrize("window", [(1280, 900), PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_barrier(page, address, scheme, window):
    """axe-core's rules (WCAG 2), with a test case open. AXE_JS: where its axe.min.js is."""
    script = os.environ.get("AXE_JS")
    if not script:
        pytest.skip("npm install axe-core, and AXE_JS=node_modules/axe-core/axe.min.js")
    page.window(*window)
    page.prefer(scheme)
    page.open(f"{address}#cell={CELL}")
    page.wait_until("document.querySelectorAll('.body .offer button').length > 4")
    page.run(Path(script).read_text(encoding="utf-8"))
    page.driver.set_script_timeout(PATIENCE)
    assert page.driver.execute_async_script(AXE) == []


# --- what can be taken away ----------------------------------------------------------------------


def test_tables_of_the_cells_shown(page):
    page.choose("m", "tiny-gpt2")
    page.choose("c", "facts")
    want = {
        record.test
        for record in fake_session().records
        if (record.model, record.condition) == ("tiny-gpt2", "facts")
    }
    path = page.taken('[data-take="csv"]')
    with path.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert {row["test"] for row in rows} == want
    text = page.taken('[data-take="md"]').read_text(encoding="utf-8")
    assert len(text.splitlines()) == 2 + len(want) and "<img" not in text
    text = page.taken('[data-take="tex"]').read_text(encoding="utf-8")
    assert text.count("tiny-gpt2 &") == len(want) and "\\end{longtable}" in text


def test_the_whole_session(page):
    text = page.taken('[data-take="summary.md"]').read_text(encoding="utf-8")
    assert f"{len(fake_session().records)} test cases" in text
    path = page.taken('[data-take="records.json"]')
    again = RecordFile.model_validate(json.loads(path.read_text(encoding="utf-8")))
    assert again.records == panelled().records


def test_figures_as_svg_and_png(page, tmp_path):
    pick(page, CELL)
    page.wait_until("document.querySelectorAll('.body .offer').length >= 5")
    for number in range(page.count(".body .offer")):
        svg, png = (
            page.taken_by(
                f"return document.querySelectorAll('.body .offer')[{number}].children[{n}]"
            )
            for n in (0, 1)
        )
        root = xml.etree.ElementTree.fromstring(svg.read_text(encoding="utf-8"))
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert not any("class" in element.attrib for element in root.iter()), "it stands by itself"
        assert png.read_bytes().startswith(b"\x89PNG") and png.stat().st_size > 1500


# --- merged sessions and a baseline --------------------------------------------------------------


def test_changes_and_conflicts_can_be_found(browser, tmp_path):
    before = fake_session()
    content = before.model_dump()
    first = content["records"][0]
    first |= {"verdict": "refuted" if first["verdict"] == "supported" else "supported"}
    after = RecordFile.model_validate(content)
    browser.open(write_report(after, tmp_path / "drift.html", baseline=before).as_uri())
    assert "1 of 360 test cases changed its verdict" in browser.text("#drift ~ .statement")
    browser.choose("d", "flipped")
    browser.wait_for("#shown", "1 of ")
    merged = merge([before, after])
    browser.open(write_report(merged, tmp_path / "merged.html").as_uri())
    assert "1 test case in conflict" in browser.text("#merged")
    browser.choose("x", "conflict")
    browser.wait_for("#shown", "2 of 361")
    assert browser.complaints() == []


# --- the size of the embedded set ----------------------------------------------------------------


def test_a_thousand_cells_are_light(browser, tmp_path, capsys):
    path = write_report(large_session(), tmp_path / "large.html")
    size = path.stat().st_size
    began = time.perf_counter()
    browser.open(path.as_uri())
    taken = time.perf_counter() - began
    interactive = browser.run("return performance.getEntriesByType('navigation')[0].domInteractive")
    with capsys.disabled():
        print(
            f"\n1,016 test cases: {size / 1e6:.2f} MB, open in {taken:.2f} s ({interactive:.0f} ms)"
        )
    assert size < MOST_BYTES
    assert browser.text("#shown") == "all 1,016 test cases shown"


def test_the_page_of_the_last_session_is_light(capsys):
    path = Path(__file__).parents[1] / "reports" / "claims.html"
    if not path.exists():
        pytest.skip("no session of claims was run here")
    assert path.stat().st_size < MOST_BYTES
