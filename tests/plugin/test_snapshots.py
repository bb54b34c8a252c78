"""Run: pytest tests/plugin/test_snapshots.py"""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from tests.plugin.conftest import CLAIMS_CONFTEST
from tinyablation.corpora.filtering import TooFewPrompts
from tinyablation.corpora.own_conditions import read_own
from tinyablation.models.registry import load_registry
from tinyablation.plugin.conditions import LEAST_CLUSTERS
from tinyablation.report.drift_tables import MOST_ROWS

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[2]
USAGE = pytest.ExitCode.USAGE_ERROR


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

from tinyablation.plugin.command_line import command


@pytest.fixture(scope="session")
def model(request):
    facts = SimpleNamespace(weight_hash="ab" * 32, commit="c" * 40, derived="")
    device = "cuda:1" if command(request.config).dtype == "bfloat16" else "cpu"
    dtype = command(request.config).dtype.replace("auto", "float32")
    return SimpleNamespace(device=device, dtype=dtype, facts=facts)
"""


def test_missing_is_a_notice_and_drift_names_the_values(cells):
    missing = cells.run("claims")
    missing.assert_outcomes(passed=8)
    assert missing.ret == 0
    notice = "8 test cases without a snapshot: review the figures, then write them: pytest *"
    missing.stdout.fnmatch_lines([f"{notice} claims --snapshot-update-new-only"])
    assert "snapshot failed" not in missing.stdout.str() and not cells.baselines()
    record = cells.records()["test_it_holds[tiny-gpt2-facts]"]
    assert record["drift"] is None and record["details"] == {"rank": 1}

    accepted = cells.accept()
    accepted.assert_outcomes(passed=8)
    assert "without a snapshot" not in accepted.stdout.str()
    before = cells.baselines()
    assert list(before) == ["tiny-gpt2", "tiny-llama"]
    figures = json.loads(before["tiny-gpt2"])["H1.1 test_it_holds facts"]
    assert figures["effect"] == 1.0 and figures["figures"] == {"rank": 1}
    assert figures["verdict"] == "supported"

    cells.estimate(1.0004)  # within tolerance: no failure, and no creeping
    cells.run("claims", "--snapshot-update").assert_outcomes(passed=8)
    assert cells.baselines() == before

    cells.estimate(1.2)
    drifted = cells.accept()  # new ones only: an existing one is not touched
    drifted.assert_outcomes(failed=8)
    drifted.stdout.fnmatch_lines(["*effect: was 1.0, now 1.2*"])
    assert "run this test case alone: pytest 'claims/test_heads.py::test_it_holds[" in (
        drifted.stdout.str()
    )
    assert cells.baselines() == before
    record = cells.records()["test_it_holds[tiny-gpt2-facts]"]
    assert "effect: was 1.0, now 1.2" in record["drift"]
    assert (record["verdict"], record["outcome"]) == ("supported", "failed")


@pytest.mark.parametrize("workers", ["0", "2"])
def test_missing_is_a_failure_in_ci(cells, monkeypatch, workers):
    monkeypatch.setenv("CI", "true")
    missing = cells.run("claims", "-n", workers)
    missing.assert_outcomes(failed=8)
    text = missing.stdout.str()
    assert "FiguresDrifted: H1.1 tiny-gpt2 facts, against its snapshot: no snapshot of" in text
    assert "8 test cases without a snapshot" in text and not cells.baselines()
    cells.accept("-n", workers).assert_outcomes(passed=8)
    cells.run("claims", "-n", workers).assert_outcomes(passed=8)


def test_one_missing_snapshot_is_written_beside_the_others(cells):
    cells.accept()
    whole = cells.baselines()
    entries = json.loads(whole["tiny-gpt2"])
    del entries["H1.1 test_it_holds facts"]
    cells.write("claims/__snapshots__/tiny-gpt2.json", json.dumps(entries))
    result = cells.run("claims", "-k", "gpt2 and facts")
    result.assert_outcomes(passed=1)
    command = "pytest * claims -k 'gpt2 and facts' --snapshot-update-new-only"
    result.stdout.fnmatch_lines([f"1 test case without a snapshot: *: {command}"])
    cells.accept().assert_outcomes(passed=8)
    assert cells.baselines() == whole


@pytest.mark.parametrize("workers", ["0", "2"])
def test_drift_is_one_table_of_the_session_old_beside_new(cells, workers):
    names = ("test_one", "test_two", "test_three")

    def claims(value):
        body = f"judge(verdict(estimate={value}), subject='0:2')"
        cells.claims("test_heads", *(cells.claim("H1.1", name, body) for name in names))

    claims(1.0)
    cells.accept()
    claims(1.5)
    result = cells.run("claims", "-n", workers, "-k", "test_one and facts")
    result.assert_outcomes(failed=2)
    start = result.outlines.index("6 figures drifted from the baseline:")
    rows = [line.split("  ") for line in result.outlines[start + 1 : start + 8]]
    rows = [[cell.strip() for cell in row if cell.strip()] for row in rows]
    assert rows[0] == ["test case", "figure", "baseline", "now", "difference"]
    case = "H1.1 test_one[tiny-gpt2-facts]"
    for row in (
        [case, "effect", "1.0", "1.5", "+0.5 (+50.0 %)"],
        [case, "low", "0.75", "1.25", "+0.5 (+66.7 %)"],
        ["H1.1 test_one[tiny-llama-facts]", "high", "1.25", "1.75", "+0.5 (+40.0 %)"],
    ):
        assert row in rows
    assert all(len(row) == 5 for row in rows)

    # A long list is cut, with a count.
    result = cells.run("claims", "-n", workers)
    text = result.stdout.str()
    assert text.count("figures drifted from the baseline") == 1
    assert f"{3 * 8 * 3} figures drifted from the baseline:" in text
    start = result.outlines.index("72 figures drifted from the baseline:")
    more = f"  and {72 - MOST_ROWS} more; each test's failure lists its own"
    assert result.outlines[start + 2 + MOST_ROWS] == more

    # What --snapshot-update rewrote is shown in the same way.
    result = cells.run("claims", "-n", workers, "-k", "test_one and facts", "--snapshot-update")
    result.assert_outcomes(passed=2)
    assert "6 figures rewritten by --snapshot-update:" in result.outlines
    assert "drifted from the baseline" not in result.stdout.str()


def test_an_update_rewrites_the_figures_that_left_the_tolerance_alone(cells):
    cells.accept()
    before = cells.baselines()["tiny-gpt2"]
    body = "judge(verdict(estimate=1.0004), subject='0:2', figures={'rank': 2})"
    cells.claims("test_heads", cells.claim(body=body))
    cells.run("claims", "-k", "gpt2 and facts", "--snapshot-update").assert_outcomes(passed=1)
    lines = zip(before.splitlines(), cells.baselines()["tiny-gpt2"].splitlines(), strict=True)
    assert [(old.strip(), new.strip()) for old, new in lines if old != new] == [
        ('"rank": 1', '"rank": 2')
    ]


def test_selecting_and_updating_deletes_nothing(cells):
    cells.accept()
    before = cells.snapshots()
    assert len(before) == 8
    for selection in (["-k", "llama"], ["--claim", "H1.1", "-k", "facts"]):
        result = cells.run("claims", *selection)
        assert result.ret == 0, "a snapshot of a deselected test case failed the run"
        assert cells.snapshots() == before
    cells.estimate(1.2)
    result = cells.run("claims", "-k", "llama and facts", "--snapshot-update", "-n", "2")
    result.assert_outcomes(passed=1, deselected=0)
    after = cells.snapshots()
    assert after.keys() == before.keys()
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"test_it_holds[tiny-llama-facts]"}
    # A test case that crashes does not use its snapshot; it is there, and no leftover.
    cells.claims("test_heads", cells.claim(body="1 / 0"))
    for update in ((), ("--snapshot-update",)):
        result = cells.run("claims", *update)
        result.assert_outcomes(failed=8)
        assert "of no test case" not in result.stdout.str()
        assert cells.snapshots() == after


# --- leftovers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", ["0", "2"])
def test_snapshots_of_no_test_case_are_named_where_every_claim_ran(cells, workers):
    cells.claims("test_gone", *(cells.claim(f"H2.{n}", f"test_gone_{n}") for n in range(6)))
    cells.write("claims/__snapshots__/tiny-old.json", '{"H1.1 test_it_holds facts": {}}')
    cells.accept("-n", workers)
    (cells.root / "claims" / "test_gone.py").unlink()
    before = cells.baselines()
    result = cells.run("claims", "-n", workers)
    result.assert_outcomes(passed=8)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    lines = [line for line in result.outlines if "of no test case" in line]
    by_hand = "of no test case; no run removes any, so do it by hand:"
    assert lines == [
        f"claims/__snapshots__/tiny-gpt2.json: 24 snapshots {by_hand} "
        + ", ".join(
            f"H2.{n} test_gone_{n} {condition}"
            for n in range(5)
            for condition in ("counterfactual", "facts", "logic", "negation")
        )
        + " and 4 more",
        lines[1],
        f"claims/__snapshots__/tiny-old.json: 1 snapshot {by_hand} H1.1 test_it_holds facts",
    ]
    assert lines[1].startswith("claims/__snapshots__/tiny-llama.json: 24 snapshots")
    # A selection cannot tell, and says nothing of others; nor does anything remove one.
    for options, code in (
        (("-k", "facts"), 0),
        (("--snapshot-update",), 0),
        (("--snapshot-warn-unused",), 0),
        (("--snapshot-disable-unused",), 0),
        (("--protocol", "published"), 0),
        (("--collect-only",), 0),
    ):
        result = cells.run("claims", "-n", workers, *options)
        assert result.ret == code, options
        named = options[0] in ("--snapshot-update", "--snapshot-warn-unused")
        assert ("of no test case" in result.stdout.str()) == named, options
        assert cells.baselines() == before


def test_a_module_that_cannot_be_imported_leaves_nothing_over(cells):
    cells.claims("test_other", cells.claim("H2.1"))
    cells.accept()
    cells.write("claims/test_other.py", "import nothing_that_is\n")
    result = cells.run("claims", "--continue-on-collection-errors")
    result.assert_outcomes(passed=8, errors=1)
    assert "of no test case" not in result.stdout.str()


@pytest.mark.parametrize("workers", ["0", "2"])
def test_two_test_cases_share_no_name(cells, workers):
    cells.claims("test_other", cells.claim())
    result = cells.run("claims", "-n", workers)
    assert result.ret == USAGE
    assert "figures would be taken for one another's; rename one of them" in "\n".join(
        result.outlines + result.errlines
    )
    cells.claims("test_other", cells.claim("H1.2"))
    cells.run("claims", "-n", workers).assert_outcomes(passed=16)


def test_a_claim_without_a_model_and_one_with_parameters_have_theirs(cells):
    parameters = "\n@pytest.mark.parametrize('size', [1, 2])"
    cells.claims(
        "test_heads",
        parameters + cells.claim("H1.1", arguments="model, size, judge, verdict"),
        cells.claim("H1.2", "test_alone", arguments="judge, verdict"),
    )
    cells.accept().assert_outcomes(passed=5)
    found = {name: list(json.loads(text)) for name, text in cells.baselines().items()}
    assert found["tiny-gpt2"] == ["H1.1 test_it_holds[1] all", "H1.1 test_it_holds[2] all"]
    assert found["_without-model"] == ["H1.2 test_alone all"]
    result = cells.run("claims")
    result.assert_outcomes(passed=5)
    assert result.ret == 0


# --- files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", ["0", "2"])
@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('{"H1.1 test_it_holds facts": {"effect": 1.0', "is not JSON"),
        ('{"H1.1 test_it_holds facts": {"effect": NaN}}', "NaN is no finite number"),
        ('{"H1.1 test_it_holds facts": {"efect": 1.0}}', "did you mean 'effect'?"),
        ('{"H1.1 test_it_holds facts": {}, "H1.1 test_it_holds facts": {}}', "stands there twice"),
    ],
)
def test_a_broken_file_ends_the_session_before_anything_runs(cells, workers, text, fault):
    path = cells.write("claims/__snapshots__/tiny-llama.json", text)
    result = cells.run("claims", "-n", workers, "--snapshot-update")
    assert result.ret == USAGE
    said = [line for line in result.errlines if line.startswith("ERROR: ")]
    assert len(said) == 1 and said[0].startswith(f"ERROR: {path}: ") and fault in said[0]
    assert path.read_text() == text and list(cells.baselines()) == ["tiny-llama"]
    assert not cells.loads()


def test_a_file_that_breaks_meanwhile_fails_its_tests_and_is_not_written_over(cells):
    path = cells.root / "claims" / "__snapshots__" / "tiny-gpt2.json"
    cells.accept()
    body = f"import pathlib; pathlib.Path({str(path)!r}).write_text('junk'); judge(verdict())"
    cells.claims("test_heads", cells.claim(body=body))
    result = cells.run("claims", "-k", "gpt2", "--snapshot-update")
    result.assert_outcomes(failed=4)
    result.stdout.fnmatch_lines([f"*against its snapshot: {path}: is not JSON*"])
    assert path.read_text() == "junk"


def test_workers_that_share_a_model_lose_nothing_of_each_other(cells):
    """Conditions of a model of the hub are shared out among workers, which write to one file."""
    cells.models("tiny-gpt2", hub=["mistral-7b"])
    names = [f"test_{number}" for number in range(12)]
    cells.claims("test_heads", *(cells.claim("H1.1", name) for name in names))
    cells.accept("-k", "mistral", "-n", "4").assert_outcomes(passed=48)
    assert len({worker for worker, _ in cells.loads()}) > 1
    assert len(cells.snapshots()) == 48
    assert list(cells.baselines()) == ["mistral-7b"]


def test_a_session_that_is_killed_keeps_what_it_accepted(cells):
    cells.claims(
        "test_heads",
        cells.claim("H1.1", "test_first"),
        cells.claim("H1.2", "test_last", "os.kill(os.getpid(), signal.SIGKILL)"),
    )
    assert cells.accept("-k", "gpt2 and facts").ret == -signal.SIGKILL
    assert list(cells.snapshots()) == ["test_first[tiny-gpt2-facts]"]
    assert not [name for name in os.listdir(cells.root / "claims/__snapshots__") if "tmp" in name]


# --- what has no snapshot ------------------------------------------------------------------------


def test_hub_models_need_no_snapshot_and_are_held_to_the_one_they_have(cells, monkeypatch):
    cells.models("tiny-gpt2", hub=["mistral-7b"])
    both = ("-k", "mistral or gpt2")
    # The embedded one needs its own.
    result = cells.run("claims", *both)
    result.assert_outcomes(passed=8)
    assert "4 test cases without a snapshot" in result.stdout.str()
    monkeypatch.setenv("CI", "true")
    cells.run("claims", *both).assert_outcomes(passed=4, failed=4)
    assert not cells.snapshots()
    cells.accept()
    assert len(cells.snapshots()) == 4
    result = cells.run("claims", *both)
    result.assert_outcomes(passed=8)
    assert result.ret == 0 and "snapshot failed" not in result.stdout.str()
    cells.accept(*both, "-n", "2").assert_outcomes(passed=8)
    before = cells.snapshots()
    assert len(before) == 8 and "test_it_holds[mistral-7b-facts]" in before

    # A bare run has no cell of theirs, and they are not unused.
    for options in ((), ("-n", "2")):
        result = cells.run("claims", *options)
        result.assert_outcomes(passed=4)
        assert result.ret == 0 and "of no test case" not in result.stdout.str()
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
            assert result.ret == 0, "snapshots that were not compared counted as left over"
        assert cells.snapshots() == before
        record = cells.records()["test_it_holds[tiny-gpt2-facts]"]
        said = f"not compared: measured on {measured}; snapshots are of cpu in float32"
        assert (record["details"]["snapshot"], record["drift"]) == (said, None)
    content = json.loads((cells.root / "reports" / "records.json").read_text())
    assert content["session"]["device"] == "cuda:1 (bfloat16)"


# --- the committed ones --------------------------------------------------------------------------

COLLECTING = """
import json, sys
import pytest

