"""What figures say about a claim. Run: pytest tests/verdicts/test_verdicts.py"""

import dataclasses
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyablation.statistics.intervals import Estimate
from tinyablation.verdicts.floors import (
    ABSOLUTE_FLOOR,
    EFFECT_SHARE,
    Floor,
    Noise,
    VerdictError,
    effect_floor,
    figure,
)
from tinyablation.verdicts.verdicts import (
    Verdict,
    blocked,
    judge_above_floor,
    judge_all_of,
    judge_below_ceiling,
    judge_equivalent,
    of_many,
    p_beyond,
)


def judge(low, high, floor=0.1, p=None):
    return judge_above_floor(
        Estimate((low + high) / 2, low, high, 60, 20),
        floor=floor,
        p_corrected=p,
        what="zeroing 0:2",
    )


@pytest.mark.parametrize(
    ("low", "high", "p", "status", "reason"),
    [
        (
            0.2,
            0.4,
            None,
            "supported",
            "interval [0.200, 0.400] lies above the floor 0.100",
        ),
        (0.2, 0.4, 0.05, "supported", "above the floor 0.100, corrected p 0.0500"),
        (0.2, 0.4, 0.06, "inconclusive", "but corrected p 0.0600 > 0.05"),
        (0.05, 0.4, 0.001, "inconclusive", "[0.0500, 0.400] straddles the floor 0.100"),
        (0.1, 0.4, None, "inconclusive", "straddles"),
        (0.0, 0.1, None, "inconclusive", "straddles"),
        (-0.2, 0.05, None, "refuted", "[-0.200, 0.0500] lies below the floor 0.100"),
        (-0.2, -0.1, 0.5, "refuted", "lies below the floor"),
    ],
)
def test_a_claim_stands_falls_or_stays_open_by_interval_and_p(low, high, p, status, reason):
    verdict = judge(low, high, p=p)
    assert verdict.status == status
    assert reason in verdict.reason
    assert verdict.reason.startswith("zeroing 0:2: ")
    assert (verdict.floor, verdict.p_corrected, verdict.unit) == (0.1, p, "logits")
    assert verdict.effect is not None and verdict.effect.n_clusters == 20


def test_a_verdict_lists_what_it_compared_and_a_joint_one_that_of_all_its_parts():
    effect, least = Estimate(0.3, 0.2, 0.4, 60, 20), Floor(0.1, least=0.01)
    by_example = Estimate(-0.1, -0.2, 0.05, 60, 20)
    one = judge_above_floor(
        effect, floor=least, margin=by_example, p_corrected=0.2, p_test="max-T", what="a"
    )
    found = [(c.name, c.rule, c.threshold, c.met, c.p_test) for c in one.criteria]
    assert found == [
        ("a, beyond its bound by example", "above", 0.0, False, "interval"),
        ("a", "above", 0.01, True, "interval"),
        ("a", "p", 0.05, False, "max-T"),
    ]
    assert (one.criteria[0].low, one.criteria[0].high, one.p_test) == (-0.2, 0.05, "max-T")
    two = judge_below_ceiling(effect, ceiling=0.1, what="b")
    (three,) = judge_equivalent(effect, margin=0.5, what="c").criteria
    assert [(c.rule, c.met) for c in two.criteria] == [("below", False)]
    assert (three.rule, three.threshold, three.met) == ("within", 0.5, True)
    assert judge_all_of([one, two, two]).criteria == (*one.criteria, *two.criteria)
    assert judge_all_of([two, one], show=one).p_test == "max-T"


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(*[st.floats(-10, 10)] * 3, st.floats(0, 1))
def test_a_higher_floor_or_p_never_helps_a_claim(one, other, floor, p):
    order = ["refuted", "inconclusive", "supported"]
    low, high = sorted((one, other))

    def rank(floor, p):
        return order.index(judge(low, high, floor, p).status)

    assert rank(floor + 1, p) <= rank(floor, p)
    assert rank(floor, 1.0) <= rank(floor, p) <= rank(floor, 0.0)


