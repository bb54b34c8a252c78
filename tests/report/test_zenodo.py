"""Metadata for Zenodo: what its documentation requires is there, and its HTML holds no text's tags.

Run: pytest tests/report/test_zenodo.py
"""

import json
from html.parser import HTMLParser

import jsonschema
import pytest

from tests.fake_sessions import HOSTILE, fake_session
from tests.sessions.test_drift import cell, session
from tinyablation.report.zenodo import zenodo

# The required fields of a deposit but publication_date (Zenodo takes the day itself), and the types
# and vocabularies of those that are written: developers.zenodo.org, "Deposit metadata".
TEXT = {"type": "string", "minLength": 1}
DOCUMENTED = {
    "type": "object",
    "required": ["upload_type", "title", "creators", "description", "access_right", "license"],
    "additionalProperties": False,
    "properties": {
        "title": TEXT,
        "upload_type": {
            "enum": [
                *("publication", "poster", "presentation", "dataset", "image", "video"),
                *("software", "lesson", "physicalobject", "other"),
            ]
        },
        "description": TEXT,
        "creators": {
            "type": "array",
            "minItems": 1,
            "uniqueItems": True,
            "items": {
                "type": "object",
                "required": ["name"],
                "additionalProperties": False,
                "properties": {"name": TEXT, "affiliation": TEXT, "orcid": TEXT, "gnd": TEXT},
            },
        },
        "access_right": {"enum": ["open", "embargoed", "restricted", "closed"]},
        "license": TEXT,
        "keywords": {"type": "array", "items": TEXT, "uniqueItems": True},
        "notes": TEXT,
        "language": {"type": "string", "pattern": "^[a-z]{3}$"},
    },
}


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.texts = [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        assert not attributes
        self.tags.append(tag)

    def handle_data(self, data):
        self.texts.append(data)


def made(file, **options):
    found = zenodo(file, **{"creators": ["Doe, Jane"], "licence": "CC-BY-4.0"} | options)
    jsonschema.validate(found, DOCUMENTED)
    return found


def test_a_session_is_described_with_what_zenodo_requires():
    file = session(cell(), cell(condition="logic"), cell("other", verdict="refuted"))
    found = made(file, creators=["Doe, Jane", "A Lab", "A  Lab"])
    assert [each["name"] for each in found["creators"]] == ["Doe, Jane", "A Lab"]
    assert found["title"] == "Claims about language models, tested: gpt2, other (2025-03-01)"
    assert Tags(found["description"]).texts[-2:] == [
        *("gpt2 (gpt2): 2 supported", "other (other): 1 refuted"),
    ]
    assert file.session.predictions_hash in found["notes"]


def test_a_title_names_few_models():
    assert made(session(cell("pytest")))["keywords"].count("pytest") == 1
    assert "tested: 8 models (" in made(fake_session())["title"]


def test_a_field_that_zenodo_requires_is_missed():
    with pytest.raises(jsonschema.ValidationError, match="creators"):
        made(session(cell()), creators=[])


def test_what_others_wrote_is_text():
    bad = f'{HOSTILE}"&\n\u202e'
    file = session(cell(bad), hashes={bad: None}, command=bad, device=bad, predictions_hash=bad)
    found = made(file, creators=[bad])
    assert Tags(found["description"]).tags == ["p", "p", "ul", "li"]
    assert Tags(found["notes"]).tags == []
    assert HOSTILE in "".join(Tags(found["description"]).texts)
    assert "\u202e" not in json.dumps(found, ensure_ascii=False)
