"""Run: pytest tests/plugin/test_availability.py"""

import pytest

from tests.plugin.conftest import CLAIMS_CONFTEST

pytest_plugins = ["pytester"]

LINE = "model 'mistral-7b': put it there"
# What each model's fixture does: raise, or draw a progress bar first.
MODEL = f"""
import sys
from tinyablation.errors import LoadingError, TooLarge, WeightsMissing
from tinyablation.corpora.filtering import TooFewPrompts


@pytest.fixture(scope="session")
def model(request):
    with open(HERE / "loads.txt", "a") as file:
        file.write(f"main {{request.param}}\\n")
    print(f"bar of {{request.param}}", file=sys.stderr, flush=True)
    if request.param == "mistral-7b":
        raise WeightsMissing({LINE!r})
    if request.param == "bert":
        raise LoadingError("model 'bert': architecture BertForMaskedLM is not supported")
    yield request.param


@pytest.fixture
def sweep(model):
    if model == "gpt2-xl":
        raise TooLarge("model 'gpt2-xl': needs more memory")
    return model


@pytest.fixture
def corpus(condition):
    if condition == "logic":
        raise TooFewPrompts("gpt2-xl, logic: 3 prompts are left, 200 are wanted")
"""


@pytest.fixture
def models(suite):
    suite.models("tiny-gpt2", hub=["mistral-7b", "gpt2-xl", "bert"])
    suite.write("claims/conftest.py", CLAIMS_CONFTEST + MODEL)
    body = "judge(verdict())"
    suite.claims(
        "test_heads",
        suite.claim("H1.1", "test_leads", body, "model, condition, judge, verdict"),
    )
    return suite


@pytest.mark.parametrize("workers", [[], ["-n", "2"]])
def test_a_model_that_cannot_be_had_blocks_its_cells_with_one_line(models, workers):
    result = models.run("claims", "--model", "mistral-7b", *workers, "-rs")
    assert result.ret == pytest.ExitCode.TESTS_FAILED  # it was named by its id
    result.assert_outcomes(skipped=4)
    assert f"blocked: {LINE}" in result.stdout.str()
    said = f"ERROR: mistral-7b was named but is not available: {LINE}"
    assert result.stdout.str().count(said) == 1
    for record in models.records().values():
        assert (record["verdict"], record["outcome"]) == ("blocked", "skipped")
        assert record["reason"] == LINE
    # A worker asks once for what it cannot have, however many cells there are.
    assert len(models.loads()) <= max(1, len(workers))


@pytest.mark.parametrize("workers", [[], ["-n", "2"]])
def test_required_models_fail_with_the_same_line(models, workers):
    result = models.run("claims", "--model", "mistral-7b", "--require-models", *workers)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.assert_outcomes(failed=4)
    assert f"ModelRequired: {LINE}" in result.stdout.str()
    for record in models.records().values():
        assert (record["verdict"], record["outcome"], record["reason"]) == (
            "blocked",
            "failed",
            LINE,
        )
    # What is there passes all the same.
    models.accept("--require-models", "--model", "tiny-gpt2").assert_outcomes(passed=4)


def test_an_embedded_model_is_no_exception(models):
    text = (models.root / "claims" / "conftest.py").read_text()
    models.write("claims/conftest.py", text.replace('== "mistral-7b"', '== "tiny-gpt2"'))
    models.run("claims").assert_outcomes(skipped=4)
    models.run("claims", "--require-models").assert_outcomes(failed=4)


def test_a_prediction_does_not_make_a_missing_model_an_expected_failure(models):
    models.write("claims/predictions.toml", '"H1.1" = { "mistral-7b" = "refuted" }\n')
    models.run("claims", "--model", "mistral-7b").assert_outcomes(skipped=4)
    result = models.run("claims", "--model", "mistral-7b", "--require-models")
    result.assert_outcomes(failed=4)


@pytest.mark.parametrize("place", ["fixture", "body"])
def test_what_measuring_finds_out_later_counts_alike(models, place):
    """Too large when it is loaded; too few examples when a corpus is built."""
    body = "request.getfixturevalue({!r}); judge(verdict())" if place == "body" else None
    for claim, name in (("H1.1", "sweep"), ("H1.2", "corpus")):
        arguments = "model, condition, judge, verdict, " + ("request" if body else name)
        text = body.format(name) if body else "judge(verdict())"
        models.claims(f"test_{name}", models.claim(claim, f"test_{name}", text, arguments))
    (models.root / "claims" / "test_heads.py").unlink()
    models.run("claims", "--model", "gpt2-xl").assert_outcomes(skipped=5, passed=3)
    records = models.records()
    large, few = records["test_sweep[gpt2-xl-facts]"], records["test_corpus[gpt2-xl-logic]"]
    assert (large["verdict"], large["reason"]) == ("blocked", "model 'gpt2-xl': needs more memory")
    assert few["verdict"] == "blocked"
    assert few["reason"] == "gpt2-xl, logic: 3 prompts are left, 200 are wanted"
    # No machine could provide more prompts, so that is not held against this one.
    result = models.run("claims", "--model", "gpt2-xl", "--require-models")
    result.assert_outcomes(failed=4, skipped=1, passed=3)
    assert {record["outcome"] for record in models.records().values()} == {
        "failed",
        "skipped",
        "passed",
    }


@pytest.mark.parametrize("options", [[], ["--require-models"]])
def test_other_errors_stay_errors(models, options):
    result = models.run("claims", "--model", "bert", *options)
    result.assert_outcomes(errors=4)
    record = models.records()["test_leads[bert-facts]"]
    assert (record["verdict"], record["outcome"]) == ("error", "error")
    assert "architecture BertForMaskedLM is not supported" in record["reason"]
    # An error of a claim that stands in its body, and of its own, too.
    models.claims(
        "test_heads", models.claim("H1.1", "test_leads", "raise OSError('disk')", "model, judge")
    )
    models.run("claims", "--model", "gpt2-xl", *options).assert_outcomes(failed=1)


@pytest.mark.parametrize("workers", [[], ["-n", "2"]])
def test_what_fixtures_of_hub_models_say_is_not_captured(models, workers):
    """stderr is the terminal: also in a worker, whose stdout is not."""
    result = models.run("claims", "--model", "gpt2-xl", *workers)
    assert "bar of gpt2-xl" in result.stderr.str()
    assert "bar of" not in result.stdout.str()
    result = models.run("claims", "--model", "tiny-gpt2", *workers)
    assert "bar of" not in result.stderr.str()
    # What the claim itself prints is captured as ever.
    models.claims("test_heads", models.claim(body="print('from a body'); 1 / 0"))
    result = models.run("claims", "--model", "gpt2-xl", "-k", "facts")
    result.stdout.fnmatch_lines(["*Captured stdout call*", "from a body"])
