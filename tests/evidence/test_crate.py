"""ro-crate-metadata.json: each MUST of RO-Crate 1.1 and of Process Run Crate 0.5, one by one.

rocrate-validator (PyPI's roc-validator 0.13.0) finds no missing MUST of either in the bundle that
is shipped. It is not run here: it asks for rich below 14, and for contexts from the network.

Run: pytest tests/evidence/test_crate.py
"""

import json
import re
import zipfile
from datetime import datetime
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import pytest

from tests.fake_sessions import HOSTILE
from tests.sessions.test_drift import cell, session
from tinyablation.evidence.crate import CRATE, PROFILE, crate_text
from tinyablation.evidence.rederivation import Described, Models, placeless
from tinyablation.files.manifests import MANIFEST
from tinyablation.models.registry import load_registry

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "reports" / "smollm2-135m" / "facts.zip"
REGISTRY = load_registry(ROOT / "fixtures" / "models.toml")
NAMES = (
    "README.txt",
    "claims.html",
    "records.json",
    "models.json",
    "corpora/tiny/facts.jsonl",
    "runs/gpt2-zero-facts_0a/config.json",
    "runs/gpt2-zero-facts_0a/metrics/per_example.parquet",
    "sources/claims/suppressors/predictions.toml",
)


def described(name):
    return Described(entry=placeless(REGISTRY[name]), standing="listed")


def made(
    *records, models=("gpt2",), names=NAMES, measured=(), creators=(), licence=None, **changes
):
    own = Models(models={name: described(name) for name in models})
    file = session(*(records or (cell(),)), **changes)
    said = {"measured": measured, "creators": creators, "licence": licence}
    return json.loads(crate_text(file, own, names, **said))


def references(value):
    """Every {"@id": ...} in the values of an entity."""
    found = value if isinstance(value, list) else [value]
    return [each["@id"] for each in found if isinstance(each, dict)]


def is_time(text):
    return datetime.fromisoformat(text).utcoffset() is not None