def test_the_floor_is_a_share_of_the_clean_difference_or_the_noise():
    assert effect_floor(4.0, 1e-3) == 4.0 * EFFECT_SHARE == effect_floor(-4.0, 1e-3)
    assert effect_floor(0.001, 1e-3) == ABSOLUTE_FLOOR == effect_floor(0.0, 0.0)
    assert effect_floor(0.001, 0.02) == 0.02
    for bad in ((float("nan"), 0.0), (1.0, -1.0), (1.0, float("inf"))):
        with pytest.raises(VerdictError):
            effect_floor(*bad)


def test_figures_that_are_not_finite_are_not_judged():
    with pytest.raises(VerdictError, match="floor is nan"):
        judge(0.2, 0.4, floor=float("nan"))
    with pytest.raises(VerdictError, match="low is nan"):
        judge_above_floor(Estimate(0.0, float("nan"), 1.0, 2, 2), floor=0.1, what="x")
    with pytest.raises(VerdictError, match="p_corrected"):
        judge(0.2, 0.4, p=float("nan"))
    with pytest.raises(VerdictError, match="p_corrected"):
        judge(0.2, 0.4, p=1.5)


def test_a_verdict_has_a_known_word_and_a_reason_and_does_not_change():
    with pytest.raises(VerdictError, match="'true' is not a verdict"):
        Verdict("true", "it is")  # type: ignore[arg-type]
    with pytest.raises(VerdictError, match="needs a reason"):
        blocked(" ")
    with pytest.raises(dataclasses.FrozenInstanceError):
        blocked("no weights").status = "supported"  # type: ignore[misc]
    assert hash(blocked("a", details={"n": 1})) == hash(blocked("a"))


def test_a_claim_that_needs_several_findings_is_as_strong_as_the_weakest():
    strong, near, open_ = judge(1.0, 2.0), judge(0.2, 0.4), judge(0.0, 0.4)
    wrong, shut = Verdict("refuted", "0:3 leads"), blocked("no weights")
    assert judge_all_of([strong, near]).status == "supported"
    assert judge_all_of([strong, near]).effect == near.effect
    # As near but for rounding: which is lower differs from machine to machine.
    for off in (-1e-6, 1e-6):
        beside = dataclasses.replace(
            near, effect=near.effect._replace(low=near.effect.low + off, high=9.0)
        )
        assert judge_all_of([strong, near, beside]).effect == near.effect
        assert judge_all_of([strong, beside, near]).effect == beside.effect
    assert judge_all_of([strong, open_]).status == "inconclusive"
    assert judge_all_of([strong, open_, shut]).status == "blocked"
    assert judge_all_of([strong, open_, shut, wrong]).status == "refuted"
    assert judge_all_of([strong, open_, shut, wrong]).reason == "1 of 4 refuted: 0:3 leads"
    assert judge_all_of([wrong, wrong]).reason == "0:3 leads"
    with pytest.raises(VerdictError, match="n = 0"):
        judge_all_of([])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (-0.0, "0"),
        (0.1 + 0.2, "0.300"),
        (0.99999, "1.00"),
        (-1.4849, "-1.48"),
        (26.51, "26.5"),
        (160.0, "160"),
        (1234.5, "1230"),
        (0.00123456, "0.00123"),
        (3.4e-7, "3.40e-07"),
    ],
)
def test_a_figure_has_three_significant_digits(value, text):
    assert figure(value) == text


def test_verdicts_are_cheap_to_import():
    code = "import sys, tinyablation.verdicts.verdicts; print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("low", "high", "p", "status"),
    [
        (-0.5, -0.2, None, "supported"),
        (-0.5, -0.2, 0.05, "supported"),
        (-0.5, -0.2, 0.06, "inconclusive"),
        (-0.5, 0.0, 0.01, "inconclusive"),
        (-0.1, 0.0, 0.01, "inconclusive"),  # it ends at the ceiling
        (-0.05, 0.3, 0.01, "refuted"),
    ],
)
def test_a_decrease_lies_below_a_ceiling(low, high, p, status):
    effect = Estimate((low + high) / 2, low, high, 60, 20)
    verdict = judge_below_ceiling(effect, ceiling=-0.1, p_corrected=p, what="zeroing 0:2")
    assert verdict.status == status, verdict.reason
    assert verdict.effect == effect and verdict.floor == -0.1 and verdict.p_corrected == p


# --- numerical noise ------------------------------------------------------------------------------

NOISE = Noise(0.12, "cuda in bfloat16", {"entropy": 0.03})


