"""The report page: complete, honest about what is missing, harmless, and the same bytes every time.

Run: pytest tests/report/test_page.py
"""

import base64
import hashlib
import json
import re

import pytest

from tests.fake_sessions import HOSTILE, Page, fake_session, one_record, opened
from tinyablation.characters import named
from tinyablation.records.packs import packs, unpack
from tinyablation.records.records import VERDICTS, Record, RecordFile
from tinyablation.report.page import ReportError, render, write_report
from tinyablation.report.sections import standing


def shown(*files, **beside):
    """The page of a session with every cell open."""
    return opened(render(*files, **beside))


def places(page):
    """What links within the page name, but for those that filter it (#k=H1.1&t=plain)."""
    inner = {value[1:] for _, value in page.links if value.startswith("#")}
    return {value for value in inner if not re.match("[a-z]=", value)}


@pytest.fixture(scope="module")
def session():
    return fake_session()


@pytest.fixture(scope="module")
def closed(session):
    return render(session)


@pytest.fixture(scope="module")
def html(closed):
    return opened(closed)


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


def test_same_records_give_the_same_bytes(session, closed):
    again = RecordFile.model_validate_json(session.model_dump_json())
    assert render(again) == closed
    other_order = session.holding(session.records[::-1])
    assert render(other_order) == closed, "the order in which workers finish must not show"


def test_other_records_give_another_page(session, closed):
    fewer = session.model_copy(update={"records": session.records[1:]})
    assert render(fewer) != closed


def test_without_the_script_the_verdicts_stand_and_a_line_says_what_does_not(session, closed):
    text = Page(re.sub(r"<script.*?</script>", "", closed, flags=re.DOTALL)).text
    assert "This browser runs no script here: the findings, the matrix with the verdict" in text
    labels = [label for tag, name, label in Page(closed).attributes if name == "aria-label"]
    cells = [label for label in labels if re.search(r", [\w-]+, \w+: (?:\w+)", label)]
    assert len(cells) == len(session.records), "the matrix says every verdict"
    assert all(record.statement in text for record in session.records)
    assert Page(closed).cells == 0, "the rows are in a pack"


def test_page_is_small(closed):
    assert len(closed.encode("utf-8")) < 1_000_000


def test_hostile_text_runs_nothing(html, page):
    assert page.tags.count("script") == 1
    assert "img" not in page.tags and "iframe" not in page.tags
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    assert HOSTILE not in html
    assert "&lt;/script&gt;&lt;img src=x onerror=alert(1)&gt;" in html, "shown, as text"


def test_a_prompt_has_its_next_tokens_before_and_after_the_ablation(session):
    record = next(r for r in session.records if r.largest)
    page = opened(render(session.model_copy(update={"records": [record]})))
    prompts = page.split('<table class="prompts">', 1)[1].split("</table>", 1)[0]
    first, second = prompts.split("<tr>")[2:4]
    said = " ".join(re.sub(r"<[^>]+>|&nbsp;", " ", first).split())
    assert re.search(r"next, clean: \S.* 0\.50 \S+ 0\.25 ablated: \S.* 0\.75", said), said
    assert 'class="target"' in first and "\u202e" not in first and HOSTILE not in prompts
    assert "next, clean" not in second
    (tooltip,) = [value for _, name, value in Page(prompts).attributes if name == "title"]
    assert re.fullmatch(r"L0H2 attends from the last token to \S.* 0\.62", tooltip), tooltip
    assert "\u202e" not in tooltip


@pytest.mark.parametrize(
    "field", ["claim", "name", "test", "statement", "model", "condition", "reason", "unit", "drift"]
)
@pytest.mark.parametrize("text", [HOSTILE, '" onmouseover="alert(1)', "'><svg onload=alert(1)>"])
def test_every_field_is_escaped(session, field, text):
    update = {field: text, "details": {text: {text: [text, {text: text}]}}, "subject": text}
    record = session.records[0].model_copy(update=update)
    page = Page(shown(session.model_copy(update={"records": [record]})))
    assert page.tags.count("script") == 1 and "img" not in page.tags
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]


