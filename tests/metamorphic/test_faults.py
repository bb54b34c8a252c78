"""Each law finds its fault: with the code as it is it holds of a case, with a fault it does not.

Run: pytest tests/metamorphic/test_faults.py
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import pytest

from tests.conftest import N_LAYERS
from tests.metamorphic import faults, laws, stream_laws, table_laws
from tests.metamorphic.cases import Case, Question
from tests.metamorphic.table_laws import Order
from tests.synthetic_effects import LEADER, make_coalitions, make_patches, make_paths
from tests.synthetic_sweeps import make_sweep
from tinyablation.engine.engine import Engine
from tinyablation.interventions.interventions import (
    AblateHeads,
    PatchHeads,
    PatchMLP,
    PatchResidual,
    ScaleHeads,
)
from tinyablation.models.loading import load_model

SHORT = Question(("the", "capital", "of", "France", "is"), "Paris", "Rome", (3,), "Italy")
LONG = Question(
    ("Perhaps", "the", "color", "of", "snow", "is", "known", "to", "be"),
    "white",
    "red",
    (4,),
    "hot",
)
WORD = Question(("the",), "Paris", "Rome", (0,), "snow")
LAST = N_LAYERS - 1
ZERO, MEAN = AblateHeads(((0, 1),)), AblateHeads(((0, 1), (1, 2)), "mean")
RESAMPLE = AblateHeads(((0, 1),), "resample")
PATCH = PatchHeads(((0, 1), (0, 3)))
SEVERAL = Case((SHORT, LONG), (ZERO, ScaleHeads(((1, 2),), -1.0), MEAN, RESAMPLE, PATCH))
ONE = Case((SHORT,), (ZERO, MEAN, RESAMPLE))


class Trial(NamedTuple):
    """A fault, and the law that finds it on a case; of an engine of this family."""

    fault: faults.Fault
    law: Callable[[Engine], Any]
    family: str = "gpt2"


def padding(engine: Engine) -> None:
    laws.padding_does_not_matter(engine, [SHORT, LONG], [3, 0], [0, 2])


def company(engine: Engine) -> None:
    """Of another length, and of the same with a head of a later layer."""
    laws.company_does_not_matter(engine, ONE, Case((LONG,), (PatchMLP(1, donor="self"),)))
    later = AblateHeads(((0, 2), (1, 2)))
    laws.company_does_not_matter(engine, Case((SHORT,), (ZERO,)), Case((SHORT,), (later,)))


def order(engine: Engine) -> None:
    laws.order_does_not_matter(engine, SEVERAL, [1, 0], [4, 2, 0, 1, 3])


def reference(engine: Engine) -> None:
    laws.reference_order_does_not_matter(engine, replace(ONE, reference=(LONG.text,)))


def history(engine: Engine) -> None:
    laws.history_does_not_matter(
        Engine(engine.loaded), ONE, replace(SEVERAL, reference=(LONG.text,))
    )


def seed(engine: Engine) -> None:
    laws.only_what_is_drawn_depends_on_the_seed(engine, ONE, 1)


def identities(engine: Engine) -> None:
    shams = [PatchHeads(((0, 1),), "all", "self"), PatchResidual(1, 1, "subject", "self")]
    laws.identities_change_nothing(engine, SHORT, ((0, 1), (2, 3)), shams)


def by_hand(engine: Engine) -> None:
    laws.ablation_is_by_hand(engine, SHORT, [(0, 1), (0, 3), (0, 1)])


def simpler(engine: Engine) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Engine, "_canonical", lambda self, intervention, _: intervention)
        laws.simpler_interventions_are_the_same(
            engine, Case((SHORT,), (PatchResidual(1, 1, "last"), ScaleHeads(((0, 1),), 0.0)))
        )


def swapped(engine: Engine) -> None:
    laws.swapped_answers_negate(engine, ONE)


def donors_logits(engine: Engine) -> None:
    laws.whole_streams_give_the_donors_logits(engine, ONE, range(N_LAYERS))


def one_word(engine: Engine) -> None:
    laws.the_mean_over_one_token_is_its_own_value(engine, WORD, ((LAST, 0), (LAST, 2)))


def folded(engine: Engine) -> None:
    laws.zero_is_zero_folded(engine, Case((SHORT,), (ZERO,)))


def spans_of_one(engine: Engine) -> None:
    laws.short_answers_keep_their_figures(engine, Case((SHORT, LONG), (ZERO,)), "Tokyo")


def chains(engine: Engine) -> None:
    laws.answers_are_chains(engine, SHORT, "Tokyo", ((0, 1),))


def adding(engine: Engine) -> None:
    stream_laws.changes_in_the_last_layer_add(engine, SHORT, ((LAST, 0), (LAST, 2)), "zero")


def summing(engine: Engine) -> None:
    stream_laws.head_outputs_sum_to_the_attention(engine, [SHORT, LONG])


def leaving(engine: Engine) -> None:
    """Broken off at every place; a fault may leave the model spoilt, so it is a fresh one."""
    interventions = (AblateHeads(((0, 1), (1, 2))), PatchMLP(1, 1, "all"), PatchMLP(LAST))
    for place in stream_laws.PLACES:
        fresh = Engine(load_model(engine.loaded.entry))
        case, error = Case((SHORT,), interventions), stream_laws.Interrupted("broken off")
        for calls in range(5):
            stream_laws.the_model_is_left_as_it_was(fresh, case, place, calls, error)


DEAF = faults.without("attention_mask", "position_ids")
TRIALS = {
    "at the last index, in company": Trial(faults.at_the_last_index, company),
    # Without a mask, transformers makes one where positions start anew: both must go.
    "deaf to the mask": Trial(DEAF, padding),
    "deaf to the mask, rotary": Trial(DEAF, padding, "llama"),
    "deaf to positions": Trial(faults.without("position_ids"), padding),
    "leaking rows": Trial(faults.leaking_rows, company),
    "donors by the example's number": Trial(faults.donors_by_number, order),
    "donors in the reference's order": Trial(faults.donors_in_order, reference),
    "donors by chance": Trial(faults.donors_by_chance, seed),
    "means by the seed": Trial(faults.means_by_the_seed, seed),
    "the first mean kept": Trial(faults.first_mean_kept, history),
    "scale 1 is zero": Trial(faults.one_is_zero, identities),
    "donors one position off": Trial(faults.donors_one_off, identities),
    "the next head": Trial(faults.next_head, by_hand),
    "the next head, grouped queries": Trial(faults.next_head, by_hand, "mistral"),
    "the first head only": Trial(faults.first_head_only, by_hand),
    "the lowest of a window": Trial(faults.lowest_of_the_window, simpler),
    "LD without its sign": Trial(faults.size_of_ld, swapped),
    "streams one position off": Trial(faults.donors_one_off, donors_logits),
    "BOS averaged": Trial(faults.bos_averaged, one_word),
    "something folded without biases": Trial(faults.folded_constant, folded, "llama"),
    "foils for targets": Trial(faults.foils_for_targets, chains),
    "the neighbour's tokens": Trial(faults.neighbours_tokens, spans_of_one),
    "the mean of several heads": Trial(faults.mean_of_heads, adding),
    "a path for an ablation": Trial(faults.path_through_the_clean_mlp, adding),
    "W_O on its side": Trial(faults.matrix_on_its_side, summing, "neox"),
    "hooks left": Trial(faults.hooks_left, leaving),
    "stubs left": Trial(faults.stubs_left, leaving, "llama"),
}


@pytest.mark.parametrize("name", TRIALS)
def test_a_law_of_the_engine_finds_its_fault(
    name: str, engines: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = TRIALS[name]
    engine = Engine(engines[trial.family].loaded)  # a fault must not stay in what others use
    trial.law(engine)
    with monkeypatch.context() as patch:
        trial.fault(patch)
        with pytest.raises(AssertionError):
            trial.law(Engine(engine.loaded))
    trial.law(Engine(engine.loaded))


# --- tables --------------------------------------------------------------------------------------

TURNED = Order("reversed", 3, columns_reversed=True, index_kept=False, seed=0)
RECOVERIES = {(layer, "last"): 0.3 * layer for layer in range(4)}


def sweeps() -> None:
    one = make_sweep({(0, 0): 1.0, (1, 2): -0.5}, n_clusters=8, per_cluster=2)
    two = replace(one, table=TURNED.of(one.table), _cache={})
    table_laws.figures_do_not_depend_on_order(table_laws.sweep_figures, one, two)


def coalitions() -> None:
    one = make_coalitions({LEADER: 1.0})
    two = replace(one, table=TURNED.of(one.table), _cache={})
    table_laws.figures_do_not_depend_on_order(table_laws.coalition_figures, one, two)


def paths() -> None:
    one = make_paths(1.0, {1: 0.5, 4: 0.3})
    two = replace(one, table=TURNED.of(one.table), _cache={})
    table_laws.figures_do_not_depend_on_order(table_laws.path_figures, one, two)


def patches() -> None:
    one = make_patches(RECOVERIES, {**RECOVERIES, (2, "last"): 0.9})
    other = replace(one.denoising, table=TURNED.of(one.denoising.table), _cache={})
    two = replace(one, denoising=other, _cache={})
    table_laws.figures_do_not_depend_on_order(table_laws.patch_figures, one, two)


def means() -> None:
    table = make_sweep({(0, 0): 1.0}, n_clusters=8, per_cluster=2).table
    table_laws.means_do_not_depend_on_order(table, replace(TURNED, rows="shuffled"))


TABLES: dict[str, tuple[faults.Fault, Callable[[], None]]] = {
    "the baseline as it comes": (faults.baseline_as_it_comes, sweeps),
    "heads as they come": (faults.heads_as_they_come, sweeps),
    "sets as they come": (faults.sets_as_they_come, coalitions),
    "values as they come": (faults.values_as_they_come, paths),
    "the last column read": (faults.last_column_read, sweeps),
    "gaps as they come": (faults.gaps_as_they_come, patches),
    "examples by their place": (faults.examples_by_place, means),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_law_of_tables_finds_its_fault(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fault, law = TABLES[name]
    law()
    fault(monkeypatch)
    with pytest.raises((AssertionError, KeyError)):  # rows may be of no example that there is
        law()


def test_every_fault_is_tried() -> None:
    tried = {trial.fault for trial in TRIALS.values()} | {fault for fault, _ in TABLES.values()}
    own = {
        name
        for name, each in vars(faults).items()
        if getattr(each, "__module__", "") == faults.__name__ and not name.startswith("_")
    }
    # Two make faults; what they make has no name of its own.
    assert {name for name in own if getattr(faults, name) not in tried} <= {"without"}
