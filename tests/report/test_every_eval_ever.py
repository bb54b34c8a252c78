"""Results as Every Eval Ever: the schema holds, and nothing is in it that no record says.

Run: pytest tests/report/test_every_eval_ever.py
"""

import json
from pathlib import Path

import jsonschema
import pytest

from tests.fake_sessions import HOSTILE, fake_session
from tests.sessions.test_drift import cell, session
from tinyablation.records.records import read_records
from tinyablation.report.every_eval_ever import SCHEMA, every_eval_ever, side_that_holds
from tinyablation.statistics.intervals import Estimate
from tinyablation.verdicts.verdicts import (
    judge_above_floor,
    judge_below_ceiling,
    judge_equivalent,
)

ROOT = Path(__file__).parents[2]
SCHEMA_FILE = Path(__file__).with_name("schemas") / "every_eval_ever.schema.json"
RULES = json.loads(SCHEMA_FILE.read_text("utf-8"))


def document(file, model=0):
    return every_eval_ever(file, file.session.models[model], source="A Lab")


def check(made):
    """The schema, and two of the checks of its authors that it does not express."""
    jsonschema.validate(made, RULES, cls=jsonschema.Draft7Validator)
    ends = {"-Infinity": float("-inf"), "Infinity": float("inf")}
    for result in made["evaluation_results"]:
        metric, score = result["metric_config"], result["score_details"]["score"]
        least, most = (ends.get(metric[end], metric[end]) for end in ("min_score", "max_score"))
        assert least <= score <= most
    keys = [result["evaluation_result_id"] for result in made["evaluation_results"]]
    assert len(set(keys)) == len(keys)


def test_the_schema_is_the_version_that_is_written():
    assert RULES["version"] == SCHEMA


@pytest.mark.parametrize("model", [0, 4])  # the fifth, a Llama, has blocked cells
def test_every_model_of_a_session_gives_a_valid_document(model):
    file = fake_session()
    made = document(file, model)
    check(made)
    own = [record for record in file.records if record.model == file.session.models[model].id]
    assert len(made["evaluation_results"]) == sum(record.effect is not None for record in own)
    left = made["source_metadata"]["additional_details"].get("test cases without a figure", "")
    for record in own:
        assert (record.test in left) == (record.effect is None)


def test_a_real_models_document_is_valid_and_has_its_figures():
    file = read_records(ROOT / "reports" / "smollm2-135m")
    made = document(file)
    check(made)
    assert made["model_info"]["id"] == "smollm2-135m" and "developer" not in made["model_info"]
    said = made["model_info"]["additional_details"]["origin of the id"]
    assert said == "this session: no repository of the hub"
    own = {record.test: record for record in file.records}
    for result in made["evaluation_results"]:
        record, given = own[result["evaluation_result_id"]], result["score_details"]
        interval = given["uncertainty"]["confidence_interval"]
        assert given["score"] == record.effect
        assert (interval["lower"], interval["upper"]) == (record.low, record.high)
        assert given["details"]["verdict"] == record.verdict
        assert result["metric_config"]["metric_unit"] == record.unit
        # H1.1 is judged at 98 %; which figure has which is only in its text.
        assert ("confidence_level" in interval) == ("98 %" not in record.threshold)
    assert {
        result["metric_config"]["lower_is_better"] for result in made["evaluation_results"]
    } == {
        True,
        False,
    }


def test_a_document_that_is_not_of_the_schema_is_found():
    made = document(fake_session())
    del made["model_info"]["id"]
    with pytest.raises(jsonschema.ValidationError, match="'id' is a required"):
        check(made)


def test_the_same_session_gives_the_same_document():
    assert document(fake_session()) == document(fake_session())


def test_a_model_of_the_hub_goes_by_its_repository():
    made = document(session(cell(), repo="openai-community/gpt2"))
    assert made["model_info"]["id"] == "openai-community/gpt2"
    assert "origin of the id" not in made["model_info"]["additional_details"]
    # 2025-03-01T01:00:00+00:00, the session's own time
    assert made["evaluation_id"] == "tinyablation/openai-community/gpt2/1740790800"


def test_cells_of_merged_sessions_have_names_of_their_own():
    file = session(cell(source="a"), cell(source="b", effect=2.0, high=2.1))
    check(document(file))


ABOVE, BELOW = Estimate(2.0, 1.5, 2.5, 90, 30), Estimate(-2.0, -2.5, -1.5, 90, 30)
NEAR, WIDE = Estimate(0.1, 0.05, 0.15, 90, 30), Estimate(1.0, -1.0, 3.0, 90, 30)


@pytest.mark.parametrize("effect", [ABOVE, BELOW, NEAR, WIDE])
@pytest.mark.parametrize(
    ("judge", "bound", "side"),
    [
        (judge_above_floor, "floor", "above"),
        (judge_below_ceiling, "ceiling", "below"),
        (judge_equivalent, "margin", "within"),
    ],
)
def test_the_direction_is_that_of_the_verdict(effect, judge, bound, side):
    verdict = judge(effect, **{bound: 1.0}, what="it")
    record = cell(
        verdict=verdict.status,
        reason=verdict.reason,
        floor=verdict.floor,
        effect=effect.estimate,
        low=effect.low,
        high=effect.high,
    )
    assert side_that_holds(record) == side
    made = document(session(record))["evaluation_results"][0]["metric_config"]
    assert made["lower_is_better"] == (side == "below")


def test_no_direction_is_made_up():
    record = cell(verdict="inconclusive", reason="by a rule of its own", floor=1.0)
    assert side_that_holds(record) is None
    made = document(session(record))["evaluation_results"][0]["metric_config"]
    assert "not recorded" in made["additional_details"]["direction"]


def test_what_others_wrote_is_text_and_hidden_characters_are_named():
    bad = f'{HOSTILE}"\n---\nx: \u202ey'
    record = cell(bad, statement=bad, reason=bad, condition=bad, unit=bad)
    file = session(record, hashes={bad: None})
    made = document(file)
    check(made)
    assert made["model_info"]["id"] == bad.replace("\u202e", "U+202E")
    assert "\u202e" not in json.dumps(made, ensure_ascii=False)
