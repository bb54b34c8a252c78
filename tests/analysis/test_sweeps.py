"""Sweeps: what is asked of them is answered from the right split, with the right sign.

Run: pytest tests/analysis/test_sweeps.py
"""

from dataclasses import replace

import numpy as np
import pytest

from tests.synthetic_sweeps import HEADS, LAYERS, make_sweep
from tinyablation.analysis.choice import Choice
from tinyablation.analysis.effects import EffectsError
from tinyablation.analysis.sweeps import rank_agreement_interval
from tinyablation.corpora.examples import SPLITS
from tinyablation.heads import Head, head_name
from tinyablation.interventions.interventions import AblateHeads
from tinyablation.statistics.clusters import StatisticsError
from tinyablation.statistics.intervals import Estimate
from tinyablation.verdicts.verdicts import Verdict


def test_heads_are_all_heads_layer_by_layer():
    assert make_sweep({}).n_layers == LAYERS
    sweep = make_sweep({})
    assert sweep.heads == tuple((layer, head) for layer in range(LAYERS) for head in range(HEADS))
    assert sweep.layer(1) == tuple((1, head) for head in range(HEADS))


def test_a_planted_suppressor_comes_out_on_top():
    """P6: one sign; the head whose ablation raises LD leads, not the one that lowers it."""
    sweep = make_sweep({(0, 2): 1.0, (1, 1): -2.0})
    assert sweep.top_suppressor() == (0, 2)
    assert sweep.rank((0, 2)) == 1
    assert sweep.rank((1, 1)) == LAYERS * HEADS
    assert sweep.effect((0, 2)).estimate == pytest.approx(1.0, abs=0.2)
    assert sweep.effect((1, 1)).high < 0


def test_choice_and_judgement_use_different_examples():
    """P13: changing the confirmation rows cannot change which head is chosen."""
    sweep = make_sweep({(0, 2): 1.0})
    table = sweep.table.copy()
    other = (table["layer"] == 1) & (table["head"] == 3) & (table["split"] == "confirmation")
    table.loc[other, "logit_diff"] += 50
    changed = make_sweep({}).__class__("made-up", "facts", table, 1e-6)
    assert changed.top_suppressor() == (0, 2)
    assert changed.rank((1, 3)) == 1
    assert changed.rank((0, 2)) == 2


def test_p_is_corrected_over_all_heads():
    sweep = make_sweep({(0, 2): 1.0})
    assert sweep.p_corrected((0, 2)) < 0.01
    assert all(sweep.p_corrected(head) > 0.05 for head in sweep.heads if head != (0, 2))
    assert sweep.above_floor() == ((0, 2),)


def test_above_the_floor_is_the_whole_interval():
    """Told from zero, its estimate above the floor and its lower end not: it does not count."""
    sweep = make_sweep({(0, 2): 1.0, (1, 1): 0.25})
    low, estimate = sweep.effect((1, 1)).low, sweep.effect((1, 1)).estimate
    assert 0 < low < sweep.floor() < estimate and sweep.p_corrected((1, 1)) <= 0.05
    assert sweep.above_floor() == ((0, 2),)


def test_exceedance_leaves_the_head_itself_out():
    """P8: (k + 1) / (n + 1) over the other heads."""
    sweep = make_sweep({(0, 2): 1.0})
    assert sweep.exceedance((0, 2)) == pytest.approx(1 / (LAYERS * HEADS))
    worst = min(sweep.heads, key=sweep.mean_deltas("confirmation").__getitem__)
    assert sweep.exceedance(worst) == 1.0


def test_the_floor_is_a_share_of_the_clean_ld_and_at_least_the_noise():
    assert make_sweep({}, clean_ld=4.0).floor() == pytest.approx(0.2, rel=0.1)
    loud = make_sweep({}, clean_ld=4.0)
    loud = loud.__class__("made-up", "facts", loud.table, noise_floor=3.0)
    assert loud.floor() == 3.0


