"""The parent run of several conditions: matrices of head and layer impact from the single runs."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyablation.engine.tables import (
    HEAD_MATRIX_COLUMNS,
    LAYER_MATRIX_COLUMNS,
    write_table,
)
from tinyablation.errors import RunError
from tinyablation.files.manifests import (
    MANIFEST,
    check_manifest,
    read_json,
    remove_leftovers,
    write_json,
    write_manifest,
)
from tinyablation.records.conditions import CONDITIONS
from tinyablation.runs.address import parent_name
from tinyablation.runs.derived import utc_now
from tinyablation.runs.store import HEAD_IMPACT, LAYER_IMPACT

if TYPE_CHECKING:
    import pandas as pd

    from tinyablation.runs.store import Run, RunStore

CONFIG = "config.json"
HEAD_MATRIX = "artifacts/cross_condition/head_matrix.parquet"
LAYER_MATRIX = "artifacts/cross_condition/layer_matrix.parquet"
_LOG = logging.getLogger(__name__)


def ordered(conditions: Iterable[str]) -> list[str]:
    """The conditions in the study's order, then any others by name."""
    found = set(conditions)
    return [name for name in CONDITIONS if name in found] + sorted(found - {*CONDITIONS})


def write_cross_condition(store: RunStore, runs: Mapping[str, Run]) -> Path:
    """Write, or find, the parent run of complete single-condition runs; return its directory.

    It is made only from the children's head and layer impact tables, so it is rewritten if one of
    its files is missing or a child was measured again. Raises RunError if one of its files was
    EDITED, or if children differ in more than condition, corpus and split.
    """
    name = parent_name({condition: run.config for condition, run in runs.items()})
    folder = Path(store.root) / name
    with store.lock(name):
        config = _config(runs)
        if (folder / MANIFEST).exists():
            if stands(store, folder, config):
                return folder
            _LOG.warning("%s: rewritten from its single runs", name)
            (folder / MANIFEST).unlink(missing_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
        write_json(folder / CONFIG, config)
        heads = _matrix({name: run.head_impact() for name, run in runs.items()})
        layers = _matrix({name: run.layer_impact() for name, run in runs.items()})
        write_table(folder / HEAD_MATRIX, heads, HEAD_MATRIX_COLUMNS)
        write_table(folder / LAYER_MATRIX, layers, LAYER_MATRIX_COLUMNS)
        facts: dict[str, Any] = {"run": name, "finished": utc_now()}
        write_manifest(folder, (CONFIG, HEAD_MATRIX, LAYER_MATRIX), facts)
    return folder


def _config(runs: Mapping[str, Run]) -> dict[str, Any]:
    children = {}
    for condition in ordered(runs):
        run = runs[condition]
        files = check_manifest(run.path, listed=(HEAD_IMPACT, LAYER_IMPACT))["files"]
        children[condition] = {
            "run": run.name,
            "head_impact_sha256": files[HEAD_IMPACT]["sha256"],
            "layer_impact_sha256": files[LAYER_IMPACT]["sha256"],
        }
    first = next(iter(runs.values())).config
    return {"model": first.model, "battery": first.battery, "children": children}


def stands(store: RunStore, folder: Path, config: dict[str, Any]) -> bool:
    """Whether a parent run is complete and has this config.

    An edited file raises Damaged, or the run is moved aside (see RunStore.is_sound).
    """
    files = read_json(folder / MANIFEST).get("files", {})
    if not all((folder / name).is_file() for name in files):
        return False
    # An edited file is an error and not overwritten.
    return store.is_sound(folder.name, lambda: check_manifest(folder)) and (
        read_json(folder / CONFIG) == config
    )


def _matrix(impacts: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    import pandas as pd

    if not impacts:
        raise RunError("no single-condition run given: nothing to combine")
    return pd.concat(
        [impacts[name].assign(condition=name) for name in ordered(impacts)], ignore_index=True
    )
