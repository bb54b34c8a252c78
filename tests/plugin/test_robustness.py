"""When verdicts are examined, and that an examination is kept for the figures it is of.

Run: pytest tests/plugin/test_robustness.py
"""

import inspect
from dataclasses import replace
from types import SimpleNamespace

import pandas
import pytest

from tests.synthetic_effects import TRIO, make_coalitions, make_patches, make_paths
from tests.synthetic_sweeps import make_sweep
from tinyablation.interventions.interventions import METHODS, PatchResidual
from tinyablation.plugin import (
    benches,
    derived_fixtures,
    measurement_fixtures,
    robustness,
    subjects,
)
from tinyablation.plugin import multiverse as cells
from tinyablation.records.trust import Boundary, Multiverse
from tinyablation.verdicts.listener import hear
from tinyablation.verdicts.verdicts import judge_above_floor, judge_all_of

FOUND = Multiverse(n=4, agreed=1, least_share=0.5, verdicts={"supported": 1}, by_choice={})
EDGE = Boundary(rule="fails where it does not hold", grammar=9, searched=9, failed=0, found=[])
RECORD = {
    "claim": "H1.1",
    "name": "test_it_holds",
    "test": "claims/test_h1.py::test_it_holds[tiny-gpt2-facts]",
    "model": "tiny-gpt2",
    "condition": "facts",
    "verdict": "supported",
    "subject": "0:7",
    "effect": 1.0,
    "low": 0.8,
    "high": 1.2,
    "floor": 0.2,
    "p_corrected": 0.001,
    "runs": ["a-run"],
}


@pytest.fixture
def examined(tmp_path, monkeypatch):
    """Examine a cell; `made` counts how often something was measured for it."""
    made = []
    monkeypatch.setattr(robustness, "reports_base", lambda _: tmp_path)
    monkeypatch.setattr(robustness, "multiverse_of", lambda *_: made.append("multiverse") or FOUND)
    monkeypatch.setattr(robustness, "boundary_of", lambda *_: made.append("boundary") or EDGE)

    def examine(asked, protocol="corrected", **changes):
        option = SimpleNamespace(robustness=asked, protocol=protocol)
        item = SimpleNamespace(config=SimpleNamespace(option=option))
        return robustness.examine(item, None, RECORD | changes)

    examine.made = made
    examine.folder = tmp_path / "robustness"
    return examine


def test_a_verdict_is_examined_when_asked_for_and_shown_ever_after(examined):
    assert examined(False) == {} and not examined.made
    both = {"multiverse": FOUND, "boundary": EDGE}
    assert examined(True) == both and examined.made == ["multiverse", "boundary"]
    assert examined(False) == both and examined(True) == both
    assert examined.made == ["multiverse", "boundary"], "and not measured again"


@pytest.mark.parametrize(
    "changes", [{"effect": 1.01}, {"runs": ["other-run"]}, {"verdict": "refuted"}, {"floor": 0.3}]
)
def test_of_other_figures_it_is_examined_anew(examined, changes):
    examined(True)
    assert examined(False, **changes) == {}
    examined(True, **changes)
    assert len(examined.made) == 4 and len(list(examined.folder.iterdir())) == 2


def test_what_is_not_judged_is_not_examined(examined):
    for verdict in ("blocked", "error"):
        assert examined(True, verdict=verdict) == {}
    assert examined(True, protocol="published") == {} and not examined.made


@pytest.mark.parametrize("text", ["", '{"multiverse": 3}', '{"other": null}'])
def test_what_cannot_be_read_is_made_again(examined, text):
    examined(True)
    (path,) = examined.folder.iterdir()
    path.write_text(text)
    assert examined(False) == {}
    assert examined(True)["multiverse"] == FOUND and len(examined.made) == 4
    assert len(list(examined.folder.iterdir())) == 1


# --- which cells have a multiverse ---------------------------------------------------------------

HEAD = (0, 1)


class Bench:
    """One that has measured everything already, and what is found of it."""

    dtype = "float32"
    seed = 0
    facts = SimpleNamespace(n_heads=4)

    def __init__(self, own):
        self.bench = self
        self.own, self.asked = own, []
        rows = own.table[own.table["method"] == "none"]
        names = ("cluster_id", "fact_id", "clean", "template_id")
        self.examples = [
            SimpleNamespace(**dict(zip(names, row, strict=True)))
            for row in rows[list(names)].itertuples(index=False)
        ]

    def effects(self, condition, wanted):
        self.asked.append(getattr(wanted, "name", wanted))
        return self.own

    def corpus(self, condition):
        return SimpleNamespace(examples=self.examples), None

    def rows(self, condition):
        return range(len(self.examples))