def test_another_column_has_effects_floor_and_p_of_its_own():
    made = make_sweep({(0, 2): 1.0})
    table = made.table.copy()
    own = (table["layer"] == 1) & (table["head"] == 3)
    table.loc[own, "entropy"] = 0.6 + 0.01 * (table.loc[own, "example"] % 5)
    sweep = made.__class__("made-up", "facts", table, 1e-6)
    assert sweep.effect((1, 3), column="entropy").estimate == pytest.approx(-0.38, abs=0.01)
    assert sweep.mean_deltas("discovery", column="entropy")[1, 3] < -0.37
    assert sweep.floor(column="entropy", share=0.1) == pytest.approx(0.1)
    assert sweep.effect((0, 2), column="entropy").estimate == 0
    assert sweep.p_corrected((0, 2)) < 0.01


def test_an_ablation_that_changes_nothing_has_the_effect_zero():
    sweep = make_sweep({}, spread=0.0)
    assert sweep.effect((0, 0))[:3] == (0.0, 0.0, 0.0)
    assert sweep.p_corrected((0, 0)) == 1.0


def test_the_same_nonzero_effect_everywhere_is_an_error():
    """P11: an interval over identical values has no width and says nothing."""
    sweep = make_sweep({(0, 1): 1.0}, spread=0.0)
    with pytest.raises(StatisticsError):
        sweep.effect((0, 1))


def test_figures_do_not_depend_on_the_order_of_rows():
    sweep = make_sweep({(0, 2): 1.0})
    shuffled = sweep.table.sample(frac=1, random_state=3)
    again = sweep.__class__("made-up", "facts", shuffled, 1e-6)
    assert again.effect((0, 2)) == sweep.effect((0, 2))
    assert again.p_corrected((0, 2)) == sweep.p_corrected((0, 2))


def test_lead_is_paired_by_example():
    sweep = make_sweep({(0, 2): 1.0, (1, 0): 0.4})
    lead = sweep.lead((0, 2), (1, 0))
    deltas = sweep.deltas("confirmation")
    assert lead.estimate == pytest.approx(float(np.mean(deltas[:, 2] - deltas[:, 4])))
    assert lead.low > 0


def test_flips_are_counted_against_the_clean_prediction():
    """P15: an ablation that leaves the argmax alone flips nothing."""
    sweep = make_sweep({(0, 2): 1.0})
    assert sweep.behaviour((0, 2))["acc_flip_rate"] == 0.0
    table = sweep.table.copy()
    table.loc[(table["layer"] == 0) & (table["head"] == 2), "argmax"] = 8
    flipped = sweep.__class__("made-up", "facts", table, 1e-6)
    assert flipped.behaviour((0, 2))["acc_flip_rate"] == 1.0


def test_extremes_show_both_directions():
    sweep = make_sweep({(0, 2): 1.0})
    deltas = [row["delta"] for row in sweep.extremes((0, 2))]
    assert deltas == sorted(deltas, reverse=True)
    assert len(deltas) == 10
    every = sweep.deltas("confirmation")[:, 2]
    assert deltas[0] == every.max()
    assert deltas[-1] == every.min()


def test_extremes_name_the_head_that_was_ablated_on_each_prompt():
    """Of a choice, the head that the other half chose; its next tokens are measured so."""
    sweep = make_sweep({(0, 2): 1.0})
    named = {"discovery": Head(1, 3), "confirmation": Head(0, 2)}
    splits = dict(zip(sweep.baseline()["clean"], sweep.baseline()["split"], strict=True))
    found = sweep.extremes(Choice(named, "both"), "both")
    assert {splits[row["prompt"]] for row in found} == set(named)
    for row in found:
        ablation = AblateHeads((named[splits[row["prompt"]]],))
        assert (row["corpus"], row["ablation"]) == (sweep.condition, ablation)


