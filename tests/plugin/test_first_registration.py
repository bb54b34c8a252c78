"""A prediction that is changed after its measurement exists is shown as such.

Run: pytest tests/plugin/test_first_registration.py
"""

import json

import pytest

from tests.fake_sessions import opened

pytest_plugins = ["pytester"]

CELL = "test_it_holds[tiny-gpt2-facts]"


@pytest.fixture
def suite(suite):
    """One claim about one model that rests on one run."""
    suite.models("tiny-gpt2")
    rests_on(suite, "run_0123")
    return suite


def rests_on(suite, *runs):
    suite.claims("test_heads", suite.claim(body=f"judge(verdict(), runs={list(runs)})"))


def register(suite, text):
    suite.write("claims/predictions.toml", text)


def changed(suite, *arguments):
    """What the record says of its prediction, after a session."""
    suite.run("claims", "-k", "facts", "--snapshot-update-new-only", *arguments)
    return suite.records()[CELL]["prediction_changed"]


def page(suite):
    return opened((suite.root / "reports" / "claims.html").read_text())


def test_a_prediction_that_stays_is_not_changed(suite):
    register(suite, '"H1.1" = { "tiny-*" = "supported" }\n')
    assert changed(suite) is None and changed(suite) is None
    # A reason that is written later changes no verdict.
    register(suite, '"H1.1" = { "*" = { verdict = "supported", reason = "it was taught" } }\n')
    assert changed(suite) is None
    assert "prediction changed" not in page(suite)


def test_another_verdict_for_the_same_runs_is_shown(suite):
    register(suite, '"H1.1" = { "tiny-*" = "refuted" }\n')
    assert changed(suite) is None
    register(suite, '"H1.1" = { "tiny-*" = "supported" }\n')
    said = changed(suite)
    assert said.startswith("refuted was registered when these runs were first judged (20")
    assert said.endswith("), supported is registered now")
    assert said in page(suite) and "· prediction changed" in page(suite)
    assert "1 of 1 test cases have another prediction than the one registered" in page(suite)
    assert changed(suite) == said, "and is shown for good, not in the next session only"
    register(suite, '"H1.1" = { "tiny-*" = "refuted" }\n')
    assert changed(suite) is None, "what was registered first is no change"


def test_registering_after_the_measurement_and_taking_back_are_changes(suite):
    assert changed(suite) is None
    register(suite, '"H1.1" = { "tiny-*" = "supported" }\n')
    assert changed(suite).startswith("nothing was registered when these runs were first judged")
    rests_on(suite, "another_4567")
    assert changed(suite) is None, "it is registered before this measurement"
    register(suite, "")
    assert changed(suite).endswith("nothing is registered now")


def test_a_prediction_that_says_so_itself_is_shown(suite):
    entry = (
        '{ verdict = "supported", reason = "changed after the first measurement, from refuted" }'
    )
    register(suite, f'"H1.1" = {{ "tiny-*" = {entry} }}\n')
    assert changed(suite) == "changed after the first measurement, from refuted"
    assert "<b>changed.</b> changed after the first measurement" in page(suite)


def test_cells_without_runs_and_the_published_protocol_register_nothing(suite):
    rests_on(suite)
    assert changed(suite) is None
    rests_on(suite, "run_0123")
    suite.run("claims", "-k", "facts", "--protocol", "published")
    assert not (suite.root / "reports" / "predictions").exists()


def test_a_ledger_that_cannot_be_read_is_an_error_that_names_it(suite):
    assert changed(suite) is None
    (path,) = (suite.root / "reports" / "predictions").iterdir()
    assert json.loads(path.read_text())["runs"] == ["run_0123"]
    path.write_text('{"prediction": ')
    assert changed(suite) is None
    record = suite.records()[CELL]
    assert record["verdict"] == "error"
    assert f"LedgerError: {path}" in record["reason"] and "remove it" in record["reason"]
