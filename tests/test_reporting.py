"""The report page: complete, honest about what is missing, harmless, and the same bytes every time.

Run: pytest tests/test_reporting.py
"""

import base64
import functools
import hashlib
import random
import re
from html.parser import HTMLParser

import pytest

from tinyablation.records import Record, RecordFile
from tinyablation.reporting import (
    ReportError,
    render,
    rerun_command,
    standing,
    visible,
    write_report,
)

HOSTILE = "</script><img src=x onerror=alert(1)>"
FAMILIES = ("gpt2", "mistral", "llama", "neox")
CONDITIONS = ("facts", "negation", "counterfactual", "logic")
TESTS = (
    ("V.1", "test_model_is_competent", False),
    ("V.2", "test_clean_and_corrupt_are_told_apart", False),
    ("V.3", "test_swapped_labels_flip_the_logit_difference", False),
    ("V.4", "test_null_prompt_shows_no_label_prior", False),
    ("H1.1", "test_top_suppressor_is_in_layer_zero", False),
    ("H1.1", "test_top_suppressor_is_the_registered_head", False),
    ("H1.2", "test_next_suppressors_are_the_registered_heads", False),
    ("H1.3", "test_the_same_heads_lead_in_every_condition", True),
    ("H1.8", "test_no_random_head_does_as_well", False),
    ("H1.8", "test_effect_survives_every_ablation_method", False),
    ("H1.9", "test_no_head_outside_layer_zero_passes", False),
    ("H1.10", "test_suppressor_lowers_the_target_rank", False),
)
WORDS = ("Paris", "Rome", "Oslo", "bronze", "copper", "true", "false", "seven")
PROMPT = "In the old atlas, the river that runs through {} is called the"


def fake_record(rng, index, model, condition, planted):
    claim, name, _ = TESTS[index]
    blocked = condition == "negation" and model.startswith("tiny-llama")
    validity = claim.startswith("V")
    effect = rng.uniform(0.6, 2.4) if planted or validity else rng.uniform(-0.04, 0.06)
    if not planted and not validity and rng.random() < 0.1:
        effect = 0.14 if rng.random() < 0.8 else 0.45
    width, floor = rng.uniform(0.03, 0.25), 0.12
    verdict = "supported" if effect - width > floor else "refuted"
    if effect - width < floor < effect + width:
        verdict = "inconclusive"
    expected = "supported" if planted or validity else "refuted"
    outcome = {"supported": "passed", "refuted": "xfailed", "inconclusive": "skipped"}[verdict]
    if verdict not in (expected, "inconclusive"):
        outcome = "failed"
    reason = f"The interval's lower end is {effect - width:+.3f} LD, and the floor is {floor}."
    if blocked:
        verdict, outcome = "blocked", "skipped"
        reason = (
            "Negation is not valid for this model: accuracy is 0.81 on true-negated, floor 0.9."
        )
    if rng.random() < 0.005 and not blocked:
        verdict, outcome, reason = "error", "error", f"TypeError: {HOSTILE}"
    measured = verdict not in ("blocked", "error")
    head = rng.randrange(8)
    values = [[round(rng.gauss(0, 0.03), 4) for _ in range(8)] for _ in range(4)]
    values[0][head] = round(effect, 4)
    largest = [
        {
            "prompt": PROMPT.format(rng.choice(WORDS)) if i else f"{HOSTILE} is\n",
            "target": f" {rng.choice(WORDS)}" if i else f" {HOSTILE}",
            "foil": f" {rng.choice(WORDS)}",
            "clean_ld": round(rng.uniform(-1, 4), 4),
            "delta": round(delta, 4),
            "split": "confirmation",
        }
        for i, delta in enumerate((2.71, 1.9, 1.2, -0.2, -0.4, -0.9))
    ]
    return {
        "claim": claim,
        "family": claim.split(".")[0],
        "test": f"claims/test_{claim[0].lower()}.py::{name}[{model}-{condition}]",
        "name": name,
        "statement": "One head of layer 0 suppresses the target more than any other of its layer.",
        "estimator": "Mean paired Δ of LD over the confirmation split, head chosen on discovery.",
        "threshold": "The lower end of the 95 % interval lies above 5 % of the clean LD.",
        "refuted_if": "The upper end of the interval lies below the floor.",
        "model": model,
        "condition": condition,
        "verdict": verdict,
        "reason": reason,
        "prediction": expected,
        "outcome": outcome,
        "effect": effect if measured else None,
        "low": effect - width if measured else None,
        "high": effect + width if measured else None,
        "floor": floor if measured else None,
        "p_corrected": (0.0002 if effect > 0.5 else 0.41) if measured and not validity else None,
        "unit": "LD",
        "n_examples": 120 if measured else None,
        "n_clusters": 40 if measured else None,
        "subject": None if validity or not measured else f"0:{head}",
        "published": [
            {"model": "gpt2-medium", "condition": condition, "value": 0.265, "source": "study v6"}
        ]
        if claim == "H1.1" and "gpt2" in model
        else [],
        "details": {
            "clean_ld": 1.42,
            "percentile": 99.2,
            "method_agrees": True,
            "by_method": {"zero": effect, "mean": effect * 0.9, "resample": effect * 0.95},
            "next_heads": [{"head": "0:4", "delta": 0.06}, {"head": "0:7", "delta": 0.05}],
        }
        if measured
        else {},
        "heatmap": {"values": values, "title": "Mean Δ LD by layer and head, zero ablation"}
        if measured and not validity
        else None,
        "largest": largest if measured and not validity else [],
        "runs": [f"{model}-h1-{condition}_0123456789ab"] if measured else [],
        "drift": "effect was +1.204, is +1.310" if rng.random() < 0.004 else None,
        "duration_s": round(rng.uniform(0.01, 3), 3),
    }


