"""What could not be judged, at the end of a session: by reason, with a remedy, and when it fails.

Run: pytest tests/plugin/test_blocked_cells.py
"""

import ast
import re
from pathlib import Path

import pytest

from tests.plugin.conftest import CLAIMS_CONFTEST
from tinyablation.plugin.blocked_cells import KINDS, groups, kind_of, lines_of, unjudged

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[2]


def record(reason, model="mine", condition="facts", verdict="blocked", claim="H1.1"):
    return {
        "claim": claim,
        "family": claim.partition(".")[0],
        "model": model,
        "condition": condition,
        "verdict": verdict,
        "reason": reason,
    }


def shown(*records, asked=None):
    return [line for group in groups(records) for line in lines_of(group, asked or {})]


def test_cells_of_one_reason_are_one_group_with_its_remedy():
    records = [record("facts is not valid for mine: accuracy 0.5") for _ in range(3)]
    supported = record("", verdict="supported")
    assert shown(*records, supported, asked={"mine": "./models/mine"}) == [
        "3 test cases of mine are blocked: facts is not valid for mine: accuracy 0.5",
        "    `python -m tinyablation check ./models/mine` shows what it knows, without a sweep",
    ]


def test_reasons_of_one_kind_are_one_group_that_lists_them():
    records = [
        record(f"{name} is not valid for mine: accuracy 0.{number}", condition=name)
        for name, number in (("facts", 5), ("logic", 6), ("logic", 6))
    ]
    assert shown(*records)[:3] == [
        "3 test cases of mine are blocked: the condition is not valid for the model",
        "    2: logic is not valid for mine: accuracy 0.6",
        "    1: facts is not valid for mine: accuracy 0.5",
    ]


def test_models_conditions_heads_and_figures_are_folded_where_nothing_else_differs():
    reasons = {
        "a": "odd: a on facts, head 0:7, is -1.5e-05 short",
        "b-2": "odd: b-2 on logic, head 1:12, is 3 short",
    }
    records = [
        record(reason, model, condition)
        for (model, reason), condition in zip(reasons.items(), ("facts", "logic"), strict=True)
    ]
    assert shown(*records) == [
        "2 test cases of a, b-2 are blocked: odd: the model on the condition, head …, is … short",
        "    1: odd: a on facts, head L0H7, is -1.5e-05 short",
        "    1: odd: b-2 on logic, head L1H12, is 3 short",
    ]
    # What has no kind says itself what to do.
    assert shown(record("m: put it there")) == ["1 test case of mine is blocked: m: put it there"]


def test_findings_are_not_listed_one_by_one():
    records = [record(f"share of 0:{n}: there is no effect to take a share of") for n in range(9)]
    first, second = shown(*records)
    assert first.startswith(
        "9 test cases of mine are blocked: there is no effect to take a share of"
    )
    assert second.strip() == "nothing to do: this is a finding about the model"


def test_the_largest_group_comes_first_and_many_models_are_counted():
    many = [record(f"no checkpoints of m{n} are registered", f"m{n}") for n in range(5)]
    lines = shown(record("odd"), *many)
    assert lines[0] == (
        "5 test cases of 5 models (m0, m1, m2, ...) are blocked: no checkpoints are registered"
    )
    assert lines[-1] == "1 test case of mine is blocked: odd"


def test_a_model_is_unjudged_where_all_but_its_validity_is_blocked():
    blocked, judged = record("no"), record("", verdict="refuted")
    valid = record("", verdict="refuted", claim="V.1")
    assert unjudged([blocked, blocked, valid]) == {"mine": 2}
    assert unjudged([blocked, judged]) == unjudged([valid]) == unjudged([]) == {}
    assert unjudged([record("", model="", claim="X.1")]) == {}
    other = record("", "other", verdict="supported")
    assert unjudged([blocked, other]) == {"mine": 1}


def texts_of_blocked():
    """The reasons of all calls of blocked(), with "…" for what is put in."""
    for folder in ("fixtures", "claims", "tinyablation"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "blocked":
                    yield path.name, _text(node.args[0])


def _text(node):
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) for part in node.values)
    return "…"


# Handed on from what refuses (RatioUndefined, Unbalanced), or said of a claim's own corpus: these
# name their remedy, or are of a kind by what is handed on.
HANDED_ON = ("…", "recovery by …", "the reference: …")
WITHOUT = ("…no example in which …", "the corpus has no null prompts")


def test_every_reason_in_the_code_has_a_remedy_or_says_so_here():
    found = {re.sub(r"(…[ :]*)+$", "…", text): name for name, text in texts_of_blocked()}
    without = {
        text: name
        for text, name in found.items()
        if kind_of(text.replace("…", "1")) is None and text not in (*HANDED_ON, *WITHOUT)
    }
    assert not without, "add a Kind to tinyablation/plugin/blocked_cells.py"


