"""Claims H1.4 to H1.7, H5 and H6, judged on made-up measurements: each can hold, and can fail.

Run: pytest tests/test_patching_claims.py
"""

import re
from dataclasses import replace
from inspect import signature

import numpy as np
import pytest

from claims.suppressors import test_geometry as geometry
from claims.suppressors import test_h1_suppressors as h1
from claims.suppressors import test_h5_coalitions as h5
from claims.suppressors import test_h6_patching as h6
from tests.synthetic_effects import (
    LAYERS,
    LEADER,
    NAMED,
    TRIO,
    make_coalitions,
    make_patches,
    make_paths,
    noise,
    share_of_clean,
)
from tests.synthetic_sweeps import make_sweep
from tinyablation.analysis.coalitions import set_name
from tinyablation.analysis.patching import DIRECTIONS, is_flat
from tinyablation.heads import Head
from tinyablation.interventions.interventions import AblateHeads, PatchResidual
from tinyablation.plugin.selection import read_docstring
from tinyablation.verdicts.listener import hear

PLANTED = {LEADER: 1.0}
NOTHING = {}
ELSEWHERE = {(0, 7): 1.0}
SPREAD_OUT = {TRIO[0]: 0.5, LEADER: 0.5, TRIO[2]: 0.5}
# One partner fails a claim about both, and the other does not.
FIRST_LEADS = {TRIO[0]: 0.8, LEADER: 0.5}
LAST_LEADS = {TRIO[2]: 0.8, LEADER: 0.5}
VITAL = {LEADER: 0.3, TRIO[0]: -1.0}
SMALL = {LEADER: 0.05}  # 1 % of the clean LD
LEFT_OUT = [  # of patches on crossed corpora
    PatchResidual(layer, positions=where, donor=donor).label
    for layer in range(LAYERS)
    for where, donor in (("all", "pair"), ("last", "other"), ("subject", "other"))
]


def judged(claim, *arguments):
    return hear(claim, *arguments).verdict.status


@pytest.mark.parametrize(
    ("claim", "holds", "fails"),
    [
        (h5.test_zeroing_the_trio_raises_ld, PLANTED, NOTHING),
        (h5.test_zeroing_the_trio_raises_ld, SPREAD_OUT, ELSEWHERE),
        (h5.test_zeroing_the_trio_raises_ld, SPREAD_OUT, VITAL),
        (h5.test_pairs_with_the_leader_beat_the_pair_without, PLANTED, {TRIO[0]: 1.0}),
        (h5.test_pairs_with_the_leader_beat_the_pair_without, PLANTED, FIRST_LEADS),
        (h5.test_pairs_with_the_leader_beat_the_pair_without, PLANTED, LAST_LEADS),
        (h5.test_leader_alone_recovers_most, PLANTED, SPREAD_OUT),
        (h5.test_partners_recover_little, PLANTED, SPREAD_OUT),
        (h5.test_partners_recover_little, PLANTED, FIRST_LEADS),
        (h5.test_partners_recover_little, PLANTED, LAST_LEADS),
        (h1.test_trio_of_the_small_model_raises_ld, PLANTED, NOTHING),
        (h1.test_named_pair_suppresses, PLANTED, NOTHING),
    ],
)
def test_claims_about_coalitions(claim, holds, fails):
    # Some ask for the other sets of the layer too; made-up tables hold all.
    asked = signature(claim).parameters.keys() & {"subsets", "coalitions"}
    for effects, status in ((holds, "supported"), (fails, "refuted")):
        made = [make_coalitions(effects, spread=0.05)] * len(asked)
        assert judged(claim, *made, NAMED) == status


@pytest.mark.parametrize(
    "claim", [h5.test_leader_alone_recovers_most, h5.test_partners_recover_little]
)
@pytest.mark.parametrize("effects", [NOTHING, VITAL])
def test_recovery_of_nothing_is_blocked(claim, effects):
    """A ratio of two negative effects would pass "at least 60 %" falsely."""
    assert judged(claim, make_coalitions(effects), NAMED) == "blocked"


