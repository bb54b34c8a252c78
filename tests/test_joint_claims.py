"""Claims on amplification, cooperation and every condition, on made-up measurements.

Each can be supported, present where it has a floor, refuted, inconclusive and blocked.

Run: pytest tests/test_joint_claims.py
"""

from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from claims.suppressors import test_every_condition as every
from claims.suppressors import test_h5_amplification as pairs
from tests.synthetic_effects import LEADER, NAMED, TRIO, make_table, noise, share_of_clean
from tests.synthetic_sweeps import make_sweep
from tinyablation.analysis.coalitions import Coalitions
from tinyablation.interventions.interventions import AblateHeads
from tinyablation.plugin import measurement_fixtures
from tinyablation.records.plain import plain
from tinyablation.verdicts.listener import hear
from tinyablation.verdicts.subjects import Subject

ONE, OTHER = (head for head in TRIO if head != LEADER)
FIRST, SECOND = (tuple(sorted([LEADER, head])) for head in (ONE, OTHER))
CLEAN_LD = 4.0  # 5 %: .2


def made(
    deltas: Mapping[tuple, float], *, spread: float = 0.02, condition: str = "facts"
) -> Coalitions:
    """The subsets of TRIO; Delta of a set as given, else the sum of its heads'."""
    sets = [(head,) for head in TRIO] + [FIRST, SECOND, (ONE, OTHER), TRIO]
    changes, interventions = {}, []
    for number, heads in enumerate(sets):
        each = AblateHeads(heads)
        mean = deltas.get(heads, sum(deltas.get((head,), 0.0) for head in heads))
        changes[each.label] = mean + noise(spread, 50 + number)
        interventions.append(each)
    table = make_table(changes, clean_ld=CLEAN_LD, interventions=interventions)
    return Coalitions("made-up", condition, table, 1e-6, runs=("made-up-run",))


def judged(claim, *arguments):
    verdict, given = hear(claim, *arguments)
    plain(given["details"], "details")
    assert given["runs"]
    return verdict, given["details"]


LONE = {(LEADER,): 1.0}


@pytest.mark.parametrize(
    ("deltas", "spread", "status"),
    [
        (LONE | {FIRST: 1.3, SECOND: 1.2}, 0.02, "supported"),
        (LONE | {FIRST: 1.06, SECOND: 1.05}, 0.02, "supported"),  # it names no size
        (LONE | {FIRST: 1.3, SECOND: 0.8}, 0.02, "refuted"),
        (LONE | {FIRST: 0.8, SECOND: 1.3}, 0.02, "refuted"),
        (LONE, 0.02, "inconclusive"),
        (LONE | {FIRST: 1.3, SECOND: 1.1}, 0.5, "inconclusive"),
        # Beside a leader that lowers LD either partner raises it, and yet no pair suppresses.
        ({(LEADER,): -2.0, FIRST: -1.5, SECOND: -1.5}, 0.02, "inconclusive"),
        ({(LEADER,): -2.0, FIRST: 1.5, SECOND: -1.5}, 0.02, "inconclusive"),
    ],
)
def test_h5_7_partners_amplify(deltas, spread, status):
    verdict, details = judged(
        pairs.test_partners_amplify_the_leader, made(deltas, spread=spread), NAMED
    )
    assert verdict.status == status, verdict.reason
    assert list(details["pairs"]) == ["0:0 0:2", "0:2 0:5"]
    assert list(details["each alone"]) == ["0:0", "0:2", "0:5"]
    for estimate, low, high in (*details["each alone"].values(), *details["pairs"].values()):
        assert low < estimate < high


@pytest.mark.parametrize(
    ("deltas", "spread", "status"),
    [
        (LONE | {FIRST: 1.5, SECOND: 1.4}, 0.02, "supported"),
        (LONE | {FIRST: 1.5, SECOND: 1.1}, 0.02, "present"),  # 2.5 % of the clean LD
        (LONE | {FIRST: 1.5}, 0.02, "refuted"),
        (LONE | {SECOND: 1.5}, 0.02, "refuted"),
        (LONE | {(ONE,): 0.5, FIRST: 1.5, SECOND: 1.5}, 0.02, "refuted"),  # the sum, no more
        (LONE | {FIRST: 1.5, SECOND: 1.2}, 0.5, "inconclusive"),
        # Less than the sum of what lowers LD, but no suppression.
        ({(LEADER,): -1.0, FIRST: -0.5, SECOND: -0.5}, 0.02, "inconclusive"),
    ],
)
def test_h5_8_pairs_cooperate(deltas, spread, status):
    verdict, details = judged(pairs.test_pairs_cooperate, made(deltas, spread=spread), NAMED)
    assert verdict.status == status, verdict.reason
    assert verdict.floor == pytest.approx(0.05 * CLEAN_LD, rel=0.1)
    gain = sum(estimate for estimate, _, _ in details["beyond the sum"].values())
    alone = 2 * deltas[(LEADER,)] + sum(deltas.get((head,), 0.0) for head in (ONE, OTHER))
    whole = deltas.get(FIRST, 1.0) + deltas.get(SECOND, 1.0)
    assert gain == pytest.approx(whole - alone, abs=0.01)