def test_a_head_the_model_does_not_have_is_refused():
    with pytest.raises(EffectsError, match="no head 0:9: its last is 2:3"):
        make_sweep({}).effect((0, 9))
    with pytest.raises(EffectsError, match="no 'median' rows"):
        make_sweep({}).deltas("discovery", "median")


def test_rank_agreement_sees_agreement_and_its_absence():
    ranked = {(0, head): float(head) for head in range(HEADS)}
    turned = {(0, head): float(HEADS - head) for head in range(HEADS)}
    same = [make_sweep(ranked, condition=name, seed=n) for n, name in enumerate("ab")]
    heads = same[0].layer(0)
    # Bootstrap of a saturated rank correlation would have no width: a little overlap is needed.
    noisy = [make_sweep(ranked, spread=2.0, condition=name, seed=n) for n, name in enumerate("cd")]
    estimate, pairs = rank_agreement_interval(noisy, heads)
    assert estimate.estimate > 0.5
    assert list(pairs) == ["c ~ d"]
    estimate, _ = rank_agreement_interval([same[0], make_sweep(turned, condition="e")], heads)
    assert estimate.estimate == -1.0
    assert estimate.high == -1.0
    three = [make_sweep(ranked, spread=3.0, condition=name, seed=n) for n, name in enumerate("cdf")]
    estimate, pairs = rank_agreement_interval(three, heads)
    assert list(pairs) == ["c ~ d", "c ~ f", "d ~ f"] and len(set(pairs.values())) > 1
    assert estimate.low < estimate.estimate < estimate.high == 1.0
    assert estimate.estimate == pytest.approx(sum(pairs.values()) / 3)


@pytest.mark.parametrize("order", [(24, 16), (16, 24)])
def test_rank_agreement_says_of_how_few_clusters_it_is(order):
    """Half of each sweep's clusters are of the split; the fewest of all sweeps count."""
    ranked = {(0, head): float(head) for head in range(HEADS)}
    for spread in (0.2, 2.0):  # the same ranks on every resample, and not
        sweeps = [
            make_sweep(ranked, spread=spread, condition=name, n_clusters=clusters, seed=n)
            for n, (name, clusters) in enumerate(zip("ab", order, strict=True))
        ]
        estimate, _ = rank_agreement_interval(sweeps, sweeps[0].layer(0))
        assert (estimate.low == estimate.high) == (spread == 0.2)
        assert estimate.n_clusters == 8 and estimate.n == (12 + 8) * 4


def test_what_is_asked_of_no_split_is_of_the_one_that_chose_nothing():
    """P13: a head that leads on confirmation and is last on discovery."""
    made = make_sweep({(0, 2): 1.0}, spread=0.05, per_cluster=1)
    made = replace(made, table=made.table[made.table["layer"] < 1], _cache={})
    turned = made.table["split"].eq("discovery") & made.table["intervention"].ne("baseline")
    table = made.table.assign(
        logit_diff=np.where(turned & made.table["head"].eq(2), -9.0, made.table["logit_diff"]),
        kl=made.table["example"] / 100,
    )
    sweep, head, layer = replace(made, table=table, _cache={}), (0, 2), made.layer(0)
    asked = {
        "floor": sweep.floor,
        "rank": lambda **split: sweep.rank(head, **split),
        "percentile": lambda **split: sweep.percentile(head, among=layer, **split),
        "changes": lambda **split: sweep.changes(head, **split).tolist(),
        "effect": lambda **split: sweep.effect(head, **split),
        "margin": lambda **split: sweep.margin_of(head, **split),
        "lead": lambda **split: sweep.lead(head, (0, 1), **split),
        "least lead": lambda **split: sweep.least_lead(head, layer[:2], **split),
        "p": lambda **split: sweep.p_corrected(head, **split),
        "above the floor": sweep.above_floor,
        "exceedance": lambda **split: sweep.exceedance(head, **split),
        "null": lambda **split: sweep.null_quantile((0, 1), 1.0, **split),
        "methods": lambda **split: sweep.methods(head, **split),
        "behaviour": lambda **split: sweep.behaviour(head, **split),
        "extremes": lambda **split: sweep.extremes(head, **split),
        "rank agreement": lambda **split: rank_agreement_interval([sweep, made], layer, **split),
    }
    for name, figure in asked.items():
        assert figure() == figure(split="confirmation") != figure(split="discovery"), name
    assert sweep.heatmap() == sweep.heatmap("confirmation")
    assert sweep.heatmap()["values"] != sweep.heatmap("discovery")["values"]
    # The one exception chooses.
    assert sweep.top_suppressor() != head == sweep.top_suppressor(split="confirmation")


