"""GT: years that come after another (Hanna et al. 2023, arXiv:2305.00586), posed of any model."""

import pytest

from tinyablation.analysis.coalitions import set_name

HEADS = 5


@pytest.mark.claim("GT.1", conditions="greater_than")
def test_a_few_heads_carry_the_comparison(direct_effects, condition, knockout, judge):
    """A few heads carry the comparison of years: without them most of the preference is lost.

    Estimator: share of LD (a later year against an earlier one) that is lost without the five heads
      that write most of it on discovery, on confirmation.
    Threshold: the 95 % interval over clusters lies above .5.
    Refuted if: the interval lies below that.
    Audit: planted control, selection correction
    """
    heads = direct_effects.chosen(HEADS)
    without = knockout(condition, heads)
    judge(
        without.destroys(heads),
        subject=set_name(heads),
        runs=[*direct_effects.runs, *without.runs],
    )
