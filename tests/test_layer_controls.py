"""Claims about single layers, on models made for them to be true of, and untrue.

Run: pytest tests/test_layer_controls.py
"""

import math

import pytest

from claims.literature import test_layers as layers
from tests.asked_models import findings, verdict
from tests.turning_layers import save_turning_layers

pytestmark = pytest.mark.slow  # 32 passages without each of 18 layers

CRITICAL, BETTER_WITHOUT = (
    layers.test_four_layers_are_critical,
    layers.test_two_layers_are_better_left_out,
)


@pytest.mark.parametrize(
    ("turn", "harmful", "untrue"),
    [
        (math.pi, True, None),
        (math.pi / 4, True, CRITICAL),
        (math.pi, False, BETTER_WITHOUT),
    ],
    ids=["needed and harmful", "little needed", "helpful"],
)
def test_layers_are_told(turn, harmful, untrue, tmp_path):
    save_turning_layers(tmp_path / "turning", turn=turn, harmful=harmful)
    removal = findings(tmp_path, tmp_path / "turning").layer_removal()
    for claim in (CRITICAL, BETTER_WITHOUT):
        came_out = verdict(claim, layer_removal=removal)
        assert came_out.status == ("refuted" if claim == untrue else "supported"), came_out.reason
    # What is set to do nothing does nothing, and is measured so.
    assert removal.changes()[:, [0, 7, 13, 15]] == pytest.approx(0.0, abs=1e-6)
