"""Every claim, judged on made-up measurements: it can be supported, and it can be refuted.

Run: pytest tests/test_claims_can_fail.py
"""

from dataclasses import replace
from inspect import signature

import numpy as np
import pandas
import pytest

from claims.suppressors import test_h1_suppressors as h1
from claims.suppressors import test_validity as validity
from tests.synthetic_sweeps import HEADS, make_sweep
from tinyablation.heads import Head
from tinyablation.measurement.validity import Tables, condition_validity, counting, family_validity
from tinyablation.verdicts.floors import figure
from tinyablation.verdicts.listener import hear
from tinyablation.verdicts.subjects import Subject

NAMED = Subject(suppressor="0:2", trio=["0:2", "0:0", "0:1"], source="planted")
PLANTED = {(0, 2): 1.0}
NOTHING = {}
ELSEWHERE = {(0, 2): 0.5, (2, 1): 1.5}
OTHER_HEAD = {(0, 3): 1.0}
SMALL = {(0, 2): 0.08}  # 2 % of the clean LD: told from zero, and below the floor


class Model:
    seed = 0


def sweep_with(effects):
    # A small effect is only told from zero, and from the floor, where heads vary little.
    return make_sweep(effects, spread=0.03 if effects is SMALL else 0.2)


def judged(claim, *arguments):
    return hear(claim, *arguments).verdict


def judged_validity(claim, made):
    """A claim of V on these rows, which give what it asks for."""
    given = {
        "unhooked": made,
        "counting": made.of(*(counting(family_validity(made)) or made.families)),
        "validity": condition_validity(made),
        "model": Model(),
    }
    return judged(claim, *(given[name] for name in signature(claim).parameters if name != "judge"))


@pytest.mark.parametrize(
    ("effects", "status"),
    [
        (PLANTED, "supported"),
        (OTHER_HEAD, "supported"),
        (NOTHING, "refuted"),
        (ELSEWHERE, "refuted"),
        (SMALL, "present"),
        ({(0, 2): 0.2}, "present"),
        ({(0, 2): 0.2, (1, 1): 0.2}, "inconclusive"),  # there, but perhaps not first
    ],
)
def test_h1_1_top_suppressor(effects, status):
    sweep = sweep_with(effects)
    assert judged(h1.test_top_suppressor_is_in_layer_zero, sweep, sweep).status == status


