"""Validity: what a model tells apart without interventions, by family, and by no bias.

The rows of made-up models are derived from texts by one rule each, as a model with that bias alone
would answer them. That each claim of V can hold and fail is shown in test_claims_can_fail.py.
Run: pytest tests/measurement/test_validity.py
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pandas
import pytest

from tinyablation.corpora.examples import Example, load_corpus
from tinyablation.corpora.subsampling import mirror_rows
from tinyablation.measurement.validity import (
    ALL,
    APART,
    Tables,
    blocks,
    combined,
    competence,
    condition_validity,
    counting,
    exceeds_prior,
    family_validity,
    follows_answers,
    is_competent,
    mirrored,
    told_apart,
)
from tinyablation.verdicts.floors import Noise
from tinyablation.verdicts.verdicts import Verdict

NATURAL = Path(__file__).parents[2] / "corpora" / "smollm2"


def rows(ld, cell="", n=80, wording="plain.is"):
    return pandas.DataFrame(
        {
            "cluster_id": [f"fact{number // 2}" for number in range(n)],
            "template_id": wording,
            "cell": cell,
            "target": [" yes" if number % 4 < 2 else " no" for number in range(n)],
            "foil": [" no" if number % 4 < 2 else " yes" for number in range(n)],
            "logit_diff": [ld + 0.01 * number for number in range(n)],
            "target_rank": [number % 2 for number in range(n)],
            "target_probability": 0.25,
        }
    )


def families(**ld):
    """Tables of several families, each with its LD clean; LD corrupt is -3, LD null 0."""
    parts = [rows(value, wording=f"{name}/plain") for name, value in ld.items()]
    clean = pandas.concat(parts, ignore_index=True)
    return Tables(clean, clean.assign(logit_diff=-3.0), clean.assign(logit_diff=0.0))


def wrong_in(share, n=80):
    """Tables in which so great a share of the clusters is answered the wrong way round."""
    clean = rows(3.0, n=n)
    wrong = clean.index // 2 < share * n / 2
    clean.loc[wrong, "logit_diff"] *= -1
    return Tables(clean, clean.assign(logit_diff=-clean["logit_diff"]), None)


# --- competence -----------------------------------------------------------------------------------


def test_competence_is_told_by_cell():
    table = pandas.concat([rows(1.0, "and-TT"), rows(-9.0, "and-TF", n=20)], ignore_index=True)
    found = competence(table)
    assert found["and-TT"].accuracy == 1.0
    assert found["and-TF"].accuracy == 0.0
    assert found["and-TF"].n == 20
    assert found["and-TT"].top1 == 0.5
    assert found["and-TT"].p_target == 0.25


def test_a_condition_without_cells_has_one():
    assert list(competence(rows(1.0))) == [ALL]


def test_cells_of_families_are_told_by_family():
    table = pandas.concat([rows(1.0, "negated", wording="said/x"), rows(2.0, wording="memory/x")])
    assert set(competence(table)) == {"said: negated", f"memory: {ALL}"}


def test_the_worst_family_decides():
    verdict = is_competent(families(said=1.0, memory=-9.0))
    assert verdict.status == "refuted"
    assert "memory" in verdict.reason and "said" not in verdict.reason
    assert verdict.effect.estimate == 0.0


@pytest.mark.parametrize(
    ("wrong", "status"), [(0.0, "supported"), (0.05, "inconclusive"), (0.5, "refuted")]
)
def test_competence_is_an_interval_against_the_floor(wrong, status):
    verdict = is_competent(wrong_in(wrong))
    assert verdict.status == status
    assert 0 <= verdict.effect.low <= verdict.effect.high <= 1


@pytest.mark.parametrize("judged", [is_competent, told_apart])
@pytest.mark.parametrize(
    ("clusters", "wrong", "status"),
    [
        (35, 0, "inconclusive"),
        (36, 0, "supported"),
        (40, 0, "supported"),
        (40, 1, "inconclusive"),
        (72, 1, "supported"),
    ],
)
def test_what_all_clusters_agree_on_is_certain_only_of_many(judged, clusters, wrong, status):
    """.9 of the facts known leaves 35 of 35 right with a probability of .025."""
    verdict = judged(wrong_in(wrong / clusters, n=2 * clusters))
    assert verdict.status == status
    assert verdict.effect.low < verdict.effect.estimate == 1 - wrong / clusters


def test_nothing_right_refutes_by_few_clusters():
    """No fact of two known: .9 of all would be known with a probability of .01."""
    for judged in (is_competent, told_apart):
        verdict = judged(wrong_in(1.0, n=4))
        assert verdict.status == "refuted" and verdict.effect.low == 0 < verdict.effect.high < 0.9


# --- told apart -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "status"), [(0.0, "supported"), (0.1, "inconclusive"), (0.5, "refuted")]
)
def test_told_apart_is_a_share_of_prompts(wrong, status):
    verdict = told_apart(wrong_in(wrong))
    assert verdict.status == status
    assert verdict.effect.estimate == pytest.approx(1 - wrong) and verdict.floor == APART


def test_only_the_difference_of_the_two_sides_counts():
    """A model that is wrong about every clean prompt, and more so about the corrupt one."""
    clean = rows(-3.0)
    tables = Tables(clean, clean.assign(logit_diff=clean["logit_diff"] - 1.0), None)
    assert is_competent(tables).status == "refuted"
    assert told_apart(tables).status == "supported"
    assert condition_validity(tables).status == "supported"


def test_a_difference_within_the_noise_tells_nothing_apart():
    clean = rows(3.0)
    tables = Tables(clean, clean.assign(logit_diff=clean["logit_diff"] - 1.0), None)
    coarse = tables._replace(noise=Noise(1.5, "cuda in bfloat16"))
    assert told_apart(tables).status == "supported" and told_apart(coarse).status == "refuted"


def test_examples_of_one_cluster_say_nothing_certain():
    clean = rows(3.0).assign(cluster_id="capital")
    clean.loc[0, "logit_diff"] = -9.0
    verdict = told_apart(Tables(clean, clean.assign(logit_diff=-3.0), None))
    assert verdict.status == "inconclusive" and verdict.effect[1:3] == (0.0, 1.0)


def test_a_cell_answered_the_wrong_way_round_is_seen_however_small():
    """1 example in 20 is too few to move the share below its floor."""
    clean = rows(3.0, n=160)
    rare = clean.index % 20 == 0
    clean["cell"] = ["last" if each else "first" for each in rare]
    clean.loc[rare, "logit_diff"] *= -1
    tables = Tables(clean, clean.assign(logit_diff=-clean["logit_diff"]), None)
    assert told_apart(tables).status != "refuted"
    verdict = follows_answers(tables)
    assert verdict.status == "refuted" and "cell last" in verdict.reason
    assert condition_validity(tables).status == "refuted"


def test_answers_that_are_always_in_one_order_are_judged_by_the_rest():
    clean = rows(3.0).assign(target=" a", foil=" b")
    tables = Tables(clean, clean.assign(logit_diff=-3.0), None)
    assert follows_answers(tables).status == "blocked"
    assert condition_validity(tables).status == "supported"


# --- the prior -----------------------------------------------------------------------------------


def test_what_prompts_about_nothing_prefer_is_told_by_its_size():
    """Half of them prefer the target by 2 and half the foil: the mean of neither is 0."""
    clean = rows(3.0)
    null = clean.assign(logit_diff=[2.0 if number % 2 else -2.0 for number in range(len(clean))])
    verdict = exceeds_prior(Tables(clean, clean.assign(logit_diff=-3.0), null))
    assert verdict.details == {"mean |LD| on null prompts": 2.0}


# --- families -------------------------------------------------------------------------------------


def test_a_family_that_fails_is_left_out():
    tables = families(said=3.0, memory=-9.0)
    found = family_validity(tables)
    assert {name: each.status for name, each in found.items()} == {
        "said": "supported",
        "memory": "refuted",
    }
    assert counting(found) == ("said",)
    whole = condition_validity(tables)
    assert whole.status == "supported" and not blocks(whole)
    assert "left out: memory: " in whole.reason
    assert [each for each in whole.details["left out"] if each.startswith("memory: ")]
    assert whole.details["families"]["memory"]["accuracy"] == 0.0
    # Its figures are of what counts.
    assert whole.effect.estimate == 1.0


def test_a_condition_is_blocked_only_where_no_family_remains():
    whole = condition_validity(families(said=-9.0, memory=-9.0))
    assert whole.status == "refuted" and blocks(whole)
    assert "said" in whole.reason and "memory" in whole.reason
    assert counting(family_validity(families(said=-9.0, memory=-9.0))) == ()


def test_what_is_merely_inconclusive_counts_with_a_caveat():
    whole = condition_validity(wrong_in(0.1))
    assert whole.status == "inconclusive" and not blocks(whole)
    assert len(whole.details["caveats"]) == 1 and "not certain" in whole.reason
    assert not condition_validity(wrong_in(0.0)).details["caveats"]


def test_details_of_a_family_are_its_own():
    (details,) = condition_validity(wrong_in(0.5)).details["families"].values()
    assert details["prompts"] == 80 and details["clusters"] == 40
    assert details["told apart"] == details["accuracy"] == 0.5
    assert details["status"] == "refuted"


def test_combined_is_what_the_families_give():
    tables = families(said=3.0, memory=-9.0)
    assert combined(family_validity(tables), tables) == condition_validity(tables)


def test_rows_of_a_family_keep_their_sides():
    tables = families(said=3.0, memory=-9.0)._replace(noise=0.5, runs=("a",))
    own = tables.of("memory")
    assert set(own.clean["template_id"]) == set(own.null["template_id"]) == {"memory/plain"}
    assert len(own.corrupt) == 80 and own.noise == 0.5 and own.runs == ("a",)
    assert tables.families == ("memory", "said")


@pytest.mark.parametrize(
    ("status", "blocked"),
    [("supported", False), ("inconclusive", False), ("refuted", True), ("blocked", True)],
)
def test_what_blocks(status, blocked):
    assert blocks(Verdict(status, "a reason")) is blocked
    assert not blocks(None)


# --- the prior ------------------------------------------------------------------------------------


def test_without_null_prompts_the_prior_cannot_be_judged():
    verdict = exceeds_prior(Tables(rows(3.0), rows(-3.0), None))
    assert verdict.status == "blocked"
    assert "null" in verdict.reason


@pytest.mark.parametrize("null", [5.0, -5.0])
def test_content_moves_both_sides_away_from_the_prior(null):
    tables = Tables(rows(3.0), rows(-3.0), rows(0.0))
    assert exceeds_prior(tables).status == "supported"
    assert exceeds_prior(tables._replace(null=rows(null))).status == "refuted"


# --- biases cannot pass: rows derived from the texts of the natural world's corpora ---------------


@cache
def examples(condition: str) -> tuple[Example, ...]:
    return load_corpus(NATURAL / f"{condition}.jsonl").examples


def answered(condition: str, bias: Callable[[str, str], float]) -> Tables:
    """The tables of a model for which `bias`, of a prompt and an answer, is the answer's logit."""
    own = examples(condition)
    clean = pandas.DataFrame(
        {
            "cluster_id": [each.cluster_id for each in own],
            "template_id": [each.template_id for each in own],
            "cell": [each.cell for each in own],
            "target": [each.target for each in own],
            "foil": [each.foil for each in own],
        }
    )
    sides = {
        side: [
            bias(getattr(each, side), each.target) - bias(getattr(each, side), each.foil)
            for each in own
        ]
        for side in ("clean", "corrupt", "null")
    }
    clean, corrupt, null = (clean.assign(logit_diff=sides[side]) for side in sides)
    return Tables(clean, corrupt, null)


