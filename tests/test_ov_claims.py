"""OV.1 to OV.3 on made-up readings: each can be supported, refuted, left open and blocked.

Run: pytest tests/test_ov_claims.py
"""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from claims.suppressors import test_ov as ov
from tests.synthetic_head_vocabulary import (
    NAMED,
    NONE,
    TOP_K,
    WORDS,
    make_head_vocabulary,
    own_vector,
)
from tinyablation.measurement.gate import Gate
from tinyablation.models.loading import WeightsMissing
from tinyablation.plugin import head_fixtures
from tinyablation.plugin.head_fixtures import Reference
from tinyablation.records.panels import TokensPanel
from tinyablation.records.plain import plain
from tinyablation.verdicts.listener import hear
from tinyablation.verdicts.subjects import Subject, Subjects
from tinyablation.verdicts.verdicts import Verdict, blocked

SUBJECT = Subject(suppressor="0:2", source="planted", reference="other")
BESIDE = (0, 5)  # another head of the named one's layer
ABOVE = (1, 5)
SAME = own_vector(1001)


def judged(claim, *arguments):
    return hear(claim, *arguments, SUBJECT)


@pytest.mark.parametrize(
    ("hedging", "spread", "status"),
    [
        ({NAMED: 2.0}, 0.3, "supported"),
        ({NAMED: 2.0, ABOVE: 4.0}, 0.3, "supported"),  # another layer's head may do so too
        ({NAMED: -1.0}, 0.3, "refuted"),
        ({NAMED: 1.0, BESIDE: 2.0}, 0.3, "refuted"),  # not the head of its layer that does
        ({NAMED: 0.5}, 2.0, "inconclusive"),  # too different from fact to fact
    ],
)
def test_ov_1(hedging, spread, status):
    found = judged(
        ov.test_named_head_writes_hedges, make_head_vocabulary(hedging, hedging_spread=spread)
    )
    assert found.verdict.status == status and found.verdict.floor == 0


def test_ov_1_shows_what_is_written():
    found = judged(ov.test_named_head_writes_hedges, make_head_vocabulary({NAMED: 2.0}))
    assert found.given["subject"] == "0:2" and found.given["runs"] == ("made-up-ov",)
    details = plain(found.given["details"])
    assert json.dumps(details, allow_nan=False)
    assert details["rank in its layer"] == 1
    assert {"vector norm", "static circuit", "hedge log-odds", "booster log-odds"} <= set(details)
    assert details["hedges"]["excess"] == list(found.verdict.effect[:3])
    assert len(details["top tokens"]) == ov.SHOWN
    (panel,) = found.given["panels"]
    assert isinstance(panel, TokensPanel) and set(panel.columns) == {"top", "bottom"}


@pytest.mark.parametrize(
    "claim", [ov.test_named_head_writes_hedges, ov.test_named_head_writes_no_hedges]
)
def test_too_few_hedges_block(claim):
    found = judged(
        claim, make_head_vocabulary(words={"hedges": NONE, "boosters": WORDS["boosters"]})
    )
    assert found.verdict.status == "blocked" and "at least 3 are needed" in found.verdict.reason


def test_blocked_boosters_are_said_and_block_nothing():
    vocabulary = make_head_vocabulary(
        {NAMED: 2.0}, words={"hedges": WORDS["hedges"], "boosters": NONE}
    )
    found = judged(ov.test_named_head_writes_hedges, vocabulary)
    assert found.verdict.status == "supported"
    assert found.given["details"]["boosters"].startswith("blocked: 1 of 2 words")


EVERY = [(n, m) for n in (0, 1) for m in range(8)]
CHANCE = 8.0  # directions of trained models raise all hedges together, by chance


@pytest.mark.parametrize(
    ("hedging", "spread", "chance", "status"),
    [
        ({NAMED: -1.0}, 0.3, 0.0, "supported"),
        ({}, 0.3, 0.0, "supported"),
        ({NAMED: 0.7}, 0.2, CHANCE, "supported"),  # as large in many random directions
        ({NAMED: 2.0}, 0.3, 0.0, "refuted"),
        ({NAMED: 2.0}, 0.3, CHANCE, "refuted"),  # by chance, but it lists them
        (dict.fromkeys(EVERY, 4.0), 0.3, 0.0, "refuted"),  # no more than others do
        (dict.fromkeys(EVERY, 4.0) | {NAMED: 0.0}, 0.3, 0.0, "supported"),  # others do
        ({NAMED: 0.7}, 0.2, 0.0, "inconclusive"),  # less than 1, but no accident
        ({NAMED: 0.3}, 4.0, 0.0, "inconclusive"),  # may be nothing, may be more than 1
    ],
)
def test_ov_3(hedging, spread, chance, status):
    vocabulary = make_head_vocabulary(hedging, hedging_spread=spread, chance=chance)
    found = judged(ov.test_named_head_writes_no_hedges, vocabulary)
    assert found.verdict.status == status, found.verdict.reason
    assert found.verdict.p_corrected == vocabulary.figures(NAMED, "hedges")["p_directions"]
    assert found.verdict.effect == vocabulary.score(NAMED, "hedges")
    assert found.verdict.floor == ov.NO_HEDGES
    small, listed, accident = (each.met for each in found.verdict.criteria)
    assert (small and listed and accident) == (status == "supported")
    assert not (status == "refuted" and (small or (listed and accident)))


