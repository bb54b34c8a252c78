"""Run: pytest tests/plugin/test_conditions.py"""

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fake_sessions import opened
from tests.records.test_conditions import ONE_MORE
from tests.small_corpora import KNOWN, UNKNOWN, crossed
from tinyablation.plugin.scheduling import Unit, unit_of

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[2]
USAGE = pytest.ExitCode.USAGE_ERROR
PUBLISHED = """
[[figure]]
claim = "H1.1"
model = "gpt2-medium"
condition = "all"
value = 1.0
unit = "nats"
source = "the study"
"""


def lines(of=20):
    """Pairs of prompts, the second of each with the names exchanged, in either order."""
    found = []
    for n in range(of):
        for x, y in ((f"Anna{n}", f"Bert{n}"), (f"Bert{n}", f"Anna{n}")):
            giver, other = (x, y) if n % 2 else (y, x)
            clean, corrupt = (
                f"When {x} and {y} met, {who} gave a book to" for who in (giver, other)
            )
            answers = {"target": f" {other}", "foil": f" {giver}", "cluster": f"pair {n}"}
            found.append({"clean": clean, "corrupt": corrupt, **answers})
    return found


@pytest.fixture
def own(suite):
    """A suite with one claim about a condition and one about all, and a file of a condition."""
    suite.claims(
        "test_heads",
        suite.claim("H1.1", "test_leads"),
        suite.claim("H1.3", "test_agrees", arguments="model, judge, verdict"),
    )
    put(suite, lines())
    return suite


def put(suite, rows, name="ioi.jsonl"):
    suite.write(name, "".join(f"{json.dumps(row)}\n" for row in rows))


GIVEN = ("claims", "--condition", "ioi=ioi.jsonl")


def collected(suite, *arguments):
    result = suite.run(*GIVEN, "--collect-only", "-q", *arguments)
    return [line.split("::")[1] for line in result.outlines if "::" in line]


def test_claims_about_a_condition_are_asked_of_it_and_the_others_stay(own):
    every = collected(own)
    assert len(every) == 3 * (5 + 1)
    assert every[4:6] == ["test_leads[tiny-gpt2-ioi]", "test_agrees[tiny-gpt2]"]
    assert [name.partition("[")[2] for name in collected(own, "-k", "ioi")] == [
        "tiny-gpt2-ioi]",
        "tiny-gpt2-plain-ioi]",
        "tiny-mistral-ioi]",
    ]


@pytest.mark.parametrize("workers", ["0", "2"])
def test_nothing_is_expected_published_or_kept_of_it(own, workers):
    """Refuted is no failure, and the figures of others do not stand beside it."""
    own.claims("test_heads", own.claim("H1.1", "test_leads", "judge(verdict('refuted'))"))
    own.write("claims/published.toml", PUBLISHED)
    own.write("claims/predictions.toml", '"H1.1" = { "*" = "refuted" }\n')
    result = own.run(*GIVEN, "--snapshot-update-new-only", "-n", workers)
    assert result.ret == 0
    result.assert_outcomes(xfailed=3 * 5)
    records = own.records()
    mine, facts = records["test_leads[tiny-gpt2-ioi]"], records["test_leads[tiny-gpt2-facts]"]
    assert (mine["condition"], mine["prediction"], mine["published"]) == ("ioi", None, [])
    assert facts["prediction"] == "refuted" and len(facts["published"]) == 1
    assert mine["details"]["defects"] == "none"
    assert mine["details"]["corpus"].startswith("ioi.jsonl (40 examples, 20 clusters; split drawn")
    assert "defects" not in facts["details"]
    assert not any("ioi" in name for name in own.snapshots())
    assert any("facts" in name for name in own.snapshots())
    page = opened((own.root / "reports" / "claims.html").read_text())
    assert "<small>io</small>" in page and 'data-c="ioi"' in page
    assert not (own.root / "reports" / "full").exists(), "the full report is without it"


def test_a_prediction_for_it_decides_no_cell(own):
    own.write("claims/predictions.toml", '"H1.1" = { "*-ioi" = "refuted" }\n')
    result = own.run(*GIVEN)
    assert (
        result.ret == USAGE and "decide no test case" in result.stderr.str() + result.stdout.str()
    )


def test_the_rerun_command_carries_it(own):
    body = "from tinyablation.plugin.judge import rerun_command; print(rerun_command(request.node))"
    own.claims("test_heads", own.claim(body=body, arguments="model, condition, judge, request"))
    result = own.run(*GIVEN, "-s", "-k", "tiny-mistral")
    printed = [line for line in result.outlines if "pytest 'claims" in line]
    assert len(printed) == 5
    assert [line for line in printed if "--condition ioi=ioi.jsonl" in line] == [
        line for line in printed if "tiny-mistral-ioi]" in line
    ]


