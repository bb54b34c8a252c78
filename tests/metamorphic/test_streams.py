"""Heads add, in the last layer and within every layer; the model is left as it was found.

Run: pytest tests/metamorphic/test_streams.py (--hypothesis-profile=thorough searches longer)
"""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import FAMILIES, N_LAYERS
from tests.metamorphic import stream_laws
from tests.metamorphic.cases import Case, cases, heads, questions
from tests.metamorphic.searching import rounds

pytestmark = pytest.mark.parametrize("family", FAMILIES)


@rounds(10)
@given(
    question=questions(),
    at=heads([N_LAYERS - 1], most=4),
    method=st.sampled_from(("zero", "zero_folded", "mean")),
)
def test_changes_by_heads_of_the_last_layer_add(
    family: str, engines: Any, question: Any, at: Any, method: Any
) -> None:
    stream_laws.changes_in_the_last_layer_add(engines[family], question, at, method)


@rounds(10)
@given(asked=st.lists(questions(), min_size=1, max_size=3))
def test_head_outputs_sum_to_the_attention(family: str, engines: Any, asked: Any) -> None:
    stream_laws.head_outputs_sum_to_the_attention(engines[family], asked)


ERRORS = (stream_laws.Interrupted("broken off"), KeyboardInterrupt())


@rounds(8)
@given(
    case=cases(most_questions=2),
    place=st.sampled_from(stream_laws.PLACES),
    calls=st.integers(0, 6),
    error=st.sampled_from(ERRORS),
)
def test_the_model_is_left_as_it_was(
    family: str, engines: Any, case: Case, place: Any, calls: int, error: BaseException
) -> None:
    """P20: also where the measurement is broken off."""
    stream_laws.the_model_is_left_as_it_was(engines[family], case, place, calls, error)
