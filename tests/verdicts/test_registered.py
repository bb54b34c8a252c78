"""Predictions, subjects and published figures: read, matched, refused. Run:
pytest tests/verdicts/test_registered.py
"""

import subprocess
import sys
from pathlib import Path

import pytest

from tinyablation.heads import Head
from tinyablation.models.registry import load_registry
from tinyablation.verdicts.registered import (
    ExpectationError,
    Prediction,
    load_predictions,
    load_published,
    load_subjects,
)

ROOT = Path(__file__).parents[2]
PUBLISHED = ROOT / "claims" / "published.toml"

SUBJECTS_WITH_ONE_CLAIM = """\
[tiny-llama]
suppressor = "0:0"
source = "planted"
reference = "tiny-gpt2"

[tiny-llama.claims."H1.4"]
suppressor = "0:7"
source = "tiny-gpt2's"
"""

PREDICTIONS = """\
# Registered before the first run.
"H1.1" = { "*-plain" = "refuted", "tiny-neox-logic" = "blocked", "tiny-*" = "supported" }
"H1.3" = { "tiny-gpt2" = { verdict = "inconclusive", reason = "eight heads are few" } }

[registered]
date = 2025-01-31
note = "by hand"
"""


@pytest.fixture
def write(tmp_path):
    def write(text, name="file.toml"):
        path = tmp_path / name
        path.write_bytes(text.encode())
        return path

    return write


# --- predictions ---------------------------------------------------------------------------------


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


# --- subjects ------------------------------------------------------------------------------------


def test_subjects_name_heads_per_model(write):
    text = """\
[tiny-gpt2]
suppressor = "0:5"
trio = ["0:5", "0:1", "0:6"]
source = "planted"

[gpt2-medium]
suppressor = "0:2"
source = "published"
note = "trio 0:2, 0:4, 0:7"
"""
    subjects = load_subjects(write(text), {"tiny-gpt2", "gpt2-medium"})
    subject = subjects.for_model("tiny-gpt2")
    assert subject is not None
    assert subject.suppressor == (0, 5) and subject.suppressor.name == "L0H5"
    assert subject.trio == (Head(0, 5), Head(0, 1), Head(0, 6))
    other = subjects.for_model("gpt2-medium")
    assert other is not None and other.trio == () and other.note
    assert subjects.for_model("tiny-neox") is None


def test_a_claim_may_have_heads_of_its_own(write):
    text = SUBJECTS_WITH_ONE_CLAIM
    subject = load_subjects(write(text), {"tiny-gpt2", "tiny-llama"}).for_model("tiny-llama")
    own = subject.for_claim("H1.4")
    assert own.suppressor == (0, 7) and own.trio == () and own.source == "tiny-gpt2's"
    assert subject.for_claim("H1.1") is subject and subject.suppressor == (0, 0)
    # What is not about heads stays the model's.
    assert own.reference == subject.reference == "tiny-gpt2"


def test_heads_are_those_of_the_model_that_was_loaded(write):
    subjects = load_subjects(write(SUBJECTS_WITH_ONE_CLAIM), {"tiny-gpt2", "tiny-llama"})
    subjects.check_shape("tiny-llama", 2, 8)
    subjects.check_shape("tiny-neox", 1, 1)  # names none
    # 0:7 stands for one claim only.
    with pytest.raises(
        ExpectationError, match=r"file\.toml: model 'tiny-llama' has 2 layers of 7 .* and 0:7 is"
    ):
        subjects.check_shape("tiny-llama", 2, 7)
    text = '[tiny-llama]\nsuppressor = "0:1"\nreceiver = 2\nsource = "planted"\n'
    load_subjects(write(text)).check_shape("tiny-llama", 2, 8)  # the stream before the final norm
    with pytest.raises(ExpectationError, match="and receiver 2 is not among them"):
        load_subjects(write(text)).check_shape("tiny-llama", 1, 8)


def test_a_reference_is_a_registered_model(write):
    with pytest.raises(ExpectationError, match=r":4: model 'tiny-llama': reference 'tiny-gpt2'"):
        load_subjects(write(SUBJECTS_WITH_ONE_CLAIM), {"tiny-gpt", "tiny-llama"})


def test_the_subjects_of_this_project_are_of_its_models():
    models = load_registry(ROOT / "fixtures" / "models.toml").ids
    subjects = load_subjects(ROOT / "claims" / "subjects.toml", models).subjects
    references = {model: subject.reference for model, subject in subjects.items()}
    assert set(references.values()) == {None, "tiny-llama", "gpt2-medium"}
    assert references["tiny-llama"] is None and references["gpt2-medium"] is None
    # An embedded model is never compared with one that may not be there.
    assert all(
        (reference == "gpt2-medium") <= (not model.startswith("tiny-"))
        for model, reference in references.items()
    )
    pair = subjects["mistral-7b"].for_claim("H1.7").pair
    assert pair == (Head(0, 22), Head(0, 23))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('suppressor = "05"', "field 'suppressor': '05' is not a head"),
        ('suppressor = "L0:5"', "field 'suppressor': 'L0:5' is not a head; write it \"L0H5\""),
        ("suppressor = 5", "5 is not a head"),
        ('suppressor = "0:-1"', "not a head"),
        (
            'suppressor = "0:5"\ntrio = ["0:5", "0:5", "0:1"]',
            "three distinct heads, not 2",
        ),
        ('suppressor = "0:5"\ntrio = ["0:5", "0:1"]', "three distinct heads"),
        (
            'suppressor = "0:5"\ntrio = ["0:2", "0:3", "0:1"]',
            "must contain the suppressor 0:5",
        ),
        ('suppressor = "0:5"\ntrio = ["0:5", "x", "0:1"]', "field 'trio.1'"),
        ('supressor = "0:5"', "unknown key 'supressor'; did you mean 'suppressor'"),
        ("", "field 'suppressor': Field required"),
    ],
)
def test_a_wrong_subject_is_refused_with_its_place(write, body, message):
    with pytest.raises(ExpectationError, match=message) as caught:
        load_subjects(write(f'# a\n[tiny-gpt2]\n{body}\nsource = "planted"\n'))
    assert "file.toml:2: model 'tiny-gpt2'" in str(caught.value)


