"""What lies in a bundle besides records: runs, models and corpora, held to one another.

Weights are held to those on this machine, where a model is there, and to its card; a model that is
not there is listed, because its hash is then its author's word.
"""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from tinyablation.errors import TinyAblationError
from tinyablation.evidence.rederivation import (
    CORPORA,
    LEXICONS,
    RUNS,
    Described,
    EvidenceError,
    Models,
    placeless,
)
from tinyablation.files.contents import parse_json, read_bytes
from tinyablation.files.manifests import MANIFEST, check_manifest
from tinyablation.models.gguf import made_of
from tinyablation.models.loading import ModelFacts, describe
from tinyablation.models.registry import ModelEntry, Registry
from tinyablation.records.records import Session
from tinyablation.runs.address import ENGINE_VERSION, RunConfig
from tinyablation.runs.store import PROVENANCE

_CORPUS = re.compile(
    rf"{CORPORA}/([\w.-]+/([\w-]+\.(jsonl|split\.json)|{re.escape(MANIFEST)})|{LEXICONS.as_posix()})"
)
_HASHES = ("weight_hash", "config_hash", "tokenizer_hash")


class Comparison(NamedTuple):
    """A bundle beside what is here: lines of what differs, and of what nobody can know."""

    differences: list[str]
    unverified: list[str]


# --- models --------------------------------------------------------------------------------------


def of_models(models: Models, registry: Registry) -> Comparison:
    """Hold the models of a bundle to the registry and, where they are there, to their files.

    Call it with the hub offline: nothing is downloaded to be compared.
    """
    differing, unknown = [], []
    own = _entries(registry)
    for name, kept in models.models.items():
        entry = own.get(name)
        differing += [f"models.json: {name}: {line}" for line in _against(kept, entry, registry)]
        if entry is None:
            unknown.append(f"that {name} is the model of that name: the registry does not list it")
            continue
        if kept.facts is None:
            continue
        facts, why = _own_facts(entry)
        if facts is None:
            unknown.append(f"that the weights of {name} are {kept.facts.weight_hash[:12]}: {why}")
            card = _carded(entry)
            if card not in (None, kept.facts.weight_hash):
                differing.append(
                    f"models.json: {name}: weight_hash {kept.facts.weight_hash}, its card in "
                    f"fixtures has {card}"
                )
            continue
        differing += [
            f"models.json: {name}: {field} {getattr(kept.facts, field)}, on this machine "
            f"{getattr(facts, field)}"
            for field in ModelFacts.__dataclass_fields__
            if field not in ("folder", "commit", "derived")
            and getattr(kept.facts, field) != getattr(facts, field)
        ]
    return Comparison(differing, unknown)


def _entries(registry: Registry) -> dict[str, ModelEntry]:
    """The models of the registry, and their checkpoints."""
    found = {}
    for entry in registry.values():
        found[entry.id] = entry
        for checkpoint in entry.checkpoints:
            found[entry.at(checkpoint).id] = entry.at(checkpoint)
    return found


def _against(kept: Described, entry: ModelEntry | None, registry: Registry) -> Iterator[str]:
    """How a model is described otherwise than the registry does."""
    name = kept.entry.id
    standing = "listed" if name in registry else "neither" if entry is not None else kept.standing
    if kept.standing != standing or (entry is None and standing == "listed"):
        yield f"is said to be {kept.standing}, which it is not in fixtures/models.toml"
    if entry is not None:
        was, now = kept.entry.model_dump(mode="json"), placeless(entry).model_dump(mode="json")
        for field, value in was.items():
            if value != now[field] and field not in ("source", "checkpoints"):
                yield f"{field} is {value!r}, in fixtures/models.toml {now[field]!r}"


def _own_facts(entry: ModelEntry) -> tuple[ModelFacts | None, str]:
    """What the model's files on this machine say; None, and why, if it is not there."""
    try:
        if entry.package is not None and made_of(entry.package.sha256, entry.id) is None:
            return None, "the model is not on this machine"
        return describe(entry), ""
    except TinyAblationError:
        return None, "the model is not on this machine"