def with_an_open_head(effects, mean, spread):
    """0:1 has this mean Delta in either half, and varies by cluster more than other heads do."""
    sweep = make_sweep(effects)
    table = sweep.table.copy()
    own = (table["head"] == 1) & (table["layer"] == 0)
    clean = table[table["method"] == "none"].set_index("example")["logit_diff"]
    drawn = np.random.default_rng(3).normal(0, spread, 24)
    for half in (0, 1):  # clusters alternate between the splits
        drawn[half::2] += mean - drawn[half::2].mean()
    example = table.loc[own, "example"].to_numpy()
    table.loc[own, "logit_diff"] = clean.loc[example].to_numpy() + drawn[example // 4]
    return replace(sweep, table=table, _cache={})


@pytest.mark.parametrize(
    ("effects", "mean", "spread", "status"),
    [
        ({}, -0.04, 0.7, "inconclusive"),  # it may lie above the floor of .2
        ({}, -0.2, 0.2, "refuted"),
        ({(1, 1): 1.5}, -0.04, 0.7, "refuted"),  # it may, but does surely less than 1:1
        ({(0, 2): 0.5, (1, 1): 1.0}, 0.4, 1.8, "inconclusive"),  # it may do more than 1:1
        ({(0, 2): 0.5, (1, 1): 1.0}, 0.4, 0.2, "refuted"),
        ({(0, 2): 1.0}, -0.04, 0.7, "supported"),
    ],
)
def test_h1_1_is_refuted_only_where_no_head_of_layer_0_can_be_it(effects, mean, spread, status):
    """As "some head" of B.1 and B.2; the chosen head alone falls short in all but the last."""
    sweep = with_an_open_head(effects, mean, spread)
    verdict = judged(h1.test_top_suppressor_is_in_layer_zero, sweep, sweep)
    assert verdict.status == status, verdict.reason
    assert sweep.choose(sweep.layer(0)).head != (0, 1)
    if status == "inconclusive":
        low, high = (figure(end) for end in sweep.effect((0, 1), split="both")[1:3])
        left = f"of 4 heads 1 are not excluded: 0:1 has the interval [{low}, {high}]"
        assert verdict.reason.endswith(left)
        assert verdict.p_value is None


def test_h1_1_a_head_is_excluded_by_either_of_two_parts_corrected_for_both():
    """Its p of .0125 to .025 alone would exclude it."""
    sweeps = [with_an_open_head({}, mean, 0.5) for mean in (-0.25, -0.1, 0.0)]
    seen = set()
    for sweep in sweeps:
        elsewhere = [head for head in sweep.heads if head[0] != 0]
        rival = sweep.choose(elsewhere)
        found = h1._may_top(sweep, Head(0, 1), rival, elsewhere, "both")
        p = sweep.suppresses(Head(0, 1)).p_refuted
        assert found.p_refuted == 2 * p and found.falls_short == (p <= 0.0125)
        seen.add((bool(p <= 0.0125), bool(p <= 0.025)))
    assert seen == {(True, True), (False, True), (False, False)}


def test_h1_1_is_as_far_from_its_bounds_as_the_best_head_of_layer_0():
    claim = h1.test_top_suppressor_is_in_layer_zero
    for effects in ({(0, 2): 1.0, (1, 1): 0.3}, {(0, 2): 0.3, (1, 1): 1.0}, {(0, 2): -1.0}):
        sweep = make_sweep(effects)
        means = sweep.mean_deltas("both")
        most = max(mean for head, mean in means.items() if head[0] != 0)
        best = max(
            min(sweep.suppresses(head).distance, means[head] - most) for head in sweep.layer(0)
        )
        assert judged(claim, sweep, sweep).distance == pytest.approx(best, abs=0.02)


@pytest.mark.parametrize(
    ("effects", "status"),
    [
        (PLANTED, "supported"),
        (ELSEWHERE, "supported"),  # what leads in another layer is no rival
        (OTHER_HEAD, "refuted"),
        (NOTHING, "refuted"),
        (SMALL, "present"),
    ],
)
def test_h1_1_named_head(effects, status):
    assert judged(h1.test_named_head_tops_its_layer, sweep_with(effects), NAMED).status == status


@pytest.mark.parametrize(
    ("effects", "status"),
    [
        ({(0, 2): 1.0, (0, 0): 0.6, (0, 1): 0.5}, "supported"),
        ({(0, 2): 1.0, (0, 0): 0.6, (0, 1): 0.06}, "present"),  # 1.5 % of the clean LD
        (PLANTED, "refuted"),
        ({(0, 2): 1.0, (0, 0): 0.6, (0, 1): 0.5, (0, 3): 0.9}, "refuted"),
        # Either partner alone fails: it is beaten, or is no suppressor while no other head is.
        ({(0, 2): 1.0, (0, 0): 0.4, (0, 1): 0.8, (0, 3): 0.6}, "refuted"),
        ({(0, 2): 1.0, (0, 0): 0.8, (0, 1): 0.4, (0, 3): 0.6}, "refuted"),
        ({(0, 2): 1.0, (0, 0): 0.0, (0, 1): 0.8, (0, 3): -1.0}, "refuted"),
        ({(0, 2): 1.0, (0, 0): 0.8, (0, 1): 0.0, (0, 3): -1.0}, "refuted"),
        # They come before the first head, not after it.
        ({(0, 2): 0.3, (0, 0): 1.0, (0, 1): 0.2}, "inconclusive"),
        ({(0, 2): 0.3, (0, 0): 0.2, (0, 1): 1.0}, "inconclusive"),
    ],
)
def test_h1_2_partners(effects, status):
    sweep = make_sweep(effects, spread=0.02)
    assert judged(h1.test_partners_come_next, sweep, NAMED).status == status


def test_h1_3_same_heads():
    ranked = {(0, head): 0.5 * head for head in range(HEADS)}
    turned = {(0, head): 0.5 * (HEADS - head) for head in range(HEADS)}
    alike = [make_sweep(ranked, condition=c, seed=n) for n, c in enumerate("abc")]
    unlike = [make_sweep(ranked, condition="a"), make_sweep(turned, condition="b", seed=1)]
    assert judged(h1.test_same_heads_lead_in_every_condition, alike).status == "supported"
    assert judged(h1.test_same_heads_lead_in_every_condition, unlike).status == "refuted"
    two = [replace(each, table=each.table[each.table["head"] < 2], _cache={}) for each in alike]
    found = judged(h1.test_same_heads_lead_in_every_condition, two)
    assert found.status == "blocked" and "too few heads" in found.reason
    table = alike[1].table.copy()
    clean = table[table["method"] == "none"].set_index("example")["logit_diff"]
    table["logit_diff"] = clean.loc[table["example"]].to_numpy()  # no head does anything
    dead = replace(alike[1], table=table, _cache={})
    found = judged(h1.test_same_heads_lead_in_every_condition, [alike[0], dead])
    assert found.status == "blocked" and "not ranked under every condition" in found.reason
    three = [replace(each, table=each.table[each.table["head"] < 3], _cache={}) for each in alike]
    assert judged(h1.test_same_heads_lead_in_every_condition, three).status != "blocked"


@pytest.mark.parametrize(("effects", "status"), [(ELSEWHERE, "refuted"), (OTHER_HEAD, "refuted")])
def test_h1_8_null_refuted(effects, status):
    assert judged(h1.test_no_other_head_does_as_well, make_sweep(effects), NAMED).status == status


@pytest.mark.parametrize(
    ("effects", "status"),
    [
        (PLANTED, "supported"),
        (SMALL, "present"),
        # As large in another head: no lead over it, and none the other way.
        ({(0, 2): 1.0, (2, 1): 1.0}, "inconclusive"),
        (NOTHING, "refuted"),
    ],
)
def test_h1_8_leads_every_head_and_counts(effects, status):
    verdict = judged(h1.test_no_other_head_does_as_well, sweep_with(effects), NAMED)
    assert verdict.status == status
    assert (verdict.p_value < 0.001) == (status == "supported")


def test_h1_8_is_as_far_from_its_bound_as_the_nearest_rival():
    sweep = make_sweep({(0, 2): 1.0, (2, 1): 0.9})
    means = sweep.mean_deltas("both")
    verdict = judged(h1.test_no_other_head_does_as_well, sweep, NAMED)
    assert verdict.distance == pytest.approx(means[0, 2] - means[2, 1])


def test_a_head_named_beforehand_is_judged_by_every_example_and_a_chosen_one_by_the_other_half():
    sweep = make_sweep(PLANTED)
    every = judged(h1.test_named_head_tops_its_layer, sweep, NAMED)
    chosen = NAMED.model_copy(update={"chosen_on": "discovery"})
    half = judged(h1.test_named_head_tops_its_layer, sweep, chosen)
    assert every.effect == sweep.effect((0, 2), split="both")
    assert half.effect == sweep.effect((0, 2), split="confirmation")
    assert every.effect.n_clusters == 2 * half.effect.n_clusters


def test_each_half_judges_the_head_that_the_other_half_chose():
    """On discovery 0:0 leads, on confirmation 0:1: each is judged where the other was chosen."""
    sweep = make_sweep({(0, 0): 0.5, (0, 1): 0.5}, spread=0.03)
    table = sweep.table.copy()
    for head, split in ((0, "discovery"), (1, "confirmation")):
        rows = (table["layer"] == 0) & (table["head"] == head) & (table["split"] == split)
        table.loc[rows, "logit_diff"] += 1.0
    moved = replace(sweep, table=table, _cache={})
    chosen = moved.choose(moved.layer(0))
    assert chosen.heads == {"confirmation": (0, 0), "discovery": (0, 1)}
    assert chosen.name == "0:0 (0:1 on discovery)"
    assert moved.effect(chosen, split="both").estimate == pytest.approx(0.5, abs=0.05)


# --- validity -------------------------------------------------------------------------------------


def tables(clean, corrupt, null=0.1, cells=("affirmed-true", "affirmed-false"), facts=40):
    """Unhooked rows: LD by (cell, row), half of each cell with either label as target."""
    rows = []
    for number in range(4 * facts):
        cell = cells[number % len(cells)]
        yes = (number // 2) % 2 == 0
        rows.append(
            {
                "example": number,
                "cluster_id": f"fact{number // 4}",
                "template_id": "plain.true",
                "cell": cell,
                "target": " yes" if yes else " no",
                "foil": " no" if yes else " yes",
                "clean": f"prompt {number}",
                "target_rank": 0,
                "target_probability": 0.5,
            }
        )

    def side(value):
        noise = [0.1 * ((7 * number) % 11 - 5) / 5 for number in range(len(rows))]
        ld = [value(row) + extra for row, extra in zip(rows, noise, strict=True)]
        return pandas.DataFrame(rows).assign(logit_diff=ld)

    as_rule = lambda v: v if callable(v) else (lambda row: v)  # noqa: E731
    return Tables(side(as_rule(clean)), side(as_rule(corrupt)), side(as_rule(null)))


KNOWS = tables(3.0, -3.0)
# Goes by the operator word: right on true statements, wrong on false ones, whichever is asked.
OPERATOR_ONLY = tables(
    lambda row: 3.0 if row["cell"].endswith("true") else -3.0,
    lambda row: -3.0 if row["cell"].endswith("true") else 3.0,
)
# Cannot tell clean from corrupt.
BLIND = tables(3.0, 3.0)
# Says yes whatever is asked.
YES = tables(*[lambda row: 2.0 if row["target"] == " yes" else -2.0] * 2, null=0.1)
# Knows one answer only: what it says of the other does not depend on the question.
ONE_ANSWER = tables(*[lambda row, by=by: by if row["target"] == " yes" else -by for by in (3, -3)])
# Right about the clean prompt because of what a prompt about nothing prefers.
PRIOR = tables(1.0, -1.0, null=3.0)
# Moved one way only: what a prompt about nothing prefers is beyond the corrupt prompt, by its sign.
BEYOND = tables(3.0, -1.0, null=-2.0)
# Moved the right way from a preference for the foil: right in no clean prompt.
HELD_BACK = tables(-1.0, -3.0, null=-2.0)


@pytest.mark.parametrize(
    ("claim", "fails"),
    [
        (validity.test_model_is_competent, HELD_BACK),
        (validity.test_model_is_competent, OPERATOR_ONLY),
        (validity.test_clean_and_corrupt_are_told_apart, tables(-1.0, 1.0)),
        (validity.test_clean_and_corrupt_are_told_apart, BLIND),
        (validity.test_clean_and_corrupt_are_told_apart, YES),
        (validity.test_clean_and_corrupt_are_told_apart, OPERATOR_ONLY),
        (validity.test_swapped_labels_flip_the_logit_difference, ONE_ANSWER),
        (validity.test_swapped_labels_flip_the_logit_difference, OPERATOR_ONLY),
        (validity.test_null_prompt_shows_no_prior, PRIOR),
        (validity.test_null_prompt_shows_no_prior, BEYOND),
    ],
)
def test_validity_claims(claim, fails):
    assert judged_validity(claim, KNOWS).status == "supported"
    assert judged_validity(claim, fails).status == "refuted"


@pytest.mark.parametrize("wrong", [OPERATOR_ONLY, BLIND, YES, ONE_ANSWER, tables(-3.0, 3.0)])
def test_a_condition_is_valid_only_if_its_prompts_are_told_apart_by_no_bias(wrong):
    assert condition_validity(KNOWS).status == "supported"
    assert condition_validity(wrong).status == "refuted"


@pytest.mark.parametrize("weak", [PRIOR, HELD_BACK])
def test_accuracy_and_the_prior_gate_nothing(weak):
    """What the content of a prompt moves is measured all the same."""
    assert condition_validity(weak).status == "supported"


def skewed(row):
    """Long above: there the bootstrap's end is the wider, and Student's t draws nothing."""
    fact = row["example"] // 4
    return 1.6 ** (fact - 14) + (1.0 if row["example"] % 4 < fact % 5 and fact < 10 else -1.0)


@pytest.mark.parametrize(
    "claim",
    [
        validity.test_swapped_labels_flip_the_logit_difference,
        validity.test_null_prompt_shows_no_prior,
    ],
)
def test_validity_is_judged_with_the_model_s_own_seed(claim):
    """Another seed draws other resamples, so the ends of the interval differ."""
    made = tables(skewed, lambda row: -skewed(row), null=0.0, facts=20)

    class Other:
        seed = 1

    first, again, other = (hear(claim, made, model) for model in (Model, Model, Other))
    assert first.verdict.effect == again.verdict.effect != other.verdict.effect
    assert first.given["runs"] == made.runs


def test_h1_1_shows_figures_of_the_examples_that_judge():
    """0:2 leads, but on the confirmation split 0:0 does more than on all examples."""
    sweep = make_sweep({(0, 2): 1.0, (0, 0): 0.9})
    table = sweep.table.copy()
    own = (table["layer"] == 0) & (table["head"] == 0)
    sign = np.where(table["split"] == "confirmation", 1.0, -1.0)
    table.loc[own, "logit_diff"] += (0.3 * sign)[own]
    moved = replace(sweep, table=table, _cache={})
    found = hear(h1.test_top_suppressor_is_in_layer_zero, moved, moved).given["details"]
    assert found["judged by"] == "both" and found["chosen"] == "0:2 (0:0 on discovery)"
    assert found["percentile in its layer"] == 100.0
    named = hear(h1.test_named_head_tops_its_layer, moved, NAMED).given["details"]
    assert (named["rank in its layer"], named["percentile in its layer"]) == (1, 100.0)
    # By the confirmation split alone it is second.
    assert moved.rank((0, 2)) == 2 and moved.percentile((0, 2), among=moved.layer(0)) < 70
