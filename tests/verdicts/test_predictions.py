"""Predictions: read, matched, refused. Run: pytest tests/verdicts/test_predictions.py"""

from pathlib import Path

import pytest

from tinyablation.verdicts.expectations import ExpectationError
from tinyablation.verdicts.predictions import Prediction, load_predictions
from tinyablation.verdicts.published import load_published
from tinyablation.verdicts.subjects import load_subjects

ROOT = Path(__file__).parents[2]
PUBLISHED = ROOT / "claims" / "suppressors" / "published.toml"


PREDICTIONS = """\
# Registered before the first run.
"H1.1" = { "*-plain" = "refuted", "tiny-neox-logic" = "blocked", "tiny-*" = "supported" }
"H1.3" = { "tiny-gpt2" = { verdict = "inconclusive", reason = "eight heads are few" } }

[registered]
date = 2025-01-31
note = "by hand"
"""


@pytest.mark.parametrize(
    ("name", "among", "verdict"),
    [
        ("tiny-gpt2-plain", "facts", "refuted"),
        ("tiny-gpt2-plain", None, "refuted"),
        ("tiny-gpt2", "facts", "supported"),
        ("tiny-neox", "logic", "blocked"),
        ("tiny-neox", "facts", "supported"),
        ("tiny-neox-plain", "logic", "refuted"),
        ("gpt2-medium", "facts", None),
    ],
)
def test_the_first_pattern_that_matches_cell_or_model_decides(write, name, among, verdict):
    prediction = load_predictions(write(PREDICTIONS)).for_cell("H1.1", name, among)
    assert (prediction and prediction.verdict) == verdict


def test_a_reason_comes_along_and_a_claim_over_all_conditions_goes_by_the_model(write):
    predictions = load_predictions(write(PREDICTIONS))
    expected = Prediction("inconclusive", "eight heads are few", "2025-01-31")
    assert predictions.for_cell("H1.3", "tiny-gpt2", None) == expected
    assert predictions.for_cell("H1.3", "tiny-gpt2", "all") == expected
    assert predictions.for_cell("H1.2", "tiny-gpt2", None) is None
    assert predictions.registered == {"date": "2025-01-31", "note": "by hand"}


def test_patterns_that_decide_nothing_are_named_also_when_an_earlier_one_shadows_them(
    write,
):
    text = '"H1.1" = { "tiny-*" = "supported", "*-plain" = "refuted", "gpt3" = "refuted" }\n'
    predictions = load_predictions(write(text + '"H9.9" = { "*" = "refuted" }'))
    cells = [("H1.1", "tiny-gpt2", "facts"), ("H1.1", "tiny-gpt2-plain", "facts")]
    assert predictions.unused(cells) == [
        ("H1.1", "*-plain"),
        ("H1.1", "gpt3"),
        ("H9.9", "*"),
    ]
    whole = load_predictions(write('"H1.1" = { "*-plain" = "refuted", "tiny-*" = "supported" }'))
    assert whole.unused(cells) == []


