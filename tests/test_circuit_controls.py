"""Claims about circuits, on models whose weights are set by hand for them to be true, and untrue.

The models of a claim are alike but for what it is about. Run: pytest tests/test_circuit_controls.py
"""

from collections.abc import Iterable
from pathlib import Path

import pytest

from claims.literature import test_causal_tracing as tracing
from claims.literature import test_copy_suppression as suppression
from claims.literature import test_greater_than as greater_than
from claims.literature import test_indirect_objects as ioi
from claims.literature import test_successors as successors
from tests import indirect_objects, recall, years
from tests.asked_models import came, findings, knockout_of
from tests.hand_set import HandSet
from tinyablation.analysis.findings import Findings
from tinyablation.heads import Head
from tinyablation.interventions.tracing import Tracing
from tinyablation.measurement.diagonal_readings import WeightDiagonals

pytestmark = pytest.mark.slow


def found_of(made: HandSet, folder: Path, **rows: Iterable[dict[str, str]]) -> Findings:
    made.save(folder / "made")
    return findings(folder, folder / "made", **rows)


def written(
    made: HandSet, folder: Path, condition: str, rows: Iterable[dict[str, str]]
) -> dict[str, object]:
    """What claims about heads that write an answer ask for."""
    found = found_of(made, folder, **{condition: rows})
    assert found.bench.gate.reason_blocked(condition) is None
    fixtures = {"direct_effects": found.direct_effects(condition), "condition": condition}
    return {**fixtures, "knockout": knockout_of(found)}


INDIRECT = (
    ioi.test_three_heads_write_the_answer,
    ioi.test_other_heads_make_up_for_the_three,
    ioi.test_some_head_writes_against_the_answer,
)


def test_the_circuit_of_indirect_objects_is_found(tmp_path):
    made = indirect_objects.indirect_objects()
    fixtures = written(made, tmp_path, "ioi", indirect_objects.asked())
    for claim in INDIRECT:
        found = came(claim, fixtures)
        assert found.status == "supported", found.reason
    assert set(fixtures["direct_effects"].chosen(3)) == {*indirect_objects.MOVERS}
    assert fixtures["direct_effects"].chosen(1, sign=-1) == (indirect_objects.NEGATIVE,)


@pytest.mark.parametrize(
    ("claim", "changed"),
    [
        pytest.param(INDIRECT[0], {"movers": 1}, id="one head writes the answer"),
        pytest.param(INDIRECT[1], {"heeded": 0.0}, id="others write it whether or not they must"),
        pytest.param(INDIRECT[2], {"against": 0.0}, id="no head writes against it"),
    ],
)
def test_a_circuit_that_lacks_what_is_claimed_is_told(claim, changed, tmp_path):
    made = indirect_objects.indirect_objects(**changed)
    found = came(claim, written(made, tmp_path, "ioi", indirect_objects.asked()))
    assert found.status == "refuted", found.reason


@pytest.mark.parametrize(("n_heads", "status"), [(2, "supported"), (16, "refuted")])
def test_few_heads_that_compare_years_are_told_from_many(n_heads, status, tmp_path):
    fixtures = written(years.years(n_heads), tmp_path, "greater_than", years.asked())
    found = came(greater_than.test_a_few_heads_carry_the_comparison, fixtures)
    assert found.status == status, found.reason


@pytest.mark.parametrize(
    ("part", "layer", "status"),
    [
        ("mlp", 1, ("supported", "supported")),
        ("mlp", 2, ("supported", "refuted")),
        ("attention", 1, ("refuted", "inconclusive")),  # its MLPs do nothing
    ],
)
def test_where_a_fact_is_looked_up_is_traced(part, layer, status, tmp_path):
    found = found_of(recall.lookup(part, layer), tmp_path, facts=recall.facts())
    assert found.bench.gate.reason_blocked("facts") is None
    window = found.bench.facts.n_layers // 10
    trace = found.trace("facts", Tracing(("mlp", "attention"), ("subject-last",), window))
    claims = (
        tracing.test_mlps_restore_more_than_attentions,
        tracing.test_early_mlps_restore_more_than_late_ones,
    )
    for claim, expected in zip(claims, status, strict=True):
        judged = came(claim, {"trace": trace})
        assert judged.status == expected, judged.reason


SUPPRESSES = (
    suppression.test_some_head_suppresses_the_tokens_it_attends_to,
    suppression.test_the_suppressor_attends_to_what_is_predicted,
    suppression.test_copy_suppression_is_most_of_what_the_head_does,
)


def suppressing(made: HandSet, folder: Path) -> dict[str, object]:
    """What claims about copy suppression ask for."""
    found = found_of(made, folder, facts=recall.facts())
    assert found.bench.gate.reason_blocked("facts") is None
    some = found.diagonals(WeightDiagonals(n_tokens=1000))
    return {"some_diagonals": some, "findings": found, "valid": "facts"}


def test_a_head_that_suppresses_copies_is_found(tmp_path):
    fixtures = suppressing(recall.suppressor(), tmp_path)
    assert fixtures["some_diagonals"].leaders("ov", "bottom", 10, 1) == (Head(2, 0),)
    for claim in SUPPRESSES:
        found = came(claim, fixtures)
        assert found.status == "supported", found.reason


@pytest.mark.parametrize(
    ("claim", "changed"),
    [
        pytest.param(SUPPRESSES[0], {"writes": 1.0}, id="it copies"),
        pytest.param(SUPPRESSES[1], {"seeks": False}, id="it looks for something else"),
        pytest.param(SUPPRESSES[2], {"answers": 1.0}, id="it mostly writes the answer"),
    ],
)
def test_a_head_that_suppresses_no_copies_is_told(claim, changed, tmp_path):
    found = came(claim, suppressing(recall.suppressor(**changed), tmp_path))
    assert found.status == "refuted", found.reason


@pytest.mark.parametrize(("together", "status"), [(False, "supported"), (True, "refuted")])
def test_a_head_that_serves_successors_alone_is_told(together, status, tmp_path):
    rows = {"facts": recall.facts(), "successors": recall.successions()}
    found = found_of(recall.successor(together=together), tmp_path, **rows)
    scores = {"successor_scores": found.successors(), "knockout": knockout_of(found)}
    claim = successors.test_the_head_serves_successors_above_all
    judged = came(claim, scores, condition="facts")
    assert judged.status == status, judged.reason
