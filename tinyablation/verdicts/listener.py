"""What a claim comes to where no session judges it: called with a judge that only listens.

For judging a claim again on other fixtures than a session's: other analyses of the same
measurements, models whose truth is known, made-up tables.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from tinyablation.errors import TinyAblationError

if TYPE_CHECKING:
    from tinyablation.verdicts.verdicts import Verdict


class JudgingError(TinyAblationError):
    """A claim did not use `judge` as it must: exactly once."""


class Heard(NamedTuple):
    """A claim's verdict, and what else it gave its judge (subject, details, runs, panels, ...)."""

    verdict: Verdict
    given: dict[str, Any]


def hear(claim: Callable[..., None], *fixtures: Any, **named: Any) -> Heard:
    """Call a claim's own function with these fixtures and a listening judge, which ends nothing."""
    calls: list[Heard] = []

    def judge(verdict: Verdict, **given: Any) -> None:
        calls.append(Heard(verdict, given))

    claim(*fixtures, judge=judge, **named)
    if len(calls) != 1:
        raise JudgingError(f"{claim.__name__} called judge {len(calls)} times: it must once")
    return calls[0]
