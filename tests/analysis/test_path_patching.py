"""A head's direct paths, on tables whose answer is known.

Run: pytest tests/analysis/test_path_patching.py
"""

from dataclasses import replace

import pytest

from tests.synthetic_effects import LEADER, make_paths
from tinyablation.interventions.interventions import PatchPath
from tinyablation.statistics.ratios import RatioUndefined


def test_the_mediated_share_is_found_by_receiver():
    paths = make_paths(1.0, {1: 1.0, 2: 0.7, 3: 0.1})
    assert list(paths.receivers) == [1, 2, 3, 4]
    found = paths.mediated(2)
    assert found.low < 0.7 < found.high
    assert found.high - found.low < 0.2
    assert list(paths.profile().values()) == pytest.approx([1.0, 0.7, 0.1, 0.0], abs=0.03)


def test_a_head_without_effect_has_no_share_to_mediate():
    with pytest.raises(RatioUndefined):
        make_paths(0.0, {2: 0.7}).mediated(2)
    # Nor has one whose effect is there, and within the noise.
    loud = replace(make_paths(1.0, {2: 0.7}), noise_floor=1.2)
    with pytest.raises(RatioUndefined, match="numerical noise"):
        loud.mediated(2)


def test_shares_are_of_the_split_asked_for():
    paths = make_paths(1.0, {2: 0.7})
    table = paths.table
    path = table["intervention"] == PatchPath((LEADER,), 2).label
    cut = (table["split"] == "discovery") & path
    moved = table["logit_diff"] - 0.4 * cut
    other = replace(paths, table=table.assign(logit_diff=moved), _cache={})
    assert other.mediated(2).estimate == pytest.approx(0.7, abs=0.03)
    assert other.mediated(2, split="discovery").estimate == pytest.approx(0.3, abs=0.03)
    assert other.profile("discovery")[2] == pytest.approx(0.3, abs=0.03)
    half = other.share(0.5, split="discovery")
    assert half == 0.5 and half.noise == pytest.approx(1e-6 / other.total("discovery").mean())
