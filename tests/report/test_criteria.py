"""The criteria of a test case on the page. Run: pytest tests/report/test_criteria.py"""

import pytest

from tests.fake_sessions import HOSTILE, Page, fake_session, one_record, opened
from tinyablation.records.criteria import Criterion
from tinyablation.records.records import Record
from tinyablation.report.criteria import criteria_panels, criterion_row
from tinyablation.report.page import render
from tinyablation.report.sections import sections

ABOVE = {"name": "zeroing 0:2", "rule": "above", "threshold": 0.12, "met": True, "unit": "logits"}
ABOVE |= {"estimate": 1.5, "low": 1.0, "high": 2.0, "p": 0.0002, "p_test": "interval"}
BELOW = {"name": f"lead {HOSTILE}", "rule": "below", "threshold": 0.0, "met": False}
BELOW |= {"estimate": 0.25, "low": 0.125, "high": 0.5, "unit": "logits"}
BY_P = {"name": "zeroing 0:2", "rule": "p", "threshold": 0.05, "met": True, "p": 0.003}
BY_P |= {"p_test": "max-T"}


def judged(*criteria, **changes):
    content = one_record().model_dump() | {"verdict": "supported", "subject": "0:2"} | changes
    return Record.model_validate(content | {"criteria": list(criteria)})


@pytest.mark.parametrize(
    ("criterion", "estimate", "threshold"),
    [
        (ABOVE, "+1.500 logits", "above +0.120"),
        (BELOW, "+0.250 logits", "below 0"),
        (BELOW | {"rule": "within", "threshold": 0.25}, "+0.250 logits", "within ±0.250"),
        (BY_P, "", "p ≤ 0.05"),
    ],
)
def test_a_criterion_says_what_was_compared_with_what(criterion, estimate, threshold):
    row = criterion_row(Criterion.model_validate(criterion))
    assert (row.estimate, row.threshold, row.met) == (estimate, threshold, criterion["met"])
    assert criterion_row(Criterion.model_validate(ABOVE)).name == "zeroing L0H2"


def test_criteria_of_one_unit_share_a_figure_and_each_has_its_threshold():
    share = BELOW | {"name": "share", "unit": "share"}
    plots = criteria_panels(judged(ABOVE, BELOW, share, BY_P), "cell")
    assert len(plots) == 2
    assert plots[0].drawing.count('class="fo"') == 2 and "zeroing L0H2" in plots[0].drawing
    assert criteria_panels(judged(ABOVE, BY_P), "cell") == [], "its row draws it"


def test_a_test_case_answers_lists_its_criteria_and_folds_raw_figures():
    record = judged(ABOVE, BELOW, BY_P, claim="H1.1", family="H1", condition="facts")
    html = opened(render(fake_session().holding([record])))
    text = Page(html).text
    assert f"H1.1 {record.statement}" in text
    assert f"Yes: L0H2 of {record.model} , facts" in text
    assert "zeroing L0H2 +1.500 logits [+1.000, +2.000] above +0.120 < 0.001 interval yes" in text
    assert "p ≤ 0.05 0.003 max-T yes" in text
    assert HOSTILE not in html and "<summary>Raw figures: " in html
    for verdict, answer in (("refuted", "No:"), ("inconclusive", "Not shown:")):
        other = fake_session().holding([judged(verdict=verdict)])
        assert answer in Page(opened(render(other))).text


def test_a_column_of_p_is_named_by_the_test_that_made_all_of_them():
    def heading(*tests):
        records = [
            judged(p_corrected=0.01, p_test=test, model=f"m{at}") for at, test in enumerate(tests)
        ]
        return sections(fake_session().holding(records))[0].p_name

    assert heading("rank", "rank") == "p, rank"
    assert heading("rank", "max-T") == "p" and heading("") == "p"
