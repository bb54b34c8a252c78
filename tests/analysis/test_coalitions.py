"""Heads ablated together, on tables whose answer is known.

Run: pytest tests/analysis/test_coalitions.py
"""

from dataclasses import replace

import numpy as np
import pytest

from tests.synthetic_effects import LEADER, TRIO, make_coalitions, noise
from tinyablation.analysis.coalitions import set_name
from tinyablation.analysis.effects import EffectsError
from tinyablation.interventions.interventions import AblateHeads
from tinyablation.statistics.ratios import RatioUndefined
from tinyablation.verdicts.verdicts import Verdict

PLANTED = {LEADER: 1.0}


def test_all_sets_are_found():
    found = make_coalitions(PLANTED)
    assert [len(found.of_size(size)) for size in (1, 2, 3)] == [8, 28, 56]
    assert set_name(TRIO) == "0:0 0:2 0:5"


def test_an_additive_trio_does_not_cooperate():
    found = make_coalitions(PLANTED)
    assert found.effect(TRIO).estimate == pytest.approx(1.0, abs=0.15)
    together = found.cooperation(TRIO)
    assert together.estimate == pytest.approx(0, abs=1e-12)


def test_what_a_trio_does_beyond_its_heads_is_its_cooperation():
    found = make_coalitions(PLANTED, extra={3: 0.7 + noise(0.05, 9)})
    together = found.cooperation(TRIO)
    assert together.estimate == pytest.approx(0.7)
    assert together.low > 0.6
    assert max(found.accomplices(LEADER).values()) == pytest.approx(0, abs=1e-12)
    pairs = make_coalitions(PLANTED, extra={2: 0.3})
    assert set(pairs.accomplices(LEADER)) == {f"0:{n}" for n in range(8) if n != 2}
    assert min(pairs.accomplices(LEADER).values()) == pytest.approx(0.3)


def test_an_accomplice_adds_to_what_both_do_alone():
    other = TRIO[0]
    found = make_coalitions({LEADER: 1.0, other: 0.4}, extra={2: 0.3})
    assert list(found.accomplices(LEADER).values()) == pytest.approx([0.3] * 7)
    table = found.table.copy()
    label = AblateHeads(tuple(sorted((LEADER, other)))).label
    table.loc[table["intervention"] == label, "logit_diff"] -= 0.2
    gains = replace(found, table=table, _cache={}).accomplices(LEADER)
    assert list(gains.values()) == pytest.approx([0.3] * 6 + [0.1]), "the largest first"
    assert list(gains)[-1] == f"{other[0]}:{other[1]}"


def test_a_set_is_a_multiple_of_the_sum_of_its_heads():
    found = make_coalitions(dict.fromkeys(TRIO, 1.0), extra={3: 1.5}, spread=0.02)
    assert found.against_sum(TRIO).estimate == pytest.approx(1.5, abs=0.01)


def test_the_rows_of_a_set_are_its_own_in_the_order_of_examples():
    found = make_coalitions(PLANTED)
    mixed = replace(found, table=found.table.sample(frac=1, random_state=0), _cache={})
    rows = mixed.rows(reversed(TRIO))
    assert set(rows["intervention"]) == {AblateHeads(TRIO).label}
    assert rows.index.tolist() == rows["example"].tolist() == list(range(len(rows)))


def test_the_leader_recovers_all_and_a_partner_nothing():
    found = make_coalitions(PLANTED, spread=0.05)
    leader, partner = found.recovery(TRIO, LEADER), found.recovery(TRIO, TRIO[0])
    assert leader.low < 1 < leader.high
    assert partner.low < 0 < partner.high
    assert leader.low > 0.6 and partner.high < 0.25


def test_restoring_one_is_zeroing_the_others():
    """Pitfall P9: one measurement, not two: the recovery is read from the pair's rows.

    It is not what the head does alone, where heads do more or less together.
    """
    found = make_coalitions(PLANTED, extra={2: 0.3, 3: 0.8 + noise(0.05, 9)})
    rest = tuple(head for head in TRIO if head != LEADER)
    whole, without = found.mean(TRIO), found.mean(rest)
    assert found.recovery(TRIO, LEADER).estimate == pytest.approx((whole - without) / whole)
    assert found.restored(TRIO, LEADER) == pytest.approx(found.deltas(TRIO) - found.deltas(rest))
    assert found.restored(TRIO, LEADER).mean() == pytest.approx(found.mean([LEADER]) + 0.5)
    for split in ("discovery", "both"):
        assert found.restored(TRIO, LEADER, split) == pytest.approx(
            found.deltas(TRIO, split) - found.deltas(rest, split)
        )


def test_a_share_of_nothing_is_refused():
    with pytest.raises(RatioUndefined):
        make_coalitions({}).recovery(TRIO, LEADER)


def test_a_share_that_is_the_same_everywhere_is_of_as_many_clusters_as_there_are():
    found = make_coalitions(PLANTED, spread=0.0)
    everything = found.recovery(TRIO, LEADER)
    assert everything == (1.0, 1.0, 1.0, 24, 12)


