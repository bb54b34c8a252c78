"""Run: pytest tests/api/test_heads.py"""

import numpy
import pytest

from tinyablation.api.errors import ApiError
from tinyablation.api.heads import head_of, names, set_of
from tinyablation.heads import Head

NUMPY = (numpy.int64(0), numpy.int64(7))


@pytest.mark.parametrize("given", ["L0H7", "0:7", (0, 7), [0, 7], NUMPY, Head(0, 7)])
def test_one_head_in_every_notation(given):
    assert head_of(given, 4, 8) == Head(0, 7)


@pytest.mark.parametrize(
    "given",
    ["L0H7 L1H2", "L1H2+L0H7", "0:7, 1:2", ["L0H7", (1, 2)], [Head(1, 2), Head(0, 7), "L0H7"]],
)
def test_several_heads_in_every_notation(given):
    assert set_of(given, 4, 8) == (Head(0, 7), Head(1, 2))
    assert names(set_of(given, 4, 8)) == "L0H7 L1H2"


def test_a_pair_of_numbers_is_one_head():
    assert set_of((0, 7), 4, 8) == (Head(0, 7),)
    assert set_of(NUMPY, 4, 8) == (Head(0, 7),)  # as a row of a table gives it


@pytest.mark.parametrize(
    "given", ["L4H0", "L0H8", (-1, 0), "seven", (1, 2, 3), None, (1,), (0.9, 7)]
)
def test_what_is_no_head_of_the_model(given):
    with pytest.raises(ApiError, match="head"):
        head_of(given, 4, 8)