def check(crate, files):
    """files: of the bundle, by name, without the crate itself."""
    # The file is JSON-LD, its graph flat: values within entities are texts and references.
    assert set(crate) == {"@context", "@graph"}
    assert crate["@context"] == "https://w3id.org/ro/crate/1.1/context"
    entities = {each["@id"]: each for each in crate["@graph"]}
    assert len(entities) == len(crate["@graph"])
    for entity in crate["@graph"]:
        assert entity["@type"]
        for name, value in entity.items():
            for each in value if isinstance(value, list) else [value]:
                assert isinstance(each, str) or set(each) == {"@id"}, (entity["@id"], name)
            for target in references(value):
                assert target in entities or (entity["@id"], name) == (CRATE, "conformsTo"), target
    # The descriptor is about the root, and says which version it conforms to.
    descriptor = entities[CRATE]
    assert descriptor["@type"] == "CreativeWork"
    assert descriptor["conformsTo"] == {"@id": "https://w3id.org/ro/crate/1.1"}
    root = entities[descriptor["about"]["@id"]]
    # The root is a dataset with a name, a description, a date and a licence, which is an entity.
    assert root["@type"] == "Dataset" and root["@id"].endswith("/")
    assert root["name"] and root["description"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", root["datePublished"])
    (licence,) = references(root["license"])
    assert entities[licence]["name"] and entities[licence]["description"]
    # Every file is an entity, has a relative and valid URI, and hangs on the root by hasPart.
    parts, waiting = set(), ["./"]
    while waiting:
        for part in references(entities[waiting.pop()].get("hasPart", [])):
            assert part not in parts, part
            parts.add(part)
            waiting.append(part)
    data = {name for name, each in entities.items() if each["@type"] in ("File", "Dataset")}
    assert parts == data - {"./"}
    for name in data - {"./"}:
        assert re.fullmatch(r"[A-Za-z0-9._~/%+-]+", name) and not urlsplit(name).scheme, name
        assert entities[name]["@type"] == ("Dataset" if name.endswith("/") else "File")
    assert {unquote(name) for name in data if not name.endswith("/")} == set(files)
    # Process Run Crate: the root conforms to a versioned profile, which is an entity, ...
    (profile,) = references(root["conformsTo"])
    assert profile == PROFILE and entities[profile]["@type"] == "CreativeWork"
    # ... and mentions an action with a tool that was run, what it was given, and what it made.
    (action,) = (entities[each] for each in references(root["mentions"]))
    assert action["@type"] == "CreateAction" and action["name"] and action["description"]
    (tool,) = (entities[each] for each in references(action["instrument"]))
    assert tool["@type"] == "SoftwareApplication" and tool["name"] == "tinyablation"
    assert "records.json" in references(action["result"]) and references(action["object"])
    assert is_time(action["startTime"]) and is_time(action.get("endTime", action["startTime"]))
    for agent in references(action.get("agent", [])):
        assert entities[agent]["@type"] in ("Person", "Organization") and entities[agent]["name"]
    return entities


def test_a_crate_holds_what_must_be_in_it():
    entities = check(made(), {*NAMES, MANIFEST})
    action = entities["#session"]
    assert references(action["object"]) == [
        *("#model-gpt2", "corpora/tiny/facts.jsonl"),
        *("sources/claims/suppressors/predictions.toml", "runs/gpt2-zero-facts_0a/"),
    ]
    assert references(action["result"]) == ["claims.html", "records.json"]
    assert entities["#model-gpt2"]["url"] == "https://huggingface.co/openai-community/gpt2"
    table = entities["runs/gpt2-zero-facts_0a/metrics/per_example.parquet"]
    assert table["encodingFormat"] == "application/vnd.apache.parquet"
    assert "agent" not in action and "endTime" not in action  # no record says
    assert entities["#licence"]["name"] == "not stated"


def test_a_run_is_a_result_of_the_session_that_made_it_and_given_to_later_ones():
    runs = {name: f"runs/{name}/config.json" for name in ("before", "during")}
    crate = made(names=[*NAMES, *runs.values()], measured=["during"])
    action = check(crate, {*NAMES, *runs.values(), MANIFEST})["#session"]
    assert references(action["result"]) == ["claims.html", "records.json", "runs/during/"]
    assert references(action["object"])[-2:] == ["runs/before/", "runs/gpt2-zero-facts_0a/"]


def test_the_bundle_that_is_shipped_is_a_crate():
    with zipfile.ZipFile(SHIPPED) as archive:
        crate = json.loads(archive.read(CRATE))
        names = set(archive.namelist()) - {CRATE}
        known = json.loads(archive.read("records.json"))["session"]
    entities = check(crate, names)
    action = entities["#session"]
    assert (action["startTime"], action["endTime"]) == (known["started"], known["finished"])
    versions = {
        each["name"]: each["softwareVersion"]
        for each in entities.values()
        if each["@type"] == "SoftwareApplication"
    }
    assert versions == known["versions"]


def test_who_ran_it_and_the_licence_are_what_the_author_says():
    crate = made(creators=["Doe, Jane", "A Lab", "A Lab"], licence="CC-BY-4.0")
    entities = check(crate, {*NAMES, MANIFEST})
    assert [entities[each]["@type"] for each in references(entities["#session"]["agent"])] == [
        *("Person", "Organization"),
    ]
    assert references(entities["./"]["author"]) == references(entities["#session"]["agent"])
    assert references(entities["./"]["license"]) == ["https://spdx.org/licenses/CC-BY-4.0"]


LACKS = {
    "no context": lambda crate: crate.pop("@context"),
    "no name": lambda crate: crate["@graph"][1].pop("name"),
    "no date": lambda crate: crate["@graph"][1].pop("datePublished"),
    "no licence": lambda crate: crate["@graph"][1].pop("license"),
    "no profile": lambda crate: crate["@graph"][1].pop("conformsTo"),
    "no action": lambda crate: crate["@graph"][1].pop("mentions"),
    "a part that is left out": lambda crate: crate["@graph"][1]["hasPart"].pop(),
    "no tool": lambda crate: crate["@graph"][4].pop("instrument"),
    "a file that is left out": lambda crate: crate["@graph"].pop(),
    "an entity twice": lambda crate: crate["@graph"].append(crate["@graph"][1]),
    "not flat": lambda crate: crate["@graph"][4].update(agent={"@id": "#a", "name": "A Lab"}),
}


@pytest.mark.parametrize("what", LACKS)
def test_a_crate_that_lacks_something_is_found(what):
    crate = made()
    LACKS[what](crate)
    with pytest.raises((AssertionError, KeyError)):
        check(crate, {*NAMES, MANIFEST})


def test_what_others_wrote_is_text():
    bad = f'{HOSTILE}"\\\n\u202e'
    file = session(cell(bad), versions={bad: bad}, command=bad, device=bad)
    run = f"runs/{HOSTILE} x/config.json"
    text = crate_text(file, Models(), [*NAMES, run], creators=[bad], licence=bad).decode()
    assert "<" not in text and "\u202e" not in text
    crate = json.loads(text)
    assert HOSTILE in crate["@graph"][1]["name"] and "U+202E" in crate["@graph"][1]["name"]
    assert crate["@graph"][1]["license"]["@id"] == "#licence", "no licence of the SPDX list"
    assert quote(run) in {each["@id"] for each in crate["@graph"]}


def test_the_same_bundle_gives_the_same_bytes():
    turned = [*reversed(NAMES), CRATE, MANIFEST]
    own = Models(models={"gpt2": described("gpt2")})
    assert crate_text(session(cell()), own, turned) == crate_text(session(cell()), own, NAMES)
