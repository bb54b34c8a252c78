"""Intervals, corrections and null comparisons, by simulation.

Run: pytest tests/statistics/test_intervals.py

Bounds on simulated rates are the nominal rate and three standard errors of the simulation.
"""

import hashlib
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tinyablation.statistics import bootstrap
from tinyablation.statistics.clusters import StatisticsError
from tinyablation.statistics.intervals import (
    DegenerateInterval,
    cluster_interval,
    cluster_statistic_interval,
    exceedance,
    generator,
    max_t_sign_flip,
    rank_agreement,
)

PROPERTIES = settings(max_examples=40, deadline=None, derandomize=True, database=None)


def clustered(rng, k, draw=None):
    """Values of k clusters of 2-8 examples, means by `draw` (default: normal), and their labels."""
    sizes = rng.integers(2, 9, size=k)
    labels = np.repeat([f"fact{i}" for i in range(k)], sizes)
    return np.repeat(draw(k) if draw else rng.normal(size=k), sizes) + 0.3 * rng.normal(
        size=len(labels)
    ), list(labels)


# --- generators ----------------------------------------------------------------------------------


def test_a_generator_depends_on_seed_and_purpose_and_on_nothing_else():
    def first(seed, purpose):
        return generator(seed, purpose).random()

    assert first(0, "donors") == first(0, "donors")
    assert len({first(seed, purpose) for seed in (0, 1) for purpose in ("a", "b", "")}) == 6
    with pytest.raises(StatisticsError, match="negative"):
        generator(-1, "a")


@pytest.mark.parametrize("seed", [0, 7, 2**32 - 1, 2**32, 2**80])
def test_a_generator_is_that_of_seed_and_purpose_however_large_the_seed(seed):
    words = [seed, *hashlib.sha256(b"heads of facts").digest()]
    state = generator(seed, "heads of facts").bit_generator.state
    assert state == np.random.default_rng(words).bit_generator.state


# --- intervals of a mean -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("draw", "truth"),
    [
        pytest.param(lambda rng, k: rng.normal(1.0, 1.0, k), 1.0, id="normal"),
        pytest.param(lambda rng, k: rng.exponential(1.0, k), 1.0, id="exponential"),
    ],
)
@pytest.mark.parametrize("k", [16, 32])
def test_the_interval_covers_the_truth_as_often_as_it_says(draw, truth, k):
    rng, repetitions = generator(0, f"coverage {k}"), 400
    covered = 0
    for _ in range(repetitions):
        values, labels = clustered(rng, k, lambda n: draw(rng, n))
        interval = cluster_interval(values, labels, rng, resamples=500)
        covered += interval.low <= truth <= interval.high
    assert covered / repetitions >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / repetitions)


def test_ignoring_clusters_would_not_cover():
    rng, repetitions, covered = generator(0, "unclustered"), 200, 0
    for _ in range(repetitions):
        values, _ = clustered(rng, 16, lambda n: rng.normal(1.0, 1.0, n))
        interval = cluster_interval(values, range(len(values)), rng, resamples=200)
        covered += interval.low <= 1.0 <= interval.high
    assert covered / repetitions < 0.85


def test_repeating_the_rows_of_clusters_does_not_narrow_the_interval():
    values, labels = clustered(generator(1, "rows"), 20)
    once = cluster_interval(values, labels, generator(0, "interval"))
    ten = cluster_interval(np.tile(values, 10), labels * 10, generator(0, "interval"))
    assert ten[:3] == pytest.approx(once[:3], rel=1e-9)
    assert (ten.n, ten.n_clusters) == (10 * once.n, once.n_clusters)


def test_the_estimate_is_the_plain_mean_over_examples():
    values, labels = clustered(generator(3, "rows"), 9)
    interval = cluster_interval(values, labels, generator(0, "interval"))
    assert interval.estimate == pytest.approx(values.mean())
    assert interval.low < interval.estimate < interval.high
    assert (interval.n, interval.n_clusters) == (len(values), 9)
    assert all(type(figure) is float for figure in interval[:3])  # numpy scalars lose reports


