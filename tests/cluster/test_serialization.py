"""Run: pytest tests/cluster/test_serialization.py"""

import json
from dataclasses import dataclass

import pytest

from tinyablation.analysis.step_norms import TripleNorms
from tinyablation.cluster.serialization import DescriptionError, describe, rebuild
from tinyablation.interventions.batteries import (
    BATTERIES,
    PATCHED_UNKNOWN,
    InEveryMethod,
    Patching,
    Paths,
    Steering,
    one_head,
)
from tinyablation.interventions.head_sets import HeadSets, Subsets, TrioZeroed
from tinyablation.interventions.interventions import AblateHeads
from tinyablation.measurement.head_readings import (
    Direction,
    HeadContributions,
    SteeringDirections,
    Written,
)
from tinyablation.measurement.screening import KeptPlan, Plan, ScreenedHeads
from tinyablation.measurement.text_readings import LayerLosses
from tinyablation.measurement.token_readings import NextTokens

TRIO = ((0, 7), (0, 0), (0, 5))
EVERY = (
    *BATTERIES.values(),
    Patching("forward"),
    Patching("reverse", PATCHED_UNKNOWN, "streams"),
    Paths((0, 7)),
    Steering(0, "0.7-abcdef12", ("ov", "random-1")),
    one_head((0, 7)),
    HeadSets(0, TRIO, 8, seed=3),
    Subsets(TRIO),
    TrioZeroed(TRIO),
    InEveryMethod((Subsets(TRIO, "mean"), Subsets(TRIO, "resample"))),
    Written((0, 7), "confirmation"),
    Direction((0, 7)),
    HeadContributions(),
    LayerLosses(),
    NextTokens(((3, AblateHeads(((0, 7),))), (4, AblateHeads(((0, 5), (0, 7)))))),
    SteeringDirections((0, 7), "facts"),
    TripleNorms(TRIO),
    ScreenedHeads(TRIO, "0123abcd"),
    KeptPlan(Plan("1:1", (0,), ((1, 0),), ((1, 1),), ((0.5, -0.25), (0.125, 0.0))), "scores"),
)


@pytest.mark.parametrize("value", EVERY, ids=lambda value: str(value)[:60])
def test_what_is_measured_survives_json(value):
    again = rebuild(json.loads(json.dumps(describe(value))))
    assert again == value and type(again) is type(value) and hash(again) == hash(value)


@dataclass(frozen=True)
class Foreign:
    """A dataclass that is not of the package."""

    name: str = "foreign"


@pytest.mark.parametrize("value", [Foreign(), object(), lambda: None, {"a": 1}, 1j])
def test_other_things_are_refused(value):
    with pytest.raises(DescriptionError, match="cannot be sent to another process"):
        describe((value,))


@pytest.mark.parametrize(
    ("description", "said"),
    [
        ({"is": "os:system"}, "names no dataclass of tinyablation"),
        ({"is": "tinyablation.files.manifests:os"}, "is not a dataclass"),
        ({"is": "tinyablation.runs.store:RunStore.obtain"}, "names no dataclass"),
        ({"is": "tinyablation.nowhere:Thing"}, "not known here"),
        ({"is": "tinyablation.interventions.batteries:Nothing"}, "not known here"),
        ({"is": "tinyablation.interventions.batteries:Paths", "heads": []}, "same version"),
        ({}, "names no dataclass"),
    ],
)
def test_a_description_makes_dataclasses_of_the_package_only(description, said):
    with pytest.raises(DescriptionError, match=said):
        rebuild([description])
