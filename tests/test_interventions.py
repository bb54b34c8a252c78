"""Interventions are canonical, hashable and named.

Run: pytest tests/test_interventions.py
"""

import math
from typing import Any

import pytest

from tinyablation.interventions import (
    METHODS,
    AblateHeads,
    InterventionError,
    ScaleHeads,
)


def test_labels_name_method_and_heads() -> None:
    assert AblateHeads(((0, 2), (0, 4))).label == "zero:0.2+0.4"
    assert AblateHeads(((1, 10),), "zero_folded").label == "zero_folded:1.10"
    assert ScaleHeads(((1, 3),), 0.5).label == "scale0.5:1.3"
    assert ScaleHeads(((1, 3),), 2).label == ScaleHeads(((1, 3),), 2.0).label == "scale2.0:1.3"
    assert ScaleHeads(((1, 3),), -0.0).label == "scale0.0:1.3"


def test_equal_interventions_are_equal_and_hash_alike() -> None:
    assert len({AblateHeads(((0, 2),)), AblateHeads(((0, 2),), "zero")}) == 1
    assert len({AblateHeads(((0, 2),), method) for method in METHODS}) == 4  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("heads", "message"),
    [
        ((), "non-empty"),
        ([(0, 1)], "non-empty tuple"),
        (((0, 1), (0, 1)), "sorted and distinct"),
        (((0, 2), (0, 1)), "sorted and distinct"),
        (((0, -1),), "no head"),
        ((0, 1), "no head"),
        (((0, True),), "no head"),
        (((0, 1.0),), "no head"),
    ],
)
def test_heads_that_are_not_canonical_are_refused(heads: Any, message: str) -> None:
    with pytest.raises(InterventionError, match=message):
        AblateHeads(heads)
    with pytest.raises(InterventionError, match=message):
        ScaleHeads(heads, 0.5)


def test_unknown_methods_and_scales_are_refused() -> None:
    with pytest.raises(InterventionError, match="'noise'; choose one of zero, zero_folded"):
        AblateHeads(((0, 1),), "noise")  # type: ignore[arg-type]
    for scale in (math.nan, math.inf, "1", True):
        with pytest.raises(InterventionError, match="scale must be"):
            ScaleHeads(((0, 1),), scale)  # type: ignore[arg-type]
