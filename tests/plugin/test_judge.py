"""Run: pytest tests/plugin/test_judge.py"""

import json
import re
import xml.etree.ElementTree

import pytest

from tests.plugin.test_outcome_table import OPEN, PREDICTED
from tinyablation.verdicts.verdicts import STATUSES

pytest_plugins = ["pytester"]

# One claim a column of the tables in tinyablation/verdicts/outcomes.py, one model a row; nothing is
# accepted for any (test_outcome_table.py has both tables, in one process).
TABLE = {name: row for name, row in PREDICTED.items() if name != "present"}
ROWS, COLUMNS = tuple(TABLE), STATUSES


def put_table(suite):
    """A claim that comes to each verdict."""
    suite.claims(
        "test_table",
        *(
            suite.claim(
                f"H1.{index}",
                f"test_{column}",
                f"judge(verdict({column!r}, reason='the reason'))",
                "model, judge, verdict",
            )
            for index, column in enumerate(COLUMNS, 1)
        ),
    )


@pytest.mark.parametrize("workers", ["0", "2"])
def test_every_verdict_against_every_prediction(suite, workers):
    suite.models(*(f"model-{row}" for row in ROWS))
    put_table(suite)
    patterns = ", ".join(f'"model-{row}" = "{row}"' for row in ROWS[1:])
    suite.write(
        "claims/predictions.toml",
        "".join(f'"H1.{index}" = {{ {patterns} }}\n' for index, _ in enumerate(COLUMNS, 1)),
    )
    result = suite.accept("-n", workers)
    found = {name: record["outcome"] for name, record in suite.records().items()}
    expected = {
        f"test_{column}[model-{row}]": outcome
        for row in ROWS
        for column, outcome in zip(COLUMNS, TABLE[row], strict=True)
    }
    assert found == expected
    values = list(expected.values())
    result.assert_outcomes(**{name: values.count(name) for name in set(values)})
    text = result.stdout.str()
    assert "H1.1 model-refuted all was predicted refuted, and is supported: the reason" in text
    assert "H1.3 model-supported all was predicted supported, and is refuted: the reason" in text
    assert "H1.3 model-none all is refuted: the reason" in text
    # Four rows are registered; of five verdicts each, a blocked one counts only where it was.
    assert "17 predictions, all fixed before the measurement: 4 came true (24%), 1 of them" in text
    assert "20 not accepted yet, 5 not judged" in text
    record = suite.records()["test_refuted[model-refuted]"]
    assert (record["prediction"], record["verdict"]) == ("refuted", "refuted")


