"""Run: pytest tests/runs/test_pictures.py"""

import numpy as np
import pytest

from tinyablation.runs.pictures import DOTS, blank, full_shade, png


@pytest.mark.parametrize(
    ("maps", "largest"),
    [
        ([[0.5, -2.0], [1.0]], 2.0),
        ([[np.nan, 0.25]], 0.25),
        ([[0.0]], 1.0),
        ([[np.nan]], 1.0),
        ([], 1.0),
    ],
)
def test_maps_share_the_scale_of_their_largest_figure(maps, largest):
    assert full_shade(np.array(values) for values in maps) == largest


def test_a_picture_has_its_size_and_the_same_bytes():
    data = png(blank(2, 1, "a $", 9))
    assert data == png(blank(2, 1, "a $", 9))
    assert int.from_bytes(data[16:20], "big") == 2 * DOTS
