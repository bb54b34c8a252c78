"""Calibration: labels of their own, scores of scikit-learn, no reward for a change of scale.

Run: pytest tests/analysis/test_calibration.py
"""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, log_loss

from tinyablation.analysis.calibration import (
    BRIER_FLOOR,
    CalibrationError,
    TemperatureUndefined,
    Unbalanced,
    balanced,
    brier,
    calibration_verdict,
    compare,
    ece,
    nll,
    orient,
    oriented,
    probabilities,
    reliability,
    temperature,
)
from tinyablation.corpora.examples import CONFIRMATION, DISCOVERY
from tinyablation.records.records import plain
from tinyablation.statistics.clusters import StatisticsError
from tinyablation.statistics.intervals import generator

PROPERTIES = settings(max_examples=30, deadline=None, derandomize=True, database=None)
N = 160  # examples, in 80 clusters of two: about as many as a tiny corpus holds of one template
STAGES = ("raw", "recalibrated")


def examples(n: int = N) -> dict[str, list]:
    """Target first in half of each split; two examples a cluster, as the corpora are built."""
    return {
        "targets_first": [i % 2 == 0 for i in range(n)],
        "clusters": [f"fact{i // 2}" for i in range(n)],
        "splits": [DISCOVERY if i // 2 % 2 else CONFIRMATION for i in range(n)],
    }


def table(ld, n: int = N) -> pd.DataFrame:
    rows = examples(n)
    first = np.array(rows["targets_first"])
    return pd.DataFrame(
        {
            "logit_diff": ld,
            "target": np.where(first, " false", " true"),
            "foil": np.where(first, " true", " false"),
            "cluster_id": rows["clusters"],
            "split": rows["splits"],
        }
    )


def draws(seed: int, mean: float = 1.0, spread: float = 1.5, n: int = N) -> np.ndarray:
    return mean + spread * generator(seed, "ld").normal(size=n)


# --- labels --------------------------------------------------------------------------------------


def test_the_label_is_which_answer_sorts_first_whatever_the_score():
    for ld in (draws(0), -draws(0), np.zeros(N)):
        assert oriented(table(ld)).labels.tolist() == examples()["targets_first"]
    found = oriented(table(np.full(N, 2.0)))
    assert found.logits[:2].tolist() == [2.0, -2.0]
    assert found.probabilities[:2] == pytest.approx([1 / (1 + np.exp(-2)), 1 / (1 + np.exp(2))])
    assert found.clusters[:3] == ["fact0", "fact0", "fact1"]


def test_a_score_that_prefers_the_target_by_construction_is_no_better_calibrated_for_it():
    # The pitfall: labels made from the score make any confident score look calibrated.
    ld = draws(1, mean=0.0, spread=4.0)
    labels = np.array(examples()["targets_first"])
    own = orient(ld, labels)
    assert nll(own, own > 0).mean() < 0.5 * np.log(2)
    assert nll(own, labels).mean() > 1.2 * np.log(2)


@pytest.mark.parametrize(("yes", "no"), [(50, 50), (55, 45), (1, 0), (2, 1), (3, 4), (45, 55)])
def test_half_and_half_within_the_tolerance_is_balanced(yes, no):
    balanced([True] * yes + [False] * no)


@pytest.mark.parametrize(("yes", "no"), [(56, 44), (44, 56), (2, 0), (0, 4), (6, 4)])
def test_anything_else_is_refused_with_the_counts(yes, no):
    with pytest.raises(Unbalanced, match=f"discovery: {yes} examples .* {no} whose foil"):
        balanced([True] * yes + [False] * no, what="discovery")


def test_unbalanced_splits_are_not_compared():
    rows = examples()
    rows["targets_first"] = [
        first or split == CONFIRMATION
        for first, split in zip(rows["targets_first"], rows["splits"], strict=True)
    ]
    with pytest.raises(Unbalanced, match="confirmation: 80 examples"):
        compare(draws(0), draws(1), **rows)


# --- scores --------------------------------------------------------------------------------------


@PROPERTIES
@given(st.integers(0, 2**32), st.integers(20, 200), st.floats(0.1, 10.0))
def test_brier_and_nll_are_those_of_scikit_learn_and_ece_that_of_its_curve(seed, n, spread):
    rng = generator(seed, "scores")
    logits, labels = spread * rng.normal(size=n), rng.random(n) < 0.5
    if labels.all() or not labels.any():
        labels[0] = not labels[0]
    forecast = probabilities(logits)
    assert brier(logits, labels).mean() == pytest.approx(brier_score_loss(labels, forecast))
    assert nll(logits, labels).mean() == pytest.approx(log_loss(labels, forecast), rel=1e-6)
    curve = reliability(logits, labels)
    share, mean = calibration_curve(labels, forecast, n_bins=15, strategy="uniform")
    assert [point["share"] for point in curve] == pytest.approx(share)
    assert [point["forecast"] for point in curve] == pytest.approx(mean)
    assert sum(point["n"] for point in curve) == n
    gaps = [point["n"] * abs(point["share"] - point["forecast"]) for point in curve]
    assert ece(logits, labels) == pytest.approx(sum(gaps) / n)


def test_a_certain_and_wrong_forecast_has_a_finite_nll():
    assert nll([800.0, -800.0], [False, False]) == pytest.approx([800.0, 0.0])


def test_ece_is_that_of_a_forecast_by_hand():
    logits = np.log([0.9 / 0.1] * 4 + [0.3 / 0.7] * 2)
    labels = [True, True, True, False, False, False]
    assert ece(logits, labels) == pytest.approx((4 * 0.15 + 2 * 0.3) / 6)


# --- temperature ---------------------------------------------------------------------------------


@PROPERTIES
@given(st.integers(0, 2**32), st.floats(0.001, 1000.0))
def test_a_factor_on_the_logits_is_a_factor_on_the_temperature(seed, factor):
    rng = generator(seed, "temperature")
    labels = np.arange(60) % 2 == 0
    logits = orient(1.0 + rng.normal(size=60), labels)
    assert temperature(factor * logits, labels) == pytest.approx(
        factor * temperature(logits, labels), rel=1e-6
    )


def test_the_temperature_is_the_slope_of_a_logistic_regression_on_the_same_soft_labels():
    labels = np.arange(100) % 2 == 0
    logits = orient(draws(3, n=100), labels)
    soft = np.where(labels, 51 / 52, 1 / 52)
    regression = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10)
    regression.fit(
        np.tile(logits, 2)[:, None],
        np.repeat([1, 0], 100),
        sample_weight=np.concatenate([soft, 1 - soft]),
    )
    assert 1 / temperature(logits, labels) == pytest.approx(regression.coef_.item(), rel=1e-5)