def about_a_sweep(sweep, judge):
    judge(judge_above_floor(sweep.effect(HEAD), floor=sweep.floor(), what="it"), details={"k": 1})


def about_binding(binding, judge):
    judge(judge_above_floor(binding.effect(HEAD), floor=binding.floor(), what="it"))


def about_named_heads(subsets, trio, judge):
    judge(judge_above_floor(subsets.effect(trio), floor=subsets.floor(), what="they"))


def about_the_model(model, sweep, judge):
    raise AssertionError("judged again, although it asks for more than tables")


def about_nothing_measured(subject, judge):
    raise AssertionError("judged again, although there is nothing to remake")


def cell(function, bench, **given):
    session = SimpleNamespace(stash=pytest.Stash())
    funcargs = {"model": bench, "findings": bench, "condition": "facts", **given}
    fixtures = {
        name: [SimpleNamespace(func=getattr(module, name).__wrapped__)]
        for module in (measurement_fixtures, derived_fixtures, subjects, benches)
        for name in inspect.signature(function).parameters
        if hasattr(module, name)
    }
    return SimpleNamespace(
        obj=function,
        funcargs=funcargs,
        session=session,
        _fixtureinfo=SimpleNamespace(name2fixturedefs=fixtures),
    )


def verdict_of(function, **given):
    return hear(function, **given).verdict


def test_the_claims_own_function_judges_every_analysis():
    own = make_sweep({HEAD: 1.0}, n_clusters=32)
    bench = Bench(own)
    found = cells.multiverse_of(
        cell(about_a_sweep, bench, sweep=own), verdict_of(about_a_sweep, sweep=own)
    )
    assert bench.asked == ["other-methods"]
    # All four methods are one in these tables; rank, KL and probability never move in them.
    assert found.by_choice["metric"]["LD"] == (3, 3)
    assert set(found.not_made) >= {f"method {method}" for method in METHODS[1:]}


def test_a_claim_in_a_class_is_judged_by_every_analysis():
    own = make_sweep({HEAD: 1.0}, n_clusters=32)

    class Claims:
        def about(self, sweep, judge):
            about_a_sweep(sweep, judge)

    method = Claims().about
    found = cells.multiverse_of(
        cell(method, Bench(own), sweep=own), verdict_of(about_a_sweep, sweep=own)
    )
    assert found.by_choice["metric"]["LD"] == (3, 3)


def test_a_sweep_of_another_corpus_is_measured_again_on_that_corpus():
    own = make_sweep({HEAD: 1.0}, n_clusters=32, condition="binding")
    bench, given = Bench(own), {"binding": own}
    asked = []
    bench.effects = lambda condition, wanted: asked.append((condition, wanted)) or own
    item = cell(about_binding, bench, **given)
    del item.funcargs["condition"]
    found = cells.multiverse_of(item, verdict_of(about_binding, **given))
    assert asked == [("binding", "other-methods")]
    assert found.by_choice["metric"]["LD"] == (3, 3)


def test_head_sets_are_measured_again_by_every_method():
    own = make_coalitions({TRIO[0]: 1.0})
    zeroed = own.table[own.table["method"] == "zero"]
    others = [zeroed.assign(method=method) for method in METHODS[1:]]
    bench = Bench(replace(own, table=pandas.concat([own.table, *others]), _cache={}))
    given = {"subsets": own, "trio": TRIO}
    found = cells.multiverse_of(
        cell(about_named_heads, bench, named=TRIO, **given), verdict_of(about_named_heads, **given)
    )
    (asked,) = bench.asked
    assert asked.endswith("-methods")
    assert found.agreed >= 1


def about_all_conditions(sweeps, judge):
    assert [each.condition for each in sweeps] == ["facts", "logic"]
    each = [judge_above_floor(s.effect(HEAD), floor=s.floor(), what=s.condition) for s in sweeps]
    judge(judge_all_of(each))


def test_a_claim_about_all_conditions_is_judged_on_all_of_them():
    facts = make_sweep({HEAD: 1.0}, n_clusters=32)
    logic = replace(make_sweep({HEAD: 1.0}, n_clusters=32, condition="logic"), runs=("other",))
    bench = Bench(facts)
    bench.effects = lambda condition, _: {"facts": facts, "logic": logic}[condition]
    item = cell(about_all_conditions, bench, sweeps=[facts, logic])
    del item.funcargs["condition"]  # these claims have none
    found = cells.multiverse_of(item, verdict_of(about_all_conditions, sweeps=[facts, logic]))
    assert found.by_choice["metric"]["LD"] == (3, 3)


