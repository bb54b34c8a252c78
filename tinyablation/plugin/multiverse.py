"""The multiverse of a cell: its claim judged again, on other analyses of the same measurements.

The claim's own function is called for each analysis, with the fixtures that it asks for made anew
and a judge that only listens. A fixture declares with `remade` how that is done. A claim that asks
for one which does not, such as `model`, could measure what no analysis touches: it has no
multiverse.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, get_args

import pytest

from tinyablation.records.trust import Multiverse
from tinyablation.verdicts.listener import hear

if TYPE_CHECKING:
    from tinyablation.analysis.alternatives import Analyses, Source
    from tinyablation.analysis.coalitions import Coalitions
    from tinyablation.analysis.effects import Effects
    from tinyablation.analysis.findings import Findings
    from tinyablation.analysis.patching import Patches
    from tinyablation.analysis.path_patching import PathEffects
    from tinyablation.analysis.sweeps import Sweep
    from tinyablation.heads import Head
    from tinyablation.interventions.batteries import AnyBattery
    from tinyablation.interventions.interventions import AblationMethod
    from tinyablation.measurement.bench import Bench
    from tinyablation.verdicts.verdicts import Verdict

_DECLARED = "_tinyablation_remade"
_Function = TypeVar("_Function", bound=Callable[..., Any])
_shared_key = pytest.StashKey[tuple["Bench", tuple[str, ...], "Analyses"]]()


class Remade(NamedTuple):
    """What a fixture is made from anew: measurements by name, and how they are put together."""

    sources: "dict[str, Source]"
    put_together: "Callable[[Mapping[str, Effects]], Any]"


# name and value of the fixture, what was measured of the model, and the claim's named heads
Remaker = Callable[[str, Any, "Findings", "tuple[Head, ...]"], Remade]


class Declared(NamedTuple):
    """What a fixture says of itself. remake: None where it is the same in every analysis; unmade:
    the options that it does not have, and why."""

    remake: Remaker | None
    unmade: Mapping[str, str]


def remade(
    remake: Remaker | None, unmade: Mapping[str, str] | None = None
) -> Callable[[_Function], _Function]:
    """Declare how a fixture is made for another analysis; stands below @pytest.fixture."""

    def declare(function: _Function) -> _Function:
        setattr(function, _DECLARED, Declared(remake, unmade or {}))
        return function

    return declare


same_in_every_analysis = remade(None)


def multiverse_of(item: pytest.Item, verdict: "Verdict") -> Multiverse | None:
    """How the verdict of this cell fares; None where its claim has one analysis only.

    Measures what no claim needs: the other ablation methods of every head, and of the named sets on
    both splits. The tables are shared by all claims of one model and condition, and dropped when
    the session comes to the next.
    """
    # Bound to its instance, where it is a method of a class.
    function: Callable[..., None] = getattr(item, "obj")  # noqa: B009 - not declared
    asked = [name for name in inspect.signature(function).parameters if name != "judge"]
    declared = {name: _declaration(item, name) for name in asked}
    remakers = {name: each.remake for name, each in declared.items() if each and each.remake}
    if not remakers or None in declared.values():
        return None
    from tinyablation.analysis.multiverse import multiverse

    funcargs: Mapping[str, Any] = getattr(item, "funcargs")  # noqa: B009 - not declared
    bench: Bench = funcargs["model"]
    given = {name: funcargs[name] for name in asked if name not in remakers}
    made_again = {
        name: remake(name, funcargs[name], funcargs["findings"], funcargs.get("named", ()))
        for name, remake in sorted(remakers.items())
    }
    sources = {
        name: source for each in made_again.values() for name, source in each.sources.items()
    }
    conditions = tuple(dict.fromkeys(source.own.condition for source in sources.values()))

    def claim(made: "Mapping[str, Effects]") -> "Verdict":
        fixtures = {name: each.put_together(made) for name, each in made_again.items()}
        return hear(function, **given, **fixtures).verdict

    unmade = _unmade(bench)
    for each in declared.values():
        unmade |= each.unmade if each else {}
    return multiverse(
        claim, sources, verdict, _analyses(item.session, bench, conditions), unmade=unmade
    )


def _declaration(item: pytest.Item, fixture: str) -> Declared | None:
    """What a fixture that the test asks for says of itself; None where it says nothing."""
    known = getattr(item, "_fixtureinfo").name2fixturedefs  # noqa: B009 - has no public name
    found: Declared | None = getattr(known[fixture][-1].func, _DECLARED, None)
    return found


def _unmade(bench: "Bench") -> dict[str, str]:
    """The options that nothing measured on this bench has, and why."""
    from tinyablation.measurement.precision import TRUSTED_DTYPE

    if bench.dtype == TRUSTED_DTYPE:
        return {}
    return {"metric rank": f"how far {bench.dtype} arithmetic moves a rank is not measured"}


# --- how fixtures are made again -----------------------------------------------------------------


def heads_again(name: str, own: "Sweep", findings: "Findings", named: "tuple[Head, ...]") -> Remade:
    """A sweep of single heads: its own method as it was measured, the others measured now."""
    return Remade({name: _heads(own, findings)}, itemgetter(name))


def each_sweep_again(
    name: str, own: "list[Sweep]", findings: "Findings", named: "tuple[Head, ...]"
) -> Remade:
    """Sweeps of several conditions."""
    by_condition = {f"sweep of {each.condition}": _heads(each, findings) for each in own}
    return Remade(by_condition, lambda made: [made[source] for source in by_condition])


def methods_again(
    name: str, own: "Sweep", findings: "Findings", named: "tuple[Head, ...]"
) -> Remade:
    """What compares the methods has one: nothing else is measured for it."""
    from tinyablation.analysis.alternatives import Source

    source = Source(own, {own.method: own}, _tolerance(findings), fixed=True)
    return Remade({name: source}, itemgetter(name))


def path_again(
    name: str, own: "PathEffects", findings: "Findings", named: "tuple[Head, ...]"
) -> Remade:
    """Paths, as they were measured."""
    from tinyablation.analysis.alternatives import Source

    return Remade({name: Source.patched(own, _tolerance(findings))}, itemgetter(name))


def subsets_again(
    name: str, own: "Coalitions", findings: "Findings", named: "tuple[Head, ...]"
) -> Remade:
    """All subsets of the named heads, measured for claims on a part of the examples."""
    return Remade({name: _subsets(own, findings, named)}, itemgetter(name))


def every_subsets_again(
    name: str, own: "list[Coalitions]", findings: "Findings", named: "tuple[Head, ...]"
) -> Remade:
    """All subsets of the named heads, under several conditions."""
    by_condition = {f"subsets of {each.condition}": _subsets(each, findings, named) for each in own}
    return Remade(by_condition, lambda made: [made[source] for source in by_condition])


def coalitions_again(
    name: str, own: "Coalitions", findings: "Findings", named: "tuple[Head, ...]"
) -> Remade:
    """All pairs and triples of a layer, on one example of each cluster."""
    from tinyablation.interventions.batteries import ONE_EACH, InEveryMethod
    from tinyablation.interventions.head_sets import HeadSets

    bench = findings.bench
    layer, n_heads = named[0][0], bench.facts.n_heads
    again = tuple(HeadSets(layer, named, n_heads, method, bench.seed) for method in _methods())
    source = _head_sets(own, findings, InEveryMethod(again, ONE_EACH))
    return Remade({name: source}, itemgetter(name))


def zeroed_again(
    name: str, own: "Coalitions", findings: "Findings", named: "tuple[Head, ...]"
) -> Remade:
    """What is zeroed on some examples of both splits: again, on those."""
    from tinyablation.interventions.batteries import InEveryMethod
    from tinyablation.interventions.head_sets import Subsets

    again = InEveryMethod(tuple(Subsets(named, method) for method in _methods()))
    return Remade({name: _head_sets(own, findings, again, of_own=True)}, itemgetter(name))


def patches_again(
    name: str, own: "Patches | None", findings: "Findings", named: "tuple[Head, ...]"
) -> Remade:
    """Both directions of patching; None where a model has no twin.

    What a sham patch may move LD by (SHAM_TOLERANCE) is held against every metric in its own unit:
    a probability moves by a quarter of that at most, and a rank by whole places or not at all.
    """
    from tinyablation.analysis.alternatives import Source
    from tinyablation.analysis.patching import DIRECTIONS

    if own is None:
        return Remade({}, lambda _: None)
    first, second = (f"{name}, {direction}" for direction in DIRECTIONS)
    parts = {
        first: Source.patched(own.denoising, _tolerance(findings)),
        second: Source.patched(own.noising, _tolerance(findings)),
    }

    def put_together(made: "Mapping[str, Effects]") -> "Patches":
        return replace(own, denoising=made[first], noising=made[second], _cache={})

    return Remade(parts, put_together)


def _heads(own: "Sweep", findings: "Findings") -> "Source":
    from tinyablation.analysis.alternatives import Source

    others = findings.effects(own.condition, "other-methods")
    by_method: dict[str, Effects] = {
        method: own if method == own.method else others for method in _methods()
    }
    return Source(own, by_method, _tolerance(findings))


def _subsets(own: "Coalitions", findings: "Findings", named: "tuple[Head, ...]") -> "Source":
    from tinyablation.interventions.batteries import InEveryMethod
    from tinyablation.interventions.head_sets import Subsets

    again = InEveryMethod(tuple(Subsets(named, method) for method in _methods()))
    return _head_sets(own, findings, again)


def _head_sets(
    own: "Coalitions", findings: "Findings", again: "AnyBattery", *, of_own: bool = False
) -> "Source":
    """Head sets measured by all methods. of_own: of the examples that its own table has."""
    from tinyablation.analysis.alternatives import Source, of_examples

    found = findings.effects(own.condition, again)
    if of_own:
        found = of_examples(found, own)
    by_method: dict[str, Effects] = dict.fromkeys(_methods(), found)
    return Source(own, by_method, _tolerance(findings))


def _methods() -> "tuple[AblationMethod, ...]":
    from tinyablation.interventions.interventions import METHODS, AblationMethod

    return tuple(method for method in get_args(AblationMethod) if method in METHODS)


def _tolerance(findings: "Findings") -> float:
    from tinyablation.measurement.precision import TOLERANCES

    return TOLERANCES[findings.bench.dtype]


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
