"""False discovery rate over all tests of a session.

A verdict controls its own errors (corrected over the heads of its sweep), not those of the session:
of a thousand claims some are supported by chance. So every test with a p enters one ledger,
regardless of its verdict, and a discovery is a test that remains significant there. More claims
make that harder, never easier.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tinyablation.records.trust import Multiplicity
from tinyablation.verdicts.floors import VerdictError
from tinyablation.verdicts.verdicts import ALPHA

if TYPE_CHECKING:
    from tinyablation.records.records import Record


def adjust(p_values: Sequence[float]) -> list[float]:
    """p values adjusted for the false discovery rate under any dependence, in the order given.

    The step-up procedure of Benjamini and Yekutieli (2001): rejecting all with adjusted p <= alpha
    keeps the expected share of false discoveries at or below alpha under any dependence between
    tests, such as between cells of one model. Raises VerdictError for a p outside 0 to 1.
    """
    import numpy as np

    wrong = [p for p in p_values if not 0 <= p <= 1]
    if wrong:
        raise VerdictError(f"p is {wrong[0]}; it must lie between 0 and 1")
    if not len(p_values):
        return []
    order = np.argsort(p_values)
    rank = np.arange(1, len(order) + 1)
    scaled = np.asarray(p_values, dtype=np.float64)[order] * len(order) / rank * (1 / rank).sum()
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum.accumulate(scaled[::-1])[::-1].clip(0, 1)
    return [float(p) for p in adjusted]


def multiplicity(
    records: Sequence["Record"], alpha: float = ALPHA
) -> tuple[Multiplicity | None, dict[str, float]]:
    """The ledger of a session, and test id -> adjusted p; None if no test has a p.

    Supported cells without a p (a ratio that is constant, a reading of weights) are neither
    discoveries nor lost, because they are not tests.
    """
    tested = [record for record in records if record.p_value is not None]
    if not tested:
        return None, {}
    adjusted = adjust([record.p_value for record in tested if record.p_value is not None])
    by_test = {record.test: p for record, p in zip(tested, adjusted, strict=True)}
    supported = [record for record in tested if record.verdict == "supported"]
    found = [record for record in supported if by_test[record.test] <= alpha]
    return (
        Multiplicity(
            alpha=alpha,
            n=len(tested),
            supported=len(supported),
            discoveries=len(found),
            lost=len(supported) - len(found),
            largest_p=max((r.p_value for r in found if r.p_value is not None), default=None),
        ),
        by_test,
    )