def raised(size, *words):
    """[vocab] what a head writes, with some of the hedges raised."""
    found = SAME.copy()
    found[: len(WORDS["hedges"].ids)] = 0.0
    found[list(words)] += size
    return found


def test_a_head_whose_first_token_is_a_hedge_does_write_hedges():
    vocabulary = make_head_vocabulary(writes={NAMED: raised(30.0, 0)}, axis=0.0)
    found = judged(ov.test_named_head_writes_no_hedges, vocabulary).verdict
    assert vocabulary.listed(NAMED, "hedges") == ("h0",)
    assert found.effect.high < ov.NO_HEDGES and found.p_corrected > 0.05
    assert found.status == "inconclusive"
    assert "1.00, but 1 among the 20 tokens it writes most" in found.reason


def test_large_and_neither_listed_nor_more_than_chance_is_left_open():
    """Raised evenly, so that none is among the 20 tokens; random directions do as much."""
    options = {"axis": 0.0, "spread": 0.1}
    vocabulary = make_head_vocabulary(
        {NAMED: 1.25}, writes={NAMED: raised(0.0)}, chance=CHANCE, **options
    )
    found = judged(ov.test_named_head_writes_no_hedges, vocabulary).verdict
    assert vocabulary.listed(NAMED, "hedges") == () and found.effect.low > ov.NO_HEDGES
    assert found.status == "inconclusive"
    assert "1.00, but none among the 20 tokens it writes most" in found.reason
    rare = make_head_vocabulary({NAMED: 1.25}, writes={NAMED: raised(0.0)}, **options)
    found = judged(ov.test_named_head_writes_no_hedges, rare).verdict
    assert found.status == "refuted" and found.p_corrected <= 0.05


@pytest.mark.parametrize(
    ("vocabulary", "least", "most"),
    [
        (make_head_vocabulary({NAMED: -1.0}), 1.5, 2.5),
        (make_head_vocabulary(writes={NAMED: raised(30.0, 0)}, axis=0.0), -1.0, -1.0),
        (make_head_vocabulary({NAMED: 1.25}, writes={NAMED: raised(0.0)}, axis=0.0), -0.5, -0.1),
        (make_head_vocabulary({NAMED: 4.0}), -6.0, -6.0),  # all six, and some 3.5 above 1
    ],
)
def test_ov_3_says_how_far_it_is_true_for_error_rates(vocabulary, least, most):
    """Below 0 where the mean is above 1 or a hedge is listed, without any interval."""
    found = judged(ov.test_named_head_writes_no_hedges, vocabulary).verdict
    assert least <= found.distance <= most
    assert found.p_value is None and found.p_refuted is None


@pytest.mark.parametrize(
    ("own", "others", "writes_hedges"),
    [
        (-1.0, 0.0, "refuted"),
        (0.7, 0.0, "supported"),  # small, and no accident
        (0.7, -1.0, "supported"),  # others avoid them
        (2.0, 0.0, "supported"),
        (2.0, 2.0, "inconclusive"),  # no more than others
    ],
)
def test_ov_1_and_ov_3_are_never_both_supported(own, others, writes_hedges):
    vocabulary = make_head_vocabulary(dict.fromkeys(EVERY, others) | {NAMED: own})
    first, third = (
        judged(claim, vocabulary).verdict.status
        for claim in (ov.test_named_head_writes_hedges, ov.test_named_head_writes_no_hedges)
    )
    assert first == writes_hedges
    assert third == "supported" if own < 0 else third != "supported"


# --- OV.2 ----------------------------------------------------------------------------------------

# Of these seeds both named heads write towards the axis that all heads write on, of TURNED they do
# on opposite sides, so that the tokens of one are not those of the other.
OPTIONS = {"axis": 1.0, "seed": 3}
TURNED = {"axis": 1.0, "seed": 2}
ONE = make_head_vocabulary(model="one", writes={NAMED: SAME}, axis=1.0, seed=1)


