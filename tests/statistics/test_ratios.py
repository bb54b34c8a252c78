"""Intervals of ratios, by simulation. Run: pytest tests/statistics/test_ratios.py"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tinyablation.statistics.clusters import StatisticsError
from tinyablation.statistics.intervals import DegenerateInterval, cluster_interval, generator
from tinyablation.statistics.ratios import RatioUndefined, above_zero, ratio_interval

PROPERTIES = settings(max_examples=30, deadline=None, derandomize=True, database=None)
TRUTH = 0.65


def pair(rng, k, *, errors=8.0, shared=0.8, draw=None):
    """Numerators and denominators of k clusters of 2-8 examples, the truth TRUTH, and labels.

    errors: the mean denominator in standard errors; shared: correlation of the cluster means.
    """
    draw = draw or (lambda n: rng.normal(size=n))
    below, other = draw(k), draw(k)
    above = 0.7 * (shared * below + np.sqrt(1 - shared**2) * other)
    mean = errors / np.sqrt(k)
    sizes = rng.integers(2, 9, size=k)
    labels = np.repeat([f"fact{i}" for i in range(k)], sizes)
    noise = 0.3 * rng.normal(size=(2, len(labels)))
    return (
        np.repeat(TRUTH * mean + above, sizes) + noise[0],
        np.repeat(mean + below, sizes) + noise[1],
        list(labels),
    )


@pytest.mark.parametrize(
    ("k", "errors", "draw", "documented"),
    [
        pytest.param(16, 5, None, 0.95, id="16 clusters"),
        pytest.param(32, 10, None, 0.95, id="32 clusters"),
        pytest.param(97, 5, None, 0.95, id="97 clusters"),
        pytest.param(
            32, 5, lambda rng, n: rng.exponential(size=n) - 1.0, 0.945, id="skewed clusters"
        ),
    ],
)
def test_the_interval_covers_the_truth_about_as_often_as_documented(k, errors, draw, documented):
    rng, repetitions, covered = generator(0, f"ratio {k} {errors}"), 250, 0
    judged = 0
    for _ in range(repetitions):
        data = pair(rng, k, errors=errors, draw=draw and (lambda n: draw(rng, n)))
        try:
            interval = ratio_interval(*data, rng, resamples=300)
        except RatioUndefined:
            continue
        judged += 1
        covered += interval.low <= TRUTH <= interval.high
    assert judged >= 0.8 * repetitions
    assert covered / judged >= documented - 3 * np.sqrt(documented * (1 - documented) / judged)


def test_what_numerator_and_denominator_share_narrows_the_interval():
    above, below, labels = pair(generator(0, "pairing"), 40)
    above = TRUTH * below + 0.02 * above
    paired = ratio_interval(above, below, labels, generator(0, "ratio"))
    # The same numbers, but each cluster's numerator beside another cluster's denominator.
    rng = generator(0, "independent")
    tables = [
        {label: values[np.array(labels) == label] for label in set(labels)}
        for values in (above, below)
    ]
    names = sorted(tables[0])
    ratios = []
    for _ in range(500):
        drawn = [rng.choice(names, len(names)) for _ in tables]
        sums = [
            np.mean(np.concatenate([table[name] for name in draw]))
            for table, draw in zip(tables, drawn, strict=True)
        ]
        ratios.append(sums[0] / sums[1])
    low, high = np.quantile(ratios, [0.025, 0.975])
    assert paired.high - paired.low < 0.1 * (high - low)
    assert paired.low < paired.estimate < paired.high


def test_a_denominator_not_told_from_zero_is_refused_with_its_interval():
    above, below, labels = pair(generator(4, "refused"), 20, errors=0.5)
    own = cluster_interval(below, labels, generator(0, "ratio"))
    assert own.low <= 0
    with pytest.raises(RatioUndefined, match="not wholly above 0") as caught:
        ratio_interval(above, below, labels, generator(0, "ratio"))
    assert caught.value.denominator == own
    assert isinstance(caught.value, StatisticsError)


def test_a_denominator_below_zero_is_refused_however_clear():
    above, below, labels = pair(generator(5, "negative"), 20)
    with pytest.raises(RatioUndefined, match="not wholly above 0") as caught:
        ratio_interval(above, -below, labels, generator(0, "ratio"))
    assert caught.value.denominator.high < 0


def test_a_denominator_within_the_noise_is_refused_although_its_estimate_is_not():
    above, below, labels = pair(generator(9, "noise"), 20)
    own = above_zero(below, labels, generator(0, "ratio"))
    between, less = (own.low + own.estimate) / 2, 0.9 * own.low
    assert 0 < less < own.low < between < own.estimate
    assert above_zero(below, labels, generator(0, "ratio"), noise=less) == own
    ratio_interval(above, below, labels, generator(0, "ratio"), noise=less)
    for refused in (
        lambda: above_zero(below, labels, generator(0, "ratio"), noise=between),
        lambda: ratio_interval(above, below, labels, generator(0, "ratio"), noise=between),
    ):
        with pytest.raises(RatioUndefined, match="not wholly above the numerical noise") as caught:
            refused()
        assert caught.value.denominator == own


def test_a_small_denominator_is_one_where_no_noise_is_named():
    above, below, labels = pair(generator(9, "noise"), 20)
    own = above_zero(0.01 * below, labels, generator(0, "ratio"))
    assert 0 < own.low < own.high < 0.05
    small = ratio_interval(above, 0.01 * below, labels, generator(0, "ratio"))
    plain = ratio_interval(above, below, labels, generator(0, "ratio"))
    assert small[:3] == pytest.approx([100 * each for each in plain[:3]])


def test_a_share_without_bounds_is_refused():
    # Found by search: above 0 by its own interval, but not by the critical value of the ratio's.
    refusals = []
    for seed in range(400):
        rng = generator(seed, "bounds")
        data = pair(rng, 16, errors=2.6, draw=lambda n, rng=rng: rng.lognormal(size=n) - 1.65)
        try:
            interval = ratio_interval(*data, rng, resamples=200)
            assert np.isfinite(interval).all()
        except RatioUndefined as refusal:
            if refusal.denominator.low > 0:
                refusals.append(str(refusal))
    assert refusals and all("bound" in message for message in refusals)


@pytest.mark.parametrize("tail", ["none", "above", "below"])
def test_a_denominator_known_exactly_leaves_the_interval_of_the_mean(tail):
    """Of skewed numerators too, whose interval reaches farther on the side of the long tail."""
    rng, sign = generator(6, "exact"), -1 if tail == "below" else 1
    long = None if tail == "none" else lambda n: sign * (rng.lognormal(0, 1.5, size=n) - 3.08)
    above, _, labels = pair(rng, 30, shared=0.0, draw=long)
    ratio = ratio_interval(above, np.full(len(above), 2.0), labels, generator(0, "ratio"))
    mean = cluster_interval(above, labels, generator(0, "ratio"))
    assert ratio.estimate == pytest.approx(mean.estimate / 2)
    halves = [mean.low / 2, mean.high / 2]
    assert ratio[1:3] == pytest.approx(halves, abs=0.05 * (halves[1] - halves[0]))
    with pytest.raises(RatioUndefined):
        ratio_interval(above, np.zeros(len(above)), labels, generator(0, "ratio"))


@pytest.mark.parametrize(("tail", "k"), [(1, 30), (-1, 30), (1, 9)])
def test_the_interval_is_fiellers_with_the_wider_critical_value_on_each_side(tail, k):
    """The formula of the docstring, written out anew; a long tail makes the bootstrap the wider."""
    rng = generator(8, "formula")
    long = tail * (rng.lognormal(0, 1.5, size=k) - 3.08)
    sizes = rng.integers(1, 4, size=k)
    labels = [f"c{row:02}" for row in np.repeat(np.arange(k), sizes)]
    n_sums, d_sums = long, 9 + rng.normal(size=k)
    above, below = (np.repeat(sums / sizes, sizes) for sums in (n_sums, d_sums))
    own = generator(0, "ratio")
    above_zero(below, labels, own)  # draws first
    found = ratio_interval(above, below, labels, generator(0, "ratio"))

    ratio = n_sums.sum() / d_sums.sum()
    left = n_sums - ratio * d_sums
    drawn = left[own.integers(k, size=(2000, k))]
    with np.errstate(divide="ignore"):
        t = drawn.mean(axis=1) / (drawn.std(axis=1, ddof=1) / np.sqrt(k))
    share = 0.025 if k >= 24 else 0.01
    low_t, high_t = np.quantile(t[np.isfinite(t)], [share, 1 - share])
    student = stats.t.ppf(0.975, k - 1)
    assert max(high_t, -low_t) > 1.2 * student, "one side is the bootstrap's"
    covariance = np.cov(n_sums, d_sums) / k

    def apart(r):
        """mean(numerator - r * denominator) in standard errors."""
        error = covariance[0, 0] - 2 * r * covariance[0, 1] + r * r * covariance[1, 1]
        return (n_sums.mean() - r * d_sums.mean()) / np.sqrt(error)

    assert found.estimate == pytest.approx(ratio)
    assert apart(found.low) == pytest.approx(max(high_t, student))
    assert apart(found.high) == pytest.approx(-max(-low_t, student))


def test_one_cluster_with_just_the_ratio_of_all_is_no_degenerate_case():
    found = ratio_interval([1.0, 2.0, 1.5], [2.0, 2.1, 1.9], list("abc"), generator(0, "ratio"))
    exact = ratio_interval([1.0, 2.0, 1.5], [2.0, 2.0, 2.0], list("abc"), generator(0, "ratio"))
    assert exact.estimate == 0.75 and exact.low < 0.75 < exact.high and found.low < found.high


def test_rounding_of_a_large_cluster_is_no_spread():
    below = np.append(1e8 * generator(0, "large").uniform(1, 2, size=30), 0.001)
    with pytest.raises(DegenerateInterval, match="given twice"):
        ratio_interval(below * 0.1 / 3, below, range(31), generator(0, "ratio"))


def test_the_same_share_in_every_cluster_has_no_interval():
    _, below, labels = pair(generator(7, "same"), 12)
    with pytest.raises(DegenerateInterval, match="given twice") as caught:
        ratio_interval(0.4 * below, below, labels, generator(0, "ratio"))
    assert caught.value.value == pytest.approx(0.4)


@PROPERTIES
@given(st.integers(0, 2**32), st.floats(0.01, 100.0))
def test_a_common_unit_cancels_and_the_estimate_is_the_ratio_of_the_means(seed, unit):
    above, below, labels = pair(generator(seed, "unit"), 20, errors=12.0)
    plain = ratio_interval(above, below, labels, generator(0, "ratio"), resamples=200)
    assert plain.estimate == pytest.approx(above.mean() / below.mean())
    assert (plain.n, plain.n_clusters) == (len(above), 20)
    scaled = ratio_interval(
        unit * above, unit * below, labels, generator(0, "ratio"), resamples=200
    )
    assert scaled == pytest.approx(plain, rel=1e-6, abs=1e-9)
    turned = ratio_interval(-above, below, labels, generator(0, "ratio"), resamples=200)
    assert turned[:3] == pytest.approx([-plain.estimate, -plain.high, -plain.low], rel=1e-6)


@pytest.mark.parametrize(
    ("above", "below", "clusters", "message"),
    [
        ([1.0, 2.0], [1.0], list("ab"), "2 numerators for 1"),
        ([], [], [], "n = 0"),
        ([1.0, np.nan], [1.0, 2.0], list("ab"), "numerator: nan"),
        ([1.0, 2.0], [1.0, np.inf], list("ab"), "denominator: inf"),
        ([1.0, 2.0], [1.0, 2.0], ["a", None], "no cluster id"),
        ([1.0, 2.0], [1.0, 2.0], ["a", "a"], "at least 2"),
    ],
)
def test_what_carries_no_ratio_is_refused(above, below, clusters, message):
    with pytest.raises(StatisticsError, match=message):
        ratio_interval(above, below, clusters, generator(0, "ratio"))


def test_a_denominator_is_bounded_with_the_settings_given():
    _, below, labels = pair(generator(3, "settings"), 20)
    kinds = ["a" if n % 3 else "b" for n in range(len(below))]
    for options in ({"resamples": 300}, {"confidence": 0.8}, {"strata": kinds}):
        found = above_zero(below, labels, generator(0, "own"), **options)
        assert found == cluster_interval(below, labels, generator(0, "own"), **options)
        assert found != above_zero(below, labels, generator(0, "own"))