PATCH = PatchResidual(2, positions="last")


def about_patches(patches, twin_patches, judge):
    effect, p = patches.asymmetry(PATCH), patches.p_asymmetry(PATCH)
    if twin_patches is not None:
        assert twin_patches.mean_asymmetry(PATCH) < effect.low
    floor = patches.bound(0.05)
    judge(judge_above_floor(effect, floor=floor, p_corrected=p, what="asymmetry"))


@pytest.mark.parametrize("twin", [None, make_patches({}, {}, seed=4)])
def test_both_directions_of_patching_are_made_anew(twin):
    own = make_patches({(2, "last"): 0.2}, {(2, "last"): 0.6})
    bench = Bench(own.denoising)
    given = {"patches": own, "twin_patches": twin}
    found = cells.multiverse_of(
        cell(about_patches, bench, **given), verdict_of(about_patches, **given)
    )
    assert not bench.asked, "nothing is measured for it"
    assert found.agreed == found.n == 3 and found.verdicts == {"supported": 3}
    assert found.by_choice["split"] == dict.fromkeys(
        ("registered", "redrawn 1", "redrawn 2"), (1, 1)
    )
    assert found.not_made["metric KL"].startswith("KL is taken from what the same prompt gives")
    # These made-up outputs differ in LD alone.
    assert found.not_made["no effect to take a share of"].startswith("6 of 9 analyses")


def about_a_path(paths, subject, judge):
    judge(judge_above_floor(paths.mediated(2), floor=paths.share(0.5), what=subject))


def test_paths_are_made_anew():
    own = make_paths(1.0, {1: 1.0, 2: 0.8})
    given = {"paths": own, "subject": "the path"}
    found = cells.multiverse_of(
        cell(about_a_path, Bench(own), **given), verdict_of(about_a_path, **given)
    )
    assert found.by_choice["metric"]["LD"] == (3, 3)


def about_forecasts(zeroed_trio, trio, judge):
    change = zeroed_trio.rows(trio)["logit_diff"] - zeroed_trio.baseline()["logit_diff"]
    effects = zeroed_trio
    later = (effects.baseline()["split"] == "confirmation").to_numpy()
    found = effects.interval(change[later].to_numpy(), "confirmation", "it")
    judge(judge_above_floor(found, floor=0.05, what="it"))


def test_what_is_zeroed_on_some_examples_is_measured_again_on_those():
    whole = make_coalitions({TRIO[0]: 1.0})
    zeroed = whole.table[whole.table["method"] == "zero"]
    others = [zeroed.assign(method=method) for method in METHODS[1:]]
    for each, method in zip(others, METHODS[1:], strict=True):
        each["intervention"] = each["intervention"].str.replace("zero:", f"{method}:")
    bench = Bench(replace(whole, table=pandas.concat([whole.table, *others]), _cache={}))
    some = whole.table[(whole.table["example"] % 2 == 0)]
    some = some.assign(example=some["example"] // 2)
    own = replace(whole, table=some, _cache={})
    given = {"zeroed_trio": own, "trio": TRIO}
    found = cells.multiverse_of(
        cell(about_forecasts, bench, named=TRIO, **given), verdict_of(about_forecasts, **given)
    )
    assert list(found.by_choice["metric"]) == ["LD"]
    assert found.not_made["metric rank"] == "forecasts are made of the logit difference"
    assert found.n == found.agreed == 3
    source = cells.zeroed_again("it", own, bench, TRIO).sources["it"]
    assert {len(source.by_method[m].baseline()) for m in METHODS} == {len(own.baseline())}


def test_half_precision_leaves_ranks_out():
    own = make_sweep({HEAD: 1.0}, n_clusters=32)
    bench = Bench(own)
    bench.dtype = "bfloat16"
    found = cells.multiverse_of(
        cell(about_a_sweep, bench, sweep=own), verdict_of(about_a_sweep, sweep=own)
    )
    assert "bfloat16" in found.not_made["metric rank"]
    assert "rank" not in found.by_choice["metric"]


@pytest.mark.parametrize("function", [about_the_model, about_nothing_measured])
def test_claims_that_rest_on_more_than_tables_have_none(function):
    assert cells.multiverse_of(cell(function, None), None) is None


def test_every_factor_of_the_issue_is_a_factor():
    from tinyablation.analysis.alternatives import FACTORS, METRICS

    assert FACTORS == ("method", "metric", "template", "split")
    assert set(METRICS) == {"LD", "probability", "rank", "KL"}
    assert set(METHODS) == {"zero", "zero_folded", "mean", "resample"}
