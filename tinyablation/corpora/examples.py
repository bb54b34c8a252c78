"""Corpora: examples of one condition for one tokenizer, and their splits, read strictly.

A corpus is JSON lines, one example per line; a split is JSON that maps names to row indices and
holds the corpus's content hash. Two formats are read:

- this project's own: every field present (see `Example`), split names discovery and confirmation.
  Any defect is an error.
- the handover's: only clean, corrupt, target, foil; split names train, val, test. Missing fields
  are filled in (the clean prompt is the cluster), and the known defects of its files are counted in
  `Corpus.defects`: duplicate prompts share a cluster, and rows of the test split that are also in
  train are removed from it, so that no statistic counts them as new evidence.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from tinyablation.errors import TinyAblationError
from tinyablation.files import contents
from tinyablation.files.hashes import text_sha256
from tinyablation.records.conditions import BINDING as BINDING
from tinyablation.records.conditions import CONDITIONS as CONDITIONS
from tinyablation.records.conditions import IN_CONTEXT as IN_CONTEXT
from tinyablation.records.splits import BOTH as BOTH
from tinyablation.records.splits import CONFIRMATION as CONFIRMATION
from tinyablation.records.splits import DISCOVERY as DISCOVERY
from tinyablation.records.splits import SPLITS as SPLITS
from tinyablation.spelling import did_you_mean

_HANDOVER_FIELDS = ("clean", "corrupt", "target", "foil")
_HALF_PAIR = re.compile("[\ud800-\udfff]")
_HANDOVER_SPLITS = {"train": DISCOVERY, "test": CONFIRMATION}


class CorpusError(TinyAblationError):
    """A corpus or split cannot be used; the message names file, line and field."""


@dataclass(frozen=True)
class Example:
    """One clean and corrupt pair. Texts have no BOS; answers include their leading space."""

    clean: str  # the prompt that is measured; `target` is its right answer
    corrupt: str  # its counterpart, for which `foil` is right; "" in prompts given from memory
    null: str  # the same wording about nothing in particular; "" if there is none
    target: str
    foil: str
    fact_id: str  # what the clean prompt is about
    template_id: str  # the wording: "prefix.frame", or "family/wording" where there are families
    cluster_id: str  # examples that share a fact, on either side, share a cluster
    cell: str  # e.g. operator and truth of the clean statement; "" if there is none
    aligned: bool  # clean and corrupt have equal numbers of tokens

    def __post_init__(self) -> None:
        for name in _FIELDS:
            value = getattr(self, name)
            if not isinstance(value, bool if name == "aligned" else str):
                kind = "true or false" if name == "aligned" else "text"
                raise CorpusError(f"field {name!r}: {value!r} is not {kind}")
            if isinstance(value, str) and _HALF_PAIR.search(value):
                raise CorpusError(f"field {name!r}: {value!r} holds half a surrogate pair")
        for name in ("clean", "target", "foil", "cluster_id"):
            if not getattr(self, name).strip():
                raise CorpusError(f"field {name!r} is empty")
        if self.corrupt and not self.corrupt.strip():
            raise CorpusError("field 'corrupt' is empty")
        if self.target == self.foil:
            raise CorpusError(f"field 'foil': {self.foil!r} is the target too")
        if self.clean == self.corrupt:
            raise CorpusError("field 'corrupt': it equals the clean text")

    @property
    def item(self) -> tuple[str, str, str]:
        """What is asked, whatever the wording: cluster, fact and cell."""
        return self.cluster_id, self.fact_id, self.cell

    @property
    def family(self) -> str:
        """The family of prompts within the condition; "" if it has none."""
        return family_of(self.template_id)


def family_of(template_id: str) -> str:
    """The family of a wording: "said" for "said/not-but", "" for "plain.true"."""
    family, slash, _ = template_id.partition("/")
    return family if slash else ""


_FIELDS = tuple(field.name for field in fields(Example))


def contains_word(text: str, answer: str) -> bool:
    """Whether the answer occurs in the text as a word, ignoring case."""
    return next(_places(text, answer), None) is not None


def _places(text: str, answer: str) -> Iterator["re.Match[str]"]:
    # Most answers are in no text asked about, and `in` sees that in a tenth of the time. (Beyond
    # ASCII, letters may be alike that lower() does not make alike.)
    if text.isascii() and answer.isascii() and answer.strip().lower() not in text.lower():
        return iter(())
    return re.finditer(rf"(?<!\w){re.escape(answer.strip())}(?!\w)", text, re.IGNORECASE)


def answer_places(text: str, answer: str) -> list[tuple[int, int]]:
    """The (start, end) of every occurrence of the answer in the text as a word, ignoring case."""
    return [place.span() for place in _places(text, answer)]


def word_after(text: str, place: tuple[int, int]) -> bool:
    """Whether a word follows in the text after that place."""
    return re.search(r"\w", text[place[1] :]) is not None


def answer_fault(condition: str, text: str, answer: str) -> str | None:
    """What is wrong with the occurrences of the answer in a clean or corrupt prompt, or None."""
    places = list(_places(text, answer))
    if condition not in IN_CONTEXT:
        # A questioned statement names its object, but its answer is a label.
        return f"the answer {answer!r} stands in it" if places else None
    if len(places) != 1:
        return f"the answer {answer!r} stands {len(places)} times in it, not once"
    if not word_after(text, places[0].span()):
        return f"it ends with the answer {answer!r}"
    return None


def canonical_lines(examples: Iterable[Example]) -> str:
    """The text a corpus hash is of: one compact JSON object per line, keys in field order."""
    rows = (
        # Not asdict: its deep copies would take half of the time of reading a corpus.
        json.dumps(
            {name: getattr(row, name) for name in _FIELDS},
            ensure_ascii=False,
            separators=(", ", ": "),
        )
        for row in examples
    )
    return "".join(f"{row}\n" for row in rows)


@dataclass(frozen=True)
class Corpus:
    condition: str
    tokenizer: str
    examples: tuple[Example, ...]
    content_hash: str
    defects: tuple[str, ...] = ()

    @property
    def is_crossed(self) -> bool:
        """Whether its prompts form families, with each fact in every wording of its family."""
        return all(example.family for example in self.examples)

    @property
    def is_factorial(self) -> bool:
        """Whether every item stands once in every wording, of which there are several."""
        wordings = sorted({example.template_id for example in self.examples})
        items: dict[tuple[str, str, str], list[str]] = {}
        for example in self.examples:
            items.setdefault(example.item, []).append(example.template_id)
        return len(wordings) > 1 and all(sorted(own) == wordings for own in items.values())

    @classmethod
    def of(
        cls,
        condition: str,
        tokenizer: str,
        examples: Sequence[Example],
        defects: Sequence[str] = (),
    ) -> "Corpus":
        text = canonical_lines(examples)
        digest = text_sha256(text)
        return cls(condition, tokenizer, tuple(examples), digest, tuple(defects))


@dataclass(frozen=True)
class Split:
    seed: int
    data_hash: str
    rows: Mapping[str, tuple[int, ...]]  # row indices of discovery and confirmation, or of others
    defects: tuple[str, ...] = ()

    def of_row(self) -> dict[int, str]:
        """Row -> the name of its split; rows in no split are absent."""
        return {row: name for name, rows in self.rows.items() for row in rows}

    @property
    def content_hash(self) -> str:
        others = sorted(set(self.rows) - {*SPLITS})
        rows = {name: list(self.rows[name]) for name in (*SPLITS, *others)}
        return text_sha256(json.dumps([self.data_hash, rows]))


def _defects(condition: str, examples: Sequence[Example]) -> list[tuple[int, str]]:
    """(row, defect) for defects that involve several examples, and for answers in prompts."""
    found = []
    seen: dict[str, int] = {}
    for number, row in enumerate(examples):
        if row.clean in seen:
            found.append((number, f"field 'clean': the prompt of line {seen[row.clean] + 1} again"))
        seen.setdefault(row.clean, number)
        if row.family:
            continue  # checked as a whole, below
        for side in ("clean", "corrupt"):
            for answer in (row.target, row.foil):
                fault = answer_fault(condition, getattr(row, side), answer)
                if fault is not None:
                    found.append((number, f"field {side!r}: {fault}"))
    return found + list(_unbalanced(examples))


def _unbalanced(examples: Sequence[Example]) -> Iterator[tuple[int, str]]:
    """(row, defect) for answers in prompts of families where a bias would look like knowledge.

    A prompt may contain an answer only if the corrupt prompt is the clean one of another row with
    the answers exchanged, and if, within a family, the target comes first as often as last in
    prompts with both. No prompt may end with one of its answers.
    """
    rows = {(row.clean, row.target, row.foil) for row in examples}
    first: dict[str, list[int]] = {}
    for number, row in enumerate(examples):
        if not row.family:
            continue
        answers = (row.target, row.foil)
        places = [list(_places(row.clean, answer)) for answer in answers]
        if not any(places) and not any(contains_word(row.corrupt, answer) for answer in answers):
            continue
        if any(at and not re.search(r"\w", row.clean[at[-1].end() :]) for at in places):
            yield number, "field 'clean': it ends with one of its answers"
        # With labels the mirror asks the same of other content, and contains no labels.
        if (row.corrupt, row.foil, row.target) not in rows:
            yield (
                number,
                "field 'corrupt': an answer stands in the prompts, and no other row has this "
                "prompt as its clean one, with the answers exchanged",
            )
        if all(places):
            sign = 1 if places[0][0].start() < places[1][0].start() else -1
            first.setdefault(row.family, []).append(sign)
    for family, signs in first.items():
        if sum(signs):
            number = next(n for n, row in enumerate(examples) if row.family == family)
            yield (
                number,
                f"family {family!r}: the target stands first in {signs.count(1)} of {len(signs)} "
                "prompts that have both answers, not in half of them",
            )


def read_lines(path: Path) -> list[str]:
    try:
        text = contents.read_bytes(path).decode("utf-8")
    except FileNotFoundError:
        raise CorpusError(
            f"{path}: no such corpus; `python -m tinyablation corpora build` makes it"
        ) from None
    except OSError as error:
        raise CorpusError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise CorpusError(f"{path}, line {line}: not UTF-8 ({error.reason})") from None
    lines = text.replace("\r\n", "\n").split("\n")
    return lines[:-1] if lines and not lines[-1] else lines


def _unique_fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise CorpusError(f"field {name!r} occurs twice")
        found[name] = value
    return found


def parse_json(text: str) -> Any:
    """The value of a JSON text; CorpusError for duplicate keys, deep nesting, over-long numbers."""
    try:
        return contents.parse_json(text, pairs=_unique_fields)
    except json.JSONDecodeError:
        raise
    except ValueError as error:  # a whole number of more than 4300 digits, or too many levels
        raise CorpusError(f"not JSON ({error})") from None


def refuse_unknown(row: Mapping[str, Any], known: Sequence[str]) -> None:
    for name in row:
        if name not in known:
            raise CorpusError(f"field {name!r} is unknown; {did_you_mean(name, known)}")


def _parse_row(row: Any) -> tuple[Example, bool]:
    """An example, and whether it is in the handover's short format."""
    if not isinstance(row, dict):
        raise CorpusError(f"must be a JSON object, not {type(row).__name__}")
    refuse_unknown(row, _FIELDS)
    short = set(row) <= set(_HANDOVER_FIELDS)
    missing = [name for name in (_HANDOVER_FIELDS if short else _FIELDS) if name not in row]
    if missing:
        raise CorpusError(f"field {missing[0]!r} is missing")
    if row["corrupt"] == "":
        raise CorpusError("field 'corrupt' is empty")
    if short:
        clean = row["clean"]
        texts = {"null": "", "fact_id": clean, "template_id": "", "cluster_id": clean, "cell": ""}
        return Example(**texts, aligned=False, **row), True
    return Example(**row), False


