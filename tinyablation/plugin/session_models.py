"""The models of a session: those of fixtures/models.toml and of --model, and which of them run.

Models listed with a folder are embedded: all their cells are always collected, so that snapshots
and predictions see every one, and options only deselect. Models of the hub and of packages are many
and large, and a plain run must neither list nor download them: their cells exist only in a session
that names them, by

    -k         a word that is not negated and is part of an id: "mistral" names mistral-7b
    -m         the word hub, not negated: names all those of the hub
    --model    an id, a folder, a GGUF file, a repository: these models, and no other
    a node id  as the rerun commands of a report give it

Unless a hub model is named, there is no network access (environment.py).

With --registry, a second file lists further models: they have predictions, but no baseline.

A --model that no file lists is named by --name, else by its files
(tinyablation/models/naming.py). Two models with the same name get some digits of their hashes.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tinyablation.errors import TinyAblationError
from tinyablation.plugin.command_line import command
from tinyablation.plugin.marks import HUB
from tinyablation.plugin.options import (
    AUTO,
    asked_cells,
    asked_words,
    executor,
    further_registry,
    is_claims_run,
    is_guest,
)
from tinyablation.plugin.settings import settings
from tinyablation.shipped import CORPORA, MODELS, here_or_shipped, shipped

if TYPE_CHECKING:
    from tinyablation.models.registry import ModelEntry, Registry

_roster_key = pytest.StashKey["SessionModels"]()


@dataclass(frozen=True)
class SessionModels:
    """The models of a session.

    listed: those of the file; registry: those plus the ones that only --model names; chosen: model
    id -> the text given to --model; named: models of the hub and of packages that may run, in
    order; by_hand: the model whose heads --heads names, "" for none. Predictions are about other
    heads, so that model counts as not listed. further: those listed by --registry.
    """

    listed: "Registry"
    registry: "Registry"
    chosen: dict[str, str]
    named: tuple[str, ...]
    by_hand: str = ""
    further: frozenset[str] = frozenset()

    @property
    def collected(self) -> tuple[str, ...]:
        """The models whose cells are collected, in the registry's order."""
        wanted = {*self.listed.local_ids, *self.named, *self.chosen}
        return tuple(name for name in self.registry.ids if name in wanted)

    @property
    def asked(self) -> tuple[str, ...]:
        """The models that --model selects: those it names, else all that are collected.

        Which of them -k selects is not known before collection.
        """
        return tuple(self.chosen) or self.collected

    def is_embedded(self, model: str) -> bool:
        """Whether the file lists the model with a folder; also true for "", no model at all."""
        local = model in self.listed.local_ids and model not in self.further
        return model == "" or (local and model != self.by_hand)

    def has_baseline(self, model: str) -> bool:
        """Whether figures of the model are kept: of those that the project's own file lists."""
        return self.is_listed(model) and model not in self.further

    def is_listed(self, model: str) -> bool:
        """Whether the file lists the model; the others have neither predictions nor snapshots."""
        return model == "" or (model in self.listed and model != self.by_hand)


def session_models(config: pytest.Config) -> SessionModels:
    """The models of this session, made once; RegistryError for an invalid file or --model."""
    if _roster_key not in config.stash:
        config.stash[_roster_key] = _make(config)
    return config.stash[_roster_key]


def registry(config: pytest.Config) -> "Registry":
    """All models of this session, by id; RegistryError for an invalid file or --model."""
    return session_models(config).registry


def model_in_nodeid(nodeid: str, models: Sequence[str]) -> str | None:
    """The model at the start of a node id's brackets, or None.

    Longest id first, because "tiny-gpt2-plain-facts" also begins with "tiny-gpt2".
    """
    _, bracket, parameters = nodeid.rsplit("::", 1)[-1].partition("[")
    if not bracket:
        return None
    parameters = parameters.removesuffix("]")
    for model in sorted(models, key=len, reverse=True):
        if parameters == model or parameters.startswith(f"{model}-"):
            return model
    return None


def named_by_id(config: pytest.Config) -> tuple[str, ...]:
    """The models that the command names by their whole id.

    By --model, as a word of -k that is not negated, or in a node id. "mistral" is not a whole id
    and names no model here.
    """
    known = session_models(config)
    words = {word.lower() for word in asked_words(command(config).keyword)}
    cells = {model_in_nodeid(nodeid, known.registry.ids) for nodeid in asked_cells(config)}
    return tuple(
        name for name in known.registry.ids if name in known.chosen or name in words | cells
    )


