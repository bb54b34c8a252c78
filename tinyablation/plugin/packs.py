"""Packs of claims: packages that distributions offer by the entry point `tinyablation.claims`.

    [project.entry-points."tinyablation.claims"]
    suppressors = "tinyablation.packs.suppressors"

A pack is a package of test files with predictions.toml, subjects.toml and published.toml beside
them, as claims/suppressors/ is. pytest runs it by its name:
`pytest --pyargs tinyablation.packs.suppressors`.
Nothing of a pack is imported here: its files are found, and read as text.
"""

import importlib.metadata
import importlib.util
from collections.abc import Mapping
from pathlib import Path

import pytest

from tinyablation.plugin.claim_files import written

GROUP = "tinyablation.claims"


_packs_key = pytest.StashKey[Mapping[str, Path]]()
_ids_key = pytest.StashKey[Mapping[str, frozenset[str]]]()


def packs(config: pytest.Config) -> Mapping[str, Path]:
    """The folders of the installed packs, by name; those that cannot be found are left out."""
    if _packs_key not in config.stash:
        found = {}
        for entry in importlib.metadata.entry_points(group=GROUP):
            try:
                spec = importlib.util.find_spec(entry.module)
            except (ImportError, ValueError):
                continue
            if spec is not None and spec.submodule_search_locations:
                found[entry.name] = Path(spec.submodule_search_locations[0]).resolve()
        config.stash[_packs_key] = found
    return config.stash[_packs_key]


def pack_of(config: pytest.Config, path: Path) -> str | None:
    """The name of the pack that a test file belongs to."""
    known = packs(config).items()
    return next((name for name, folder in known if path.resolve().is_relative_to(folder)), None)


def claims_of_packs(config: pytest.Config) -> Mapping[str, frozenset[str]]:
    """The claim ids of each installed pack; none where they are not all written out."""
    if _ids_key not in config.stash:
        config.stash[_ids_key] = {
            name: written(folder).claims or frozenset() for name, folder in packs(config).items()
        }
    return config.stash[_ids_key]