def test_h5_4_is_about_what_the_trio_loses_and_not_about_what_the_leader_does_alone():
    """Alone the leader does 1 of the trio's 1.2, but without it the other two still do .9."""
    made = make_coalitions(PLANTED, extra={2: 0.9, 3: 0.2 + noise(0.02, 5)}, spread=0.05)
    assert judged(h5.test_leader_alone_recovers_most, made, NAMED) == "refuted"


@pytest.mark.parametrize(
    ("effects", "above"),
    [({LEADER: 1.0, TRIO[0]: -0.5}, True), ({LEADER: 1.0, TRIO[0]: 0.5}, False)],
)
def test_h5_4_says_what_a_share_above_1_means(effects, above):
    made = make_coalitions(effects, spread=0.05)
    found = hear(h5.test_leader_alone_recovers_most, made, NAMED)
    assert (found.verdict.effect.estimate > 1) == above
    assert ("share of 0:2 above 1" in found.given["details"]) == above


def test_h5_5_says_where_nothing_is_taken_back():
    """Without the leader and either partner LD rises by 1.9, without all three by 1."""
    made = make_coalitions(PLANTED, extra={2: 0.9}, spread=0.03)
    found = hear(h5.test_partners_recover_little, made, NAMED)
    assert found.verdict.status == "supported"
    for head in ("0:0", "0:5"):
        assert found.given["details"][head][2] < 0
        assert "restoring it adds" in found.given["details"][f"share of {head} below 0"]
    assert "little, if any," in read_docstring(h5.test_partners_recover_little.__doc__).statement


@pytest.mark.parametrize(
    ("extra", "status"), [(1.0, "supported"), (0.0, "refuted"), (-1.0, "refuted")]
)
def test_h5_3_cooperation(extra, status):
    made = make_coalitions(PLANTED, extra={3: extra + noise(0.05, 5)})
    assert judged(h5.test_cooperation_is_super_additive, made, made, NAMED) == status


def test_h5_3_heads_that_lower_ld_suppress_nothing_together():
    """Less than the sum of what each lowers, and yet no suppression."""
    made = make_coalitions(dict.fromkeys(TRIO, -1.0), extra={3: 1.5 + noise(0.05, 5)})
    assert made.mean(TRIO) == pytest.approx(-1.5, abs=0.1)
    found = hear(h5.test_cooperation_is_super_additive, made, made, NAMED).verdict
    assert found.status == "inconclusive" and found.effect.estimate == pytest.approx(1.5, abs=0.1)
    assert "zero-ablating 0:0 0:2 0:5: -1.5" in found.reason


@pytest.mark.parametrize(
    ("effects", "status"),
    [
        (SPREAD_OUT, "supported"),
        (PLANTED, "supported"),  # with the leader in it any triple does as well: not a rival
        (ELSEWHERE, "refuted"),
        ({}, "refuted"),  # none does better, but there is nothing to do better than
        ({LEADER: 1.0, (0, 6): 0.6, (0, 7): 0.4}, "inconclusive"),  # as much without the leader
    ],
)
def test_h5_6_no_other_trio(effects, status):
    # The rival is chosen by single heads, of which a made-up sweep has four.
    class Alone:
        def mean_deltas(self, split):
            assert split == "discovery"
            return {(0, head): effects.get((0, head), 0.0) for head in range(8)}

    made = make_coalitions(effects, spread=0.03)
    found = hear(h5.test_no_other_trio_does_as_well, made, made, Alone(), NAMED)
    assert found.verdict.status == status
    (rival,) = (
        each
        for each in made.rivals(TRIO, LEADER)
        if set_name(each) == found.given["details"]["best other three heads on discovery"]
    )
    leads = made.deltas(TRIO) - made.deltas(rival)
    assert found.given["largest"] == made.largest(leads, "confirmation", 5)
    if status == "supported":
        assert found.verdict.p_value < 0.001
        # Whether it raises LD is said by every example, as for H5.1, not by the sample of triples.
        nothing = make_coalitions({}, spread=0.03)
        claim = h5.test_no_other_trio_does_as_well
        assert judged(claim, nothing, made, Alone(), NAMED) == "refuted"