def beside(size):
    """What is written with something else of that size."""
    return {NAMED: SAME + size * own_vector(1009)}


@pytest.mark.parametrize(
    ("other", "status"),
    [
        (OPTIONS | {"writes": {NAMED: SAME}}, "supported"),
        (OPTIONS | {"writes": beside(0.7)}, "supported"),
        (OPTIONS, "refuted"),
        (OPTIONS | {"writes": {NAMED: -SAME}}, "refuted"),
        (OPTIONS | {"writes": beside(1.0), "spread": 3.0}, "inconclusive"),
        # Everyone writes it: alike, but not more than any two heads are.
        (OPTIONS | {"writes": dict.fromkeys(EVERY, SAME)}, "inconclusive"),
        # Another vocabulary, no text shared.
        (OPTIONS | {"tokenizer": "u" * 64, "texts": " x"}, "refuted"),
        (OPTIONS | {"tokenizer": "u" * 64, "writes": {NAMED: SAME}}, "supported"),
    ],
)
def test_ov_2(other, status):
    there = make_head_vocabulary(model="other", **other)
    found = judged(ov.test_named_head_writes_the_same_tokens, ONE, Reference(there, NAMED))
    assert found.verdict.status == status, found.verdict.reason
    assert found.given["runs"] == ["one-ov", "other-ov"]
    assert found.given["details"]["reference"] == "other 0:2"
    assert found.verdict.effect[:3] == tuple(found.given["details"]["shared top tokens, Jaccard"])


def test_ov_2_of_one_direction_and_other_tokens_is_refuted():
    """Alike beyond the axis that all heads write on, and on its other side: no token is shared."""
    there = make_head_vocabulary(model="other", writes={NAMED: SAME}, **TURNED)
    found = judged(ov.test_named_head_writes_the_same_tokens, ONE, Reference(there, NAMED))
    details = found.given["details"]
    assert details["cosine"][1] > ov.SAME_TOKENS and details["p by cosine"] <= 0.05
    assert found.verdict.status == "refuted" and found.verdict.effect.high < ov.SAME_LISTS
    assert found.verdict.unit == "Jaccard" and "cosine" not in found.verdict.reason


def test_ov_2_of_the_same_tokens_and_another_direction_is_left_open():
    """The 20 tokens are the same, all others the opposite: a small cosine refutes no sentence
    about tokens, and supports none."""
    named = ONE.tensors[f"logits.{NAMED[0]}"][NAMED[1]]
    top = np.argsort(-named)[: 2 * TOP_K]
    turned = -SAME
    turned[top] = SAME[top]
    there = make_head_vocabulary(model="other", writes={NAMED: turned}, **OPTIONS)
    found = judged(ov.test_named_head_writes_the_same_tokens, ONE, Reference(there, NAMED))
    assert found.verdict.effect.low > ov.SAME_LISTS and found.verdict.p_corrected <= 0.05
    assert found.given["details"]["cosine"][2] < ov.SAME_TOKENS
    assert found.verdict.status == "inconclusive" and found.verdict.p_refuted > 0.025


def test_ov_2_without_one_vocabulary_tokens_that_all_heads_share_settle_nothing():
    everyone = {(n, m): SAME for n in (0, 1) for m in range(8)}
    one, there = (
        make_head_vocabulary(model=name, axis=0.0, seed=seed, tokenizer=name, writes=everyone)
        for seed, name in ((1, "one"), (2, "other"))
    )
    found = judged(ov.test_named_head_writes_the_same_tokens, one, Reference(there, NAMED))
    estimate, low, _ = found.given["details"]["shared top tokens, Jaccard"]
    assert estimate > 0.5 and found.verdict.p_corrected > 0.05
    assert found.verdict.status == "inconclusive" and low > ov.SAME_LISTS


@pytest.mark.parametrize(
    ("apart", "spread", "status"),
    [
        (0.3, 0.2, "supported"),
        (1.2, 1.5, "inconclusive"),  # some tokens are shared: how many is not known well enough
        (4.0, 0.2, "refuted"),  # some by chance, and surely less than half of the lists
    ],
)
def test_ov_2_without_one_vocabulary_needs_an_interval(apart, spread, status):
    other = SAME + apart * own_vector(1009)
    one, there = (
        make_head_vocabulary(
            model=name, axis=0.0, seed=seed, tokenizer=name, writes={NAMED: vector}, spread=spread
        )
        for seed, name, vector in ((1, "one", SAME), (2, "other", other))
    )
    found = judged(ov.test_named_head_writes_the_same_tokens, one, Reference(there, NAMED))
    effect = found.verdict.effect
    assert found.verdict.status == status, found.verdict.reason
    assert 0 <= effect.low < effect.high <= 1 and found.verdict.unit == "Jaccard"
    assert found.verdict.floor == pytest.approx(1 / 3)


