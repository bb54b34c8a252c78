"""What a session says at its end in a terminal. Run: pytest tests/report/test_terminal.py"""

from tests.fake_sessions import fake_session, one_record
from tinyablation.records.records import SessionModel
from tinyablation.report.findings_table import findings, questions
from tinyablation.report.sections import sections
from tinyablation.report.terminal import FINDINGS, MISSES, closing, counts

VARIANTS = {"real": "natural", "good": "hedged", "bad": "plain"}


def session(*records):
    file = fake_session()
    models = [SessionModel(id=m, title=m, family="gpt2", variant=v) for m, v in VARIANTS.items()]
    described = file.session.model_copy(update={"models": models, "multiplicity": None})
    return file.model_copy(update={"session": described, "records": list(records)})


def cell(model, verdict, condition="facts", claim="H1.1", **changes):
    given = {"prediction": None, "prediction_changed": None, "effect": None, "accepted": None}
    given |= {"family": claim.partition(".")[0], "name": "test_it_holds", "outcome": "passed"}
    return one_record(
        model=model, verdict=verdict, condition=condition, claim=claim, **given | changes
    )


def test_a_finding_is_the_sentence_of_the_page_after_its_answer():
    file = session(cell("real", "refuted"), cell("good", "supported"))
    (finding,) = findings(questions(sections(file)), VARIANTS, None)
    (line,) = closing(file)
    assert line.split("  ", 1)[0] == "No" and line.endswith(finding.sentence)
    assert "0 of 1 on pretrained, 1 of 1 on positive controls" in line


def test_five_lines_hold_the_findings_of_many_claims_and_models():
    families = ("H1", "H5", "H6", "OV", "S", "G", "V")
    controls = [
        cell("good", "supported", claim=f"{family}.{n}") for family in families for n in range(3)
    ]
    real = [cell("real", verdict, claim="K.1") for verdict in ("blocked", "refuted")]
    lines = closing(session(*controls, *real))
    assert len(lines) == FINDINGS
    claims = [line[12:].partition(":")[0] for line in lines[:-1]]
    assert claims == ["K.1", "H1.0", "H5.0", "H6.0"], "pretrained first; each of another question"
    assert lines[-1].strip() == "18 more on the page: 18 Yes"
    # As many claims as lines need no line that counts.
    few = closing(session(*controls[: FINDINGS - 3], *controls[3:6]))
    assert len(few) == FINDINGS and not any("on the page" in line for line in few)


def test_misses_are_named_pretrained_models_first_and_conditions_together():
    missed = {"prediction": "refuted"}
    lines = closing(
        session(
            cell("good", "inconclusive", **missed),
            cell("real", "supported", claim="V.1", **missed),
            cell("real", "supported", **missed),
            cell("real", "supported", "logic", **missed),
            cell("bad", "refuted", **missed),
            cell("bad", "blocked", "logic", **missed),
        )
    )
    assert lines[-5].startswith("5 predictions, all fixed before the measurement: 1 came true")
    assert lines[-4:] == [
        "4 against prediction:",
        "  H1.1 it holds, real (facts, logic): supported, predicted refuted",
        "  H1.1 it holds, good (facts): inconclusive, predicted refuted",
        "  V.1 it holds, real (facts): supported, predicted refuted",
    ]


def test_of_many_misses_the_last_are_named_by_their_claims():
    records = [
        cell("real", "supported", claim=f"H{n}.1", prediction="refuted") for n in range(MISSES + 2)
    ]
    lines = closing(session(*records))
    at = lines.index(f"{MISSES + 2} against prediction:")
    assert len(lines) == at + MISSES + 2
    assert lines[-1] == f"  and more on the page: H{MISSES}.1, H{MISSES + 1}.1"


def test_nothing_is_said_of_predictions_where_none_was_made():
    said = "\n".join(closing(session(cell("real", "supported"))))
    assert "predict" not in said


def test_verdicts_are_counted_and_compared_with_those_accepted():
    file = session(
        cell("real", "supported", accepted="supported"),
        cell("real", "refuted", "logic", accepted="supported", outcome="failed"),
        cell("good", "blocked"),
        cell("bad", "present"),
    )
    said = "4 test cases: 1 blocked, 1 present, 1 refuted, 1 supported"
    assert counts(file, accepted=False) == said
    stand = "1 another verdict than accepted, 1 as accepted, 1 not accepted yet, 1 not judged"
    assert counts(file, accepted=True) == f"{said}; {stand}"
    alone = counts(session(cell("good", "supported")), accepted=False)
    assert alone == "1 test case: 1 supported"
