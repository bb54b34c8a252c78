"""The multiverse of a cell: its claim judged again, on other analyses of the same measurements.

The claim's own function is called for each analysis, with the fixtures that it asks for made anew
and a judge that only listens. So what is not made of sweeps, head sets, patches and paths alone has
no multiverse here: a claim that asks for `model`, say, could measure what no analysis touches.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tinyablation.records.trust import Multiverse
from tinyablation.verdicts.listener import hear

if TYPE_CHECKING:
    from tinyablation.analysis.alternatives import Analyses, Source
    from tinyablation.analysis.coalitions import Coalitions
    from tinyablation.analysis.effects import Effects
    from tinyablation.analysis.findings import Findings
    from tinyablation.analysis.patching import Patches
    from tinyablation.analysis.sweeps import Sweep
    from tinyablation.heads import Head
    from tinyablation.interventions.batteries import AnyBattery
    from tinyablation.interventions.interventions import AblationMethod
    from tinyablation.measurement.bench import Bench
    from tinyablation.verdicts.verdicts import Verdict

SWEEPS = ("sweep", "corrected_sweep", "binding")
PATCHES = ("patches", "twin_patches")
SETS = ("subsets", "coalitions", "zeroed_trio")
REMADE = frozenset((*SWEEPS, "sweeps", "methods", *SETS, *PATCHES, "paths"))
# The same in every analysis: which heads a claim is about was said beforehand.
GIVEN = frozenset(("subject", "named", "trio"))
_shared_key = pytest.StashKey[tuple["Bench", tuple[str, ...], "Analyses"]]()


class Remade(NamedTuple):
    """What a fixture is made from anew: measurements by name, and how they are put together."""

    sources: "dict[str, Source]"
    put_together: "Callable[[Mapping[str, Effects]], Any]"


def multiverse_of(item: pytest.Item, verdict: "Verdict") -> Multiverse | None:
    """How the verdict of this cell fares; None where its claim has one analysis only.

    Measures what no claim needs: the other ablation methods of every head, and of the named sets on
    both splits. The tables are shared by all claims of one model and condition, and dropped when
    the session comes to the next.
    """
    function: Callable[..., None] = getattr(item, "function")  # noqa: B009 - not declared
    asked = set(inspect.signature(function).parameters)
    if not asked & REMADE or not asked <= REMADE | GIVEN | {"judge"}:
        return None
    from tinyablation.analysis.multiverse import multiverse

    funcargs: Mapping[str, Any] = getattr(item, "funcargs")  # noqa: B009 - not declared
    bench: Bench = funcargs["model"]
    given = {name: funcargs[name] for name in asked & GIVEN}
    remade = {
        name: _remade(name, funcargs[name], funcargs["findings"], funcargs.get("named", ()))
        for name in sorted(asked & REMADE)
    }
    sources = {name: source for each in remade.values() for name, source in each.sources.items()}
    conditions = tuple(dict.fromkeys(source.own.condition for source in sources.values()))

    def claim(made: "Mapping[str, Effects]") -> "Verdict":
        fixtures = {name: each.put_together(made) for name, each in remade.items()}
        return hear(function, **given, **fixtures).verdict

    return multiverse(
        claim,
        sources,
        verdict,
        _analyses(item.session, bench, conditions),
        unmade=_unmade(bench, asked),
    )


def _unmade(bench: "Bench", asked: set[str]) -> dict[str, str]:
    """The options that these fixtures do not have on this bench, and why."""
    from tinyablation.measurement.precision import TRUSTED_DTYPE

    unmade = {}
    if bench.dtype != TRUSTED_DTYPE:
        unmade["metric rank"] = f"how far {bench.dtype} arithmetic moves a rank is not measured"
    if asked & set(PATCHES):
        unmade["metric KL"] = (
            "KL is taken from what the same prompt gives without a patch, so that the clean and the"
            " corrupt one do not differ in it"
        )
    if "zeroed_trio" in asked:
        metrics = ("metric probability", "metric rank", "metric KL")
        unmade |= dict.fromkeys(metrics, "forecasts are made of the logit difference")
    return unmade


def _remade(name: str, own: Any, findings: "Findings", named: "tuple[Head, ...]") -> Remade:
    """What the fixture of that name is made from anew; measured now, unless it was before."""
    from tinyablation.analysis.alternatives import Source
    from tinyablation.measurement.precision import TOLERANCES

    tolerance = TOLERANCES[findings.bench.dtype]
    if name in PATCHES:
        return _patches(name, own, tolerance)
    if name == "sweeps":
        by_condition = {
            f"sweep of {each.condition}": _heads(each, findings, tolerance) for each in own
        }
        return Remade(by_condition, lambda made: [made[source] for source in by_condition])
    if name == "paths":
        source = Source.patched(own, tolerance)
    elif name == "methods":
        source = Source(own, {own.method: own}, tolerance, fixed=True)
    elif name in SWEEPS:
        source = _heads(own, findings, tolerance)
    else:
        source = _head_sets(name, own, findings, named, tolerance)
    return Remade({name: source}, lambda made: made[name])


def _heads(own: "Sweep", findings: "Findings", tolerance: float) -> "Source":
    """Single heads come from the claim's own sweep and from one of the other methods."""
    from tinyablation.analysis.alternatives import Source
    from tinyablation.interventions.interventions import METHODS

    others = findings.effects(own.condition, "other-methods")
    by_method = {method: own if method == own.method else others for method in METHODS}
    return Source(own, by_method, tolerance)