def test_record_and_junit_say_what_judge_was_told(suite):
    suite.models("tiny-gpt2")
    body = (
        "judge(verdict(), subject='0:2', details={'k': 2 / 3}, figures={'rank': 1}, runs=['r'], "
        "heatmap={'values': [[2 / 3]], 'title': 't'}, largest=[{'prompt': '<b>', 'target': 'x', "
        "'foil': 'y', 'clean_ld': 1.0, 'delta': -2 / 3, 'split': 'confirmation'}], "
        "panels=[TokensPanel(title='writes', columns={'top': [{'token': ' a', 'logit': 2 / 3}]})])"
    )
    imported = "from tinyablation.records.panels import TokensPanel\n"
    suite.claims("test_heads", imported, suite.claim(body=body))
    suite.write(
        "claims/published.toml",
        "".join(
            f'[[figure]]\nclaim = "{claim}"\nmodel = "gpt2-medium"\ncondition = "{condition}"\n'
            f'value = 0.265\nunit = "logits"\nsource = "v6"\n'
            for claim, condition in (("H1.1", "facts"), ("H1.1", "logic"), ("H1.2", "facts"))
        ),
    )
    suite.accept("--junitxml", "junit.xml").assert_outcomes(passed=4)
    record = suite.records()["test_it_holds[tiny-gpt2-facts]"]
    assert record | {"duration_s": 0, "platform": ""} == {
        "claim": "H1.1",
        "family": "H1",
        "test": "claims/test_heads.py::test_it_holds[tiny-gpt2-facts]",
        "name": "test_it_holds",
        "statement": "The sentence of H1.1.",
        "estimator": "mean of something.",
        "threshold": "above the floor.",
        "refuted_if": "below it.",
        "model": "tiny-gpt2",
        "condition": "facts",
        "verdict": "supported",
        "reason": "because",
        "prediction": None,
        "predicted_on": None,
        "accepted": None,
        "outcome": "passed",
        "effect": 1.0,
        "low": 0.75,
        "high": 1.25,
        "floor": 0.1,
        "margin": None,
        "margin_low": None,
        "margin_high": None,
        "p_corrected": 0.01,
        "unit": "nats",
        "n_examples": 40,
        "n_clusters": 20,
        "subject": "0:2",
        "protocol": "corrected",
        "published": [
            {
                "model": "gpt2-medium",
                "condition": "facts",
                "value": 0.265,
                "unit": "logits",
                "low": None,
                "high": None,
                "quantity": "effect",
                "source": "v6",
            }
        ],
        "details": {"k": 2 / 3, "rank": 1},
        # What is only shown has the digits of a float32.
        "heatmap": {"values": [[0.6666667]], "title": "t"},
        "largest": [
            {
                "prompt": "<b>",
                "target": "x",
                "foil": "y",
                "clean_ld": 1.0,
                "delta": -0.6666667,
                "split": "confirmation",
            }
        ],
        "panels": [
            {
                "kind": "tokens",
                "title": "writes",
                "columns": {"top": [{"token": " a", "logit": 0.6666667}]},
            }
        ],
        "runs": ["r"],
        "drift": None,
        "duration_s": 0,
        "platform": "",
        **dict.fromkeys(("p_value", "p_adjusted", "prediction_changed", "multiverse", "boundary")),
        "backends": [],
        "screened": [],
        "scope": "",
        "options": [],
        "source": None,
    }
    case = next(xml.etree.ElementTree.parse(suite.root / "junit.xml").iter("testcase"))
    properties = {p.get("name"): p.get("value") for p in case.iter("property")}
    assert properties["effect"] == "1.0" and properties["verdict"] == "supported"
    assert {"tinyablation_claim", "low", "high", "p_corrected", "subject"} <= properties.keys()


def test_a_claim_judges_once_and_a_crash_is_an_error_record(suite):
    """A crash is an error even where a refutation was predicted."""
    suite.models("tiny-gpt2")
    skips = "pytest.skip('weights missing')"
    suite.claims(
        "test_heads",
        suite.claim("H1.1", "test_silent", "pass"),
        suite.claim("H1.2", "test_twice", "judge(verdict()); judge(verdict())"),
        suite.claim("H1.3", "test_crash", "raise RuntimeError('no such layer')"),
        suite.claim("H1.4", "test_late", "judge(verdict()); assert 0, 'afterwards'"),
        suite.claim("H1.5", "test_skip", skips),
        suite.claim("H1.6", "test_nan", "judge(verdict(estimate=float('nan')))"),
        suite.claim("H1.7", "test_setup", "judge(verdict())", "model, condition, judge, broken"),
        "@pytest.fixture\ndef broken():\n    raise OSError('disk')\n",
        "class Mute(Exception):\n    def __str__(self): raise OSError('no text')\n",
        suite.claim("H1.8", "test_mute", "raise Mute"),
        suite.claim("H1.9", "test_half", "raise OSError('caf\\udce9')"),
    )
    suite.write("claims/predictions.toml", '"H1.3" = { "*" = "refuted" }\n')
    result = suite.accept("-k", "facts")
    result.assert_outcomes(failed=7, skipped=1, errors=1, deselected=27)
    records = {record["name"]: record for record in suite.records().values()}
    reasons = {name: (record["verdict"], record["reason"]) for name, record in records.items()}
    assert reasons["test_crash"] == ("error", "call: RuntimeError: no such layer")
    assert reasons["test_skip"] == ("blocked", "weights missing")
    assert reasons["test_setup"] == ("error", "setup: OSError: disk")
    assert "recorded no verdict" in reasons["test_silent"][1]
    assert "called judge twice" in reasons["test_twice"][1]
    assert "afterwards" in reasons["test_late"][1]
    assert "finite" in reasons["test_nan"][1]
    assert reasons["test_mute"] == ("error", "call: Mute: its text cannot be made")
    assert reasons["test_half"] == ("error", "call: OSError: caf\\udce9")
    assert {record["verdict"] for record in records.values()} == {"error", "blocked"}
    assert records["test_setup"]["outcome"] == "error"
    assert not result.stdout.str().count("reports lost")


