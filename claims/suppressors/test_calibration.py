"""K: whether a model's forecasts are better without the heads that are said to hedge.

A forecast is that of whichever answer sorts first, and its label comes from the corpus, never from
the score. Each side has a temperature of its own, fitted on the discovery split; all figures are of
the confirmation split.
"""

import pytest

from tinyablation.analysis.calibration import BRIER_FLOOR, Unbalanced, calibration_verdict
from tinyablation.analysis.coalitions import set_name
from tinyablation.records.panels import CurvePanel, Series
from tinyablation.verdicts.floors import figure
from tinyablation.verdicts.verdicts import blocked


@pytest.mark.claim("K.1")
def test_zeroing_the_trio_improves_calibration(zeroed_trio, trio, judge):
    """Zero-ablating the three named heads improves forecasts, more than a change of scale would.

    Estimator: clean - ablated of the Brier score and of the negative log-likelihood of the
      recalibrated forecasts, and of the latter of the raw ones; paired by example, temperatures
      held fixed. Both scores reward calibration and accuracy together; the record has the ECE.
    Threshold: the 95 % intervals over fact clusters lie above .005 for the Brier score and above 0
      for the other two. Blocked where the clean recalibrated Brier score is no more than .005, so
      that no improvement could count, and where no temperature can be fitted.
    Refuted if: one of the intervals lies below its threshold.
    """
    verdict = _calibration(zeroed_trio, trio, f"zero-ablating {set_name(trio)}")
    sides = {side: verdict.details[side] for side in ("clean", "ablated") if verdict.details}
    judge(
        verdict,
        subject=set_name(trio),
        details={
            name: {side: stages["raw"][name.lower()] for side, stages in sides.items()}
            for name in ("ECE", "Brier", "NLL")
            if sides
        },
        panels=[_reliability(sides)] if sides else [],
        runs=zeroed_trio.runs,
    )


def _calibration(zeroed, trio, what):
    clean, ablated = zeroed.baseline(), zeroed.rows(trio)
    try:
        verdict = calibration_verdict(clean, ablated, what=what, seed=zeroed.seed)
    except Unbalanced as refusal:
        return blocked(f"{what}: {refusal}")
    if verdict.status == "blocked":
        return verdict
    room = verdict.details["clean"]["recalibrated"]["brier"]
    if room <= BRIER_FLOOR:
        return blocked(
            f"{what}: no room: the clean recalibrated Brier score is {figure(room)}, and an "
            f"improvement counts above {figure(BRIER_FLOOR)}",
            details=verdict.details,
        )
    return verdict


def _reliability(sides):
    return CurvePanel(
        title="Reliability of the recalibrated forecasts",
        x="mean forecast that the first answer is right",
        y="share of examples where it is",
        diagonal=True,
        series=[
            Series(
                name=side,
                x=[point["forecast"] for point in stages["recalibrated"]["reliability"]],
                y=[point["share"] for point in stages["recalibrated"]["reliability"]],
                n=[point["n"] for point in stages["recalibrated"]["reliability"]],
            )
            for side, stages in sides.items()
        ],
    )
