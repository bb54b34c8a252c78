"""Every claim of the literature pack comes out either way, on made-up figures.

Run: pytest tests/test_literature_claims.py
"""

import ast
import inspect
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from claims.literature import test_causal_tracing as rome
from claims.literature import test_copy_suppression as suppression
from claims.literature import test_dual_routes as dual
from claims.literature import test_forming as forming
from claims.literature import test_greater_than as years
from claims.literature import test_indirect_objects as ioi
from claims.literature import test_induction as induction
from claims.literature import test_layers as layers
from claims.literature import test_self_repair as repair
from claims.literature import test_sinks as sinks
from claims.literature import test_successors as successors
from tests.analysis.test_layer_removal import made as made_removal
from tests.synthetic_effects import make_table, noise
from tests.synthetic_sweeps import HEADS, LAYERS, make_sweep
from tinyablation.analysis.attention import Attention
from tinyablation.analysis.attention_course import AttentionCourse
from tinyablation.analysis.coalitions import set_name
from tinyablation.analysis.direct_effects import DirectEffects
from tinyablation.analysis.knockouts import Knockouts
from tinyablation.analysis.layer_removal import LayerRemoval
from tinyablation.analysis.successors import SuccessorScores
from tinyablation.analysis.tracing import Trace
from tinyablation.analysis.weight_diagonals import DiagonalShares
from tinyablation.corpora.examples import BOTH
from tinyablation.corpora.ordinals import SEQUENCES, successor_of
from tinyablation.engine.document import Computed
from tinyablation.heads import Head
from tinyablation.interventions.head_sets import CopySuppressors
from tinyablation.interventions.interventions import AblateHeads
from tinyablation.interventions.tracing import Tracing
from tinyablation.plugin.selection import read_docstring
from tinyablation.records.audit import PLANTED, declared
from tinyablation.verdicts.listener import hear

MODULES = (
    induction,
    sinks,
    suppression,
    ioi,
    years,
    rome,
    repair,
    layers,
    successors,
    dual,
    forming,
)
N = 40
ONE, OTHER, QUIET = Head(2, 1), Head(1, 3), Head(1, 0)
LD = 4.0  # the clean logit difference of make_table


# --- what the fixtures would give ----------------------------------------------------------------


def attention(seed: int = 0, /, **means: dict[Head, float]) -> Attention:
    """Scores by head on 40 sequences; heads that are not named have next to none."""
    rng = np.random.default_rng(seed)
    scores = {}
    for score, of in means.items():
        values = rng.uniform(0, 0.05, (N, LAYERS, HEADS))
        for head, mean in of.items():
            values[:, head.layer, head.head] = mean + rng.uniform(-0.04, 0.04, N)
        scores[score] = np.clip(values, 0, 1)
    document = {"model": "made-up", "inputs": "tokens", "seed": 0, "ids": []}
    return Attention(Computed(document, scores), ("made-up-attention",))


def course(induction: list[float], sinks: list[float]) -> AttentionCourse:
    """By step: the induction score of ONE, and the share of heads that are sinks."""
    heads = list(every(0))
    return AttentionCourse(
        "made-up",
        tuple(range(len(sinks))),
        tuple(attention(step, induction={ONE: mean}) for step, mean in enumerate(induction)),
        tuple(
            attention(step, sink=dict.fromkeys(heads[: round(share * len(heads))], 0.8))
            for step, share in enumerate(sinks)
        ),
    )


def every(mean: float) -> dict[Head, float]:
    return {Head(layer, head): mean for layer in range(LAYERS) for head in range(HEADS)}


def knockout(**lost: float | tuple[float, ...]):
    """knockout(condition, *sets): the first set loses this share of LD, further sets nothing.

    Or as many shares as sets.
    """

    def measured(condition, *sets):
        shares = lost[condition]
        if isinstance(shares, float):
            shares = (shares, *[lost.get("others", 0.0)] * (len(sets) - 1))
        edits = [AblateHeads(tuple(sorted(heads))) for heads in sets]
        changes = {
            edit.label: -share * LD + noise(0.05, number)
            for number, (edit, share) in enumerate(zip(edits, shares, strict=True))
        }
        table = make_table(changes, interventions=edits)
        return Knockouts("made-up", condition, table, 1e-6, 0, ("made-up-run",))

    return measured


