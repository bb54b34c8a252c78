"""Dose responses of made-up tables, and the claim S.1 on them.

Run: pytest tests/analysis/test_steering.py
"""

import numpy as np
import pytest

from claims.suppressors import test_steering as s1
from tests.synthetic_effects import N, make_table, noise
from tinyablation.analysis.effects import Effects
from tinyablation.analysis.steering import (
    DoseResponse,
    judge_spared,
)
from tinyablation.interventions.batteries import STEERING_SCALES
from tinyablation.interventions.directions import CONTROLS, OV, SteeringError, control_directions
from tinyablation.interventions.interventions import Steer
from tinyablation.plugin.head_fixtures import Steered
from tinyablation.records.panels import CurvePanel
from tinyablation.statistics.intervals import Estimate
from tinyablation.verdicts.listener import hear
from tinyablation.verdicts.subjects import Subject

NAMED = Subject(suppressor="0:2", source="planted")
CLEAN = 4.0
FLOOR = 0.05 * CLEAN


def response(
    slope=0.0, *, control=0.0, spread=0.02, condition="facts", bend=None, clean=CLEAN
) -> DoseResponse:
    """LD that moves by slope * dose, or by bend(dose); controls by control * dose."""
    moves = bend or (lambda dose: slope * dose)
    changes = {}
    for name in (OV, *CONTROLS):
        own = noise(spread, sum(map(ord, condition + name)))
        for dose in STEERING_SCALES:
            mean = moves(dose) if name == OV else control * dose * (name == CONTROLS[1])
            changes[Steer(0, name, dose).label] = mean + own * dose
    table = make_table(changes, clean_ld=clean, seed=sum(map(ord, condition)))
    return DoseResponse(Effects("made-up", condition, table, 1e-6, runs=(condition,)), 0)


# --- slopes --------------------------------------------------------------------------------------


