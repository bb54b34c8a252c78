"""A head's direct paths, on tables whose answer is known.

Run: pytest tests/analysis/test_path_patching.py
"""

import pytest

from tests.synthetic_effects import make_paths
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