def test_every_kind_is_of_a_reason_that_exists():
    reasons = [text.replace("…", "1") for _, text in texts_of_blocked()]
    reasons += [
        "share of 0:1: the denominator is -1: there is no effect to take a share of",  # ratios.py
        "mine, logic: 3 prompts are left, 200 are wanted",  # filtering.py
        "m, ioi: the tokenizer has words for 3 of 40 clusters, 20 are needed",  # own_conditions.py
        "the tokenizer cuts 3 of 1412 words into 2 to 4 tokens",  # token_sequences.py
        "LD clean - LD corrupt of mine on the aligned pairs of facts",  # measurement_fixtures.py
    ]
    hit = {kind_of(reason) for reason in reasons}
    assert [kind.what for kind in KINDS if kind not in hit] == []


# --- sessions ------------------------------------------------------------------------------------

MODEL = """
from tinyablation.errors import WeightsMissing


@pytest.fixture(scope="session")
def model(request):
    if request.param in ("mistral-7b", "gone"):
        raise WeightsMissing(f"model {request.param!r}: put it there")
    yield request.param
"""
RULES = "judge(verdict('blocked', reason=f'{condition} is not valid for {model}: it guesses'))"


@pytest.fixture
def models(suite):
    suite.models("tiny-gpt2", "tiny-mistral", hub=["mistral-7b"])
    suite.write("claims/conftest.py", CLAIMS_CONFTEST + MODEL)
    body = f"{RULES} if model == 'tiny-gpt2' else judge(verdict())"
    suite.claims("test_heads", suite.claim("H1.1", "test_leads", body))
    suite.claims("test_validity", suite.claim("V.1", "test_competent"))
    suite.accept("--model", "tiny-gpt2", "--model", "tiny-mistral")
    return suite


@pytest.mark.parametrize("workers", [[], ["-n", "2"]])
def test_a_session_ends_with_what_is_blocked_and_what_to_do(models, workers):
    result = models.run("claims", "-k", "facts or logic", *workers)
    assert result.ret == 0
    text = result.stdout.str()
    assert "2 test cases of tiny-gpt2 are blocked: the condition is not valid for the model" in text
    assert "    1: facts is not valid for tiny-gpt2: it guesses" in text
    assert "`python -m tinyablation check tiny-gpt2` shows what it knows" in text
    one = "1 test case of tiny-gpt2 is blocked"
    assert one in models.run("claims", "-q", "-k", "facts", *workers).stdout.str()
    assert "blocked:" not in models.run("claims", "-qq", "-k", "facts").stdout.str()
    assert "blocked:" not in models.run("claims", "--model", "tiny-mistral").stdout.str()


@pytest.mark.parametrize("workers", [[], ["-n", "2"]])
def test_nothing_judged_fails_on_demand(models, workers):
    one = ["claims", "--model", "tiny-gpt2", "-k", "facts", *workers]
    assert models.run(*one).ret == 0
    result = models.run(*one, "--require-valid", "-qq")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    blocked = "its 1 test case is blocked (--require-valid)"
    said = f"ERROR: nothing could be judged of tiny-gpt2: {blocked}"
    assert result.stdout.str().count(said) == 1
    # Of each model by itself; what was judged, and validity alone, is no fault.
    both = models.run("claims", "-k", "facts", "--require-valid", *workers)
    assert both.ret == pytest.ExitCode.TESTS_FAILED and "of tiny-mistral" not in both.stdout.str()
    assert models.run("claims", "--model", "tiny-mistral", "--require-valid").ret == 0
    assert models.run("claims", "--claim", "V", "--require-valid").ret == 0


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--model", "mistral-7b"], 1),
        (["--model", "owner/mistral-7b", "-n", "2"], 1),
        (["--model", "owner/gone", "-qq"], 1),
        (["--model", "tiny-mistral", "--model", "mistral-7b"], 1),
        (["-k", "mistral-7b and facts"], 1),
        (["-k", "MISTRAL-7B"], 1),
        (["claims/test_heads.py::test_leads[mistral-7b-facts]"], 1),
        (["-k", "mistral"], 0),  # a part of its id: what is embedded runs, what is not there is not
        (["-m", "hub"], 0),
        (["-k", "not tiny-gpt2 and facts"], 0),
    ],
)
def test_a_model_that_was_named_and_cannot_be_had_is_never_exit_0(models, arguments, code):
    given = arguments if "::" in arguments[0] else ["claims", *arguments]
    result = models.run(*given)
    name = "gone" if "owner/gone" in arguments else "mistral-7b"
    said = f"ERROR: {name} was named but is not available: model '{name}': put it there"
    assert (result.ret, result.stdout.str().count(said)) == (code, code), result.stdout.str()
    for each in models.records().values():
        if each["model"] == name:
            assert (each["verdict"], each["outcome"]) == ("blocked", "skipped")
