"""Data files of the study: the rows of one split of a dataset, as a condition to be measured.

    lab/data/corpora/<id>.jsonl      one object a line, with the fields that the config names
    lab/data/splits/<id>.split.json  seed, data_hash, and train, val, test as row indices

Only the split that is asked for is measured, under its own name. What the files have that could
mislead is listed with the rows (`defects`), not refused: their users measure it all the same.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyablation.corpora.defects import FEW, Defect, reader_of, text_defects, token_defects
from tinyablation.corpora.examples import SPLITS, Corpus, CorpusError, Example, Split, parse_json
from tinyablation.corpora.own_conditions import UNNAMED, OwnCondition, clustered
from tinyablation.files import contents
from tinyablation.study.config import DatasetChoice, Request
from tinyablation.study.objects import StudyError, read_object

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from tinyablation.corpora.tokenisation import Encoder

CORPORA = Path("lab", "data", "corpora")
SPLIT_FILES = Path("lab", "data", "splits")
_SPLITS = ("train", "val", "test")
_LEAST_DIGITS = 8  # of a hash that was cut short, to be compared at all


@dataclass(frozen=True)
class StudyCondition(OwnCondition):
    """The rows of one split of a dataset; `halves` is the split's name, `lines` those of the file.

    first_token: leave out rows whose answers are not one token; longest: leave out longer prompts,
    in tokens.
    """

    lines: tuple[int, ...] = ()
    first_token: bool = True
    longest: int | None = None

    def for_tokenizer(
        self, tokenizer: "PreTrainedTokenizerBase", name: str, seed: int
    ) -> tuple[Corpus, Split, tuple[Defect, ...]]:
        """Corpus and split of the rows that can be measured, and what is wrong with any."""
        kept: list[Example] = []
        found: list[Defect] = []
        encoder = reader_of(tokenizer, self.examples)
        for line, row in zip(self.lines, self.examples, strict=True):
            aligned, faults = token_defects(encoder, row)
            out = aligned is None or self._is_left_out(encoder, row, line, found)
            found += (Defect(kind, line, what) for kind, what in faults)
            if not out:
                kept.append(replace(row, aligned=bool(aligned)))
        if not kept:
            why = f"; line {found[0].line}: {found[0].what}" if found else ""
            raise CorpusError(f"{self.path}: no row of {self.halves[0]} is of use for {name}{why}")
        defects = (*self.defects, *found)
        said = [f"{self.path.name}, line {each.line}: {each.what}" for each in defects]
        corpus = Corpus.of(self.name, name, kept, said)
        rows: dict[str, tuple[int, ...]] = dict.fromkeys(SPLITS, ())
        rows[self.halves[0]] = tuple(range(len(kept)))
        return corpus, Split(seed, corpus.content_hash, rows), defects

    def _is_left_out(
        self, tokenizer: "Encoder", row: Example, line: int, found: list[Defect]
    ) -> bool:
        """Whether a row is not measured for its length, which is then added to the defects."""
        from tinyablation.corpora.answers import encode_spans

        spans = [encode_spans(tokenizer, [row], None, side)[0] for side in ("clean", "corrupt")]
        answer = max(len(each) for span in spans for each in (span.target, span.foil))
        if self.first_token and answer > 1:
            kind = "answers of several tokens: left out, for metric_span is first_token"
            found.append(Defect(kind, line, f"an answer is {answer} tokens"))
            return True
        length = max(len(span.ids) for span in spans)
        if self.longest is not None and length > self.longest:
            kind = "prompts longer than max_seq_len: left out, for a cut prompt asks another thing"
            found.append(Defect(kind, line, f"it has {length} tokens"))
            return True
        return False


def read_condition(
    request: Request, root: Path, *, one_token: bool = False, most: int | None = None
) -> StudyCondition:
    """The rows that a request asks for, from the files of its dataset under `root`.

    one_token: leave out rows whose answers are not one token, whatever the config's metric_span.
    most: only the first so many rows of the split. Raises StudyError, which names file, line and
    field.
    """
    wanted = request.settings.dataset
    path = root / CORPORA / f"{wanted.id}.jsonl"
    data, rows, faults, unread = _rows(path, wanted)
    splits = _splits(root / SPLIT_FILES / f"{wanted.id}.split.json", len(rows), data)
    if not splits.rows[wanted.split]:
        raise StudyError(f"{root / SPLIT_FILES / wanted.id}.split.json: {wanted.split}: no rows")
    chosen = splits.rows[wanted.split][:most]
    usable = iter(clustered([row for row in rows if row is not None]))
    examples = [None if row is None else next(usable) for row in rows]
    kept = {row + 1: example for row in chosen if (example := examples[row]) is not None}
    if not kept:
        raise StudyError(f"{path}: no row of {wanted.split} can be measured; {faults[0].what}")
    defects = [
        *(Defect(kind, 0, what) for kind, what in (*splits.faults, *unread)),
        # Of the file as a whole, so that lines are right; but only these rows form clusters.
        *(each for each in faults if each.line - 1 in chosen),
        *(each for each in _text_defects(examples) if each.line in kept and each.kind != FEW),
        *(each._replace(line=0) for each in text_defects([*kept.values()]) if each.kind == FEW),
        *_leaks(examples, splits.rows, wanted.split),
    ]
    return StudyCondition(
        request.condition,
        path,
        tuple(kept.values()),
        tuple(wanted.split for _ in kept),
        tuple(defects),
        lines=tuple(kept),
        first_token=one_token or request.settings.metric_span == "first_token",
        longest=request.settings.max_seq_len,
    )


def _rows(
    path: Path, wanted: DatasetChoice
) -> tuple[bytes, list[Example | None], list[Defect], list[tuple[str, str]]]:
    """The file's bytes; its rows, None where one is no pair of prompts; why; fields not read."""
    try:
        data = contents.read_bytes(path)
        lines = data.decode("utf-8").replace("\r\n", "\n").rstrip("\n").split("\n")
    except FileNotFoundError:
        raise StudyError(
            f"{path}: no such file, which dataset {wanted.id!r} needs; --root names the folder "
            "that has lab/"
        ) from None
    except OSError as error:
        raise StudyError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise StudyError(f"{path}, line {line}: not UTF-8 ({error.reason})") from None
    names = {
        "clean": wanted.clean_field,
        "corrupt": wanted.corrupt_field,
        "target": wanted.target_field,
        "foil": wanted.foil_field,
    }
    found: list[Example | None] = []
    faults: list[Defect] = []
    others: set[str] = set()
    for number, text in enumerate(lines, start=1):
        try:
            row = _fields(parse_json(text), names)
        except json.JSONDecodeError as error:
            raise StudyError(f"{path}, line {number}: not JSON ({error.msg})") from None
        except CorpusError as error:
            raise StudyError(f"{path}, line {number}: {error}") from None
        others |= set(row) - set(names.values())
        try:
            found.append(_example(row, names))
        except CorpusError as error:
            found.append(None)
            faults.append(Defect("rows that are no pair of prompts: left out", number, str(error)))
    unread = [("fields that the config does not name: not read", ", ".join(sorted(others)))]
    return data, found, faults, unread if others else []


