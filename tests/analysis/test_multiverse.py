"""A verdict under every other analysis: counted by hand where the answer is known.

Run: pytest tests/analysis/test_multiverse.py
"""

from dataclasses import replace
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest

from tests.synthetic_sweeps import make_sweep
from tinyablation.analysis.alternatives import (
    ALL,
    LEAST_CLUSTERS,
    METRICS,
    PATCHED,
    REDRAWN,
    AnalysedSweep,
    Analyses,
    Analysis,
    MultiverseError,
    Source,
    family,
    redrawn_splits,
)
from tinyablation.analysis.effects import Effects
from tinyablation.analysis.multiverse import LEAST_SHARE, multiverse
from tinyablation.analysis.sweeps import rank_agreement_interval
from tinyablation.interventions.interventions import METHODS
from tinyablation.verdicts.verdicts import judge_above_floor, judge_all_of

pytestmark = pytest.mark.slow  # models are measured in several ways: make slow

HEAD = (0, 1)
CLUSTERS = 80  # 20 of each wording in each split
WORDINGS = ("plainly.asks", "so.tells")
# Of what a head does alone, how much by each method; a model without biases has one zero.
SIZES = {"zero": 1.0, "zero_folded": 1.0, "mean": 1.2, "resample": 0.8}
TOLERANCE = 1e-3