@pytest.mark.parametrize("workers", ["0", "2"])
def test_defects_are_listed_and_must_be_accepted(own, workers):
    put(own, [*lines(3), lines(1)[0]])
    result = own.run(*GIVEN, "-n", workers)
    assert result.ret == USAGE and own.loads() == []
    text = result.stderr.str() + result.stdout.str()
    assert text.count("--condition ioi: ioi.jsonl has defects:") == 1
    assert "the same clean prompt again: 1 (first: line 7)" in text
    assert "fewer than 20 clusters: 1 (first: line 1)" in text
    result = own.run(*GIVEN, "--accept-defects", "-n", workers, "-k", "ioi")
    assert result.ret == 0
    assert "condition ioi, defects accepted: the same clean prompt again" in result.stdout.str()
    for record in own.records().values():
        found = record["details"]["defects"]
        assert found["the same clean prompt again"] == "1 (first: line 7)"


def test_what_a_tokenizer_in_a_folder_shows_is_listed_before_anything_is_measured(own):
    organism = ROOT / "fixtures" / "organisms" / "tiny-gpt2"
    shutil.copytree(organism, own.root / "fixtures" / "organisms" / "tiny-gpt2")
    (own.root / "corpora").mkdir()
    for workers in ("0", "2"):
        result = own.run(*GIVEN, "-k", "ioi and gpt2 and not plain", "-n", workers)
        assert result.ret == USAGE and own.loads() == []
        text = result.stderr.str() + result.stdout.str()
        # Its vocabulary has no Anna.
        assert text.count("ioi.jsonl, for tiny-gpt2 has defects:") == 1
        assert "answers of several tokens: 40 (first: line 1)" in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--condition", "ioi"], "give NAME=FILE"),
        (["--condition", "facts=ioi.jsonl"], "'facts' is taken by the project"),
        (["--condition", "IOI=ioi.jsonl"], "'IOI' cannot name a condition"),
        (["--condition", "plain=ioi.jsonl"], "it would read as tiny-gpt2-plain"),
        (["--condition", "a=none.jsonl"], "no such file"),
        (["--condition", "a=ioi.jsonl", "--condition", "a=ioi.jsonl"], "a is given twice"),
        (["--accept-defects"], "give --condition too"),
    ],
)
def test_a_wrong_option_is_a_usage_error_on_one_line(own, options, message):
    result = own.run("claims", *options)
    assert result.ret == USAGE
    assert len([line for line in result.errlines if line.startswith("ERROR: ")]) == 1
    assert message in result.stderr.str()


def test_cells_of_it_are_units_of_their_own():
    cell = "claims/test_h.py::test_a[tiny-gpt2-ioi]"
    assert unit_of(cell, ["tiny-gpt2"], (), ("facts", "ioi")) == Unit("tiny-gpt2", "ioi")
    assert unit_of(cell, ["tiny-gpt2"]) == Unit("tiny-gpt2", "all")


def test_a_line_in_the_table_is_collected_scheduled_recorded_and_shown(own):
    """Adding a named condition touches one table."""
    own.write("early.py", ONE_MORE)
    own.accept("-p", "early", "-n", "2").assert_outcomes(passed=3 * (5 + 1))
    assert own.records()["test_leads[tiny-mistral-ioi]"]["condition"] == "ioi"
    page = opened((own.root / "reports" / "claims.html").read_text())
    assert "<small>I</small>" in page and 'data-c="ioi"' in page
    assert any("tiny-mistral-ioi" in name for name in own.snapshots())
    loads = own.loads()
    assert len(loads) == len(set(loads)), "its cells are with their model"


def test_corpora_that_two_folders_have_are_said_in_the_header(own):
    for name in ("tiny", "mine"):
        (own.root / "corpora" / name).mkdir(parents=True)
        shutil.copy(ROOT / "corpora" / "tiny" / "manifest.json", own.root / "corpora" / name)
    result = own.run("claims", "--collect-only", "-k", "ioi")
    result.stdout.fnmatch_lines(
        ["corpora/tiny and corpora/mine are for the same tokenizer: facts, * of tiny is used"]
    )


@pytest.mark.slow
def test_families_of_a_file_are_gated_and_known_facts_kept(tmp_path):
    """Real claims: of two families the model fails one, and verdicts say so."""
    rows = [
        {
            **{name: getattr(row, name) for name in ("clean", "corrupt", "null", "target", "foil")},
            "cluster": row.cluster_id,
            "fact": row.fact_id,
            "template": row.template_id.partition("/")[2],
            "family": row.family,
        }
        for row in crossed()
    ]
    file = tmp_path / "mine.jsonl"
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    reports = tmp_path / "reports"
    command = f"claims --model tiny-gpt2 --condition mine={file} -k mine --claim V.1,H1.1"
    given = [*shlex.split(command), "--accept-defects", "--reports", str(reports)]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *given], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout
    content = json.loads((reports / "records.json").read_text())
    records = {each["claim"]: each for each in content["records"]}
    assert set(records) == {"V.1", "H1.1"}
    found = records["H1.1"]
    assert found["condition"] == "mine" and found["verdict"] != "blocked"
    assert found["scope"] == "5 relations and 3 wordings"
    assert found["details"]["families"] == [KNOWN] and UNKNOWN in str(found["details"]["left out"])
    assert found["details"]["share of facts known"] == 1.0
