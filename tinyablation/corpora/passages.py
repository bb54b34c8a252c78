"""Passages of running text, shipped in corpora/text: JSON lines with id, text and source.

They have no answers and no conditions; claims about a model's loss on text read them.
"""

from json import JSONDecodeError
from pathlib import Path
from typing import NamedTuple

from tinyablation.corpora.examples import CorpusError, parse_json, read_lines, refuse_unknown
from tinyablation.files.hashes import digest
from tinyablation.shipped import CORPORA, shipped

PASSAGES = "text/addresses.jsonl"  # within a folder of corpora


class Passage(NamedTuple):
    """A passage of text; source: what it is from, for a reader."""

    id: str
    text: str
    source: str


def load_passages(corpora: Path, n: int | None = None) -> tuple[Passage, ...]:
    """The first n passages of a folder of corpora (all if None), or those shipped if it has none.

    Raises CorpusError, which names file, line and field, for a line that is no passage, for an id
    or text that occurs twice, and if there are fewer than n.
    """
    path = Path(corpora) / PASSAGES
    if not path.exists():
        path = shipped(f"{CORPORA}/{PASSAGES}")
    found: list[Passage] = []
    for line, text in enumerate(read_lines(path), start=1):
        try:
            passage = _passage(text)
            for field in ("id", "text"):
                if any(getattr(one, field) == getattr(passage, field) for one in found):
                    raise CorpusError(f"field {field!r} occurs in an earlier line too")
        except (CorpusError, JSONDecodeError) as error:
            raise CorpusError(f"{path}, line {line}: {error}") from None
        found.append(passage)
    if not found or (n is not None and len(found) < n):
        raise CorpusError(f"{path}: has {len(found)} passages; {n or 'some'} are needed")
    return tuple(found[:n])


def content_hash(passages: tuple[Passage, ...]) -> str:
    """sha256 of the passages' texts in their order; what a loss on them depends on."""
    return digest([passage.text for passage in passages])


def _passage(text: str) -> Passage:
    row = parse_json(text)
    if not isinstance(row, dict):
        raise CorpusError(f"must be a JSON object, not {type(row).__name__}")
    refuse_unknown(row, Passage._fields)
    for field in Passage._fields:
        if not isinstance(row.get(field), str) or not row[field].strip():
            raise CorpusError(f"field {field!r} must be text that is not empty")
    return Passage(**row)
