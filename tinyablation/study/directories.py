"""Directories of a config's runs, by its run_name, with the files that the study's users look for.

<root>/<run_name>_<hash>/, and <run_name>_<tag>_<hash>/ for a condition of several:
    config.json  metrics/{summary.json,{head_impact,layer_impact,per_example}.parquet}
    artifacts/impact_heatmap.{png,html}  provenance.json  profile.json  verify.json
    manifest.json (last), with what was not done as the config asks
    and, only while incomplete: partial_summary.json
The parent of several conditions: artifacts/cross_condition/{head_matrix,layer_matrix}.parquet and
summary.json.

They are made from the runs of the store, which lie beside them and are never measured twice.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyablation.engine.tables import write_table
from tinyablation.errors import RunError
from tinyablation.files.hashes import HASH_DIGITS, digest
from tinyablation.files.manifests import (
    MANIFEST,
    path_fault,
    read_json,
    remove_leftovers,
    write_atomic,
    write_json,
    write_manifest,
    writing,
)
from tinyablation.runs.across_conditions import HEAD_MATRIX, LAYER_MATRIX, stands
from tinyablation.runs.derived import utc_now
from tinyablation.runs.directories import CONFIG
from tinyablation.runs.heatmaps import draw_html, draw_png
from tinyablation.runs.shards import PARTIAL_SUMMARY
from tinyablation.runs.store import (
    HEAD_IMPACT,
    HEATMAP_HTML,
    HEATMAP_PNG,
    LAYER_IMPACT,
    PER_EXAMPLE,
    PROFILE,
    PROVENANCE,
    SUMMARY,
    VERIFY,
)
from tinyablation.study import tables
from tinyablation.study.heatmaps import panels_of

if TYPE_CHECKING:
    from tinyablation.runs.address import RunConfig
    from tinyablation.runs.store import Run, RunStore
    from tinyablation.study.batteries import Asked
    from tinyablation.study.config import Config, Request

CROSS_SUMMARY = "artifacts/cross_condition/summary.json"
_COPIED = (PER_EXAMPLE, PROVENANCE, PROFILE, VERIFY)
_DRAWN = (HEATMAP_PNG, HEATMAP_HTML)
_FILES = (CONFIG, *_COPIED, HEAD_IMPACT, LAYER_IMPACT, *_DRAWN, SUMMARY)


@dataclass(frozen=True)
class Written:
    """A directory of one run of a config: its request, battery and run in the store."""

    path: Path
    request: Request
    asked: Asked
    run: Run


def place(store: RunStore, request: Request, measured: RunConfig) -> Path:
    """The directory of a request that is measured at this address."""
    name = "_".join(filter(None, (request.run_name, request.tag)))
    return Path(store.root) / f"{name}_{digest(_asked(request, measured))[:HASH_DIGITS]}"


def measured_in(folder: Path) -> Path:
    """The directory of the store that a directory of this module is made from; itself if none."""
    try:
        run = read_json(folder / CONFIG).get("run")
    except RunError:
        return folder
    return folder.parent / run if isinstance(run, str) and not path_fault(run) else folder


def _asked(request: Request, measured: RunConfig) -> dict[str, Any]:
    return {
        "run_name": request.run_name,
        "tag": request.tag,
        "settings": request.settings.model_dump(mode="json"),
        "battery": request.battery.model_dump(mode="json"),
        "run": measured.name,
    }


def write_run(
    store: RunStore, request: Request, asked: Asked, run: Run, facts: Mapping[str, Any]
) -> Written:
    """Write, or find, the directory of a request whose run is complete.

    facts: for its manifest, such as what was changed. Raises RunError if a file of it was EDITED.
    """
    folder = place(store, request, run.config)
    config = _asked(request, run.config)
    written = Written(folder, request, asked, run)
    with store.lock(folder.name):
        if (folder / MANIFEST).exists():
            if stands(store, folder, config):
                return written
            (folder / MANIFEST).unlink(missing_ok=True)
        _begin(folder, config)
        for name in _COPIED:
            target = folder / name
            with writing(target):
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(run.path / name, target)
        settings, table = request.settings, run.table()
        metrics = settings.wanted_metrics
        same = {"run_id": folder.name, "seed": run.config.seed}
        heads, layers = tables.impact(request.battery, asked, table, metrics, **same)
        described = tables.described(request.battery)
        write_table(folder / HEAD_IMPACT, heads, list(heads.columns), described)
        write_table(folder / LAYER_IMPACT, layers, list(layers.columns), described)
        drawn = panels_of(request.battery, heads, layers)
        png = draw_png(drawn, folder.name)
        html = draw_html(drawn, folder.name).encode()
        write_atomic(folder / HEATMAP_PNG, lambda handle: handle.write(png))
        write_atomic(folder / HEATMAP_HTML, lambda handle: handle.write(html))
        found = tables.summary(asked, table, metrics, [run.config.seed])
        write_json(folder / SUMMARY, found | {"baseline": run.summary()})
        own = {"run": folder.name, "measured_as": run.name, "finished": utc_now(), **facts}
        write_manifest(folder, _FILES, own)
        (folder / PARTIAL_SUMMARY).unlink(missing_ok=True)
    return written


def write_partial(store: RunStore, request: Request, measured: RunConfig, reason: str) -> Path:
    """Leave a note in the directory of a request whose measurement ended early; its path."""
    folder = place(store, request, measured)
    if not (folder / MANIFEST).exists():
        with store.lock(folder.name):
            _begin(folder, _asked(request, measured))
            note = {"state": "not finished", "reason": reason, "updated": utc_now()}
            shards = Path(store.root) / measured.name
            write_json(folder / PARTIAL_SUMMARY, note | {"continued_in": shards.name})
    return folder


def write_parent(
    store: RunStore, config: Config, runs: Sequence[Written], facts: Mapping[str, Any]
) -> Path:
    """Write, or find, the directory over the conditions of a config; see the module."""
    children = {each.request.tag: each.path.name for each in runs}
    hashes = {each.path.name: read_json(each.path / MANIFEST)["files"] for each in runs}
    content = {"config": dict(config.content), "children": children, "files": hashes}
    folder = Path(store.root) / f"{config.run_name}_{digest(content)[:HASH_DIGITS]}"
    with store.lock(folder.name):
        if (folder / MANIFEST).exists():
            if stands(store, folder, content):
                return folder
            (folder / MANIFEST).unlink(missing_ok=True)
        _begin(folder, content)
        for name, source in ((HEAD_MATRIX, HEAD_IMPACT), (LAYER_MATRIX, LAYER_IMPACT)):
            _matrix(folder / name, runs, source)
        summaries = {each.request.tag: read_json(each.path / SUMMARY) for each in runs}
        about = {"run_name": config.run_name, "conditions": list(children), "child_runs": children}
        write_json(folder / CROSS_SUMMARY, {**about, "summaries": summaries})
        files = (CONFIG, HEAD_MATRIX, LAYER_MATRIX, CROSS_SUMMARY)
        write_manifest(folder, files, {"run": folder.name, "finished": utc_now(), **facts})
    return folder


def _begin(folder: Path, config: Mapping[str, Any]) -> None:
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder)
    write_json(folder / CONFIG, dict(config))


def _matrix(path: Path, runs: Sequence[Written], source: str) -> None:
    """The tables of all runs below one another, with the tag of each."""
    import pandas as pd

    parts = [
        pd.read_parquet(each.path / source).assign(condition=each.request.tag) for each in runs
    ]
    # Tables without rows would turn the columns of the others into objects.
    filled = [part for part in parts if len(part)] or parts[:1]
    frame = pd.concat(filled, ignore_index=True)
    described = tables.described(runs[0].request.battery)
    write_table(path, frame, list(frame.columns), described)
