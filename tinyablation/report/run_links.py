"""Links from a page to the run directories that its figures were made from.

Where the folders of runs are, seen from the page, stands in its body tag and nowhere else. A link
names a folder by its number, and the page's script puts the two together when a test case is
opened, so the same page serves in another folder once its body tag is another.
"""

import json
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from markupsafe import Markup

from tinyablation.files.contents import parse_json, read_bytes
from tinyablation.files.manifests import MANIFEST

# Files of a run directory that a reader may want to see: tables, and how they came to be.
LINKED = (".parquet", "config.json", "provenance.json", "verify.json", "reading.json")
_BODY = re.compile(rb'<body data-runs="[^"]*">')


class RunPlace(NamedTuple):
    """In which folder of runs a run directory is, and those of its files that are linked."""

    folder: int = 0
    files: Sequence[str] = ()


def run_places(names: Iterable[str], folders: Sequence[Path]) -> dict[str, RunPlace]:
    """The complete run directories that lie in one of `folders`, by name.

    One that lies in none is left out: records may be read elsewhere than where they were measured.
    """
    found = {}
    for name in sorted(set(names)):
        for number, folder in enumerate(folders):
            try:
                content = parse_json(read_bytes(folder / name / MANIFEST))
                listed = sorted(str(path) for path in content["files"])
            except (OSError, ValueError, KeyError, TypeError):
                continue
            found[name] = RunPlace(number, [file for file in listed if file.endswith(LINKED)])
            break
    return found


def seen_from(page: Path, folders: Sequence[Path]) -> list[str]:
    """The folders as relative addresses from a page."""
    return [Path(os.path.relpath(folder, page.parent)).as_posix() for folder in folders]


def body_tag(runs: Sequence[str]) -> Markup:
    """The body tag of a page with the folders of runs, seen from it."""
    return Markup('<body data-runs="{}">').format(json.dumps(list(runs)))


def moved(page: bytes, runs: Sequence[str]) -> bytes:
    """The page as it is where its folders of runs are seen as `runs`."""
    tag = body_tag(runs).encode("utf-8")
    return _BODY.sub(lambda _: tag, page, count=1)