def paths_of_text(value, path=()):
    """Where text stands in nested data, keys included."""
    if isinstance(value, str):
        yield path, None
    for key, entry in value.items() if isinstance(value, dict) else ():
        yield path, key
        yield from paths_of_text(entry, (*path, key))
    for index, entry in enumerate(value) if isinstance(value, list) else ():
        yield from paths_of_text(entry, (*path, index))


def with_hidden(content, path, key):
    """Another document, with hidden characters at the end of one text or key."""
    changed = json.loads(json.dumps(content))
    place = changed
    for step in path if key is not None else path[:-1]:
        place = place[step]
    if key is None:
        place[path[-1]] += HIDDEN
    else:
        place[key + HIDDEN] = place.pop(key)
    return changed


HIDDEN = "\u202e\u2066\u200b\ufeff\u3164"


@pytest.mark.slow  # renders a page for each text
def test_no_text_anywhere_turns_the_page_about(session):
    """Each text of a session and each key of its details alone, with the direction turned in it."""
    record = next(record for record in session.records if record.heatmap)
    forest = {"kind": "forest", "title": "f", "unit": "u", "rows": [{"name": "a", "value": 1.0}]}
    grid = {"kind": "grid", "title": "g", "x": "x", "y": "y", "columns": ["c"], "rows": ["r"]}
    panels = [*PANELS, forest, grid | {"values": [[1.0]]}]
    record = Record.model_validate(record.model_dump() | {"panels": panels, "drift": "moved"})
    content = session.holding([record]).model_dump(mode="json")
    content["session"]["models"] = content["session"]["models"][:1]
    tried = 0
    for path, key in paths_of_text(content):
        try:
            file = RecordFile.model_validate(with_hidden(content, path, key))
        except ValueError:
            continue  # a field's name, a verdict, a time
        tried += 1
        # The records that the page holds as data keep every character, as JSON.
        closed = render(file, baseline=session.holding([record]))
        rows = unpack(packs(closed)["rows"])
        for shown in (opened(closed), json.dumps(json.loads(rows), ensure_ascii=False)):
            assert named(shown, kept="\n\t") == shown, (path, key)
    assert tried > 60


