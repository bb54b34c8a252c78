"""A verdict rests on runs that plain hooks confirm, or it is none.

Run: pytest tests/plugin/test_backend_checks.py
"""

import json

import pytest

from tests.fake_sessions import opened

pytest_plugins = ["pytester"]

PLAIN, BRIDGE = "Hugging Face hooks", "TransformerBridge hooks"
CELL = "test_it_holds[tiny-gpt2-facts]"


def check(run, backend=PLAIN, largest=2e-6, tolerance=1e-3, engine="1.2"):
    return {
        "backend": backend,
        "run": run,
        "n_examples": 2,
        "n_interventions": 4,
        "largest": largest,
        "tolerance": tolerance,
        "where": (
            f"example 17 under zero:0.7: the engine says Delta = {engine} logits, and plain "
            f"{backend} say 0.8"
        ),
    }


NOISE = {"repeat": 0.0, "shape": 2e-6, "reference": None}


@pytest.fixture
def suite(suite):
    """One claim about one model that rests on two runs."""
    suite.models("tiny-gpt2")
    suite.claims("test_heads", suite.claim(body="judge(verdict(), runs=['one', 'two', 'gone'])"))
    return suite


def put(suite, name, checks, **more):
    document = {
        "measured": {"device": "cpu", "dtype": "float32"},
        "logit_diff": NOISE,
        "backends": checks,
        "backends_not_made": {},
    }
    suite.write(f"reports/runs/{name}/verify.json", json.dumps(document | more))


def run(suite, *arguments):
    return suite.run("claims", "-k", "facts", "--snapshot-update-new-only", *arguments)


def test_a_verdict_of_confirmed_runs_stands_and_says_so(suite):
    put(suite, "one", [check("one", BRIDGE), check("one")])
    put(suite, "two", [check("two", BRIDGE, 5e-4), check("two", largest=1e-6, tolerance=1e-4)])
    run(suite).assert_outcomes(passed=1)
    record = suite.records()[CELL]
    assert record["verdict"] == "supported"
    # Of each backend the check that came nearest to its tolerance, whichever run that was.
    assert [(each["backend"], each["run"]) for each in record["backends"]] == [
        (BRIDGE, "two"),
        (PLAIN, "two"),
    ]
    page = opened((suite.root / "reports" / "claims.html").read_text())
    assert f"<dt>{BRIDGE}" in page and "agree: at most" in page and "<b>disagree</b>" not in page


def test_a_disagreement_blocks_the_verdict_and_says_which_run_and_figures(suite):
    put(suite, "one", [check("one", BRIDGE), check("one")])
    put(suite, "two", [check("two", BRIDGE, 0.4), check("two")])
    result = run(suite)
    result.assert_outcomes(skipped=1)
    record = suite.records()[CELL]
    assert (record["verdict"], record["effect"], record["p_corrected"]) == ("blocked", None, None)
    assert record["reason"] == (
        f"the engine is not confirmed by plain {BRIDGE}: in two, example 17 under zero:0.7: the "
        f"engine says Delta = 1.2 logits, and plain {BRIDGE} say 0.8; at most 0.00100 may lie "
        "between them"
    )
    assert [each["largest"] for each in record["backends"]] == [0.4, 2e-6]
    page = opened((suite.root / "reports" / "claims.html").read_text())
    assert "<b>disagree</b>: at most 0.400 logits off on 2 examples × 4 interventions" in page
    assert "(example 17 under zero:0.7" in page


def test_both_backends_are_named_where_both_disagree(suite):
    put(suite, "one", [check("one", BRIDGE, 0.3), check("one", largest=0.3)])
    run(suite)
    reason = suite.records()[CELL]["reason"]
    assert reason.count("the engine is not confirmed by plain") == 2
    assert BRIDGE in reason and PLAIN in reason


def test_a_disagreement_is_against_a_prediction_of_nothing(suite):
    """Blocked is a skip whatever was predicted: the claim is not judged at all."""
    suite.write("claims/predictions.toml", '"H1.1" = { "tiny-*" = "supported" }\n')
    put(suite, "one", [check("one", largest=0.3)])
    result = run(suite)
    result.assert_outcomes(skipped=1)
    record = suite.records()[CELL]
    assert (record["prediction"], record["verdict"]) == ("supported", "blocked")


def test_a_figure_that_had_a_snapshot_fails_when_its_run_is_no_longer_confirmed(suite):
    put(suite, "one", [check("one")])
    run(suite).assert_outcomes(passed=1)
    put(suite, "one", [check("one", largest=0.3)])
    result = run(suite)
    result.assert_outcomes(failed=1)
    assert 'verdict: was "supported", now "blocked"' in suite.records()[CELL]["drift"]
    result.stdout.fnmatch_lines(
        ["*is blocked, and the verdict last accepted is supported: the engine is not confirmed *"]
    )


def test_the_published_protocol_and_runs_without_a_check_are_left_alone(suite):
    put(suite, "one", [check("one", largest=0.3)])
    run(suite, "--protocol", "published").assert_outcomes(passed=1)
    assert suite.records("reports/published")[CELL]["backends"] == []
    put(suite, "one", [])
    run(suite).assert_outcomes(passed=1)
    assert suite.records()[CELL]["backends"] == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"backends": [', "verify.json: not JSON"),
        ('["backends"]', "a JSON object was expected, not list"),
        ('{"backends": [{"backend": "x"}]}', "its backends cannot be read"),
        ('{"backends": 3}', "its backends cannot be read"),
    ],
)
def test_a_check_that_cannot_be_read_is_an_error_that_names_it(suite, text, said):
    path = suite.write("reports/runs/one/verify.json", text)
    result = run(suite)
    result.assert_outcomes(failed=1)
    record = suite.records()[CELL]
    assert record["verdict"] == "error"
    assert f"RunError: {path}" in record["reason"] and said in record["reason"]
    # The report is written all the same.
    assert (suite.root / "reports" / "claims.html").is_file()


def test_noise_of_the_sessions_runs_is_shown_by_device_and_dtype(suite):
    half = {"measured": {"device": "cuda", "dtype": "bfloat16"}}
    rough = {"logit_diff": {"repeat": 0.0125, "shape": 0.0312, "reference": 0.0875}}
    put(suite, "one", [], **half, **rough)
    put(suite, "two", [])
    run(suite).assert_outcomes(passed=1)
    session = json.loads((suite.root / "reports" / "records.json").read_text())["session"]
    assert session["noise"] == [
        {"device": "cpu", "dtype": "float32", "runs": 1, **NOISE},
        {"device": "cuda", "dtype": "bfloat16", "runs": 1, **rough["logit_diff"]},
    ]
    page = opened((suite.root / "reports" / "claims.html").read_text())
    for shown in ("Numerical noise in an effect", "<td>cuda<td>bfloat16", "0.031", "is it"):
        assert shown in page
