"""Claims about circuits, on models whose weights are set by hand for them to be true, and untrue.

The two models of a claim differ in what the claim is about. Run: pytest tests/test_circuit_controls.py
"""

import pytest

from claims.literature import test_greater_than as greater_than
from claims.literature import test_indirect_objects as ioi
from tests import indirect_objects, years
from tests.asked_models import came, findings, knockout_of
from tests.hand_set import HandSet
from tinyablation.analysis.findings import Findings

pytestmark = pytest.mark.slow


def found_of(made: HandSet, folder, **rows) -> Findings:
    made.save(folder / "made")
    return findings(folder, folder / "made", **rows)


def written(made: HandSet, folder, condition: str, rows) -> dict[str, object]:
    """What claims ask for about heads that write an answer."""
    found = found_of(made, folder, **{condition: rows})
    assert found.bench.gate.judged(condition).status == "supported"
    fixtures = {"direct_effects": found.direct_effects(condition), "condition": condition}
    return {**fixtures, "knockout": knockout_of(found)}


CLAIMS = (
    ioi.test_three_heads_write_the_answer,
    ioi.test_other_heads_make_up_for_the_three,
    ioi.test_some_head_writes_against_the_answer,
)


def test_the_circuit_of_indirect_objects_is_found(tmp_path):
    made = indirect_objects.indirect_objects()
    fixtures = written(made, tmp_path, "ioi", indirect_objects.asked())
    for claim in CLAIMS:
        found = came(claim, fixtures)
        assert found.status == "supported", found.reason
    assert set(fixtures["direct_effects"].chosen(3)) == {*indirect_objects.MOVERS}
    assert fixtures["direct_effects"].chosen(1, sign=-1) == (indirect_objects.NEGATIVE,)


@pytest.mark.parametrize(
    ("claim", "changed"),
    [
        pytest.param(CLAIMS[0], {"movers": 1}, id="one head writes the answer"),
        pytest.param(CLAIMS[1], {"heeded": 0.0}, id="others write it whether or not they must"),
        pytest.param(CLAIMS[2], {"against": 0.0}, id="no head writes against it"),
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
