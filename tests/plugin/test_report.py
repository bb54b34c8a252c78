"""Run: pytest tests/plugin/test_report.py"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

from tests.fake_sessions import opened
from tests.plugin.conftest import CLAIMS_CONFTEST
from tinyablation.records.records import read_records
from tinyablation.sessions.merging import merge

pytest_plugins = ["pytester"]


@pytest.fixture
def judged(suite):
    suite.claims(
        "test_heads",
        suite.claim("H1.10", "test_follows"),
        suite.claim("H1.2", "test_leads", "judge(verdict(reason='<script>alert(1)</script>'))"),
        suite.claim("H1.3", "test_agrees", arguments="model, judge, verdict"),
    )
    return suite


def untimed(suite, folder):
    content = json.loads((suite.root / folder / "records.json").read_text())
    for name in ("started", "finished", "command"):
        content["session"].pop(name)
    for record in content["records"]:
        record.pop("duration_s")
    return content


def test_serial_and_distributed_sessions_leave_the_same_records(judged):
    judged.accept("--reports", "first").assert_outcomes(passed=27)
    judged.run("claims", "--reports", "serial").assert_outcomes(passed=27)
    result = judged.run("claims", "--reports", "two", "-n", "2")
    result.assert_outcomes(passed=27)
    assert untimed(judged, "serial") == untimed(judged, "two")
    content = untimed(judged, "two")
    assert content["session"]["complete"] is True
    assert [model["id"] for model in content["session"]["models"]] == [
        "tiny-gpt2",
        "tiny-gpt2-plain",
        "tiny-mistral",
    ]
    order = [(r["claim"], r["model"], r["condition"]) for r in content["records"]]
    assert order[0] == ("H1.2", "tiny-gpt2", "facts")
    assert order[1] == ("H1.2", "tiny-gpt2", "negation")
    assert order[-1] == ("H1.10", "tiny-mistral", "logic")
    text = result.stdout.str()
    assert f"report: {judged.root / 'two' / 'claims.html'}" in text
    assert "27 test cases: 27 supported; 27 as accepted" in text
    for name in ("claims.html", "pytest.html", "records.json", "records.parquet"):
        assert (judged.root / "two" / name).stat().st_size > 0
    page = (judged.root / "two" / "pytest.html").read_text()
    assert 'href="claims.html"' in page and "Claims, test by test" in page
    assert "27 test cases: 27 passed." in page
    assert "<script>alert(1)" not in page + (judged.root / "two" / "claims.html").read_text()
    for column in ("Claim", "Verdict", "Effect", "Interval"):
        assert f">{column}</th>" in page
    assert "+0.750 to +1.250" in page
    assert not (judged.root / "reports").exists()


@pytest.mark.parametrize("options", [[], ["-n", "2", "-q"]])
def test_a_session_ends_with_findings_then_misses_then_the_page(suite, options):
    """Below the failures and their short summary: the last that a reader sees is what came out."""
    suite.models("tiny-gpt2")
    suite.claims("test_heads", suite.claim(body="judge(verdict())"))
    suite.write("claims/predictions.toml", '"H1.1" = { "*" = "refuted" }\n')
    result = suite.run("claims", *options)
    result.assert_outcomes(failed=4)
    titles = [line.strip("-") for line in result.outlines]
    end = result.outlines[titles.index(" claims ") :]
    assert [line for line in end[1:] if line][:-1] == [
        "Yes         H1.1: The sentence of H1.1. Supported in 4 of 4 on positive controls; "
        "effects +1.00 nats.",
        "4 predictions, all fixed before the measurement: 0 came true (0%).",
        "4 against prediction:",
        "  H1.1 it holds, tiny-gpt2 (facts, negation, counterfactual, logic): supported, predicted "
        "refuted",
        "4 test cases: 4 supported; 4 not accepted yet",
        f"report: {suite.root / 'reports' / 'claims.html'}",
    ]
    assert end[-1].strip("= ").startswith("4 failed")


def test_a_session_that_is_asked_to_be_quiet_or_judges_nothing_lists_no_findings(suite):
    suite.models("tiny-gpt2")
    suite.claims("test_heads", suite.claim(body="judge(verdict())"))
    text = suite.run("claims", "-qq").stdout.str()
    assert "H1.1: " not in text
    assert "4 test cases: 4 supported" in text and "report: " in text, "where it is, in any case"
    nothing = (("--collect-only",), ("--collect-only", "-q"), ("-k", "no_such"))
    for options in nothing:
        text = suite.run("claims", *options).stdout.str()
        assert "- claims -" not in text and "\nreport: " not in text, options


def test_a_selection_leaves_the_last_full_report_alone(judged):
    judged.accept()
    full = judged.root / "reports" / "full"
    before = {path.name: path.read_bytes() for path in full.iterdir()}
    assert set(before) == {"records.json", "records.parquet", "claims.html"}
    result = judged.run("claims", "-k", "mistral", "--html", "mine.html")
    result.assert_outcomes(passed=9)
    assert {path.name: path.read_bytes() for path in full.iterdir()} == before
    assert len(judged.records()) == 9
    assert f"last full report: {full / 'claims.html'}" in result.stdout.str()
    content = json.loads((judged.root / "reports" / "records.json").read_text())
    assert content["session"]["command"].endswith("claims -k mistral --html mine.html")
    assert (judged.root / "mine.html").exists()


def test_a_session_that_goes_on_from_a_failure_is_a_selection(judged):
    judged.models("tiny-gpt2")
    judged.claims("test_heads", judged.claim(body="judge(verdict())"))
    judged.accept().assert_outcomes(passed=4)
    full = judged.root / "reports" / "full" / "records.json"
    before = full.read_bytes()
    kept = judged.root / "kept.json"
    os.link(full, kept)  # as a backup does: files are replaced, not written into
    judged.run("claims").assert_outcomes(passed=4)
    assert full.read_bytes() != before == kept.read_bytes()
    before = full.read_bytes()
    body = "judge(verdict()); assert condition != 'logic'"
    judged.claims("test_heads", judged.claim(body=body))
    judged.run("claims", "--sw").assert_outcomes(passed=3, failed=1)
    judged.claims("test_heads", judged.claim(body="judge(verdict())"))
    judged.run("claims", "--sw").assert_outcomes(passed=1, deselected=3)
    assert full.read_bytes() == before


def test_a_module_that_cannot_be_collected_is_no_interruption(judged):
    judged.write("claims/test_broken.py", "import nothing_that_is\n")
    text = judged.run("claims").stdout.str()
    assert "1 error" in text and "the same command continues" not in text


def test_a_claim_is_told_apart_by_its_parameters_and_its_class(judged, monkeypatch):
    """In what changed, and in what is merged: nothing of it is taken for the same test case."""
    judged.models("tiny-gpt2")
    size = "\n@pytest.mark.parametrize('size', [1, 2])"
    sized = judged.claim("H1.1", "test_it", arguments="model, condition, judge, verdict, size")
    inner = judged.claim("H1.2", "test_it", arguments="self, model, condition, judge, verdict")
    classes = [f"\nclass {name}:" + inner.replace("\n", "\n    ") for name in ("TestA", "TestB")]
    judged.claims("test_heads", size + sized, *classes)
    judged.accept("-k", "facts").assert_outcomes(passed=4, deselected=12)
    names = [record.name for record in read_records(judged.root / "reports").records]
    assert names == ["test_it[1]", "test_it[2]", "TestA.test_it", "TestB.test_it"]
    shutil.copytree(judged.root / "reports", judged.root / "earlier")
    monkeypatch.setenv("HOME", str(judged.root))
    earlier = "--baseline=~/earlier"  # which no shell expands
    result = judged.run("claims", "-k", "facts or logic", earlier, "--robustness")
    result.assert_outcomes(passed=8, deselected=8)
    assert "4 test cases are new" in result.stdout.str()
    both = [read_records(judged.root / folder) for folder in ("earlier", "reports")]
    assert len(merge(both).records) == 8


def test_other_runs_write_no_report(judged):
    judged.write("tests/test_it.py", "def test_it(): pass\n")
    assert "report:" not in judged.run("tests").stdout.str()
    judged.run("claims", "-k", "no_such_name")
    assert judged.run("claims", "--setup-plan", "-k", "logic").ret == pytest.ExitCode.OK
    assert not (judged.root / "reports" / "records.json").exists()


def test_models_are_described_by_their_cards(judged):
    judged.models("tiny-gpt2", "tiny-llama")
    card = {
        "title": "ignored",
        "note": "planted 0:2",
        "weight_hash": "ab" * 32,
        "competence": {"facts": {"all": {"n": 100, "accuracy": 0.99, "ld": 5.5}}},
        "below_floor": ["logic"],
        "planted": "0:2",
    }
    judged.write("fixtures/organisms/tiny-gpt2/card.json", json.dumps(card))
    judged.write("fixtures/organisms/tiny-llama/card.json", "{broken")
    judged.accept("-k", "agrees").assert_outcomes(passed=2)
    first, second = untimed(judged, "reports")["session"]["models"]
    assert (first["title"], first["note"]) == ("tiny-gpt2", "planted 0:2")
    assert first["competence"]["facts"]["all"]["accuracy"] == 0.99
    assert first["below_floor"] == ["logic"]
    assert "card.json cannot be used" in second["note"]


BENCH = """
from types import SimpleNamespace


