"""Replication: same model, condition, quantity and unit, or not comparable.

Run: pytest tests/sessions/test_replication.py
"""

import pytest

from tests.fake_sessions import one_record
from tinyablation.records.records import PublishedFigure, Record
from tinyablation.sessions.replication import (
    Measured,
    compare,
    measured,
    replicates,
    sign_agreement,
)
from tinyablation.statistics.intervals import Estimate


def estimate(low, high):
    return Estimate((low + high) / 2, low, high, 10, 5)


@pytest.mark.parametrize(
    ("low", "high", "value", "interval", "outcome"),
    [
        (0.2, 0.3, 0.265, (), "replicates"),
        (0.2, 0.3, 0.2, (), "replicates"),
        (0.2, 0.3, 0.5, (), "same sign"),
        (0.2, 0.3, 0.5, (0.3, 0.7), "replicates"),
        (0.2, 0.3, 0.5, (0.31, 0.7), "same sign"),
        (0.2, 0.3, 0.1, (0.0, 0.2), "replicates"),
        (-0.3, -0.2, 0.5, (), "opposite sign"),
        (0.2, 0.3, -0.5, (-0.9, -0.1), "opposite sign"),
        (-0.3, -0.2, -0.5, (), "same sign"),
        (-0.1, 0.1, 0.5, (), "not told from zero"),
        (0.0, 0.1, 0.5, (), "not told from zero"),
        (-0.1, 0.1, 0.05, (), "replicates"),
        (0.2, 0.3, 0.0, (), "not comparable"),
        (-0.2, 0.3, 0.0, (), "replicates"),
    ],
)
def test_outcomes(low, high, value, interval, outcome):
    found = replicates(estimate(low, high), value, *interval)
    assert found.outcome == outcome and found.reason


def test_an_interval_that_holds_zero_too_says_so():
    assert "holds zero too" in replicates(estimate(-0.1, 0.3), 0.2).reason
    assert "zero" not in replicates(estimate(0.1, 0.3), 0.2).reason
    assert "smaller than published" in replicates(estimate(0.1, 0.2), 0.5).reason
    assert "larger than published" in replicates(estimate(0.7, 0.9), 0.5).reason


def test_half_an_interval_is_refused():
    with pytest.raises(ValueError, match="two ends"):
        replicates(estimate(0.1, 0.2), 0.5, low=0.4)
    with pytest.raises(ValueError, match="upside down"):
        replicates(estimate(0.1, 0.2), 0.5, low=0.6, high=0.4)


def record(**changes):
    fields = {
        "model": "gpt2-medium",
        "condition": "facts",
        "verdict": "supported",
        "effect": 0.25,
        "low": 0.2,
        "high": 0.3,
        "unit": "logits",
        "details": {
            "effects": {"0:4": [0.5, 0.4, 0.6], "0:7": 0.5},
            "a / b": [1.0, 0.9, 1.1],
            "ratio": {"estimate": 1.0, "low": 0.9, "high": 1.1, "unit": "ratio"},
            "word": "none",
            "half": {"estimate": 1.0},
        },
    }
    return Record.model_validate(one_record().model_dump() | fields | changes)


def figure(value=0.25, **changes):
    fields = {"model": "gpt2-medium", "condition": "facts", "unit": "logits", "source": "v6"}
    return PublishedFigure(value=value, **fields | changes)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model": "gpt2"}, "another model"),
        ({"condition": "all"}, "another condition"),
        ({"value": "up"}, "published as text"),
        ({"unit": "nats"}, "another unit: published in nats, measured in logits"),
        ({"quantity": "ratio"}, "another unit: published in logits, measured in ratio"),
        ({"quantity": "effects/0:7"}, "measured without an interval"),
        ({"quantity": "effects/9:9"}, "not recorded: effects/9:9"),
        ({"quantity": "absent"}, "not recorded: absent"),
        ({"quantity": "word"}, "word is not recorded as a figure"),
        ({"quantity": "half"}, "half is not recorded as a figure"),
    ],
)
def test_what_is_not_comparable_says_why(changes, reason):
    found = compare(record(), figure(**changes))
    assert found == ("not comparable", reason)


def test_what_was_not_measured_is_not_comparable():
    blocked = record(effect=None, low=None, high=None, verdict="blocked", details={})
    assert compare(blocked, figure()) == ("not comparable", "not measured: blocked")
    assert compare(blocked, figure(quantity="x")) == ("not comparable", "not measured: blocked")
    bare = record(low=None, high=None)
    assert compare(bare, figure()) == ("not comparable", "measured without an interval")


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        ({}, "replicates"),
        ({"value": 0.4}, "same sign"),
        ({"value": 0.45, "quantity": "effects/0:4"}, "replicates"),
        ({"value": 1.05, "quantity": "a / b"}, "replicates"),
        ({"value": 1.05, "quantity": "ratio", "unit": "ratio"}, "replicates"),
    ],
)
def test_the_named_quantity_is_compared(changes, outcome):
    assert compare(record(), figure(**changes)).outcome == outcome


@pytest.mark.parametrize(
    ("published", "own", "value", "outcome"),
    [
        ("%", "share", 25.0, "replicates"),
        ("share", "%", 0.0025, "replicates"),
        ("% of the trio's effect", "of the trio's effect", 25.0, "replicates"),
        ("% of the trio's effect", "of the head's effect", 25.0, "not comparable"),
        ("%", "%", 25.0, "same sign"),
    ],
)
def test_percentages_are_shares(published, own, value, outcome):
    assert compare(record(unit=own), figure(value, unit=published)).outcome == outcome


def test_published_intervals_are_scaled_too():
    found = compare(record(unit="share"), figure(50.0, unit="%", low=28.0, high=72.0))
    assert found.reason.startswith("the measured and published intervals overlap")


def test_measured_takes_the_detail_named_with_a_slash_first():
    assert measured(record(), "a / b") == Measured(1.0, 0.9, 1.1, "logits")
    assert measured(record(), "effect") == Measured(0.25, 0.2, 0.3, "logits")


def test_signs_of_other_models_are_counted_and_the_own_left_out():
    others = [
        record(model="a"),
        record(model="b", effect=-0.25, low=-0.3, high=-0.2),
        record(model="c", effect=0.0, low=-0.1, high=0.1),
        record(model="d", condition="logic"),
        record(model="e", effect=None),
        record(model="f", unit="nats"),
        record(),
    ]
    assert sign_agreement(others, figure()) == {
        "same sign": 1,
        "opposite sign": 1,
        "not told from zero": 1,
    }
    assert not sign_agreement(others, figure("text")) and not sign_agreement(others, figure(0.0))
