"""A known miss is xfailed, and only as long as it is one.

Run: pytest tests/plugin/test_known_misses.py
"""

import pytest

pytest_plugins = ["pytester"]

MISS = """
[[miss]]
claim = "H1.1"
test = "test_it_holds"
model = "tiny-gpt2"
condition = "facts"
predicted = "{predicted}"
found = "{found}"
"""
SELECTED = ("claims", "-k", "tiny-gpt2-facts")


def write(suite, *, verdict, predicted="supported", said="supported", found="refuted"):
    suite.models("tiny-gpt2")
    suite.claims("test_heads", suite.claim(body=f"judge(verdict({verdict!r}))"))
    suite.write("claims/predictions.toml", f'"H1.1" = {{ "tiny-*" = "{predicted}" }}\n')
    suite.write("claims/misses.toml", MISS.format(predicted=said, found=found))


@pytest.mark.parametrize("found", ["refuted", "inconclusive"])
@pytest.mark.parametrize("workers", ["0", "2"])
def test_it_is_expected_and_counts_against_its_prediction(suite, found, workers):
    write(suite, verdict=found, found=found)
    result = suite.accept("-k", "tiny-gpt2-facts", "-n", workers)
    result.assert_outcomes(xfailed=1)
    assert result.ret == 0
    (record,) = suite.records().values()
    assert (record["verdict"], record["prediction"], record["outcome"]) == (
        found,
        "supported",
        "xfailed",
    )
    page = (suite.root / "reports" / "claims.html").read_text(encoding="utf-8")
    assert "against its prediction" in page


@pytest.mark.parametrize("now", ["supported", "inconclusive"])
def test_another_verdict_than_then_fails(suite, now):
    """As predicted after all, too: then the line is wrong."""
    write(suite, verdict=now)
    result = suite.accept("-k", "tiny-gpt2-facts")
    result.assert_outcomes(failed=1)
    assert "is listed in misses.toml as found refuted, and is" in result.stdout.str()


def test_a_prediction_that_was_edited_is_refused(suite):
    write(suite, verdict="refuted", predicted="refuted")
    result = suite.run(*SELECTED)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "predictions must not be edited" in result.stderr.str()


def test_a_line_that_matches_no_cell_is_refused(suite):
    write(suite, verdict="refuted")
    path = suite.root / "claims" / "misses.toml"
    path.write_text(path.read_text().replace("test_it_holds", "test_it_hold"), encoding="utf-8")
    result = suite.run(*SELECTED)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "no cell is called H1.1 test_it_hold tiny-gpt2 facts" in result.stderr.str()
