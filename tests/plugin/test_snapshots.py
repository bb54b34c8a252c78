"""Run: pytest tests/plugin/test_snapshots.py"""

import json

import pytest

from tests.plugin.conftest import CLAIMS_CONFTEST
from tinyablation.plugin.snapshots import rounded
from tinyablation.sessions.differences import differences, same
from tinyablation.sessions.drift import ABSOLUTE, RELATIVE

pytest_plugins = ["pytester"]


def test_floats_have_a_tolerance_and_nothing_else_has():
    assert same(100.0, 100.0 * (1 + 0.9 * RELATIVE)) and not same(100.0, 100.0 * (1 + 2 * RELATIVE))
    assert same(0.0, 0.9 * ABSOLUTE) and not same(0.0, 2 * ABSOLUTE)
    assert same(1, 1.00001)  # JSON does not keep 1.0 apart from 1 everywhere
    assert not same(1000, 1001)
    assert not same(True, 1) and not same("1", 1) and not same(None, 0.0)


def test_differences_name_key_old_and_new():
    old = {"effect": 1.0, "heads": [1, 2], "gone": "x"}
    new = {"effect": 1.5, "heads": [1, 3], "come": None}
    assert differences(old, new) == [
        "come: was absent, now null",
        "effect: was 1.0, now 1.5",
        'gone: was "x", now absent',
        "heads[1]: was 2, now 3",
    ]
    assert differences({"a": []}, {"a": [1]}) == [
        "a: was [], now absent",
        "a[0]: was absent, now 1",
    ]
    assert differences(old, old) == []


def test_files_hold_six_digits_and_no_nan():
    assert rounded({"a": [1.23456789, 2]}) == {"a": [1.23457, 2]}
    with pytest.raises(ValueError, match="finite"):
        rounded({"a": float("nan")})


@pytest.fixture
def cells(suite):
    """Two models' cells, accepted; `estimate(x)` rewrites the claim with another effect."""
    suite.models("tiny-gpt2", "tiny-llama")

    def estimate(value):
        body = f"judge(verdict(estimate={value}), subject='0:2', figures={{'rank': 1}})"
        suite.claims("test_heads", suite.claim(body=body))

    suite.estimate = estimate
    estimate(1.0)
    return suite


BENCH = """
from types import SimpleNamespace


@pytest.fixture(scope="session")
def model(request):
    facts = SimpleNamespace(weight_hash="ab" * 32, commit="c" * 40, derived="")
    device = "cuda:1" if request.config.option.dtype == "bfloat16" else "cpu"
    dtype = request.config.option.dtype.replace("auto", "float32")
    return SimpleNamespace(device=device, dtype=dtype, facts=facts)
"""


def test_missing_is_a_failure_until_accepted_and_drift_names_the_values(cells):
    missing = cells.run("claims")
    missing.assert_outcomes(failed=8)
    text = missing.stdout.str()
    assert "FiguresDrifted: H1.1 tiny-gpt2 facts, against its snapshot: no snapshot of" in text
    assert "run this cell alone: pytest 'claims/test_heads.py::test_it_holds[tiny-gpt2-" in text
    assert not cells.snapshots()

    cells.accept().assert_outcomes(passed=8)
    before = cells.snapshots()
    assert min(before) == "test_it_holds[tiny-gpt2-counterfactual].json"
    folder = cells.root / "claims" / "__snapshots__" / "test_heads"
    content = json.loads((folder / "test_it_holds[tiny-gpt2-facts].json").read_text())
    assert content["effect"] == 1.0 and content["figures"] == {"rank": 1}
    assert content["verdict"] == "supported"

    cells.estimate(1.0004)  # within tolerance: no failure, and no creeping
    cells.run("claims", "--snapshot-update").assert_outcomes(passed=8)
    assert cells.snapshots() == before

    cells.estimate(1.2)
    drifted = cells.accept()  # new ones only: an existing one is not touched
    drifted.assert_outcomes(failed=8)
    drifted.stdout.fnmatch_lines(["*effect: was 1.0, now 1.2*"])
    assert cells.snapshots() == before
    record = cells.records()["test_it_holds[tiny-gpt2-facts]"]
    assert "effect: was 1.0, now 1.2" in record["drift"]
    assert (record["verdict"], record["outcome"]) == ("supported", "failed")