@pytest.mark.parametrize(
    ("low", "high", "clean", "status", "reason"),
    [
        # 5 % of 1 logit is .05, and the noise is more: under it nothing is told apart.
        (0.0, 0.1, 1.0, "inconclusive", "beyond the numerical noise 0.120 of cuda in bfloat16"),
        (-0.1, 0.04, 1.0, "inconclusive", "beyond the numerical noise"),
        (-0.2, 0.0, 1.0, "inconclusive", "beyond the numerical noise"),
        (-0.2, 0.2, 1.0, "inconclusive", "straddles the floor 0.120"),
        (0.13, 0.2, 1.0, "supported", "lies above the floor 0.120"),
        (-0.3, -0.13, 1.0, "refuted", "lies below the floor 0.120"),
        # 5 % of 4 logits is .2: an effect under the noise is shown to be smaller than that.
        (0.0, 0.1, 4.0, "refuted", "lies below the floor 0.200"),
        (0.13, 0.19, 4.0, "present", "lies below the floor 0.200 and above 0"),
        (0.13, 0.3, 4.0, "present", "straddles the floor 0.200 and lies above 0"),
        (0.05, 0.19, 4.0, "refuted", "lies below the floor 0.200"),  # not beyond the noise
        (0.21, 0.3, 4.0, "supported", "lies above the floor 0.200"),
    ],
)
def test_an_effect_under_the_noise_is_not_shown_to_be_small(low, high, clean, status, reason):
    verdict = judge(low, high, floor=effect_floor(clean, NOISE))
    assert verdict.status == status and reason in verdict.reason
    assert type(verdict.floor) is float
    # The same of a decrease, mirrored.
    turned = judge_below_ceiling(
        Estimate(-(low + high) / 2, -high, -low, 60, 20),
        ceiling=-effect_floor(clean, NOISE),
        what="zeroing 0:2",
    )
    assert turned.status == status


@pytest.mark.parametrize(
    ("low", "high", "status", "reason"),
    [
        (0.01, 0.11, "inconclusive", "does not lie beyond the numerical noise 0.120"),
        (0.13, 0.2, "supported", "lies above the floor 0"),
        (-0.11, -0.01, "inconclusive", "does not lie beyond the numerical noise 0.120"),
        (-0.2, -0.13, "refuted", "lies below the floor 0"),
        (-0.2, 0.3, "inconclusive", "straddles the floor 0"),
    ],
)
def test_a_lead_within_the_noise_is_none(low, high, status, reason):
    verdict = judge(low, high, floor=Floor(0.0, NOISE))
    assert verdict.status == status and verdict.floor == 0.0
    assert reason in verdict.reason


def test_a_ceiling_under_the_noise_shows_nothing_to_be_small():
    """A share of .1 of an effect of .5 logits is .05, where the noise is .12: .24 of it."""
    small = Estimate(0.1, 0.05, 0.15, 60, 20)
    for noise, status in ((0.24, "inconclusive"), (0.19, "supported")):
        verdict = judge_below_ceiling(small, ceiling=Floor(0.2, Noise(noise)), what="recovery")
        assert verdict.status == status
    large = Estimate(0.5, 0.4, 0.6, 60, 20)
    assert judge_below_ceiling(large, ceiling=Floor(0.2, 0.24), what="x").status == "refuted"


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(*[st.floats(-10, 10)] * 3, st.floats(0, 5), st.floats(0, 5))
def test_noise_never_decides_for_or_against_a_claim(one, other, clean, less, more):
    """More noise can only make a verdict inconclusive, or a small effect none that is seen."""
    low, high = sorted((one, other))
    less, more = sorted((less, more))
    first, second = (
        judge(low, high, floor=effect_floor(clean, Noise(noise))).status for noise in (less, more)
    )
    assert second in (first, "inconclusive") or (first, second) == ("present", "refuted")


def test_noise_knows_its_columns_and_a_floor_is_a_number():
    assert NOISE == 0.12 and NOISE.of("entropy") == 0.03 and NOISE.of("kl") == 0.12
    assert NOISE.of("entropy").where == "cuda in bfloat16"
    assert NOISE.of("kl").of("entropy") == 0.03  # it still knows them
    floor = effect_floor(1.0, NOISE)
    assert floor == 0.12 and floor.limited and not effect_floor(4.0, NOISE).limited
    assert -floor == -0.12 and (-floor).limited and (-floor).noise_said == floor.noise_said
    with pytest.raises(VerdictError, match="must not be negative"):
        Floor(0.0, -1.0)
    with pytest.raises(VerdictError, match="noise is nan"):
        Floor(0.0, float("nan"))
    with pytest.raises(VerdictError, match="bound is nan"):
        Floor(float("nan"))


