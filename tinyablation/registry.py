"""Which models there are: a typed view of a models.toml file. Nothing heavy is imported here."""

import difflib
import tomllib
from collections.abc import Iterator, Mapping
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from tinyablation.errors import TinyAblationError


class RegistryError(TinyAblationError):
    """The registry file is wrong, or a model that it does not list was asked for."""


class Checkpoint(BaseModel):
    """The weights of a model after `step` steps of its training; source as of a ModelEntry."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: int = Field(ge=0, strict=True)
    source: Path

    def same_weights(self, other: Self) -> bool:
        """Whether both name the same place, whatever their step."""
        return self.model_dump(exclude={"step"}) == other.model_dump(exclude={"step"})


class ModelEntry(BaseModel):
    """One model of the registry.

    source is a Hugging Face folder, resolved against the folder of the TOML file; tokenizer names
    a folder under corpora/; bos says whether prompts begin with the tokenizer's BOS; twin is the
    id of the model that differs from this one in the planted treatment only; checkpoints are
    earlier and later states of its training, two at least, in the order of their steps. The last
    may be the model itself.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Ids become directory names and pytest ids, hence the narrow alphabet.
    id: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    title: str = Field(min_length=1)
    source: Path
    family: Literal["gpt2", "mistral", "llama", "neox"]
    variant: Literal["hedged", "plain", "natural"]
    tokenizer: str = Field(min_length=1)
    bos: bool
    dtype: Literal["float32"] = "float32"
    twin: str | None = None
    note: str = ""
    checkpoints: tuple[Checkpoint, ...] = ()

    @field_validator("checkpoints")
    @classmethod
    def _is_a_course(cls, given: tuple[Checkpoint, ...]) -> tuple[Checkpoint, ...]:
        if len(given) == 1:
            raise ValueError("one checkpoint is no course; list two or more, or none")
        for earlier, later in pairwise(given):
            if later.step <= earlier.step:
                raise ValueError(
                    f"step {later.step} stands after step {earlier.step}; list them in order, "
                    "each once"
                )
        for earlier, later in combinations(given, 2):
            if earlier.same_weights(later):
                raise ValueError(f"steps {earlier.step} and {later.step} name the same weights")
        return given

    def at(self, checkpoint: Checkpoint) -> "ModelEntry":
        """This model as it was at one of its checkpoints: an entry called <id>-step<0000>."""
        return self.model_copy(
            update={
                "id": f"{self.id}-step{checkpoint.step:04d}",
                "title": f"{self.title}, step {checkpoint.step}",
                "source": checkpoint.source,
                "twin": None,
                "checkpoints": (),
            }
        )


class Registry(Mapping[str, ModelEntry]):
    """The models of one file, by id, in file order."""

    def __init__(self, path: Path, entries: Mapping[str, ModelEntry]) -> None:
        self.path = path
        self._entries = dict(entries)

    @property
    def ids(self) -> tuple[str, ...]:
        """All model ids, in file order."""
        return tuple(self._entries)

    def __getitem__(self, key: str) -> ModelEntry:
        """The entry called `key`; RegistryError with the nearest known id when there is none."""
        if key not in self._entries:
            raise RegistryError(f"{self.path}: no model {key!r}; {_nearest(key, self.ids)}")
        return self._entries[key]

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def load_registry(path: str | Path) -> Registry:
    """Read and validate a registry file of [[model]] tables.

    Raises RegistryError, naming file, line, model and field, for a missing or malformed file, an
    unknown or missing key, a value of the wrong kind, an id given twice, or an unknown twin.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise RegistryError(f"{path}: cannot be read ({error.strerror})") from error
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RegistryError(f"{path}: not valid TOML: {error}") from error
    for key in document:
        if key != "model":
            raise RegistryError(f"{path}: unknown key {key!r}; {_nearest(key, ('model',))}")
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
                f"{places[entry.id]}: model {entry.id!r}: twin {entry.twin!r} is no other model of "
                f"this file; {_nearest(entry.twin, tuple(entries))}"
            )
    return Registry(path, entries)


def _entry(table: Any, place: str, folder: Path) -> ModelEntry:
    if not isinstance(table, dict):
        raise RegistryError(f"{place}: 'model' must be an array of tables; write [[model]]")
    name = table.get("id", "?")
    _known_fields(table, ModelEntry, f"{place}: model {name!r}")
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
        message = first["msg"].removeprefix("Value error, ")
        raise RegistryError(f"{place}: model {name!r}: field {field!r}: {message}") from error
    return entry.model_copy(
        update={
            "source": (folder / entry.source).resolve(),
            "checkpoints": tuple(
                checkpoint.model_copy(update={"source": (folder / checkpoint.source).resolve()})
                for checkpoint in entry.checkpoints
            ),
        }
    )


def _known_fields(table: Mapping[str, Any], kind: type[BaseModel], place: str) -> None:
    known = tuple(kind.model_fields)
    for key in table:
        if key not in known:
            raise RegistryError(f"{place}: unknown field {key!r}; {_nearest(key, known)}")


def _nearest(key: str, known: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.4)
    if close:
        return f"did you mean {close[0]!r}?"
    return "known: " + ", ".join(known)
