"""`--screen`: what it refuses, and what becomes of cells that rest on a screened sweep.

Run: pytest tests/plugin/test_screening_option.py
"""

import pytest

from tests.fake_sessions import opened

pytest_plugins = ["pytester"]

# A sweep as claims get it, screened if --screen says so; its model has a subject in layer 2.
SWEEP = """

from types import SimpleNamespace
from tinyablation.plugin.screening_option import screening
from tinyablation.records.trust import Screened


@pytest.fixture
def sweep(request, model, condition):
    asked = screening(request.config)
    if asked is None:
        return SimpleNamespace(screened=None)
    hidden = {"n": 14, "sampled": 6, "found": 0, "most": 6}
    return SimpleNamespace(
        layers=asked.layers,
        screened=Screened(
            asked=asked.asked, condition=condition, n_heads=32, measured=18, by_layer=8, by_score=4,
            by_chance=6, confidence=0.95, floor=0.1, raising=hidden, lowering=hidden,
        ),
    )
"""
SUBJECTS = '[tiny-gpt2]\nsuppressor = "2:1"\ntrio = ["2:1", "2:2", "3:0"]\nsource = "planted"\n'


@pytest.fixture
def screenable(suite):
    """One claim a verdict, each predicted supported."""
    suite.models("tiny-gpt2")
    path = suite.root / "claims" / "conftest.py"
    path.write_text(path.read_text() + SWEEP)
    suite.write("claims/subjects.toml", SUBJECTS)
    names = ("supported", "refuted", "inconclusive")
    suite.claims(
        "test_sweeps",
        *(
            suite.claim(
                f"H1.{number}",
                f"test_{name}",
                f"judge(verdict({name!r}))",
                "sweep, judge, verdict, condition",
            )
            for number, name in enumerate(names, 1)
        ),
    )
    suite.write(
        "claims/predictions.toml",
        "".join(f'"H1.{n}" = {{ "*" = "supported" }}\n' for n, _ in enumerate(names, 1)),
    )
    return suite


@pytest.mark.parametrize("workers", ["0", "2"])
def test_inconclusive_for_screening_is_a_skip_and_no_missed_prediction(screenable, workers):
    """Nor another verdict than the one accepted; a refuted one is."""
    arguments = ("claims", "-k", "facts", "-n", workers)
    screenable.accept(*arguments[1:])
    path = screenable.root / "claims" / "__snapshots__" / "tiny-gpt2.json"
    text = path.read_text()
    for verdict in ("refuted", "inconclusive"):
        text = text.replace(f'"verdict": "{verdict}"', '"verdict": "supported"')
    path.write_text(text)
    before = screenable.snapshots()
    plain = {name: each["outcome"] for name, each in screenable.records().items()}
    assert plain["test_inconclusive[tiny-gpt2-facts]"] == "failed"
    result = screenable.run(*arguments, "--screen", "3:20%", "-rs")
    records = screenable.records()
    found = {name.split("[")[0]: each["outcome"] for name, each in records.items()}
    assert found == {
        "test_supported": "passed",
        "test_refuted": "failed",
        "test_inconclusive": "skipped",
    }
    record = records["test_supported[tiny-gpt2-facts]"]
    assert record["screened"][0]["asked"] == "3:20%"
    assert record["screened"][0]["raising"]["most"] == 6
    # Other heads, other figures: nothing is compared, and no file is called unused.
    assert "screened" in record["details"]["snapshot"]
    assert record["drift"] is None and screenable.snapshots() == before
    text = result.stdout.str()
    assert "3 test cases rest on screened sweeps" in text
    assert "1 another verdict than accepted, 1 as accepted, 1 not judged" in text
    assert "2 predictions, all fixed before the measurement: 1 came true (50%)" in text
    assert "--screen '3:20%'" in text or "--screen 3:20%" in text  # how to run the failed one again


def test_the_page_says_that_a_sweep_was_screened(screenable):
    screenable.run("claims", "-k", "facts", "--screen", "3:6")
    page = opened((screenable.root / "reports" / "claims.html").read_text())
    assert "18 of 32 heads measured" in page and "at most 6 (42.9%) raise LD" in page
    screenable.run("claims", "-k", "facts")
    assert "heads measured" not in opened((screenable.root / "reports" / "claims.html").read_text())


def test_a_screened_session_is_no_full_one(screenable):
    screenable.run("claims", "--screen", "3:6")
    assert not (screenable.root / "reports" / "full").exists()
    screenable.run("claims")
    assert (screenable.root / "reports" / "full").exists()


def test_layers_of_named_heads_stay_whole(screenable):
    screenable.claims(
        "test_sweeps",
        screenable.claim(
            body="assert sweep.layers == {'tiny-gpt2': frozenset({2, 3})}; judge(verdict())",
            arguments="sweep, judge, verdict, condition",
        ),
    )
    screenable.write("claims/predictions.toml", "")
    result = screenable.run("claims", "-k", "facts", "--screen", "3:6")
    result.assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--screen", "64"], "write TOP:SAMPLE"),
        (["--screen", "64:none"], "'none' is not a number of heads"),
        (["--screen", "3:6", "--protocol", "published"], "screen under the corrected protocol"),
        (["--screen", "3:6", "--robustness"], "every head by every method"),
    ],
)
def test_what_cannot_be_screened_is_refused_at_start(screenable, arguments, message):
    result = screenable.run("claims", *arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert message in result.stderr.str() + result.stdout.str()
