"""Claims about self-repair, on models made for them to be true of, and untrue.

Run: pytest tests/test_repair_controls.py
"""

import pytest

from claims.literature import test_self_repair as repair
from tests.asked_models import findings, verdict
from tests.backup_head import SAID, WRITER, save_backup_head
from tests.two_routes import facts
from tinyablation.heads import head_name

pytestmark = pytest.mark.slow  # sweeps, as sessions measure them

LATER, NORM = (
    repair.test_later_layers_repair_what_a_head_leaves_out,
    repair.test_the_final_norm_repairs_little,
)


@pytest.mark.parametrize(
    ("relays", "said", "untrue"),
    [(False, SAID, None), (True, SAID, LATER), (False, 10 * SAID, NORM)],
    ids=["a backup", "a relay", "much beside the answer"],
)
def test_repair_is_told(relays, said, untrue, tmp_path):
    save_backup_head(tmp_path / "backup", relays=relays, said=said)
    found = findings(tmp_path, tmp_path / "backup", facts=facts())
    assert found.bench.gate.reason_blocked("facts") is None
    effects = found.direct_effects("facts")
    for claim in (LATER, NORM):
        came_out = verdict(claim, direct_effects=effects)
        assert came_out.status == ("refuted" if claim == untrue else "supported"), came_out.reason
        assert f"repair of {head_name(WRITER)}" in came_out.reason
