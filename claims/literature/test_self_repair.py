"""REP: self-repair (Rushing and Nanda 2024, arXiv:2402.15390), posed of any model.

direct: what LD loses if a head's output is taken out of the final stream, the norm's scale frozen;
recomputed: the same with the norm of what is left; total: what it loses if the head is zero-ablated
and all that follows is run again. Repair is 1 - total / direct.
"""

import pytest

from tinyablation.heads import head_name
from tinyablation.verdicts.shares import of_share
from tinyablation.verdicts.verdicts import judge_above_floor, judge_below_ceiling

LITTLE = 0.3  # "up to 30 %"


@pytest.mark.claim("REP.1", conditions=["facts", "ioi"])
def test_later_layers_repair_what_a_head_leaves_out(direct_effects, judge):
    """What the leading head writes is at least partly made up for if it is zero-ablated.

    Estimator: 1 - total / direct of the head that writes most of LD on discovery, a ratio of means
      on confirmation.
    Threshold: the 95 % interval over clusters lies above 0. Blocked where what the head writes is
      not told from 0.
    Refuted if: the interval lies below that.
    Audit: planted control, selection correction
    """
    (head,) = direct_effects.chosen(1)
    what = f"repair of {head_name(head)}"
    verdict = of_share(
        lambda: judge_above_floor(direct_effects.repair(head), floor=0.0, what=what, unit=""), what
    )
    judge(
        verdict,
        subject=head_name(head),
        details={"contribution": list(direct_effects.mean(head)[:3])},
        runs=direct_effects.runs,
    )


@pytest.mark.claim("REP.2", conditions=["facts", "ioi"])
def test_the_final_norm_repairs_little(direct_effects, judge):
    """The final norm alone makes up for less than 30 % of what the leading head writes.

    Estimator: 1 - recomputed / direct of the head of REP.1, a ratio of means on confirmation.
    Threshold: the 95 % interval over clusters lies below .3. Blocked as REP.1.
    Refuted if: the interval lies above that.
    Audit: planted control, selection correction
    """
    (head,) = direct_effects.chosen(1)
    what = f"the final norm's repair of {head_name(head)}"
    verdict = of_share(
        lambda: judge_below_ceiling(
            direct_effects.norm_repair(head), ceiling=LITTLE, what=what, unit=""
        ),
        what,
    )
    judge(verdict, subject=head_name(head), runs=direct_effects.runs)
