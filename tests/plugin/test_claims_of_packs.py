"""Packs in the folder of claims: each with predictions, figures and conditions of its own.

Run: pytest tests/plugin/test_claims_of_packs.py
"""

import json

import pytest

from tests.plugin.test_conditions import PUBLISHED, lines

pytest_plugins = ["pytester"]
USAGE = pytest.ExitCode.USAGE_ERROR


@pytest.fixture
def packs(suite):
    """Two packs with a claim each; the second is about a condition that it brings along."""
    suite.write("claims/one/test_one.py", "import pytest\n" + suite.claim("H1.1", "test_leads"))
    named = suite.claim("IOI.1", "test_moves").replace('"IOI.1")', '"IOI.1", conditions="ioi")')
    suite.write("claims/two/test_two.py", "import pytest\n" + named)
    rows = "".join(f"{json.dumps(row)}\n" for row in lines())
    suite.write("claims/two/conditions/ioi.jsonl", rows)
    suite.write("claims/one/predictions.toml", '"H1.1" = { "*" = "supported" }\n')
    suite.write("claims/two/predictions.toml", '"IOI.1" = { "*-ioi" = "refuted" }\n')
    figure = PUBLISHED.replace('"H1.1"', '"IOI.1"').replace('"all"', '"ioi"')
    suite.write("claims/two/published.toml", figure)
    return suite


@pytest.mark.parametrize("workers", ["0", "2"])
def test_each_has_its_own_predictions_figures_and_conditions(packs, workers):
    result = packs.run("claims", "--snapshot-update-new-only", "-n", workers, "-rf")
    result.assert_outcomes(passed=3 * 4, failed=3)  # the condition is asked of by name only
    records = packs.records()
    own = records["test_moves[tiny-gpt2-ioi]"]
    assert (own["prediction"], own["verdict"], own["condition"]) == ("refuted", "supported", "ioi")
    assert len(own["published"]) == 1
    assert records["test_leads[tiny-gpt2-facts]"]["prediction"] == "supported"
    for pack, key in (("one", "H1.1 test_leads facts"), ("two", "IOI.1 test_moves ioi")):
        kept = packs.root / "claims" / pack / "__snapshots__" / "tiny-gpt2.json"
        assert key in json.loads(kept.read_text())

    def session():
        return json.loads((packs.root / "reports" / "records.json").read_text())["session"]

    both = session()["predictions_hash"].split(", ")
    assert len(both) == 2 and session()["predictions_commit"] is None
    packs.run("claims", "--claim", "H1.1", "-n", workers)
    assert session()["predictions_hash"] == both[0], "of the claims that were judged"


@pytest.mark.parametrize(
    ("path", "text", "said"),
    [
        ("claims/two/predictions.toml", '"H1.1" = { "*" = "refuted" }\n', "'H1.1' is predicted in"),
        (
            "claims/two/predictions.toml",
            '"IOI.1" = { "*-io" = "refuted" }\n',
            "decide no test case",
        ),
        ("claims/one/conditions/ioi.jsonl", "", "is a condition 'ioi' too; rename one"),
        ("claims/two/published.toml", PUBLISHED.replace("all", "io"), "did you mean 'ioi'"),
    ],
)
def test_what_contradicts_another_file_is_refused(packs, path, text, said):
    packs.write(path, text)
    result = packs.run("claims", "-k", "gpt2")
    assert result.ret != 0 and said in result.stdout.str() + result.stderr.str()


def test_a_users_condition_has_another_name_than_a_packs(packs):
    packs.write("mine.jsonl", "".join(f"{json.dumps(row)}\n" for row in lines()))
    result = packs.run("claims", "--condition", "ioi=mine.jsonl")
    assert result.ret == USAGE and "is a condition 'ioi' too" in result.stderr.str()
