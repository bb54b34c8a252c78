"""Interventions that do nothing, that are one another, or that give another prompt's figures.

Run: pytest tests/metamorphic/test_identities.py (--hypothesis-profile=thorough searches longer)
"""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import FAMILIES, N_HEADS, N_LAYERS
from tests.metamorphic import laws
from tests.metamorphic.cases import (
    ABLATIONS,
    ANSWERS,
    LAYER,
    SCALES,
    STEERS,
    Case,
    cases,
    heads,
    patches,
    questions,
)
from tests.metamorphic.searching import rounds
from tinyablation.engine.engine import Engine
from tinyablation.interventions.interventions import Positions

WITHOUT_BIASES = ("mistral", "llama")
every_family = pytest.mark.parametrize("family", FAMILIES)


@every_family
@rounds(10)
@given(
    question=questions(),
    at=heads(),
    shams=st.lists(patches("self"), min_size=1, max_size=3, unique=True),
)
def test_identities_change_nothing(
    family: str, engines: Any, question: Any, at: Any, shams: Any
) -> None:
    """P2, P3 and P15."""
    laws.identities_change_nothing(engines[family], question, at, shams)


@every_family
@rounds(10)
@given(
    question=questions(),
    at=st.lists(st.tuples(LAYER, st.integers(0, N_HEADS - 1)), min_size=1, max_size=5),
)
def test_heads_ablated_in_any_order_and_twice(
    family: str, engines: Any, question: Any, at: Any
) -> None:
    laws.ablation_is_by_hand(engines[family], question, at)


@every_family
@rounds(10)
@given(case=cases(st.one_of(patches("pair"), SCALES, STEERS), most_questions=2))
def test_what_equals_a_simpler_intervention_is_it(family: str, engines: Any, case: Case) -> None:
    with pytest.MonkeyPatch.context() as patch:
        # Really run, and not looked up.
        patch.setattr(Engine, "_canonical", lambda self, intervention, _: intervention)
        laws.simpler_interventions_are_the_same(engines[family], case)


@every_family
@rounds(10)
@given(case=cases(most_questions=3))
def test_swapped_answers_negate(family: str, engines: Any, case: Case) -> None:
    """P10: to the last bit."""
    laws.swapped_answers_negate(engines[family], case)


@every_family
@rounds(8)
@given(case=cases(ABLATIONS), layers=st.sets(LAYER, min_size=1))
def test_whole_streams_give_the_donors_logits(
    family: str, engines: Any, case: Case, layers: Any
) -> None:
    """P3: at the last layer, and at any other."""
    laws.whole_streams_give_the_donors_logits(engines[family], case, sorted(layers))


@every_family
@rounds(10)
@given(question=questions(1, 1), at=heads([N_LAYERS - 1]))
def test_the_mean_over_one_word_is_its_own_value(
    family: str, engines: Any, question: Any, at: Any
) -> None:
    laws.the_mean_over_one_token_is_its_own_value(engines[family], question, at)


@pytest.mark.parametrize("family", WITHOUT_BIASES)
@rounds(8)
@given(case=cases(heads().map(laws.AblateHeads)))
def test_zero_is_zero_folded_without_biases(family: str, engines: Any, case: Case) -> None:
    laws.zero_is_zero_folded(engines[family], case)


ANYWHERE: tuple[Positions, ...] = ("all", "subject")
LASTING = st.one_of(
    heads().map(laws.AblateHeads), SCALES, patches("pair").filter(lambda p: p.positions in ANYWHERE)
)


@every_family
@rounds(6)
@given(case=cases(LASTING, most_questions=2), last=st.sampled_from(ANSWERS))
def test_answers_of_one_token_have_their_ld(
    family: str, engines: Any, case: Case, last: str
) -> None:
    laws.short_answers_keep_their_figures(engines[family], case, last)


@every_family
@rounds(6)
@given(question=questions(), second=st.sampled_from(ANSWERS), at=heads())
def test_answers_are_chains_of_tokens(
    family: str, engines: Any, question: Any, second: str, at: Any
) -> None:
    laws.answers_are_chains(engines[family], question, second, at)