def written(direct: dict[Head, float], total: dict[Head, float], norm: float = 1.0):
    """Direct effects of heads: what they write into LD, what zeroing does, what the norm leaves."""
    sweep = make_sweep(total, spread=0.1)
    clusters = np.unique(sweep.clusters(BOTH), return_inverse=True)[1]
    rng = np.random.default_rng(1)
    values = 0.02 * rng.normal(size=(len(clusters), LAYERS, HEADS))
    for head, mean in direct.items():
        values[:, head.layer, head.head] += mean
    return DirectEffects(sweep, values, norm * values, ("made-up-reading",))


def diagonals(suppressed: float, sought: float = 0.0) -> DiagonalShares:
    """Of ONE: the share of 1,000 tokens whose own logit is lowest, and whose own key is highest."""
    n = size = 1000
    below = np.full((2, n), 500)
    below[1, : round(suppressed * n)] = 0
    above_key = np.full((2, n), 500)
    above_key[1, : round(sought * n)] = 0
    document = {
        "model": "made-up",
        "heads": [{"layer": h.layer, "head": h.head} for h in (OTHER, ONE)],
        "vocab_size": size,
        "n_tokens": n,
    }
    places = {"ov.below": below, "ov.above": size - 1 - below}
    places |= {"qk.above": above_key, "qk.below": size - 1 - above_key}
    return DiagonalShares(Computed(document, places), ("made-up-diagonals",))


def succeeding(share: float, n_words: int = 99) -> SuccessorScores:
    """Of ONE: the share of words whose successor it writes; OTHER copies."""
    words = [*dict.fromkeys(word for each in SEQUENCES for word in each.words)][:n_words]
    written = np.tile(np.eye(len(words), dtype=np.float32), (2, 1, 1))
    pairs = [(word, after) for word, (after, _) in successor_of().items() if after in words]
    for word, after in pairs[: round(share * len(pairs))]:
        written[1, words.index(word), words.index(after)] = 2
    heads = [{"layer": head.layer, "head": head.head} for head in (OTHER, ONE)]
    document = {"model": "made-up", "heads": heads, "words": words}
    return SuccessorScores(Computed(document, {"written": written}), ("made-up-circuits",))


def suppressing(explained: float):
    """Findings whose head does what it does by copy suppression, to this share."""
    battery = CopySuppressors((ONE,))
    edits = [battery.ablated(ONE, LAYERS), battery.kept(ONE)]
    table = make_table({edit.label: 0.0 for edit in edits})
    for edit, kl in zip(edits, (1.0, 1 - explained), strict=True):
        own = table["intervention"] == edit.label
        table.loc[own, "kl"] = kl + noise(0.02, round(10 * kl))
    from tinyablation.analysis.copy_suppression import Suppression

    found = Suppression(
        "made-up", "facts", table, 1e-6, 0, ("made-up-run",), battery=battery, n_layers=LAYERS
    )
    return SimpleNamespace(
        diagonals=lambda wanted: diagonals(0.8), copy_suppression=lambda *asked: found
    )


def traced(mlp: list[float], attentions: list[float]) -> Trace:
    """Probability that MLPs and attentions bring back by layer; noise takes .4 of .5."""
    tracing = Tracing(("mlp", "attention"), ("subject-last",), window=0, draws=1)
    labels = [each.label for each in tracing.noises()]
    back = dict.fromkeys(labels, 0.0)
    for part, of in (("mlp", mlp), ("attention", attentions)):
        for layer, value in enumerate(of):
            back[tracing.restored(part, layer, "subject-last")[0].label] = value
    table = make_table(dict.fromkeys(back, 0.0))
    for number, (label, value) in enumerate(back.items()):
        own = table["intervention"] == label
        table.loc[own, "target_probability"] = 0.1 + value + noise(0.005, number)
    runs = ("made-up-run",)
    return Trace("made-up", "facts", table, 1e-6, 0, runs, tracing=tracing, n_layers=len(mlp))


def without(changes: list[float]) -> LayerRemoval:
    """Losses whose change without each layer is this."""
    return replace(made_removal(changes), runs=("made-up-run",))


# --- claims, of what they are true and of what they are false ------------------------------------

