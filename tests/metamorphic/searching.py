"""How long Hypothesis searches, and how two tables are held against each other."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import HealthCheck, settings

from tests.metamorphic.cases import Question
from tinyablation.engine.logit_metrics import FLOAT_FIGURES

FIGURES = (*FLOAT_FIGURES, "seq_logprob_diff", "seq_probability", "seq_kl_mean")
# fp32 sums in another order, in logits of some units: 2e-6 was the most, 1e-4 is promised.
ROUNDING = 1e-4
EVERYDAY = 100  # max_examples of the everyday profile: Hypothesis's own


def rounds(number: int) -> settings:
    """So many examples every day, and as many times more as the profile has.

    Hypothesis calls a strategy slow by the clock, and on a busy core anything is.
    """
    return settings(
        max_examples=max(1, number * settings().max_examples // EVERYDAY),
        suppress_health_check=[HealthCheck.too_slow],
    )


def assert_same_rows(
    law: str,
    questions: Sequence[Question],
    found: Any,
    expected: Any,
    *,
    within: float = ROUNDING,
    besides: Sequence[str] = (),
) -> None:
    """Two tables, row by row: figures equal within that much; 0.0 means to the last bit.

    questions: those of the rows of `expected`, by its column `example`. besides: figures that need
    not agree. A rank may differ by one where figures may: the logits of two tokens can be nearer
    than rounding (one row in some 10^4 among 300 tokens).
    """
    __tracebackhide__ = True
    assert len(found) == len(expected), f"{law}: {len(found)} rows, where {len(expected)} are due"
    for name in (*FIGURES, "argmax", "target_rank"):
        if name in besides:
            continue
        allowed = {"argmax": 0.0, "target_rank": 1.0 if within else 0.0}.get(name, within)
        have, due = (np.asarray(table[name], dtype=float) for table in (found, expected))
        off = np.abs(have - due)
        if not (off <= allowed).all():
            worst = int(off.argmax())
            row = expected.iloc[worst]
            raise AssertionError(
                f"{law}: under {row['intervention']}, {name} is {have[worst]:.9g} where "
                f"{due[worst]:.9g} is due ({allowed:g} apart is allowed), for the prompt\n"
                f"  {questions[int(row['example'])]!r}"
            )
