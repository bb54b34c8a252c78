"""Panels of heads zeroed together. Run: pytest tests/analysis/test_coalition_panels.py"""

import pytest

from tests.synthetic_effects import LEADER, TRIO, make_coalitions, noise
from tinyablation.analysis.coalition_panels import (
    cooperation,
    heads_together,
    pair_gains,
    recoveries,
)

PLANTED = {LEADER: 1.0}


@pytest.fixture
def found():
    return make_coalitions(PLANTED, extra={3: 0.7 + noise(0.05, 9)})


def test_each_alone_each_pair_and_the_trio_stand_below_each_other(found):
    panel = heads_together(found, TRIO)
    assert [row.name for row in panel.rows] == [
        *("0:0", "0:2", "0:5", "0:0 0:2", "0:0 0:5", "0:2 0:5", "0:0 0:2 0:5")
    ]
    last = panel.rows[-1]
    effect = found.effect(TRIO)
    assert (last.value, last.low, last.high) == tuple(effect[:3])
    assert panel.bound == found.floor()


def test_cooperation_is_what_is_beyond_the_sum(found):
    panel = cooperation(found, TRIO)
    assert len(panel.rows) == 4
    assert panel.rows[-1].value == pytest.approx(0.7)


def test_gains_are_a_grid_of_heads(found):
    panel = pair_gains(found)
    assert panel.columns == panel.rows == [f"0:{n}" for n in range(8)]
    assert [panel.values[n][n] for n in range(8)] == [None] * 8


def test_recoveries_are_shares_and_there_are_none_of_nothing(found):
    (panel,) = recoveries(found, TRIO, 0.6)
    assert [row.name for row in panel.rows] == ["0:0", "0:2", "0:5"] and panel.bound == 0.6
    assert panel.rows[1].value == found.recovery(TRIO, LEADER).estimate
    assert recoveries(make_coalitions({}), TRIO, 0.6) == []
