"""The ledger of all tests of a session. Run: pytest tests/sessions/test_false_discovery.py"""

import math
import time
from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
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


def mean_of_a_null(alpha, size):
    """The mean of what a test with a uniform p contributes to e(S), by sums over its steps."""
    harmonic = sum(1 / k for k in range(1, size + 1))
    steps = np.arange(1, 200_001) / 200_000
    k = np.ceil(size * harmonic * steps / alpha)
    return float(np.where(k <= size, 1 / (alpha * k), 0.0).mean())


def largest_allowed(p, alpha):
    """By definition: the size of the largest of all sets R that no set S forbids."""
    tests = range(len(p))
    found = 0
    for discoveries in subsets(tests):
        allowed = True
        for chosen in subsets(tests):
            size = len(chosen)
            harmonic = sum(1 / k for k in range(1, size + 1))
            k = [max(1, math.ceil(size * harmonic * p[test] / alpha)) for test in chosen]
            value = sum(1 / (alpha * each) for each in k if each <= size)
            share = len(set(chosen) & set(discoveries)) / len(discoveries)
            allowed = allowed and value >= share / alpha - 1e-9
        found = max(found, len(discoveries) if allowed else 0)
    return found


def subsets(tests):
    return [part for n in range(1, len(tests) + 1) for part in combinations(tests, n)]


def test_two_by_hand():
    """Both are discoveries at alpha = .04, and the smaller p alone at .003.

    At alpha = .04, S of both has h = 1.5, so that k of .04 is 3 > 2 and that of .001 is 1: it gives
    0 + 1 >= 1. Each S of one asks for alpha >= its p. For .001 alone, S of both asks for k = 1.
    """
    assert adjust([0.04, 0.001]) == pytest.approx([0.04, 0.003], rel=1e-6)
    assert adjust([0.04]) == [0.04] and adjust([]) == []
    assert adjust([0.0, 0.0]) == pytest.approx([0.0, 0.0], abs=1e-280)


@pytest.mark.parametrize(("alpha", "size"), [(0.05, 1), (0.05, 7), (0.2, 30), (1.0, 4)])
def test_a_set_of_nulls_gives_one_on_average(alpha, size):
    """What the proof needs: each of `size` nulls contributes 1 / size."""
    assert mean_of_a_null(alpha, size) == pytest.approx(1 / size, rel=0.01)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(0, 0.3), min_size=1, max_size=5, unique=True),
    st.sampled_from([0.01, 0.05, 0.2]),
)
def test_as_many_discoveries_as_the_definition_allows(values, alpha):
    assert sum(p <= alpha for p in adjust(values)) == largest_allowed(values, alpha)


@pytest.mark.parametrize(
    ("values", "alpha"),
    [
        ([0.0, 0.039, 0.049, 0.029, 0.016, 0.009], 0.037),
        ([0.003, 0.002, 0.946, 0.133, 0.009, 0.005], 0.016),
        ([0.041, 0.02, 0.027, 0.001, 0.038], 0.06),
    ],
)
def test_tests_that_are_no_discoveries_forbid_some(values, alpha):
    """Found by search: those above alpha come first into the set S that forbids most."""
    assert sum(p <= alpha for p in adjust(values)) == largest_allowed(values, alpha) < 6


@given(st.lists(st.one_of(P, st.floats(0, 0.01)), min_size=1, max_size=30))
def test_never_fewer_than_benjamini_and_yekutieli(values):
    plain = stats.false_discovery_control(values, method="by")
    found = np.array(adjust(values))
    assert (found <= plain * (1 + 1e-12) + 1e-280).all() and (found >= np.array(values)).all()


def test_more_where_much_is_found():
    """Of 60 tests 40 have an effect of 3 standard errors."""
    rng = generator(0, "many effects")
    p = stats.norm.sf(rng.normal(size=60) + np.where(np.arange(60) < 40, 3.0, 0.0))
    plain = np.count_nonzero(stats.false_discovery_control(p, method="by") <= 0.05)
    found = np.array(adjust(p.tolist()))
    assert np.count_nonzero(found <= 0.05) > plain > 0
    assert (np.diff(found[np.argsort(p)]) >= 0).all()


def test_a_thousand_tests_take_seconds():
    """1.4 s of one core on average, measured; ten times that is a loop over sets gone wrong."""
    rng = generator(0, "a thousand tests")
    p = stats.norm.sf(rng.normal(size=1000) + np.where(np.arange(1000) < 300, 3.0, 0.0))
    started = time.process_time()
    adjust(p.tolist())
    assert time.process_time() - started < 15


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


@pytest.mark.slow
def test_false_discoveries_are_rare_however_the_tests_depend():
    """Forty null tests that move together, 400 sessions: any discovery in at most 5 %."""
    rng = generator(0, "dependent nulls")
    sessions = 400
    shared = rng.normal(size=(sessions, 1))
    scores = math.sqrt(0.5) * shared + math.sqrt(0.5) * rng.normal(size=(sessions, 40))
    false = [min(adjust(stats.norm.sf(row).tolist())) <= 0.05 for row in scores]
    assert np.mean(false) <= 0.05 + 2.58 * math.sqrt(0.05 * 0.95 / sessions)


def test_every_test_counts_and_only_supported_ones_are_discoveries():
    cells = [cell("a", 1e-6), cell("b", 0.2), cell("c", 1e-7, "refuted"), cell("d", None)]
    found, adjusted = multiplicity(cells)
    assert (found.n, found.supported, found.discoveries, found.lost) == (3, 2, 1, 1)
    assert found.largest_p == 1e-6 and set(adjusted) == {"a", "b", "c"}
    assert multiplicity([cell("d", None)]) == (None, {})
    at_alpha, adjusted = multiplicity([cell("a", 0.05)], alpha=0.05)
    assert adjusted == {"a": 0.05} and at_alpha.discoveries == 1


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
