"""Complete run directories: whether they are what they say, and where damaged ones go."""

import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tinyablation.errors import RunError
from tinyablation.files.manifests import Damaged, check_manifest, read_json, renewal, writing
from tinyablation.runs.address import RunConfig

CONFIG = "config.json"
SET_ASIDE = ".set-aside"  # in the store: directories that were damaged


def read_config(folder: Path) -> RunConfig:
    path = folder / CONFIG
    try:
        config = RunConfig.model_validate(read_json(path))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise Damaged(
            f"{path}: not a run's config: field {place}: {first['msg']}. {renewal(folder)}"
        ) from error
    if config.name != folder.name:
        raise Damaged(
            f"{path}: is the config of {config.name}, but is in {folder.name}. {renewal(folder)}"
        )
    return config


def require_config(folder: Path, config: RunConfig) -> None:
    """Raise Damaged, which names the fields, unless the directory's config.json is this config."""
    try:
        found = read_json(folder / CONFIG)
    except RunError as error:
        raise Damaged(f"{error}. {renewal(folder)}") from error
    expected = config.model_dump(mode="json")
    # A field that is not set may be missing: runs were stored before it existed.
    differing = sorted(key for key in {*found, *expected} if found.get(key) != expected.get(key))
    if differing:
        raise Damaged(
            f"{folder / CONFIG}: field(s) {', '.join(differing)} differ from the requested config, "
            f"under the same address. {renewal(folder)}"
        )


def check_directory(folder: Path, config: RunConfig, listed: Sequence[str]) -> dict[str, Any]:
    """The manifest of a complete directory at `config`'s address; Damaged if a file was changed.

    listed: files that the manifest must have.
    """
    require_config(folder, config)
    return check_manifest(folder, listed=listed)


def move_aside(folder: Path) -> Path:
    """Move a directory of a store to the store's .set-aside/, which nothing reads; its new path."""
    target = folder.parent / SET_ASIDE / f"{folder.name}.{secrets.token_hex(4)}"
    with writing(target):
        target.parent.mkdir(exist_ok=True)
        os.replace(folder, target)
    return target