def load_corpus(
    path: Path, *, condition: str | None = None, tokenizer: str | None = None
) -> Corpus:
    """Read a corpus; condition and tokenizer default to the names of the file and its folder."""
    examples: list[Example] = []
    formats = set()
    for number, line in enumerate(read_lines(path), start=1):
        try:
            example, short = _parse_row(parse_json(line))
        except json.JSONDecodeError as error:
            raise CorpusError(f"{path}, line {number}: not JSON ({error.msg})") from None
        except CorpusError as error:
            raise CorpusError(f"{path}, line {number}: {error}") from None
        examples.append(example)
        formats.add(short)
    if not examples:
        raise CorpusError(f"{path}: no examples in it")
    if len(formats) > 1:
        raise CorpusError(f"{path}: some rows have ids and some have none; use one format")
    condition = condition or path.stem
    defects = _defects(condition, examples)
    if defects and not formats.pop():
        number, what = defects[0]
        raise CorpusError(f"{path}, line {number + 1}: {what}")
    counted = [f"{path.name}, line {number + 1}: {what}" for number, what in defects]
    return Corpus.of(condition, tokenizer or path.parent.name, examples, counted)


def _parse_split(data: Any, corpus: Corpus) -> Split:
    if not isinstance(data, dict):
        raise CorpusError("must be a JSON object")
    handover = "train" in data
    names = {**_HANDOVER_SPLITS, "val": "val"} if handover else {name: name for name in SPLITS}
    refuse_unknown(data, ("seed", "data_hash", *names))
    for name in ("seed", "data_hash", *names):
        if name not in data:
            raise CorpusError(f"field {name!r} is missing")
    if not isinstance(data["seed"], int) or isinstance(data["seed"], bool):
        raise CorpusError(f"field 'seed': {data['seed']!r} is not a whole number")
    rows: dict[str, tuple[int, ...]] = {}
    taken: dict[int, str] = {}
    for name, ours in names.items():
        values = data[name]
        if not isinstance(values, list):
            raise CorpusError(f"field {name!r}: must be a list of row indices")
        for row in values:
            whole = isinstance(row, int) and not isinstance(row, bool)
            if not whole or not 0 <= row < len(corpus.examples):
                raise CorpusError(
                    f"field {name!r}: {row!r} is not a row (0 to {len(corpus.examples) - 1})"
                )
            if row in taken:
                raise CorpusError(f"field {name!r}: row {row} is already in {taken[row]!r}")
            taken[row] = name
        rows[ours] = tuple(values)
    defects = []
    if handover:
        # The study hashed its files byte by byte, including newlines, by an unstated method.
        defects.append("the corpus hash of a handover split cannot be checked")
        rows.pop("val")
    elif data["data_hash"] != corpus.content_hash:
        raise CorpusError(
            f"field 'data_hash': made for a corpus {str(data['data_hash'])[:12]}, this one is "
            f"{corpus.content_hash[:12]}; build corpus and split together"
        )
    rows[CONFIRMATION], leaked = _without_leaks(corpus.examples, rows)
    if leaked and not handover:
        raise CorpusError(
            f"field {CONFIRMATION!r}: row {leaked[0]} shares its prompt, fact or cluster with "
            f"{DISCOVERY}"
        )
    if leaked:
        defects.append(f"{len(leaked)} test rows also stand in train and were left out")
    for name in SPLITS:
        if not rows[name]:
            raise CorpusError(f"field {name!r}: no row is left in it")
    return Split(data["seed"], corpus.content_hash, rows, tuple(defects))


