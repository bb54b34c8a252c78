"""The registry of models: a typed view of a models.toml file. Nothing heavy is imported here."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import combinations, pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from tinyablation.errors import LoadingError, TinyAblationError
from tinyablation.files.hashes import text_sha256
from tinyablation.files.toml import read_toml
from tinyablation.models.checkpoint import GGUF, gguf_in, weight_files
from tinyablation.models.file_hashes import file_hash, weights_hash
from tinyablation.models.naming import name_of
from tinyablation.shipped import INSTALL_EXTRA, MODELS, OF_EXTRA, shipped
from tinyablation.spelling import did_you_mean

Family = Literal["gpt2", "mistral", "llama", "neox", "other"]
Dtype = Literal["float32", "bfloat16", "float16"]
# Repository ids of the hub: "owner/name", or an old "gpt2"; no part may lead out of a folder.
MOST_LETTERS = 1_000  # of a name: paths have up to 4,096 bytes, their parts and repositories 255
REPO = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)?$")
# A branch, tag or commit, such as refs/pr/3; never "..", because the cache uses it as a path.
Revision = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+([./][A-Za-z0-9_-]+)*$", max_length=100)]
# A distribution name normalised by PEP 503, and a version that pip pins with "==".
_PACKAGE = r"^[a-z0-9]+(-[a-z0-9]+)*$"
_VERSION = r"^[0-9]+(\.[0-9]+)*((a|b|rc)[0-9]+)?(\.post[0-9]+)?$"
# A GGUF file within a package; no part may lead out of a folder.
_MEMBER = r"^([A-Za-z0-9_][A-Za-z0-9_.-]*/)*[A-Za-z0-9_][A-Za-z0-9_.-]*\.gguf$"
# model_type of config.json, or the architecture of a GGUF file -> the page's name of the family.
_FAMILIES: Mapping[str, Family] = {
    "gpt2": "gpt2",
    "mistral": "mistral",
    "llama": "llama",
    "gpt_neox": "neox",
}

# Digits of the hash in the name of a model whose plain name is taken.
TOLD_APART_DIGITS = 6


class RegistryError(TinyAblationError):
    """The registry file is invalid, or a requested model is unknown."""


class Checkpoint(BaseModel):
    """The weights of a model after `step` steps of its training: a folder, or a revision."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: int = Field(ge=0, strict=True)
    source: Path | None = None
    revision: Revision | None = None

    @model_validator(mode="after")
    def _is_somewhere(self) -> Self:
        if (self.source is None) == (self.revision is None):
            raise ValueError("give either a source (a folder) or a revision of the model's repo")
        return self

    def same_weights(self, other: Self) -> bool:
        """Whether both come from the same place, whatever their step."""
        return self.model_dump(exclude={"step"}) == other.model_dump(exclude={"step"})