def with_leaders(discovery, confirmation):
    """Of twelve heads these two lead by 3, and the one after each comes last by 3, on one half."""
    made = make_sweep({}, spread=0.05)
    table = made.table.copy()
    for split, head in (("discovery", discovery), ("confirmation", confirmation)):
        for number, moved in ((head, 3.0), ((head + 1) % HEADS, -3.0)):
            rows = table["split"].eq(split) & table["head"].eq(number) & table["layer"].eq(0)
            table.loc[rows, ["logit_diff", "target_logit"]] += [moved, 2 * moved]
    return replace(made, table=table, _cache={})


@pytest.mark.parametrize("column", ["logit_diff", "target_logit"])
@pytest.mark.parametrize(("alternative", "after"), [("greater", 0), ("less", 1)])
def test_each_half_is_judged_of_the_head_that_leads_on_the_other(column, alternative, after):
    sweep = with_leaders(1, 2)
    on_discovery, on_confirmation = Head(0, 1 + after), Head(0, 2 + after)
    given = {"column": column, "alternative": alternative}
    chosen = sweep.choose(sweep.heads, **given)
    assert chosen == Choice({"discovery": on_confirmation, "confirmation": on_discovery}, "both")
    for judging in ("discovery", "confirmation"):
        one = sweep.choose(sweep.heads, split=judging, **given)
        assert one == Choice({judging: chosen.heads[judging]}, judging)
    # Among others, another.
    among = [head for head in sweep.heads if head not in (on_confirmation, on_discovery)]
    assert set(sweep.choose(among, **given).heads.values()) <= set(among)


def test_a_lead_over_or_of_a_choice_has_the_wider_interval():
    sweep = make_sweep({(0, 1): 1.0}, spread=0.05)
    chosen, head = sweep.choose(sweep.heads), Head(0, 1)
    assert set(chosen.heads.values()) == {head}
    plain = sweep.lead(head, Head(0, 2), split="both")
    widths = [
        found.high - found.low
        for found in (
            sweep.lead(chosen, Head(0, 2), split="both"),
            sweep.lead(Head(0, 2), chosen, split="both"),
        )
    ]
    assert min(widths) > 1.05 * (plain.high - plain.low)


def test_a_choice_that_suppresses_is_named_by_the_head_judged_last():
    found = with_leaders(1, 2).suppresses(Choice(dict.fromkeys(SPLITS, Head(0, 2)), "both"))
    assert found.subject == "0:2"


def test_rank_agreement_is_drawn_by_the_seed_of_the_first_sweep():
    first, second = (
        make_sweep({}, condition=name, n_clusters=16, seed=n) for n, name in enumerate("ab")
    )
    moved = [replace(each, seed=1, _cache={}) for each in (first, second)]
    heads = first.heads  # all of them: their correlation takes many values
    estimate, _ = rank_agreement_interval([first, second], heads)
    assert -1 < estimate.low < estimate.estimate < estimate.high < 1
    assert rank_agreement_interval([first, moved[1]], heads)[0] == estimate
    assert rank_agreement_interval([moved[0], second], heads)[0] != estimate


