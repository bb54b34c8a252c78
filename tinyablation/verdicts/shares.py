"""Verdicts on shares of something that may not be there, such as of a clean LD of 0."""

from collections.abc import Callable

from tinyablation.statistics.ratios import RatioUndefined
from tinyablation.verdicts.verdicts import Verdict, blocked


def of_share(judged: Callable[[], Verdict], what: str) -> Verdict:
    """The verdict that `judged` comes to; blocked, with `what`, where there is no such share."""
    try:
        return judged()
    except RatioUndefined as refusal:
        return blocked(f"{what}: {refusal}")
