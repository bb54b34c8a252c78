"""The ledger of all tests of a session. Run: pytest tests/sessions/test_false_discovery.py"""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tinyablation.sessions.false_discovery import adjust, multiplicity
from tinyablation.statistics.intervals import Estimate, generator
from tinyablation.verdicts.floors import Floor, VerdictError
from tinyablation.verdicts.verdicts import (
    judge_above_floor,
    judge_all_of,
    p_beyond,
)

P = st.floats(0, 1)
FINITE = st.floats(-5, 5).filter(lambda x: x == 0 or abs(x) > 1e-3)


def cell(test, p, verdict="supported"):
    return SimpleNamespace(test=test, p_value=p, verdict=verdict)


def test_adjusted_as_in_the_paper():
    """p (i) * n * (1 + 1/2 + ... + 1/n) / i, made monotone from the largest down."""
    factor = 1 + 1 / 2 + 1 / 3
    found = adjust([0.03, 0.001, 0.02])
    expected = [0.03 * factor, 0.003 * factor, 0.03 * factor]
    assert found == pytest.approx(expected)
    assert adjust([]) == []


@given(st.lists(P, min_size=1, max_size=30))
def test_adjusted_as_scipy_does(values):
    theirs = stats.false_discovery_control(values, method="by")
    np.testing.assert_allclose(adjust(values), theirs, rtol=1e-12, atol=1e-300)


@given(st.lists(P, min_size=1, max_size=30), st.randoms())
def test_order_does_not_matter(values, random):
    order = list(range(len(values)))
    random.shuffle(order)
    shuffled = adjust([values[place] for place in order])
    straight = adjust(values)
    for place, p in zip(order, shuffled, strict=True):
        assert math.isclose(straight[place], p, rel_tol=1e-12, abs_tol=1e-300)


@given(st.lists(P, min_size=1, max_size=20), st.integers(1, 20))
def test_claims_that_show_nothing_only_make_it_harder(values, more):
    alone = adjust(values)
    among = adjust([*values, *[1.0] * more])[: len(values)]
    assert all(b >= a - 1e-12 for a, b in zip(alone, among, strict=True))


def test_false_discoveries_are_rare_however_the_tests_depend():
    """A hundred null tests that move together, 400 sessions: any discovery in at most 5 %."""
    rng = generator(0, "dependent nulls")
    sessions = 400
    shared = rng.normal(size=(sessions, 1))
    scores = math.sqrt(0.5) * shared + math.sqrt(0.5) * rng.normal(size=(sessions, 100))
    false = [min(adjust(stats.norm.sf(row).tolist())) <= 0.05 for row in scores]
    assert np.mean(false) <= 0.05 + 2.58 * math.sqrt(0.05 * 0.95 / sessions)


def test_every_test_counts_and_only_supported_ones_are_discoveries():
    cells = [cell("a", 1e-6), cell("b", 0.04), cell("c", 1e-7, "refuted"), cell("d", None)]
    found, adjusted = multiplicity(cells)
    assert (found.n, found.supported, found.discoveries, found.lost) == (3, 2, 1, 1)
    assert found.largest_p == 1e-6 and set(adjusted) == {"a", "b", "c"}
    assert multiplicity([cell("d", None)]) == (None, {})


def test_no_p_outside_its_range():
    with pytest.raises(VerdictError, match="between 0 and 1"):
        adjust([0.5, 1.5])


@given(FINITE, st.floats(0.01, 3), st.floats(0.01, 3), FINITE, st.integers(2, 60))
def test_p_is_below_a_fortieth_exactly_where_the_interval_clears_the_bound(
    estimate, below, above, bound, clusters
):
    effect = Estimate(estimate, estimate - below, estimate + above, 100, clusters)
    p = p_beyond(effect, bound, "above")
    if abs(effect.low - bound) > 1e-6:
        assert (p < 0.025) == (effect.low > bound)
    p = p_beyond(effect, bound, "below")
    if abs(effect.high - bound) > 1e-6:
        assert (p < 0.025) == (effect.high < bound)


def test_p_of_a_verdict_is_the_largest_of_what_must_hold():
    effect = Estimate(1.0, 0.8, 1.2, 100, 30)
    alone = judge_above_floor(effect, floor=0.1, what="it")
    assert alone.p_value < 1e-6
    weak = judge_above_floor(effect, floor=0.1, p_corrected=0.03, what="it")
    assert weak.p_value == 0.03
    assert judge_all_of([alone, weak]).p_value == 0.03
    flat = judge_above_floor(Estimate(1.0, 1.0, 1.0, 9, 3), floor=0.1, what="it")
    assert flat.p_value is None and judge_all_of([alone, flat]).p_value is None


def test_what_the_noise_may_have_made_has_no_small_p():
    noisy = Floor(0.0, 5.0)
    assert p_beyond(Estimate(1.0, 0.8, 1.2, 100, 30), noisy, "above") == 1.0