def test_the_only_script_is_the_one_the_policy_names(html, page):
    digest = base64.b64encode(hashlib.sha256("".join(page.scripts).encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in html
    assert "default-src 'none'" in html


def test_nothing_is_fetched(html, page):
    # The one address is the name of a language, which the script gives to drawings.
    assert not re.search(r"url\(|@import|https?://", html.replace("http://www.w3.org/2000/svg", ""))
    loads = [(tag, name, value) for tag, name, value in page.attributes if name == "src"]
    assert loads == []
    links = {value for tag, value in page.links if not value.startswith(("#", "runs/"))}
    assert links == {"data:,"}


def test_every_record_has_its_place_and_every_link_resolves(session, page):
    assert len(page.ids) == len(set(page.ids))
    assert page.cells == len(session.records)
    targets = places(page)
    assert targets <= set(page.ids)
    cells = {name for name in page.ids if name.startswith("cell=")}
    assert len(cells) == len(session.records)
    assert cells <= targets


def test_repeated_and_odd_names_keep_their_own_places(session):
    record = session.records[0]
    odd = [record.model_copy(update={"model": name}) for name in ("a b", "a/b", "a-b")]
    page = Page(shown(session.model_copy(update={"records": [record, record, *odd]})))
    assert len(page.ids) == len(set(page.ids))
    assert page.cells == 5


def test_matrix_links_say_what_they_show(page):
    labels = [value for tag, name, value in page.attributes if (tag, name) == ("a", "aria-label")]
    assert (
        "H1.1 top suppressor is in layer zero, tiny-gpt2, facts: supported, as predicted" in labels
    )


def test_counts(session, page):
    by_verdict = dict.fromkeys(VERDICTS, 0)
    for record in session.records:
        by_verdict[record.verdict] += 1
    assert {f"v-{word}" for word in VERDICTS} <= set(page.ids), "each has a glyph"
    for word, count in by_verdict.items():
        assert re.search(rf"{word} {count} ", page.text), (word, count)
    standings = [standing(record) for record in session.records]
    assert f"{standings.count('as')} as predicted" in page.text
    assert f"{standings.count('against')} against prediction" in page.text
    assert f"{standings.count('unjudged')} not judged" in page.text
    for outcome in ("passed", "xfailed", "failed", "skipped"):
        count = sum(record.outcome == outcome for record in session.records)
        assert f"{outcome} {count} " in page.text


def test_the_answer_is_about_what_was_accepted_and_foresight_about_predictions(session):
    def answer(*changes):
        records = [one_record(**given) for given in changes]
        return Page(shown(session.model_copy(update={"records": records}))).text

    question = "Did anything move since it was accepted?"
    good = {"verdict": "supported", "outcome": "passed", "drift": None, "prediction_changed": None}
    good |= {"accepted": "supported", "prediction": "refuted", "family": "H1"}
    text = answer(good)
    assert f"{question} No. " in text and "1 against prediction" in text
    assert (
        "Foresight. 1 prediction, all fixed before the measurement: 0 came true (0%). 0 as" in text
    )
    edited = good | {"prediction": "supported", "prediction_changed": "changed after it"}
    assert "1 was edited after it: no foresight." in answer(good, edited)
    other = good | {"accepted": "refuted", "outcome": "failed"}
    said = "Yes: 1 of 2 test cases have another verdict than accepted."
    assert f"{question} {said}" in answer(good, other)
    assert "Yes: figures of 1 of 1 test cases." in answer(
        good | {"drift": "effect", "outcome": "failed"}
    )
    assert "Not known: some tests ended in errors." in answer(good, good | {"outcome": "error"})
    none = good | {"accepted": None, "prediction": None}
    assert f"{question} Not known: no verdict has been accepted yet." in answer(none)
    assert "Foresight" not in answer(none)
    assert "No, of 1 test cases with an accepted verdict." in answer(good, none)


def test_an_edited_prediction_is_marked_in_the_matrix_and_explained(session):
    plain, edited = (
        one_record(verdict="supported", prediction="supported", prediction_changed=said)
        for said in (None, "changed after the first measurement, from refuted")
    )
    html = shown(session.model_copy(update={"records": [plain]}))
    assert 'class="edited"' not in html
    html = shown(session.model_copy(update={"records": [edited]}))
    matrix = html[html.index('class="matrix"') : html.index('class="legends"')]
    assert matrix.count('<span class="edited">') == 1
    assert "supported, as predicted, prediction edited" in html
    assert 'data-x="edited' in html
    assert "edited 1 its prediction was edited after the measurement" in Page(html).text


def test_an_effect_too_small_to_count_has_a_glyph_a_legend_and_its_margin(session):
    small = {"verdict": "present", "effect": 0.05, "low": 0.02, "high": 0.08, "unit": "logits"}
    small |= {"margin": -0.03, "margin_low": -0.06, "margin_high": 0.01}
    html = shown(session.model_copy(update={"records": [one_record(**small)]}))
    assert 'id="v-present"' in html and 'href="#v-present"' in html
    said = "the effect is there, but it is not shown to reach the smallest effect that counts"
    text = Page(html).text
    assert f"present 1 {said}" in text
    margin = "−0.030 [−0.060, +0.010] logits, by example; this interval decides"
    beyond = f"beyond the minimum effect {margin}"
    assert beyond in text


def test_incomplete_run_is_said(html):
    assert "This run is not complete" not in html
    page = Page(shown(fake_session(complete=False)))
    assert "This run is not complete." in page.text
    assert "not finished" in page.text


def test_no_records_at_all(session):
    page = Page(shown(session.model_copy(update={"records": []})))
    assert "Nothing was judged." in page.text
    assert "No claim was recorded" in page.text
    bare = session.session.model_copy(update={"models": []})
    assert "Provenance" in Page(shown(RecordFile(session=bare))).text


def test_models_say_what_was_done_to_them(page):
    assert "planted in this model on purpose" in page.text
    assert "negative control" in page.text and "sham" not in page.text
    assert "Below the competence minimum: negation/true-negated" in page.text
    assert page.text.count("▼ 0.810") == 2


def test_each_claim_says_which_audit_columns_are_filled(session):
    record = one_record(audit="rescue", p_corrected=None, boundary=None)
    html = shown(session.model_copy(update={"records": [record]}))
    (listed,) = re.findall(r'<ul class="audit".*?</ul>', html, re.DOTALL)
    marks = re.findall(r">([✓–])</span> ([a-z ]+)<", listed)
    assert marks == [
        ("–", "planted control"),
        ("–", "selection correction"),
        ("✓", "rescue"),
        ("–", "specificity"),
        ("–", "counterexamples"),
        ("–", "error rate"),
    ]
    assert "what putting back restores is measured" in listed
    assert listed.count("nothing is recorded") == 5


def test_published_figures_of_another_model_are_not_put_beside_a_cell(session):
    def summary(model):
        figure = {"model": "gpt2-medium", "condition": "facts", "value": 0.265, "source": "v6"}
        measured = {"effect": 1.0, "low": 0.5, "high": 1.5, "unit": "LD", "verdict": "supported"}
        content = one_record(model=model, condition="facts").model_dump() | measured
        content |= {"published": [figure]}
        file = session.model_copy(update={"records": [Record.model_validate(content)]})
        html = shown(file)
        assert "Published figures of" in html and "gpt2-medium" in html
        return re.search(r"<summary class=.row.*?</summary>", html, re.DOTALL)[0], Page(html).text

    row, text = summary("gpt2-medium")
    assert "published +0.265: not comparable" in row
    assert "another unit: published without one, measured in LD" in text
    row, text = summary("tiny-gpt2")
    assert "published" not in row
    assert "not comparable: another model" in text


def test_models_that_were_not_described_are_still_shown(session):
    records = [session.records[0].model_copy(update={"model": "stranger"})]
    assert "not described in the session" in render(session.model_copy(update={"records": records}))


def test_direction_controls_are_named_everywhere(session):
    record = one_record(reason="a\u202eb", model="m\u0000")
    html = shown(session.model_copy(update={"records": [record]}))
    assert "\u202e" not in html and "\u0000" not in html
    assert "U+202E" in html


def test_run_names_that_leave_the_folder_are_not_linked(session):
    record = one_record(runs=["../../etc", "javascript:x", "fine-h1-facts_0a"])
    page = Page(shown(session.model_copy(update={"records": [record]})))
    links = [value for _, value in page.links if not value.startswith(("#", "data:"))]
    assert links == ["runs/fine-h1-facts_0a/"]


def test_report_is_written_in_one_step(session, closed, tmp_path):
    path = write_report(session, tmp_path / "reports" / "claims.html")
    assert path.read_text(encoding="utf-8") == closed
    assert [entry.name for entry in path.parent.iterdir()] == ["claims.html"]
    (tmp_path / "file").write_text("")
    with pytest.raises(ReportError, match="file"):
        write_report(session, tmp_path / "file" / "claims.html")


# --- published figures and replication -----------------------------------------------------------


def medium(value, **changes):
    figure = {"model": "gpt2-medium", "condition": "facts", "value": value, "unit": "LD"}
    fields = {
        "model": "gpt2-medium",
        "condition": "facts",
        "verdict": "supported",
        "outcome": "passed",
        "effect": 0.27,
        "low": 0.22,
        "high": 0.33,
        "unit": "LD",
        "published": [figure | {"source": "v6"}],
    }
    return Record.model_validate(one_record().model_dump() | fields | changes)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0.265, "replicates : the measured interval holds the published value"),
        (0.8, "same sign : the published sign, but smaller than published"),
        (-0.5, "opposite sign : the measured interval lies on the other side of zero"),
        ("up", "not comparable : published as text"),
    ],
)
def test_measured_stands_beside_published_with_its_replication(session, value, words):
    text = Page(shown(session.model_copy(update={"records": [medium(value)]}))).text
    assert words in text
    assert "+0.270 [+0.220, +0.330]" in text and "v6" in text


