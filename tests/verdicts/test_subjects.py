"""Subjects: read, matched, refused. Run: pytest tests/verdicts/test_subjects.py"""

from pathlib import Path

import pytest

from tinyablation.heads import Head
from tinyablation.models.registry import load_registry
from tinyablation.verdicts.expectations import ExpectationError
from tinyablation.verdicts.subjects import load_subjects

ROOT = Path(__file__).parents[2]
PUBLISHED = ROOT / "claims" / "suppressors" / "published.toml"


SUBJECTS_WITH_ONE_CLAIM = """\
[tiny-llama]
suppressor = "0:0"
source = "planted"
reference = "tiny-gpt2"

[tiny-llama.claims."H1.4"]
suppressor = "0:7"
source = "tiny-gpt2's"
"""


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
    subjects = load_subjects(ROOT / "claims" / "suppressors" / "subjects.toml", models).subjects
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
        ('suppressor = "0:5"\ntrio = ["0:5", "0:5", "0:1", "0:2"]', "three distinct heads"),
        ('suppressor = "0:5"\npair = ["0:5", "0:5"]', "two distinct heads, not 1"),
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
