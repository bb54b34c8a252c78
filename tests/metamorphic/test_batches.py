"""Padding, company, order and history of a batch change no figure.

Run: pytest tests/metamorphic/test_batches.py (--hypothesis-profile=thorough searches longer)
"""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import FAMILIES
from tests.metamorphic import laws
from tests.metamorphic.cases import ANYTHING, MOST_WORDS, Case, cases, questions
from tests.metamorphic.searching import rounds

pytestmark = pytest.mark.parametrize("family", FAMILIES)
PADS = st.integers(0, 5)


@st.composite
def padded(draw: st.DrawFn) -> tuple[list[Any], list[int], list[int]]:
    asked = draw(st.lists(questions(), min_size=1, max_size=4))
    left, right = ([draw(PADS) for _ in asked] for _ in range(2))
    return asked, left, right


@rounds(15)
@given(batch=padded())
def test_padding_on_any_side_of_any_amount(family: str, engines: Any, batch: Any) -> None:
    """P1: masked, numbered and read at its own last token, a padded row is the prompt alone."""
    laws.padding_does_not_matter(engines[family], *batch)


@st.composite
def orders(draw: st.DrawFn) -> tuple[Case, tuple[int, ...], tuple[int, ...]]:
    case = draw(cases())
    prompts, interventions = (
        tuple(draw(st.permutations(range(len(of))))) for of in (case.questions, case.interventions)
    )
    return case, prompts, interventions


@rounds(10)
@given(order=orders())
def test_order_of_prompts_and_interventions(family: str, engines: Any, order: Any) -> None:
    laws.order_does_not_matter(engines[family], *order)


@rounds(10)
@given(case=cases(), more=cases(most_questions=2, most_interventions=2))
def test_company_of_other_prompts_and_interventions(
    family: str, engines: Any, case: Case, more: Case
) -> None:
    laws.company_does_not_matter(engines[family], case, more)


@st.composite
def longer_company(draw: st.DrawFn) -> tuple[Case, Case]:
    """A short prompt, and others that are longer than it."""
    size = draw(st.integers(1, MOST_WORDS // 2))
    short = draw(questions(size, size))
    others = draw(st.lists(questions(size + 1, MOST_WORDS - 1), min_size=1, max_size=2))
    interventions = tuple(draw(st.lists(ANYTHING, min_size=1, max_size=2, unique=True)))
    return Case((short,), interventions), Case(tuple(others), ())


@rounds(8)
@given(both=longer_company())
def test_company_of_longer_prompts(family: str, engines: Any, both: Any) -> None:
    """P1: of 160 prompts of the study, 67 ended on a real token, for a longer one was there."""
    laws.company_does_not_matter(engines[family], *both)


@rounds(6)
@given(case=cases(most_questions=2), before=cases(most_questions=2))
def test_what_was_measured_before(family: str, engines: Any, case: Case, before: Case) -> None:
    laws.history_does_not_matter(engines[family], case, before)


@rounds(8)
@given(case=cases(most_questions=2))
def test_order_and_repetition_of_the_reference(family: str, engines: Any, case: Case) -> None:
    laws.reference_order_does_not_matter(engines[family], case)


@rounds(8)
@given(case=cases(most_questions=2), seed=st.integers(0, 10**6))
def test_the_seed_draws_donors_and_nothing_else(
    family: str, engines: Any, case: Case, seed: int
) -> None:
    """P11: and the same seed draws the same."""
    laws.only_what_is_drawn_depends_on_the_seed(engines[family], case, seed)
