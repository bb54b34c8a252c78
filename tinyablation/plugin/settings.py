"""What a project says of its claims, in the table [tool.tinyablation] of its pyproject.toml:

    [tool.tinyablation]
    models = "models.toml"               # further models, listed as in fixtures/models.toml
    conditions = { ioi = "ioi.jsonl" }   # conditions of its own, as --condition gives them
    predictions = "predictions.toml"     # expected verdicts; likewise subjects and published
    reports = "out"                      # where measurements and reports go
    snapshots = true                     # compare figures with __snapshots__/

Paths are relative to the root of the project. Every key may be left out.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from tinyablation.errors import TinyAblationError
from tinyablation.files.toml import read_toml
from tinyablation.spelling import did_you_mean

TABLE = "tool.tinyablation"
Ledger = Literal["predictions", "subjects", "published"]
_key = pytest.StashKey["Settings"]()


class SettingsError(TinyAblationError):
    """The table is invalid; the message names the file, the key and what to do."""


def _text(value: object) -> object:
    if not isinstance(value, str) or not value:
        raise ValueError("give a path as text")
    return value


_Path = Annotated[Path, BeforeValidator(_text)]


class Settings(BaseModel):
    """The table of one project; paths are absolute, None where nothing is said."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    models: _Path | None = None
    conditions: dict[str, _Path] = Field(default_factory=dict)
    predictions: _Path | None = None
    subjects: _Path | None = None
    published: _Path | None = None
    reports: _Path | None = None
    snapshots: Annotated[bool, Field(strict=True)] | None = None


def settings(config: pytest.Config) -> Settings:
    """The settings of the project whose tests run, read once; SettingsError if they are invalid."""
    if _key not in config.stash:
        config.stash[_key] = read_settings(config.rootpath / "pyproject.toml")
    return config.stash[_key]


def read_settings(path: Path) -> Settings:
    """The settings in a pyproject.toml; those of a project that says nothing if it has no table."""
    if not path.exists():
        return Settings()
    _, document = read_toml(path, SettingsError)
    table: Any = document.get("tool", {}).get("tinyablation", {})
    where = f"{path}: [{TABLE}]"
    if not isinstance(table, dict):
        raise SettingsError(f"{where} must be a table")
    for key in table:
        if key not in Settings.model_fields:
            raise SettingsError(
                f"{where}: unknown key {key!r}; {did_you_mean(key, Settings.model_fields)}"
            )
    try:
        found = Settings.model_validate(table)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        said = str(first["msg"]).removeprefix("Value error, ")
        raise SettingsError(f"{where}: {key} = {first['input']!r}: {said}") from error
    return _absolute(found, path)


def _absolute(found: Settings, path: Path) -> Settings:
    """The settings with paths of the project's; SettingsError for a file that is not there."""
    given: dict[str, Any] = {}
    for key in ("models", "predictions", "subjects", "published", "reports"):
        value: Path | None = getattr(found, key)
        given[key] = None if value is None else path.parent / value
        if key != "reports" and value is not None and not (path.parent / value).is_file():
            raise SettingsError(f"{path}: [{TABLE}]: {key} = {str(value)!r}: no such file")
    given["conditions"] = {name: path.parent / file for name, file in found.conditions.items()}
    return found.model_copy(update=given)
