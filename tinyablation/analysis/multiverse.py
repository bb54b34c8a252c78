"""A verdict's multiverse: the claim judged again by every defensible analysis of its tables.

Steegen, Tuerlinckx, Gelman and Vanpaemel (2016) call the set of all defensible analyses the
multiverse: a verdict that holds in most of them does not depend on one arbitrary choice.
alternatives.py makes the tables; here the claim's own function judges each.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import NamedTuple

from tinyablation.analysis.alternatives import (
    ALL,
    FACTORS,
    LD,
    METRICS,
    PATCHED,
    REGISTERED,
    Analyses,
    Analysis,
    MultiverseError,
    Source,
    TooFewClusters,
    family,
)
from tinyablation.analysis.effects import Effects, EffectsError
from tinyablation.errors import TinyAblationError
from tinyablation.interventions.interventions import METHODS
from tinyablation.records.trust import Multiverse
from tinyablation.statistics.intervals import DegenerateInterval, StatisticUndefined
from tinyablation.statistics.ratios import RatioUndefined
from tinyablation.verdicts.verdicts import Verdict

# Below this share of agreeing analyses a verdict is fragile: most of the defensible analyses
# disagree, so the verdict depends on the registered one. Set before any multiverse was computed.
LEAST_SHARE = 0.5
Claim = Callable[[Mapping[str, Effects]], Verdict]

# Errors that are counted, with what they mean for an analysis; subclasses first.
_REFUSALS: tuple[tuple[type[TinyAblationError], str], ...] = (
    (TooFewClusters, "too few clusters"),
    (RatioUndefined, "no effect to take a share of"),
    (DegenerateInterval, "no spread"),
    (StatisticUndefined, "no figure on some resamples"),
    (EffectsError, "not measured"),
)
_BLOCKED = "blocked"


class Choices(NamedTuple):
    """The options of each factor, and why other options are left out."""

    options: dict[str, tuple[str, ...]]
    not_made: dict[str, str]


def choices(
    sources: Mapping[str, Source],
    redrawn: Sequence[str],
    *,
    uses_metric: bool = True,
    unmade: Mapping[str, str] | None = None,
) -> Choices:
    """The options for a claim that rests on these sources.

    redrawn: the names of the redrawn splits. unmade: option ("metric rank") -> why it is left out.
    """
    not_made: dict[str, str] = {}
    varied = [source for source in sources.values() if not source.fixed] or [*sources.values()]
    methods = [method for method in METHODS if all(method in s.by_method for s in varied)]
    for method in methods[:]:
        equal = {source.doubles.get(method) for source in varied}
        if len(equal) == 1 and None not in equal:
            (other,) = equal
            methods.remove(method)
            not_made[f"method {method}"] = f"the same as {other} in this model, and counted once"
    if all(source.fixed for source in sources.values()):
        methods = [varied[0].method]
        not_made["method"] = (
            "the claim is about what passes through patches, not about ways to ablate"
            if methods == [PATCHED]
            else "the claim looks at all methods side by side"
        )
    metrics = list(METRICS)
    if not uses_metric:
        metrics = [LD]
        not_made["metric"] = "the claim is about a figure of its own, not about LD"
    found = [sorted(set(s.own.table["template_id"].map(family))) for s in varied]
    families = [name for name in found[0] if name and all(name in other for other in found)]
    if len(families) < 2:
        families = []
        not_made["template"] = (
            "the prompts have one wording only"
            if all(len(names) < 2 for names in found)
            else "the conditions have no two wordings in common"
        )
    options = {
        "method": methods,
        "metric": metrics,
        "template": [ALL, *families],
        "split": [REGISTERED, *redrawn],
    }
    for factor, names in options.items():
        for name in names[:]:
            reason = (unmade or {}).get(f"{factor} {name}")
            if reason is not None:
                names.remove(name)
                not_made[f"{factor} {name}"] = reason
    return Choices({factor: tuple(names) for factor, names in options.items()}, not_made)


def multiverse(
    claim: Claim,
    sources: Mapping[str, Source],
    verdict: Verdict,
    analyses: Analyses,
    *,
    unmade: Mapping[str, str] | None = None,
) -> Multiverse:
    """The claim judged by every analysis, and how many reach the status of `verdict`.

    claim: judges measurements by name; sources: what each is made from; verdict: that of the
    registered analysis. An analysis that cannot be made is counted in `not_made` by its reason:
    the claim raises an error or is blocked, which is neither agreement nor disagreement.

    Raises MultiverseError if the claim, judged again on its own fixtures, reaches another verdict,
    or if a source holds other measurements than those fixtures.
    """
    registered = _registered(sources)
    own = {name: source.own for name, source in sources.items()}
    _require_same_verdict(claim(own), verdict, registered)
    for name, source in sources.items():
        source.require_same(name)
    uses_metric = _uses_metric(claim, own, verdict)
    options, not_made = choices(sources, analyses.redrawn, uses_metric=uses_metric, unmade=unmade)
    every = [Analysis(*chosen) for chosen in product(*(options[factor] for factor in FACTORS))]
    if registered not in every:
        raise MultiverseError(
            f"the registered analysis ({registered.name}) is none of the {len(every)}"
        )
    statuses: dict[Analysis, str] = {}
    refused: dict[str, list[tuple[Analysis, str]]] = {}
    for analysis in every:
        try:
            found = (
                verdict
                if analysis == registered
                else claim({n: analyses.of(n, s, analysis) for n, s in sources.items()})
            )
        except tuple(kind for kind, _ in _REFUSALS) as refusal:
            why = next(words for kind, words in _REFUSALS if isinstance(refusal, kind))
            refused.setdefault(why, []).append((analysis, str(refusal)))
            continue
        if found.status == _BLOCKED:
            refused.setdefault(_BLOCKED, []).append((analysis, found.reason))
        else:
            statuses[analysis] = found.status
    for why, which in refused.items():
        first, message = which[0]
        not_made[why] = f"{len(which)} of {len(every)} analyses, such as {first.name}: {message}"
    return summarised(statuses, verdict.status, not_made)


def summarised(
    statuses: Mapping[Analysis, str], registered: str, not_made: Mapping[str, str]
) -> Multiverse:
    """How many of the analyses reach the registered status, in total and by option."""
    by_choice: dict[str, dict[str, tuple[int, int]]] = {factor: {} for factor in FACTORS}
    for analysis, status in statuses.items():
        for factor, option in zip(FACTORS, analysis, strict=True):
            agreed, made = by_choice[factor].get(option, (0, 0))
            by_choice[factor][option] = (agreed + (status == registered), made + 1)
    return Multiverse(
        n=len(statuses),
        agreed=sum(status == registered for status in statuses.values()),
        least_share=LEAST_SHARE,
        verdicts=dict(sorted(Counter(statuses.values()).items())),
        by_choice=by_choice,
        not_made=dict(not_made),
    )


def _registered(sources: Mapping[str, Source]) -> Analysis:
    methods = {source.method for source in sources.values()}
    if len(methods) != 1:
        raise MultiverseError(
            f"a claim needs tables of one ablation method, these have {sorted(methods) or 'none'}"
        )
    (method,) = methods
    return Analysis(method, LD, ALL, REGISTERED)


def _figures(verdict: Verdict) -> tuple[object, ...]:
    return verdict.status, verdict.effect, verdict.floor, verdict.p_corrected


def _require_same_verdict(again: Verdict, verdict: Verdict, registered: Analysis) -> None:
    if _figures(again) != _figures(verdict):
        raise MultiverseError(
            f"the registered analysis ({registered.name}) as redone is {again.status} "
            f"({again.reason}), and the verdict is {verdict.status} ({verdict.reason}): the claim "
            "rests on more than the fixtures it was given"
        )


def _uses_metric(claim: Claim, own: Mapping[str, Effects], verdict: Verdict) -> bool:
    """Whether the claim is judged by LD: its figures change if LD is removed."""
    blank = {name: _without_ld(effects) for name, effects in own.items()}
    try:
        return _figures(claim(blank)) != _figures(verdict)
    except TinyAblationError:
        return True  # it cannot be judged without LD


def _without_ld(effects: Effects) -> Effects:
    return replace(effects, table=effects.table.assign(logit_diff=0.0), _cache={})
