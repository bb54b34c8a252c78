"""Claims about attention sinks, on models made for them to be true of, and untrue.

Each model that is untrue to a claim differs from the first in one thing, and is true to the others.

Run: pytest tests/test_sink_controls.py
"""

import pytest

from claims.literature import test_sinks as sinks
from tests.asked_models import came, findings, given
from tests.sink_heads import INDUCTION_HEAD, RESTING, save_sink_heads
from tests.two_routes import repeats
from tinyablation.heads import Head
from tinyablation.measurement.attention_readings import OneToken

pytestmark = pytest.mark.slow  # a session's readings each

CLAIMS = (
    sinks.test_most_heads_attend_to_the_first_token,
    sinks.test_sinks_vanish_where_no_token_is_the_first,
    sinks.test_the_first_two_layers_have_no_sinks,
    sinks.test_zeroing_sinks_spares_copying,
)
EARLY = {Head(0, 1): 6.0, Head(1, 0): 6.0, Head(1, 1): 6.0}
# As induction heads do, of which it is said that they sink where there is nothing to copy.
IDLE_INDUCTION = {INDUCTION_HEAD: 8.0}


@pytest.mark.parametrize(
    ("resting", "by_position", "untrue"),
    [
        (RESTING, False, None),
        ({}, False, sinks.test_most_heads_attend_to_the_first_token),
        (RESTING, True, sinks.test_sinks_vanish_where_no_token_is_the_first),
        ({**RESTING, **EARLY}, False, sinks.test_the_first_two_layers_have_no_sinks),
        ({**RESTING, **IDLE_INDUCTION}, False, sinks.test_zeroing_sinks_spares_copying),
    ],
    ids=["all true", "none rests", "known by position", "early ones rest", "induction rests"],
)
def test_sinks_are_told(resting, by_position, untrue, tmp_path):
    save_sink_heads(tmp_path / "sinks", resting, by_position=by_position)
    found = findings(tmp_path, tmp_path / "sinks", repeats=repeats())
    fixtures = {**given(found), "one_token": found.attention(OneToken())}
    for claim in CLAIMS:
        verdict = came(claim, fixtures, condition="repeats")
        if not resting and claim == sinks.test_zeroing_sinks_spares_copying:
            assert verdict.status == "blocked" and "is a sink" in verdict.reason
        else:
            status = "refuted" if claim == untrue else "supported"
            assert verdict.status == status, verdict.reason
