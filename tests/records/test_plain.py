"""Plain values: what may be recorded, what is refused. Run: pytest tests/records/test_plain.py"""

from enum import StrEnum

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyablation.records.plain import RecordError, plain, shortened

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=3)
    ),
    max_leaves=8,
)


class Colour(StrEnum):
    RED = "red"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float32(0.5), 0.5),
        (np.float64(0.5), 0.5),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (np.str_("a"), "a"),
        (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        (Colour.RED, "red"),
        ((1, (2.0,)), [1, [2.0]]),
        ({"a": {"b": np.arange(2)}}, {"a": {"b": [0, 1]}}),
        ("\ud800x", "\\ud800x"),
        (True, True),
        (None, None),
    ],
)
def test_plain_converts(value, expected):
    assert plain(value) == expected
    assert_plain(plain(value))


def assert_plain(value):
    assert type(value) in (type(None), bool, int, float, str, list, dict)
    if isinstance(value, dict):
        assert all(type(key) is str for key in value)
    for item in value.values() if isinstance(value, dict) else value if type(value) is list else ():
        assert_plain(item)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (float("nan"), r"details is nan"),
        ({"a": [1.0, np.float32("inf")]}, r"details\.a\[1\] is inf"),
        ({"a": np.array([0.0, np.nan])}, r"details\.a\[1\] is nan"),
        ({"a": {"b": object()}}, r"details\.a\.b is a builtins\.object"),
        ({"a": {1, 2}}, r"details\.a is a builtins\.set"),
        ({"a": {3: 4}}, r"details\.a has the key 3"),
        ({"a": b"bytes"}, r"details\.a is a builtins\.bytes"),
        ({"a": 1j}, r"details\.a is a builtins\.complex"),
    ],
)
def test_plain_refuses_and_says_where(value, message):
    with pytest.raises(RecordError, match=message):
        plain(value, "details")


@given(JSON)
@settings(derandomize=True, deadline=None, database=None, max_examples=50)
def test_plain_leaves_json_as_it_is(value):
    assert plain(value) == value


def test_shown_figures_have_the_digits_of_a_float32():
    made = {"a": [-1.5058623552322388, 2e-35 / 3, 16777217, True, None], "b": {"c": "2.123456789"}}
    assert shortened(made) == {
        "a": [-1.505862, 6.666667e-36, 16777217, True, None],
        "b": {"c": "2.123456789"},
    }
    assert shortened(shortened(made)) == shortened(made)