def _fields(row: Any, names: Mapping[str, str]) -> dict[str, Any]:
    """A row that has all the fields that the config names."""
    if not isinstance(row, dict):
        raise CorpusError(f"must be a JSON object, not {type(row).__name__}")
    for field in names.values():
        if field not in row:
            has = ", ".join(row) or "none"
            raise CorpusError(f"field {field!r}, which the config names, is missing; it has {has}")
    return row


def _example(row: Mapping[str, Any], names: Mapping[str, str]) -> Example:
    texts = {name: row[field] for name, field in names.items()}
    rest = {"null": "", "fact_id": "", "template_id": "", "cell": "", "cluster_id": UNNAMED}
    return Example(**texts, **rest, aligned=False)


def _text_defects(rows: Sequence[Example | None]) -> list[Defect]:
    """text_defects of a file's rows, by its own lines."""
    lines = [number for number, row in enumerate(rows, start=1) if row is not None]
    found = text_defects([row for row in rows if row is not None])
    return [each._replace(line=lines[each.line - 1]) for each in found]


@dataclass(frozen=True)
class _Splits:
    rows: Mapping[str, tuple[int, ...]]
    faults: tuple[tuple[str, str], ...]


def _splits(path: Path, n_rows: int, data: bytes) -> _Splits:
    content = read_object(path)
    rows: dict[str, tuple[int, ...]] = {}
    taken: dict[int, str] = {}
    for name in _SPLITS:
        values = content.get(name)
        if not isinstance(values, list) or any(type(row) is not int for row in values):
            raise StudyError(f"{path}: {name}: must be a list of row indices")
        for row in values:
            if not 0 <= row < n_rows:
                raise StudyError(f"{path}: {name}: {row} is not a row (0 to {n_rows - 1})")
            if row in taken:
                raise StudyError(f"{path}: {name}: row {row} is already in {taken[row]}")
            taken[row] = name
        rows[name] = tuple(values)
    return _Splits(rows, tuple(_hash_faults(content.get("data_hash"), data)))


def _hash_faults(given: Any, data: bytes) -> list[tuple[str, str]]:
    """What there is to say of a split's data_hash: of which text it is, if of any."""
    text = data.replace(b"\r\n", b"\n")
    ways = {"its bytes": data, "LF": text, "CRLF": text.replace(b"\n", b"\r\n")}
    hashes = {way: hashlib.sha256(each).hexdigest() for way, each in ways.items()}
    if not isinstance(given, str) or len(given) < _LEAST_DIGITS:
        return [("splits without a hash of their corpus", f"data_hash is {given!r}")]
    matching = [way for way, own in hashes.items() if own.startswith(given.lower())]
    if not matching:
        what = f"data_hash {given[:12]} is not the sha256 of the corpus ({hashes['LF'][:12]})"
        return [("splits that may be of another corpus: the hash does not match", what)]
    if "its bytes" in matching:
        return []
    what = f"data_hash is of the text with {matching[0]} line ends"
    return [("splits whose hash is of other line ends", what)]


def _leaks(
    examples: Sequence[Example | None], rows: Mapping[str, Sequence[int]], split: str
) -> list[Defect]:
    """Rows of the split whose prompt also stands in train: no confirmation of what is chosen there.

    None for train itself.
    """
    if split == "train":
        return []
    known = {row.clean for index in rows["train"] if (row := examples[index]) is not None}
    kind = f"rows of {split} whose prompt is also in train"
    return [
        Defect(kind, index + 1, "what was chosen on train is not confirmed by it")
        for index in rows[split]
        if (row := examples[index]) is not None and row.clean in known
    ]