@pytest.mark.parametrize(
    ("unit", "low", "high"),
    [("Brier", -5.7, 0.1), ("share", 0.2, 1.2), ("rho", -1.1, 0.0), ("cosine", 0.0, 43.0)],
)
def test_an_interval_outside_the_range_of_its_unit_is_an_error(unit, low, high):
    effect = Estimate(0.05, low, high, 40, 20)
    with pytest.raises(VerdictError, match=f"of a {unit} is not within"):
        judge_above_floor(effect, floor=0.0, what="it", unit=unit)
    judge_above_floor(effect, floor=0.0, what="it", unit="logits")


def test_the_nearest_of_many_rivals_supports_or_leaves_open():
    below = judge_above_floor(Estimate(-1.0, -2.0, -0.5, 40, 20), floor=0.0, what="lead over it")
    open_ = of_many(below, -1.2)
    assert below.status == "refuted" and open_.status == "inconclusive"
    assert (open_.reason, open_.effect, open_.p_value) == (below.reason, below.effect, None)
    above = judge_above_floor(Estimate(1.0, 0.5, 2.0, 40, 20), floor=0.0, what="lead over it")
    held = of_many(above, 0.8)
    assert (held.status, held.p_value) == ("supported", above.p_value)
    # The least lead of any rival tells what is true, not that of the least certain one.
    assert (open_.distance, held.distance, above.distance) == (-1.2, 0.8, 1.0)
    assert not held.refutes and above.refutes


# --- the second tier ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high", "status"),
    [
        (0.21, 0.4, "supported"),
        (0.1, 0.4, "present"),  # there, and perhaps large enough
        (0.01, 0.19, "present"),  # there, and too small
        (0.0, 0.19, "refuted"),
        (0.0, 0.4, "inconclusive"),
        (-0.1, 0.3, "inconclusive"),
        (-0.4, -0.1, "refuted"),
    ],
)
def test_an_effect_that_is_there_but_not_large_enough_is_present(low, high, status):
    floor = effect_floor(4.0, 0.0)
    found = Estimate((low + high) / 2, low, high, 60, 30)
    assert judge_above_floor(found, floor=floor, what="it").status == status
    turned = Estimate(-found.estimate, -high, -low, 60, 30)
    assert judge_below_ceiling(turned, ceiling=-floor, what="it").status == status
    # A share that was to be reached is no minimum: what falls short of it is refuted.
    share = judge_above_floor(found, floor=Floor(0.2, 0.0), what="recovery").status
    assert share == {"present": "refuted" if high < 0.2 else "inconclusive"}.get(status, status)


def beyond(low, high):
    return Estimate((low + high) / 2, low, high, 60, 30)


@pytest.mark.parametrize(
    ("effect", "margin", "status"),
    [
        ((0.1, 0.5), (0.01, 0.2), "supported"),  # the interval of the effect alone straddles it
        ((0.21, 0.5), (-0.01, 0.2), "present"),
        ((0.1, 0.5), (-0.2, -0.01), "present"),
        ((-0.1, 0.15), (-0.3, -0.05), "refuted"),
        ((-0.1, 0.5), (-0.1, 0.3), "inconclusive"),
    ],
)
def test_a_margin_by_example_decides_where_there_is_one(effect, margin, status):
    verdict = judge_above_floor(
        beyond(*effect), floor=effect_floor(4.0, 0.0), margin=beyond(*margin), what="it"
    )
    assert verdict.status == status, verdict.reason
    assert verdict.margin == beyond(*margin) and verdict.effect == beyond(*effect)
    assert "beyond it by example" in verdict.reason


def test_beside_a_margin_a_plain_bound_asks_only_that_the_effect_is_there():
    for effect, status in ((beyond(0.1, 0.5), "supported"), (beyond(-0.1, 0.5), "inconclusive")):
        verdict = judge_above_floor(effect, floor=0.2, margin=beyond(0.01, 0.2), what="it")
        assert verdict.status == status, verdict.reason


