"""Exact bounds, the goals in words, the table as a file.

Run: pytest tests/records/test_error_rates.py"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyablation.records.error_rates import (
    BOUNDARY,
    FALSE_REFUTATION,
    FALSE_SUPPORT,
    OLDER,
    ErrorRate,
    ErrorRateError,
    ErrorRates,
    PowerPoint,
    clopper_pearson,
    goals,
    power_panel,
    read_error_rates,
)


def error_row(k, n, error=FALSE_SUPPORT, **fields):
    bounds = clopper_pearson(k, n)
    plain = {
        "claim": "H1.1",
        "test": "test_it_leads",
        "error": error,
        "among": "all",
        "n": n,
        "k": k,
        "low": bounds.low,
        "high": bounds.high,
        "n_cells": 3 * n,
        "k_cells": 2 * k,
    }
    return ErrorRate(**plain | fields)


def point(found, n, dose=0.1, condition="all", **fields):
    bounds = clopper_pearson(found, n)
    plain = {
        "claim": "H1.1",
        "test": "test_it_leads",
        "condition": condition,
        "dose": dose,
        "n": n,
        "found": found,
        "share": bounds.share,
        "low": bounds.low,
        "high": bounds.high,
    }
    return PowerPoint(**plain | fields)


def table(errors=(), power=()):
    return ErrorRates(made="2026-11-24", version="1", errors=list(errors), power=list(power))


def test_known_bounds():
    """The textbook's: 0 of 10 ends at 1 - .025^(1/10), 5 of 10 at .187 and .813."""
    assert clopper_pearson(0, 10)[:2] == (0, 0)
    assert clopper_pearson(0, 10).high == pytest.approx(1 - 0.025**0.1)
    assert clopper_pearson(5, 10) == pytest.approx((0.5, 0.1871, 0.8129), abs=1e-4)


@given(st.integers(1, 200), st.data())
def test_bounds_hold_the_share_and_mirror(n, data):
    k = data.draw(st.integers(0, n))
    bounds, mirrored = clopper_pearson(k, n), clopper_pearson(n - k, n)
    assert bounds.low <= bounds.share <= bounds.high
    assert bounds.low == pytest.approx(1 - mirrored.high, abs=1e-9)


@pytest.mark.parametrize(("k", "n"), [(0, 0), (3, 2), (-1, 5)])
def test_no_share(k, n):
    with pytest.raises(ErrorRateError, match=f"{k} of {n}"):
        clopper_pearson(k, n)


def test_goals_are_met_or_missed_by_how_much():
    rows = [
        error_row(0, 100),
        error_row(2, 40, among=BOUNDARY),
        error_row(1, 300, FALSE_REFUTATION),
        error_row(0, 72, FALSE_REFUTATION, among=BOUNDARY),
    ]
    (row,) = goals(table(rows, [point(20, 20, condition="facts")]))
    assert (row.support, row.support_goal) == ("0 of 100, at most 0.036", "met")
    assert (row.support_near, row.support_near_goal) == (
        "2 of 40, at most 0.169",
        "missed by 0.119",
    )
    assert row.refutation == "1 of 300, at most 0.018"
    # The fewest bases of which no error shows that at most 5 % are wrong.
    assert (row.refutation_near, row.refutation_near_goal) == ("0 of 72, at most 0.050", "met")
    (short,) = goals(table([error_row(0, 71)]))
    assert short.support_goal == "missed by 0.001"
    assert set(short[4:]) == {""}


def test_power_is_that_of_the_condition_where_it_is_least():
    points = [
        point(36, 40),
        point(20, 20, condition="facts"),
        point(16, 20, condition="logic"),
        point(1, 9, 0.06, "negation"),
    ]
    (row,) = goals(table(power=points))
    assert (row.plants, row.plants_goal) == ("16 of 20 (logic)", "missed by 0.15")
    (other,) = goals(table(power=[each.model_copy(update={"claim": "G.1"}) for each in points]))
    assert (other.plants, other.plants_goal) == ("16 of 20 (logic)", "")
    (met,) = goals(table(power=[point(19, 20, condition="facts")]))
    assert met.plants_goal == "met"


def test_what_was_not_tried_meets_no_goal():
    (row,) = goals(table([error_row(9, 9, among="sham plant")], [point(0, 5, dose=0.2)]))
    assert set(row[2:]) == {""}


def test_both_errors_of_one_test_over_all_its_cells():
    rows = [error_row(1, 5), error_row(0, 5, FALSE_REFUTATION), error_row(0, 5, among=BOUNDARY)]
    assert table(rows).of_test("test_it_leads") == rows[:2]
    assert table(rows).of_test("test_another") == []


def test_power_panel_has_the_doses_in_order():
    panel = power_panel(table(power=[point(9, 9, 0.3), point(1, 9, 0.02), point(0, 4, 0.1, "x")]))
    (line,) = panel.series
    assert line.x == [2.0, 30.0] and line.y == [pytest.approx(1 / 9), 1.0]
    assert power_panel(table()) is None
    assert power_panel(table(power=[point(9, 9, claim="G.1")])) is None


def test_rates_of_an_older_record_are_left_out():
    """Records keep the table of their day: one that counted cells must still be read."""
    older = {
        "made": "2026-11-26",
        "version": "0.3.0",
        "false_positives": [{"claim": "H1.1", "kind": "all nulls", "n": 189}],
        "power": [{"claim": "H1.1", "n_bases": 4}],
        "detectable": [],
        "statistics": [],
        "notes": ["cells of one model"],
    }
    read = ErrorRates.model_validate(older)
    assert read == ErrorRates(made="2026-11-26", version="0.3.0", notes=[OLDER])


def test_read_back_and_broken(tmp_path):
    path = tmp_path / "error_rates.json"
    path.write_text(table([error_row(1, 5)]).model_dump_json())
    assert read_error_rates(path) == table([error_row(1, 5)])
    path.write_text('{"made": "x"}')
    with pytest.raises(ErrorRateError, match="field version"):
        read_error_rates(path)
    with pytest.raises(ErrorRateError, match="cannot be read"):
        read_error_rates(tmp_path / "none.json")


def test_a_table_without_rows_over_all_conditions_has_no_curve():
    """It was cut, or made by hand: nothing is drawn, and nothing else is missing."""
    cut = table([error_row(1, 20)], [point(19, 20, condition="facts")])
    assert power_panel(cut) is None and len(goals(cut)) == 1


def test_a_share_lies_in_its_interval():
    with pytest.raises(ValueError, match="0.5 is not between 0.6 and 0.7"):
        point(10, 20, low=0.6, high=0.7)


def test_a_file_that_is_not_utf8_is_refused_by_name(tmp_path):
    (tmp_path / "rates.json").write_bytes(b"\xff")
    with pytest.raises(ErrorRateError, match="rates.json: is not UTF-8"):
        read_error_rates(tmp_path / "rates.json")