def test_published_figures_stand_once_a_claim_and_in_order(session):
    figures = [
        {"model": "gpt2-medium", "condition": c, "value": v, "unit": "LD", "source": "v6"}
        for c, v in (("logic", 4.25), ("facts", 1.25))
    ]
    records = [
        Record.model_validate(
            one_record(claim="H1.1", name=name, condition=c, model=model).model_dump()
            | {"published": figures}
        )
        for name in ("test_a", "test_b")
        for c in ("facts", "logic")
        for model in ("tiny-gpt2", "tiny-neox")
    ]
    file = session.model_copy(update={"records": records})
    html = shown(file)
    assert html.count('class="lit"') == 1
    assert html.index("+1.25") < html.index("+4.25")
    page = Page(html)
    assert places(page) <= set(page.ids)
    assert render(file).count("-published") == 3, (
        "the table, and the links to it from the first screen and from the other test"
    )


def test_signs_of_other_models_are_information(session):
    records = [
        medium(0.265, model=name, effect=sign * 0.3, low=sign * 0.3 - 0.1, high=sign * 0.3 + 0.1)
        for name, sign in (("tiny-gpt2", 1), ("tiny-llama", -1), ("tiny-neox", 0))
    ]
    text = Page(shown(session.model_copy(update={"records": records}))).text
    assert "same sign in 1 of 3, opposite sign in 1 of 3, not told from zero in 1 of 3" in text
    assert "not comparable: another model" in text