def _head_sets(
    name: str,
    own: "Coalitions",
    findings: "Findings",
    named: "tuple[Head, ...]",
    tolerance: float,
) -> "Source":
    """Head sets, measured for claims on a part of the examples: again, by all methods.

    On both splits; of what is zeroed on some examples of both, those examples.
    """
    from tinyablation.analysis.alternatives import Source, of_examples
    from tinyablation.interventions.batteries import ONE_EACH, InEveryMethod
    from tinyablation.interventions.head_sets import HeadSets, Subsets
    from tinyablation.interventions.interventions import METHODS

    bench = findings.bench

    def sets(method: "AblationMethod") -> "AnyBattery":
        if name == "coalitions":
            return HeadSets(named[0][0], named, bench.facts.n_heads, method, bench.seed)
        return Subsets(named, method)

    every: Any = METHODS
    made = tuple(sets(method) for method in every)
    wanted = InEveryMethod(made, ONE_EACH) if name == "coalitions" else InEveryMethod(made)
    again = findings.effects(own.condition, wanted)
    if name == "zeroed_trio":
        again = of_examples(again, own)
    return Source(own, dict.fromkeys(METHODS, again), tolerance)


def _patches(name: str, own: "Patches | None", tolerance: float) -> Remade:
    """Both directions of patching; None where a model has no twin.

    What a sham patch may move LD by (SHAM_TOLERANCE) is held against every metric in its own unit:
    a probability moves by a quarter of that at most, and a rank by whole places or not at all.
    """
    from tinyablation.analysis.alternatives import Source
    from tinyablation.analysis.patching import DIRECTIONS, Patches

    if own is None:
        return Remade({}, lambda _: None)
    n_layers, n_heads = own.n_layers, own.n_heads
    forward, reverse = (f"{name}, {direction}" for direction in DIRECTIONS)
    parts = {
        forward: Source.patched(own.forward, tolerance),
        reverse: Source.patched(own.reverse, tolerance),
    }
    return Remade(parts, lambda made: Patches(made[forward], made[reverse], n_layers, n_heads))


def _analyses(session: pytest.Session, bench: "Bench", conditions: tuple[str, ...]) -> "Analyses":
    """Those of this model under these conditions; one at a time, for they hold some 100 MB."""
    from tinyablation.analysis.alternatives import Analyses, redrawn_splits

    shared = session.stash.get(_shared_key, None)
    if shared is None or shared[0] is not bench or shared[1] != conditions:
        splits = {}
        for condition in conditions:
            corpus, _ = bench.corpus(condition)
            examples = [corpus.examples[row] for row in bench.rows(condition)]
            splits[condition] = redrawn_splits(examples, bench.seed, condition)
        session.stash[_shared_key] = shared = (bench, conditions, Analyses(splits))
    return shared[2]
