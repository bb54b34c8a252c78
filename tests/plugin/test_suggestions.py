"""Slips of the pen on the command line: said first and alone, with what was probably meant.

Run: pytest tests/plugin/test_suggestions.py
"""

import json

import pytest

from tinyablation.plugin.suggestions import LIKE, nothing_matches, slip_of, written

pytest_plugins = ["pytester"]

USAGE = pytest.ExitCode.USAGE_ERROR
IDS = ("tiny-gpt2", "tiny-gpt2-plain", "mistral-7b")


@pytest.mark.parametrize(
    ("word", "known", "expected"),
    [
        ("facst", ["facts", "logic"], "facts"),
        ("Tiny-GTP2", IDS, "tiny-gpt2"),
        ("mistral-7b-v0.1", IDS, "mistral-7b"),
        ("gpt2-foo", ("gpt2", "gpt2-xl", "gpt2-large"), None),
        ("distilgpt2", ("gpt2", "tiny-gpt2"), None),
        ("fac", ["facts"], None),
        ("facts", [], None),
    ],
)
def test_a_slip_is_two_letters_of_ten(word, known, expected):
    assert slip_of(word, known) == expected


def test_what_matches_nothing_is_told_by_the_nearest_name_or_by_all():
    tests = ["test_trio_raises_ld"]
    assert slip_of("gpt2plane", IDS, LIKE) == "tiny-gpt2-plain"
    for word, end in (
        ("H1.1", "matches no test case. A claim is chosen by its id: --claim H1.1"),
        ("gpt2plane", "matches no test case. Did you mean tiny-gpt2-plain?"),
        ("trios", "matches no test case. Did you mean trio?"),
    ):
        assert nothing_matches(word, [word], tests, IDS) == f"-k {word}: {end}"
    said = nothing_matches("a and xyzzy", ["xyzzy"], tests, IDS)
    assert (
        "nothing is called xyzzy. It selects by parts of names: of models, conditions (tiny-gpt2"
        in said
    )


def test_claims_are_read_without_importing_them(tmp_path):
    (tmp_path / "test_a.py").write_text(
        'import nowhere\n@pytest.mark.claim("H1.1")\ndef test_it():\n    pass\n'
    )
    found = written(tmp_path)
    assert found.claims == {"H1.1"} and found.tests == ("test_it",)
    assert "test_a.py" in found.text and "nowhere" in found.text
    # Where an id is not literal, nobody can say that another is none.
    (tmp_path / "test_b.py").write_text("@pytest.mark.claim(NAME)\ndef test_b():\n    pass\n")
    assert written(tmp_path).claims is None
    (tmp_path / "test_b.py").write_text("def (\n")
    assert written(tmp_path).claims is None


@pytest.fixture
def models(suite):
    suite.models("tiny-gpt2", "tiny-mistral", hub=["gpt2"])
    suite.claims(
        "test_heads",
        suite.claim("H1.1", "test_leads"),
        suite.claim("H1.3", "test_agrees", arguments="model, judge, verdict"),
    )
    return suite


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--claim", "H1.11"], "ERROR: --claim H1.11: no such claim. Did you mean H1.1? Known"),
        (["--model", "tiny-gtp2"], "ERROR: --model tiny-gtp2: no model has this id"),
        (["-k", "facst"], "ERROR: -k facst: nothing is called facst. Did you mean facts?"),
        (["-k", "gpt2 and facst"], "ERROR: -k gpt2 and facst: nothing is called facst."),
        (["-k", "not facts and lgoic"], "nothing is called lgoic. Did you mean logic?"),
    ],
)
@pytest.mark.parametrize("workers", [[], ["-n", "2"]])
def test_a_slip_is_said_first_and_alone(models, arguments, said, workers):
    result = models.run("claims", *arguments, *workers)
    assert result.ret == USAGE
    assert said in result.stderr.str()
    assert not result.stdout.str().strip()  # no header, no list of cells, no lost reports


@pytest.mark.parametrize("workers", [[], ["-n", "2"]])
def test_what_is_close_to_nothing_is_told_once_everything_is_collected(models, workers):
    result = models.run("claims", "-k", "xyzzy", *workers)
    assert result.ret == USAGE
    text = result.stdout.str() + result.stderr.str()
    assert text.count("ERROR: -k xyzzy: matches no test case, and nothing is called xyzzy") == 1
    assert "reports lost" not in text


@pytest.mark.parametrize(
    ("arguments", "cells"),
    [
        (["-k", "facst or logic"], 2),  # selects something
        (["-k", "not facst"], 10),
        (["-k", "lead and gpt2-logic"], 1),  # across model and condition
        (["-k", "test_heads"], 10),
        (["--condition", "ioi=ioi.jsonl", "-k", "tiny-gpt2 and ioi"], 1),  # one's own
        (["--model", "gpt2-foo"], 5),  # an unusual id of the hub is asked for there
        (["--claim", "H1.1,H1.3", "-k", "tiny-gpt2-facts"], 1),  # one of them has no conditions
    ],
)
def test_what_is_no_slip_passes(models, arguments, cells):
    line = {"clean": "a", "corrupt": "b", "target": " c", "foil": " d"}
    models.write("ioi.jsonl", json.dumps(line) + "\n")
    result = models.run("claims", "--collect-only", "-q", *arguments)
    assert result.ret == 0, result.stdout.str() + result.stderr.str()
    assert sum("::" in line for line in result.outlines) == cells


def test_a_name_of_a_claims_own_making_is_no_slip(models):
    """It is written in claims/, or nowhere: then collection decides."""
    arguments = "model, condition, judge, verdict, flavour"
    claim = models.claim("H1.2", "test_flavours", arguments=arguments)
    flavours = '\n@pytest.mark.parametrize("flavour", ["fact", "facto", "f" + "acst"])'
    models.claims("test_more", flavours + claim)
    for word, cells in (("facto", 8), ("facst", 0)):
        result = models.run("claims", "--collect-only", "-q", "-k", word)
        assert sum("::" in line for line in result.outlines) == cells


def test_other_tests_have_names_of_their_own(models):
    models.write("tests/test_it.py", "def test_facst(): pass\n")
    models.run("tests", "-k", "facst").assert_outcomes(passed=1)
    models.run(".", "-k", "facst").assert_outcomes(passed=1)