def test_selecting_and_updating_deletes_nothing(cells):
    cells.accept()
    before = cells.snapshots()
    assert len(before) == 8
    for selection in (["-k", "llama"], ["--claim", "H1.1", "-k", "facts"]):
        result = cells.run("claims", *selection)
        assert result.ret == 0, "an unused snapshot of a deselected cell failed the run"
        assert cells.snapshots() == before
    cells.estimate(1.2)
    result = cells.run("claims", "-k", "llama and facts", "--snapshot-update", "-n", "2")
    result.assert_outcomes(passed=1, deselected=0)
    after = cells.snapshots()
    assert after.keys() == before.keys()
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"test_it_holds[tiny-llama-facts].json"}
    # A cell that crashes leaves its file unused; that is no reason to delete it either.
    cells.claims("test_heads", cells.claim(body="1 / 0"))
    cells.run("claims", "--snapshot-update").assert_outcomes(failed=8)
    assert cells.snapshots() == after


def test_hub_models_need_no_snapshot_and_are_held_to_the_one_they_have(cells):
    cells.models("tiny-gpt2", hub=["mistral-7b"])
    both = ("-k", "mistral or gpt2")
    cells.run("claims", *both).assert_outcomes(passed=4, failed=4)  # the embedded one needs its own
    assert not cells.snapshots()
    cells.accept()
    assert len(cells.snapshots()) == 4
    result = cells.run("claims", *both)
    result.assert_outcomes(passed=8)
    assert result.ret == 0 and "snapshot failed" not in result.stdout.str()
    cells.accept(*both, "-n", "2").assert_outcomes(passed=8)
    before = cells.snapshots()
    assert len(before) == 8 and "test_it_holds[mistral-7b-facts].json" in before

    # A bare run has no cell of theirs, and they are not unused.
    for options in ((), ("-n", "2")):
        result = cells.run("claims", *options)
        result.assert_outcomes(passed=4)
        assert result.ret == 0 and "unused" not in result.stdout.str()
    cells.estimate(1.2)
    drifted = cells.run("claims", "-k", "mistral")
    drifted.assert_outcomes(failed=4)
    drifted.stdout.fnmatch_lines(["*H1.1 mistral-7b facts, against its snapshot: effect: was 1.0*"])
    # What is not listed has no baseline, and is given none.
    cells.accept("--model", "else/mistral-8b").assert_outcomes(passed=4)
    assert cells.snapshots() == before


@pytest.mark.parametrize("workers", ["0", "2"])
def test_figures_of_another_device_or_dtype_are_not_compared_and_it_is_said(cells, workers):
    cells.write("claims/conftest.py", CLAIMS_CONFTEST + BENCH)
    cells.accept().assert_outcomes(passed=8)
    before = cells.snapshots()
    cells.estimate(1.2)
    cells.run("claims", "-n", workers).assert_outcomes(failed=8)
    for dtype, measured in (("float16", "cpu in float16"), ("bfloat16", "cuda in bfloat16")):
        for update in ((), ("--snapshot-update",)):
            result = cells.run("claims", "-n", workers, "--dtype", dtype, *update)
            result.assert_outcomes(passed=8)
            assert result.ret == 0, "snapshots that were not compared counted as unused"
        assert cells.snapshots() == before
        record = cells.records()["test_it_holds[tiny-gpt2-facts]"]
        said = f"not compared: measured on {measured}; snapshots are of cpu in float32"
        assert (record["details"]["snapshot"], record["drift"]) == (said, None)
    content = json.loads((cells.root / "reports" / "records.json").read_text())
    assert content["session"]["device"] == "cuda:1 (bfloat16)"