@pytest.mark.parametrize(
    ("effects", "status"),
    [
        ({(0, 2): 1.0}, "supported"),
        ({(0, 2): 1.0, (2, 1): 2.0}, "supported"),  # what leads in another layer is no rival
        ({(0, 3): 1.0}, "refuted"),
    ],
)
@pytest.mark.parametrize(
    "claim",
    [h1.test_sibling_has_the_same_suppressor, h1.test_named_head_is_the_primary_suppressor],
)
def test_claims_about_a_named_head(claim, effects, status):
    assert judged(claim, make_sweep(effects), NAMED) == status


def test_h1_4_does_not_ask_for_the_lead_and_h1_6_does():
    both = make_sweep({(0, 2): 1.0, (0, 3): 2.0, (1, 0): 3.0})
    verdict, given = hear(h1.test_sibling_has_the_same_suppressor, both, NAMED)
    assert verdict.status == "supported" and given["details"]["rank in its layer"] == 2
    assert judged(h1.test_named_head_is_the_primary_suppressor, both, NAMED) == "refuted"


LAST = {(layer, "last"): 0.3 * layer for layer in range(LAYERS)}
MORE = {**LAST, (2, "last"): 0.9}
# Neither position is flat, whichever is chosen.
WINDOWED = {
    (layer, where): 0.25 * (layer + 1) for layer in range(LAYERS) for where in ("last", "subject")
}


@pytest.mark.parametrize(
    ("denoising", "noising", "status"),
    [
        (LAST, MORE, "supported"),
        (MORE, LAST, "refuted"),  # asymmetric, but the other way round
        (LAST, LAST, "refuted"),
    ],
)
def test_h6_1_noising_does_more_than_denoising(denoising, noising, status):
    patches = make_patches(denoising, noising)
    assert judged(h6.test_patching_is_asymmetric, patches, None) == status


def test_h6_1_an_asymmetry_below_the_minimum_is_present():
    patches = make_patches(LAST, {**LAST, (2, "last"): 0.63}, spread=0.002)
    verdict = hear(h6.test_patching_is_asymmetric, patches, None).verdict
    assert verdict.status == "present", verdict.reason
    assert 0 < verdict.effect.low < verdict.effect.high < h6.ASYMMETRY_FLOOR


@pytest.mark.parametrize(
    "claim", [h6.test_patching_is_asymmetric, h6.test_asymmetry_holds_in_windows]
)
def test_h6_is_judged_alike_by_streams_alone(claim):
    """On a crossed corpus no whole stream is measured, and no wrong donor."""
    every = make_patches(WINDOWED, {key: value + 0.3 for key, value in WINDOWED.items()})
    streams = replace(
        every,
        **{
            name: replace(effects, table=table[~table["intervention"].isin(LEFT_OUT)], _cache={})
            for name in ("denoising", "noising")
            for effects in (getattr(every, name),)
            for table in (effects.table,)
        },
        _cache={},
    )
    whole, alone = (hear(claim, each, None) for each in (every, streams))
    assert whole.verdict == alone.verdict and whole.verdict.status == "supported"
    shown = alone.given["details"]
    if claim is h6.test_patching_is_asymmetric:
        assert shown["wrong example's activations"] == "not measured where clusters are relations"
        assert {*whole.given["details"]["wrong example's activations"]} == {*DIRECTIONS}
        assert {*shown["recovery by layer"]} == {
            f"{direction}, {where}" for direction in DIRECTIONS for where in ("last", "subject")
        }