INDUCTS = {"repeated_tokens": attention(induction={ONE: 0.9})}
PREVIOUS = {"random_tokens": attention(previous_token={OTHER: 0.9}, sink=every(0.8))}
FLAT = {"random_tokens": attention(previous_token={}, sink=every(0.1))}
UPPER = {head: 0.8 for head in every(0) if head.layer > 1}
IN = {"repeats": {"condition": "repeats"}, "prose": {"condition": "natural_repeats"}}
# ONE is a token head too, and QUIET attends to the beginning of words more.
WORDS = attention(concept={ONE: 0.4, OTHER: 0.3, QUIET: 0.2}, induction={ONE: 0.3, QUIET: 0.4})
ROUTES = {**INDUCTS, "findings": SimpleNamespace(attention=lambda wanted: WORDS)}
LEADERS = {ONE: 2.0, OTHER: 1.8, Head(2, 0): 1.6}

CASES = {
    induction.test_some_head_inducts: (
        INDUCTS,
        {"repeated_tokens": attention(induction={ONE: 0.2})},
    ),
    induction.test_zeroing_induction_heads_destroys_copying: (
        {**INDUCTS, **IN["repeats"], "knockout": knockout(repeats=0.9)},
        {**INDUCTS, **IN["repeats"], "knockout": knockout(repeats=0.9, others=0.9)},
    ),
    induction.test_induction_heads_copy_names_in_prose: (
        {**INDUCTS, **IN["prose"], "knockout": knockout(natural_repeats=0.8)},
        {**INDUCTS, **IN["prose"], "knockout": knockout(natural_repeats=0.2)},
    ),
    induction.test_induction_heads_copy_and_know_no_facts: (
        {**INDUCTS, "knockout": knockout(repeats=0.9, facts=0.01)},
        {**INDUCTS, "knockout": knockout(repeats=0.9, facts=0.4)},
    ),
    induction.test_some_head_attends_to_the_previous_token: (PREVIOUS, FLAT),
    induction.test_previous_token_heads_serve_induction_and_no_facts: (
        {**PREVIOUS, "knockout": knockout(repeats=0.9, facts=0.01)},
        {**PREVIOUS, "knockout": knockout(repeats=0.1, facts=0.01)},
    ),
    sinks.test_most_heads_attend_to_the_first_token: (PREVIOUS, FLAT),
    sinks.test_sinks_vanish_where_no_token_is_the_first: (
        {"one_token": attention(sink=every(0.07))},
        {"one_token": attention(sink=every(0.6))},
    ),
    sinks.test_the_first_two_layers_have_no_sinks: (
        {"random_tokens": attention(sink=UPPER)},
        PREVIOUS,
    ),
    sinks.test_zeroing_sinks_spares_copying: (
        {**PREVIOUS, **IN["repeats"], "knockout": knockout(repeats=0.01)},
        {**PREVIOUS, **IN["repeats"], "knockout": knockout(repeats=0.4)},
    ),
    suppression.test_some_head_suppresses_the_tokens_it_attends_to: tuple(
        {
            "some_diagonals": diagonals(share),
            "findings": SimpleNamespace(diagonals=lambda wanted, share=share: diagonals(share)),
        }
        for share in (0.85, 0.1)
    ),
    suppression.test_the_suppressor_attends_to_what_is_predicted: tuple(
        {
            "some_diagonals": diagonals(0.8),
            "findings": SimpleNamespace(
                diagonals=lambda wanted, share=share: diagonals(0.8, share)
            ),
        }
        for share in (0.95, 0.1)
    ),
    suppression.test_copy_suppression_is_most_of_what_the_head_does: tuple(
        {"some_diagonals": diagonals(0.8), "findings": suppressing(share), "valid": "facts"}
        for share in (0.8, 0.2)
    ),
    ioi.test_three_heads_write_the_answer: (
        {"direct_effects": written(LEADERS, {})},
        {"direct_effects": written({ONE: 2.0}, {})},
    ),
    ioi.test_other_heads_make_up_for_the_three: tuple(
        {
            "direct_effects": written(LEADERS, {}),
            "condition": "ioi",
            "knockout": knockout(ioi=share),
        }
        for share in (0.02, 0.5)
    ),
    ioi.test_some_head_writes_against_the_answer: (
        {"direct_effects": written({ONE: -1.0}, {ONE: 1.0})},
        {"direct_effects": written({ONE: -1.0}, {ONE: -0.5})},
    ),
    years.test_a_few_heads_carry_the_comparison: tuple(
        {
            "direct_effects": written(LEADERS, {}),
            "condition": "greater_than",
            "knockout": knockout(greater_than=share),
        }
        for share in (0.8, 0.2)
    ),
    rome.test_mlps_restore_more_than_attentions: (
        {"trace": traced([0.1, 0.3, 0.1, 0.0], [0.0, 0.05, 0.0, 0.0])},
        {"trace": traced([0.0, 0.05, 0.0, 0.0], [0.1, 0.3, 0.1, 0.0])},
    ),
    rome.test_early_mlps_restore_more_than_late_ones: (
        {"trace": traced([0.2, 0.3, 0.1, 0.0], [0.0] * 4)},
        {"trace": traced([0.0, 0.1, 0.3, 0.2], [0.0] * 4)},
    ),
    repair.test_later_layers_repair_what_a_head_leaves_out: (
        {"direct_effects": written({ONE: 2.0}, {ONE: -1.0})},
        {"direct_effects": written({ONE: 2.0}, {ONE: -3.0})},
    ),
    repair.test_the_final_norm_repairs_little: (
        {"direct_effects": written({ONE: 2.0}, {}, norm=0.9)},
        {"direct_effects": written({ONE: 2.0}, {}, norm=0.4)},
    ),
    successors.test_some_head_writes_the_successor: tuple(
        {"successor_scores": succeeding(share)} for share in (0.8, 0.2)
    ),
    successors.test_the_head_serves_successors_above_all: tuple(
        {
            "successor_scores": succeeding(0.8),
            "condition": "ioi",
            "knockout": knockout(successors=lost, ioi=0.1),
        }
        for lost in (0.4, 0.1)
    ),
    dual.test_token_heads_copy_and_concept_heads_recall: (
        {**ROUTES, "knockout": knockout(repeats=(0.9, 0.1), facts=(0.1, 0.5))},
        {**ROUTES, "knockout": knockout(repeats=(0.9, 0.1), facts=(0.1, 0.1))},
    ),
    forming.test_induction_forms_during_training: (
        {"attention_course": course([0.1, 0.5, 0.8], [0, 0, 0.5])},
        {"attention_course": course([0.7, 0.8, 0.8], [0, 0, 0.5])},
    ),
    forming.test_induction_forms_before_sinks: (
        {"attention_course": course([0.1, 0.6, 0.8], [0, 0, 0.5])},
        {"attention_course": course([0.1, 0.1, 0.8], [0, 0.5, 0.5])},
    ),
    layers.test_four_layers_are_critical: (
        {"layer_removal": without([0.1] * 8 + [1.5] * 4 + [0.1] * 8)},
        {"layer_removal": without([0.1] * 20)},
    ),
    layers.test_two_layers_are_better_left_out: (
        {"layer_removal": without([0.1] * 14 + [-0.2, 0.1, 0.1, -0.2, 0.1])},
        {"layer_removal": without([0.1] * 14 + [-0.2, 0.1, 0.1, 0.2, 0.1])},
    ),
}


