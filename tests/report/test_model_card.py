"""Model cards: the hub's own parser reads back what was recorded.

Run: pytest tests/report/test_model_card.py
"""

import pytest
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from tests.fake_sessions import HOSTILE, fake_session
from tests.sessions.test_drift import cell, session
from tinyablation.report.markdown import one_line
from tinyablation.report.model_card import model_card


def card(file, model=0):
    return model_card(file, file.session.models[model])


def test_the_parser_of_the_hub_reads_every_figure_back():
    file = fake_session()
    model = file.session.models[0]
    read = ModelCard(card(file))
    assert read.data.model_name == one_line(model.title)
    own = [record for record in file.records if record.model == model.id]
    figures = [record for record in own if record.effect is not None]
    found = {
        (each.dataset_type, each.metric_type): (each.metric_value, each.metric_args["verdict"])
        for each in read.data.eval_results
    }
    assert len(read.data.eval_results) == len(found) == len(figures)
    assert found == {
        (f"tinyablation-{record.condition}", f"tinyablation.{record.claim}.{record.name}"): (
            record.effect,
            record.verdict,
        )
        for record in figures
    }
    first = read.data.eval_results[0]
    record = next(record for record in figures if record.condition == "facts")
    assert first.metric_args["low"] == record.low and first.metric_args["unit"] == record.unit


def test_the_table_has_the_verdict_of_every_test_case():
    file = session(cell(), cell(condition="logic", verdict="blocked", effect=None), cell("other"))
    lines = card(file).splitlines()
    assert lines[-3:] == ["| Claim | facts | logic |", "| --- | --- | --- |", lines[-1]]
    assert lines[-1] == "| H1.1 x | supported | blocked |"


def test_a_model_without_figures_has_no_index():
    text = card(session(cell(verdict="blocked", effect=None, low=None, high=None)))
    assert text.startswith("## ") and "| H1.1 x | blocked |" in text
    assert ModelCard(text).data.eval_results is None


def test_a_model_of_the_hub_goes_by_its_repository():
    read = ModelCard(card(session(cell(), repo="openai-community/gpt2")))
    assert read.data.model_name == "openai-community/gpt2"


def test_the_discoveries_of_a_session_are_not_said_to_be_one_models():
    file = fake_session()
    assert file.session.multiplicity is None  # made up here
    found = {"alpha": 0.05, "n": 9, "supported": 3, "discoveries": 2, "lost": 1, "largest_p": 0.01}
    both = {"multiplicity": found, "hashes": {"gpt2": None, "other": None}}
    alone = {"multiplicity": found}
    assert "2 of 3 supported test cases are significant" in card(session(cell(), **alone))
    assert "significant" not in card(session(cell(), cell("other"), **both))


BAD = [
    f'{HOSTILE}"',
    "x\n---\nlicense: stolen\n---\n",
    "!!python/object/apply:os.system ['true']",
    "a: [b, {c: d}] # e & *f | >\n- g",
    "| x | [y](javascript:alert(1)) `z` \\",
    "\u202e\x1b[2J\x00",
]


@pytest.mark.parametrize("bad", BAD, ids=ascii)
def test_what_others_wrote_is_text(bad):
    record = cell(bad, claim=bad, name=bad, condition=bad, unit=bad, subject=bad)
    text = card(session(record, hashes={bad: None}, versions={"tinyablation": bad}, device=bad))
    read = ModelCard(text)
    assert set(read.data.to_dict()) == {"model-index"}
    (result,) = read.data.eval_results
    shown = " ".join(bad.split()).replace("\u202e", "U+202E").replace("\x1b", "U+001B")
    assert result.metric_args["unit"] == shown.replace("\x00", "U+0000")
    assert result.dataset_type == f"tinyablation-{result.metric_args['unit']}"
    tokens = (
        MarkdownIt("commonmark", {"html": True})
        .enable("table")
        .parse(read.content.split("## ", 1)[1])
    )
    kinds = {token.type for token in tokens} | {
        child.type for token in tokens for child in token.children or ()
    }
    assert not kinds & {"html_block", "html_inline", "link_open", "image", "code_inline"}
    assert sum(token.type == "td_open" for token in tokens) == 2
    assert "\x1b" not in text and "\u202e" not in text