def test_calibrated_forecasts_have_a_temperature_of_one_and_sharpened_ones_their_factor():
    rng = generator(0, "calibrated")
    logits = 1.5 * rng.normal(size=20_000)
    labels = rng.random(20_000) < probabilities(logits)
    assert temperature(logits, labels) == pytest.approx(1.0, abs=0.05)
    assert temperature(3 * logits, labels) == pytest.approx(3.0, abs=0.15)


def test_where_every_answer_is_right_the_temperature_is_still_finite():
    labels = np.arange(40) % 2 == 0
    scale = temperature(orient(np.full(40, 3.0), labels), labels)
    # Every forecast then is Platt's label: 21 / 22.
    assert 3.0 / scale == pytest.approx(np.log(21), rel=1e-6)


@pytest.mark.parametrize("ld", [-1.0, 0.0])
def test_answers_no_better_than_a_coin_have_no_temperature(ld):
    labels = np.arange(40) % 2 == 0
    with pytest.raises(TemperatureUndefined, match="no better than a coin"):
        temperature(orient(np.full(40, ld), labels), labels)


# --- comparison ----------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [0.5, 0.8, 1.5, 3.0])
def test_a_change_of_scale_moves_the_raw_scores_and_no_recalibrated_one(factor):
    clean = draws(4)
    found = compare(clean, factor * clean, **examples(), resamples=200)
    for name in ("brier", "nll", "ece"):
        assert found.differences["recalibrated"][name].estimate == pytest.approx(0, abs=1e-6)
        assert abs(found.differences["raw"][name].estimate) > 1e-3
    assert found.ablated.temperature == pytest.approx(factor * found.clean.temperature)
    scaled = table(clean), table(factor * clean)
    verdict = calibration_verdict(*scaled, what="scaling", resamples=200)
    assert verdict.status == "refuted"


def test_an_ablation_that_does_nothing_is_an_exact_zero_and_refuted():
    clean = table(draws(5))
    found = compare(clean["logit_diff"], clean["logit_diff"], **examples(), resamples=200)
    for stage in STAGES:
        for estimate in found.differences[stage].values():
            assert estimate[:3] == (0.0, 0.0, 0.0)
    assert calibration_verdict(clean, clean, what="nothing", resamples=200).status == "refuted"


