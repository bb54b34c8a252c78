"""From a verdict to a pytest outcome: what decides it, and what it comes to.

Two things are known of a cell beforehand, and they are kept apart:

    registered  the prediction (predictions.toml): written before the measurement and never
                edited. What came true of it is a score (sessions/foresight.py), not an outcome.
    regression  the verdict last accepted, in the model's baseline (plugin/snapshots.py). It decides
                the outcome, so a session passes if no verdict and no figure moved:

    accepted       supported   present   refuted   inconclusive   blocked
    supported      passed      failed    failed    failed         failed
    present        failed      xfailed   failed    failed         failed
    refuted        failed      failed    xfailed   failed         failed
    inconclusive   failed      failed    failed    skipped        failed
    blocked        failed      failed    failed    failed         skipped

(columns: the verdict.) While nothing is accepted for a cell, its prediction decides, so that a miss
is seen when the cell is measured first:

    prediction     supported   present   refuted   inconclusive   blocked
    none           passed      failed    failed    skipped        skipped
    supported      passed      failed    failed    failed         skipped
    present        failed      xfailed   failed    failed         skipped
    refuted        failed      failed    xfailed   failed         skipped
    inconclusive   failed      failed    failed    skipped        skipped
    blocked        failed      failed    failed    failed         skipped

Of a model that is not embedded (plugin/session_models.py), and of a condition of one's own
(plugin/conditions.py), nobody knows beforehand: where nothing is registered, the row is passed,
xfailed, xfailed, skipped, skipped. It is also the row of `--protocol published`, about which
nothing is registered or accepted. What is inconclusive on a screened sweep is skipped: what is
registered and accepted is about sweeps of every head (plugin/screening_option.py).

A test ends by this (plugin/judge.py), and a bundle's records are held to it (evidence/).
"""

from collections.abc import Mapping
from typing import Literal

from tinyablation.records.records import Outcome, Prediction, Verdict

# What decides: another verdict than the one accepted; figures that left the baseline; another
# verdict than was predicted; a claim that does not hold, of which nothing was predicted though
# cells of its kind have predictions; what could not be judged; the verdict itself.
Ground = Literal[
    "changed", "drifted", "missed", "unpredicted", "blocked", "inconclusive", "short", "holds"
]
OUTCOMES: Mapping[Ground, Outcome] = {
    **dict.fromkeys(("changed", "drifted", "missed", "unpredicted"), "failed"),
    **dict.fromkeys(("blocked", "inconclusive"), "skipped"),
    "short": "xfailed",
    "holds": "passed",
}
FALLS_SHORT = ("present", "refuted")  # verdicts that a claim does not hold


def ground_of(
    verdict: Prediction,
    *,
    accepted: Prediction | None,
    prediction: Prediction | None,
    drifted: bool = False,
    screened: bool = False,
    registered: bool = True,
) -> Ground:
    """What decides the outcome of a judged cell.

    accepted: the verdict in its model's baseline; drifted: whether its figures left that baseline;
    screened: whether it rests on a screened sweep; registered: whether cells of its kind have
    predictions, as those of embedded models do.
    """
    if verdict == "inconclusive" and screened:
        return "inconclusive"
    if accepted not in (None, verdict):
        return "changed"
    if drifted:
        return "drifted"
    if verdict == "blocked":
        return "blocked"
    if accepted is None and prediction not in (None, verdict):
        return "missed"
    if verdict == "inconclusive":
        return "inconclusive"
    if verdict not in FALLS_SHORT:
        return "holds"
    return "unpredicted" if accepted is None and prediction is None and registered else "short"


def outcome_of(
    verdict: Verdict,
    *,
    accepted: Prediction | None,
    prediction: Prediction | None,
    drifted: bool = False,
    screened: bool = False,
    registered: bool = True,
) -> Outcome:
    """The outcome of a cell, judged or not; arguments as of ground_of."""
    if verdict == "error":
        return "error"
    ground = ground_of(
        verdict,
        accepted=accepted,
        prediction=prediction,
        drifted=drifted,
        screened=screened,
        registered=registered,
    )
    return OUTCOMES[ground]