def named_hub_models(config: pytest.Config) -> tuple[str, ...]:
    """The hub models that this session may run; none if the registry cannot be read."""
    if not is_claims_run(config):
        return ()
    try:
        known = session_models(config)
        return tuple(name for name in known.named if known.registry[name].is_hub)
    except TinyAblationError:
        return ()  # reported at collection, or by pytest_configure if --model is wrong


def model_options(config: pytest.Config, model: str) -> list[str]:
    """The options that a command needs besides the node ids of cells of the model."""
    option, known = command(config), session_models(config)
    given: list[str] = []
    if model in known.further:
        given += ["--registry", str(option.registry)]
    if not known.is_listed(model):
        entry, name = known.registry[model], known.chosen.get(model, model)
        at_root = entry.source is None or (config.rootpath / name).exists() or model in known.listed
        given += ["--model", name if at_root else str(entry.source)]
        revision = option.revision if entry.is_hub else None
        if revision is not None:
            given += ["--revision", revision]
        if model not in known.listed and known.listed.named(name, revision).id != model:
            given += ["--name", entry.name_again]
    if model and option.heads is not None:
        given += ["--heads", option.heads]
    if model and option.device != AUTO:
        given += ["--device", option.device]
    if model and option.dtype != AUTO:
        given += ["--dtype", option.dtype]
    return given


def listed(config: pytest.Config) -> "Registry":
    """The models that a project lists; RegistryError for an invalid file.

    A host's fixtures/models.toml, else the shipped one. A guest has the shipped one, and the file
    that its settings name.
    """
    from tinyablation.models.registry import RegistryError, load_registry

    if not is_guest(config):
        return load_registry(here_or_shipped(config.rootpath, MODELS))
    known = load_registry(shipped(MODELS))
    path = settings(config).models
    if path is None:
        return known
    own = load_registry(path)
    for name in own.ids:
        if name in known:
            raise RegistryError(f"{path}: model {name!r} comes with tinyablation; rename yours")
    return known.with_entries(own.values())


def corpora(config: pytest.Config) -> Path:
    """The folder of corpora by tokenizer, with the knowledge tables: a host's own, or shipped."""
    if is_guest(config):
        return shipped(CORPORA)
    return here_or_shipped(config.rootpath, CORPORA)


def named_by_mark(config: pytest.Config, names: Sequence[str]) -> tuple[str, ...]:
    """The ids of models that a claim's mark names; RegistryError for an unknown one.

    Like --model it takes ids, folders and GGUF files, from the root of the project, and OWNER/NAME.
    Unlisted models are added to the session's.
    """
    from tinyablation.models.registry import RegistryError

    known = session_models(config)
    found = []
    for name in names:
        path = config.rootpath / os.path.expanduser(name)
        if name in known.registry:
            entry = known.registry[name]
        elif "/" in name or path.exists():
            entry = known.registry.named(str(path) if path.exists() else name)
        else:
            raise RegistryError(f"no model {name!r}; {known.registry.hint(name)}")
        known = replace(known, registry=known.registry.with_entries([entry]))
        found.append(entry.id)
    config.stash[_roster_key] = known
    return tuple(dict.fromkeys(found))


def provide(
    config: pytest.Config, kept: Sequence["ModelEntry"], unlisted: Sequence["ModelEntry"]
) -> None:
    """Set this session's models, as if the file listed those kept and --model named the others.

    Call it before anything else uses the session's models.
    """
    known = listed(config).with_entries(kept)
    named = tuple(entry.id for entry in (*kept, *unlisted) if entry.is_named_only)
    chosen = {entry.id: entry.id for entry in unlisted}
    config.stash[_roster_key] = SessionModels(known, known.with_entries(unlisted), chosen, named)


def _make(config: pytest.Config) -> SessionModels:
    known, further = _with_further(config, listed(config))
    entries = _chosen(config, known)
    found = known.with_entries(entry for _, entry in entries)
    chosen: dict[str, str] = {}
    for name, entry in entries:
        chosen.setdefault(entry.id, name)
    if chosen:
        named = tuple(name for name in chosen if found[name].is_named_only)
    else:
        named = _named(config, known)
    made = SessionModels(known, found, chosen, named, further=further)
    one = made.asked
    by_hand = one[0] if command(config).heads is not None and len(one) == 1 else ""
    return replace(made, by_hand=by_hand)


def _with_further(config: pytest.Config, listed: "Registry") -> "tuple[Registry, frozenset[str]]":
    """The listed models with those of --registry, and the ids of these."""
    from tinyablation.models.registry import RegistryError, load_registry

    path = further_registry(config)
    if path is None:
        return listed, frozenset()
    further = load_registry(path)
    twice = [name for name in further.ids if name in listed]
    if twice:
        raise RegistryError(
            f"--registry {path}: model {twice[0]!r} is listed in {listed.path}, too; rename it"
        )
    return listed.with_entries(further.values()), frozenset(further.ids)