# --- the fixtures: what blocks -------------------------------------------------------------------


class Stopped(Exception):
    """What `judge` does: it does not return."""


def stopping(verdict, **given):
    raise Stopped(verdict.reason)


class GivenGate(Gate):
    def __init__(self, bench, validity):
        super().__init__(bench)
        self._validity = validity or {}

    def validity(self, condition):
        if isinstance(self._validity, Exception):
            raise self._validity
        return self._validity.get(condition)

    def selection(self, condition):
        return None


class Bench:
    def __init__(self, name="made-up", protocol="corrected", validity=None):
        self.entry = SimpleNamespace(id=name, is_named_only=name.startswith("hub-"))
        self.protocol = protocol
        self.gate = GivenGate(self, validity)


def call(fixture, *arguments):
    return fixture.__wrapped__(*arguments)


@pytest.fixture
def request_of(monkeypatch):
    """Subjects by model, in place of claims/suppressors/subjects.toml."""
    declared = Subjects(Path(), {"other": Subject(suppressor="0:2", source="planted")})
    monkeypatch.setattr(head_fixtures, "subjects", lambda config: declared)
    monkeypatch.setattr(
        head_fixtures, "session_models", lambda config: SimpleNamespace(named=("hub-named",))
    )
    return SimpleNamespace(config=None)


def test_the_published_protocol_blocks_all():
    bench = Bench(protocol="published")
    for fixture, arguments in (
        (head_fixtures.reference, (None, bench, None, "facts")),
        (head_fixtures.steerable, (bench,)),
    ):
        with pytest.raises(Stopped, match="corrected protocol only"):
            call(fixture, *arguments, stopping)


@pytest.mark.parametrize(
    ("bench", "reason"),
    [
        (None, "compared with no other model"),
        (Bench("hub-other"), "compared with hub-other, which this session does not name"),
        (Bench("unnamed"), "names no head for the reference unnamed"),
        (
            Bench("other", validity={"facts": Verdict("refuted", "it cannot tell")}),
            "other: it cannot tell",
        ),
        (Bench("other", validity=WeightsMissing("no weights")), "the reference: no weights"),
    ],
)
def test_a_reference_that_says_nothing_blocks(bench, reason, request_of):
    with pytest.raises(Stopped, match=reason):
        call(head_fixtures.reference, request_of, Bench(), bench, "facts", stopping)


@pytest.mark.parametrize(
    ("invalid", "reason"),
    [
        (["facts"], "facts is not valid for made-up"),
        (["negation", "counterfactual", "logic"], "none can be spared"),
    ],
)
def test_steering_needs_facts_and_something_to_spare(invalid, reason):
    bench = Bench(validity={name: blocked("unknown") for name in invalid})
    with pytest.raises(Stopped, match=reason):
        call(head_fixtures.steerable, bench, stopping)


def test_each_figure_has_its_unit_and_each_record_its_head():
    hedging = make_head_vocabulary({NAMED: 2.0})
    there = Reference(make_head_vocabulary(model="other", writes={NAMED: SAME}, seed=2), NAMED)
    found = {
        ov.test_named_head_writes_hedges: (hedging,),
        ov.test_named_head_writes_no_hedges: (hedging,),
        ov.test_named_head_writes_the_same_tokens: (ONE, there),
    }
    for claim, given in found.items():
        heard = judged(claim, *given)
        same = claim is ov.test_named_head_writes_the_same_tokens
        assert heard.verdict.unit == ("Jaccard" if same else "standard deviations")
        assert heard.given["subject"] == "0:2" and len(heard.given["panels"]) == 1 + same
    # Its lead over another head is a part of the claim; what is shown is its own.
    lead = make_head_vocabulary({NAMED: 2.0, BESIDE: 1.5})
    shown = judged(ov.test_named_head_writes_hedges, lead)
    assert shown.verdict.effect == lead.excess(NAMED, "hedges")
    assert (
        shown.given["details"]["difference from its layer"][0] < shown.verdict.effect.estimate / 2
    )
    none = judged(ov.test_named_head_writes_no_hedges, hedging).given["details"]
    assert none["named by"] == "planted" and len(none["top tokens"]) == 10