def test_every_claim_of_the_pack_is_here():
    marked = set()
    for module in MODULES:
        for node in ast.parse(Path(module.__file__).read_text("utf-8")).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                marked.add(getattr(module, node.name))
    assert marked == CASES.keys()
    folder = Path(induction.__file__).parent
    assert {Path(module.__file__) for module in MODULES} == set(folder.glob("test_*.py"))


def test_a_planted_control_that_a_claim_declares_is_a_test():
    """On models: figures made up, as below, are none."""
    there = Path(__file__).parent
    controls = [*there.glob("test_*_controls.py"), there / "test_literature_models.py"]
    tests = "".join(path.read_text("utf-8") for path in controls)
    planted = [
        claim.__name__
        for claim in CASES
        if PLANTED in declared(read_docstring(claim.__doc__).audit)
    ]
    assert len(planted) >= 18 and all(f".{name}" in tests for name in planted), planted


@pytest.mark.parametrize("claim", CASES, ids=lambda claim: claim.__name__)
def test_a_claim_comes_out_either_way(claim):
    for given, status in zip(CASES[claim], ("supported", "refuted"), strict=True):
        assert {*given, "judge"} == set(inspect.signature(claim).parameters)
        heard = hear(claim, **given)
        assert heard.verdict.status == status, heard.verdict.reason
        assert heard.given.get("runs") or heard.verdict.runs


def test_zeroed_heads_are_those_that_discovery_chose():
    heard = hear(
        induction.test_zeroing_induction_heads_destroys_copying,
        **CASES[induction.test_zeroing_induction_heads_destroys_copying][0],
    )
    assert heard.given["subject"] == set_name([ONE])
    (matched,) = [Head.parse(heard.given["details"]["matched heads"])]
    assert matched.layer == ONE.layer and matched != ONE