def test_head_names():
    assert head_name((0, 21)) == "0:21"


RANKED = {(0, 0): -0.5, (0, 1): 0.5, (0, 2): 1.0, (1, 1): 2.0}


def test_a_percentile_is_of_the_other_heads_named():
    sweep = make_sweep(RANKED, spread=0.02)
    layer = sweep.layer(0)
    assert sweep.percentile((0, 2), among=layer) == 100.0
    assert sweep.percentile((0, 1), among=layer) == pytest.approx(200 / 3)
    assert sweep.percentile((0, 0), among=layer) == 0.0
    tied = replace(sweep, table=sweep.table[sweep.table["head"].lt(1)], _cache={})
    rows = tied.table["intervention"].ne("baseline")
    clean = tied.baseline("both")["logit_diff"].to_numpy()
    tied.table.loc[rows, "logit_diff"] = np.tile(clean, rows.sum() // len(clean)) + 0.5
    assert tied.percentile((0, 0), among=tied.heads) == 0.0, "the others have as much, not less"


def test_the_least_lead_is_the_one_with_the_smallest_lower_end_on_the_split_asked_for():
    sweep = make_sweep(RANKED, spread=0.05)
    others = [head for head in sweep.layer(0) if head != (0, 2)]
    for split in ("both", "discovery"):
        over, lead, least = sweep.least_lead((0, 2), others, split=split)
        assert over == (0, 1) and lead == sweep.lead((0, 2), (0, 1), split=split)
        means = sweep.mean_deltas(split)
        assert least == pytest.approx(means[0, 2] - means[0, 1])


def test_the_null_is_of_the_other_heads_on_the_split_asked_for():
    """What the discovery rows are does not show in figures of the confirmation split."""
    sweep = make_sweep(RANKED, spread=0.02)
    others = [sweep.mean_deltas("confirmation")[head] for head in sweep.heads if head != (0, 2)]
    assert sweep.null_quantile((0, 2), 0.9) == pytest.approx(float(np.quantile(others, 0.9)))
    assert sweep.exceedance((0, 2)) == pytest.approx(2 / 12)  # 1:1 has more
    table = sweep.table.copy()
    rival = (table["layer"] == 1) & (table["head"] == 1) & (table["split"] == "discovery")
    table.loc[rival, "logit_diff"] -= 9.0
    moved = sweep.__class__("made-up", "facts", table, 1e-6)
    assert moved.null_quantile((0, 2), 0.9) == sweep.null_quantile((0, 2), 0.9)
    assert moved.exceedance((0, 2)) == pytest.approx(2 / 12)
    assert moved.exceedance((0, 2), split="discovery") == pytest.approx(1 / 12)
    assert moved.null_quantile((0, 2), 1.0, split="discovery") < 1.0


def test_methods_show_each_effect_with_its_interval():
    sweep = make_sweep({(0, 2): 1.0})
    table = sweep.table.copy()
    mean = (table["method"] == "mean") & (table["layer"] == 0) & (table["head"] == 2)
    table.loc[mean, "logit_diff"] += 0.5
    table = table[~((table["method"] == "resample") & (table["head"] == 2))]
    moved = sweep.__class__("made-up", "facts", table, 1e-6)
    found = moved.methods((0, 2))
    assert set(found) == {"zero", "zero_folded", "mean"}
    for method, interval in found.items():
        assert interval == list(moved.effect((0, 2), method=method)[:3])
    assert found["mean"][0] == pytest.approx(found["zero"][0] + 0.5)


def test_flips_are_counted_by_example_whatever_the_order_of_rows():
    sweep = make_sweep({(0, 2): 1.0})
    table = sweep.table.assign(argmax=sweep.table["example"])  # another one for every example
    shuffled = table.sample(frac=1, random_state=3)
    again = sweep.__class__("made-up", "facts", shuffled, 1e-6)
    assert again.behaviour((0, 2))["acc_flip_rate"] == 0.0


def test_behaviour_is_of_one_split_and_against_the_clean_prompts():
    sweep = make_sweep({(0, 2): 1.0})
    table = sweep.table.copy()
    own = (table["layer"] == 0) & (table["head"] == 2) & (table["split"] == "confirmation")
    clean = (table["method"] == "none") & (table["split"] == "confirmation")
    table.loc[own, ["target_rank", "target_probability", "kl", "entropy"]] = [1, 0.2, 0.3, 1.7]
    table.loc[own & (table["example"] % 8 < 7), "target_rank"] = 0
    table.loc[clean & (table["example"] % 8 < 7), "target_rank"] = 2
    found = sweep.__class__("made-up", "facts", table, 1e-6).behaviour((0, 2))
    assert found == {
        "clean_top1": 0.25,
        "ablated_top1": 0.75,
        "clean_p_target": 0.5,
        "ablated_p_target": pytest.approx(0.2),
        "acc_flip_rate": 0.0,
        "kl_nats": pytest.approx(0.3),
        "entropy_change_nats": pytest.approx(0.7),
    }


@pytest.mark.parametrize("alternative", ["greater", "less"])
def test_some_head_is_refuted_only_if_every_head_is_and_the_nearest_is_named(alternative):
    sign = 1 if alternative == "greater" else -1
    sweep = make_sweep({})

    def verdict(low, high, status, distance):
        ends = sorted((sign * low, sign * high))
        effect = Estimate(sum(ends) / 2, *ends, 40, 30)
        return Verdict(status, "it", effect, 0.2, distance=distance)

    chosen = verdict(-0.3, 0.05, "refuted", -0.4)
    shut = {(0, 0): chosen, (0, 1): verdict(-0.5, -0.1, "refuted", -0.3)}
    refuted = sweep.for_some_head(chosen, shut, 0.2, alternative=alternative)
    assert refuted.status == "refuted" and refuted.distance == -0.3
    left = {
        (0, 2): verdict(-0.6, 0.3, "inconclusive", -0.2),
        (0, 3): verdict(-0.1, 0.4, "inconclusive", -0.25),
        (1, 0): verdict(0.1, 0.25, "inconclusive", -0.1),
    }
    open_ = sweep.for_some_head(chosen, shut | left, 0.2, alternative=alternative)
    assert open_.status == "inconclusive" and open_.p_value is None and open_.distance == -0.1
    assert "of 5 heads 3 are not excluded: 0:3 has the interval" in open_.reason


def test_what_is_above_the_floor_is_of_the_split_asked_for():
    sweep = make_sweep({(0, 2): 1.0, (1, 1): 1.0}, spread=0.05)
    table = sweep.table.copy()
    own = (table["layer"] == 1) & (table["head"] == 1) & (table["split"] == "confirmation")
    clean = table[table["method"] == "none"].set_index("example")["logit_diff"]
    table.loc[own, "logit_diff"] = clean.loc[table.loc[own, "example"]].to_numpy() - 0.01
    moved = sweep.__class__("made-up", "facts", table, 1e-6)
    assert moved.above_floor("discovery") == ((0, 2), (1, 1))


def test_a_margin_is_beyond_the_share_of_the_column_and_split_asked_for():
    sweep = make_sweep({(0, 2): 1.0})
    for split in ("both", "confirmation"):
        clean = sweep.baseline(split)["logit_diff"].mean()
        for share in (0.02, 0.05, -0.05):
            found = sweep.margin_of((0, 2), split=split, share=share)
            effect = sweep.effect((0, 2), split=split).estimate
            assert found.estimate == pytest.approx(effect - share * clean)
    nats = sweep.margin_of((0, 2), column="entropy", share=0.1)
    assert nats.estimate == pytest.approx(-0.1)  # of 1 nat, of which nothing is changed