HEAD = Subject(suppressor="0:2", trio=["0:2", "0:0", "0:1"], source="planted")
JOINT = [
    ((1.0, 1.0, 1.0), 0.1, "supported"),
    ((1.0, 0.1, 1.0), 0.03, "present"),  # 2.5 % of the clean LD under one of them
    ((1.0, 1.0, 0.0), 0.03, "refuted"),
    ((-1.0, 1.0, 1.0), 0.1, "refuted"),
    ((1.0, 0.05, 1.0), 0.5, "inconclusive"),
]


@pytest.mark.parametrize(("effects", "spread", "status"), JOINT)
def test_h1_9_the_head_in_every_condition(effects, spread, status):
    sweeps = [
        make_sweep({(0, 2): mean}, spread=spread, condition=name, seed=number)
        for number, (name, mean) in enumerate(
            zip(("facts", "negation", "logic"), effects, strict=True)
        )
    ]
    verdict, details = judged(every.test_named_head_suppresses_in_every_condition, sweeps, HEAD)
    assert verdict.status == status, verdict.reason
    assert details["conditions"] == ["facts", "negation", "logic"]
    assert details["not valid"] == ["counterfactual"]
    weakest = min(zip(effects, details["conditions"], strict=True))[1]
    if status != "supported":
        assert details["verdicts"][weakest] == status and weakest in verdict.reason


@pytest.mark.parametrize(("effects", "spread", "status"), JOINT)
def test_h5_9_the_trio_in_every_condition(effects, spread, status):
    found = [
        made({TRIO: mean}, spread=spread, condition=name)
        for name, mean in zip(("facts", "negation", "logic"), effects, strict=True)
    ]
    verdict, details = judged(every.test_trio_suppresses_in_every_condition, found, NAMED)
    assert verdict.status == status, verdict.reason
    assert details["conditions"] == ["facts", "negation", "logic"]
    assert [value for value, _, _ in details["effects"].values()] == pytest.approx(
        effects, abs=0.05
    )


def test_a_head_chosen_on_discovery_is_judged_by_the_other_half():
    """Discovery examples are moved by 1, the others by nothing: those count alone if it was."""
    sweep = make_sweep({}, spread=0.03)
    moved = (sweep.table["split"] == "discovery") & (sweep.table["head"] == 2)
    table = sweep.table.assign(logit_diff=sweep.table["logit_diff"] + np.where(moved, 1.0, 0.0))
    sweeps = [replace(sweep, condition=name, table=table, _cache={}) for name in ("facts", "logic")]
    claim = every.test_named_head_suppresses_in_every_condition
    chosen = HEAD.model_copy(update={"chosen_on": "discovery"})
    assert judged(claim, sweeps, chosen)[0].status == "refuted"
    assert judged(claim, sweeps, HEAD)[0].status == "supported"
    for subject, split in ((HEAD, "both"), (chosen, "confirmation")):
        verdict, details = judged(claim, sweeps, subject)
        assert verdict.margin == sweeps[0].margin_of((0, 2), split=split)
        assert details["floors"]["facts"] == sweep.floor(split) and details["judged by"] == split


@pytest.mark.parametrize(
    ("invalid", "left"),
    [({"logic"}, 3), ({"logic", "facts"}, 2), ({"logic", "facts", "negation"}, 0)],
)
def test_fewer_than_two_valid_conditions_block(invalid, left):
    class Blocked(Exception):
        pass

    def judge(verdict):
        assert verdict.status == "blocked" and "negation: too hard" in verdict.reason
        raise Blocked

    gate = SimpleNamespace(reason_blocked=lambda name: "too hard" if name in invalid else None)
    conditions = measurement_fixtures.valid_conditions.__wrapped__
    model = SimpleNamespace(gate=gate)
    if not left:
        with pytest.raises(Blocked):
            conditions(model, judge)
    else:
        assert len(conditions(model, judge)) == left


def test_5_percent_are_of_each_example_in_every_condition():
    """5.05 % of every clean LD: the interval of the effect itself straddles 5 % of their mean."""
    for share, status in ((0.0505, "supported"), (0.0495, "present")):
        sweeps = [
            share_of_clean(make_sweep({}, condition=name, n_clusters=60, seed=seed), share)
            for seed, name in enumerate(("facts", "logic"))
        ]
        claim = every.test_named_head_suppresses_in_every_condition
        assert all(
            sweep.effect((0, 2), split="both").low
            < sweep.floor("both")
            < sweep.effect((0, 2), split="both").high
            for sweep in sweeps
        )
        assert judged(claim, sweeps, HEAD)[0].status == status
        found = [share_of_clean(made({}, condition=name), share) for name in ("facts", "logic")]
        claim = every.test_trio_suppresses_in_every_condition
        assert judged(claim, found, NAMED)[0].status == status


@pytest.mark.parametrize(
    "claim", [pairs.test_partners_amplify_the_leader, pairs.test_pairs_cooperate]
)
def test_claims_about_pairs_are_about_the_leader(claim):
    given = hear(claim, made(LONE | {FIRST: 1.5, SECOND: 1.9}), NAMED).given
    assert given["subject"] == "0:2" and len(given["panels"]) == 1
    assert given["largest"][0]["delta"] > 0.8  # of the pair that does more