def sweep(by_method=None, by_metric=None, wordings=WORDINGS, clusters=CLUSTERS):
    """One head raises LD by 1 of 4, and with it what each metric reads off the output.

    by_method, by_metric: by how much of that, where it is another share; -1 is the opposite.
    """
    sizes, shares = SIZES | (by_method or {}), by_metric or {}
    made = make_sweep({HEAD: 1.0}, n_clusters=clusters)
    table = made.table.copy()
    clean = np.tile(
        table.loc[table["method"] == "none", "logit_diff"], len(table) // len(clean_of(table))
    )
    delta = (table["logit_diff"] - clean) * table["method"].map(sizes).fillna(0.0)
    cluster = table["cluster_id"].str.removeprefix("fact").astype(int)

    def moved(metric, scale):
        return scale * delta * shares.get(metric, 1.0)

    table = table.assign(
        logit_diff=clean + moved("LD", 1.0),
        target_probability=0.5 + moved("probability", 0.2),
        target_rank=4.0 - moved("rank", 2.0),
        kl=moved("KL", 1.0),
        entropy=2.0,
        cluster_id="capital/" + table["cluster_id"],  # of one relation
        template_id=[wordings[number // 2 % len(wordings)] for number in cluster],
    )
    return replace(made, table=table, _cache={})


def clean_of(table):
    return table[table["method"] == "none"]


def splits_of(made):
    rows = clean_of(made.table)
    examples = [
        SimpleNamespace(cluster_id=c, fact_id=f, clean=p, template_id=t)
        for c, f, p, t in zip(
            rows["cluster_id"], rows["fact_id"], rows["clean"], rows["template_id"], strict=True
        )
    ]
    return redrawn_splits(examples, 0, "facts")


def claim(own):
    return judge_above_floor(own["sweep"].effect(HEAD), floor=own["sweep"].floor(), what="it")


def judged(made, claim=claim, others=None, **options):
    """The multiverse of a claim about one sweep. others: what the other methods are made from."""
    source = Source(made, dict.fromkeys(METHODS, others or made), TOLERANCE, **options)
    verdict = claim({"sweep": made})
    return multiverse(claim, {"sweep": source}, verdict, Analyses({"facts": splits_of(made)}))


def test_a_wider_interval_is_not_taken_from_the_cache_of_a_narrower_one():
    """A choice of which both halves choose one head has that head's name, at .98."""
    made = make_sweep({(0, 2): 1.0})
    sweep = AnalysedSweep("made-up", "facts", made.table, 1e-6)
    chosen = sweep.choose(sweep.layer(0))
    assert chosen.name == "0:2"
    alone = sweep.effect((0, 2), split="both")
    crossed = sweep.effect(chosen, split="both")
    assert crossed.low < alone.low < alone.high < crossed.high
    assert (crossed, alone) == (
        made.effect(chosen, split="both"),
        made.effect((0, 2), split="both"),
    )


def test_an_effect_that_is_everywhere_agrees_everywhere():
    found = judged(sweep())
    # Zero and zero_folded are one; all prompts and two wordings; the registered split and two more.
    assert found.n == found.agreed == 3 * len(METRICS) * 3 * (1 + REDRAWN)
    assert found.share == 1.0 and not found.fragile and found.verdicts == {"supported": found.n}
    assert found.by_choice == {
        "method": dict.fromkeys(("zero", "mean", "resample"), (36, 36)),
        "metric": dict.fromkeys(METRICS, (27, 27)),
        "template": dict.fromkeys((ALL, "asks", "tells"), (36, 36)),
        "split": dict.fromkeys(("registered", "redrawn 1", "redrawn 2"), (36, 36)),
    }
    assert found.not_made == {
        "method zero_folded": "the same as zero in this model, and counted once"
    }


def test_a_model_with_biases_has_four_methods():
    assert judged(sweep({"zero_folded": 0.9})).n == 4 * len(METRICS) * 3 * 3


@pytest.mark.parametrize(("factor", "option"), [("method", "mean"), ("metric", "probability")])
def test_an_option_that_says_the_opposite_is_named(factor, option):
    found = judged(sweep(**{f"by_{factor}": {option: -1.0}}))
    options = found.by_choice[factor]
    against = {name: pair for name, pair in options.items() if pair[0] < pair[1]}
    assert against == {option: (0, found.n // len(options))}
    # KL has no sign in the model, but these made-up figures have: the mean lowers it as well.
    assert found.verdicts == {"refuted": found.n // len(options), "supported": found.agreed}
    assert found.share == pytest.approx(1 - 1 / len(options)) and not found.fragile


def test_a_verdict_that_most_analyses_do_not_share_is_fragile():
    found = judged(sweep(by_metric=dict.fromkeys(("probability", "rank", "KL"), 0.0)))
    assert found.by_choice["metric"]["LD"] == (27, 27)
    # No analysis by another metric supports it; where nothing moves there may be no interval.
    assert all(
        agreed == 0 for name, (agreed, _) in found.by_choice["metric"].items() if name != "LD"
    )
    assert found.least_share == LEAST_SHARE
    fine = judged(sweep(by_metric={"probability": 0.02, "rank": 0.02, "KL": 0.02}))
    assert fine.n == 108 and fine.agreed == 27
    assert fine.share == 0.25 < LEAST_SHARE and fine.fragile


def test_what_cannot_be_judged_is_counted_with_its_reason():
    """12 clusters of each wording: six a split, too few; the whole has twelve."""
    found = judged(sweep(clusters=24))
    assert found.by_choice["template"] == {ALL: (36, 36)}
    said = found.not_made["too few clusters"]
    assert (
        said.startswith("72 of 108 analyses, such as ") and f"{LEAST_CLUSTERS} are wanted" in said
    )


def test_factors_that_a_claim_does_not_have_are_not_varied():
    one = judged(sweep(wordings=("plainly.asks", "so.asks")))
    assert one.not_made["template"] == "the prompts have one wording only"
    assert one.n == 3 * len(METRICS) * 3

    def of_entropy(own):
        effects = own["sweep"]
        change = effects.effect(HEAD, column="seq_kl_mean")
        return judge_above_floor(change, floor=0.05, what="it")

    made = sweep()
    moved = made.table["logit_diff"] - 3.0
    made = replace(made, table=made.table.assign(seq_kl_mean=moved), _cache={})
    figure = judged(made, of_entropy)
    assert figure.not_made["metric"] == "the claim is about a figure of its own, not about LD"
    assert figure.n == 3 * 3 * 3
    side_by_side = judged(sweep(), fixed=True)
    assert side_by_side.not_made["method"] == "the claim looks at all methods side by side"


def test_what_is_no_ablation_has_no_other_method():
    made = Effects("made-up", "facts", sweep().table, 1e-6, runs=("a-run",))
    source = Source.patched(made, TOLERANCE)

    def of_one(own):
        change = own["patches"].change("zero:0.1", "confirmation")
        effects = own["patches"]
        return judge_above_floor(
            effects.interval(change, "confirmation", "it"), floor=0.2, what="it"
        )

    splits = Analyses({"facts": splits_of(made)})
    found = multiverse(of_one, {"patches": source}, of_one({"patches": made}), splits)
    assert found.by_choice["method"] == {PATCHED: (found.agreed, found.n)}
    assert found.n == len(METRICS) * 3 * 3
    assert "about what passes through patches" in found.not_made["method"]


def test_a_claim_about_several_conditions_has_the_splits_of_each():
    """Their clusters may have the same names."""
    facts, logic = sweep(), replace(sweep(), condition="logic", runs=("other-run",), _cache={})
    turn = {"discovery": "confirmation", "confirmation": "discovery"}
    drawn = splits_of(facts)
    turned = {name: {c: turn[s] for c, s in split.items()} for name, split in drawn.items()}
    analyses = Analyses({"facts": drawn, "logic": turned})
    assert analyses.redrawn == tuple(drawn)
    redrawn = Analysis("zero", "LD", ALL, "redrawn 1")
    halves = [
        set(
            analyses.of(own.condition, Source(own, {"zero": own}, TOLERANCE), redrawn).clusters(
                "confirmation"
            )
        )
        for own in (facts, logic)
    ]
    assert halves[0].isdisjoint(halves[1]) and len(halves[0] | halves[1]) == CLUSTERS

    def both(own):
        return judge_all_of([claim({"sweep": each}) for each in own.values()])

    others = sweep(wordings=("plainly.orders", "so.pleads"))
    logic = replace(logic, table=others.table)
    own = {"facts": facts, "logic": logic}
    sources = {n: Source(each, dict.fromkeys(METHODS, each), TOLERANCE) for n, each in own.items()}
    found = multiverse(both, sources, both(own), analyses)
    assert found.n == found.agreed == 3 * len(METRICS) * 3
    assert found.not_made["template"] == "the conditions have no two wordings in common"


def test_a_ranking_of_what_does_not_move_has_no_figure():
    made = sweep(by_metric={"rank": 0.0})

    def agreement(own):
        estimate, _ = rank_agreement_interval([own["sweep"]] * 2, own["sweep"].layer(0))
        return judge_above_floor(estimate, floor=0.5, what="rho")

    found = judged(made, agreement)
    assert found.not_made["no figure on some resamples"].startswith("27 of 108 analyses")
    assert "rank" not in found.by_choice["metric"]


def test_what_is_left_out_says_why():
    made = sweep()
    source = Source(made, dict.fromkeys(METHODS, made), TOLERANCE)
    unmade = {"metric rank": "how far bfloat16 arithmetic moves a rank is not measured"}
    found = multiverse(
        claim, {"sweep": source}, claim({"sweep": made}), Analyses({}), unmade=unmade
    )
    assert "rank" not in found.by_choice["metric"] and found.not_made["metric rank"].startswith(
        "how"
    )
    assert found.by_choice["split"] == {"registered": (27, 27)}


def test_a_claim_that_rests_on_something_else_is_an_error():
    made = sweep()
    source = Source(made, dict.fromkeys(METHODS, made), TOLERANCE)
    verdict = claim({"sweep": sweep({"zero": 0.5})})
    with pytest.raises(MultiverseError, match="rests on more than the fixtures it was given"):
        multiverse(claim, {"sweep": source}, verdict, Analyses({}))


def test_another_measurement_under_the_same_name_is_an_error():
    with pytest.raises(MultiverseError, match="measured the same: remove both runs"):
        judged(sweep(), others=sweep({"zero": 1.1}))


def test_what_was_measured_on_one_split_is_compared_with_both():
    """Head sets are judged on the confirmation split; there an example has another number."""
    both = sweep()
    half = both.table[both.table["split"] == "confirmation"]
    half = half.assign(example=half["example"].rank(method="dense").astype(int) - 1)
    own = replace(both, table=half, _cache={})
    source = Source(own, dict.fromkeys(METHODS, both), TOLERANCE)
    verdict = claim({"sweep": own})
    found = multiverse(claim, {"sweep": source}, verdict, Analyses({"facts": splits_of(both)}))
    assert found.n == found.agreed == 3 * len(METRICS) * 3 * 3
    moved = half.assign(logit_diff=half["logit_diff"] + 0.1 * (half["method"] == "zero"))
    other = replace(both, table=moved, _cache={})
    with pytest.raises(MultiverseError, match="measured the same: remove both runs"):
        Source(other, dict.fromkeys(METHODS, both), TOLERANCE).require_same("it")


def test_splits_are_redrawn_by_cluster_and_wording():
    made = sweep()
    drawn = splits_of(made)
    assert list(drawn) == ["redrawn 1", "redrawn 2"] and drawn == splits_of(made)
    rows = clean_of(made.table).drop_duplicates("cluster_id").set_index("cluster_id")
    registered = rows["split"].to_dict()
    for one, other in product([registered, *drawn.values()], repeat=2):
        assert set(one) == set(other)
        if one is not other:
            assert sum(one[name] != other[name] for name in one) > 20
    for split in drawn.values():
        for wording in WORDINGS:
            same = [split[name] for name in split if rows.loc[name, "template_id"] == wording]
            assert sorted(map(same.count, ("confirmation", "discovery"))) == [20, 20]
    assert [family(each) for each in ("so.tells", "plain")] == ["tells", "plain"]