def place(prompt: str, answer: str, *, last: bool) -> int:
    """Where an answer stands in a prompt; -1 where it does not."""
    find = prompt.lower().rfind if last else prompt.lower().find
    return find(answer.strip().lower())


def label(prompt: str, answer: str) -> float:
    """One answer is preferred to another whatever is asked."""
    return float(sum(map(ord, answer)) % 97)


def first_named(prompt: str, answer: str) -> float:
    at = place(prompt, answer, last=False)
    return 0.0 if at < 0 else 5.0 - at / 1000


def last_named(prompt: str, answer: str) -> float:
    at = place(prompt, answer, last=True)
    return 0.0 if at < 0 else 1.0 + at / 1000


def copies(prompt: str, answer: str) -> float:
    return float(place(prompt, answer, last=True) >= 0)


BIASES = {
    "a label": label,
    "the first named": first_named,
    "not the first named": lambda prompt, answer: -first_named(prompt, answer),
    "the last named": last_named,
    "not the last named": lambda prompt, answer: -last_named(prompt, answer),
    "what stands there": copies,
    "what does not stand there": lambda prompt, answer: -copies(prompt, answer),
}
# Where one answer alone stands in the prompts, the right one in one family and the wrong one in the
# other: a model that copies, or that never repeats, passes one of the two and fails the other.
UNCROSSED = {
    ("counterfactual", "the first named"): {"story"},
    ("counterfactual", "the last named"): {"story"},
    ("counterfactual", "what stands there"): {"story"},
    ("counterfactual", "not the first named"): {"reality"},
    ("counterfactual", "not the last named"): {"reality"},
    ("counterfactual", "what does not stand there"): {"reality"},
}


