"""What is changed in a bundle by somebody who sets every hash right is still found, and named.

The bundle is the one that the project ships. Run: pytest tests/evidence/test_contents.py
"""

import json
import shutil
from pathlib import Path

import pytest

from tests.evidence.forging import forged, recorded, session
from tests.sessions.test_drift import session as drifting
from tinyablation.__main__ import main
from tinyablation.evidence import contents
from tinyablation.evidence.bundle import PAGE
from tinyablation.evidence.contents import measured_runs, of_corpora, of_models, strangers
from tinyablation.evidence.crate import CRATE
from tinyablation.evidence.readme import readme
from tinyablation.evidence.rederivation import Described, Models, placeless
from tinyablation.models.loading import describe
from tinyablation.models.registry import load_registry
from tinyablation.records.records import read_records
from tinyablation.runs.address import ENGINE_VERSION

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "reports" / "smollm2-135m" / "facts.zip"
REGISTRY = load_registry(ROOT / "fixtures" / "models.toml")
F = "f" * 64


def verdict(path: Path, capsys, monkeypatch, *options: str) -> tuple[int, str]:
    """The exit status of `verdict` on a bundle, and what it said."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    try:
        status = main(["verdict", str(path), "--project", str(ROOT), *options])
    except SystemExit as end:
        status = int(end.code or 0)
    said = capsys.readouterr()
    return status, said.out + said.err


def test_the_runs_that_a_session_made_were_finished_in_it(tmp_path):
    times = {
        "before": "2025-03-01T00:59:59+00:00",
        "during": "2025-03-01T03:30:00+02:00",
        "after": "2025-03-01T02:00:01+00:00",
        "nowhere": "2025-03-01T01:30:00",  # no zone: it cannot be compared
        "never": None,
    }
    for name, when in times.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "provenance.json").write_text(json.dumps({"finished": when}))
    (tmp_path / "empty").mkdir()
    began = {"started": "2025-03-01T01:00:00+00:00"}
    whole = drifting(**began, finished="2025-03-01T02:00:00+00:00").session
    assert measured_runs(whole, tmp_path) == ["during"]
    assert measured_runs(drifting(**began).session, tmp_path) == ["after", "during"], "no end"


def beside(name: str, text: str):
    def change(folder: Path) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(path.read_text() + text if path.exists() else text, encoding="utf-8")

    return change


def twice(folder: Path) -> None:
    """The first cell twice, once with another verdict."""
    content = json.loads((folder / "records.json").read_text("utf-8"))
    content["records"].insert(0, content["records"][0] | {"verdict": "supported"})
    (folder / "records.json").write_text(json.dumps(content), encoding="utf-8")


def unlisted(folder: Path) -> None:
    """A model of the registry as if a session had named it, so that nothing is predicted of it."""
    path = folder / "models.json"
    content = json.loads(path.read_text("utf-8"))
    for kept in content["models"].values():
        kept["standing"] = "named"
    path.write_text(json.dumps(content), encoding="utf-8")
    records = json.loads((folder / "records.json").read_text("utf-8"))
    for record in records["records"]:
        record |= {"prediction": None, "predicted_on": None, "accepted": None}
    (folder / "records.json").write_text(json.dumps(records), encoding="utf-8")


FORGERIES = {
    "labels": (
        recorded(claim="H5.1", model="mistral-7b"),
        ('differs   claim: was "H5.1", now "V.1"', 'differs   model: was "mistral-7b"'),
    ),
    "condition": (recorded(condition="logic"), ('condition: was "logic", now "facts"',)),
    "statement": (recorded(statement="Another claim."), ('statement: was "Another claim."',)),
    "reason": (recorded(reason="Proved."), ('differs   reason: was "Proved.", now',)),
    "prediction": (recorded(prediction="refuted"), ('prediction: was "refuted", now',)),
    "date": (recorded(predicted_on="2020-01-01"), ('predicted_on: was "2020-01-01", now',)),
    "outcome": (recorded(outcome="passed"), ("differs   outcome: was 'passed', now",)),
    "accepted": (recorded(accepted="supported"), ("differs   accepted: was 'supported', now",)),
    "options": (recorded(options=["-p", "evil"]), ("differs   options: was ['-p', 'evil']",)),
    "scope": (recorded(scope="everything"), ('scope: was "everything"',)),
    "twice": (twice, ("records.json holds other test cases than manifest.json names",)),
    "device": (session(device="cuda:7"), ('differs: session: device: was "cuda:7"',)),
    "predictions": (session(predictions_hash="0" * 64), ("session: predictions_hash: was",)),
    "noise": (session(noise=[]), ("session: noise: was [], now absent",)),
    "file": (beside("verdict.txt", "all true"), ("verdict.txt: is no part of a bundle",)),
    "run": (beside("runs/x/config.json", "{}"), ("differs: runs/x: cannot be used",)),
    "unlisted": (unlisted, ("smollm2-135m: is said to be named, which it is not",)),
}
UNTIDY = {
    "page": (
        beside("claims.html", "<!-- -->"),
        ("differs: claims.html: is not what",),
    ),
    "README": (beside("README.txt", "!"), ("differs: README.txt: is not what this version makes",)),
    "crate": (beside(CRATE, " "), (f"differs: {CRATE}: is not what this version makes",)),
    "records": (beside("records.json", "\n"), ("differs: records.json: is not what this version",)),
}


# One of every way in which a forgery is told; the others are told alike.
EVERY_DAY = ("labels", "outcome", "twice", "device", "file", "run", "unlisted", "README")


@pytest.mark.slow
@pytest.mark.parametrize(
    "what",
    [
        pytest.param(each, marks=[] if each in EVERY_DAY else [pytest.mark.nightly])
        for each in (*FORGERIES, *UNTIDY)
    ],
)
def test_a_forgery_is_named(tmp_path, capsys, monkeypatch, what):
    change, lines = (FORGERIES | UNTIDY)[what]
    path = forged(SHIPPED, tmp_path / "forged.zip", change, neat=what in FORGERIES)
    status, said = verdict(path, capsys, monkeypatch)
    assert status != 0
    for line in lines:
        assert sum(line in one for one in said.splitlines()) == 1, said


@pytest.mark.slow
def test_the_bundle_that_is_shipped_verifies_and_says_what_nobody_knows(capsys, monkeypatch):
    status, said = verdict(SHIPPED, capsys, monkeypatch)
    assert status == 0, said
    assert "differs" not in said
    assert "6 of 6 test case(s) agree with the record" in said
    for line in (
        "not verified: that the models give the figures in runs/: nothing was measured again",
        "not verified: when, where and by which versions it was measured (2026-",
    ):
        assert line in said
    status, said = verdict(SHIPPED, capsys, monkeypatch, "--json")
    document = json.loads(said)
    assert document["differences"] == [] and len(document["not_verified"]) >= 2
    assert {(c["claim"], c["model"], c["condition"]) for c in document["cells"]} == {
        (claim, "smollm2-135m", "facts") for claim in ("V.1", "V.2", "V.3", "V.4", "H1.1")
    }


def test_a_bundle_of_another_engine_says_which_checkout_reads_it(tmp_path, capsys, monkeypatch):
    """Whatever else differs: the page of another version does, too."""
    forgery = forged(SHIPPED, tmp_path / "page.zip", beside(PAGE, "<p>older</p>"), neat=False)
    monkeypatch.setattr(contents, "ENGINE_VERSION", "99")
    for path in (SHIPPED, forgery):
        status, said = verdict(path, capsys, monkeypatch)
        (line,) = said.splitlines()
        assert status == 2
        assert f"measured by engine {ENGINE_VERSION}, and the installed one, engine 99," in line
        assert f"with a checkout whose ENGINE_VERSION is {ENGINE_VERSION} (tiny" in line


@pytest.mark.slow
def test_a_bundle_of_an_earlier_version_has_no_crate_and_verifies(tmp_path, capsys, monkeypatch):
    def earlier(folder: Path) -> None:
        (folder / CRATE).unlink()
        file = read_records(folder / "records.json")
        (folder / "README.txt").write_bytes(readme(file, crate=False))

    path = forged(SHIPPED, tmp_path / "earlier.zip", earlier, neat=False)
    status, said = verdict(path, capsys, monkeypatch)
    assert status == 0, said
    assert f"note: {CRATE} is not in the bundle: an earlier version made it" in said
    # Whoever only leaves it out is found by the README, which names it.
    path = forged(SHIPPED, tmp_path / "less.zip", lambda it: (it / CRATE).unlink(), neat=False)
    status, said = verdict(path, capsys, monkeypatch)
    assert status == 1 and "differs: README.txt: is not what this version makes" in said


# --- models --------------------------------------------------------------------------------------


def models(**facts: object) -> Models:
    from dataclasses import replace

    entry = REGISTRY["tiny-gpt2"]
    own = replace(describe(entry), **facts)  # type: ignore[arg-type]
    kept = Described(entry=placeless(entry), standing="listed", facts=own, shelf="tiny")
    return Models(models={"tiny-gpt2": kept})


def test_a_model_that_is_here_is_held_to_its_files():
    assert of_models(models(), REGISTRY) == ([], [])
    own = describe(REGISTRY["tiny-gpt2"]).weight_hash
    found = of_models(models(weight_hash=F), REGISTRY)
    assert found.differences == [f"models.json: tiny-gpt2: weight_hash {F}, on this machine {own}"]


@pytest.mark.parametrize("carded", [True, False])
def test_a_model_that_is_not_here_is_held_to_its_card_or_listed(tmp_path, carded):
    entry = REGISTRY["tiny-gpt2"]
    source = tmp_path / "tiny-gpt2"
    source.mkdir()
    if carded:
        shutil.copyfile(entry.source / "card.json", source / "card.json")
    registry = REGISTRY.with_entries([entry.model_copy(update={"source": source})])
    found = of_models(models(weight_hash=F), registry)
    assert found.unverified == [
        "that the weights of tiny-gpt2 are ffffffffffff: the model is not on this machine"
    ]
    assert len(found.differences) == carded
    assert all(
        f"weight_hash {F}, its card in fixtures has dac9e031" in x for x in found.differences
    )


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"standing": "named"}, "is said to be named, which it is not in fixtures/models.toml"),
        ({"title": "Another"}, "title is 'Another', in fixtures/models.toml 'Tiny GPT-2"),
    ],
)
def test_a_model_is_described_as_the_registry_does(changes, line):
    kept = models().models["tiny-gpt2"]
    if "title" in changes:
        kept = kept.model_copy(update={"entry": kept.entry.model_copy(update=changes)})
    else:
        kept = kept.model_copy(update=changes)
    (found,) = of_models(Models(models={"tiny-gpt2": kept}), REGISTRY).differences
    assert found.startswith("models.json: tiny-gpt2: ") and line in found


def test_a_model_that_nobody_lists_is_the_authors_word():
    entry = placeless(REGISTRY["tiny-gpt2"]).called("mine")
    kept = Described(entry=entry, standing="named", facts=describe(REGISTRY["tiny-gpt2"]))
    assert of_models(Models(models={"mine": kept}), REGISTRY) == (
        [],
        ["that mine is the model of that name: the registry does not list it"],
    )
    kept = kept.model_copy(update={"standing": "listed"})
    (line,) = of_models(Models(models={"mine": kept}), REGISTRY).differences
    assert "is said to be listed, which it is not" in line


# --- files ---------------------------------------------------------------------------------------


def test_files_of_no_bundle_are_named():
    corpora = ("tiny/facts.jsonl", "tiny/manifest.json", "knowledge/lexicons.toml")
    known = ("records.json", "runs/a/config.json", *(f"corpora/{name}" for name in corpora))
    files = dict.fromkeys((*known, "claims2.html", "corpora/knowledge/x.toml"))
    assert strangers(files, {"records.json"}) == [
        "claims2.html: is no part of a bundle",
        "corpora/knowledge/x.toml: is no part of a bundle",
    ]


def test_corpora_that_the_checkout_lacks_are_listed(tmp_path):
    for folder in ("tiny", "theirs"):
        (tmp_path / "corpora" / folder).mkdir(parents=True)
        (tmp_path / "corpora" / folder / "facts.jsonl").touch()
    assert of_corpora(tmp_path, ROOT) == [
        "that corpora/theirs/facts.jsonl is this project's: the checkout has none"
    ]