def test_the_absolute_floor_stands_beside_a_margin():
    """5 % of next to nothing is no bound: the effect itself must be .01 logits."""
    floor = effect_floor(0.01, 0.0)
    for effect, status in ((beyond(0.011, 0.03), "supported"), (beyond(0.004, 0.03), "present")):
        verdict = judge_above_floor(effect, floor=floor, margin=beyond(0.003, 0.03), what="it")
        assert (verdict.status, verdict.floor) == (status, ABSOLUTE_FLOOR)
    tiny = judge_above_floor(
        beyond(0.002, 0.006), floor=floor, margin=beyond(0.001, 0.005), what="it"
    )
    assert tiny.status == "present"


def test_few_clusters_are_said_where_nothing_was_shown():
    few = Estimate(0.1, -0.1, 0.3, 60, 16)
    open_ = judge_above_floor(few, floor=0.0, what="it")
    assert open_.reason.endswith("; underpowered: 16 clusters, fewer than 24")
    assert (
        "underpowered"
        not in judge_above_floor(few._replace(n_clusters=24), floor=0.0, what="it").reason
    )
    assert (
        "underpowered" not in judge_above_floor(few._replace(low=0.05), floor=0.0, what="it").reason
    )


# --- several parts --------------------------------------------------------------------------------


def test_one_of_several_parts_refutes_only_if_corrected_for_their_number():
    """A part at its bound is refuted in 2.5 % of samples, one of four of them in 9.6 %."""
    holds = judge_above_floor(beyond(0.5, 0.9), floor=0.0, what="it")
    barely = judge_above_floor(beyond(-0.4, -1e-6), floor=0.0, what="it")
    clearly = judge_above_floor(beyond(-0.6, -0.2), floor=0.0, what="it")
    assert barely.p_refuted == pytest.approx(0.025, abs=5e-4)
    assert judge_all_of([barely]).status == "refuted"
    both = judge_all_of([holds, barely])
    assert both.status == "inconclusive" and "corrected for 2 parts" in both.reason
    assert judge_all_of([holds, clearly, holds, holds]).status == "refuted"
    # Parts that cannot refute do not count.
    assert judge_all_of([of_many(holds, 0.7), barely]).status == "refuted"


def test_a_claim_of_several_parts_is_as_far_from_its_bound_as_the_nearest():
    near, far = judge_above_floor(beyond(0.1, 0.3), floor=0.0, what="it"), blocked("no weights")
    away = judge_below_ceiling(beyond(0.5, 0.7), ceiling=0.2, what="it")
    assert (near.distance, away.distance) == pytest.approx((0.2, -0.4))
    assert judge_all_of([near, away]).distance == pytest.approx(-0.4)
    assert judge_all_of([near, far]).distance is None


def test_a_claim_of_several_parts_is_refuted_as_surely_as_the_surest_of_those_that_can():
    one = judge_above_floor(beyond(-0.4, -0.1), floor=0.0, what="it")
    other = judge_above_floor(beyond(-0.9, -0.5), floor=0.0, what="it")
    assert 0 < other.p_refuted < one.p_refuted < 0.025
    assert judge_all_of([one, other]).p_refuted == other.p_refuted
    assert judge_all_of([one, of_many(other, -0.9)]).p_refuted == one.p_refuted
    assert judge_all_of([blocked("no weights")]).p_refuted is None


def test_a_part_without_a_bound_is_as_far_from_it_as_from_zero():
    """The nearest part is shown; one without an effect never is before one that has one."""
    free = Verdict("supported", "it", beyond(0.2, 0.4))
    for floor, shown in ((0.0, "free"), (0.3, "bound")):
        bound = judge_above_floor(beyond(0.4, 0.6), floor=floor, what="it")
        chosen = judge_all_of([Verdict("supported", "known"), bound, free])
        assert chosen.effect == (free if shown == "free" else bound).effect


def test_present_parts_leave_a_claim_present():
    present = judge_above_floor(beyond(0.01, 0.1), floor=effect_floor(4.0, 0.0), what="it")
    holds = judge_above_floor(beyond(0.5, 0.9), floor=0.0, what="it")
    open_ = judge_above_floor(beyond(-0.1, 0.1), floor=0.0, what="it")
    assert judge_all_of([present, holds]).status == "present"
    assert judge_all_of([present, holds, open_]).status == "inconclusive"


