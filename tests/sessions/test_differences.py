"""Run: pytest tests/sessions/test_differences.py"""

from tinyablation.sessions.differences import Difference, differences, replaced, same
from tinyablation.sessions.drift import ABSOLUTE, RELATIVE


def test_floats_have_a_tolerance_and_nothing_else_has():
    assert same(100.0, 100.0 * (1 + 0.9 * RELATIVE)) and not same(100.0, 100.0 * (1 + 2 * RELATIVE))
    assert same(0.0, 0.9 * ABSOLUTE) and not same(0.0, 2 * ABSOLUTE)
    assert same(1, 1.00001)  # JSON does not keep 1.0 apart from 1 everywhere
    assert not same(1000, 1001)
    assert not same(True, 1) and not same("1", 1) and not same(None, 0.0)


def test_differences_name_key_old_and_new():
    old = {"effect": 1.0, "heads": [1, 2], "gone": "x"}
    new = {"effect": 1.5, "heads": [1, 3], "come": None}
    assert list(map(str, differences(old, new))) == [
        "come: was absent, now null",
        "effect: was 1.0, now 1.5",
        'gone: was "x", now absent',
        "heads[1]: was 2, now 3",
    ]
    assert list(map(str, differences({"a": []}, {"a": [1]}))) == [
        "a: was [], now absent",
        "a[0]: was absent, now 1",
    ]
    assert differences(old, old) == []


def test_a_difference_says_by_how_much_a_number_moved():
    old = {"a": 1.0, "b": 0.0, "c": -2, "d": "x", "e": True, "f": 1.0}
    new = {"a": 1.5, "b": 0.25, "c": -3, "d": "y", "e": 2, "f": None}
    assert differences(old, new) == [
        Difference("a", "1.0", "1.5", "+0.5 (+50.0 %)"),
        Difference("b", "0.0", "0.25", "+0.25"),
        Difference("c", "-2", "-3", "-1 (-50.0 %)"),
        Difference("d", '"x"', '"y"', ""),
        Difference("e", "true", "2", ""),
        Difference("f", "1.0", "null", ""),
    ]


def test_what_replaces_figures_keeps_those_that_did_not_move():
    old = {"a": 1.0, "b": {"c": [1.0, 2.0], "gone": 1}, "d": [1.0], "e": 1}
    new = {"a": 1.0 + RELATIVE / 2, "b": {"c": [1.0001, 3.0], "come": 2}, "d": [1.0, 2.0], "e": 2}
    assert replaced(old, new) == {
        "a": 1.0,
        "b": {"c": [1.0, 3.0], "come": 2},
        "d": [1.0, 2.0],
        "e": 2,
    }
    assert replaced(1.0, None) is None and replaced({"a": 1}, {}) == {}