# --- protocols -----------------------------------------------------------------------------------


def as_published(file, **changes):
    """The same session as if it had been measured under the published protocol."""
    content = file.model_dump()
    content["session"] |= {"protocol": "published", "started": "2025-03-02T10:00:00+00:00"}
    for record in content["records"]:
        record |= {"protocol": "published", "prediction": None, "drift": None} | changes
        passed = {"supported": "passed", "refuted": "xfailed"}
        record["outcome"] = passed.get(record["verdict"], "skipped")
    return RecordFile.model_validate(content)


def test_the_head_says_which_protocol_and_what_the_published_one_does(session, page):
    assert "Corrected protocol:" in page.text
    published = Page(shown(as_published(session)))
    assert "Published protocol: as the study measured" in published.text
    for text in (page.text, published.text):
        for words in ("last index read", "zero_folded", "mean over ablated heads", "validity gate"):
            assert words in text
    assert "What holds as the study measured it?" in published.text
    assert "Did anything move" not in published.text and "Foresight" not in published.text
    assert "as predicted" not in published.text
    assert "--protocol published" in published.text, "the command that repeats a cell"


def test_protocols_are_compared_on_both_pages(session):
    cells = [
        one_record(model=name, condition="facts", claim="H1.1", name="test_x", unit="LD")
        for name in ("tiny-gpt2", "tiny-llama", "tiny-neox", "tiny-mistral")
    ]
    verdicts = {
        "tiny-gpt2": ("refuted", "supported"),
        "tiny-llama": ("supported", "refuted"),
        "tiny-neox": ("supported", "supported"),
        "tiny-mistral": ("blocked", "supported"),
    }

    def having(which):
        return [
            record.model_copy(
                update={"verdict": verdicts[record.model][which], "effect": 1.5 + which}
            )
            for record in cells
        ]

    corrected = session.model_copy(update={"records": having(0)})
    published = as_published(session.model_copy(update={"records": having(1)}))
    for file, other, name in (
        (corrected, published, "published"),
        (published, corrected, "corrected"),
    ):
        html = shown(file, other)
        page = Page(html)
        assert "Protocols compared" in page.text
        assert re.search(
            r"lives under the published protocol and dies under the corrected one in 1; "
            r"lives under the corrected protocol and dies under the published one in 1; "
            r"same verdict under both in 1; otherwise: .* in 1",
            page.text,
        )
        assert "dies when corrected" in page.text and "lives only corrected" in page.text
        assert f"Under the {name} protocol:" in page.text
        sides = re.search(r'<table class="sides">.*?</table>', html, re.DOTALL)[0]
        assert sides.count("+1.500") == 4 and sides.count("+2.500") == 4
        assert places(page) <= set(page.ids)
        assert len(page.ids) == len(set(page.ids))
    assert "Protocols compared" not in render(corrected)
    with pytest.raises(ValueError, match="corrected protocol"):
        render(corrected, corrected)