def test_a_cell_runs_by_its_node_id_whatever_is_predicted_of_others(suite):
    suite.claims("test_heads", suite.claim())
    patterns = '{ "tiny-*-plain*" = "refuted", "tiny-mistral*" = "refuted", "*" = "supported" }'
    suite.write("claims/predictions.toml", f'"H1.1" = {patterns}\n')
    node = "claims/test_heads.py::test_it_holds[tiny-gpt2-facts]"
    suite.run("--snapshot-update-new-only", node).assert_outcomes(passed=1)


@pytest.mark.parametrize("workers", [(), ("-n", "2")])
def test_prediction_that_matches_nothing_is_a_usage_error(suite, workers):
    suite.claims("test_heads", suite.claim())
    suite.claims("test_validity", suite.claim("V.1"))
    suite.write(
        "claims/predictions.toml",
        '"H1.1" = { "tiny-mistral" = "supported" }\n"V.1" = { "tiny-opt" = "supported" }\n',
    )
    result = suite.run("claims", "-k", "nothing", *workers)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    text = "\n".join(result.outlines + result.errlines)
    assert re.search(
        r'predictions\.toml: these predictions decide no test case: "V\.1": "tiny-opt"', text
    )
    if not workers:
        # V.1 is not collected here, so its pattern cannot be judged.
        result = suite.run("claims/test_heads.py", "--collect-only", "-q")
        assert result.ret == 0
        suite.write("claims/predictions.toml", '"H1.1" = { "tiny-gpt2" = "sported" }\n')
        result = suite.run("claims")
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        assert "did you mean 'supported'?" in result.stderr.str()


@pytest.mark.parametrize("workers", ["0", "2"])
def test_nothing_is_registered_for_the_published_protocol(suite, workers):
    """Verdicts alone decide, whatever was predicted; no snapshot is compared, missed or deleted."""
    suite.models("tiny-gpt2")
    suite.claims(
        "test_table",
        *(
            suite.claim(
                f"H1.{index}",
                f"test_{column}",
                f"judge(verdict({column!r}, estimate=9.0, reason='the reason'))",
                "model, judge, verdict",
            )
            for index, column in enumerate(COLUMNS, 1)
        ),
        suite.claim("H1.9", "test_crash", "raise OSError('disk')", "model, judge, verdict"),
    )
    suite.write(
        "claims/predictions.toml",
        '"H1.1" = { "*" = "refuted" }\n"H1.2" = { "*" = "supported" }\n'
        '"H1.3" = { "*" = "supported" }\n"H1.9" = { "*" = "refuted" }\n',
    )
    figures = {"effect": 1.0, "verdict": "supported"}
    entries = {f"H1.{n} test_{name} all": figures for n, name in enumerate(COLUMNS, 1)}
    suite.write("claims/__snapshots__/tiny-gpt2.json", json.dumps(entries))
    before = suite.baselines()
    result = suite.run("claims", "--protocol", "published", "-n", workers, "--snapshot-update")
    result.assert_outcomes(passed=1, xfailed=2, skipped=2, failed=1)
    assert suite.baselines() == before
    text = result.stdout.str()
    assert "without a snapshot" not in text and "of no test case" not in text
    assert not re.search(r"\d snapshots? (unused|failed|passed|updated|generated)", text)
    records = suite.records("reports/published")
    found = {record["name"]: (record["verdict"], record["outcome"]) for record in records.values()}
    assert found == {
        "test_supported": ("supported", "passed"),
        "test_present": ("present", "xfailed"),
        "test_refuted": ("refuted", "xfailed"),
        "test_inconclusive": ("inconclusive", "skipped"),
        "test_blocked": ("blocked", "skipped"),
        "test_crash": ("error", "failed"),
    }
    for record in records.values():
        assert (record["prediction"], record["protocol"], record["drift"]) == (
            None,
            "published",
            None,
        )
    assert records["test_refuted[tiny-gpt2]"]["reason"] == "the reason"
    result = suite.run("claims", "--protocol", "published", "-k", "refuted", "-rx")
    assert result.ret == 0
    assert "refuted under the published protocol, for which nothing is reg" in result.stdout.str()


