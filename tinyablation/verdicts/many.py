"""The verdict on a claim that some of many candidates has an effect."""

from collections.abc import Mapping
from dataclasses import replace

from tinyablation.verdicts.floors import figure
from tinyablation.verdicts.verdicts import Verdict


def of_some(verdict: Verdict, each: Mapping[str, Verdict], *, below: bool = False) -> Verdict:
    """The verdict on a claim that some candidate has an effect beyond a bound.

    verdict: that of the chosen one; each: that of every candidate, by name. Refuted only if every
    one of them falls short; else another one may have what the chosen one lacks. below: the effect
    is beyond the bound if it lies below it.
    """
    distances = [own.distance for own in each.values() if own.distance is not None]
    verdict = replace(verdict, distance=max(distances, default=None))
    left = {name: own for name, own in each.items() if not own.falls_short}
    if verdict.status != "refuted" or not left:
        return verdict
    nearest = max(left, key=lambda name: _end(left[name], below))
    found = left[nearest].effect
    assert found is not None
    return replace(
        verdict,
        status="inconclusive",
        reason=(
            f"{verdict.reason}; but of {len(each)} heads {len(left)} are not excluded: {nearest} "
            f"has the interval [{figure(found.low)}, {figure(found.high)}]"
        ),
        p_value=None,
    )


def _end(verdict: Verdict, below: bool) -> float:
    """The end of the interval that is nearest to what is claimed, larger is nearer."""
    assert verdict.effect is not None
    return -verdict.effect.low if below else verdict.effect.high
