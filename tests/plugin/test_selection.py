"""Run: pytest tests/plugin/test_selection.py"""

import subprocess
import sys
from pathlib import Path

import pytest

from tinyablation.plugin.options import wanted_ids
from tinyablation.plugin.selection import ClaimText, matches_claim, read_docstring

pytest_plugins = ["pytester"]

DOCSTRING = """One head leads
    its layer.

    More about it.

    Estimator: mean change
        of LD.
    Threshold: above the floor.
    Refuted if: below it.
    Audit: rescue, specificity

    A remark.
    """


def test_docstring_is_read_in_its_parts():
    assert read_docstring(DOCSTRING) == ClaimText(
        "One head leads its layer.",
        "mean change of LD.",
        "above the floor.",
        "below it.",
        "rescue, specificity",
    )


@pytest.mark.parametrize(
    ("docstring", "complaint"),
    [
        (None, "lacks a first paragraph"),
        ("\n\nEstimator: mean.", "lacks a first paragraph"),
        (DOCSTRING.replace("Threshold:", "Estimator:"), "two lines 'Estimator:'"),
        (DOCSTRING.replace("rescue", "resuce"), "'Audit:' names 'resuce'; it may name planted"),
        (DOCSTRING.replace("rescue", "error rate"), "'Audit:' names 'error rate'"),
    ],
)
def test_incomplete_docstring_is_refused(docstring, complaint):
    with pytest.raises(ValueError, match=complaint):
        read_docstring(docstring)


def test_claim_ids_match_exactly_or_at_a_dot():
    assert matches_claim("H1", "H1.1") and matches_claim("H1.1", "H1.1")
    assert matches_claim("H1.", "H1.10")
    assert not matches_claim("H1.1", "H1.10")
    assert not matches_claim("H", "H1.1")
    assert wanted_ids(["H1.1,V", " H2 "]) == ["H1.1", "V", "H2"]


@pytest.fixture
def ledger(suite):
    suite.claims(
        "test_heads",
        suite.claim("H1.1", "test_leads"),
        suite.claim("H1.10", "test_follows"),
        suite.claim("H1.3", "test_agrees", arguments="model, judge, verdict"),
    )
    suite.claims("test_validity", suite.claim("V.1", "test_competent"))
    return suite


def collected(suite, *arguments):
    result = suite.run("claims", "--collect-only", "-q", *arguments)
    return [line.split("::")[1] for line in result.outlines if "::" in line]


def test_every_cell_has_a_readable_id_and_options_only_deselect(ledger):
    every = collected(ledger)
    assert len(every) == 3 * (3 * 4 + 1)
    # By model, then condition, then as written: a model is never left and come back to.
    assert every[:3] == [
        "test_leads[tiny-gpt2-facts]",
        "test_follows[tiny-gpt2-facts]",
        "test_competent[tiny-gpt2-facts]",
    ]
    assert every[12] == "test_agrees[tiny-gpt2]"
    assert collected(ledger, "-k", "gpt2 and facts", "--claim", "H1.1") == [
        "test_leads[tiny-gpt2-facts]",
        "test_leads[tiny-gpt2-plain-facts]",
    ]
    assert {name.split("[")[1] for name in collected(ledger, "-k", "gpt2 and facts")} == {
        "tiny-gpt2-facts]",
        "tiny-gpt2-plain-facts]",
    }
    assert len(collected(ledger, "-k", "mistral")) == 13
    chosen = {name.split("[")[0] for name in collected(ledger, "--claim", "H1.1,V")}
    assert chosen == {"test_leads", "test_competent"}
    assert len(collected(ledger, "--claim", "H1", "--claim", "V")) == len(every)


@pytest.mark.parametrize("workers", [(), ("-n", "2")])
def test_unknown_claim_is_a_usage_error_that_names_the_known(ledger, workers):
    result = ledger.run("claims", "--claim", "H1.2", *workers)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    text = "\n".join(result.outlines + result.errlines)
    assert "--claim H1.2: no such claim" in text
    assert "Known here: V.1, H1.1, H1.3, H1.10" in text