def test_a_verdict_falls_short_if_refuted_or_surely_too_small():
    assert Verdict("refuted", "it").falls_short
    assert Verdict("present", "it", p_refuted=0.025).falls_short
    assert not Verdict("present", "it", p_refuted=0.026).falls_short
    assert not Verdict("inconclusive", "it").falls_short


def test_ends_and_margins_that_are_not_finite_are_not_judged():
    nan = float("nan")
    sound = Estimate(0.5, 0.2, 0.8, 60, 30)
    for broken in (sound._replace(high=nan), sound._replace(estimate=nan)):
        with pytest.raises(VerdictError, match="is nan"):
            judge_above_floor(broken, floor=0.1, what="it")
    for end in ("estimate", "low", "high"):
        with pytest.raises(VerdictError, match="margin.* is nan"):
            judge_above_floor(sound, floor=0.1, margin=sound._replace(**{end: nan}), what="it")
    for end in ("estimate", "low", "high"):
        with pytest.raises(VerdictError, match="is nan"):
            Verdict("inconclusive", "it", sound._replace(**{end: nan}))
    with pytest.raises(VerdictError, match="share is nan"):
        effect_floor(4.0, 0.0, share=nan)
    with pytest.raises(VerdictError, match="noise_floor is inf"):
        effect_floor(4.0, float("inf"))


def test_p_of_a_claim_is_the_larger_of_its_interval_and_its_correction():
    effect = beyond(0.2, 0.4)
    plain = judge_above_floor(effect, floor=0.1, what="it").p_value
    assert plain is not None and 0 < plain < 0.025
    corrected = judge_above_floor(effect, floor=0.1, p_corrected=0.03, what="it")
    assert corrected.p_value == 0.03
    assert judge_above_floor(effect, floor=0.1, p_corrected=0.0, what="it").p_value == plain


def test_noise_as_large_as_the_bound_is_not_larger():
    assert not Floor(0.1, 0.1).limited and Floor(0.1, 0.11).limited
    assert not Floor(0.0, 0.0).limited and Floor(0.5).noise == 0
    assert effect_floor(4.0, 0.1, share=0.0, absolute=0.0) == 0.1
    assert effect_floor(1.0, NOISE).absolute.noise_said == effect_floor(1.0, NOISE).noise_said


def test_an_interval_without_width_or_of_one_cluster_has_no_p():
    for effect in (Estimate(0.5, 0.5, 0.5, 60, 30), Estimate(0.5, 0.3, 0.7, 60, 1)):
        assert p_beyond(effect, 0.0, "above") is None
    assert p_beyond(Estimate(2.0, 1.0, 3.0, 60, 2), 1.0, "above") == pytest.approx(0.025)
    wide = Estimate(2.0, 1.0, 3.0, 60, 30)  # half of it is 1: an interval like any other
    assert p_beyond(wide, 0.0, "above") == pytest.approx(1e-4, rel=2)
    assert p_beyond(wide, 1.0, "above") == pytest.approx(0.025)
    assert p_beyond(wide, 3.0, "below") == pytest.approx(0.025)


def test_details_are_kept_and_of_the_part_that_is_shown():
    one = judge_above_floor(beyond(0.2, 0.4), floor=0.1, what="it", details={"n": 1})
    other = judge_above_floor(beyond(0.2, 0.4), floor=-0.5, what="it", details={"n": 2})
    assert (one.details, other.details) == ({"n": 1}, {"n": 2})
    assert judge_above_floor(beyond(0.2, 0.4), floor=0.1, what="it").details == {}
    assert judge_all_of([one, other]).details == {"n": 1}  # the one that is nearest
    assert judge_all_of([one, other], show=other).details == {"n": 2}


# --- equivalence ---------------------------------------------------------------------------------


def spared(low, high, *, narrower=0.02, margin=0.2, **changes):
    """By intervals [low, high] of 95 % and [low + narrower, high - narrower] of 90 %."""
    middle = (low + high) / 2
    inner = Estimate(middle, low + narrower, high - narrower, 60, 24)
    effect = Estimate(middle, low, high, 60, 24)
    return judge_equivalent(effect, inner=inner, margin=margin, what="logic", **changes)


