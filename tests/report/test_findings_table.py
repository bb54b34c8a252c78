"""What came out of each claim, in one line. Run: pytest tests/report/test_findings_table.py"""

import pytest

from tests.fake_sessions import fake_session, one_record
from tinyablation.records.trust import Multiverse
from tinyablation.report.findings_table import FIRST, findings, first_and_others, questions
from tinyablation.report.sections import sections

KINDS = {"real": "natural", "good": "hedged", "bad": "plain", "odd": "other"}


def found(*records, alpha=None):
    file = fake_session().model_copy(update={"records": list(records)})
    return findings(questions(sections(file)), KINDS, alpha)


def cell(model, verdict, condition="facts", **changes):
    measured = {"effect": None, "low": None, "high": None, "unit": "logits", "p_adjusted": None}
    given = measured | {"claim": "H1.1", "family": "H1", "name": "test_x"} | changes
    return one_record(model=model, verdict=verdict, condition=condition, **given)


def test_test_cases_are_counted_by_kind_of_model():
    (one,) = found(
        cell("real", "refuted"),
        cell("real", "blocked", "logic"),
        cell("good", "supported", effect=1.136),
        cell("good", "supported", "logic", effect=-0.5),
        cell("good", "inconclusive", "negation"),
        cell("bad", "blocked"),
    )
    assert {kind: tally.said for kind, tally in one.tallies.items()} == {
        "natural": "0/1",
        "hedged": "2/3",
        "plain": "n/a",
        "other": "",
    }
    assert (one.answer, one.about) == ("No", "natural"), "the pretrained model decides"
    assert one.effects == "", "those of controls are not of what the answer is about"
    (controls,) = found(
        cell("good", "supported", effect=1.136), cell("good", "supported", "logic", effect=-0.5)
    )
    assert (controls.effects, controls.unit) == ("\N{MINUS SIGN}0.50 … +1.14", "logits")
    assert "Supported in 0 of 1 on pretrained, 2 of 3 on positive controls" in one.sentence


@pytest.mark.parametrize(
    ("verdicts", "answer"),
    [
        (["supported", "supported"], "Yes"),
        (["supported", "refuted"], "Mixed"),
        (["refuted", "refuted"], "No"),
        (["refuted", "inconclusive"], "Not shown"),
        (["present", "inconclusive"], "Not shown"),
        (["blocked", "supported"], "Yes"),
        (["blocked", "blocked"], "Not judged"),
    ],
)
def test_the_answer_is_of_what_was_judged(verdicts, answer):
    cells = [cell("real", v, c) for v, c in zip(verdicts, ("facts", "logic"), strict=True)]
    assert found(*cells)[0].answer == answer


def test_effects_of_several_units_have_no_range():
    cells = [
        cell("real", "supported", effect=1.0),
        cell("real", "supported", "logic", effect=2.0, unit="nats"),
    ]
    assert found(*cells)[0].effects == ""


def test_caveats_say_what_a_reader_would_trip_over():
    unit = "of the trio's effect"
    fragile = Multiverse(n=4, agreed=1, least_share=0.8, verdicts={}, by_choice={})
    shares = [
        cell("real", "supported", effect=2.7, unit=unit, p_adjusted=0.2, multiverse=fragile),
        cell("real", "supported", "logic", effect=-0.99, unit=unit, p_adjusted=0.01),
    ]
    (one,) = found(*shares, alpha=0.05)
    said = "; ".join(one.caveats)
    for words in ("above 1", "below 0", "1 not significant at FDR 5 %", "1 fragile"):
        assert words in said
    assert "not judged" not in said
    (one,) = found(cell("real", "supported", effect=0.7, unit=unit))
    assert one.caveats == []
    (one,) = found(
        cell("real", "blocked"),
        cell("real", "blocked", "logic"),
        cell("real", "supported", "negation"),
        *(cell("good", "supported", condition) for condition in ("facts", "logic", "negation")),
    )
    assert one.caveats == ["2 of 3 test cases not judged"]


def test_pretrained_models_come_first_then_what_was_decided_and_validity_last():
    claims = [
        cell("real", "supported", claim="V.1", family="V"),
        cell("good", "supported", claim="H1.2"),
        cell("real", "inconclusive", claim="H5.1", family="H5"),
        cell("real", "refuted", claim="S.1", family="S"),
    ]
    assert [one.section.record.claim for one in found(*claims)] == ["S.1", "H5.1", "H1.2", "V.1"]


def test_the_first_screen_holds_some_of_every_question_and_the_rest_is_not_lost():
    claims = [
        cell("real", "supported", claim=f"{family}.{n}", family=family, name=f"test_{n}")
        for family in ("H1", "H5", "H6", "OV")
        for n in range(9)
    ]
    every = found(*claims)
    first, others = first_and_others(every)
    assert len(first) == FIRST and len(first) + len(others) == len(every)
    assert {one.section.record.family for one in first} == {"H1", "H5", "H6"}
    assert not {one.anchor for one in first} & {one.anchor for one in others}
