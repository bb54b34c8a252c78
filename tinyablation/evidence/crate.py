"""What a bundle holds and how it came about, as an RO-Crate: ro-crate-metadata.json.

RO-Crate 1.1 (https://w3id.org/ro/crate/1.1) with the profile Process Run Crate 0.5
(https://w3id.org/ro/wfrun/process/0.5), which is based on it: one action, the session, made records
and runs of models, prompts, predictions and earlier runs with this library. A function of the
records, the models, the names of the files and the times of the runs, so that `verdict` makes it
again. Sizes and hashes are in the manifest. The software's address, which the profile recommends,
is in no record; who ran the session and the licence are the author's word.

RO-Crate 1.3 is newer, and only Process Run Crate 0.6 is based on it (none on 1.2). Validators knew
neither in September 2026 (crs4/rocrate-validator, issues 179 and 201); this pair they check.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from tinyablation.characters import named
from tinyablation.evidence.rederivation import CORPORA, MODELS, RUNS, Described, Models
from tinyablation.files.manifests import MANIFEST
from tinyablation.records.records import RecordFile, Session
from tinyablation.report.text import json_text

CRATE = "ro-crate-metadata.json"
CONTEXT = "https://w3id.org/ro/crate/1.1/context"
SPECIFICATION = "https://w3id.org/ro/crate/1.1"
PROFILE = "https://w3id.org/ro/wfrun/process/0.5"
_SPDX = re.compile(r"[A-Za-z0-9.+-]+")  # an identifier of its list of licences
_ROOT, _SESSION, _LIBRARY = "./", "#session", "tinyablation"
_TYPES = {
    ".jsonl": "application/jsonl",
    ".parquet": "application/vnd.apache.parquet",
    ".toml": "application/toml",
    ".py": "text/x-python",
    ".json": "application/json",
    ".txt": "text/plain",
    ".html": "text/html",
    ".png": "image/png",
}
_WHAT = {
    MANIFEST: "size and sha256 of every other file",
    MODELS: "what the models' files were: sha256 of weights, config and tokenizer",
    "records.json": "the verdicts, with effects, intervals and reasons",
    "claims.html": "the page of the records",
    "README.txt": "how to check this bundle",
}


def crate_text(
    file: RecordFile,
    models: Models,
    names: Collection[str],
    *,
    measured: Collection[str] = (),
    creators: Sequence[str] = (),
    licence: str | None = None,
) -> bytes:
    """The bytes of ro-crate-metadata.json.

    names: of the files of the bundle; measured: names of the runs that the session made, the others
    being what it was given; creators: who ran the session, an organisation or
    "Family, Given" each; licence: an SPDX id.
    """
    session = file.session
    files = [_file(name) for name in sorted({*names, MANIFEST} - {CRATE})]
    runs = _folders(names)
    agents = [_agent(number, name) for number, name in enumerate(dict.fromkeys(creators), 1)]
    tools = [_tool(name, version) for name, version in sorted(session.versions.items())]
    if _LIBRARY not in session.versions:
        tools.append(_tool(_LIBRARY, None))
    subjects = [_model(name, each) for name, each in sorted(models.models.items())]
    beside = [each for each in files if not each["name"].startswith(f"{RUNS}/")]
    about = f"{len(file.records)} test case(s) of claims about {_models(file)}"
    root: dict[str, Any] = {
        "@id": _ROOT,
        "@type": "Dataset",
        "name": f"Evidence of {about}",
        "description": "What the verdicts depend on: runs, prompts, predictions, hashes of the "
        "models' files (no weights), records and their page. README.txt says how to check it.",
        # The day on which it was recorded: a bundle does not know when somebody publishes it.
        "datePublished": (session.finished or session.started)[:10],
        "license": {"@id": _licence(licence)["@id"]},
        "conformsTo": {"@id": PROFILE},
        "hasPart": _references([*runs, *beside]),
        "mentions": {"@id": _SESSION},
    }
    if agents:
        root["author"] = _references(agents)
    graph = [
        {
            "@id": CRATE,
            "@type": "CreativeWork",
            "about": {"@id": _ROOT},
            "conformsTo": {"@id": SPECIFICATION},
        },
        root,
        {"@id": PROFILE, "@type": "CreativeWork", "name": "Process Run Crate", "version": "0.5"},
        _licence(licence),
        _action(session, about, files, runs, measured, subjects, agents),
        *tools,
        *agents,
        *subjects,
        *runs,
        *files,
    ]
    _require(tools)
    return json_text({"@context": CONTEXT, "@graph": _named(graph)}, indent=1).encode()


def _action(
    session: Session,
    about: str,
    files: Sequence[Mapping[str, Any]],
    runs: Sequence[Mapping[str, Any]],
    measured: Collection[str],
    subjects: Sequence[Mapping[str, Any]],
    agents: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    corpora = [each for each in files if each["name"].startswith(f"{CORPORA}/")]
    registered = [each for each in files if each["name"].endswith("/predictions.toml")]
    made = [each for each in files if each["name"] in ("records.json", "claims.html")]
    made += [run for run in runs if run["name"] in measured]
    given = [run for run in runs if run["name"] not in measured]
    found: dict[str, Any] = {
        "@id": _SESSION,
        "@type": "CreateAction",
        "name": f"Judging {about}",
        "description": f"{session.command} (on {session.device}, {session.platform}, under the "
        f"{session.protocol} protocol)",
        "instrument": {"@id": f"#software-{_LIBRARY}"},
        "object": _references([*subjects, *corpora, *registered, *given]),
        "result": _references(made),
        "startTime": session.started,
    }
    if session.finished is not None:
        found["endTime"] = session.finished
    if agents:
        found["agent"] = _references(agents)
    return found


def _file(name: str) -> dict[str, str]:
    found = {"@id": quote(name), "@type": "File", "name": name}
    kind = _TYPES.get(f".{name.rpartition('.')[2]}")
    if kind is not None:
        found["encodingFormat"] = kind
    if name in _WHAT:
        found["description"] = _WHAT[name]
    return found


def _folders(names: Collection[str]) -> list[dict[str, Any]]:
    """The runs, each a folder of files."""
    parts: dict[str, list[str]] = {}
    for name in sorted(names):
        if name.startswith(f"{RUNS}/"):
            parts.setdefault(name.split("/")[1], []).append(name)
    return [
        {
            "@id": f"{RUNS}/{quote(run)}/",
            "@type": "Dataset",
            "name": run,
            "description": "A measurement by its address; provenance.json says when it was made.",
            "hasPart": _references([_file(name) for name in held]),
        }
        for run, held in parts.items()
    ]


def _tool(name: str, version: str | None) -> dict[str, Any]:
    known = {} if version is None else {"softwareVersion": version}
    return {
        "@id": f"#software-{quote(name)}",
        "@type": "SoftwareApplication",
        "name": name,
        **known,
    }


def _require(tools: Sequence[dict[str, Any]]) -> None:
    """Say of the library which other software it ran on."""
    library = next(tool for tool in tools if tool["name"] == _LIBRARY)
    others = [tool for tool in tools if tool is not library]
    if others:
        library["softwareRequirements"] = _references(others)


def _agent(number: int, name: str) -> dict[str, Any]:
    kind = "Person" if "," in name else "Organization"
    return {"@id": f"#agent-{number}", "@type": kind, "name": name}


def _licence(licence: str | None) -> dict[str, Any]:
    if licence is None:
        return {
            "@id": "#licence",
            "@type": "CreativeWork",
            "name": "not stated",
            "description": "Whoever made this bundle named no licence for it.",
        }
    if not _SPDX.fullmatch(licence):
        return {
            "@id": "#licence",
            "@type": "CreativeWork",
            "name": licence,
            "description": "As whoever made this bundle states it.",
        }
    return {
        "@id": f"https://spdx.org/licenses/{licence}",
        "@type": "CreativeWork",
        "name": licence,
        "description": f"The licence {licence} of the SPDX list.",
    }


def _model(name: str, kept: Described) -> dict[str, Any]:
    entry, facts = kept.entry, kept.facts
    place = "a folder" if entry.source is not None else entry.place
    found: dict[str, Any] = {
        "@id": f"#model-{quote(name)}",
        "@type": "CreativeWork",
        "name": entry.title,
        "description": f"A language model from {place}. Its weights are not in this bundle.",
    }
    if facts is not None:
        found["identifier"] = f"sha256 of its weights: {facts.weight_hash}"
    if entry.repo is not None:
        found["url"] = f"https://huggingface.co/{entry.repo}"
    return found


def _models(file: RecordFile) -> str:
    names = dict.fromkeys(record.model for record in file.records if record.model)
    return ", ".join(names) or "no model"


def _references(entities: Sequence[Mapping[str, Any]]) -> Any:
    """References to entities; one alone is no list, as RO-Crate recommends."""
    found = [{"@id": each["@id"]} for each in entities]
    return found[0] if len(found) == 1 else found


def _named(value: Any) -> Any:
    """The same with hidden characters named."""
    if isinstance(value, str):
        return named(value)
    if isinstance(value, dict):
        return {name: _named(each) for name, each in value.items()}
    return [_named(each) for each in value] if isinstance(value, list) else value
