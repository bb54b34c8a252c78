"""Noise and restored states are canonical, named, and of one token.

Run: pytest tests/interventions/test_restoration.py
"""

import re

import pytest

from tinyablation.interventions.restoration import TOKENS, AddNoise, RestoreState, token_of
from tinyablation.interventions.sites import InterventionError, Part, Site


def test_tokens_are_told_by_the_subject():
    assert [token_of(where, (2, 3, 5), 9) for where in TOKENS] == [2, 5, 6, 8]
    assert token_of("after-subject", (7, 8), 9) == 8  # the subject ends the prompt


def test_labels_say_what_is_restored_in_which_noise():
    state = RestoreState(1, 3, "mlp", 3, 2, "last")
    assert state.label == "restore-mlp:L03w2:last:noise3.0:1"
    assert state.noise == AddNoise(1, 3.0) and state.noise.label == "noise3.0:1"
    assert AddNoise().noise == AddNoise()


def test_windows_are_clipped():
    assert RestoreState(part="mlp", layer=3, window=2).sites(5) == tuple(
        Site(layer, Part.MLP) for layer in (1, 2, 3, 4)
    )
    assert RestoreState(part="stream", layer=0, window=1).sites(5) == (
        Site(0, Part.STREAM),
        Site(1, Part.STREAM),
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"scale": 0.0}, "above 0"),
        ({"scale": float("nan")}, "finite"),
        ({"draw": -1}, "draw must be a whole number"),
        ({"part": "z"}, "unknown part 'z'"),
        ({"layer": -1}, "layer must be"),
        ({"where": "middle"}, re.escape("unknown token 'middle'; choose one of subject-first")),
    ],
)
def test_others_are_refused(fields, message):
    with pytest.raises(InterventionError, match=message):
        RestoreState(**fields)