@pytest.mark.parametrize(
    ("low", "high", "status", "reason"),
    [
        (-0.1, 0.1, "supported", "lies within +-0.200"),
        (0.05, 0.21, "supported", "[0.0500, 0.210], of 90 % [0.0700, 0.190] lies within"),
        (-0.21, -0.05, "supported", "lies within"),
        (0.05, 0.23, "inconclusive", "straddles +-0.200"),
        (-0.5, 0.5, "inconclusive", "straddles"),  # nothing found, nothing shown
        (0.19, 0.5, "inconclusive", "straddles"),  # outside at 90 %, and not at 95
        (0.21, 0.5, "refuted", "lies outside +-0.200"),
        (-0.5, -0.21, "refuted", "lies outside"),
    ],
)
def test_an_effect_is_negligible_if_two_one_sided_tests_say_so(low, high, status, reason):
    found = spared(low, high)
    assert found.status == status and reason in found.reason
    assert found.effect[1:3] == (low, high) and found.floor == 0.2
    assert found.details["90 % interval"] == pytest.approx([low + 0.02, high - 0.02])
    assert (found.p_value <= 0.05) == (status == "supported")
    assert (found.p_refuted <= 0.025) == (status == "refuted")
    assert found.distance == pytest.approx(0.2 - abs(low + high) / 2)


def test_without_the_inner_interval_the_outer_must_lie_within():
    effect = Estimate(0.13, 0.05, 0.21, 60, 24)
    assert judge_equivalent(effect, margin=0.2, what="logic").status == "inconclusive"
    found = judge_equivalent(effect, margin=0.22, what="logic")
    assert found.status == "supported" and found.p_value <= 0.025 and found.details == {}


def test_a_margin_below_the_noise_shows_nothing_to_be_small():
    margin = Floor(0.2, Noise(0.3, "mps in float16"))
    found = spared(-0.1, 0.1, margin=margin)
    assert found.status == "inconclusive"
    assert "does not lie beyond the numerical noise 0.300 of mps in float16" in found.reason
    assert spared(0.21, 0.5, margin=margin).status == "inconclusive"
    assert spared(0.31, 0.5, margin=margin).status == "refuted"


@pytest.mark.parametrize("changes", [{"margin": 0.0}, {"margin": -0.1}, {"margin": float("nan")}])
def test_a_margin_must_be_above_zero(changes):
    with pytest.raises(VerdictError, match=r"must be above 0|must be finite"):
        spared(-0.1, 0.1, **changes)


@pytest.mark.parametrize("inner", [(0.0, -0.2, 0.05), (0.0, -0.05, 0.2), (0.01, -0.05, 0.05)])
def test_an_interval_of_other_values_is_refused(inner):
    effect = Estimate(0.0, -0.1, 0.1, 60, 24)
    with pytest.raises(VerdictError, match="is not an interval of 90 % within that of 95 %"):
        judge_equivalent(effect, inner=Estimate(*inner, 60, 24), margin=0.3, what="logic")


def test_a_double_dissociation_is_as_strong_as_its_weakest_part():
    """A kills one behaviour and spares the other, which B kills and that one spares: four parts."""
    kills = [
        judge_below_ceiling(Estimate(-2.0, -2.2, -1.8, 60, 24), ceiling=-0.2, what=what)
        for what in ("A on X", "B on Y")
    ]
    spares = [spared(-0.1, 0.1), spared(-0.1, 0.12)]
    whole = judge_all_of([*kills, *spares])
    assert whole.status == "supported"
    assert whole.p_value == max(part.p_value for part in (*kills, *spares))
    assert judge_all_of([*kills, spares[0], spared(-0.1, 0.5)]).status == "inconclusive"
    assert judge_all_of([*kills, spares[0], spared(0.4, 0.5)]).status == "refuted"
    missed = judge_below_ceiling(Estimate(0.0, -0.1, 0.1, 60, 24), ceiling=-0.2, what="B on Y")
    assert judge_all_of([kills[0], missed, *spares]).status == "refuted"