@pytest.mark.parametrize("workers", [(), ("-n", "2")])
def test_a_session_that_runs_can_be_ended_with_a_usage_error(suite, workers):
    """As for a device that turns out not to be there: no further cell is begun."""
    body = (
        "from tinyablation.plugin.selection import end; "
        "end(request.session, 'no such device'); 1 / 0"
    )
    suite.claims("test_heads", suite.claim(body=body, arguments="model, condition, judge, request"))
    result = suite.run("claims", *workers)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    text = result.stdout.str()
    assert text.count("ERROR: no such device") == 1
    assert "selected tests did not run" in text and "reports lost" not in text
    assert len(suite.loads()) <= max(1, len(workers))


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('@pytest.mark.claim("H1.1")', "", "exactly one marker"),
        ('@pytest.mark.claim("H1.1")', '@pytest.mark.claim("A")\n' * 2, "this has 2"),
        ('@pytest.mark.claim("H1.1")', "@pytest.mark.claim(1)", "takes one id"),
        ('@pytest.mark.claim("H1.1")', '@pytest.mark.claim("first")', "is not a claim id"),
        ('"H1.1")', '"H1.1", model="tiny-gpt2")', "did you mean 'models'"),
        ('"H1.1")', '"H1.1", conditions=[])', "conditions=[[]] of its claim marker"),
        (
            '"H1.1")',
            '"H1.1", models="tiny-gtp2")',
            "no model 'tiny-gtp2'; did you mean",
        ),
        ('"H1.1")', '"H1.1", conditions="fact")', "no condition 'fact'; did you mean 'facts'"),
        ("The sentence of H1.1.", "", "lacks a first paragraph"),
    ],
)
def test_claim_without_marker_or_sentence_is_a_collection_error(suite, old, new, complaint):
    suite.claims("test_heads", suite.claim().replace(old, new))
    result = suite.run("claims", "--collect-only")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines([f"*test_heads.py: test_it_holds: *{complaint}*"])


def test_a_mark_says_of_which_models_and_under_which_conditions(suite):
    limited = suite.claim().replace(
        '"H1.1")', '"H1.1", models=["tiny-mistral", "tiny-gpt2"], conditions="logic")'
    )
    suite.claims("test_heads", limited, suite.claim("V.1", "test_valid"))
    every = collected(suite)
    assert len(every) == 2 + 3 * 4
    names = {name for name in every if "test_it_holds" in name}
    assert {name.partition("[")[2] for name in names} == {"tiny-gpt2-logic]", "tiny-mistral-logic]"}
    assert len(collected(suite, "--model", "tiny-gpt2")) == 1 + 4


def test_a_sentence_is_enough(suite):
    text = suite.claim()
    start, end = text.index("    Estimator"), text.rindex('    """')
    suite.claims("test_heads", text[:start].rstrip() + "\n" + text[end:])
    assert suite.run("claims", "-k", "tiny-mistral and facts").ret == 0
    (record,) = suite.records().values()
    assert record["statement"] == "The sentence of H1.1."
    assert record["estimator"] == record["threshold"] == record["refuted_if"] == ""
    assert "Estimator" not in (suite.root / "reports" / "claims.html").read_text()


def test_options_have_help(suite):
    text = "\n".join(suite.run("--help").outlines)
    assert "tinyablation:" in text
    for option in (
        "--claim=ID",
        "--model=ID_OR_PATH",
        "--revision=REV",
        "--require-models",
        "--device=NAME",
        "--dtype={auto,float32,bfloat16,float16}",
        "--reports=DIR",
        "--seed=N",
        "--protocol={corrected,published}",
    ):
        assert option in text


ROOT = Path(__file__).parents[2]
HEAVY = (
    "torch",
    "transformers",
    "transformer_lens",
    "huggingface_hub",
    "pandas",
    "scipy",
    "pyarrow",
    "matplotlib",
    "sklearn",
    "hypothesis",
)


def test_collection_is_light(ledger):
    """No heavy import; how long it takes is a matter of benchmarks/startup.py."""
    ledger.write(
        "collect.py",
        "import sys, pytest\n"
        "code = pytest.main(['claims', '--collect-only', '-q'])\n"
        f"print('heavy:', [name for name in {HEAVY} if name in sys.modules], int(code))\n",
    )
    assert ledger.pytester.run(sys.executable, "collect.py").outlines[-1] == "heavy: [] 0"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        pytest.param(["-m", "hub"], marks=pytest.mark.slow),
        pytest.param(["-k", "mistral or pythia"], marks=pytest.mark.slow),
    ],
)
def test_the_claims_themselves_are_light(arguments):
    """The real claims/ import nothing heavy either, whatever models are named."""
    code = (
        "import sys, pytest\n"
        f"code = pytest.main(['claims', '--collect-only', '-q', *{arguments}])\n"
        f"print('heavy:', [name for name in {HEAVY} if name in sys.modules], int(code))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout.splitlines()[-1] == "heavy: [] 0", result.stdout[-2000:] + result.stderr