def test_a_claim_about_heads_that_are_not_there_is_blocked():
    flat = attention(induction={ONE: 0.2})
    with pytest.raises(StopIteration):
        induction.induction_heads(flat, blocked_with("no head of made-up has a prefix-matching"))
    with pytest.raises(StopIteration):
        said = "no head of made-up attends to the end of the word"
        dual.concept_heads(WORDS, (ONE, OTHER), blocked_with(said))
    assert dual.concept_heads(WORDS, (ONE,), None) == (OTHER,)


EVERY_HEAD_WRITES = every(0.5) | {ONE: 0.1}
LOW, NO_SUPPRESSOR = diagonals(0.05), suppressing(0.8)
NO_SUPPRESSOR.diagonals = lambda wanted: diagonals(0.05, 0.95)


@pytest.mark.parametrize(
    ("claim", "given"),
    [
        # Zeroing the head raises LD, but no head writes against the answer.
        (
            ioi.test_some_head_writes_against_the_answer,
            {"direct_effects": written(EVERY_HEAD_WRITES, {ONE: 1.0})},
        ),
        # Nothing is lost without three heads that write nothing.
        (
            ioi.test_other_heads_make_up_for_the_three,
            {
                "direct_effects": written({}, {}),
                "condition": "ioi",
                "knockout": knockout(ioi=0.0),
            },
        ),
        # The leading head lowers the own logit of 5 % of the tokens.
        (
            suppression.test_the_suppressor_attends_to_what_is_predicted,
            {"some_diagonals": LOW, "findings": NO_SUPPRESSOR},
        ),
        (
            suppression.test_copy_suppression_is_most_of_what_the_head_does,
            {"some_diagonals": LOW, "findings": NO_SUPPRESSOR, "valid": "facts"},
        ),
    ],
    ids=["IOI.3", "IOI.2", "CS.2", "CS.3"],
)
def test_a_claim_about_what_is_not_there_is_not_supported(claim, given):
    found = hear(claim, **given).verdict
    assert found.status == "inconclusive", found.reason


def test_few_sinks_are_named_and_not_said_to_be_none():
    """One head of sixteen is a sink in every sequence, which is less than a tenth."""
    scores = np.full((N, 2, 8), 0.05)
    scores[:, 0, 3] = 0.8 + 0.1 * np.random.default_rng(0).random(N)
    document = {"model": "made-up", "inputs": "tokens", "seed": 0, "ids": []}
    reading = Attention(Computed(document, {"sink": scores}), ("made-up-attention",))
    claim = sinks.test_the_first_two_layers_have_no_sinks
    found = hear(claim, random_tokens=reading)
    assert found.verdict.status == "supported" and found.given["details"]["sinks"] == "0:3"
    assert read_docstring(claim.__doc__).statement.startswith("Hardly any head")


def test_a_successor_head_need_not_know_every_sequence():
    """Three sequences have most of the words, so that the claim may not speak of each."""
    words = [*dict.fromkeys(word for each in SEQUENCES for word in each.words)]
    known = {"letters", "numerals", "ordinals"}
    reading = succeeding(0.0)
    for word, (after, sequence) in successor_of().items():
        reading.tensors["written"][1, words.index(word), words.index(after)] += 2 * (
            sequence in known
        )
    claim = successors.test_some_head_writes_the_successor
    found = hear(claim, successor_scores=reading)
    assert found.verdict.status == "supported"
    by_sequence = found.given["details"]["by sequence"]
    assert {name for name, share in by_sequence.items() if share == 1} == known
    assert "all sequences together" in read_docstring(claim.__doc__).statement


@pytest.mark.parametrize(
    ("claim", "given", "status", "said"),
    [
        # 43 % of the tokens are exceptions.
        (
            suppression.test_some_head_suppresses_the_tokens_it_attends_to,
            {
                "some_diagonals": diagonals(0.57),
                "findings": SimpleNamespace(diagonals=lambda wanted: diagonals(0.57)),
            },
            "supported",
            "of most tokens",
        ),
        # LD falls from 4 to .8, so that every later year is preferred as before.
        (
            years.test_a_few_heads_carry_the_comparison,
            CASES[years.test_a_few_heads_carry_the_comparison][0],
            "supported",
            "most of the preference is lost",
        ),
        # Layer 14 is better left out.
        (
            layers.test_two_layers_are_better_left_out,
            CASES[layers.test_two_layers_are_better_left_out][1],
            "refuted",
            "and so does removing layer 17",
        ),
        # Without the head LD rises: half as much again is made up for.
        (
            repair.test_later_layers_repair_what_a_head_leaves_out,
            {"direct_effects": written({ONE: 2.0}, {ONE: 1.0})},
            "supported",
            "at least partly made up for",
        ),
    ],
    ids=["CS.1", "GT.1", "LAYER.2", "REP.1"],
)
def test_a_sentence_says_what_is_judged(claim, given, status, said):
    assert hear(claim, **given).verdict.status == status
    assert said in read_docstring(claim.__doc__).statement


