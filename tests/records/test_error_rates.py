"""Exact bounds, the goals in words, the table as a file.

Run: pytest tests/records/test_error_rates.py"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyablation.records.error_rates import (
    UNTRUE,
    ErrorRateError,
    ErrorRates,
    FalsePositives,
    PowerPoint,
    clopper_pearson,
    goals,
    power_panel,
    read_error_rates,
)


def null_row(k, n, **fields):
    bounds = clopper_pearson(k, n)
    plain = {
        "claim": "H1.1",
        "test": "test_it_leads",
        "kind": "all nulls",
        "n": n,
        "k": k,
        "low": bounds.low,
        "high": bounds.high,
        "n_models": n,
        "k_models": k,
        "high_models": bounds.high,
        "n_bases": 4,
    }
    return FalsePositives(**plain | fields)


def point(found, n, dose=0.1, condition="all", **fields):
    bounds = clopper_pearson(found, n)
    return PowerPoint(
        claim="H1.1",
        test="test_it_leads",
        condition=condition,
        dose=dose,
        n=n,
        n_bases=4,
        found=found,
        share=bounds.share,
        low=bounds.low,
        high=bounds.high,
        **fields,
    )


def table(nulls=(), power=()):
    return ErrorRates(
        made="2026-11-24", version="1", false_positives=list(nulls), power=list(power)
    )


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
    (met,) = goals(table([null_row(0, 100), null_row(1, 300, kind=UNTRUE)], [point(20, 20)]))
    assert (met.nulls_goal, met.untrue_goal, met.plants_goal) == ("met", "met", "met")
    assert (met.nulls, met.untrue) == ("0 of 100, at most 0.036", "1 of 300, at most 0.018")
    (missed,) = goals(table([null_row(2, 40)], [point(15, 20, n_true=16, found_true=15)]))
    assert missed.nulls_goal == "missed by 0.119" and missed.plants_goal == "missed by 0.20"
    assert (missed.plants, missed.true_plants) == ("15 of 20", "15 of 16")
    assert (missed.untrue, missed.untrue_goal, missed.smallest) == ("", "", "")


def test_what_was_not_tried_meets_no_goal():
    (row,) = goals(table([null_row(9, 9, kind="sham plant")], [point(0, 5, dose=0.2)]))
    assert set(row[2:]) == {""}


def test_power_panel_has_the_doses_in_order():
    panel = power_panel(table(power=[point(9, 9, 0.3), point(1, 9, 0.02), point(0, 4, 0.1, "x")]))
    (line,) = panel.series
    assert line.x == [2.0, 30.0] and line.y == [pytest.approx(1 / 9), 1.0]
    assert power_panel(table()) is None


def test_read_back_and_broken(tmp_path):
    path = tmp_path / "error_rates.json"
    path.write_text(table([null_row(1, 5)]).model_dump_json())
    assert read_error_rates(path) == table([null_row(1, 5)])
    path.write_text('{"made": "x"}')
    with pytest.raises(ErrorRateError, match="field version"):
        read_error_rates(path)
    with pytest.raises(ErrorRateError, match="cannot be read"):
        read_error_rates(tmp_path / "none.json")
