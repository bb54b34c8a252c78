"""Cells and sections of the report. Run: pytest tests/test_sections.py"""

import pytest

from tests.fake_sessions import fake_session, one_record
from tinyablation.records import Record
from tinyablation.sections import rerun_command, sections, standing


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


def test_rerun_command_is_quoted_for_the_shell():
    record = one_record(test="claims/test_h1.py::test_x[tiny-gpt2-facts]")
    assert rerun_command(record) == "pytest 'claims/test_h1.py::test_x[tiny-gpt2-facts]'"
    assert rerun_command(one_record(test="a'; rm -rf /")) == """pytest 'a'"'"'; rm -rf /'"""
    published = one_record(test="a[b]", protocol="published")
    assert rerun_command(published) == "pytest 'a[b]' --protocol published"


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