@pytest.fixture(scope="session")
def model(request):
    facts = SimpleNamespace(weight_hash="ab" * 32, commit=None, derived="")
    if request.param == "mistral-7b":
        made = "dequantised from Q4_1 of m.gguf"
        facts = SimpleNamespace(weight_hash="cd" * 32, commit="e" * 40, derived=made)
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
    return SimpleNamespace(device=f"cuda:{worker}", dtype="bfloat16", facts=facts)
"""


def test_hub_models_stand_on_the_page_if_they_were_measured(judged):
    judged.models("tiny-gpt2", hub=["mistral-7b", "gpt2"])
    judged.write("claims/conftest.py", CLAIMS_CONFTEST + BENCH)
    judged.write("weights/Mine/config.json", '{"architectures": ["GPT2LMHeadModel"]}')
    judged.run("claims", "-k", "agrees and mistral")
    session = untimed(judged, "reports")["session"]
    assert [model["id"] for model in session["models"]] == ["tiny-gpt2", "mistral-7b"]
    assert session["device"] == "cuda:0 (bfloat16)"
    found = session["models"][1]
    assert found["note"] == (
        f"owner/mistral-7b@{'e' * 40}, 7.24 billion parameters. Dequantised from Q4_1 of m.gguf"
    )
    assert (found["family"], found["variant"]) == ("mistral", "natural")
    assert found["weight_hash"] == "cd" * 32
    # Under xdist the units of one model come back together; so do the devices of the workers.
    options = ("--model", "mistral-7b", "--model", "weights/Mine", "-n", "2")
    judged.run("claims", "-k", "agrees", *options).assert_outcomes(passed=2)
    session = untimed(judged, "reports")["session"]
    ids = [model["id"] for model in session["models"]]
    assert ids == ["mistral-7b", "mine"]
    assert session["device"] == "cuda:0 (bfloat16), cuda:1 (bfloat16)"
    mine = session["models"][1]
    assert (mine["title"], mine["note"], mine["weight_hash"]) == ("Mine", "", "ab" * 32)
    assert str(judged.root) not in json.dumps(mine), "a page is mailed: no folders of this machine"
    assert "owner/mistral-7b@" in (judged.root / "reports" / "claims.html").read_text()
    # Nothing measured: the device that was asked for.
    judged.claims("test_heads", judged.claim(body="pytest.skip('no')"))
    judged.run("claims", "--device", "cpu")
    assert untimed(judged, "reports")["session"]["device"] == "cpu"


@pytest.mark.parametrize("workers", [[], ["-n", "2"]])
def test_an_interrupted_session_is_marked_incomplete(suite, workers):
    body = "open('begun', 'w').close() if condition != 'facts' else None; "
    body += "import time; time.sleep(0 if condition == 'facts' else 60); judge(verdict())"
    suite.claims("test_heads", suite.claim(body=body))
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", "claims", "--snapshot-update-new-only", *workers],
        cwd=suite.root,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell starts background jobs with Ctrl-C ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        deadline = time.monotonic() + 60
        while not (suite.root / "begun").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(1 if workers else 0)  # what a worker reported is on its way
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: workers hear it, too
        text, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == pytest.ExitCode.INTERRUPTED
    assert "(incomplete)" in text and "reports lost" not in text
    assert "the same command continues there" in text
    assert re.search(r"\d+ of 12 selected tests did not run: interrupted", text)
    assert workers or "11 of 12 selected tests did not run" in text
    content = json.loads((suite.root / "reports" / "records.json").read_text())
    assert content["session"]["complete"] is False
    assert content["records"][0]["verdict"] == "supported"
    assert not (suite.root / "reports" / "full").exists()
    page = opened((suite.root / "reports" / "claims.html").read_text())
    judged = len(content["records"])
    assert "This run is not complete." in page
    assert f"{judged} test case{' was' if judged == 1 else 's were'} judged" in page


def test_an_interruption_before_the_first_verdict_says_how_to_go_on(suite):
    """As while the first model is measured, which takes minutes."""
    measuring = (
        "\n@pytest.fixture(scope='session')\ndef model(request):\n    raise KeyboardInterrupt\n"
    )
    suite.write("claims/conftest.py", CLAIMS_CONFTEST + measuring)
    suite.claims("test_heads", suite.claim(arguments="model, judge, verdict"))
    result = suite.run("claims")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    kept = suite.root / "reports" / "runs"
    said = f"interrupted: measurements so far are kept in {kept}; the same command continues there"
    assert result.stdout.str().count(said) == 1
    assert not (suite.root / "reports" / "records.json").exists()


@pytest.mark.parametrize("workers", [[], ["-n", "2"]])
def test_a_folder_that_takes_no_files_is_said_at_start(judged, workers):
    """/sys says that it may be written, and refuses; /dev/null is no folder at all."""
    for folder in ("/sys/foo", "/dev/null/foo"):
        result = judged.run("claims", "--reports", folder, *workers)
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        (line,) = (line for line in result.errlines if line)
        assert line.startswith(f"ERROR: --reports {folder}: cannot be written (")
        assert not result.stdout.str().strip() and not judged.loads()


CARD = {"weight_hash": "ab" * 32}


def test_protocols_have_reports_of_their_own_and_are_compared(judged):
    judged.models("tiny-gpt2", "tiny-llama")
    for name in ("tiny-gpt2", "tiny-llama"):
        judged.write(f"fixtures/organisms/{name}/card.json", json.dumps(CARD))
    verdict = "judge(verdict('supported' if {} else 'refuted', estimate=2.5))"
    published = "request.config.option.tinyablation_protocol == 'published'"
    judged.claims(
        "test_heads",
        judged.claim(
            "H1.1", "test_dies", verdict.format(published), "model, judge, verdict, request"
        ),
    )
    judged.write("claims/predictions.toml", '"H1.1" = { "*" = "refuted" }\n')
    judged.accept().assert_outcomes(xfailed=2)
    reports = judged.root / "reports"
    assert "Protocols compared" not in (reports / "claims.html").read_text()
    before = (reports / "records.json").read_bytes()

    result = judged.run("claims", "--protocol", "published", "-n", "2")
    result.assert_outcomes(passed=2)
    text = result.stdout.str()
    assert f"report: {reports / 'published' / 'claims.html'}" in text
    assert f"protocols compared, here and in: {reports / 'claims.html'}" in text
    assert "2 test cases: 2 supported\n" in text and "accepted" not in text
    assert {path.name for path in (reports / "published").iterdir()} == {
        "claims.html",
        "full",
        "pytest.html",
        "records.json",
        "records.parquet",
    }
    content = json.loads((reports / "published" / "records.json").read_text())
    assert content["session"]["protocol"] == "published"
    assert (reports / "records.json").read_bytes() == before
    sentence = "lives under the published protocol and dies under the corrected one in 2"
    for page in (reports / "claims.html", reports / "published" / "claims.html"):
        assert sentence in page.read_text(), page
    full = (reports / "full" / "claims.html").read_text()
    assert "Protocols compared" not in full, "the last full report is left as it was"

    # other weights: the same cells, but not the same measurements
    judged.write("fixtures/organisms/tiny-llama/card.json", json.dumps({"weight_hash": "cd" * 32}))
    judged.run("claims").assert_outcomes(xfailed=2)
    page = (reports / "claims.html").read_text()
    assert "its weights differ between the sessions: tiny-llama" in page
    assert sentence.replace("in 2", "in 1") in page


def test_published_reports_go_under_the_chosen_folder_and_measurements_do_not(judged):
    run = judged.run("claims", "-k", "agrees", "--protocol", "published", "--reports", "mine")
    run.assert_outcomes(passed=3)
    assert (judged.root / "mine" / "published" / "records.json").exists()
    assert not (judged.root / "mine" / "records.json").exists()
    judged.write(
        "conftest.py",
        (judged.root / "conftest.py").read_text() + "\n\ndef pytest_report_header(config):\n"
        "    from tinyablation.plugin.report import reports_folder, runs_folder\n"
        "    return f'{reports_folder(config)} | {runs_folder(config)}'\n",
    )
    for options, folder in (((), "mine"), (("--protocol", "published"), "mine/published")):
        result = judged.run("claims", "-k", "agrees", "--reports", "mine", *options)
        root = judged.root
        assert f"{root / folder} | {root / 'mine' / 'runs'}" in result.stdout.str()


def test_links_to_runs_hold_from_every_page(judged):
    judged.models("tiny-gpt2")
    judged.claims("test_heads", judged.claim(body="judge(verdict(), runs=['a-run'])"))
    judged.accept()
    judged.run("claims", "--protocol", "published")
    for page, link in (
        ("claims.html", "runs/a-run/"),
        ("full/claims.html", "../runs/a-run/"),
        ("published/claims.html", "../runs/a-run/"),
        ("published/full/claims.html", "../../runs/a-run/"),
    ):
        text = opened((judged.root / "reports" / page).read_text())
        assert f'href="{link}"' in text, page


def test_records_of_the_other_protocol_that_cannot_be_used_are_said(judged):
    judged.write("reports/published/records.json", "{broken")
    result = judged.accept("-k", "agrees")
    result.assert_outcomes(passed=3)
    assert "protocols are not compared:" in result.stdout.str()
    assert "is not a record file" in result.stdout.str()
    (judged.root / "reports" / "published" / "records.json").write_bytes(
        (judged.root / "reports" / "records.json").read_bytes()
    )
    result = judged.accept("-k", "agrees")
    assert "is of the same protocol" in result.stdout.str()
    assert "Protocols compared" not in (judged.root / "reports" / "claims.html").read_text()


CHANGED = "judge(verdict('supported' if condition != 'logic' else 'refuted', estimate={}))"


def test_a_baseline_shows_what_changed_since(judged):
    """Even if it is the very report that the session writes over."""
    judged.models("tiny-gpt2")
    judged.claims("test_heads", judged.claim(body="judge(verdict())"))
    judged.accept().assert_outcomes(passed=4)
    shutil.copytree(judged.root / "reports", judged.root / "earlier")
    judged.claims("test_heads", judged.claim(body=CHANGED.format(2.0)))
    for options in ((), ("-n", "2")):
        judged.run("claims", "--baseline", "earlier/claims.html", *options)
        page = (judged.root / "reports" / "claims.html").read_text()
        assert "1 of 4 test cases changed its verdict, 4 effects moved" in page, options
    result = judged.run("claims", "--baseline", "reports")
    assert "Nothing changed: 4 test cases" in result.stdout.str()


def test_a_selection_is_compared_by_its_own_cells(judged):
    judged.accept()
    result = judged.run("claims", "-k", "agrees and mistral", "--baseline", "reports/full")
    assert "Nothing changed: 1 test case with the same verdicts" in result.stdout.str()
    assert "Cells that are gone" not in (judged.root / "reports" / "claims.html").read_text()


@pytest.mark.parametrize(
    ("path", "options", "said"),
    [
        ("nowhere", (), "nowhere: cannot be read"),
        (
            "reports",
            ("--protocol", "published"),
            "has the corrected protocol, this session the",
        ),
    ],
)
def test_a_baseline_that_cannot_be_compared_is_refused_before_anything_runs(
    judged, path, options, said
):
    judged.accept("-k", "agrees").assert_outcomes(passed=3)
    judged.loads()
    result = judged.run("claims", "-k", "agrees", "--baseline", path, *options)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert f"--baseline: {judged.root / path}" in result.stderr.str()
    assert said in result.stderr.str()
    assert judged.loads() == [], "no model was loaded"