def test_a_negative_trio_effect_gives_no_share():
    """With a vital head in it the ratio would pass falsely: -2 / -1.5 is above .6."""
    with pytest.raises(RatioUndefined):
        make_coalitions({LEADER: -2.0, TRIO[0]: 0.5}).recovery(TRIO, LEADER)


def test_exceedance_counts_other_triples_only():
    """Pitfall P8: other triples of the layer, itself excluded, (k + 1) / (n + 1); 21 of the 56
    hold the leader, and would have its effect."""
    found = make_coalitions(dict.fromkeys(TRIO, 1.0), spread=0.02)
    rivals = found.rivals(TRIO, LEADER)
    assert len(rivals) == 35 and not [each for each in rivals if LEADER in each]
    assert TRIO not in found.rivals(TRIO, (0, 7))
    assert found.exceedance(TRIO, rivals) == pytest.approx(1 / 36)
    other = make_coalitions({(0, 7): 1.0})
    assert other.exceedance(TRIO, other.rivals(TRIO, LEADER)) > 0.3


def test_the_least_lead_is_the_one_with_the_smallest_lower_end():
    found = make_coalitions({**PLANTED, (0, 6): 0.3}, spread=0.05)
    rivals = found.rivals(TRIO, LEADER)
    over, lead, least = found.least_lead(TRIO, rivals)
    assert lead == found.lead(TRIO, over)
    assert lead.low == min(found.lead(TRIO, each).low for each in rivals)
    assert least == pytest.approx(min(found.mean(TRIO) - found.mean(each) for each in rivals))


def test_a_sample_of_the_triples_leaves_open_whether_no_other_does_as_well():
    found = make_coalitions({LEADER: 1.0}, spread=0.05)
    held = Verdict("supported", "it leads")
    assert found.for_every_rival(held, TRIO, LEADER) == held  # all 35 were measured
    rivals = found.rivals(TRIO, LEADER)
    left_out = {AblateHeads(each).label for each in rivals[::3]}
    some = replace(found, table=found.table[~found.table["intervention"].isin(left_out)], _cache={})
    open_ = some.for_every_rival(held, TRIO, LEADER)
    assert open_.status == "inconclusive" and open_.p_value is None
    assert "of 35 triples without 0:2 only 23 were measured" in open_.reason
    small = Verdict("present", "it leads, by little")
    assert some.for_every_rival(small, TRIO, LEADER).status == "inconclusive"
    assert found.for_every_rival(small, TRIO, LEADER) == small
    refuted = Verdict("refuted", "it does not")
    assert some.for_every_rival(refuted, TRIO, LEADER) == refuted


def test_the_rival_is_chosen_by_what_its_heads_do_alone():
    found = make_coalitions(PLANTED)
    alone = {(0, head): float(head) for head in range(8)}
    assert found.rival(found.rivals(TRIO, LEADER), alone) == ((0, 5), (0, 6), (0, 7))
    strong = alone | {(0, 1): 9.0, (0, 7): 0.5}
    assert found.rival(found.rivals(TRIO, LEADER), strong) == ((0, 1), (0, 5), (0, 6))
    own = ((0, 5), (0, 6), (0, 7))
    assert found.rival(found.rivals(own, (0, 5)), alone) == ((0, 4), (0, 6), (0, 7))


def test_pairs_are_named_in_the_order_of_heads_however_the_trio_is():
    found = make_coalitions(PLANTED)
    pairs = (((0, 0), (0, 2)), ((0, 0), (0, 5)), ((0, 2), (0, 5)))
    assert found.pairs_of(TRIO) == found.pairs_of(TRIO[::-1]) == pairs
    assert set(pairs) <= set(found.of_size(2))


def test_a_set_that_was_not_measured_and_a_head_outside_the_set_are_refused():
    found = make_coalitions(PLANTED)
    with pytest.raises(EffectsError, match="not measured"):
        found.effect([(1, 0)])
    with pytest.raises(EffectsError, match="not among"):
        found.recovery(TRIO, (0, 7))


def test_gains_are_of_every_pair_and_of_no_head_with_itself():
    found = make_coalitions(PLANTED, extra={2: 0.3})
    heads, gains = found.gains()
    assert heads == tuple((0, n) for n in range(8))
    for row, one in enumerate(heads):
        for column, other in enumerate(heads):
            assert gains[row][column] == (None if one == other else pytest.approx(0.3))


def test_a_rival_that_does_exactly_as_well_counts_as_one():
    """34 of 35 drawn: the one left out may do as well only if one of those drawn does."""
    found = make_coalitions({LEADER: 1.0}, spread=0.05)
    rivals = found.rivals(TRIO, LEADER)
    drawn = found.table[found.table["intervention"] != AblateHeads(rivals[0]).label]
    some = replace(found, table=drawn, _cache={})
    held = Verdict("supported", "it leads")
    assert some.for_every_rival(held, TRIO, LEADER) == held
    own, equal = AblateHeads(TRIO).label, drawn["intervention"] == AblateHeads(rivals[1]).label
    copied = drawn.loc[drawn["intervention"] == own, "logit_diff"].to_numpy()
    table = drawn.copy()
    table.loc[equal, "logit_diff"] = copied
    open_ = replace(found, table=table, _cache={}).for_every_rival(held, TRIO, LEADER)
    assert open_.status == "inconclusive" and "up to 1 of the others" in open_.reason


