"""A claim that some candidate has an effect.

Run: pytest tests/verdicts/test_many.py
"""

from dataclasses import replace

import pytest

from tinyablation.statistics.intervals import Estimate
from tinyablation.verdicts.many import of_some
from tinyablation.verdicts.verdicts import judge_above_floor, judge_below_ceiling


def above(low: float, high: float):
    effect = Estimate((low + high) / 2, low, high, 40, 20)
    return judge_above_floor(effect, floor=0.5, what="score", unit="share")


def below(low: float, high: float):
    effect = Estimate((low + high) / 2, low, high, 40, 20)
    return judge_below_ceiling(effect, ceiling=-0.5, what="change")


def test_it_is_refuted_only_if_every_candidate_falls_short():
    short = above(0.1, 0.2)
    assert of_some(short, {"0:1": short, "0:2": above(0.2, 0.3)}).status == "refuted"
    open_ = {"0:2": above(0.3, 0.55), "0:3": above(0.4, 0.7), "0:4": above(0.45, 0.6)}
    left = of_some(short, {"0:1": short, **open_})
    assert left.status == "inconclusive" and left.p_value is None
    assert left.reason.endswith(
        "but of 4 heads 3 are not excluded: 0:3 has the interval [0.400, 0.700]"
    )


def test_what_the_chosen_one_has_stands_whatever_others_have():
    held = above(0.6, 0.8)
    assert of_some(held, {"0:1": held, "0:2": above(0.1, 0.2)}).status == "supported"
    open_ = above(0.4, 0.6)
    assert of_some(open_, {"0:1": open_}).status == "inconclusive"


def test_the_distance_is_that_of_the_best():
    found = of_some(above(0.1, 0.2), {"0:1": above(0.1, 0.2), "0:2": above(0.2, 0.4)})
    assert found.distance is not None and abs(found.distance + 0.2) < 1e-12


def test_below_a_bound_the_nearest_is_the_lowest():
    short = below(-0.2, -0.1)
    found = of_some(short, {"0:1": below(-0.6, -0.2), "0:2": below(-0.7, 0.1)}, below=True)
    assert found.status == "inconclusive" and "0:2 has" in found.reason


def test_a_candidate_without_a_distance_says_nothing_of_the_best():
    short = above(0.1, 0.2)
    unknown = replace(above(0.2, 0.3), distance=None)
    found = of_some(short, {"0:1": short, "0:2": unknown})
    assert found.distance == pytest.approx(-0.35)
