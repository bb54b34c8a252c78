"""One measurement's table under other analyses, on tables whose answer is known.

Run: pytest tests/analysis/test_alternatives.py
"""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from tests.synthetic_sweeps import make_sweep
from tinyablation.analysis.alternatives import (
    ALL,
    LEAST_CLUSTERS,
    PATCHED,
    REGISTERED,
    AnalysedCoalitions,
    AnalysedSweep,
    Analyses,
    Analysis,
    MultiverseError,
    Source,
    TooFewClusters,
    family,
    of_examples,
    redrawn_splits,
)
from tinyablation.analysis.coalitions import Coalitions
from tinyablation.analysis.effects import Effects
from tinyablation.verdicts.floors import Noise

HEAD = (0, 1)
PLAIN = Analysis("zero", "LD", ALL, REGISTERED)
TOLERANCE = 1e-3
NOISE = Noise(0.1, "cuda in bfloat16", {"target_probability": 0.02, "target_rank": 9.0, "kl": 0.03})


def made(clean_ld=4.0, clusters=32):
    """Four heads, each metric another figure, two wordings by turns of two clusters."""
    sweep = make_sweep({HEAD: 1.0}, clean_ld=clean_ld, n_clusters=clusters, per_cluster=2)
    table = sweep.table[sweep.table["layer"] < 1]
    cluster = table["cluster_id"].str.removeprefix("fact").astype(int)
    example = table["example"]
    table = table.assign(
        target_probability=0.3 + 0.001 * example,
        target_rank=example % 5,
        kl=0.25 + 0.002 * example,
        entropy=2.0 + 0.01 * example,
        template_id=np.where(cluster // 2 % 2 == 0, "plainly.asks", "so.tells"),
    )
    return replace(sweep, table=table, noise_floor=NOISE, _cache={})


@pytest.fixture(scope="module")
def own():
    return made()


def source(own, **by_method):
    return Source(own, {"zero": own, "mean": own, **by_method}, TOLERANCE)


def under(own, analysis, splits=None):
    return Analyses(splits or {}).of("sweep", source(own), analysis)


@pytest.mark.parametrize(
    ("metric", "column", "sign", "whole", "least", "noise"),
    [
        ("LD", "logit_diff", 1, "logit_diff", 0.0, 0.1),
        ("probability", "target_probability", 1, "target_probability", 0.0, 0.02),
        ("rank", "target_rank", -1, "target_rank", 1.0, 0.0),  # a rounding moves no rank
        ("KL", "kl", 1, "entropy", 0.0, 0.03),
    ],
)
def test_a_metric_stands_in_the_place_of_ld_with_its_whole_and_noise(
    own, metric, column, sign, whole, least, noise
):
    found = under(own, PLAIN._replace(metric=metric))
    assert isinstance(found, AnalysedSweep) and found.metric == metric
    assert found.table["logit_diff"].tolist() == (sign * found.table[column]).tolist()
    clean = own.baseline("both")
    assert found.whole("both").tolist() == (least + clean[whole].to_numpy(float)).tolist()
    assert found.noise() == noise and found.noise().where == "cuda in bfloat16"
    # Another column than LD is what it was.
    assert found.whole("both", "entropy").tolist() == clean["entropy"].tolist()
    assert found.noise("kl") == 0.03
    assert (found.model, found.condition, found.runs) == (own.model, own.condition, own.runs)


def test_a_whole_is_signed_to_be_above_zero():
    own = made(clean_ld=-4.0)
    clean = own.baseline("both")["logit_diff"].to_numpy()
    assert under(own, PLAIN).whole("both").tolist() == (-clean).tolist()


def test_only_the_rows_of_the_method_and_the_wording_are_left(own):
    found = under(own, PLAIN._replace(method="mean", template="tells"))
    assert set(found.table["method"]) == {"none", "mean"} and found.method == "mean"
    assert set(found.table["template_id"]) == {"so.tells"}
    assert len(under(own, PLAIN).baseline()) == 2 * len(found.baseline()) == 64
    assert family("so.tells") == "tells" and family("plain") == "plain"
    assert found.single["head"].min() == 0 and len(found.single) == 4 * 32


def test_an_interval_is_that_of_the_sweep_whatever_was_asked_before(own):
    found = under(own, PLAIN)
    values = own.changes(HEAD, "confirmation")
    for purpose, confidence in (("it", 0.95), ("it", 0.98), ("other", 0.95), ("it", 0.95)):
        expected = own.interval(values, "confirmation", purpose, confidence)
        assert found.interval(values, "confirmation", purpose, confidence) == expected
    half = own.changes(HEAD, "discovery")
    assert found.interval(half, "discovery", "it") == own.interval(half, "discovery", "it")


def test_a_redrawn_split_moves_clusters_and_needs_enough_of_them_on_both_sides(own):
    names = sorted(set(own.clusters("both")))
    for few, enough in ((LEAST_CLUSTERS, True), (LEAST_CLUSTERS - 1, False)):
        for split, other in (("discovery", "confirmation"), ("confirmation", "discovery")):
            drawn = {n: split if i < few else other for i, n in enumerate(names)}
            analysis = PLAIN._replace(split="redrawn 1")
            if enough:
                found = under(own, analysis, {"facts": {"redrawn 1": drawn}})
                assert set(found.clusters(split)) == set(names[:few])
                continue
            with pytest.raises(TooFewClusters, match=f"7 clusters in {split}, 8 are wanted"):
                under(own, analysis, {"facts": {"redrawn 1": drawn}})


def test_a_table_is_made_once_and_one_for_every_measurement_and_analysis(own):
    analyses = Analyses({"facts": {"redrawn 1": {}}})
    assert analyses.redrawn == ("redrawn 1",) and Analyses({}).redrawn == ()
    first = analyses.of("sweep", source(own), PLAIN)
    assert analyses.of("sweep", source(own), PLAIN) is first
    elsewhere = replace(own, runs=("another-run",), _cache={})
    for name, measured, analysis in (
        ("other", own, PLAIN),
        ("sweep", elsewhere, PLAIN),
        ("sweep", own, PLAIN._replace(metric="KL")),
        ("sweep", own, PLAIN._replace(method="mean")),
        ("sweep", own, PLAIN._replace(template="asks")),
    ):
        assert analyses.of(name, source(measured), analysis) is not first
    assert analyses.of("sweep", source(elsewhere), PLAIN).runs == ("another-run",)


def test_sets_of_heads_stay_sets_and_what_is_patched_has_no_method(own):
    sets = Coalitions("made-up", "facts", own.table, 0.1, seed=3)
    found = Analyses({}).of("subsets", Source(sets, {"zero": sets}, TOLERANCE), PLAIN)
    assert isinstance(found, AnalysedCoalitions) and (found.method, found.seed) == ("zero", 3)
    assert found.effect([HEAD]) == sets.effect([HEAD])
    effects = Effects("made-up", "facts", own.table, 0.1, seed=3)
    patched = Source.patched(effects, TOLERANCE)
    assert patched.method == PATCHED and patched.fixed and source(own).method == "zero"
    effects.baseline("both")
    plain = Analyses({}).of("patches", patched, PLAIN._replace(metric="probability"))
    assert type(plain) is Effects and plain.seed == 3 and not plain._cache
    assert len(plain.table) == len(own.table)  # every row: no method is chosen
    assert plain.baseline("both")["logit_diff"].iloc[0] == pytest.approx(0.3)


@pytest.mark.parametrize("clean_ld", [4.0, 0.0])
def test_measurements_are_the_same_to_the_tolerance_of_the_largest_ld_or_of_one(clean_ld):
    own = made(clean_ld, clusters=16)
    table = own.table.assign(logit_diff=np.where(own.table["method"] == "none", clean_ld, 0.5))
    own = replace(own, table=table, _cache={})
    for method in ("none", "zero"):  # unhooked and ablated rows are compared apart
        largest = max(1.0, clean_ld if method == "none" else 0.5)
        for share, same in ((0.99, True), (1.01, False)):
            by = share * TOLERANCE * largest * (table["method"] == method)
            again = replace(own, table=table.assign(logit_diff=table["logit_diff"] - by), _cache={})
            both = Source(own, {"zero": again}, TOLERANCE)
            if same:
                both.require_same("it")
                continue
            with pytest.raises(MultiverseError, match="made-up, facts: it of made-up-run differs"):
                both.require_same("it")
    source(own).require_same("it")  # the very same


def test_a_method_that_equals_an_earlier_one_is_its_double(own):
    far = own.table.assign(logit_diff=own.table["logit_diff"] + (own.table["method"] == "mean"))
    changed = replace(own, table=far, _cache={})
    four = {
        "zero": own,
        "zero_folded": own,
        "mean": changed,
        "resample": own,
    }
    assert Source(own, four, TOLERANCE).doubles == {"zero_folded": "zero", "resample": "zero"}


def test_measurements_without_a_common_example_are_refused(own):
    other = replace(own, table=own.table.assign(clean="another prompt"), _cache={})
    with pytest.raises(MultiverseError, match="made-up, facts: two measurements .* share no heads"):
        Source(own, {"zero": other}, TOLERANCE).require_same("it")


def test_of_examples_keeps_those_of_the_other_measurement(own):
    half = replace(own, table=own.table[own.table["split"] == "discovery"], _cache={})
    own.baseline("both")
    found = of_examples(own, half)
    assert found.table.equals(half.table) and not found._cache
    # An example is a prompt with its two answers.
    turned = replace(half, table=half.table.assign(target=" no", foil=" yes"), _cache={})
    assert of_examples(own, turned).table.empty


def examples(*, shared=False):
    """Sixteen clusters of each of two relations in each of two wordings.

    shared: neighbours have one fact, and the next neighbours one prompt.
    """
    found = []
    for number in range(64):
        relation, wording = ("capital", "colour")[number % 2], ("a.is", "b.was")[number // 2 % 2]
        group = f"of group {number // 16}" if shared else number
        found.append(
            SimpleNamespace(
                cluster_id=f"{relation}/{number}",
                fact_id=f"fact {group if number % 16 < 8 else number}",
                clean=f"prompt {group if number % 16 >= 7 else number}",
                template_id=wording,
            )
        )
    return found


def test_splits_are_redrawn_half_and_half_of_each_relation_and_wording():
    drawn = redrawn_splits(examples(), 0, "facts")
    assert list(drawn) == ["redrawn 1", "redrawn 2"] and drawn == redrawn_splits(
        examples(), 0, "facts"
    )
    others = (redrawn_splits(examples(), 1, "facts"), redrawn_splits(examples(), 0, "logic"))
    assert len({str(each) for each in (*drawn.values(), *(o["redrawn 1"] for o in others))}) == 4
    for split in drawn.values():
        assert len(split) == 64
        for relation in ("capital", "colour"):
            for wording in ("a.is", "b.was"):
                own = [
                    split[each.cluster_id]
                    for each in examples()
                    if each.cluster_id.startswith(relation) and each.template_id == wording
                ]
                assert own.count("discovery") == own.count("confirmation") == 8


def test_clusters_that_share_a_fact_or_a_prompt_stay_together():
    for split in redrawn_splits(examples(shared=True), 0, "facts").values():
        halves = [split[each.cluster_id] for each in examples(shared=True)]
        assert all(len(set(halves[n : n + 16])) == 1 for n in range(0, 64, 16))
        assert len(set(halves)) == 2
