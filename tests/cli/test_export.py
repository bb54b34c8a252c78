"""The command `export`: recorded results in the formats of those who collect them.

Run: pytest tests/cli/test_export.py
"""

import json

import pytest

from tests.fake_sessions import HOSTILE
from tests.sessions.test_drift import cell, session
from tinyablation.__main__ import main
from tinyablation.records.records import write_records

HASHES = {"gpt2": "a" * 64, "mine": "b" * 64}
EEE = ("--format", "eee", "--creator", "A Lab")


@pytest.fixture
def reports(tmp_path):
    """A session of two models, one of which came from the hub."""
    file = session(cell(), cell("mine"), hashes=HASHES)
    gpt2, mine = file.session.models
    models = [gpt2.model_copy(update={"repo": "openai-community/gpt2"}), mine]
    about = file.session.model_copy(update={"models": models})
    write_records(file.model_copy(update={"session": about}), tmp_path)
    return tmp_path


def test_every_eval_ever_of_one_model(reports, tmp_path, capsys):
    path = tmp_path / "eee.json"
    assert main(["export", str(reports), *EEE, "--model", "gpt2", "-o", str(path)]) == 0
    assert capsys.readouterr().out == f"{path}\n"
    made = json.loads(path.read_text("utf-8"))
    assert made["model_info"]["id"] == "openai-community/gpt2"
    assert made["source_metadata"]["source_organization_name"] == "A Lab"
    assert len(made["evaluation_results"]) == 1


def test_a_model_without_an_organisation_goes_by_its_name(reports, capsys):
    assert main(["export", str(reports), *EEE, "--model", "mine"]) == 0
    assert json.loads(capsys.readouterr().out)["model_info"]["id"] == "mine"


def test_a_model_that_is_called_like_one_of_the_hub_is_not_taken_for_it(tmp_path, capsys):
    """The registry has a gpt2; this one came from elsewhere, and only the session knows."""
    write_records(session(cell()), tmp_path)
    assert main(["export", str(tmp_path), *EEE]) == 0
    assert json.loads(capsys.readouterr().out)["model_info"]["id"] == "gpt2"
    assert main(["export", str(tmp_path), "--format", "model-card"]) == 0
    assert "openai-community" not in capsys.readouterr().out


def test_the_only_model_need_not_be_named(tmp_path, capsys):
    write_records(session(cell(reason=HOSTILE)), tmp_path)
    assert main(["export", str(tmp_path), *EEE]) == 0
    said = capsys.readouterr().out
    assert (
        "<" not in said
        and HOSTILE
        in json.loads(said)["evaluation_results"][0]["score_details"]["details"]["reason"]
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (EEE, "give --model; there are: gpt2, mine"),
        ((*EEE, "--model", "other"), "--model other: no records; there are: gpt2, mine"),
        (("--format", "eee", "--model", "gpt2"), "no record does; give --creator NAME"),
        (("--format", "zenodo"), "no record does; give --creator NAME"),
        (("--format", "zenodo", "--creator", " "), "no record does; give --creator NAME"),
        (("--format", "zenodo", "--creator", "A Lab"), "give --license ID, such as CC-BY-4.0"),
        (("--format", "zenodo", "--model", "gpt2"), "a whole session; leave out --model"),
        ((*EEE, "--model", "gpt2", "-o", "records.json"), "give --force to write over it"),
    ],
)
def test_what_cannot_be_known_is_asked_for(reports, monkeypatch, capsys, options, said):
    monkeypatch.chdir(reports)
    assert main(["export", ".", *options]) == 2
    assert said in capsys.readouterr().err


def test_protocols_are_not_mixed(reports, tmp_path, capsys):
    other = tmp_path / "published"
    other.mkdir()
    write_records(session(cell(protocol="published"), protocol="published"), other)
    assert main(["export", str(reports), str(other), *EEE, "--model", "gpt2"]) == 2
    assert "of both protocols" in capsys.readouterr().err


def test_a_model_card_needs_no_creator(reports, capsys):
    arguments = ["--format", "model-card", "--model", "gpt2"]
    assert main(["export", str(reports), *arguments]) == 0
    said = capsys.readouterr().out
    assert said.startswith("---\nmodel-index:\n- name: openai-community/gpt2\n")
    assert said.endswith("| Claim | facts |\n| --- | --- |\n| H1.1 x | supported |\n")


def test_zenodo_describes_the_session(reports, capsys):
    asked = ["--creator", "Doe, Jane", "A Lab", "--license", "CC-BY-4.0"]
    assert main(["export", str(reports), "--format", "zenodo", *asked]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["creators"] == [{"name": "Doe, Jane"}, {"name": "A Lab"}]
    assert found["license"] == "CC-BY-4.0" and "gpt2, mine" in found["title"]