@pytest.mark.parametrize("twin", [(LAST, MORE), (MORE, LAST)])
def test_h6_1_the_twin_is_shown_and_not_subtracted(twin):
    patches, other = make_patches(LAST, MORE), make_patches(*twin, seed=4)
    found = hear(h6.test_patching_is_asymmetric, patches, other)
    alone = hear(h6.test_patching_is_asymmetric, patches, None)
    assert found.verdict == alone.verdict and found.verdict.status == "supported"
    shown = found.given["details"]["noising - denoising of the twin"]
    assert shown == pytest.approx(0.3 if twin[1] is MORE else -0.3, abs=0.03)


def test_h6_1_an_effect_that_is_the_same_at_every_layer_is_an_artefact():
    """Pitfall P3: the study's figures were identical at every layer."""
    flat = make_patches({}, {}, flat=0.5, windows={1: 1.2, 2: 1.4})
    for claim in (h6.test_patching_is_asymmetric, h6.test_asymmetry_holds_in_windows):
        verdict = hear(claim, flat, None).verdict
        assert verdict.status == "blocked"
        assert "the same at every layer" in verdict.reason


@pytest.mark.parametrize("flat", ["denoising", "noising"])
def test_h6_1_one_direction_may_be_the_same_at_every_layer(flat):
    """An artefact of the instrument is the same both ways."""
    same = {(layer, "last"): 0.5 for layer in range(LAYERS)}
    both = (same, LAST) if flat == "denoising" else (LAST, same)
    patches = make_patches(*both, spread=0.002)
    profile = patches.profile(flat, lambda n: PatchResidual(n, positions="last"), "confirmation")
    assert is_flat(profile)
    assert judged(h6.test_patching_is_asymmetric, patches, None) == "supported"


def test_h6_2_windows():
    shifted = {key: value + 0.3 for key, value in WINDOWED.items()}
    patches = make_patches(WINDOWED, shifted)
    assert judged(h6.test_asymmetry_holds_in_windows, patches, None) == "supported"
    for other in (WINDOWED, {key: value - 0.3 for key, value in WINDOWED.items()}):
        patches = make_patches(WINDOWED, other)
        assert judged(h6.test_asymmetry_holds_in_windows, patches, None) == "refuted"
    for window in (1, 2):  # one of them alone fails
        patches = make_patches(WINDOWED, shifted, windows={window: 0.05}, spread=0.005)
        assert judged(h6.test_asymmetry_holds_in_windows, patches, None) == "present"
        patches = make_patches(WINDOWED, shifted, windows={window: -0.2})
        assert judged(h6.test_asymmetry_holds_in_windows, patches, None) == "refuted"
    patches = make_patches(WINDOWED, shifted, windows={1: 0.15, 2: 0.15}, spread=0.1)
    assert judged(h6.test_asymmetry_holds_in_windows, patches, None) == "inconclusive"


def test_h6_2_is_judged_where_a_window_is_more_than_one_layer():
    """At the last token a window does what its last layer does: H6.1's figure, twice."""
    patches = make_patches(WINDOWED, {**WINDOWED, (3, "last"): 1.5})
    found = hear(h6.test_patching_is_asymmetric, patches, None)
    assert found.verdict.status == "supported" and found.given["subject"] == "layer 3, last"
    found = hear(h6.test_asymmetry_holds_in_windows, patches, None)
    assert found.verdict.status == "refuted" and found.given["subject"] == "layer 3, subject"


def test_h6_2_takes_no_window_with_layer_0_in_it():
    """It puts the other prompt in whole, by which both directions do everything."""
    patches = make_patches(WINDOWED, {**WINDOWED, (2, "subject"): 1.5})
    found = hear(h6.test_patching_is_asymmetric, patches, None)
    assert found.given["subject"] == "layer 2, subject"
    found = hear(h6.test_asymmetry_holds_in_windows, patches, None)
    assert found.given["subject"] == "layer 3, subject"
    few = hear(h6.test_asymmetry_holds_in_windows, replace(patches, n_layers=3), None).verdict
    assert few.status == "blocked" and few.reason.startswith("too few layers: of 3, every window")