def test_an_unknown_protocol_is_a_usage_error(suite):
    suite.claims("test_heads", suite.claim())
    result = suite.run("claims", "--protocol", "mine")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "invalid choice: 'mine'" in result.stderr.str()


@pytest.mark.parametrize("workers", ["0", "2"])
def test_what_nobody_predicted_of_a_real_model_is_open(suite, workers):
    """Also where "tiny-*" would match an unlisted folder: nobody thought of that one."""
    suite.models("tiny-gpt2", hub=["hub-none", "hub-refuted"])
    suite.write("elsewhere/tiny-new/config.json", '{"architectures": ["GPT2LMHeadModel"]}')
    put_table(suite)
    patterns = '{ "tiny-*" = "supported", "hub-refuted" = "refuted" }'
    suite.write("claims/predictions.toml", "".join(f'"H1.{n}" = {patterns}\n' for n in range(1, 6)))
    models = ("hub-none", "hub-refuted", "elsewhere/tiny-new")
    options = [word for name in models for word in ("--model", name)]
    result = suite.run("claims", *options, "-n", workers, "-rx")
    found = {name: record["outcome"] for name, record in suite.records().items()}
    assert found == {
        f"test_{column}[{model}]": outcome
        for model, row in (("hub-none", "none"), ("hub-refuted", "refuted"), ("tiny-new", "none"))
        for column, outcome in zip(COLUMNS, OPEN if row == "none" else TABLE[row], strict=True)
    }
    text = result.stdout.str()
    assert "refuted; nothing is registered for hub-none: the reason" in text
    assert "refuted; nothing is registered for tiny-new" in text
    assert "H1.1 hub-refuted all was predicted refuted, and is supported: the reason" in text
    record = suite.records()["test_refuted[tiny-new]"]
    assert (record["prediction"], record["verdict"]) == (None, "refuted")
    assert (record["reason"], record["drift"]) == ("the reason", None)


def test_a_prediction_for_models_that_are_listed_elsewhere_is_no_mistake(suite):
    suite.models("tiny-gpt2")
    suite.claims("test_heads", suite.claim())
    group = "[[registered.group]]\ndate = 2025-03-01\nmodels = ['fresh-*']\n"
    predicted = '"H1.1" = { "fresh-*" = "refuted", "tiny-*" = "supported" }\n'
    suite.write("claims/predictions.toml", f"{predicted}{group}elsewhere = true\n")
    suite.accept("-k", "facts").assert_outcomes(passed=1)
    (record,) = suite.records().values()
    assert (record["prediction"], record["predicted_on"]) == ("supported", None)
    suite.write("claims/predictions.toml", f"{predicted}{group}")
    result = suite.run("claims")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert 'decide no test case: "H1.1": "fresh-*"' in result.stderr.str()
    # Of a claim that there is none of, it is one.
    suite.write(
        "claims/predictions.toml",
        f"{predicted}'H9.1' = {{ 'fresh-*' = 'refuted' }}\n{group}elsewhere = true\n",
    )
    result = suite.run("claims")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert 'decide no test case: "H9.1": "fresh-*"' in result.stderr.str()


def test_a_prediction_for_a_hub_model_is_no_mistake_in_a_session_without_it(suite):
    suite.models("tiny-gpt2", hub=["mistral-7b"])
    suite.claims("test_heads", suite.claim())
    suite.write("claims/predictions.toml", '"H1.1" = { "mistral-7b-facts" = "supported" }\n')
    suite.accept("-k", "tiny-gpt2").assert_outcomes(passed=4)
    suite.write("claims/predictions.toml", '"H1.1" = { "mistral-8b-facts" = "supported" }\n')
    result = suite.run("claims")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert 'decide no test case: "H1.1": "mistral-8b-facts"' in result.stderr.str()