@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize("condition", ["facts", "negation", "counterfactual", "logic"])
def test_no_bias_passes_for_knowledge(condition, bias):
    found = family_validity(answered(condition, BIASES[bias]))
    assert set(counting(found)) == UNCROSSED.get((condition, bias), set())


def test_a_model_that_knows_fails_no_family():
    """Of fewer than 36 clusters none is certain to be known, though every prompt is."""
    for condition in ("facts", "negation", "counterfactual", "logic"):
        right = {(each.clean, each.target) for each in examples(condition)}
        knows = answered(
            condition, lambda prompt, answer, own=right: float((prompt, answer) in own)
        )
        for each in family_validity(knows).values():
            few = each.details["clusters"] < 36
            assert each.status == ("inconclusive" if few else "supported")


def test_the_corrupt_side_is_that_of_the_mirrors():
    """What is measured once gives what both sides would."""
    tables = answered("negation", last_named)
    mirrors = mirror_rows(examples("negation"))
    assert None not in mirrors
    corrupt = mirrored(tables.clean, mirrors)
    columns = ["target", "foil", "logit_diff"]
    pandas.testing.assert_frame_equal(corrupt[columns], tables.corrupt[columns])


@pytest.mark.parametrize("judged", [is_competent, told_apart, follows_answers, exceeds_prior])
def test_one_cluster_supports_nothing_and_can_refute(judged):
    """Four prompts about one fact, all answered alike, say nothing about other facts."""

    def made(ld):
        clean = rows(ld, n=4).assign(cluster_id="fact0", logit_diff=ld)
        sides = [clean.assign(logit_diff=share * ld) for share in (-1.0, 0.0)]
        return Tables(clean, *sides)

    known = judged(made(3.0))
    assert known.status == "inconclusive" and "but of one cluster" in known.reason
    assert judged(made(-3.0)).status == "refuted"
    gate = condition_validity(made(3.0))
    assert gate.status == "inconclusive" and not blocks(gate)
    assert blocks(condition_validity(made(-3.0)))