@pytest.mark.slow
def test_other_weights_are_said_and_not_compared(session):
    content = as_published(session).model_dump()
    for model in content["session"]["models"]:
        if model["id"] == "tiny-neox":
            model["weight_hash"] = "another"
    html = shown(session, RecordFile.model_validate(content))
    assert "its weights differ between the sessions: tiny-neox" in Page(html).text
    sides = re.search(r'<table class="sides">.*?</table>', html, re.DOTALL)[0]
    assert "tiny-llama" in sides and "tiny-neox<" not in sides


def test_run_directories_are_found_from_the_page(session):
    record = one_record(runs=["a-h1-facts_0a"])
    page = Page(shown(session.model_copy(update={"records": [record]}), runs=["../runs"]))
    assert "../runs/a-h1-facts_0a/" in {value for _, value in page.links}


# --- panels --------------------------------------------------------------------------------------

PANELS = [
    {
        "kind": "tokens",
        "title": f"writes {HOSTILE}",
        "columns": {
            "top": [
                {"token": HOSTILE, "logit": 0.5},
                {"token": "\N{RIGHT-TO-LEFT OVERRIDE}evil\x00", "logit": 0.25},
                {"token": " totally", "logit": 0.125},
                {"token": "", "logit": 0.1},
            ],
            f"bottom {HOSTILE}": [{"token": "\n", "logit": -0.5}],
        },
    },
    {
        "kind": "curve",
        "title": f"Dose {HOSTILE}",
        "x": f"alpha {HOSTILE}",
        "y": '" onload="alert(1)',
        "series": [
            {"name": f"{HOSTILE}\u202e\x00", "x": [-0.5, 0, 0.5], "y": [1, 2, 3]},
            {"name": "b", "x": [0], "y": [1], "low": [0.5], "high": [1.5]},
        ],
    },
]


def test_panels_are_shown_and_hostile_tokens_run_nothing(session):
    content = one_record().model_dump() | {"panels": PANELS}
    records = [Record.model_validate(content | {"condition": c}) for c in ("facts", "logic")]
    html = shown(session.model_copy(update={"records": records}))
    page = Page(html)
    assert page.tags.count("script") == 1 and "img" not in page.tags
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    assert "\u202e" not in html and "\x00" not in html
    assert len(page.ids) == len(set(page.ids))
    described = [value for tag, name, value in page.attributes if name == "aria-labelledby"]
    assert {part for value in described for part in value.split()} <= set(page.ids)
    tokens = re.search(r'<table class="tokens">.*?</table>', html, re.DOTALL)[0]
    assert tokens.count("&lt;/script&gt;") == 3
    for text in ("U+202E", "U+0000", '<i class="sp">␣</i>totally', "empty", "↵", "+0.500"):
        assert text in tokens
    assert page.tags.count("desc") == 2