def _chosen(config: pytest.Config, listed: "Registry") -> "list[tuple[str, ModelEntry]]":
    """Each --model with its entry, in order and with unique ids."""
    from tinyablation.models.registry import RegistryError

    option = command(config)
    if len(option.name) > len(option.model):
        raise RegistryError(
            f"--name {option.name[len(option.model)]}: names a --model; give as many --model, in "
            "the same order"
        )
    found: list[tuple[str, ModelEntry]] = []
    revised = False
    for name, title in zip_longest(option.model, option.name):
        entry = listed.named(name, title=title)
        if option.revision is not None and entry.is_hub:
            entry = listed.named(name, option.revision, title)
            revised = True
        found.append((name, entry))
    if option.model and option.revision is not None and not revised:
        listed.named(option.model[0], option.revision)  # raises if it is a folder
    pairs = combinations((entry for _, entry in found), 2)
    alike = {entry.id for entry, other in pairs if entry.id == other.id and entry != other}
    found = [(name, entry.told_apart() if entry.id in alike else entry) for name, entry in found]
    for (name, entry), (other, same) in combinations(found, 2):
        if same.id == entry.id and same != entry:
            raise RegistryError(
                f"--model {name} and --model {other}: both are called {entry.id!r} and have the "
                "same weights; give each a --name"
            )
    return found


def _named(config: pytest.Config, listed: "Registry") -> tuple[str, ...]:
    option = command(config)
    if HUB in asked_words(option.markexpr):
        return listed.hub_ids
    words = [word.lower() for word in asked_words(option.keyword)]
    cells = {model_in_nodeid(nodeid, listed.ids) for nodeid in asked_cells(config)}
    return tuple(
        name
        for name in listed.named_only_ids
        if name in cells or any(word in name for word in words)
    )


# --- at start ----------------------------------------------------------------------------------


@pytest.hookimpl(tryfirst=True)  # report a wrong name before workers start
def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput") or not is_claims_run(config):
        return
    option = command(config)
    if option.name and not option.model:
        raise pytest.UsageError("--name is the name of a --model; give --model too")
    if option.revision is not None and not option.model:
        raise pytest.UsageError("--revision is the revision of a --model; give --model too")
    try:
        if option.model or option.registry:
            session_models(config)
        if not option.collectonly:
            _check_folders(config)
            if executor(config).is_local:
                _check_device(config)
    except TinyAblationError as error:
        raise pytest.UsageError(str(error)) from error


def _check_folders(config: pytest.Config) -> None:
    """Raise LoadingError for a path of --model whose architecture is not supported.

    Models of the hub are checked once they are downloaded. The four tested architectures are
    recognised without importing TransformerLens, which takes 4 s.
    """
    for model in session_models(config).chosen if command(config).model else ():
        entry = registry(config)[model]
        if model not in session_models(config).listed and entry.source is not None:
            from tinyablation.models.checkpoint import gguf_in, read_config, refuse_special
            from tinyablation.models.gguf import check
            from tinyablation.models.loading import check_architecture

            if entry.source.is_dir():
                refuse_special(entry.source, entry.id)
            gguf = gguf_in(entry.source, entry.id)
            if gguf is not None:
                check(gguf, entry.id)
            else:
                check_architecture(read_config(entry.source, entry.id), entry.source, entry.id)


def _check_device(config: pytest.Config) -> None:
    """Raise DeviceError for an unknown device, or one that this machine does not have.

    auto is left to the workers, because torch takes 2 s to import.
    """
    if command(config).device != AUTO:
        from tinyablation.models.devices import choose_device

        choose_device(command(config).device)


def pytest_report_header(config: pytest.Config) -> list[str] | None:
    if not is_claims_run(config):
        return None
    try:
        known = session_models(config)
    except TinyAblationError:
        return None
    lines = [
        "models to download, each runs only if named (-k, --model, -m hub): "
        + (", ".join(known.listed.named_only_ids) or "none")
    ]
    if known.named:
        offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
        hub = any(known.registry[name].is_hub for name in known.named)
        places = (f"{name} ({known.registry[name].place})" for name in known.named)
        lines.append(
            f"named: {', '.join(places)}"
            + ("; HF_HUB_OFFLINE is set: from the hub's cache only" if offline and hub else "")
        )
    return lines