class Package(BaseModel):
    """A GGUF file inside a package on PyPI, pinned by its sha256 and its size in bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=_PACKAGE, max_length=100)
    version: str = Field(pattern=_VERSION, max_length=40)
    file: str = Field(pattern=_MEMBER, max_length=200)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int = Field(gt=0, strict=True)

    @property
    def place(self) -> str:
        """Its origin as text."""
        return f"PyPI {self.name} {self.version}: {self.file}"


class ModelEntry(BaseModel):
    """One model of the registry.

    Its origin is source, a Hugging Face folder or GGUF file, resolved against the folder of the
    TOML file; or repo, a repository of the hub, at revision (a branch, tag or commit; default:
    main); or package, a GGUF file in a package. bos: whether prompts begin with the tokenizer's BOS
    (None: as TransformerLens does for the architecture). dtype: the default dtype of runs.
    parameters: their number. gated: whether the hub requires accepting a licence. twin: the id of
    the model that differs from this one only in the planted treatment. checkpoints: at least two
    states of its training, in the order of their steps; the last may be the model itself.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Ids become directory names and pytest ids, hence the narrow alphabet.
    id: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=60)
    title: str = Field(min_length=1)
    source: Path | None = None
    repo: str | None = Field(default=None, pattern=REPO.pattern)
    package: Package | None = None
    revision: Revision | None = None
    family: Family
    variant: Literal["hedged", "plain", "natural"]
    bos: bool | None = None
    dtype: Dtype = "float32"
    parameters: int | None = Field(default=None, gt=0, strict=True)
    gated: bool = False
    twin: str | None = None
    note: str = ""
    checkpoints: tuple[Checkpoint, ...] = ()

    @model_validator(mode="after")
    def _is_somewhere(self) -> Self:
        if sum(place is not None for place in (self.source, self.repo, self.package)) != 1:
            raise ValueError(
                "give either a source (a folder), a repo (of the hub) or a package (of PyPI)"
            )
        if self.repo is None and self.revision is not None:
            raise ValueError("a revision needs a repo; a folder or package has none")
        if self.repo is None and any(one.revision is not None for one in self.checkpoints):
            raise ValueError("the revisions of its checkpoints need a repo")
        return self

    @field_validator("checkpoints")
    @classmethod
    def _is_a_course(cls, given: tuple[Checkpoint, ...]) -> tuple[Checkpoint, ...]:
        if len(given) == 1:
            raise ValueError("one checkpoint is not a trajectory; list two or more, or none")
        for earlier, later in pairwise(given):
            if later.step <= earlier.step:
                raise ValueError(
                    f"step {later.step} comes after step {earlier.step}; list them in order, "
                    "each once"
                )
        for earlier, later in combinations(given, 2):
            if earlier.same_weights(later):
                raise ValueError(f"steps {earlier.step} and {later.step} name the same weights")
        return given

    @property
    def is_hub(self) -> bool:
        """Whether it comes from the hub."""
        return self.repo is not None

    @property
    def is_package(self) -> bool:
        """Whether it comes from a package on PyPI."""
        return self.package is not None

    @property
    def is_named_only(self) -> bool:
        """Whether it must be downloaded, so that a session uses it only if it is named."""
        return self.is_hub or self.is_package

    @property
    def place(self) -> str:
        """Its origin as text: a path, repository@revision, or a package's file."""
        if self.package is not None:
            return self.package.place
        if self.repo is None:
            return str(self.source)
        return self.repo if self.revision is None else f"{self.repo}@{self.revision}"

    def at(self, checkpoint: Checkpoint) -> "ModelEntry":
        """This model at one of its checkpoints: an entry called <id>-step<0000>."""
        there: dict[str, Any] = (
            {"source": checkpoint.source, "repo": None, "package": None, "revision": None}
            if checkpoint.source is not None
            else {"revision": checkpoint.revision}
        )
        return self.model_copy(
            update={
                "id": f"{self.id}-step{checkpoint.step:04d}",
                "title": f"{self.title}, step {checkpoint.step}",
                **there,
                "twin": None,
                "checkpoints": (),
            }
        )

    def at_revision(self, revision: str) -> "ModelEntry":
        """This model at another revision of its repository: an entry called <id>-<revision>."""
        return self.model_copy(
            update={
                "id": f"{self.id}-{_slug(revision)}",
                "title": f"{self.title}, revision {revision}",
                "revision": revision,
                "twin": None,
                "checkpoints": (),
            }
        )

    def called(self, name: str) -> "ModelEntry":
        """This model under another title and the id derived from it."""
        return self.model_copy(update={"id": _slug(name, 60), "title": name})

    def told_apart(self) -> "ModelEntry":
        """This model with the first digits of its hash appended to title and id."""
        digits = _content(self)[:TOLD_APART_DIGITS]
        return self.model_copy(
            update={
                "id": f"{self.id[: 59 - len(digits)]}-{digits}",
                "title": f"{self.title} ({digits})",
            }
        )

    @property
    def name_again(self) -> str:
        """The name from which `called` derives this id: the title if possible, else the id."""
        return self.title if _slug(self.title, 60) == self.id else self.id