def test_a_subject_of_no_registered_model_is_refused(write):
    path = write('[tiny-gtp2]\nsuppressor = "0:5"\nsource = "planted"\n')
    with pytest.raises(ExpectationError, match="file.toml:1: 'tiny-gtp2'.*mean 'tiny-gpt2'"):
        load_subjects(path, ["tiny-neox", "tiny-gpt2"])
    with pytest.raises(ExpectationError, match="must be a table"):
        load_subjects(write("tiny-gpt2 = 1"), ["tiny-gpt2"])


# --- published figures ---------------------------------------------------------------------------

FIGURE = {
    "claim": '"H1.1"',
    "model": '"gpt2-medium"',
    "condition": '"facts"',
    "value": "0.265",
    "unit": '"logits"',
    "source": '"a study"',
}


def figure(**changes):
    fields = FIGURE | changes
    lines = [f"{key} = {value}" for key, value in fields.items() if value is not None]
    return "\n".join(["[[figure]]", *lines, ""])


def test_published_figures_are_numbers_or_text_in_file_order(write):
    text = figure() + figure(value='"+.38 on one text"', condition='"all"') + figure(claim='"H1.2"')
    published = load_published(write(text))
    assert [entry.value for entry in published.for_claim("H1.1")] == [
        0.265,
        "+.38 on one text",
    ]
    assert [entry.claim for entry in published.for_claim("H1.2")] == ["H1.2"]
    assert published.for_claim("H5.1") == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            figure() + figure(sorce='"x"'),
            "file.toml:8: figure 2: unknown key 'sorce'.*'source'",
        ),
        (figure(unit=None), "field 'unit': Field required"),
        (figure(value="nan"), "finite"),
        (figure(low="0.1"), "an interval has two ends"),
        (figure(low="0.3", high="0.4"), r"0.265 is not in its interval \[0.3, 0.4\]"),
        (figure(value='"up"', low="0.3", high="0.4"), "text has no interval"),
        (figure(low='"0.1"', high="0.4"), "field 'low'"),
        (figure(quantity='""'), "field 'quantity'"),
        (figure(quantiy='"x"'), "'quantiy'; did you mean 'quantity'"),
        (figure(value="true"), "field 'value"),
        (figure(condition='"fact"'), "'fact' is not a condition; did you mean 'facts'"),
        (figure(claim='"H1"'), "'H1' is not a claim id"),
        (figure(source='""'), "field 'source'"),
        ("[figure]\nclaim = 'H1.1'", r"write \[\[figure\]\]"),
        ("figure = [1]", "must be a table"),
        (
            '# a\nfigure = [\n  { claim = "H1.1" },\n]',
            "file.toml:3: figure 1: field 'model'",
        ),
        ("[[figures]]\nclaim = 'H1.1'", "unknown key 'figures'; did you mean 'figure'"),
    ],
)
def test_a_wrong_figure_is_refused_with_its_place(write, text, message):
    with pytest.raises(ExpectationError, match=message):
        load_published(write(text))


def test_an_interval_and_a_quantity_are_optional(write):
    text = figure() + figure(low="0.2", high="0.3", quantity='"effects/0:4"')
    first, second = load_published(write(text)).figures
    assert (first.low, first.high, first.quantity) == (None, None, "effect")
    assert (second.low, second.high, second.quantity) == (0.2, 0.3, "effects/0:4")


def test_the_figures_of_the_project_can_be_read():
    published = load_published(PUBLISHED)
    leading = {
        entry.condition: entry.value
        for entry in published.for_claim("H1.1")
        if entry.quantity == "effect"
    }
    assert leading == {"facts": 0.265, "negation": 0.514, "counterfactual": 0.417, "logic": 0.44}
    assert {entry.claim for entry in published.figures} == {
        *(f"H1.{number}" for number in range(1, 10)),
        *(
            f"H5.{number}" for number in (1, 2, 3, 4, 5, 7, 8, 9)
        ),  # H5.6 is the study's null, in H1.8
        *(f"H6.{number}" for number in range(1, 5)),
        *(f"OV.{number}" for number in range(1, 4)),
        *(f"G.{number}" for number in range(1, 4)),
        *("K.1", "S.1", "B.1", "B.2", "D.1"),
    }
    bootstrap = [e for e in published.for_claim("H5.1") if e.low is not None]
    assert [(e.value, e.low, e.high) for e in bootstrap[:1]] == [(0.376, 0.296, 0.459)]
    assert len(bootstrap) == 4
    keys = [
        (e.claim, e.model, e.condition, e.quantity, e.value, e.source) for e in published.figures
    ]
    assert len(set(keys)) == len(keys)


# --- cost ----------------------------------------------------------------------------------------


def test_expectations_import_nothing_heavy():
    code = """
import sys, tinyablation.verdicts.registered
print([name for name in ("numpy", "scipy", "pandas", "torch") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
