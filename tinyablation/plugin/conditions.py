"""The conditions of a session: the named ones, those of packs, and the user's own.

The user's come from the command (--condition) or from the project's pyproject.toml. They are
collected for every claim about a condition, after the others; `-k NAME` selects them. They have no
predictions, published figures or snapshots.

A pack's are files beside its claims, conditions/NAME.jsonl, written as a user's are. Only claims
whose mark names them are judged on them, and they have predictions and snapshots as named ones do.
"""

from dataclasses import replace
from pathlib import Path

import pytest

from tinyablation.corpora.defects import LEAST_CLUSTERS
from tinyablation.corpora.own_conditions import OwnCondition, read_own
from tinyablation.errors import TinyAblationError
from tinyablation.plugin.command_line import command
from tinyablation.plugin.options import claims_folder, given_path, is_claims_run
from tinyablation.plugin.session_models import registry
from tinyablation.plugin.settings import TABLE, SettingsError, settings
from tinyablation.records.conditions import CONDITIONS

_IN_PACK = "conditions/*.jsonl"
_own_key = pytest.StashKey[dict[str, OwnCondition]]()
_of_packs_key = pytest.StashKey[dict[str, OwnCondition]]()


def own_conditions(config: pytest.Config) -> dict[str, OwnCondition]:
    """The conditions of --condition, by name, each file read once; UsageError if unusable."""
    if _own_key not in config.stash:
        found = _of_settings(config)
        for given in command(config).condition:
            name, sign, path = given.partition("=")
            if not (name and sign and path):
                raise pytest.UsageError(
                    f"--condition {given}: give NAME=FILE, such as ioi=ioi.jsonl"
                )
            if name in found:
                raise pytest.UsageError(
                    f"--condition {given}: {name} is given twice, or by pyproject.toml too"
                )
            try:
                found[name] = read_own(name, given_path(config, path))
            except TinyAblationError as error:
                raise pytest.UsageError(f"--condition {given}: {error}") from error
        config.stash[_own_key] = found
    return config.stash[_own_key]


def _of_settings(config: pytest.Config) -> dict[str, OwnCondition]:
    """The conditions that the project's pyproject.toml names; SettingsError if unusable."""
    found = {}
    for name, path in settings(config).conditions.items():
        try:
            found[name] = read_own(name, path)
        except TinyAblationError as error:
            raise SettingsError(f"pyproject.toml, [{TABLE}]: conditions.{name}: {error}") from error
    return found


def pack_conditions(config: pytest.Config) -> dict[str, Path]:
    """The files of the conditions that the session's packs bring along, by name, in order.

    SettingsError where two packs, or a pack and the user, give one name.
    """
    folder = claims_folder(config)
    found: dict[str, Path] = {}
    for path in sorted([*folder.glob(_IN_PACK), *folder.glob(f"*/{_IN_PACK}")]):
        taken = found.get(path.stem) or own_conditions(config).get(path.stem)
        if taken is not None:
            where = taken if isinstance(taken, Path) else taken.path
            raise SettingsError(f"{path}: {where} is a condition {path.stem!r} too; rename one")
        found[path.stem] = path
    return found


def read_conditions(config: pytest.Config) -> dict[str, OwnCondition]:
    """The user's conditions and the packs', by name, each file read once; CorpusError if broken."""
    of_packs = config.stash.get(_of_packs_key, None)
    if of_packs is None:
        of_packs = {
            name: replace(read_own(name, path), least=LEAST_CLUSTERS)
            for name, path in pack_conditions(config).items()
        }
        config.stash[_of_packs_key] = of_packs
    return {**of_packs, **own_conditions(config)}


def conditions(config: pytest.Config) -> tuple[str, ...]:
    """The conditions on which claims are judged that name none, in order."""
    return (*CONDITIONS, *own_conditions(config))


def condition_options(config: pytest.Config, condition: str) -> list[str]:
    """The options that a command needs besides the node ids of cells of the condition."""
    if condition not in own_conditions(config):
        return []
    given = [one for one in command(config).condition if one.startswith(f"{condition}=")]
    accepted = ["--accept-defects"] if command(config).accept_defects else []
    return [*(word for one in given for word in ("--condition", one)), *accepted]


def pytest_configure(config: pytest.Config) -> None:
    if not is_claims_run(config):
        return
    option = command(config)
    if option.accept_defects and not own_conditions(config):
        raise pytest.UsageError("--accept-defects is about a --condition; give --condition too")
    for name in own_conditions(config):
        _require_readable_ids(config, name)
    try:
        pack_conditions(config)
    except SettingsError as error:
        raise pytest.UsageError(str(error)) from error


def _require_readable_ids(config: pytest.Config, name: str) -> None:
    """Raise UsageError if a cell id, model plus condition, would look like another model's."""
    try:
        models = registry(config).ids
    except TinyAblationError:
        return  # reported at collection
    for model in models:
        for other in models:
            if f"{other}-".startswith(f"{model}-{name}-"):
                raise pytest.UsageError(
                    f"--condition {name}: with the model {model} it would read as {other}; give "
                    "the file another name"
                )
