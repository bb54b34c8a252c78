"""Criteria of a verdict: each figure that was compared with a threshold, and whether it met it."""

from typing import Literal

from pydantic import Field

from tinyablation.records.plain import Number, Plain

# On which side of its threshold a figure meets it: an interval "above", "below" or "within" +- it;
# "p": a p of at most the threshold.
Rule = Literal["above", "below", "within", "p"]


class Criterion(Plain):
    """One comparison that a verdict rests on.

    A claim needs all of them, or one of several (V.2: one valid family); its reason says what
    decided, and a verdict over heads that were not all measured may be weaker than they are.

    name: what was measured ("zeroing 0:2"); estimate, low and high: the figure and the interval
    that was compared, in `unit`, or None where the comparison is of a p or has no interval;
    threshold: in the same unit. p: of the comparison, where it has one, and p_test the test that
    made it ("interval", "permutation", "rank").
    """

    name: str
    rule: Rule
    threshold: Number
    met: bool
    estimate: Number | None = None
    low: Number | None = None
    high: Number | None = None
    unit: str = ""
    p: Number | None = Field(default=None, ge=0, le=1)
    p_test: str = ""
