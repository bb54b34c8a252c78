"""Battery files of the study: which interventions they ask for, and which are refused.

Run: pytest tests/study/test_batteries.py
"""

from pathlib import Path

import pytest

from tests.study_files import HEADS, PAIRS, REVERSE, TRIPLET
from tinyablation.interventions.interventions import PatchHeads, PatchMLP, PatchResidual
from tinyablation.study.batteries import parse_battery
from tinyablation.study.objects import StudyError

FILE = Path("lab/configs/battery.json")
SHAPE = (4, 8)  # layers, heads


def labels(content) -> list[str]:
    asked = parse_battery(FILE, content).asked(*SHAPE)
    return [each.label for each in asked.battery.interventions]


def test_every_head_is_zeroed_or_scaled():
    assert len(labels(HEADS)) == 32 and labels(HEADS)[9] == "zero:1.1"
    some = labels({**HEADS, "layers": [3], "scales": [0.0, 0.5, 1.0]})
    assert len(some) == 24 and some[:3] == ["zero:3.0", "scale0.5:3.0", "scale1.0:3.0"]
    assert len(labels({"type": "heads_zero"})) == 32


def test_pairs_are_all_of_a_layer_or_those_listed():
    assert len(labels(PAIRS)) == 28 and labels(PAIRS)[0] == "zero:0.0+0.1"
    listed = {"type": "heads_pair_zero", "pairs": [{"layer": 2, "h1": 7, "h2": 1}]}
    assert labels(listed) == ["zero:2.1+2.7"]


def test_a_group_keeps_its_label():
    asked = parse_battery(FILE, TRIPLET).asked(*SHAPE)
    assert dict(asked.labels) == {"zero:0.0+0.5+0.7": "triplet"}


@pytest.mark.parametrize(
    ("granularity", "kind", "count"),
    [
        ("layer_resid", PatchResidual, 4),
        ("mlp", PatchMLP, 4),
        ("mlp_out", PatchMLP, 4),
        ("head", PatchHeads, 32),
        ("head_out", PatchHeads, 32),
    ],
)
def test_a_patch_is_of_its_part_with_as_many_shams(granularity, kind, count):
    asked = parse_battery(FILE, {**REVERSE, "granularity": granularity}).asked(*SHAPE)
    patches = asked.battery.interventions
    assert all(isinstance(each, kind) for each in patches)
    assert len(patches) == 2 * count and len(asked.sham) == count
    assert {each.donor for each in patches} == {"pair", "self"}
    plain = parse_battery(FILE, {**REVERSE, "sham_control": False}).asked(*SHAPE)
    assert plain.sham == () and len(plain.battery.interventions) == 4


@pytest.mark.parametrize(
    ("direction", "donor", "side"),
    [("clean->corrupt", "clean", "corrupt"), ("corrupt->clean", "corrupt", "clean")],
)
def test_a_patch_goes_from_its_first_side_into_the_run_on_its_second(direction, donor, side):
    battery = parse_battery(FILE, {**REVERSE, "patch_direction": direction}).asked(*SHAPE).battery
    assert (battery.donor, battery.side) == (donor, side)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"type": "heads_zeros"}, "there is no battery 'heads_zeros'; did you mean 'heads_zero'?"),
        ({"type": "sae_toggle"}, "there is no battery 'sae_toggle'"),
        ({}, "type: is missing"),
        ({**HEADS, "layer": [0]}, "layer: there is no such key; did you mean 'layers'?"),
        ({**HEADS, "layers": ["0"]}, "layers: give \"all\" or a list of layers from 0, not ['0']"),
        ({**HEADS, "layers": []}, 'layers: give "all" or a list'),
        ({**HEADS, "positions": "last_token"}, "positions: Input should be 'all'"),
        ({**PAIRS, "pairs": [{"layer": 0, "h1": 0, "h2": 1}]}, "give either layers"),
        ({"type": "heads_pair_zero"}, "give either layers"),
        (
            {"type": "heads_pair_zero", "pairs": [{"layer": 0, "h1": 3, "h2": 3}]},
            "pairs.0: h1 and h2 are both 3",
        ),
        (
            {"type": "heads_pair_zero", "pairs": [{"layer": 0, "h1": 3, "h": 3}]},
            "pairs.0.h: there is no such key; did you mean 'h",
        ),
        ({"type": "heads_subset_zero", "groups": []}, "groups: List should have at least 1 item"),
        ({**REVERSE, "positions": "all"}, "replaced at every position is the donor's own run"),
        ({**REVERSE, "patch_direction": "reverse"}, "patch_direction: Input should be"),
    ],
)
def test_what_cannot_be_measured_is_refused_with_file_and_key(content, said):
    with pytest.raises(StudyError) as caught:
        parse_battery(FILE, content)
    lines = str(caught.value).splitlines()
    assert all(line.startswith(f"{FILE}: ") for line in lines)
    assert any(said in line for line in lines)