@functools.cache
def fake_session(seed=0, complete=True, hostile=True) -> RecordFile:
    """Twelve tests, eight models, four conditions, with text that means harm."""
    rng = random.Random(seed)
    models, records = [], []
    for family in FAMILIES:
        for variant in ("hedged", "plain"):
            name = f"tiny-{family}" + ("-plain" if variant == "plain" else "")
            weak = family == "llama"
            models.append(
                {
                    "id": name,
                    "title": f"Tiny {family}, {variant}" + (f" {HOSTILE}" if hostile else ""),
                    "family": family,
                    "variant": variant,
                    "note": "Head 0:2 learned from hedged text." if variant == "hedged" else "",
                    "weight_hash": hashlib.sha256(name.encode()).hexdigest(),
                    "competence": {
                        condition: {
                            cell: {
                                "n": 60,
                                "accuracy": 0.81
                                if weak and cell == "true-negated"
                                else round(rng.uniform(0.93, 1), 3),
                                "ld": round(rng.uniform(1, 4), 3),
                            }
                            for cell in (
                                ("true-plain", "false-plain", "true-negated", "false-negated")
                                if condition in ("negation", "logic")
                                else ("all",)
                            )
                        }
                        for condition in CONDITIONS
                    },
                    "below_floor": ["negation/true-negated"] if weak else [],
                }
            )
            for index, (_, _, wide) in enumerate(TESTS):
                for condition in ("all",) if wide else CONDITIONS:
                    records.append(fake_record(rng, index, name, condition, variant == "hedged"))
    rng.shuffle(records)
    return RecordFile.model_validate(
        {
            "session": {
                "started": "2025-03-01T09:30:00+00:00",
                "finished": "2025-03-01T09:33:41+00:00" if complete else None,
                "command": "pytest claims -n 2",
                "versions": {"python": "3.12.4", "torch": "2.13.0", "transformers": "5.23.1"},
                "platform": "Linux x86_64",
                "device": "cpu",
                "predictions_hash": "5f2b1c" * 10,
                "complete": complete,
                "models": models,
            },
            "records": records,
        }
    )


def one_record(**changes) -> Record:
    return fake_session().records[0].model_copy(update=changes)