def _carded(entry: ModelEntry) -> str | None:
    """The hash of the weights in the model's card, where the checkout has one."""
    if entry.source is None:
        return None
    try:
        found = json.loads((entry.source / "card.json").read_text(encoding="utf-8"))["weight_hash"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, str) else None


# --- runs and corpora ----------------------------------------------------------------------------


def of_runs(folder: Path, models: Models) -> list[str]:
    """Runs that are not whole, not at their own address, or of other files than the models are."""
    found = []
    for run in sorted((folder / RUNS).iterdir()):
        try:
            found += [f"{RUNS}/{run.name}: {line}" for line in _of_run(run, models)]
        except (TinyAblationError, OSError, ValidationError) as error:
            line = str(error).splitlines()[0].replace(f"{folder}/", "")
            found.append(f"{RUNS}/{run.name}: cannot be used: {line}")
    return found


def _of_run(run: Path, models: Models) -> Iterator[str]:
    listed = set(check_manifest(run)["files"]) | {MANIFEST}
    there = {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()}
    for name in sorted(there - listed):
        yield f"{name} is not listed in its {MANIFEST}"
    config = RunConfig.model_validate_json(read_bytes(run / "config.json"))
    if config.name != run.name:
        yield f"its config.json is of the address {config.name}"
    kept = models.models.get(config.model)
    if kept is None or kept.facts is None:
        yield f"models.json does not describe its model {config.model}"
        return
    for field in _HASHES:
        was, now = getattr(config, field), getattr(kept.facts, field)
        if was != now:
            yield f"{field} is {was}, in models.json {now}"


def require_engine(folder: Path, bundle: str) -> None:
    """Raise EvidenceError if all runs are of another engine than the installed one.

    It would look for none of them. Runs that cannot be used are left to of_runs.
    """
    engines = set()
    for run in (folder / RUNS).iterdir():
        with suppress(TinyAblationError, OSError, ValidationError):
            config = RunConfig.model_validate_json(read_bytes(run / "config.json"))
            engines.add(config.engine_version)
    if engines and ENGINE_VERSION not in engines:
        named = " and ".join(sorted(engines))
        raise EvidenceError(
            f"{bundle}: its runs were measured by engine {named}, and the installed one, engine "
            f"{ENGINE_VERSION}, reads no others; verify it with a checkout whose ENGINE_VERSION is "
            f"{named} (tinyablation/runs/address.py)"
        )


def of_corpora(folder: Path, project: Path) -> list[str]:
    """Corpora that the checkout lacks, so that they cannot be compared with its own."""
    files = sorted((folder / CORPORA).rglob("*.jsonl"))
    names = [path.relative_to(folder).as_posix() for path in files]
    return [
        f"that {name} is this project's: the checkout has none"
        for name in names
        if not (project / name).is_file()
    ]


def strangers(files: Mapping[str, object], known: set[str]) -> list[str]:
    """Files that no bundle holds: a reader might take them for evidence.

    known: files by name; everything under runs/ is held to the manifest of its run.
    """
    return [
        f"{name}: is no part of a bundle"
        for name in sorted(files)
        if name not in known and not name.startswith(f"{RUNS}/") and not _CORPUS.fullmatch(name)
    ]


def measured_runs(session: Session, runs: Path) -> list[str]:
    """The runs that were finished between a session's start and its end, which are its results.

    runs: the folder of the runs. One that does not say when it was finished is left out.
    """
    ends = [session.started, session.finished or "9999-12-31T00:00:00+00:00"]
    found = []
    for path in sorted(runs.glob(f"*/{PROVENANCE}")):
        with suppress(OSError, ValueError, KeyError, TypeError):
            when = datetime.fromisoformat(parse_json(read_bytes(path))["finished"])
            began, ended = map(datetime.fromisoformat, ends)
            if began <= when <= ended:
                found.append(path.parent.name)
    return found