class Registry(Mapping[str, ModelEntry]):
    """The models of one file, by id, in file order."""

    def __init__(self, path: Path, entries: Mapping[str, ModelEntry]) -> None:
        self.path = path
        self._entries = dict(entries)

    @property
    def ids(self) -> tuple[str, ...]:
        """All model ids, in file order."""
        return tuple(self._entries)

    @property
    def local_ids(self) -> tuple[str, ...]:
        """Ids of the models in local folders."""
        return tuple(key for key, entry in self._entries.items() if not entry.is_named_only)

    @property
    def named_only_ids(self) -> tuple[str, ...]:
        """Ids of the models that come from the hub or a package."""
        return tuple(key for key, entry in self._entries.items() if entry.is_named_only)

    @property
    def hub_ids(self) -> tuple[str, ...]:
        """Ids of the models that come from the hub."""
        return tuple(key for key, entry in self._entries.items() if entry.is_hub)

    def with_entries(self, entries: Iterable[ModelEntry]) -> "Registry":
        """This registry with `entries` added; they replace entries of the same id."""
        return Registry(self.path, self._entries | {entry.id: entry for entry in entries})

    def named(self, name: str, revision: str | None = None, title: str | None = None) -> ModelEntry:
        """The entry for an id, a folder, a GGUF file or a repository of the hub.

        An unlisted model gets a new entry, named by tinyablation.models.naming or by `title`, with
        some digits of its hash if the resulting id is already listed. A name counts as a path if it
        exists or begins with ".", "/" or "~". Raises RegistryError for a path that does not exist,
        for a revision of a folder or package, and for an unknown name.
        """
        entry = self._at(name, revision)
        if title is not None and title != entry.title:
            entry = entry.called(title)
        # Ids become directory names: an unlisted model never takes the id of a listed one.
        taken = self._entries.get(entry.id)
        return entry if taken is None or taken == entry else entry.told_apart()

    def hint(self, name: str) -> str:
        """What helps whoever named a model that is not listed: where it is had, or the nearest."""
        if self._is_of_extra(name):
            return f"it comes with {INSTALL_EXTRA}"
        return did_you_mean(name, self.ids)

    def _is_of_extra(self, name: str) -> bool:
        return name in OF_EXTRA and self.path == shipped(MODELS)

    def _at(self, name: str, revision: str | None) -> ModelEntry:
        entry = self._entries.get(name) or next(
            (one for one in self._entries.values() if one.repo == name), None
        )
        if entry is None:
            entry = self._unlisted(name)
        if revision is None or revision == entry.revision:
            return entry
        if not entry.is_hub:
            raise RegistryError(
                f"{name}: is {'a package' if entry.is_package else 'a folder'}, which has no "
                f"revision {revision!r}; leave --revision out"
            )
        try:
            TypeAdapter(Revision).validate_python(revision)
        except ValidationError as error:
            raise RegistryError(f"revision {revision!r}: {_first(error)}") from error
        return entry.at_revision(revision)

    def _unlisted(self, name: str) -> ModelEntry:
        parts = re.split(r"[/\\]", name)
        if len(name) > MOST_LETTERS or max(len(os.fsencode(part)) for part in parts) > 255:
            raise RegistryError(
                f"{name[:60]}...: a name of {len(name):,} letters is no model's; name a folder, a "
                "hub id or one of these: " + ", ".join(self.ids)
            )
        path = Path(os.path.expanduser(name))  # as it is where there is no such user
        given: dict[str, Any] = {"family": "other", "variant": "natural"}
        if name and (path.is_dir() or (path.suffix.lower() == GGUF and path.is_file())):
            path = path.resolve()
            known = next((one for one in self._entries.values() if one.source == path), None)
            if known is not None:
                return known
            found = name_of(path)
            given |= {"source": path, "family": _FAMILIES.get(found.kind, "other")}
            # A folder's name may be of other bytes than UTF-8, which no text can hold.
            title = found.title.encode("utf-8", "backslashreplace").decode("utf-8")
            return ModelEntry(**given, id=_slug(title), title=title)
        if name.startswith((".", "/", "~")):
            raise RegistryError(
                f"{name}: no such folder; name a folder, a hub id or one of these: "
                + ", ".join(self.ids)
            )
        if self._is_of_extra(name):
            raise RegistryError(f"no model {name!r}; {self.hint(name)}")
        if not REPO.match(name):
            raise RegistryError(
                f"{name!r} is neither a model id, a folder nor a repository of the hub; "
                f"{self.hint(name)}"
            )
        return ModelEntry(**given, id=_slug(name.rsplit("/", 1)[-1]), title=name, repo=name)

    def __getitem__(self, key: str) -> ModelEntry:
        """The entry called `key`; RegistryError suggests the nearest known id if there is none."""
        if key not in self._entries:
            raise RegistryError(f"{self.path}: no model {key!r}; {self.hint(key)}")
        return self._entries[key]

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def load_registry(path: str | Path) -> Registry:
    """Read and validate a registry file of [[model]] tables.

    Raises RegistryError, which names file, line, model and field, for a missing or malformed file,
    an unknown or missing key, a value of the wrong type, a duplicate id, or an unknown twin.
    """
    path = Path(path)
    text, document = read_toml(path, RegistryError)
    for key in document:
        if key != "model":
            raise RegistryError(f"{path}: unknown key {key!r}; {did_you_mean(key, ('model',))}")
    tables = document.get("model", [])
    if not isinstance(tables, list) or not tables:
        raise RegistryError(f"{path}: lists no model; add a [[model]] table")
    lines = [n for n, line in enumerate(text.splitlines(), 1) if line.strip() == "[[model]]"]
    entries: dict[str, ModelEntry] = {}
    places: dict[str, str] = {}
    for position, table in enumerate(tables):
        place = f"{path}:{lines[position]}" if len(lines) == len(tables) else str(path)
        entry = _entry(table, place, path.parent)
        if entry.id in entries:
            raise RegistryError(f"{place}: model {entry.id!r} is listed twice; rename one")
        entries[entry.id] = entry
        places[entry.id] = place
    for entry in entries.values():
        if entry.twin is not None and (entry.twin not in entries or entry.twin == entry.id):
            raise RegistryError(
                f"{places[entry.id]}: model {entry.id!r}: twin {entry.twin!r} is not another model "
                f"of this file; {did_you_mean(entry.twin, tuple(entries))}"
            )
    return Registry(path, entries)