def test_h6_2_a_window_that_repeats_a_layer_is_blocked():
    """Equal interventions are one measurement (pitfall P9), and no evidence about windows."""
    shifted = {key: value + 0.3 for key, value in WINDOWED.items()}
    claim = h6.test_asymmetry_holds_in_windows
    for repeated, layers in (((1,), [2]), ((2,), [1]), ((1, 2), [2, 1])):
        verdict = hear(claim, make_patches(WINDOWED, shifted, repeated=repeated), None).verdict
        assert verdict.status == "blocked" and verdict.effect is None
        said = re.findall(r"in 100% of the examples .*? does what layer (\d) does", verdict.reason)
        assert [int(layer) for layer in said] == layers
    # The claim needs both windows: one of the two that is one, and does not hold, refutes it.
    made = make_patches(WINDOWED, shifted, repeated=(1,), windows={2: -0.2})
    assert judged(claim, made, None) == "refuted"


@pytest.mark.parametrize(("repeating", "status"), [(11, "supported"), (12, "blocked")])
def test_h6_2_windows_may_repeat_a_layer_in_less_than_half_of_the_examples(repeating, status):
    """Words replaced stand side by side in some wordings, and apart in others."""
    shifted = {key: value + 0.3 for key, value in WINDOWED.items()}
    own, same = (make_patches(WINDOWED, shifted, repeated=each) for each in ((), (1, 2)))
    examples = own.noising.baseline("confirmation")["example"][:repeating]

    def mixed(direction):
        one, other = getattr(own, direction), getattr(same, direction)
        rows = one.table["example"].isin(examples).to_numpy()
        ld = np.where(rows, other.table["logit_diff"], one.table["logit_diff"])
        return replace(one, table=one.table.assign(logit_diff=ld), _cache={})

    made = replace(own, **{each: mixed(each) for each in DIRECTIONS}, _cache={})
    assert len(own.noising.baseline("confirmation")) == 24
    assert judged(h6.test_asymmetry_holds_in_windows, made, None) == status