def _without_leaks(
    examples: Sequence[Example], rows: Mapping[str, tuple[int, ...]]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(confirmation rows that share nothing with discovery, those that do)."""
    names = ("clean", "fact_id", "cluster_id")
    known = {name: {getattr(examples[row], name) for row in rows[DISCOVERY]} for name in names}
    kept: list[int] = []
    leaked: list[int] = []
    for row in rows[CONFIRMATION]:
        shared = any(getattr(examples[row], name) in known[name] for name in names)
        (leaked if shared else kept).append(row)
    return tuple(kept), tuple(leaked)


def load_split(path: Path, corpus: Corpus) -> Split:
    """Read the split of `corpus`; CorpusError if it was made for other content, or leaks."""
    try:
        return _parse_split(parse_json("\n".join(read_lines(path))), corpus)
    except json.JSONDecodeError as error:
        raise CorpusError(f"{path}, line {error.lineno}: not JSON ({error.msg})") from None
    except CorpusError as error:
        where = "" if str(error).startswith(str(path)) else f"{path}: "
        raise CorpusError(f"{where}{error}") from None


def write_corpus(folder: Path, corpus: Corpus, split: Split) -> None:
    """Write <condition>.jsonl and <condition>.split.json into `folder`, each atomically."""
    rows = {name: list(split.rows[name]) for name in SPLITS}
    data = {"seed": split.seed, "data_hash": corpus.content_hash, **rows}
    texts = {
        f"{corpus.condition}.jsonl": canonical_lines(corpus.examples),
        f"{corpus.condition}.split.json": f"{json.dumps(data)}\n",
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            unfinished = folder / f".{name}.unfinished"
            unfinished.write_bytes(text.encode())
            unfinished.replace(folder / name)
    except OSError as error:
        raise CorpusError(f"{folder}: cannot be written ({error.strerror})") from error