def _entry(table: Any, place: str, folder: Path) -> ModelEntry:
    if not isinstance(table, dict):
        raise RegistryError(f"{place}: 'model' must be an array of tables; write [[model]]")
    name = table.get("id", "?")
    _known_fields(table, ModelEntry, f"{place}: model {name!r}")
    if isinstance(table.get("package"), dict):
        _known_fields(table["package"], Package, f"{place}: model {name!r}: package")
    checkpoints = table.get("checkpoints")
    for number, checkpoint in enumerate(checkpoints if isinstance(checkpoints, list) else ()):
        if isinstance(checkpoint, dict):
            where = f"{place}: model {name!r}: checkpoint {number + 1}"
            _known_fields(checkpoint, Checkpoint, where)
    try:
        entry = ModelEntry.model_validate(table)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        where = f"field {field!r}: " if field else ""
        raise RegistryError(f"{place}: model {name!r}: {where}{_first(error)}") from error

    def resolved(source: Path | None) -> Path | None:
        try:
            return None if source is None else (folder / source).resolve()
        except (OSError, ValueError, RuntimeError) as error:  # NUL, too long, links in a circle
            raise RegistryError(
                f"{place}: model {name!r}: {str(source)[:200]!r} is no path: {error}"
            ) from error

    return entry.model_copy(
        update={
            "source": resolved(entry.source),
            "checkpoints": tuple(
                checkpoint.model_copy(update={"source": resolved(checkpoint.source)})
                for checkpoint in entry.checkpoints
            ),
        }
    )


def _first(error: ValidationError) -> str:
    return error.errors()[0]["msg"].removeprefix("Value error, ")


def _slug(name: str, most: int = 40) -> str:
    """A name as an id: lower case, with "-" for characters not allowed in ids."""
    slug = re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("-._")
    return slug[:most].rstrip("-._") or "model"


def _content(entry: ModelEntry) -> str:
    """A hex hash that distinguishes models of the same name: of the weights, else of the path."""
    if entry.package is not None:
        return entry.package.sha256
    if entry.source is not None:
        # Broken files raise later, when they are loaded.
        with suppress(OSError, LoadingError):
            gguf = gguf_in(entry.source, entry.id)
            if gguf is not None:
                return file_hash(gguf)
            return weights_hash(weight_files(entry.source, entry.id))
    return text_sha256(entry.place)


def _known_fields(table: Mapping[str, Any], kind: type[BaseModel], place: str) -> None:
    known = tuple(kind.model_fields)
    for key in table:
        if key not in known:
            raise RegistryError(f"{place}: unknown field {key!r}; {did_you_mean(key, known)}")