def test_one_head_that_gains_nothing_does_not_say_that_none_does():
    """OTHER writes as much against the answer, and what zeroing it does is not known."""
    effects = written({ONE: -1.0, OTHER: -0.9}, {ONE: -0.5})
    found = hear(ioi.test_some_head_writes_against_the_answer, direct_effects=effects).verdict
    assert found.status == "inconclusive", found.reason
    assert "of 11 heads 1 are not excluded: 1:3" in found.reason


@pytest.mark.parametrize(
    "claim",
    [claim for claim in CASES if "knockout" in CASES[claim][0]],
    ids=lambda claim: claim.__name__,
)
@pytest.mark.parametrize("clean", [-1.0, 0.0])
def test_of_a_wrong_or_no_preference_nothing_can_be_lost(claim, clean):
    """A model that prefers the wrong answer, and more so without the heads, has lost nothing."""
    given = CASES[claim][0]

    def measured(condition, *sets):
        found = given["knockout"](condition, *sets)
        return replace(
            found, table=found.table.assign(logit_diff=found.table.logit_diff - LD + clean)
        )

    found = hear(claim, **{**given, "knockout": measured})
    assert found.verdict.status == "blocked", found.verdict.reason
    assert "not wholly above 0" in found.verdict.reason


@pytest.mark.parametrize(
    "claim",
    [
        repair.test_later_layers_repair_what_a_head_leaves_out,
        repair.test_the_final_norm_repairs_little,
    ],
)
def test_nothing_can_be_repaired_where_no_head_writes(claim):
    found = hear(claim, direct_effects=written({ONE: 1e-4}, {ONE: 0.0})).verdict
    assert found.status == "blocked" and "no effect to take a share of" in found.reason


@pytest.mark.parametrize(
    ("inducting", "said"),
    [
        # Five are zeroed; the other two induct as well, and are no controls.
        ([Head(2, n) for n in range(4)] + [Head(1, n) for n in range(3)], "1 left to match 5"),
        ([Head(2, n) for n in range(3)], "1 left to match 3"),
        ([Head(2, n) for n in range(4)], "none is left to match 4"),
    ],
)
def test_induction_heads_are_compared_with_as_many_that_do_not_induct(inducting, said):
    found = hear(
        induction.test_zeroing_induction_heads_destroys_copying,
        repeated_tokens=attention(induction=dict.fromkeys(inducting, 0.9)),
        **IN["repeats"],
        knockout=knockout(repeats=0.9, others=0.9),
    )
    assert found.verdict.status == "blocked" and said in found.verdict.reason


def test_a_sixth_token_head_is_no_concept_head():
    six = [Head(2, 0), Head(2, 1), Head(2, 2), Head(1, 1), Head(1, 2), OTHER]
    scores = {head: 0.95 - 0.02 * place for place, head in enumerate(six)}
    words = attention(concept={OTHER: 0.4, QUIET: 0.3}, induction={})
    found = hear(
        dual.test_token_heads_copy_and_concept_heads_recall,
        repeated_tokens=attention(induction=scores),
        findings=SimpleNamespace(attention=lambda wanted: words),
        knockout=knockout(repeats=(0.9, 0.1), facts=(0.1, 0.5)),
    )
    assert found.given["details"]["concept heads"] == set_name([QUIET])


def test_successors_are_asked_of_tokenizers_that_have_the_words():
    head = successors.successor_head(succeeding(0.8), None)
    assert head == ONE
    with pytest.raises(StopIteration):
        few = succeeding(0.8, n_words=12)
        successors.successor_head(few, blocked_with("the tokenizer of made-up has"))


def blocked_with(reason):
    def judge(verdict):
        assert verdict.status == "blocked" and verdict.reason.startswith(reason)
        raise StopIteration

    return judge
