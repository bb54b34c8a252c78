"""Run: pytest tests/plugin/test_scope.py"""

from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.benches import bench_of
from tests.small_corpora import KNOWN, crossed, put_corpora, put_crossed
from tinyablation.analysis.findings import Findings
from tinyablation.measurement.bench import Bench
from tinyablation.plugin.scope import Scope, scope_of
from tinyablation.statistics.intervals import Estimate
from tinyablation.verdicts.verdicts import Verdict

ROOT = Path(__file__).parents[2]
FACTS = "facts"
EFFECT = (0.5, 0.4, 0.6, 30, 5)


@pytest.fixture(scope="module")
def crossed_bench(tmp_path_factory) -> Bench:
    folder = tmp_path_factory.mktemp("crossed")
    return bench_of("tiny-gpt2", folder / "store", put_crossed(folder / "corpora", crossed()))


def item(model, *, module="test_heads", fixtures=("sweep",), protocol="corrected", at=FACTS):
    """A cell as pytest has it."""
    return SimpleNamespace(
        funcargs={"model": model, "findings": Findings(model)},
        nodeid=f"claims/{module}.py::test_x[tiny-gpt2-{at}]",
        fixturenames=fixtures,
        callspec=SimpleNamespace(params={"model": "tiny-gpt2", "condition": at}),
        config=SimpleNamespace(option=SimpleNamespace(protocol=protocol)),
    )


def verdict(status="supported", unit="logits", effect=EFFECT) -> Verdict:
    return Verdict(status, "so", Estimate(*effect) if effect else None, unit=unit)


def test_a_crossed_corpus_says_what_it_generalises_over_and_what_is_known(crossed_bench):
    found = scope_of(item(crossed_bench), verdict(), "0:0")
    assert found.text == "5 relations and 3 wordings"  # of confirmation
    details = dict(found.details)
    estimate, low, high = details.pop("on all facts, known or not")
    assert low <= estimate <= high
    assert details.pop("left out") and set(details.pop("known facts by relation")) >= {"capital"}
    (caveat,) = details.pop("caveats")
    assert KNOWN in caveat and "10 clusters" in caveat  # all known, but of few relations
    assert details == {"families": [KNOWN], "share of facts known": 1.0}


def test_the_estimate_on_all_facts_is_that_of_the_same_heads(crossed_bench):
    one = scope_of(item(crossed_bench), verdict(), "0:0").details["on all facts, known or not"]
    two = scope_of(item(crossed_bench), verdict(), "0:0 0:1").details["on all facts, known or not"]
    table = Findings(crossed_bench).unfiltered(FACTS, ((0, 0),)).table
    wide = table.pivot(index="example", columns="intervention", values="logit_diff")
    (zeroed,) = set(wide.columns) - {"baseline"}
    assert one[0] == pytest.approx((wide[zeroed] - wide["baseline"]).mean())
    assert one != two


@pytest.mark.parametrize(
    ("subject", "changes", "judged"),
    [
        (None, {}, {}),
        ("all heads", {}, {}),
        ("0:0 1:0", {}, {}),  # of two layers
        ("0:0 0:1 0:2 0:3", {}, {}),  # more than are zeroed together
        ("0:0", {"fixtures": ("patches",)}, {}),  # nothing was zeroed
        ("0:0", {}, {"unit": "nats"}),
        ("0:0", {}, {"effect": None}),
    ],
)
def test_nothing_stands_beside_what_is_no_effect_of_zeroed_heads(
    subject, changes, judged, crossed_bench
):
    found = scope_of(item(crossed_bench, **changes), verdict(**judged), subject)
    assert "on all facts, known or not" not in found.details and found.details["families"]


def test_claims_about_validity_count_all_that_the_gate_asked(crossed_bench):
    found = scope_of(item(crossed_bench, module="test_validity"), verdict(), None)
    assert found == Scope("10 relations and 4 wordings")


def test_any_other_corpus_is_conditional_on_its_few_relations(tmp_path):
    made = bench_of("tiny-gpt2", tmp_path / "store", put_corpora(tmp_path / "corpora"))
    text, details = scope_of(item(made), verdict(), "0:0")
    assert text.startswith("conditional on its ") and "relation and 2 wordings" in text
    assert details == {}


def test_nothing_is_said_of_blocked_cells_of_all_conditions_and_of_no_model(crossed_bench):
    assert scope_of(item(crossed_bench), verdict("blocked"), "0:0") == Scope()
    assert scope_of(item(crossed_bench, at="all"), verdict(), "0:0") == Scope()
    assert scope_of(item(None), verdict(), "0:0") == Scope()