def better(seed: int = 6) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Clean: a true signal under noise; ablated: the signal alone, nearly."""
    rng = generator(seed, "better")
    signal = 2.0 + 0.5 * rng.normal(size=N)
    return table(signal + 2.5 * rng.normal(size=N)), table(signal + 0.5 * rng.normal(size=N))


def test_less_noise_is_better_calibration_and_more_noise_is_worse():
    clean, ablated = better()
    verdict = calibration_verdict(clean, ablated, what="zeroing 0:2", resamples=300)
    assert verdict.status == "supported"
    assert verdict.effect.low > BRIER_FLOOR == verdict.floor
    assert verdict.unit == "Brier"
    reverse = calibration_verdict(ablated, clean, what="zeroing 0:2", resamples=300)
    assert reverse.status == "refuted"
    assert reverse.effect.high < 0
    assert "improvement of the recalibrated Brier score" in reverse.reason


def test_an_interval_about_the_floor_is_inconclusive():
    clean = draws(8)
    # The same forecasts, passed on to the next cluster: no better on the whole, and no worse.
    ablated = np.roll(clean, 4)
    verdict = calibration_verdict(table(clean), table(ablated), what="rolling", resamples=300)
    assert verdict.effect.low < BRIER_FLOOR < verdict.effect.high
    assert verdict.status == "inconclusive"


def test_the_raw_nll_must_improve_too():
    clean, ablated = better()
    # Better sorted, but a hundredth of the scale: every forecast near one half.
    ablated["logit_diff"] /= 100
    verdict = calibration_verdict(clean, ablated, what="shrinking", resamples=300)
    assert verdict.status != "supported"
    assert verdict.effect.low > BRIER_FLOOR
    assert "improvement of the raw NLL" in verdict.reason


def test_a_side_without_temperature_blocks_the_claim():
    clean, _ = better()
    wrong = clean.assign(logit_diff=-clean["logit_diff"])
    verdict = calibration_verdict(clean, wrong, what="inverting", resamples=200)
    assert verdict.status == "blocked"
    assert "coin" in verdict.reason


def test_the_temperature_is_fitted_on_discovery_and_judged_on_confirmation():
    clean, ablated = better()
    judged = (clean["split"] == CONFIRMATION).to_numpy()
    rows = examples()
    first = compare(clean["logit_diff"], ablated["logit_diff"], **rows, resamples=200)
    moved = clean["logit_diff"].where(~judged, -3.0)
    second = compare(moved, ablated["logit_diff"], **rows, resamples=200)
    assert second.clean.temperature == first.clean.temperature
    own = orient(clean["logit_diff"], rows["targets_first"])[~judged]
    labels = np.array(rows["targets_first"])[~judged]
    assert first.clean.temperature == temperature(own, labels)
    assert len(first.clean.labels) == judged.sum()


def test_the_details_are_plain_and_hold_both_sides():
    clean, ablated = better()
    details = plain(calibration_verdict(clean, ablated, what="x", resamples=200).details)
    json.dumps(details, allow_nan=False)
    for side in ("clean", "ablated"):
        assert details["temperature"][side] > 0
        for stage in STAGES:
            figures = details[side][stage]
            assert set(figures) == {"brier", "nll", "ece", "reliability"}
            assert sum(point["n"] for point in figures["reliability"]) == N // 2
    change = details["difference (ablated - clean)"]["raw"]["brier"]
    assert change[0] == pytest.approx(
        details["ablated"]["raw"]["brier"] - details["clean"]["raw"]["brier"]
    )


def test_tables_of_different_examples_are_refused():
    clean, ablated = better()
    with pytest.raises(CalibrationError, match="differ in 'cluster_id'"):
        calibration_verdict(clean, ablated.assign(cluster_id="other"), what="x")


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        ([], [], "n = 0"),
        ([1.0, np.nan], [True, False], "nan"),
        ([1.0, 2.0], [True], "labels"),
        ([1.0, 2.0], [0.5, 1.0], "true or false"),
    ],
)
def test_what_cannot_be_scored_is_refused(logits, labels, message):
    for score in (brier, nll, ece, reliability, temperature):
        with pytest.raises(StatisticsError, match=message):
            score(logits, labels)


def test_an_example_whose_answers_are_the_same_is_refused():
    rows = table(draws(0)).assign(foil=" true")
    with pytest.raises(CalibrationError, match="row 1: target and foil"):
        oriented(rows)
