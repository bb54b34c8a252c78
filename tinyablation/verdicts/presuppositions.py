"""What a claim takes for granted: "the three heads that write the answer" do write it."""

from dataclasses import replace

from tinyablation.verdicts.verdicts import Verdict


def presupposed(verdict: Verdict) -> Verdict:
    """A part of judge_all_of that must hold for its claim to be supported, and refutes nothing.

    Where it fails, what the claim is about is not there, and the claim is inconclusive. It is not
    counted among the parts that a refutation is corrected for.
    """
    failed = verdict.status == "refuted"
    return replace(
        verdict,
        status="inconclusive" if failed else verdict.status,
        p_value=None if failed else verdict.p_value,
        refutes=False,
    )