def test_a_slope_is_that_of_a_straight_line_through_all_doses_and_none():
    found = response(0.5, spread=0.3)
    assert found.scales == (-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0)
    for split in ("discovery", "confirmation"):
        expected = np.polyfit(found.scales, found.by_scale(OV, split), 1)[0]
        assert found.slopes(OV, split) == pytest.approx(expected)
        assert found.slopes(OV, split).shape == (N // 2,)
    assert found.slope().estimate == pytest.approx(0.5, abs=0.01)


def test_the_sign_is_that_of_the_discovery_split():
    found = response(-0.5)
    assert found.sign(OV) == -1.0
    assert found.slope().estimate == pytest.approx(0.5, abs=0.01)
    assert found.slope(signed=False).estimate == pytest.approx(-0.5, abs=0.01)
    # What turns round between the splits has a negative slope, whatever its size.
    table = found.effects.table
    turned = table["logit_diff"].where(
        table["split"] == "discovery", 2 * CLEAN - table["logit_diff"]
    )
    table = table.assign(logit_diff=turned)
    response_of_both = DoseResponse(Effects("made-up", "facts", table, 1e-6), 0)
    assert response_of_both.slope().estimate == pytest.approx(-0.5, abs=0.01)


def test_the_strongest_control_is_chosen_by_size_on_the_discovery_split():
    found = response(0.5, control=-0.3)
    assert found.strongest_control() == CONTROLS[1]
    assert found.lead(CONTROLS[1]).estimate == pytest.approx(0.2, abs=0.02)
    with pytest.raises(SteeringError, match="no control direction"):
        DoseResponse(found.effects, 0, controls=()).strongest_control()


def test_monotony_is_of_the_means_in_the_direction_of_discovery():
    assert response(0.5).monotony() == pytest.approx(1.0)
    assert response(-0.5).monotony() == pytest.approx(1.0)
    assert abs(response(bend=lambda dose: dose**2).monotony()) < 0.6
    assert response(0.0, spread=0.0).monotony() == 0.0


def test_curves_pass_through_nothing_at_dose_zero():
    found = response(0.5)
    curve, levels = found.curve(), found.levels()
    assert [point.estimate for point in curve] == pytest.approx(
        [0.5 * scale for scale in found.scales], abs=0.02
    )
    assert curve[3][:3] == (0.0, 0.0, 0.0)
    clean = found.effects.baseline("confirmation")["logit_diff"].mean()
    assert levels[3].estimate == pytest.approx(clean)


def test_controls_are_as_long_and_reproducible():
    direction = np.array([3.0, 4.0] + [0.0] * 62)
    found = control_directions(direction, 0, "steering made-up 0:2")
    assert tuple(found) == CONTROLS
    for vector in found.values():
        assert np.linalg.norm(vector) == pytest.approx(5.0)
        assert abs(vector @ direction) / 25 < 0.5
    again = control_directions(direction, 0, "steering made-up 0:2")
    other = control_directions(direction, 1, "steering made-up 0:2")
    assert all(np.array_equal(found[name], again[name]) for name in CONTROLS)
    assert not any(np.array_equal(found[name], other[name]) for name in CONTROLS)
    assert len({tuple(vector) for vector in found.values()}) == len(CONTROLS)


@pytest.mark.parametrize("direction", [np.zeros(4), np.full(4, np.nan), np.ones((2, 2))])
def test_what_is_no_direction_has_no_control(direction):
    with pytest.raises(SteeringError, match="has no control"):
        control_directions(direction, 0, "anything")


@pytest.mark.parametrize(
    ("interval", "status"),
    [
        ((-0.1, 0.1), "supported"),
        ((0.1, 0.15), "supported"),
        ((0.25, 0.5), "refuted"),
        ((-0.5, -0.25), "refuted"),
        ((0.1, 0.3), "inconclusive"),
        ((-0.3, 0.3), "inconclusive"),
        ((-0.2, 0.1), "inconclusive"),
    ],
)
def test_spared_is_within_the_floor_either_way(interval, status):
    estimate = Estimate(sum(interval) / 2, *interval, 96, 12)
    assert judge_spared(estimate, floor=0.2, what="slope on logic").status == status


# --- S.1 -----------------------------------------------------------------------------------------


def judged(facts, **others):
    responses = {"facts": facts, **others}
    steered = Steered(responses, (0, 2), 2.5, {"counterfactual": "unknown"}, ("a-run",))
    return hear(s1.test_steering_moves_facts_and_spares_the_rest, steered, NAMED)


def still(condition, slope=0.0, **options):
    return response(slope, condition=condition, **options)


@pytest.mark.parametrize("slope", [0.6, -0.6])
def test_s_1_supported_either_way(slope):
    found = judged(response(slope), negation=still("negation"), logic=still("logic"))
    assert found.verdict.status == "supported"
    assert found.verdict.effect.estimate == pytest.approx(0.6, abs=0.02)
    assert found.given["subject"] == "0:2" and "a-run" in found.given["runs"]
    (panel,) = found.given["panels"]
    assert isinstance(panel, CurvePanel)
    names = [series.name for series in panel.series]
    assert names[:3] == ["facts", "negation", "logic"]
    assert names[3].startswith("facts, random-")
    doses = ["-2", "-1", "-0.5", "0", "0.5", "1", "2"]
    assert list(found.given["details"]["LD by alpha"]) == doses


@pytest.mark.parametrize(
    ("facts", "other", "status"),
    [
        (response(0.0, spread=0.0002), still("logic"), "refuted"),  # facts do not move
        (response(0.0), still("logic"), "inconclusive"),  # who can tell, of so small a slope
        # By .1 %: logic may do as much, within what is known.
        (response(0.004, spread=0.0002), still("logic"), "inconclusive"),
        (response(0.6), still("logic", 0.25), "refuted"),  # more than 5 %
        (response(0.2), still("logic", 0.14), "refuted"),  # 3.5 %, more than half of 5 %
        (response(0.6), still("logic", 0.6), "refuted"),  # logic moves as much
        (response(0.6), still("logic", -0.6), "refuted"),  # the other way
        (response(0.6, control=-0.9), still("logic"), "refuted"),  # a random direction does more
        (response(bend=lambda dose: 0.8 * (dose > 1) * dose - 0.2 * dose), still("logic"), None),
        (response(0.6), still("logic", 0.2, spread=0.2), "inconclusive"),  # who can tell
        (response(0.2, spread=0.2), still("logic"), "inconclusive"),
    ],
)
def test_s_1_refuted_or_open(facts, other, status):
    found = judged(facts, logic=other).verdict
    assert found.status != "supported"
    assert status in (None, found.status)


@pytest.mark.parametrize(
    ("clean", "slope", "status"), [(2.0, 0.15, "refuted"), (8.0, 0.3, "supported")]
)
def test_s_1_holds_every_condition_to_a_share_of_its_own_clean_ld(clean, slope, status):
    """Floors of .1 and .4, where that of facts, .2, would judge either the other way round."""
    other = still("logic", slope, clean=clean)
    assert other.floor(0.05) == pytest.approx(0.05 * clean, rel=0.1)
    assert judged(response(0.6), logic=other).verdict.status == status


def test_s_1_the_published_slope_counts_and_the_published_negation_refutes():
    """Slopes of -.004 logits per unit at a clean LD of 1.43 and 1.41, and tight intervals."""
    facts = response(-0.004, spread=0.0002, clean=1.4251)
    assert facts.moved() == pytest.approx(0.0028, rel=0.1)
    spared = still("negation", 0.0, spread=0.0002, clean=1.4071)
    assert judged(facts, negation=spared).verdict.status == "supported"
    moved = still("negation", -0.004, spread=0.0002, clean=1.4071)
    found = judged(facts, negation=moved).verdict
    assert found.status == "refuted" and "slope on negation" in found.reason


def test_s_1_a_slope_below_half_of_the_published_one_is_present():
    facts = response(0.002, spread=0.0002)  # .05 % of the clean LD
    found = judged(facts, logic=still("logic", spread=0.0001)).verdict
    assert found.status == "present", found.reason


@pytest.mark.parametrize("estimate", [-0.4, -0.1, 0.0, 0.1, 0.4])
def test_the_p_of_spared_goes_with_its_verdict(estimate):
    found = judge_spared(
        Estimate(estimate, estimate - 0.05, estimate + 0.05, 96, 24), floor=0.2, what="a slope"
    )
    inside = abs(estimate) < 0.2
    assert (found.p_value < 0.025) == inside and (found.p_refuted < 0.025) == (not inside)
    assert found.distance == pytest.approx(0.2 - abs(estimate))


def test_s_1_needs_a_dose_response():
    """All of the effect at two doses, and back between them: the slope alone does not see it."""
    zigzag = {-2.0: -1.2, -1.0: 0.4, -0.5: -0.4, 0.5: 0.4, 1.0: -0.4, 2.0: 1.2}
    verdict = judged(response(bend=zigzag.get), logic=still("logic")).verdict
    assert verdict.status == "inconclusive" and "rho of dose" in verdict.reason
    # Without a p it refutes nothing, and the others are not corrected for it.
    for facts, status in (
        (response(bend=zigzag.get), "inconclusive"),
        (response(0.6), "supported"),
    ):
        part = s1._judge_monotone(facts)
        assert part.status == status and not part.refutes and part.p_value is None


def test_s_1_shows_slopes_as_they_are_beside_5_percent_of_each_clean_ld():
    negation = still("negation", 0.05, clean=2.0)
    found = judged(response(-0.6), negation=negation).given["details"]
    facts, other = found["slope, and 5 % of the clean LD"].values()
    assert facts[0] == pytest.approx(-0.6, abs=0.02) and facts[3] == pytest.approx(0.2, rel=0.1)
    assert other[0] == pytest.approx(0.05, abs=0.02) and other[3] == pytest.approx(0.1, rel=0.1)
    assert found["sign on the discovery split"] == -1


def test_s_1_spares_what_moves_by_less_than_half_as_much():
    """Facts move by 5 % of their LD on discovery: another condition may by up to 2.5 % of its."""
    facts = response(0.2, spread=0.002)
    for slope, status in ((0.08, "supported"), (0.12, "refuted")):
        other = still("logic", slope, spread=0.002)
        assert judged(facts, logic=other).verdict.status == status
