"""Cells and sections of the report. Run: pytest tests/report/test_sections.py"""

import pytest

from tests.fake_sessions import fake_session, one_record
from tinyablation.records.panels import ForestPanel
from tinyablation.records.records import Record
from tinyablation.records.trust import Multiplicity, Multiverse
from tinyablation.report.heat_tables import heat_table
from tinyablation.report.panel_views import panels_of
from tinyablation.report.sections import (
    said_of_screening,
    sections,
    standing,
)
from tinyablation.sessions.drift import compare_sessions


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
        ("inconclusive", "supported", "skipped", "against"),  # as when it was accepted
        ("present", "supported", "xfailed", "against"),
        ("present", "present", "xfailed", "as"),
        ("inconclusive", None, "skipped", "unjudged"),
        ("blocked", "supported", "skipped", "unjudged"),
        ("supported", None, "passed", "unregistered"),
        ("error", "supported", "error", "error"),
        ("supported", "supported", "error", "error"),
    ],
)
def test_standing(verdict, prediction, outcome, expected):
    record = one_record(verdict=verdict, prediction=prediction, outcome=outcome)
    assert standing(record) == expected


def test_rerun_command_has_what_the_session_was_asked():
    record = one_record(test="a[hf-facts]", options=["--model", "./my hf", "--seed", "3"])
    assert record.command == "pytest 'a[hf-facts]' --model './my hf' --seed 3"


def test_rerun_command_is_quoted_for_the_shell():
    record = one_record(test="claims/test_h1.py::test_x[tiny-gpt2-facts]")
    assert record.command == "pytest 'claims/test_h1.py::test_x[tiny-gpt2-facts]'"
    assert one_record(test="a'; rm -rf /").command == """pytest 'a'"'"'; rm -rf /'"""
    published = one_record(test="a[b]", protocol="published")
    assert published.command == "pytest 'a[b]' --protocol published"


def test_a_cell_of_the_published_protocol_stands_without_a_prediction():
    record = one_record(verdict="refuted", prediction=None, outcome="xfailed", protocol="published")
    assert standing(record) == "unregistered"


def test_every_test_is_a_section_and_every_record_a_cell():
    file = fake_session()
    made = sections(file)
    assert sum(len(section.cells) for section in made) == len(file.records)
    assert [section.record.claim for section in made][:2] == ["V.1", "V.2"]
    assert len({(section.record.claim, section.record.name) for section in made}) == len(made)


def test_figures_of_an_unknown_condition_come_last():
    figures = [
        {"model": "m", "condition": c, "value": 1.0, "source": "s"}
        for c in ("elsewhere", "all", "facts")
    ]
    record = Record.model_validate(one_record().model_dump() | {"published": figures})
    file = fake_session().model_copy(update={"records": [record]})
    rows = sections(file)[0].published
    assert [row.figure.condition for row in rows] == ["facts", "all", "elsewhere"]


def test_a_head_that_was_not_measured_has_an_empty_cell():
    heat = {"values": [[1.0, None], [-0.5, 0.0]], "title": "t"}
    record = Record.model_validate(one_record().model_dump() | {"heatmap": heat})
    ((measured, missing), _) = heat_table(record.heatmap, "0:0").rows
    assert (missing.text, missing.shade, missing.tooltip) == ("", "", "0:1 not measured")
    assert "subject" in measured.shade and heat_table(record.heatmap, None).extent == 1.0


def test_a_screened_sweep_is_said_in_words_with_its_bounds():
    hidden = {"n": 800, "sampled": 64, "found": 1, "most": 57}
    screened = {
        "asked": "64:5%",
        "condition": "facts",
        "n_heads": 1024,
        "measured": 224,
        "by_layer": 32,
        "by_score": 128,
        "by_chance": 64,
        "confidence": 0.95,
        "floor": 0.2,
        "raising": hidden,
        "lowering": hidden | {"found": 0, "most": 38},
        "agreement": 0.5,
    }
    record = Record.model_validate(one_record(test="a[b]").model_dump() | {"screened": [screened]})
    said = said_of_screening(record.screened[0])
    assert "facts: 224 of 1024 heads measured (32 in whole layers, 128 by score, 64 drawn" in said
    assert (
        "Of the 800 others at most 57 (7.1%) raise LD by the minimum effect or more (1 of those"
        in said
    )
    assert "at most 38 (4.8%) lower LD" in said and "bounds of 95%" in said
    assert said.endswith("over those drawn: +0.500.")
    assert record.command == "pytest 'a[b]' --screen 64:5%"
    file = fake_session().model_copy(update={"records": [record]})
    assert ("screened sweep", said) in sections(file)[0].cells[0].figures


def test_details_with_intervals_are_drawn_where_a_claim_draws_nothing_itself():
    details = {"each alone": {"0:1": [0.5, 0.25, 0.75], "0:2": [0.1, 0.0, 0.2]}, "clean": 1.5}
    (panel,) = panels_of(one_record(details=details, panels=[]))
    assert (panel.title, [row.name for row in panel.rows]) == ("each alone", ["0:1", "0:2"])
    assert panels_of(one_record(details={"one": {"0:1": [0.5, 0.25, 0.75]}}, panels=[])) == []
    for odd in ([0.5, 0.75, 0.25], [0.5, 0.4], "0.5", [True, False, True]):
        odd_details = {"each": {"0:1": odd, "0:2": [0.1, 0.0, 0.2]}}
        assert panels_of(one_record(details=odd_details, panels=[])) == []
    own = ForestPanel.of("own", "u", {"a": (1.0,)})
    assert panels_of(one_record(details=details, panels=[own])) == [own]


def test_flags_say_what_a_reader_may_look_for():
    multiverse = Multiverse(n=4, agreed=1, least_share=0.8, verdicts={}, by_choice={})
    record = one_record(
        verdict="supported", p_adjusted=0.2, drift="moved", multiverse=multiverse, boundary=None
    )
    file = fake_session().model_copy(update={"records": [record]})
    ledger = Multiplicity(alpha=0.05, n=1, supported=1, discoveries=0, lost=1)
    file = file.model_copy(
        update={"session": file.session.model_copy(update={"multiplicity": ledger})}
    )
    assert sections(file)[0].cells[0].flags == ["fragile", "lost", "drifted"]


def test_cells_say_what_changed_since_the_baseline():
    def session_of(*records):
        return fake_session().model_copy(update={"records": list(records)})

    fields = {"verdict": "supported", "effect": 1.0, "low": 0.9, "high": 1.1, "unit": "LD"}
    before = session_of(*(one_record(model=name, **fields) for name in ("a", "b", "c")))
    after = session_of(
        one_record(model="a", **fields | {"verdict": "refuted"}),
        one_record(model="b", **fields | {"effect": 2.0, "low": 1.9, "high": 2.1}),
        one_record(model="c", **fields | {"effect": 1.05}),
        one_record(model="d", **fields),
    )
    cells = sections(after, drift=compare_sessions(before, after))[0].cells
    assert {cell.record.model: cell.changes for cell in cells} == {
        "a": ["flipped"],
        "b": ["moved"],
        "c": ["shifted"],
        "d": ["new"],
    }
    first = next(cell for cell in cells if cell.record.model == "a")
    assert first.before.verdict == "supported" and "verdict changed" in first.label