def test_the_hash_is_of_what_is_registered_not_of_how_it_is_written(write):
    def hashed(text):
        return load_predictions(write(text)).content_hash

    claims, registered = PREDICTIONS.split("\n\n")
    original = hashed(PREDICTIONS)
    first, *rest = claims.splitlines()[1:]
    assert hashed(PREDICTIONS.replace("\n", "\r\n")) == original
    assert hashed(PREDICTIONS.replace("# Registered", "# Written")) == original
    assert hashed("\n".join([*rest, first, registered])) == original
    assert hashed(PREDICTIONS.replace('"blocked"', '"refuted"')) != original
    assert hashed(PREDICTIONS.replace("2025", "2024")) != original
    swapped = '"H1.1" = { "tiny-*" = "supported", "*-plain" = "refuted" }'
    assert hashed(swapped) != hashed('"H1.1" = { "*-plain" = "refuted", "tiny-*" = "supported" }')
    assert len(original) == 64


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '# a\n"H1.1" = { "*" = "suported" }',
            r"file.toml:2: claim 'H1.1', '\*': 'suported' is no",
        ),
        ('"H1.1" = { "*" = "suported" }', "did you mean 'supported'"),
        ('"H1.1" = { "*" = 1 }', "1 is not a verdict; known: supported, present, refuted"),
        ('"H1.1" = { "*" = { reason = "x" } }', "no verdict; known"),
        (
            '"H1.1" = { "*" = { verdict = "refuted", reson = "x" } }',
            "'reson'; did you mean 'reason'",
        ),
        (
            '"H1.1" = { "*" = { verdict = "refuted", reason = 1 } }',
            "reason 1 is not text",
        ),
        ('"H1.1" = { "a b" = "refuted" }', "'a b' is not a pattern"),
        ('"H1.1" = { "*" = "refuted", "*" = "supported" }', "not valid TOML.*line 1"),
        (
            '"H1.1" = { "*" = "refuted" }\n"H1.1" = { "*" = "refuted" }',
            "not valid TOML: Cannot overwrite",
        ),
        ('"H1.1" = "refuted"', "give its patterns"),
        ('"H1.1" = {}', "give its patterns"),
        ('"h1-1" = { "*" = "refuted" }', "file.toml:1: 'h1-1' is not a claim id"),
        ('H1.1 = { "*" = "refuted" }', "'H1' is not a claim id; write it quoted"),
        (
            '[registered]\n"H1.1" = { "*" = "refuted" }',
            r"put \[registered\] at the end",
        ),
        ("[registered]\ndat = 2025-01-31", "'dat'; did you mean 'date'"),
        ('[registered]\ndate = "today"', "write it bare"),
        ("[registered]\nnote = 1", "note 1 is not text"),
        ("registered = 1", "must be a table"),
        ("[registered.group]\ndate = 2025-01-31", "two brackets"),
        ('[[registered.group]]\nmodels = ["a"]', r"\[registered\]: group 1: field 'date'"),
        ("[[registered.group]]\ndate = 2025-01-31\nmodels = []", "group 1: field 'models'"),
        ("[[registered.group]]\ndat = 2025-01-31", "'dat'; did you mean 'date'"),
    ],
)
def test_a_wrong_prediction_is_refused_with_its_place(write, text, message):
    with pytest.raises(ExpectationError, match=message) as caught:
        load_predictions(write(text))
    assert "file.toml" in str(caught.value)


GROUPS = """
"H1.1" = { "fresh-*" = "supported", "tiny-*" = "refuted" }
"H1.2" = { "fresh-*" = "supported", "tiny-*" = "present" }

[registered]
date = 2025-01-31

[[registered.group]]
date = 2025-02-01
models = ["fresh-*"]
elsewhere = true

[[registered.group]]
date = 2025-03-01
models = ["tiny-*"]
claims = ["H1.2"]
"""


def test_predictions_of_another_day_say_so(write):
    predictions = load_predictions(write(GROUPS))
    found = {
        (claim, model): predictions.for_cell(claim, model, "facts").date
        for claim in ("H1.1", "H1.2")
        for model in ("fresh-gpt2", "tiny-gpt2")
    }
    assert found == {
        ("H1.1", "fresh-gpt2"): "2025-02-01",
        ("H1.2", "fresh-gpt2"): "2025-02-01",
        ("H1.1", "tiny-gpt2"): "2025-01-31",
        ("H1.2", "tiny-gpt2"): "2025-03-01",
    }
    assert predictions.for_cell("H1.2", "tiny-gpt2", "facts").verdict == "present"
    assert predictions.is_elsewhere("H1.1", "fresh-*")
    assert not predictions.is_elsewhere("H1.1", "tiny-*")
    assert not predictions.is_elsewhere("H1.2", "tiny-*")  # its group is of this project
    two = load_predictions(write(GROUPS.replace('["fresh-*"]', '["other-*", "fresh-*"]')))
    assert two.for_cell("H1.1", "fresh-gpt2", "facts").date == "2025-02-01"
    # Of two groups that a prediction is of, the first says when.
    both = load_predictions(write(GROUPS.replace('models = ["tiny-*"]', 'models = ["*"]')))
    assert both.for_cell("H1.2", "fresh-gpt2", "facts").date == "2025-02-01"
    later = load_predictions(write(GROUPS.replace("2025-02-01", "2025-02-02")))
    assert later.content_hash != predictions.content_hash, "a date is part of what is registered"


def test_a_pattern_on_a_line_of_its_own_is_named_by_that_line(write):
    text = '["H1.1"]\n"tiny-*" = "supported"\n\n["H1.2"]\n"*-plain" = "refuted"\n"tiny-*" = "yes"\n'
    with pytest.raises(ExpectationError, match=r"file.toml:6: claim 'H1.2', 'tiny-\*': 'yes'"):
        load_predictions(write(text))


@pytest.mark.parametrize("load", [load_predictions, load_subjects, load_published])
def test_a_file_that_cannot_be_read_is_named(tmp_path, load):
    with pytest.raises(ExpectationError, match=r"absent.toml: cannot be read \(No such file"):
        load(tmp_path / "absent.toml")
    (tmp_path / "latin.toml").write_bytes(b"note = '\xe9'")
    with pytest.raises(ExpectationError, match="latin.toml: not UTF-8"):
        load(tmp_path / "latin.toml")
