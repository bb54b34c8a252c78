"""Bundles that were changed by somebody who knows how they are made: every hash is right again."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tinyablation.evidence.archive import unpack, write_archive
from tinyablation.evidence.bundle import PAGE, README, RECORDS, Facts, _crate, _records_text
from tinyablation.evidence.crate import CRATE
from tinyablation.evidence.readme import readme
from tinyablation.files.manifests import MANIFEST
from tinyablation.records.records import read_records
from tinyablation.report.page import write_report
from tinyablation.runs.address import RunConfig


def forged(path: Path, target: Path, change: Callable[[Path], None], *, neat: bool = True) -> Path:
    """A copy of a bundle whose folder was changed; neat: what is made of records is made anew."""
    folder = target.parent / f"{target.stem}-folder"
    folder.mkdir()
    manifest = unpack(path, folder)
    facts = {name: value for name, value in manifest.items() if name not in ("layout", "files")}
    change(folder)
    if neat:
        file = read_records(folder / RECORDS)
        (folder / RECORDS).write_bytes(_records_text(file))
        (folder / README).write_bytes(readme(file))
        write_report(file, folder / PAGE, checked=False)
        paths = [each for each in folder.rglob("*") if each.is_file()]
        names = [each.relative_to(folder).as_posix() for each in paths]
        crate = _crate(file, folder, names, Facts.model_validate(facts))
        (folder / CRATE).write_bytes(crate)
    tests = [record["test"] for record in json.loads((folder / RECORDS).read_text())["records"]]
    write_archive(target, folder, facts | {"tests": tests})
    shutil.rmtree(folder)
    return target


def recorded(**changes: Any) -> Callable[[Path], None]:
    """The first record with other fields."""

    def change(folder: Path) -> None:
        content = json.loads((folder / RECORDS).read_text("utf-8"))
        content["records"][0] |= changes
        (folder / RECORDS).write_text(json.dumps(content), encoding="utf-8")

    return change


def session(**changes: Any) -> Callable[[Path], None]:
    """The session with other fields."""

    def change(folder: Path) -> None:
        content = json.loads((folder / RECORDS).read_text("utf-8"))
        content["session"] |= changes
        (folder / RECORDS).write_text(json.dumps(content), encoding="utf-8")

    return change


def other_weights(hash_: str) -> Callable[[Path], None]:
    """Every weight hash another one, and all that follows: addresses, manifests, records, page."""

    def change(folder: Path) -> None:
        models = json.loads((folder / "models.json").read_text("utf-8"))["models"]
        own = {each["facts"]["weight_hash"] for each in models.values()}
        names = {}
        for run in sorted((folder / "runs").iterdir()):
            config = RunConfig.model_validate_json((run / "config.json").read_bytes())
            names[run.name] = config.model_copy(update={"weight_hash": hash_}).name
        for path in sorted(folder.rglob("*")):
            if path.suffix in (".json", ".html", ".txt"):
                text = path.read_text("utf-8")
                for old in own:
                    text = text.replace(old, hash_)
                for old, new in names.items():
                    text = text.replace(old, new)
                path.write_text(text, encoding="utf-8")
        for old, new in names.items():
            run = (folder / "runs" / old).rename(folder / "runs" / new)
            manifest = json.loads((run / MANIFEST).read_text("utf-8"))
            for name, entry in manifest["files"].items():
                data = (run / name).read_bytes()
                entry |= {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            (run / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")

    return change
