"""Readings: measurements whose result is a document, stored at their addresses like runs.

<root>/<model>-<battery>-<condition>_<hash>/
    config.json  reading.json  tensors.safetensors (if there are any)  provenance.json  profile.json
    manifest.json (last)
Locks, addresses and errors are those of runs (store.py). A reading is computed in one piece, so
what a killed process left is discarded and recomputed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyablation.engine.document import Computed
from tinyablation.errors import RunError
from tinyablation.files.manifests import (
    MANIFEST,
    Damaged,
    read_json,
    remedy,
    remove_leftovers,
    renewal,
    write_atomic,
    write_json,
    write_manifest,
    writing,
)
from tinyablation.records.plain import plain
from tinyablation.runs import derived as artefacts
from tinyablation.runs.address import RunConfig
from tinyablation.runs.directories import CONFIG, require_config
from tinyablation.runs.store import PROFILE, PROVENANCE, Kept, RunStore

if TYPE_CHECKING:
    import numpy as np


READING = "reading.json"
TENSORS = "tensors.safetensors"
LISTED = (CONFIG, READING, PROVENANCE, PROFILE)  # in every manifest
FILES = (CONFIG, TENSORS, READING, PROVENANCE, PROFILE)  # in the order in which they are written


@dataclass(frozen=True)
class Reading(Kept):
    """A complete reading. Get one from obtain_reading, which checks all its files."""

    def document(self) -> dict[str, Any]:
        """The content of reading.json."""
        return read_json(self.path / READING)

    def tensors(self) -> dict[str, np.ndarray]:
        """The tensors by name; empty if the reading has none."""
        path = self.path / TENSORS
        if not path.is_file():
            return {}
        from safetensors.numpy import load_file

        return dict(load_file(path))


def obtain_reading(
    store: RunStore,
    config: RunConfig,
    compute: Callable[[], Computed],
    circumstances: Callable[[], artefacts.Circumstances] | None = None,
) -> Reading:
    """The reading at `config`'s address: reused if complete, else computed and written.

    Everything the figures depend on must be in `config` (anything without a field goes into the
    battery's name, as a digest). `compute` is called only if there is no complete reading, while
    the lock is held, so that one process computes and the others wait. `circumstances`: as for
    RunStore.obtain.

    Raises RunError if a file of the directory was changed, if the directory belongs to another
    config or has other files, if a tensor has a number that is not finite, and if the lock cannot
    be acquired in time; RecordError for a document that is not plain JSON. A complete reading is
    never recomputed or overwritten.
    """
    store.renew(config, LISTED)
    folder = store.path(config)
    if (folder / MANIFEST).exists():
        return _reuse(store, config)
    with store.lock(config.name):
        if (folder / MANIFEST).exists():
            return _reuse(store, config)
        _begin(folder, config)
        started = time.perf_counter()
        computed = compute()
        seconds = time.perf_counter() - started
        names = [CONFIG, READING, PROVENANCE, PROFILE]
        if computed.tensors:
            names.append(TENSORS)
            data = _serialised(folder, computed.tensors)
            write_atomic(folder / TENSORS, lambda handle: handle.write(data), durable=False)
        write_json(folder / READING, plain(computed.document, "document"), durable=False)
        found = circumstances() if circumstances else artefacts.NOTHING_MORE
        write_json(folder / PROVENANCE, artefacts.provenance(config, found), durable=False)
        profile = {
            "seconds_total": round(seconds, 6),
            "peak_rss_bytes": artefacts.peak_resident_bytes(),
        }
        write_json(folder / PROFILE, profile | dict(found.profile), durable=False)
        facts = {"run": config.name, "hash": config.hash, "finished": artefacts.utc_now()}
        write_manifest(folder, names, facts)
    return _reuse(store, config)


def _reuse(store: RunStore, config: RunConfig) -> Reading:
    folder, files = store.path(config), store.check(config, LISTED)["files"]
    if (folder / TENSORS).exists() and TENSORS not in files:
        raise Damaged(f"{folder / TENSORS}: is not in {MANIFEST}. {renewal(folder)}")
    return Reading(folder, config)


def _begin(folder: Path, config: RunConfig) -> None:
    """Prepare an empty directory with its config, and remove what an earlier attempt wrote."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder)
    if (folder / CONFIG).exists():
        require_config(folder, config)
    strange = sorted({path.name for path in folder.iterdir()} - set(FILES))
    if strange or (not (folder / CONFIG).exists() and any(folder.iterdir())):
        held = strange or sorted(path.name for path in folder.iterdir())
        raise RunError(
            f"{folder}: holds {held}, but is not an unfinished reading. {remedy(folder)}"
        )
    for name in FILES[1:]:
        (folder / name).unlink(missing_ok=True)
    write_json(folder / CONFIG, config.model_dump(mode="json"))


def _serialised(folder: Path, tensors: Mapping[str, np.ndarray]) -> bytes:
    import numpy as np
    from safetensors.numpy import save

    arrays = {name: np.ascontiguousarray(tensors[name]) for name in sorted(tensors)}
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise RunError(
                f"{folder / TENSORS}: {name!r} holds a number that is not finite; nothing is "
                "written"
            )
    return bytes(save(arrays))
