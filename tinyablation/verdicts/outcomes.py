"""What pytest makes of a verdict, for whoever judges a record without running its test.

plugin/judge.py has the tables, and ends a test by them; this is the same as a function of a record.
"""

from tinyablation.records.records import Outcome, Prediction, Verdict

FALLS_SHORT = ("present", "refuted")  # verdicts that a claim does not hold


def outcome_of(
    verdict: Verdict,
    *,
    accepted: Prediction | None,
    prediction: Prediction | None,
    drifted: bool = False,
    screened: bool = False,
    registered: bool = True,
) -> Outcome:
    """The outcome of a judged cell.

    accepted: the verdict in its model's baseline; drifted: whether its figures left that baseline;
    screened: whether it rests on a screened sweep; registered: whether cells of its kind have
    predictions, as those of embedded models do.
    """
    if verdict == "error":
        return "error"
    if verdict == "inconclusive" and screened:
        return "skipped"
    if drifted or accepted not in (None, verdict):
        return "failed"
    if verdict == "blocked":
        return "skipped"
    if accepted is None and prediction is not None and verdict != prediction:
        return "failed"
    if verdict == "inconclusive":
        return "skipped"
    if verdict not in FALLS_SHORT:
        return "passed"
    missing = accepted is None and prediction is None and registered
    return "failed" if missing else "xfailed"