@pytest.mark.parametrize(
    ("bound", "holding", "facing"),
    [
        (0.5, "above", "its low end, at the bound"),
        (3.0, "below", "its high end, at the bound"),
    ],
)
def test_p_is_of_the_side_of_the_interval_that_faces_the_bound(bound, holding, facing):
    """An interval that reaches farther on one side: each end alone says .025 of itself."""
    found = p_beyond(Estimate(1.0, 0.5, 3.0, 60, 20), bound, holding)
    assert found == pytest.approx(0.025, abs=1e-12), facing
    # From the other side the same end says how little there is for it.
    other = {"above": "below", "below": "above"}[holding]
    against = p_beyond(Estimate(1.0, 0.5, 3.0, 60, 20), bound, other)
    assert against == pytest.approx(0.975, abs=1e-12), facing


def test_an_interval_of_90_percent_may_be_that_of_95_percent():
    """Of few draws both may end at the same one."""
    effect = Estimate(0.05, 0.01, 0.1, 60, 24)
    found = judge_equivalent(effect, inner=effect, margin=0.3, what="logic")
    assert found.status == "supported"


@pytest.mark.parametrize(
    ("low", "high", "status"),
    [
        (-0.6, -0.25, "refuted"),
        (-0.3, -0.1, "inconclusive"),
        (-0.18, 0.0, "supported"),
        # An end at the margin is not within it, and an interval that begins there not outside.
        (-0.2, 0.1, "inconclusive"),
        (-0.1, 0.2, "inconclusive"),
        (0.2, 0.5, "inconclusive"),
        (-0.5, -0.2, "inconclusive"),
    ],
)
def test_an_effect_may_be_too_large_in_either_direction(low, high, status):
    assert spared(low, high, narrower=0.0).status == status


def test_the_interval_of_90_percent_lies_within_the_other_at_both_ends():
    effect = Estimate(0.0, -0.1, 0.1, 60, 24)
    for low, high in ((-0.11, 0.05), (-0.05, 0.11)):
        inner = Estimate(0.0, low, high, 60, 24)
        with pytest.raises(VerdictError, match="is not an interval of 90 %"):
            judge_equivalent(effect, inner=inner, margin=0.3, what="logic")


def test_the_distance_is_that_of_the_part_that_lacks_most():
    """Of a margin by example and of the effect itself, the nearer to failing."""
    effect, margin = Estimate(0.3, 0.2, 0.4, 60, 24), Estimate(0.05, 0.01, 0.09, 60, 24)
    found = judge_above_floor(effect, floor=0.1, margin=margin, what="it")
    assert found.distance == pytest.approx(0.05)
    found = judge_above_floor(margin, floor=0.01, margin=effect, what="it")
    assert found.distance == pytest.approx(0.05)


def test_a_claim_falls_short_from_one_in_forty_on():
    """p of the refuted side at .025 exactly is that of a whole 95 % interval."""
    base = judge_above_floor(Estimate(0.0, -0.2, 0.2, 60, 24), floor=0.1, what="it")
    for p, short in ((0.025, True), (0.0251, False), (None, False)):
        assert dataclasses.replace(base, p_refuted=p).falls_short is short


def test_small_figures_are_fixed_to_six_digits_and_then_in_powers_of_ten():
    assert figure(0.000123) == "0.000123" and figure(-0.000123) == "-0.000123"
    assert figure(0.0000123) == "1.23e-05"


@pytest.mark.parametrize("negative", ["noise_floor", "share", "absolute"])
def test_no_part_of_a_floor_may_be_negative(negative):
    parts = {"noise_floor": 0.1, "share": 0.05, "absolute": 0.01} | {negative: -0.001}
    with pytest.raises(VerdictError, match="must not be negative"):
        effect_floor(1.0, **parts)


def test_an_interval_may_reach_the_ends_of_its_range():
    for low, high in ((0.0, 0.5), (0.5, 1.0)):
        effect = Estimate(0.5, low, high, 60, 24)
        assert judge_above_floor(effect, floor=0.2, what="it", unit="share").effect == effect


def test_a_floor_turned_into_a_ceiling_keeps_its_noise_and_turns_its_least():
    floor = effect_floor(4.0, Noise(0.002, "cuda"))
    ceiling = -floor
    assert (float(ceiling), ceiling.least) == (-0.2, -ABSOLUTE_FLOOR)
    assert float(ceiling.absolute) == -ABSOLUTE_FLOOR and ceiling.noise == floor.noise
    assert (ceiling.minimum, ceiling.limited, ceiling.where) == (True, False, "cuda")