@pytest.mark.parametrize(
    ("total", "share", "most", "little"),
    [
        (1.0, 0.8, "supported", "refuted"),
        (1.0, 0.05, "refuted", "supported"),
        (1.0, 0.15, "refuted", "supported"),
        (1.0, -0.15, "refuted", "supported"),
        (1.0, 0.35, "refuted", "refuted"),
        # The path takes back what the others do: neither most nor little.
        (1.0, -0.5, "refuted", "refuted"),
        (1.0, 1.4, "supported", "refuted"),
        (0.0, 0.8, "blocked", "blocked"),
    ],
)
def test_h6_3_and_h6_4_paths(total, share, most, little):
    paths = make_paths(total, {1: 1.0, LAYERS // 2: share})
    assert judged(h6.test_path_mediates_most, paths, NAMED) == most
    assert judged(h6.test_path_mediates_little, paths, NAMED) == little


@pytest.mark.parametrize(("share", "said"), [(1.4, True), (0.8, False)])
def test_h6_3_says_what_a_share_above_1_means(share, said):
    found = hear(h6.test_path_mediates_most, make_paths(1.0, {LAYERS // 2: share}), NAMED)
    assert ("share above 1" in found.given["details"]) == said


def test_the_receiver_can_be_named():
    paths = make_paths(1.0, {3: 0.9})
    named = NAMED.model_copy(update={"receiver": 3})
    assert judged(h6.test_path_mediates_most, paths, named) == "supported"


def test_a_layer_without_another_trio_blocks_what_compares_trios(monkeypatch):
    """Three heads a layer: every trio is the named one."""
    made = make_coalitions(PLANTED)
    monkeypatch.setattr(type(made), "rivals", lambda self, heads, leader: ())
    assert (
        judged(h5.test_no_other_trio_does_as_well, made, made, make_sweep({}), NAMED) == "blocked"
    )
    for claim in (geometry.test_zeroing_the_trio_lowers_entropy,):
        assert judged(claim, made, TRIO, NAMED) == "blocked"


@pytest.mark.parametrize(
    "claim",
    [
        h5.test_zeroing_the_trio_raises_ld,
        h1.test_trio_of_the_small_model_raises_ld,
        h1.test_named_pair_suppresses,
    ],
)
def test_5_percent_are_of_each_example(claim):
    """5.05 % of every clean LD: the interval of the effect itself straddles 5 % of their mean."""
    asked = signature(claim).parameters.keys() & {"subsets", "coalitions"}
    for share, status in ((0.0505, "supported"), (0.0495, "present")):
        made = share_of_clean(make_coalitions(PLANTED), share)
        found = made.effect(TRIO)
        assert found.low < made.floor() < found.high
        assert judged(claim, *[made] * len(asked), NAMED) == status


def test_h5_6_counts_5_percent_of_each_example():
    """Beside its lead: only its own effect is a share, of the others each has none."""

    class Alone:
        def mean_deltas(self, split):
            return {(0, head): 0.0 for head in range(8)}

    for share, status in ((0.0505, "supported"), (0.0495, "present")):
        made = share_of_clean(make_coalitions({}), share)
        table = made.table
        clean = table[table["method"] == "none"].set_index("example")["logit_diff"]
        own = table["intervention"].isin([AblateHeads(TRIO).label, "baseline"])
        others = clean.loc[table["example"]].to_numpy() + np.resize(noise(0.01, 3), len(table))
        table = table.assign(logit_diff=table["logit_diff"].where(own, others))
        made = replace(made, table=table, _cache={})
        assert judged(h5.test_no_other_trio_does_as_well, made, made, Alone(), NAMED) == status


def test_h1_2_the_floor_is_2_percent():
    sweep = make_sweep({LEADER: 1.0, TRIO[0]: 0.6, (0, 1): 0.5}, spread=0.02)
    named = NAMED.model_copy(update={"trio": (LEADER, TRIO[0], (0, 1))})
    found = hear(h1.test_partners_come_next, sweep, named).verdict
    clean = sweep.baseline("confirmation")["logit_diff"].mean()
    assert found.status == "supported"
    (suppresses, *_) = [
        hear(h1.test_partners_come_next, make_sweep(effects, spread=0.02), named).verdict
        for effects in ({LEADER: 1.0, TRIO[0]: 0.06, (0, 1): 0.5},)
    ]
    assert suppresses.status == "present" and suppresses.floor == pytest.approx(0.02 * clean, 0.1)


def test_h1_4_shows_prompts_of_the_examples_that_judge():
    sweep = make_sweep({LEADER: 1.0})
    for split, chosen_on in (("both", ""), ("confirmation", "discovery")):
        named = NAMED.model_copy(update={"chosen_on": chosen_on})
        for claim in (
            h1.test_sibling_has_the_same_suppressor,
            h1.test_named_head_is_the_primary_suppressor,
            h1.test_no_other_head_does_as_well,
        ):
            given = hear(claim, sweep, named).given
            assert given["details"]["judged by"] == split
            assert given["largest"] == sweep.extremes(LEADER, split)
            assert given["heatmap"] == sweep.heatmap()


def test_details_of_sets_are_estimates_with_their_intervals():
    made = make_coalitions(PLANTED, extra={3: 0.5 + noise(0.05, 5)})
    for claim in (h1.test_trio_of_the_small_model_raises_ld, h5.test_zeroing_the_trio_raises_ld):
        asked = signature(claim).parameters.keys() & {"subsets", "coalitions"}
        alone = hear(claim, *[made] * len(asked), NAMED).given["details"]["each alone"]
        assert alone == {f"0:{n}": list(made.effect([(0, n)])[:3]) for n in (0, 2, 5)}
    given = hear(h5.test_cooperation_is_super_additive, made, made, NAMED).given
    share = given["details"]["together / sum"]
    assert share["low"] < share["estimate"] < share["high"] and share["unit"] == "ratio"
    assert share["estimate"] == pytest.approx(made.mean(TRIO) / 1.0, rel=0.05)
    assert given["details"]["together"] == pytest.approx(made.mean(TRIO))


def test_a_head_without_effect_has_no_profile_of_receivers():
    found = hear(h6.test_path_mediates_most, make_paths(0.0, {LAYERS // 2: 0.8}), NAMED).given
    assert found["panels"] == [] and "share by receiver" not in found["details"]
    shown = hear(h6.test_path_mediates_most, make_paths(1.0, {LAYERS // 2: 0.8}), NAMED).given
    assert len(shown["panels"]) == 1 and shown["subject"] == "0:2"
    assert shown["details"]["share by receiver"]["into layer 2"] == pytest.approx(0.8, abs=0.05)


@pytest.mark.parametrize(
    ("claim", "where"),
    [
        (h6.test_patching_is_asymmetric, "layer 2, last"),
        (h6.test_asymmetry_holds_in_windows, "layer 3, subject"),
    ],
)
def test_h6_says_where_and_of_which_runs(claim, where):
    shifted = {(2, "last"): 0.9, **{key: value + 0.3 for key, value in WINDOWED.items()}}
    shifted[2, "last"] += 0.3
    verdict, given = hear(claim, make_patches(WINDOWED, shifted), None)
    assert given["subject"] == where
    assert ("windows of" in verdict.reason) == (claim is h6.test_asymmetry_holds_in_windows)
    assert given["runs"] == ("made-up-denoising", "made-up-noising")
    assert len(given["largest"]) == 10


def test_h6_1_shows_that_a_wrong_example_restores_nothing():
    given = hear(h6.test_patching_is_asymmetric, make_patches(LAST, MORE), None).given
    wrong = given["details"]["wrong example's activations"]
    assert wrong == {"denoising": 0.0, "noising": 0.0}
    assert given["details"]["noising - denoising here"] == pytest.approx(0.3, abs=0.03)
    profiles = given["details"]["recovery by layer"]
    assert list(profiles) == [
        f"{direction}, {where}"
        for where in ("last", "subject", "all")
        for direction in ("denoising", "noising")
    ]


@pytest.mark.parametrize(
    "claim",
    [
        h1.test_sibling_has_the_same_suppressor,
        h1.test_named_head_is_the_primary_suppressor,
        h1.test_no_other_head_does_as_well,
    ],
)
def test_a_named_head_has_margin_effect_and_floor_of_the_same_examples(claim):
    sweep = make_sweep({LEADER: 1.0})
    for split, chosen_on in (("both", ""), ("confirmation", "discovery")):
        named = NAMED.model_copy(update={"chosen_on": chosen_on})
        found, given = hear(claim, sweep, named)
        if claim is not h1.test_sibling_has_the_same_suppressor:
            others = sweep.layer(0) if "rival in its layer" in given["details"] else sweep.heads
            others = [head for head in others if head != LEADER]
            _, lead, _ = sweep.least_lead(LEADER, others, split=split)
            assert given["details"]["difference from it"] == list(lead[:3])
        assert found.effect == sweep.effect(LEADER, split=split)
        assert found.margin == sweep.margin_of(LEADER, split=split)
        assert found.floor == sweep.floor(split)


@pytest.mark.parametrize("claim", [h6.test_path_mediates_most, h6.test_path_mediates_little])
def test_a_head_behind_the_receiver_has_no_path_into_it(claim):
    """As one that --heads names may be: the middle layer comes before it."""
    paths = replace(make_paths(1.0, {4: 0.7}), head=Head(LAYERS - 1, 0))
    found = hear(claim, paths, NAMED).verdict
    assert found.status == "blocked" and "3:0 has no path into layer 2" in found.reason