def test_two_clusters_are_little_evidence_and_give_a_wide_interval():
    interval = cluster_interval([1.0, 1.1, 1.2, 1.3], ["a", "a", "b", "b"], generator(0, "two"))
    assert interval.low < 0 and interval.high > 2


@PROPERTIES
@given(st.integers(0, 2**32), st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(seed, shuffler):
    values, labels = clustered(generator(seed, "rows"), 8)
    order = list(range(len(values)))
    shuffler.shuffle(order)
    straight = cluster_interval(values, labels, generator(0, "interval"), resamples=200)
    shuffled = cluster_interval(
        values[order],
        [labels[i] for i in order],
        generator(0, "interval"),
        resamples=200,
    )
    assert shuffled == pytest.approx(straight, rel=1e-9, abs=1e-12)


@PROPERTIES
@given(st.integers(0, 2**32), st.floats(0.01, 100.0))
def test_sign_and_unit_only_mirror_and_stretch_the_interval(seed, factor):
    values, labels = clustered(generator(seed, "rows"), 8)
    plain = cluster_interval(values, labels, generator(0, "interval"), resamples=200)
    turned = cluster_interval(-factor * values, labels, generator(0, "interval"), resamples=200)
    expected = [-factor * plain.estimate, -factor * plain.high, -factor * plain.low]
    assert turned[:3] == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_the_interval_of_a_mean_is_cut_at_the_range_of_its_values():
    """Half of a few clusters unmoved, one far away: the bootstrap-t's end leaves the range."""
    values = np.repeat([0.0, 0.0, 0.0, 0.0, 0.001, -0.9], 2)
    labels = [str(n // 2) for n in range(12)]
    wide = cluster_interval(values, labels, generator(0, "wide"))
    assert wide.low < -1
    cut = cluster_interval(values, labels, generator(0, "wide"), bounds=(-1.0, 1.0))
    assert cut == wide._replace(low=-1.0)


@pytest.mark.parametrize("unit", [1e-9, 1e9])
def test_figures_of_any_unit_are_told_from_rounding(unit):
    values, labels = clustered(generator(8, "rows"), 9)
    plain = cluster_interval(values, labels, generator(0, "interval"))
    found = cluster_interval(unit * values, labels, generator(0, "interval"))
    assert found[:3] == pytest.approx([unit * each for each in plain[:3]], rel=1e-6)
    alike = unit * (1 + 1e-14 * values)
    with pytest.raises(DegenerateInterval):
        cluster_interval(alike, labels, generator(0, "interval"))


@pytest.mark.parametrize(("apart", "same"), [(0.8e-12, True), (1.2e-12, False)])
def test_figures_a_trillionth_apart_are_the_same(apart, same):
    values, labels = [1.0, 1.0, 1.0 - apart, 1.0 - apart], list("aabb")
    if same:
        with pytest.raises(DegenerateInterval):
            cluster_interval(values, labels, generator(0, "interval"))
    else:
        assert cluster_interval(values, labels, generator(0, "interval")).n_clusters == 2


def test_rounding_is_told_from_spread_by_the_largest_figure():
    """Means that differ by rounding alone, of values some of which are 0."""
    assert (0.0 + 0.3) / 2 != (0.1 + 0.2) / 2
    with pytest.raises(DegenerateInterval, match="zero width"):
        cluster_interval([0.0, 0.3, 0.1, 0.2], list("aabb"), generator(0, "rounding"))
    # Ten times .1 has a mean beside .1, so that what is left is some 1e-17, and no two clusters'.
    strata = ["a", "a"] * 10 + ["a", "b"] * 20
    values = [0.1 if name == "a" else 0.0 for name in strata]
    clusters = [f"c{row // 2}" for row in range(60)]
    with pytest.raises(DegenerateInterval, match="alike in every stratum"):
        cluster_interval(values, clusters, generator(0, "rounding"), strata=strata)


@pytest.mark.parametrize("value", [0.0, 0.1, -3.7])
def test_identical_values_are_a_degenerate_interval_that_tells_the_value(value):
    with pytest.raises(DegenerateInterval, match="zero width") as caught:
        cluster_interval([value] * 7, list("aabbbcc"), generator(0, "interval"))
    assert caught.value.value == pytest.approx(value)
    assert isinstance(caught.value, StatisticsError)


@pytest.mark.parametrize(
    ("values", "clusters", "message"),
    [
        ([], [], "n = 0"),
        ([1.0, np.nan, 2.0], list("abc"), r"values: nan at \(1,\)"),
        ([1.0, np.inf], list("ab"), "finite"),
        ([1.0, 2.0], list("aa"), "at least 2"),
        ([1.0, 2.0], ["a", None], "example 1 has no cluster id"),
        ([1.0, 2.0], ["a", float("nan")], "example 1 has no cluster id"),
        ([1.0, 2.0], ["", "b"], "example 0 has no cluster id"),
        ([1.0, 2.0], list("abc"), "3 cluster ids for 2 examples"),
        ([[1.0], [2.0]], list("ab"), r"shape \(2, 1\)"),
    ],
)
def test_what_carries_no_interval_is_refused(values, clusters, message):
    with pytest.raises(StatisticsError, match=message) as caught:
        cluster_interval(values, clusters, generator(0, "interval"))
    assert not isinstance(caught.value, DegenerateInterval)


@pytest.mark.parametrize("option", [{"confidence": 1.0}, {"resamples": 10}])
def test_meaningless_options_are_refused(option):
    with pytest.raises(StatisticsError, match=next(iter(option))):
        cluster_interval([1.0, 2.0], list("ab"), generator(0, "interval"), **option)
    with pytest.raises(StatisticsError, match=next(iter(option))):
        cluster_statistic_interval(
            lambda rows: float(rows[0].mean()), [list("aabbc")], generator(0, "interval"), **option
        )


# --- intervals of any statistic ------------------------------------------------------------------


def test_a_mean_as_a_general_statistic_has_the_interval_of_the_mean():
    values, labels = clustered(generator(5, "rows"), 40)
    special = cluster_interval(values, labels, generator(0, "interval"))
    general = cluster_statistic_interval(
        lambda rows: values[rows[0]].mean(), [labels], generator(0, "general")
    )
    assert general.estimate == pytest.approx(special.estimate)
    assert general[1:3] == pytest.approx(special[1:3], abs=0.1)
    assert general[3:] == special[3:]


@pytest.mark.slow
def test_any_statistic_is_covered_with_few_clusters():
    """Two independent tables, the fewer of 12 clusters: BCa covers .86 of skewed ones."""
    rng, repetitions, covered = generator(0, "general coverage"), 300, 0
    for _ in range(repetitions):
        (first, of_first), (second, of_second) = (
            clustered(rng, k, lambda n: rng.exponential(size=n)) for k in (12, 24)
        )
        means = [first.mean(), second.mean()]
        found = cluster_statistic_interval(
            lambda rows, a=first, b=second: a[rows[0]].mean() - b[rows[1]].mean(),
            [of_first, of_second],
            rng,
            resamples=300,
        )
        assert found.low < means[0] - means[1] < found.high
        covered += found.low <= 0 <= found.high
    assert covered / repetitions >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / repetitions)


def test_an_interval_keeps_the_bounds_of_its_statistic_and_its_estimate():
    rng = generator(0, "bounds")
    a = rng.normal(size=20)
    b, labels = a + 0.5 * rng.normal(size=20), list(range(20))

    def correlation(rows):
        return float(np.corrcoef(a[rows[0]], b[rows[0]])[0, 1])

    def interval(**bounds):
        return cluster_statistic_interval(
            correlation, [labels], generator(0, "interval"), resamples=300, **bounds
        )

    free = interval()
    assert interval(bounds=(-1.0, 1.0)) == free and free.high > 0.9
    assert interval(bounds=(0.6, 0.9)) == free._replace(low=0.6, high=0.9)
    assert interval(bounds=(-1.0, 0.5)).high == free.estimate > 0.5


def test_pairing_takes_out_what_two_tables_share():
    rng = generator(0, "pairing")
    shared = rng.normal(size=30)
    first, second = (
        shared + 0.1 * rng.normal(size=30),
        shared + 0.1 * rng.normal(size=30) - 1,
    )
    labels = [f"fact{i}" for i in range(30)]

    def difference(rows):
        return first[rows[0]].mean() - second[rows[1]].mean()

    def interval(paired):
        return cluster_statistic_interval(
            difference,
            [labels, labels],
            generator(0, "interval"),
            paired=paired,
            resamples=500,
        )

    paired, independent = interval(True), interval(False)
    assert paired.high - paired.low < 0.3 * (independent.high - independent.low)
    assert paired.low < 1 < paired.high
    assert paired.n == 60 and paired.n_clusters == 30


@pytest.mark.slow
def test_the_interval_of_a_difference_covers_it_about_as_often_as_documented():
    rng, repetitions, covered = generator(0, "difference"), 120, 0
    for _ in range(repetitions):
        first, labels = clustered(rng, 25, lambda n: rng.normal(1.0, 1.0, n))
        second, others = clustered(rng, 25, lambda n: rng.normal(0.0, 1.0, n))
        interval = cluster_statistic_interval(
            lambda rows, a=first, b=second: a[rows[0]].mean() - b[rows[1]].mean(),
            [labels, others],
            rng,
            resamples=200,
        )
        covered += interval.low <= 1.0 <= interval.high
    # Its docstring says .92: it is not studentised.
    assert covered / repetitions >= 0.92 - 3 * np.sqrt(0.92 * 0.08 / repetitions)


def test_rank_agreement_of_two_conditions_gets_an_interval_over_their_facts():
    rng = generator(0, "spearman")
    effects = 0.15 * np.arange(8)
    tables = [effects + rng.normal(size=(60, 8)) for _ in range(2)]
    labels = [f"fact{i // 2}" for i in range(60)]

    def spearman(rows):
        means = [table[row].mean(0) for table, row in zip(tables, rows, strict=True)]
        return stats.spearmanr(*means).statistic

    interval = cluster_statistic_interval(
        spearman, [labels, labels], rng, bounds=(-1.0, 1.0), resamples=300
    )
    assert 0 < interval.low < interval.estimate <= interval.high <= 1.0
    assert interval.estimate == spearman([np.arange(60)] * 2)


def test_a_statistic_that_never_varies_or_is_undefined_is_refused():
    labels, rng = list("aabbcc"), generator(0, "interval")
    with pytest.raises(DegenerateInterval, match="every resample"):
        cluster_statistic_interval(lambda rows: 1.0, [labels], rng)
    with pytest.raises(StatisticsError, match="nan on a resample"):
        cluster_statistic_interval(lambda rows: float("nan"), [labels], rng)
    with pytest.raises(StatisticsError, match="same cluster labels"):
        cluster_statistic_interval(lambda rows: 0.0, [labels, list("aabbdd")], rng, paired=True)
    with pytest.raises(StatisticsError, match="no table"):
        cluster_statistic_interval(lambda rows: 0.0, [], rng)


def test_one_figure_of_many_that_is_not_finite_is_refused():
    def statistic(rows):
        figures = rows[0].mean(-1)
        figures[len(figures) // 2] = np.nan
        return figures

    with pytest.raises(StatisticsError, match="nan on a resample"):
        cluster_statistic_interval(
            statistic, [list("aabbcc")], generator(0, "nan"), vectorized=True
        )


def test_a_statistic_of_two_tables_is_of_as_many_clusters_as_the_smaller_has():
    values = generator(0, "tables").normal(size=40)
    labels = [[f"a{row}" for row in range(40)], [f"b{row}" for row in range(25)]]

    def statistic(rows):
        return float(values[rows[0]].mean() - values[rows[1]].mean())

    for tables in (labels, labels[::-1]):
        found = cluster_statistic_interval(statistic, tables, generator(0, "interval"))
        assert (found.n, found.n_clusters) == (65, 25)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_wider_end_of_a_skewed_statistic_is_that_of_its_percentiles(sign):
    values = generator(3, "skewed").lognormal(0, 1, size=30)
    labels = [f"c{row:02}" for row in range(30)]

    def statistic(rows):
        return sign * float(np.exp(values[rows[0]].mean()))

    found = cluster_statistic_interval(statistic, [labels], generator(0, "interval"))
    index = bootstrap.ClusterRows(np.arange(30), 30)
    drawn = bootstrap.bootstrap(statistic, [index], generator(0, "interval"), resamples=2000)
    wide = bootstrap.percentile_ends(drawn, bootstrap.expanded_confidence(0.95, 30))
    even = bootstrap.student_ends(drawn, found.estimate, 0.95, 30)
    assert (found.low, found.high) == (min(wide[0], even[0]), max(wide[1], even[1]))
    assert (found.high == wide[1] > even[1]) if sign == 1 else (found.low == wide[0] < even[0])


# --- max-T ---------------------------------------------------------------------------------------


def sweep(rng, k, n_heads, effect=0.0):
    """Differences of correlated heads, the first with a planted effect, and cluster labels."""
    labels = [f"fact{i}" for i in range(k) for _ in range(3)]
    shared = rng.normal(size=(k, 1))
    means = 0.7 * shared + rng.normal(size=(k, n_heads))
    means[:, 0] += effect
    return np.repeat(means, 3, axis=0) + 0.2 * rng.normal(size=(3 * k, n_heads)), labels


@pytest.mark.parametrize("alternative", ["greater", "two-sided"])
def test_some_head_passes_by_chance_no_oftener_than_alpha(alternative):
    rng, repetitions = generator(0, f"size {alternative}"), 300
    passed = 0
    for _ in range(repetitions):
        differences, labels = sweep(rng, 20, 16)
        p = max_t_sign_flip(differences, labels, rng, permutations=200, alternative=alternative)
        passed += p.min() <= 0.05
    assert passed / repetitions <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / repetitions)


def test_without_the_correction_some_head_would_pass_far_oftener():
    rng, repetitions, passed = generator(0, "uncorrected"), 100, 0
    for _ in range(repetitions):
        differences, labels = sweep(rng, 20, 16)
        single = [
            max_t_sign_flip(differences[:, [head]], labels, rng, permutations=200)[0]
            for head in range(16)
        ]
        passed += min(single) <= 0.05
    assert passed / repetitions > 0.2


def test_a_planted_effect_is_found_and_no_other():
    rng, repetitions, found = generator(0, "power"), 50, 0
    for _ in range(repetitions):
        differences, labels = sweep(rng, 24, 16, effect=1.5)
        p = max_t_sign_flip(differences, labels, rng, permutations=500)
        found += p[0] <= 0.05 and p[0] == p.min()
    assert found / repetitions >= 0.9


def test_the_exact_p_is_that_of_every_sign_vector_and_of_the_t_statistic():
    rng = generator(0, "exact")
    differences, labels = sweep(rng, 7, 5, effect=0.8)
    sums = differences.reshape(7, 3, 5).sum(1)

    def t(table):
        return table.mean(0) / table.std(0, ddof=1)

    largest = np.array(
        [t(np.array(signs)[:, None] * sums).max() for signs in product([1, -1], repeat=7)]
    )
    expected = (largest[:, None] >= t(sums) - 1e-9).mean(0)
    p = max_t_sign_flip(differences, labels, rng, permutations=128)
    assert p == pytest.approx(expected)
    drawn = max_t_sign_flip(differences, labels, rng, permutations=127)  # one too few: sampled
    assert drawn == pytest.approx(expected, abs=4 * 0.5 / np.sqrt(127))
    assert (drawn * 128 == pytest.approx(np.round(drawn * 128))) and drawn.min() >= 1 / 128


def test_repeating_the_rows_of_clusters_is_no_further_evidence():
    rng = generator(0, "rows")
    differences, labels = sweep(rng, 9, 4, effect=0.5)
    once = max_t_sign_flip(differences, labels, rng)
    assert max_t_sign_flip(np.tile(differences, (20, 1)), labels * 20, rng) == pytest.approx(once)


def test_heads_that_do_nothing_have_p_one_and_leave_the_others_alone():
    rng = generator(0, "nothing")
    differences, labels = sweep(rng, 9, 4, effect=1.0)
    cancelling = np.tile([0.1, 0.2, -0.3], 9)  # sums to 1e-17, not to 0
    padded = np.column_stack([differences, np.zeros(27), cancelling])
    p = max_t_sign_flip(padded, labels, rng)
    assert list(p[4:]) == [1.0, 1.0]
    assert p[:4] == pytest.approx(max_t_sign_flip(differences, labels, rng))
    assert list(max_t_sign_flip(np.zeros((4, 3)), list("aabb"), rng)) == [1.0, 1.0, 1.0]


def test_an_effect_without_any_variance_has_the_least_p():
    p = max_t_sign_flip(np.full((8, 2), [0.5, -0.5]), range(8), generator(0, "constant"))
    # The heads mirror each other, so the flip of all signs gives the same largest statistic.
    assert list(p) == [2 / 256, 1.0]


@PROPERTIES
@given(st.integers(0, 2**32), st.randoms(use_true_random=False))
def test_max_t_mirrors_with_the_sign_and_ignores_the_order_of_rows_and_units(seed, shuffler):
    rng = generator(seed, "sweep")
    differences, labels = sweep(rng, 6, 4, effect=0.5)
    greater = max_t_sign_flip(differences, labels, rng)
    order = list(range(len(labels)))
    shuffler.shuffle(order)
    shuffled = max_t_sign_flip(differences[order], [labels[i] for i in order], rng)
    mirrored = max_t_sign_flip(-differences, labels, rng, alternative="less")
    stretched = max_t_sign_flip(differences * [1e-3, 1, 7, 1e3], labels, rng)
    for other in (shuffled, mirrored, stretched):
        assert other == pytest.approx(greater)
    assert ((greater > 0) & (greater <= 1)).all()


def test_a_sweep_that_cannot_be_corrected_is_refused():
    rng = generator(0, "refused")
    with pytest.raises(StatisticsError, match=r"differences: nan at \(0, 1\)"):
        max_t_sign_flip([[0.0, np.nan], [1.0, 1.0]], list("ab"), rng)
    with pytest.raises(StatisticsError, match="empty"):
        max_t_sign_flip(np.empty((0, 3)), [], rng)
    with pytest.raises(StatisticsError, match="permutations"):
        max_t_sign_flip(np.ones((2, 2)), list("ab"), rng, permutations=0)


# --- exceedance, rank agreement ------------------------------------------------------------------


def test_exceedance_counts_ties_against_the_value_and_is_never_zero():
    assert exceedance(10.0, range(10)) == 1 / 11
    assert exceedance(9.0, range(10)) == 2 / 11
    assert exceedance(-1.0, range(10)) == 1.0
    with pytest.raises(StatisticsError, match="n = 0"):
        exceedance(1.0, [])
    with pytest.raises(StatisticsError, match="nan"):
        exceedance(float("nan"), [1.0])
    with pytest.raises(StatisticsError, match="finite"):
        exceedance(1.0, [float("nan")])


def test_rank_agreement_is_spearman_with_an_exact_p():
    rng = generator(0, "ranks")
    a, b = [1.0, 2.0, 3.0, 4.0, 5.0], [10.0, 20.0, 30.0, 50.0, 40.0]
    rho, p = rank_agreement(a, b, rng)
    assert rho == pytest.approx(stats.spearmanr(a, b).statistic)
    assert p == pytest.approx(2 * 5 / 120)  # identity and four swaps of neighbours, both ends
    assert rank_agreement(a, a, rng, alternative="greater") == pytest.approx((1.0, 1 / 120))
    # As many permutations as there are orders: all are taken, and none is drawn.
    assert rank_agreement(a, b, generator(1, "ranks"), permutations=120).p == p
    assert rank_agreement(a, a[::-1], rng, alternative="greater") == pytest.approx((-1.0, 1.0))


@pytest.mark.parametrize("alternative", ["greater", "less", "two-sided"])
@pytest.mark.parametrize("n", [5, 6, 12])  # of 12 not all orders are taken
def test_rank_agreement_is_that_of_scipy(n, alternative):
    rng = generator(n, "as scipy has it")
    a, b = rng.normal(size=n), rng.integers(4, size=n)
    rho, p = rank_agreement(
        a, b, generator(1, "orders"), alternative=alternative, permutations=2500
    )
    theirs = stats.pearsonr(
        stats.rankdata(a),
        stats.rankdata(b),
        alternative=alternative,
        method=stats.PermutationMethod(2500, 2000, rng=generator(1, "orders")),
    )
    assert rho == pytest.approx(theirs.statistic, rel=1e-12)
    assert rho == pytest.approx(stats.spearmanr(a, b).statistic, rel=1e-12)
    assert p == pytest.approx(theirs.pvalue, rel=1e-12)


def test_rank_agreement_of_unrelated_rankings_is_seldom_significant():
    rng, repetitions = generator(0, "unrelated"), 200
    small = sum(
        rank_agreement(rng.normal(size=32), rng.normal(size=32), rng, permutations=400).p <= 0.05
        for _ in range(repetitions)
    )
    assert small / repetitions <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / repetitions)


def test_rankings_that_cannot_agree_are_refused():
    rng = generator(0, "refused")
    with pytest.raises(StatisticsError, match="b is 2 for every head"):
        rank_agreement([1.0, 2.0, 3.0], [2.0, 2.0, 2.0], rng)
    with pytest.raises(StatisticsError, match="same heads"):
        rank_agreement([1.0, 2.0, 3.0], [2.0, 1.0], rng)
    with pytest.raises(StatisticsError, match="need 3"):
        rank_agreement([1.0, 2.0], [2.0, 1.0], rng)


def test_only_few_clusters_take_wider_quantiles_and_only_if_asked_to():
    for k, same in ((12, False), (30, True)):
        rng = generator(k, "widened")
        values, labels = rng.exponential(size=3 * k), [f"c{n // 3}" for n in range(3 * k)]
        plain, wide = (
            cluster_interval(values, labels, generator(0, "interval"), widened=widened)
            for widened in (False, True)
        )
        assert (plain == wide) == same
        assert wide.low <= plain.low and plain.high <= wide.high


def test_a_statistic_that_is_always_zero_has_no_interval():
    with pytest.raises(DegenerateInterval) as caught:
        cluster_statistic_interval(lambda rows: 0.0, [list("aabbcc")], generator(0, "nothing"))
    assert caught.value.value == 0


def test_two_thousand_flips_are_drawn_where_there_are_more():
    differences, labels = sweep(generator(0, "flips"), 12, 4, effect=0.4)  # 2^12 of them
    counts = max_t_sign_flip(differences, labels, generator(1, "flips")) * 2001
    assert counts == pytest.approx(np.round(counts), abs=1e-9) and (counts > 1).all()


def test_an_effect_that_no_drawn_flip_reaches_has_the_least_p():
    differences = 5 + generator(0, "least").normal(size=(40, 3))
    labels = [f"c{row}" for row in range(40)]
    assert max_t_sign_flip(differences, labels, generator(1, "flips")).tolist() == [1 / 2001] * 3


def test_one_permutation_is_enough_to_be_asked_for():
    differences = [[1.0], [2.0], [3.0]]
    found = max_t_sign_flip(differences, list("abc"), generator(0, "one"), permutations=1)
    assert found[0] in (0.5, 1.0)


def test_every_flip_is_counted_once_however_many_are_held_at_once(monkeypatch):
    """Six clusters have 64 flips, of which some come to as much as what was found."""
    differences, labels = [[1.0], [-2.0], [3.0], [1.5], [2.5], [-0.5]], list("abcdef")
    whole = max_t_sign_flip(differences, labels, generator(0, "flips"))
    monkeypatch.setattr(bootstrap, "_BLOCK", 6 * 5)  # thirteen blocks
    assert max_t_sign_flip(differences, labels, generator(0, "flips")) == whole
    own = [each for (each,) in differences]
    flipped = [np.dot(signs, own) for signs in product((1, -1), repeat=6)]
    assert whole[0] == np.mean(np.array(flipped) >= sum(own))