class Page(HTMLParser):
    """The elements of a page as a browser would see them."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.ids, self.links, self.attributes = [], [], [], []
        self.texts, self.scripts = [], []
        self.within = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.within.append(tag)
        for name, value in attributes:
            self.attributes.append((tag, name, value))
            if name == "id":
                self.ids.append(value)
            if name == "href":
                self.links.append((tag, value))

    def handle_data(self, data):
        if self.within and self.within[-1] == "script":
            self.scripts.append(data)
        self.texts.append(data)

    def handle_endtag(self, tag):
        self.within.append("/")

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


@pytest.fixture(scope="module")
def session():
    return fake_session()


@pytest.fixture(scope="module")
def html(session):
    return render(session)


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


def test_same_records_give_the_same_bytes(session, html):
    again = RecordFile.model_validate_json(session.model_dump_json())
    assert render(again) == html
    other_order = session.model_copy(update={"records": session.records[::-1]})
    assert render(other_order) == html, "the order in which workers finish must not show"


def test_other_records_give_another_page(session, html):
    fewer = session.model_copy(update={"records": session.records[1:]})
    assert render(fewer) != html


def test_page_is_small(html):
    assert len(html.encode("utf-8")) < 1_500_000


def test_hostile_text_runs_nothing(html, page):
    assert page.tags.count("script") == 1
    assert "img" not in page.tags and "iframe" not in page.tags
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    assert HOSTILE not in html
    assert "&lt;/script&gt;&lt;img src=x onerror=alert(1)&gt;" in html, "shown, as text"


@pytest.mark.parametrize(
    "field", ["claim", "name", "test", "statement", "model", "condition", "reason", "unit", "drift"]
)
@pytest.mark.parametrize("text", [HOSTILE, '" onmouseover="alert(1)', "'><svg onload=alert(1)>"])
def test_every_field_is_escaped(session, field, text):
    update = {field: text, "details": {text: {text: [text, {text: text}]}}, "subject": text}
    record = session.records[0].model_copy(update=update)
    page = Page(render(session.model_copy(update={"records": [record]})))
    assert page.tags.count("script") == 1 and "img" not in page.tags
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]


def test_the_only_script_is_the_one_the_policy_names(html, page):
    digest = base64.b64encode(hashlib.sha256("".join(page.scripts).encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in html
    assert "default-src 'none'" in html


def test_nothing_is_fetched(html, page):
    assert not re.search(r"url\(|@import|https?://", html)
    loads = [(tag, name, value) for tag, name, value in page.attributes if name == "src"]
    assert loads == []
    links = {value for tag, value in page.links if not value.startswith(("#", "runs/"))}
    assert links == {"data:,"}


def test_every_record_has_its_place_and_every_link_resolves(session, page):
    assert len(page.ids) == len(set(page.ids))
    assert page.tags.count("details") == len(session.records)
    targets = {value[1:] for _, value in page.links if value.startswith("#")}
    assert targets <= set(page.ids)
    cells = {name for name in page.ids if name.startswith("cell-")}
    assert len(cells) == len(session.records)
    assert cells <= targets


def test_repeated_and_odd_names_keep_their_own_places(session):
    record = session.records[0]
    odd = [record.model_copy(update={"model": name}) for name in ("a b", "a/b", "a-b")]
    page = Page(render(session.model_copy(update={"records": [record, record, *odd]})))
    assert len(page.ids) == len(set(page.ids))
    assert page.tags.count("details") == 5


def test_matrix_links_say_what_they_show(page):
    labels = [value for tag, name, value in page.attributes if (tag, name) == ("a", "aria-label")]
    assert (
        "H1.1 top suppressor is in layer zero, tiny-gpt2, facts: supported, as predicted" in labels
    )


def test_counts(session, page):
    by_verdict = dict.fromkeys(("supported", "refuted", "inconclusive", "blocked", "error"), 0)
    for record in session.records:
        by_verdict[record.verdict] += 1
    for word, count in by_verdict.items():
        assert re.search(rf"{word} {count} ", page.text), (word, count)
    standings = [standing(record) for record in session.records]
    assert f"{standings.count('as')} as predicted" in page.text
    assert f"{standings.count('against')} against prediction" in page.text
    assert f"{standings.count('unjudged')} not judged" in page.text
    for outcome in ("passed", "xfailed", "failed", "skipped"):
        count = sum(record.outcome == outcome for record in session.records)
        assert f"{outcome} {count} " in page.text


@pytest.mark.parametrize(
    ("verdict", "prediction", "outcome", "expected"),
    [
        ("supported", "supported", "passed", "as"),
        ("refuted", "refuted", "xfailed", "as"),
        ("supported", "supported", "failed", "as"),  # failed by drift: no part of the verdict
        ("blocked", "blocked", "skipped", "as"),
        ("supported", "refuted", "failed", "against"),
        ("refuted", "supported", "failed", "against"),
        ("inconclusive", "supported", "failed", "against"),
        ("inconclusive", "supported", "skipped", "unjudged"),
        ("blocked", "supported", "skipped", "unjudged"),
        ("supported", None, "passed", "unregistered"),
        ("error", "supported", "error", "error"),
        ("supported", "supported", "error", "error"),
    ],
)
def test_standing(verdict, prediction, outcome, expected):
    record = one_record(verdict=verdict, prediction=prediction, outcome=outcome)
    assert standing(record) == expected


def test_answer_follows_the_predictions(session):
    def answer(**changes):
        records = [one_record(**changes)]
        return Page(render(session.model_copy(update={"records": records}))).text

    good = {"verdict": "supported", "prediction": "supported", "outcome": "passed"}
    assert "Is the world as registered? Yes. " in answer(**good)
    assert "No: some verdicts are against" in answer(**good | {"prediction": "refuted"})
    assert "Not known: some tests broke" in answer(**good | {"prediction": None})
    assert "Not known: nothing could be judged" in answer(
        verdict="blocked", prediction="supported", outcome="skipped"
    )


def test_incomplete_run_is_said(html):
    assert "This run is not complete" not in html
    page = Page(render(fake_session(complete=False)))
    assert "This run is not complete." in page.text
    assert "not finished" in page.text


def test_no_records_at_all(session):
    page = Page(render(session.model_copy(update={"records": []})))
    assert "Nothing was judged." in page.text
    assert "No claim was recorded" in page.text
    bare = session.session.model_copy(update={"models": []})
    assert "Provenance" in Page(render(RecordFile(session=bare))).text


def test_models_say_what_was_done_to_them(page):
    assert "planted in this model on purpose" in page.text
    assert "sham" in page.text
    assert "Below the competence floor: negation/true-negated" in page.text
    assert page.text.count("▼ 0.810") == 2


def test_published_figures_of_another_model_are_not_put_beside_a_cell(session):
    def summary(model):
        figure = {"model": "gpt2-medium", "condition": "facts", "value": 0.265, "source": "v6"}
        content = one_record(model=model, condition="facts").model_dump() | {"published": [figure]}
        file = session.model_copy(update={"records": [Record.model_validate(content)]})
        html = render(file)
        assert "Published (gpt2-medium, v6)" in html
        return re.search(r"<summary.*?</summary>", html, re.DOTALL)[0]

    assert "published +0.265" in summary("gpt2-medium")
    assert "published" not in summary("tiny-gpt2")


def test_models_that_were_not_described_are_still_shown(session):
    records = [session.records[0].model_copy(update={"model": "stranger"})]
    assert "not described in the session" in render(session.model_copy(update={"records": records}))


def test_visible_spaces_and_controls():
    assert visible(" Paris") == '<i class="sp">␣</i>Paris'
    assert visible("a\n b ") == 'a<i class="sp">↵</i> b<i class="sp">␣</i>'
    assert visible("  ") == '<i class="sp">␣</i>' * 2
    assert visible("\N{RIGHT-TO-LEFT OVERRIDE}x<") == '<i class="sp">U+202E</i>x&lt;'
    assert visible("") == ""


def test_direction_controls_are_named_everywhere(session):
    record = one_record(reason="a\u202eb", model="m\u0000")
    html = render(session.model_copy(update={"records": [record]}))
    assert "\u202e" not in html and "\u0000" not in html
    assert "U+202E" in html


def test_rerun_command_is_quoted_for_the_shell():
    record = one_record(test="claims/test_h1.py::test_x[tiny-gpt2-facts]")
    assert rerun_command(record) == "pytest 'claims/test_h1.py::test_x[tiny-gpt2-facts]'"
    assert rerun_command(one_record(test="a'; rm -rf /")) == """pytest 'a'"'"'; rm -rf /'"""


def test_run_names_that_leave_the_folder_are_not_linked(session):
    record = one_record(runs=["../../etc", "javascript:x", "fine-h1-facts_0a"])
    page = Page(render(session.model_copy(update={"records": [record]})))
    links = [value for _, value in page.links if not value.startswith(("#", "data:"))]
    assert links == ["runs/fine-h1-facts_0a/"]


def test_report_is_written_in_one_step(session, html, tmp_path):
    path = write_report(session, tmp_path / "reports" / "claims.html")
    assert path.read_text(encoding="utf-8") == html
    assert [entry.name for entry in path.parent.iterdir()] == ["claims.html"]
    (tmp_path / "file").write_text("")
    with pytest.raises(ReportError, match="file"):
        write_report(session, tmp_path / "file" / "claims.html")