def test_a_fall_is_compared_with_falls():
    """Of what is to fall, a triple that does not move is no rival, and one that rises neither."""
    found = make_coalitions({}, entropy=-0.8)
    rivals = found.rivals(TRIO, LEADER)
    drawn = found.table[found.table["intervention"] != AblateHeads(rivals[0]).label]
    some = replace(found, table=drawn, _cache={})
    held = Verdict("supported", "it falls")
    options = {"column": "entropy", "sign": -1}
    assert some.for_every_rival(held, TRIO, LEADER, **options) == held
    rises = some.for_every_rival(held, TRIO, LEADER, column="entropy")
    assert rises.status == "inconclusive"


def test_an_exceedance_is_of_the_column_and_the_side_asked_for():
    found = make_coalitions({(0, 7): -3.0, LEADER: -1.0}, entropy=-0.8)
    rivals = found.rivals(TRIO, LEADER)
    assert found.exceedance(TRIO, rivals) > 0.3
    assert found.exceedance(TRIO, rivals, column="entropy", sign=-1) == pytest.approx(1 / 36)
    assert found.exceedance(TRIO, rivals, column="entropy") == 1.0


def test_a_recovery_takes_the_wordings_out_of_its_interval():
    found = make_coalitions({LEADER: 1.0, TRIO[0]: 0.3}, spread=0.05)
    table = found.table.copy()
    wording = table["example"] % 2
    table["template_id"] = np.where(wording == 0, "plain.is", "plain.was")
    trio = table["intervention"] == AblateHeads(TRIO).label
    table.loc[trio, "logit_diff"] += np.where(wording == 0, 0.6, -0.6)[trio]
    # Every fact in one wording only, else the wordings cancel within it; of both splits, for a
    # wording of few clusters counts as none of its own.
    table = table[(table["example"] // 4 + wording) % 2 == 0].reset_index(drop=True)
    apart = replace(found, table=table, _cache={})
    alike = replace(found, table=table.assign(template_id="plain.is"), _cache={})
    first, second = (each.recovery(TRIO, LEADER, split="both") for each in (apart, alike))
    assert first.estimate == second.estimate
    assert first.high - first.low < 0.7 * (second.high - second.low)


def test_what_is_asked_of_no_split_is_of_the_one_that_chose_nothing():
    """P13: a trio that raises LD on confirmation, and lowers it on discovery but for one head."""
    jitter = {size: noise(0.1, size) for size in (2, 3)}
    made = make_coalitions({LEADER: 1.0, TRIO[0]: 0.3}, spread=0.05, extra=jitter)
    table, several = made.table, made.table["heads"].str.contains(r"\+")
    lower = several * np.where(table["split"] == "discovery", 0.4, 0.0)
    found = replace(made, table=table.assign(logit_diff=table["logit_diff"] - lower), _cache={})
    rivals = found.rivals(TRIO, LEADER)
    asked = {
        "deltas": lambda **split: found.deltas(TRIO, **split).tolist(),
        "effect": lambda **split: found.effect(TRIO, **split),
        "margin": lambda **split: found.margin_of(TRIO, **split),
        "lead": lambda **split: found.lead(TRIO, (LEADER,), **split),
        "cooperation": lambda **split: found.cooperation(TRIO, **split),
        "cooperations": lambda **split: found.cooperations(TRIO, **split).tolist(),
        "against the sum": lambda **split: found.against_sum(TRIO, **split),
        "restored": lambda **split: found.restored(TRIO, LEADER, **split).tolist(),
        "recovery": lambda **split: found.recovery(TRIO, LEADER, **split),
        "noise of a share": lambda **split: found.share(0.6, TRIO, **split).noise,
        "mean": lambda **split: found.mean(TRIO, **split),
        "least lead": lambda **split: found.least_lead(TRIO, rivals[:3], **split),
        "accomplices": lambda **split: found.accomplices(LEADER, **split),
        "gains": found.gains,
    }
    for name, figure in asked.items():
        assert figure() == figure(split="confirmation") != figure(split="discovery"), name
    last = made.table["intervention"] == AblateHeads(rivals[0]).label
    ahead = 9.0 * (last & (table["split"] == "discovery"))
    moved = replace(made, table=table.assign(logit_diff=table["logit_diff"] + ahead), _cache={})
    assert moved.exceedance(TRIO, rivals) == moved.exceedance(TRIO, rivals, split="confirmation")
    assert moved.exceedance(TRIO, rivals) < moved.exceedance(TRIO, rivals, split="discovery")