class Shown:
    def pytest_collection_finish(self, session):
        from tinyablation.plugin.snapshots import baseline_of, case_of
        cases = [(str(baseline_of(item)), str(case_of(item))) for item in session.items]
        print("CASES", json.dumps(cases))

sys.exit(pytest.main(["claims", "--collect-only", "-qq"], plugins=[Shown()]))
"""


@cache
def without_words(model, condition):
    """Whether a pack's condition has too few examples for this model's tokenizer: it is blocked."""
    path = next((ROOT / "claims").glob(f"*/conditions/{condition}.jsonl"), None)
    if path is None:
        return False
    own = replace(read_own(condition, path), least=LEAST_CLUSTERS)
    tokenizer = AutoTokenizer.from_pretrained(ROOT / "fixtures" / "organisms" / model)
    try:
        own.for_tokenizer(tokenizer, model, 0)
    except TooFewPrompts:
        return True
    return False


# Claims that compare a condition with another one.
BESIDES = {"SUCC.2": "successors"}


@pytest.mark.slow  # a session of its own
def test_every_test_case_of_every_embedded_model_has_a_committed_snapshot_and_no_other():
    done = subprocess.run(
        [sys.executable, "-c", COLLECTING], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    line = next(line for line in done.stdout.splitlines() if line.startswith("CASES "))
    wanted = {tuple(pair) for pair in json.loads(line.removeprefix("CASES "))}
    named_only = load_registry(ROOT / "fixtures" / "models.toml").named_only_ids
    found = {
        (str(path), key)
        for path in (ROOT / "claims").glob("*/__snapshots__/*.json")
        if path.stem not in named_only  # those are collected only if they are named
        for key in json.loads(path.read_text())
    }
    assert found <= wanted and len(wanted) == 1344
    for path, key in wanted - found:
        claim, *_, condition = key.split()
        asked = {condition, BESIDES.get(claim, condition)}
        assert any(without_words(Path(path).stem, each) for each in asked), key
